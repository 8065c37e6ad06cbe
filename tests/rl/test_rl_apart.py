"""Environments that end the program, crash or hang are one message; in a process of their own they give the same results."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cosearch.cli.app import main
from cosearch.config.env import EnvConfig
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvFamily
from cosearch.rl.task import make_task
from cosearch.testing.conformance import play, random_actions, same_steps
from latency_tables.errors import ConfigError, EnvironmentFailedError, UnknownNameError

load_builtins()


def task(name, limit_s=60.0, num_envs=3, **kwargs):
    return make_task(EnvConfig(name, kwargs=kwargs, step_limit_s=limit_s), num_envs, 5)


@pytest.mark.parametrize(
    "name", ["gym:CartPole-v1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gym:Pendulum-v1", "minatar:breakout"))]
)
def test_in_a_process_of_their_own_environments_give_the_same_steps(name):
    if name.startswith("minatar"):
        pytest.importorskip("minatar", reason="MinAtar is not installed")
    here, apart = task(name, None), task(name)
    try:
        facts = ("num_envs", "frame_shape", "num_actions", "action_box", "first_action", "exact_resume", "solved_at", "endless")
        assert all(getattr(here, fact) == getattr(apart, fact) for fact in facts)
        draws = np.random.default_rng(0)
        actions, more = random_actions(here, draws, 40), random_actions(here, draws, 10)
        assert same_steps(play(here, actions), play(apart, actions))
        state = apart.state()
        wanted = play(here, more)
        assert same_steps(play(apart, more), wanted)
        apart.restore(state)
        assert same_steps(play(apart, more), wanted)
    finally:
        here.close()
        apart.close()


def stepped(env, steps=8):
    try:
        for _ in range(steps):
            env.send(np.zeros(env.num_envs, np.int64))
            env.receive()
    finally:
        env.close()


@pytest.mark.parametrize(
    "how, limit_s, words",
    [
        ("exit", None, r"ended the program: SystemExit\(0\)"),
        pytest.param("exit", 60.0, r"SystemExit\(0\)", marks=pytest.mark.slow),
        ("os_exit", 60.0, r"ended its process during a step, with exit code 0"),
        ("hang", 0.5, r"a step took more than 0.5 s; env.step_limit_s sets the limit"),
    ],
)
def test_an_environment_that_leaves_is_one_message(how, limit_s, words):
    began = time.monotonic()
    with pytest.raises(EnvironmentFailedError, match=words):
        stepped(task("gym:own_envs:Leaves-v0", limit_s, how=how, at=4))
    assert time.monotonic() - began < 60


def test_errors_of_the_request_come_through_as_they_are():
    with pytest.raises(UnknownNameError, match="Gymnasium has no environment"):
        task("gym:NoSuchThing-v9")
    with pytest.raises(ConfigError, match=r"env\.kwargs"):
        task("gym:own_envs:Picture-v0", nothing=1)


def test_a_family_that_cannot_be_sent_says_so(monkeypatch):
    family = EnvFamily("local", "", ("one",), lambda game, options: None)
    monkeypatch.setattr("cosearch.rl.task.split_name", lambda name: (family, "one"))
    with pytest.raises(ConfigError, match=r"env\.step_limit_s needs a process of its own for local:one"):
        task("local:one")


def test_a_command_whose_environment_ends_the_program_fails(tmp_path, capsys):
    words = ["search", "--env", "gym:own_envs:Leaves-v0", "--runs", str(tmp_path), "--run", "one", "threads=1"]
    assert main([*words, "objective.latency_ratio=2", "env.kwargs.at=2"]) == 1
    assert "SystemExit(0)" in capsys.readouterr().err


def test_a_library_that_ends_the_program_ends_no_command_with_success(monkeypatch, capsys):
    def leave(*words, **options):
        raise SystemExit(0)

    monkeypatch.setattr("cosearch.planning.task.resolve_task", leave)
    assert main(["search", "--dry-run"]) == 1 and "ended from inside, SystemExit(0)" in capsys.readouterr().err


@pytest.mark.slow  # a Python process that starts another
def test_a_script_that_its_own_process_runs_again_is_told_to_guard_its_calls(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from cosearch.config.env import EnvConfig\nfrom cosearch.planning.builtins import load_builtins\n"
        "from cosearch.rl.task import make_task\nload_builtins()\n"
        "make_task(EnvConfig(name='gym:CartPole-v1', step_limit_s=10.0), 1, 0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith('put its calls under if __name__ == "__main__":')
    assert done.stderr.count("Traceback") == 2  # the error and what caused it; none of the other process
