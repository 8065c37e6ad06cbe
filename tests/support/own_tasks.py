"""Small Gymnasium environments that only a function of this module makes: ``own_tasks:grid``, ``own_tasks:leaky`` and others."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Told(gymnasium.Env):
    """Observations come from a function of the step number; an episode ends after ``length`` steps, or never."""

    def __init__(self, space, seen, length=5, actions=None):
        self.observation_space, self.action_space = space, actions or spaces.Discrete(2)
        self.seen, self.length = seen, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(0), {}

    def step(self, action):
        self.steps += 1
        return self.seen(self.steps), 1.0, self.length is not None and self.steps >= self.length, False, {}


def counter(length=5, low=0.0, high=100.0, dtype="float32", shape=(2,)):
    """Shows its step number in each of the shape's places."""
    dtype = np.dtype(dtype)
    return Told(
        spaces.Box(dtype.type(low), dtype.type(high), tuple(shape), dtype), lambda step: np.full(shape, step, dtype), length
    )


def leaky(megabytes=1.0):
    """A counter whose every step keeps that much memory."""
    kept = []

    def seen(step):
        kept.append(np.ones(int(megabytes * 2**17)))
        return np.zeros(2, np.float32)

    return Told(spaces.Box(-1.0, 1.0, (2,), np.float32), seen)


class OldStyle:
    """An environment in the style of Gym 0.21: no seed at a reset, four values a step."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2)
    metadata, reward_range, spec = {}, (-1.0, 1.0), None

    def __init__(self, accepts_seed=False):
        self.accepts_seed = accepts_seed

    def reset(self, **given):
        if given and not self.accepts_seed:
            raise TypeError(f"reset() got an unexpected keyword argument {next(iter(given))!r}")
        self.steps = 0
        return (np.zeros(2, np.float32), {}) if self.accepts_seed else np.zeros(2, np.float32)

    def step(self, action):
        self.steps += 1
        return np.full(2, self.steps / 10, np.float32), 1.0, self.steps >= 5, {}

    def seed(self, seed=None):
        return [seed]

    def render(self, mode="human"):
        return None

    def close(self):
        return None


def old_style(accepts_seed=False):
    """:class:`OldStyle` as it is."""
    return OldStyle(accepts_seed)


def compatible():
    """:class:`OldStyle` through Gymnasium's compatibility."""
    import gym
    import shimmy

    env = OldStyle()
    env.observation_space, env.action_space = gym.spaces.Box(-1.0, 1.0, (2,)), gym.spaces.Discrete(2)
    return shimmy.GymV21CompatibilityV0(env=env)


def no_environment():
    """Something else."""
    return {}
