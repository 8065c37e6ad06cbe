"""Vector observations and continuous actions: the environment contract, replays, clipping, and bootstrapping at time limits."""

import gymnasium
import numpy as np
import pytest
import torch

from cosearch.planning.builtins import load_builtins
from cosearch.rl.env_families import gym
from cosearch.rl.env_families.replayed import ReplayedEnvs
from cosearch.rl.envs import ENVIRONMENTS, Box, CheckedEnv, EnvOptions, Step, make_env
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.space.parts import Part
from cosearch.testing.conformance import check_environment, play, random_actions, same_steps, seeded
from latency_tables.errors import EnvironmentFailedError, ShapeError

load_builtins()
GAMES = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "MountainCarContinuous-v0"]


@pytest.mark.parametrize("game", GAMES)
def test_classic_control_conforms(game):
    check_environment(ENVIRONMENTS.get("gym"), game)


def test_lunar_lander_conforms_where_box2d_is_installed():
    for package in ("Box2D", "pygame"):
        pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[box2d]')")
    check_environment(ENVIRONMENTS.get("gym"), "LunarLander-v3", steps=150)


@pytest.mark.parametrize("game", ["CartPole-v1", "Pendulum-v1"])
def test_a_save_at_any_step_of_several_episodes_replays(game):
    env, other = (make_env(f"gym:{game}", EnvOptions(3, seed)) for seed in (1, 2))
    actions = random_actions(env, np.random.default_rng(0), 330)
    for start in range(0, 300, 50):
        play(env, actions[start : start + 50])
        state = env.state()
        other.restore(state)
        rest = actions[start + 50 : start + 80]
        assert same_steps(play(other, rest), play(env, rest))
        env.restore(state)


def test_vectors_are_float32_and_actions_have_a_box():
    env = make_env("gym:Pendulum-v1", EnvOptions(2, 0))
    assert env.frame_shape == (3,) and env.observe().dtype == np.float32 and env.observe().shape == (2, 3)
    assert env.num_actions == 1 and env.action_box == Box((-2.0,), (2.0,))
    assert make_env("gym:CartPole-v1", EnvOptions(2, 0)).action_box is None


