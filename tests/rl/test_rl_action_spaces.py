"""Where discrete actions begin and where the bounds of vectors lie: both reach the environment, and the exported agent's rule."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from cosearch.deploy.player import ActingRule, read_rule
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import Box, EnvOptions, make_env
from cosearch.rl.policy import how_to_act
from latency_tables.errors import ConfigError, EnvironmentFailedError, ShapeError

load_builtins()


class Told(gymnasium.Env):
    """Shows the action that it was sent; refuses one that is not in its space."""

    def __init__(self, action_space, shown=(1,), declared=(1,)):
        self.action_space, self.observation_space = action_space, spaces.Box(-1e9, 1e9, declared, np.float32)
        self.shown = shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape if self.shown == (1,) else self.shown, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action} is not in {self.action_space}"
        return np.full(self.shown, np.ravel(action)[0], np.float32), 0.0, False, False, {}


def told(request_id, action_space, **more):
    name = f"Told{request_id}-v0"
    gymnasium.register(name, entry_point=lambda: Told(action_space, **more), disable_env_checker=True)
    try:
        return make_env(f"gym:{name}", EnvOptions(3, 0))
    finally:
        gymnasium.registry.pop(name)


@pytest.mark.parametrize("start", [0, -1, 7])
def test_discrete_actions_begin_where_the_space_says(start):
    env = told("Start", spaces.Discrete(3, start=start))
    env.send(np.array([0, 1, 2]))
    assert env.receive().frames[:, 0].tolist() == [start, start + 1, start + 2]
    state, other = env.state(), told("Start", spaces.Discrete(3, start=start))
    other.restore(state)
    assert other.observe().tolist() == env.observe().tolist()
    assert how_to_act(env).get("first_action", 0) == start


@pytest.mark.parametrize("low, high", [(50, 100), (1, 10), (-0.01, 0.01), (0, 500), (-20, -10)])
def test_a_box_that_a_standard_normal_does_not_reach_is_scaled_to(low, high):
    env = told("Box", spaces.Box(low, high, (1,), np.float32))
    env.send(np.array([[-1.0], [1.0], [0.0]], np.float32))
    np.testing.assert_allclose(env.receive().frames[:, 0], [low, high, (low + high) / 2], rtol=1e-6)
    env.send(np.array([[-3.0], [3.0], [0.5]], np.float32))
    np.testing.assert_allclose(env.receive().frames[:, 0], [low, high, low + 0.75 * (high - low)], rtol=1e-6)


@pytest.mark.parametrize("low, high", [([0, -100, 0.1], [0.1, 3, 0.3]), ([-0.1, -0.7, 0], [0.7, 0.1, 1 / 3])])
def test_actions_lie_within_bounds_that_float32_does_not_have(low, high, tmp_path):
    space = spaces.Box(np.array(low), np.array(high), dtype=np.float64)
    env = told("Double", space)
    for sent in (-1e6, -1.0, 1.0, 1e6):  # Told refuses what its space does not contain
        env.send(np.full((3, 3), sent, np.float32))
        env.receive()
    (tmp_path / "agent.json").write_text(json.dumps({"acting": {"rule": "argmax", **how_to_act(env)}}))
    rule = read_rule(tmp_path / "agent.json")
    for sent in (-1e6, 1e6):
        played = np.clip(rule.scale * np.full(3, sent) + rule.shift, rule.low, rule.high).astype(np.float32)
        assert space.contains(played) and np.array_equal(played, env.action_box.from_policy(np.full((1, 3), sent))[0])
        np.testing.assert_allclose(played, low if sent < 0 else high, atol=1e-5)


@pytest.mark.parametrize(
    "low, high", [(-1, 1), (-2, 2), (-0.4, 0.4), (0, 1), (-np.inf, np.inf), (-1.7e308, 1.7e308), (0, np.inf)]
)
def test_a_box_that_it_reaches_is_clipped_to_as_before(low, high):
    low, high = (float(np.float32(bound)) if abs(bound) < 3e38 else float(bound) for bound in (low, high))
    box = Box((low,), (high,))
    drawn = np.random.default_rng(0).normal(0, 2, (100, 1)).astype(np.float32)
    assert not box.is_scaled
    assert np.array_equal(box.from_policy(drawn), np.clip(drawn, np.float32(max(low, -3e38)), np.float32(min(high, 3e38))))


@pytest.mark.parametrize("low, high", [(50, np.inf), (-np.inf, -3), (1e7, 2e7)])
def test_a_bound_that_is_not_reached_and_cannot_be_scaled_is_refused(low, high):
    with pytest.raises((ConfigError, ShapeError), match=r"component 0 of the actions has the bounds .* does not reach them"):
        told("Half", spaces.Box(low, high, (1,), np.float32))


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=4), st.integers(0, 99))
def test_the_rule_of_an_exported_agent_acts_as_the_environment_does(tmp_path_factory, bounds, seed):
    """Oracle: numpy on the numbers in agent.json."""
    low, high = zip(*((a, min(a + width, 1e6) + 1e-3) for a, width in bounds))
    box = Box(tuple(low), tuple(high)) if max(map(abs, (*low, *high))) <= 1e6 else None
    if box is None:
        return

    class Env:
        action_box, num_actions = box, len(low)

    path = tmp_path_factory.mktemp("rule") / "agent.json"
    path.write_text(json.dumps({"acting": {"rule": "sample", **how_to_act(Env())}}))
    rule = read_rule(path)
    drawn = np.random.default_rng(seed).normal(0, 2, (5, len(low))).astype(np.float32)
    ours = np.clip(rule.scale * drawn + rule.shift, rule.low, rule.high)
    np.testing.assert_allclose(ours, box.from_policy(drawn), rtol=1e-5, atol=1e-6)
    assert (box.from_policy(drawn) >= np.float32(low)).all() and (box.from_policy(drawn) <= np.float32(high)).all()


def test_the_rule_of_discrete_actions_names_the_first(tmp_path):
    path = tmp_path / "agent.json"
    path.write_text(json.dumps({"acting": {"rule": "sample", "policy": "categorical", "first_action": -1}}))
    assert read_rule(path) == ActingRule("sample", "categorical", first_action=-1)


def test_observations_have_the_declared_shape_and_keep_it():
    with pytest.raises(EnvironmentFailedError, match=r"declares observations of the shape \(3,\), but gives \(2,\)"):
        told("Declared", spaces.Discrete(2), shown=(2,), declared=(3,))
    env = told("Stretched", spaces.Discrete(2), shown=(1,), declared=(3,))
    env.send(np.array([0, 1, 0]))
    with pytest.raises(EnvironmentFailedError, match=r"an observation has the shape \(1,\), the first one had \(3,\)"):
        env.receive()
