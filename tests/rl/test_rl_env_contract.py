"""The contract of environments: time limits with their last frame, replays, and a clear error for whatever breaks it."""

import builtins
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import cosearch.rl.env_families.gym
import cosearch.rl.env_families.minatar
import cosearch.rl.env_families.procgen  # noqa: F401  registers its family
from cosearch.planning.builtins import load_builtins
from cosearch.rl.env_families.replayed import ReplayedEnvs
from cosearch.rl.envs import ENVIRONMENTS, CheckedEnv, EnvFamily, EnvOptions, Step, _warn_once, make_env, split_name
from cosearch.testing.toys import SignalEnv
from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]


class Counter(gymnasium.Env):
    """Shows its step count; terminates at ``length`` unless a wrapper cuts it before; one pixel also shows the seed."""

    observation_space = gymnasium.spaces.Box(0, 255, (3, 2, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, length=10**6, noisy=False):
        self.length, self.noisy, self.count = length, noisy, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.seed_shown = 0, int(self.np_random.integers(256))
        return self._see(), {}

    def _see(self):
        frame = np.full((3, 2, 1), self.count, np.uint8)
        frame[0, 0] = np.random.default_rng().integers(256) if self.noisy else self.seed_shown
        return frame

    def step(self, action):
        self.count += 1
        return self._see(), float(action), self.count >= self.length, False, {}


def replayed(limit=None, num_envs=2, seed=0, **kwargs):
    def make():
        env = Counter(**kwargs)
        return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)

    return CheckedEnv(ReplayedEnvs(make, np.asarray, EnvOptions(num_envs, seed)), "gym:counter")


def steps_of(env, n, action=1):
    found = []
    for _ in range(n):
        env.send(np.full(env.num_envs, action))
        found.append(env.receive())
    return found


def test_a_time_limit_hands_over_the_last_frame_and_resets_in_the_same_step():
    env = replayed(limit=3)
    first, second, third = steps_of(env, 3)
    assert not first.truncated.any() and not second.last_frames
    assert third.truncated.all() and not third.terminated.any() and sorted(third.last_frames) == [0, 1]
    assert all(frame[2, 1, 0] == 3 for frame in third.last_frames.values())
    assert (third.frames[:, 2, 1, 0] == 0).all()  # already the next episode
    assert np.array_equal(env.observe(), third.frames) and third.reward.tolist() == [1.0, 1.0]
    assert steps_of(env, 1)[0].frames[0, 2, 1, 0] == 1


def test_a_termination_is_no_truncation_even_when_both_come_together():
    for limit in (None, 3):
        last = steps_of(replayed(limit=limit, length=3), 3)[-1]
        assert last.terminated.all() and not last.truncated.any() and last.last_frames == {}


@pytest.mark.parametrize("error", [RuntimeError("stuck"), SystemExit(0)], ids=["error", "exit"])
def test_all_environments_are_closed_even_where_one_raises(error, caplog):
    closed = []

    class Sticks(Counter):
        def close(self):
            closed.append(self)
            if len(closed) == 2:
                raise error

    _warn_once.cache_clear()
    CheckedEnv(ReplayedEnvs(Sticks, np.asarray, EnvOptions(3, 0)), "gym:sticks").close()
    assert len(closed) == 3 and "gym:sticks" in caplog.text and "could not be closed" in caplog.text


def test_each_episode_and_each_environment_has_a_seed_of_its_own():
    env = replayed(length=2, num_envs=3)
    shown = [tuple(int(f[0, 0, 0]) for f in env.observe())]
    shown += [tuple(int(f[0, 0, 0]) for f in step.frames) for step in steps_of(env, 12)[1::2]]
    assert len({value for row in shown for value in row}) > 12 and shown == [
        tuple(int(f[0, 0, 0]) for f in frames)
        for frames in [
            replayed(length=2, num_envs=3).observe(),
            *[s.frames for s in steps_of(replayed(length=2, num_envs=3), 12)[1::2]],
        ]
    ]


def test_a_restored_time_limit_counts_on():
    env = replayed(limit=5)
    steps_of(env, 3)
    other = replayed(limit=5, seed=9)
    other.restore(env.state())
    assert (
        [s.truncated.all() for s in steps_of(other, 3)] == [s.truncated.all() for s in steps_of(env, 3)] == [False, True, False]
    )


def test_an_environment_that_does_not_replay_begins_its_episodes_anew():
    env = replayed(noisy=True)
    steps_of(env, 2)
    begun, episodes = 0, env.state()["episodes"].sum()
    for _ in range(8):  # the noise may hit the saved byte by chance
        begun += len(env.restore(env.state()))
    assert begun and env.state()["episodes"].sum() == episodes + begun
    assert not len(replayed().restore(replayed().state()))


