"""The bundle's runner: what it takes and refuses, its self-test with an action mask, and its control loop."""

import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from bundle_run import make_run, observations, runner, spoil_array
from report_fake_run import change

from cosearch.api import load_agent
from cosearch.cli.app import main
from cosearch.deploy.bundle.folder import BundleOptions, write_bundle
from latency_tables.errors import NonFiniteError, RequestError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of an agent with vectors in and out."""
    return make_run(tmp_path_factory.mktemp("runner") / "run", "gaussian").path


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """The bundle of an agent with an action mask."""
    return make_run(tmp_path_factory.mktemp("masked") / "run", "masked").path / "agent"


def started(folder, *words):
    """The runner in a process of its own."""
    command = [sys.executable, "-I", str(folder / "run_agent.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def only_allowed(change):
    """A change of the logits of the actions that the mask allows."""
    return lambda f: spoil_array(f, "logits", lambda v: np.where(v > -1e7, change(v), v).astype(np.float32))


def allow_another(f):
    """Let the stored logits allow an action that the mask forbids."""
    spoil_array(f, "logits", lambda v: np.where(np.arange(v.size).reshape(v.shape) == np.flatnonzero(v < -1e7)[0], 0.0, v))


MASK_FAULTS = {
    "other logits": (only_allowed(lambda v: v + 0.1), r"error: observation 0: logits differs by 0\.1, at most 0\.\d+ is allowed"),
    "forbids another": (allow_another, r"error: observation \d+: logits differs by 1e\+08, at most 0\.\d+ is allowed"),
    "other action": (
        lambda f: spoil_array(f, "actions", lambda v: (v + 1) % 4),
        r"error: observation \d: actions differs by \d, at most 0\.5",
    ),
}


@pytest.mark.parametrize("fault", MASK_FAULTS)
def test_a_mask_hides_no_difference(masked, tmp_path, fault):
    folder = Path(shutil.copytree(masked, tmp_path / "agent"))
    stored = np.load(folder / "self_test" / "logits.npy")
    assert stored.min() < -1e7 and stored.max() > 1  # some are forbidden, and the tolerance is a share of the allowed ones
    done = started(folder, "--self-test")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("ok: 64 observations, largest difference 0 of")
    only_allowed(lambda v: v + 5e-5)(folder)
    assert started(folder, "--self-test").returncode == 0
    spoil, message = MASK_FAULTS[fault]
    spoil(folder)
    done = started(folder, "--self-test")
    assert (done.returncode, done.stdout) == (1, "") and re.match(message, done.stderr), done.stderr


def test_the_runner_takes_vectors_of_any_numbers_as_the_player_does(run):
    space = runner(run / "agent")
    agent, player = space["Agent"](str(run / "agent")), load_agent(run)
    for dtype in (np.uint8, np.bool_, np.int64, np.float64):
        seen = np.array([[0, 1, 1], [1, 0, 1]], dtype)
        np.testing.assert_allclose(agent.act(seen, greedy=True), player.act(seen, greedy=True), rtol=1e-6)
    with pytest.raises(space["AgentError"], match=r"takes \[batch, 3\] in float32, got \[1, 3\] in <U1"):
        agent.act(np.array([["a", "b", "c"]]))


def test_the_player_remembers_no_outputs_that_are_not_finite(tmp_path):
    run = make_run(tmp_path / "run", "memory").path
    agent, other, good = load_agent(run), load_agent(run), observations("memory", 2)
    for one in (agent, other):
        one.act(good[:1])
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        agent(np.full(3, np.nan, np.float32))
    found, wanted = agent.outputs(good[1:]), other.outputs(good[1:])
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_the_runner_draws_no_noise_of_1(tmp_path):
    folder = make_run(tmp_path / "run", options=BundleOptions(actions="sampled")).path / "agent"
    agent = runner(folder)["Agent"](str(folder))
    agent.random = types.SimpleNamespace(random_sample=lambda size: np.full(size, 1 - 2.0**-26))  # 1 in float32
    chosen = agent.act(observations("categorical", 20))
    assert agent._last["noise"].dtype == np.float32 and agent._last["noise"].max() < 1 and chosen.max() < 4


def test_an_agent_that_takes_its_best_action_has_no_sampled_one(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    change(run.path, "agent.json", acting__rule="argmax")
    with pytest.raises(RequestError, match="this agent takes its best action and draws none: give --actions greedy or outside"):
        write_bundle(run, observations("categorical"), BundleOptions(actions="sampled"))
    assert main(["export", str(run.path), "--actions", "sampled"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--actions greedy or outside, got sampled" in said
    for actions in ("greedy", "outside"):
        assert write_bundle(run, observations("categorical"), BundleOptions(actions=actions)).is_dir()


@pytest.mark.parametrize("kind", ["gaussian", "memory"])
def test_outputs_that_are_not_finite_give_no_action_and_are_not_remembered(tmp_path, kind):
    folder = make_run(tmp_path / "run", kind).path / "agent"
    space = runner(folder)
    agent, other = space["Agent"](str(folder)), space["Agent"](str(folder))
    good = observations(kind, 3)
    for one in (agent, other):
        one.act(good[:1])
    for greedy in (False, True):
        with pytest.raises(space["AgentError"], match=r"the agent's \w+ is NaN or infinite; an observation with NaN in it"):
            agent(np.full(3, np.nan, np.float32), greedy=greedy)
    agent.warm_up()
    found, wanted = agent.outputs(good[1:2]), other.outputs(good[1:2])
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "words, message",
    [
        (("--time", "-1"), "--time needs seconds above 0, got -1"),
        (("--time", "0"), "--time needs seconds above 0, got 0"),
        (("--time", "nan"), "--time needs seconds above 0, got nan"),
        (("--cpu", "-1"), "--cpu needs the number of a processor that is there, got -1: "),
        (("--cpu", "99999"), "--cpu needs the number of a processor that is there, got 99999: "),
    ],
)
def test_wrong_words_are_one_line(run, words, message):
    done = started(run / "agent", *words)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    if words == ("--time", "-1"):
        assert started(run / "agent", "--time", "1e-9").returncode == 0  # one decision of each kind


class Clock:
    """Time that passes when somebody sleeps, or a little at each look."""

    def __init__(self):
        self.now_s, self.slept = 100.0, []

    def perf_counter(self):
        self.now_s += 1e-6
        return self.now_s

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds + 5e-5 * (seconds > 0)  # it always sleeps a little longer


def test_a_loop_wakes_early_warms_up_and_waits_for_the_moment(run):
    space, clock, warmed = runner(run / "agent"), Clock(), []
    space["time"] = clock
    begin = clock.now_s
    moments = space["every"](0.02, lambda: warmed.append(clock.now_s), lead_s=0.002)
    for i in range(1, 4):
        late_s = next(moments)
        assert 0 <= late_s < 1e-5 and clock.now_s == pytest.approx(begin + 0.02 * i, abs=3e-5)
        assert warmed[-1] == pytest.approx(begin + 0.02 * i - 0.002, abs=1e-4) and len(warmed) == i
        clock.now_s += 0.001
    plain = space["every"](0.02)
    assert next(plain) == pytest.approx(5e-5, abs=2e-5)  # without it the wake-up is part of the delay


def test_a_missed_moment_is_not_made_up_for(run):
    space, clock = runner(run / "agent"), Clock()
    space["time"] = clock
    moments = space["every"](0.02)
    next(moments)
    for overrun_s in (0.07, 0.05):  # the moment was 0.02 s after the one before
        clock.now_s += overrun_s
        at = clock.now_s
        late_s = next(moments)
        assert clock.now_s - at < 1e-3 and late_s == pytest.approx(overrun_s - 0.02, abs=1e-3)
    assert next(moments) == pytest.approx(0.0, abs=1e-3)
    assert clock.now_s - at == pytest.approx(0.02, abs=1e-3)
