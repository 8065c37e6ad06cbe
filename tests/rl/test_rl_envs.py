"""Environments: exact resume, disjoint levels, time limits with their last frame, and a clear error for a broken one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cosearch.rl.env_families.gym
import cosearch.rl.env_families.minatar
import cosearch.rl.env_families.procgen  # noqa: F401  registers its family
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import ENVIRONMENTS, EnvFamily, EnvOptions, make_env
from cosearch.testing.conformance import check_environment, play, same_steps
from cosearch.testing.toys import SignalEnv

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"minatar": "minatar", "ale": "ale_py", "procgen": "procgen"}
NO_IMAGES = {"gym"}  # its games are anything; its own behaviour is tested below on a game made here


def games():
    for family in ENVIRONMENTS.entries():
        if family.name not in NO_IMAGES:
            for game in family.games[:1] if family.is_open else family.games:
                yield pytest.param(family, game, id=f"{family.name}:{game}")


@pytest.mark.parametrize("family, game", list(games()))
def test_every_registered_game_conforms(family, game):
    if family.name in PACKAGES and family.name != "procgen":
        pytest.importorskip(PACKAGES[family.name], reason=f"the package of {family.name} is not installed")
    check_environment(family, game, steps=40)


def test_the_toys_conform():
    load_builtins()  # before the registry is put aside: a module registers itself once a process
    for game in ("signal", "limit"):
        with pytest.MonkeyPatch.context() as patch:
            family = EnvFamily("toy", "toys", ("signal", "limit"), SignalEnv)
            patch.setattr(ENVIRONMENTS, "_entries", {**ENVIRONMENTS._entries, "toy": family})
            check_environment(family, game)


@pytest.mark.slow
def test_a_procgen_state_goes_on_the_same_in_another_process(tmp_path):
    env = make_env("procgen:starpilot", EnvOptions(2, 3))
    actions = np.random.default_rng(0).integers(0, 15, (60, 2))
    play(env, actions[:30])
    torch.save(env.state(), tmp_path / "state.pt")
    wanted = play(env, actions[30:])
    code = (
        "import sys, numpy, torch\nimport cosearch.rl.env_families.procgen\nfrom cosearch.rl.envs import EnvOptions, make_env\n"
        "from cosearch.testing.conformance import play\n"
        "env = make_env('procgen:starpilot', EnvOptions(2, 99))\nenv.restore(torch.load(sys.argv[1] + '/state.pt'))\n"
        "steps = play(env, numpy.random.default_rng(0).integers(0, 15, (60, 2))[30:])\n"
        "numpy.savez(sys.argv[1] + '/steps.npz', *[part for step in steps for part in step])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    found = np.load(tmp_path / "steps.npz")
    parts = [part for step in wanted for part in step]
    assert len(found.files) == len(parts) and all(np.array_equal(found[f"arr_{i}"], part) for i, part in enumerate(parts))


def levels(env, steps):
    """Level seeds that the engine itself reports while random actions are played."""
    engine, seen, stream = env.env._env, set(), np.random.default_rng(0)
    for _ in range(steps):
        seen |= {info["level_seed"] for info in engine.get_info()}
        env.send(stream.integers(0, 15, env.num_envs))
        env.receive()
    return seen


def test_training_and_test_levels_of_procgen_never_meet():
    train, test = (make_env("procgen:leaper", EnvOptions(8, 0, train_levels=20, test=test)) for test in (False, True))
    seen, held_out = levels(train, 120), levels(test, 120)
    assert seen <= set(range(20)) and len(seen) > 8
    assert min(held_out) >= 20 and len(held_out) > 8


def test_procgen_never_reports_a_truncation_and_names_its_shape():
    env = make_env("procgen:coinrun", EnvOptions(2, 0))
    assert env.frame_shape == (64, 64, 3) and env.num_actions == 15 and env.exact_resume
    steps = play(env, np.random.default_rng(0).integers(0, 15, (50, 2)))
    assert not any(truncated.any() for *_, truncated in steps)


def test_minatar_frames_are_bytes_and_its_test_games_are_others():
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    train, test = (make_env("minatar:breakout", EnvOptions(2, 0, test=test)) for test in (False, True))
    assert train.frame_shape == (10, 10, 4) and set(np.unique(train.observe())) == {0, 255}
    actions = np.random.default_rng(0).integers(0, train.num_actions, (80, 2))
    assert not same_steps(play(train, actions), play(test, actions))


@pytest.mark.parametrize("game", ["breakout", "asterix", "freeway", "seaquest", "space_invaders"])
def test_minatar_replays_at_any_step_of_several_episodes(game):
    # the sticky action of the step before must not reach into an episode: it would be lost in a replay
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    env, other = (make_env(f"minatar:{game}", EnvOptions(4, seed)) for seed in (1, 2))
    actions = np.random.default_rng(0).integers(0, env.num_actions, (330, 4))
    for start in range(0, 300, 30):
        play(env, actions[start : start + 30])
        state = env.state()
        other.restore(state)
        assert same_steps(play(other, actions[start + 30 : start + 45]), play(env, actions[start + 30 : start + 45]))
        env.restore(state)