class Broken(SignalEnv):
    """A toy that breaks its contract in one chosen way."""

    def __init__(self, fault):
        super().__init__("limit", EnvOptions(2, 0))
        self.fault = fault

    def receive(self):
        step = super().receive()
        values = {name: getattr(step, name) for name in step.__dataclass_fields__}
        values["truncated"], values["last_frames"] = np.array([True, False]), {0: step.frames[0]}
        self.fault(values)
        return Step(**values)


def raising(error):
    def fault(values):
        raise error

    return fault


@pytest.mark.parametrize(
    "fault, text",
    [
        (lambda v: v.update(frames=v["frames"].astype(np.float32)), "float32"),
        (lambda v: v.update(frames=v["frames"][:, :-1]), r"\(2, 5, 6, 1\), expected uint8 \(2, 6, 6, 1\)"),
        (lambda v: v.update(frames=None), "NoneType"),
        (lambda v: v.update(reward=v["reward"].astype(np.float64)), "reward as float64"),
        (lambda v: v.update(reward=np.array([0, np.nan], np.float32)), "not finite"),
        (lambda v: v.update(reward=np.array([0, np.inf], np.float32)), "not finite"),
        (lambda v: v.update(reward=v["reward"][:1]), "reward"),
        (lambda v: v.update(terminated=v["terminated"].astype(np.int8)), "terminated as int8"),
        (lambda v: v.update(truncated=[True, False]), "truncated as list"),
        (lambda v: v.update(last_frames={}), "last frame"),
        (lambda v: v.update(last_frames={0: v["frames"][0], 1: v["frames"][1]}), "last frame"),
        (lambda v: v.update(last_frames={0: v["frames"]}), "last frame"),
        (raising(RuntimeError("engine died")), "engine died"),
        (raising(KeyError("lost")), "lost"),
        (raising(gymnasium.error.Error("closed")), "closed"),
    ],
)
def test_a_broken_environment_is_an_error_that_names_it(fault, text):
    env = CheckedEnv(Broken(fault), "toy:broken")
    env.observe()
    env.send(np.zeros(2, np.int64))
    with pytest.raises(EnvironmentFailedError, match=text) as caught:
        env.receive()
    assert "toy:broken" in str(caught.value)


def test_a_whole_environment_passes_the_same_checks():
    env = CheckedEnv(Broken(lambda values: None), "toy:whole")
    env.send(np.zeros(2, np.int64))
    assert list(env.receive().last_frames) == [0]


def test_an_environment_that_cannot_be_made_is_an_error(monkeypatch):
    def make(game, options):
        raise KeyError("no display")

    load_builtins()  # before the registry is put aside: a module registers itself once a process
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {"bad": EnvFamily("bad", "fails", ("game",), make)})
    with pytest.raises(EnvironmentFailedError, match="bad:game failed: KeyError"):
        make_env("bad:game", EnvOptions(1, 0))


@pytest.mark.parametrize(
    "name, text",
    [
        ("procgen:starpilto", "procgen:starpilot"),
        ("procgn:starpilot", "procgen"),
        ("starpilot", "FAMILY:GAME"),
        ("minatar:breakot", "minatar:breakout"),
        ("", "FAMILY:GAME"),
        ("procgen:", "list envs"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, text):
    with pytest.raises(UnknownNameError, match=text):
        split_name(name)


def test_open_families_pass_other_names_on():
    assert split_name("gym:Anything-v9")[1] == "Anything-v9"
    with pytest.raises(UnknownNameError, match="Anything-v9"):
        make_env("gym:Anything-v9", EnvOptions(1, 0))
    for game in ("FrozenLake-v1", "Blackjack-v1"):  # a number, a tuple
        with pytest.raises(ConfigError, match=r"uint8 images .* or a Box of one dimension"):
            make_env(f"gym:{game}", EnvOptions(1, 0))


@pytest.mark.parametrize(
    "name, module, command",
    [
        ("minatar:breakout", "minatar", "pip install 'cosearch[minatar]'"),
        ("ale:Pong", "ale_py", "pip install 'cosearch[atari]'"),
        ("procgen:maze", "procgen", "pip install procgen-mirror"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, name, module, command):
    real = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted.split(".")[0] == module:
            raise ImportError(f"No module named {module!r}")
        return real(wanted, *args, **kwargs)

    for loaded in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as caught:
        make_env(name, EnvOptions(1, 0))
    assert command in str(caught.value)


def test_importing_procgen_leaves_the_module_table_as_it_was():
    code = (
        "import sys\nfrom cosearch.rl.env_families.procgen import _import_procgen\n_import_procgen()\n"
        "assert 'gym' not in sys.modules and 'gym.envs' not in sys.modules and 'procgen' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "" and done.stdout == ""