class Thermostat(gymnasium.Env):
    """Shows the last action twice and the step count, pays the first component; never terminates."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([2, 3]))

    def __init__(self, bad=None):
        self.bad = bad

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(5), {}

    def step(self, action):
        assert action.dtype == np.float32 and self.action_space.contains(action)
        self.count += 1
        seen = np.array([*action, *action, self.count], dtype=np.float64)
        if self.bad and self.count == 2:
            seen = self.bad(seen)
        return seen, float(action[0]), False, False, {}


def thermostat(limit=None, bad=None, num_envs=2):
    def make():
        env = Thermostat(bad)
        return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)

    return CheckedEnv(ReplayedEnvs(make, lambda o: np.array(o, np.float32), EnvOptions(num_envs, 0)), "gym:thermostat")


def test_actions_are_clipped_to_the_box_at_the_environment():
    env = thermostat()
    env.send(np.array([[-9.0, 9.0], [0.5, 1.5]], dtype=np.float32))
    assert env.receive().frames[:, :2].tolist() == [[-1.0, 3.0], [0.5, 1.5]]


@pytest.mark.parametrize(
    "bad, text",
    [
        (lambda o: o * np.nan, "not finite"),
        (lambda o: np.full(5, np.inf), "not finite"),
        (lambda o: o[:4], r"an observation has the shape \(4,\), the first one had \(5,\)"),
        (lambda o: o[:1], r"an observation has the shape \(1,\), the first one had \(5,\)"),
    ],
    ids=["nan", "inf", "shape", "stretched"],
)
def test_a_broken_vector_is_refused(bad, text):
    env = thermostat(bad=bad)
    play(env, random_actions(env, np.random.default_rng(0), 1))
    with pytest.raises(EnvironmentFailedError, match=text):
        play(env, random_actions(env, np.random.default_rng(0), 1))


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8])
def test_vectors_of_another_dtype_are_taken_as_float32(dtype, monkeypatch):
    class Counter(Thermostat):
        observation_space = gymnasium.spaces.Box(0, 100, (5,), dtype)

        def reset(self, *, seed=None, options=None):
            return np.arange(5).astype(dtype), {}

    monkeypatch.setitem(gymnasium.registry, "Counter-v0", gymnasium.envs.registration.EnvSpec("Counter-v0", Counter))
    frames = make_env("gym:Counter-v0", EnvOptions(2, 0)).observe()
    assert frames.dtype == np.float32 and frames.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0]] * 2


def test_frames_of_another_dtype_or_shape_and_boxes_of_another_length_are_refused():
    class Doubles:
        num_envs, frame_shape, num_actions, exact_resume, action_box = 1, (2,), 2, True, Box((0.0,), (1.0,))

        def observe(self):
            return np.zeros((1, 2))

    with pytest.raises(EnvironmentFailedError, match="2 action components, but bounds for 1"):
        CheckedEnv(Doubles(), "gym:doubles")
    Doubles.num_actions = 1
    with pytest.raises(EnvironmentFailedError, match="frames as float64"):
        CheckedEnv(Doubles(), "gym:doubles").observe()
    for shape in ((), (2, 2), (1, 1, 1, 1)):
        Doubles.frame_shape = shape
        with pytest.raises(ShapeError, match=r"images .*, vectors .* or packed parts"):
            CheckedEnv(Doubles(), "gym:doubles")
    Doubles.frame_shape = (1, 8)  # packed parts, of which it names none
    with pytest.raises(EnvironmentFailedError, match=r"frames \(1, 8\), but declares .* the parts \[\]"):
        CheckedEnv(Doubles(), "gym:doubles")
    Doubles.parts = (Part("state", "vector", (2,)),)
    assert CheckedEnv(Doubles(), "gym:doubles").parts == Doubles.parts
    Doubles.frame_shape = (1, 4)
    with pytest.raises(EnvironmentFailedError, match=r"frames \(1, 4\), but declares .* the parts \['state'\]"):
        CheckedEnv(Doubles(), "gym:doubles")


@pytest.mark.parametrize("low, high", [((), ()), ((0.0,), (0.0,)), ((0.0,), (1.0, 2.0))])
def test_a_box_without_room_is_refused(low, high):
    with pytest.raises(ShapeError, match="low < high"):
        Box(low, high)


def test_a_time_limit_of_a_vector_environment_bootstraps_from_the_last_vector():
    gamma, steps = 0.9, 6
    env = thermostat(limit=3, num_envs=1)

    def actor(frames):  # the value of a vector is its step count
        return torch.zeros(len(frames), 4) + torch.tensor([0.0, 1.0, -9.0, -9.0]), frames[:, 4]

    rollout = Collector(env, steps, gamma=gamma, lam=1.0, scale=RewardScale(1, gamma, 1.0), generator=seeded(0)).collect([actor])
    assert rollout.frames.shape == (6, 1, 5) and rollout.frames.dtype == torch.float32
    assert rollout.actions.shape == (6, 1, 2) and rollout.actions.dtype == torch.float32
    reward = rollout.actions[:, 0, 0].clamp(-1, 2)
    for start in (0, 3):  # two episodes, each cut after three steps: its value goes on with V(last vector) = 3
        wanted, later = [], 3.0
        for r in reversed(reward[start : start + 3].tolist()):
            later = r + gamma * later
            wanted.append(later)
        np.testing.assert_allclose(rollout.target[start : start + 3, 0], wanted[::-1], rtol=1e-5)


def test_the_recorded_log_probability_is_that_of_the_action_before_clipping():
    env = thermostat(num_envs=4)

    def actor(frames):
        return torch.tensor([1.5, 2.5, 1.0, 0.5]).repeat(len(frames), 1), frames[:, 4]

    rollout = Collector(env, 5, gamma=0.9, lam=1.0, scale=RewardScale(4, 0.9, 1.0), generator=seeded(0)).collect([actor])
    law = torch.distributions.Normal(torch.tensor([1.5, 2.5]), torch.tensor([1.0, 0.5]).exp())
    torch.testing.assert_close(rollout.log_prob, law.log_prob(rollout.actions).sum(-1))
    assert (rollout.actions[..., 0] > 2.0).any()  # outside the box: what the environment saw was clipped


def test_last_frames_of_vectors_are_checked_too():
    class Careless(ReplayedEnvs):
        def receive(self):
            step = super().receive()
            last = {i: frame[:2] for i, frame in step.last_frames.items()}
            return Step(step.frames, step.reward, step.terminated, step.truncated, last)

    inner = Careless(lambda: gymnasium.wrappers.TimeLimit(Thermostat(), 1), lambda o: np.array(o, np.float32), EnvOptions(1, 0))
    env = CheckedEnv(inner, "gym:careless")
    env.send(np.zeros((1, 2), np.float32))
    with pytest.raises(EnvironmentFailedError, match="a last frame"):
        env.receive()


def test_each_warning_of_mujoco_is_told_once_and_leaves_no_file(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    monkeypatch.chdir(tmp_path)
    gym._warn_once.cache_clear()  # others may have been told before
    envs = [make_env("gym:HalfCheetah-v5", EnvOptions(2, seed)) for seed in (0, 1)]
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("MuJoCo: ")]
    assert len(told) == len(set(told)) and not list(tmp_path.iterdir())
    import mujoco

    mujoco.get_mju_user_warning()("a new one")  # what MuJoCo itself calls
    assert [record.getMessage() for record in caplog.records][-1] == "MuJoCo: a new one"
    for one in envs:
        one.close()
