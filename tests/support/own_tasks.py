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


def counter(length=5, low=0.0, high=100.0, dtype="float32", shape=(2,), start=0):
    """Shows its step number in each of the shape's places; its two actions begin at ``start``."""
    dtype = np.dtype(dtype)
    return Told(
        spaces.Box(dtype.type(low), dtype.type(high), tuple(shape), dtype),
        lambda step: np.full(shape, step, dtype),
        length,
        spaces.Discrete(2, start=start),
    )


def bits(count=4, dtype="int8"):
    """Shows its step number in binary, the lowest digit first."""
    return Told(spaces.MultiBinary(count), lambda step: np.array([step >> i & 1 for i in range(count)], dtype))


class Sticks(Told):
    """A counter that cannot be closed, and breaks at a step."""

    def step(self, action):
        if self.steps == 8:
            raise ValueError("the real error")
        return super().step(action)

    def close(self):
        raise RuntimeError("sticks")


def sticks():
    """:class:`Sticks` on vectors of zeros."""
    return Sticks(spaces.Box(-1.0, 1.0, (2,), np.float32), lambda step: np.zeros(2, np.float32), None)


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


# --- tasks of every kind of observation and action, each with a best return of 8 that a short training reaches


class Match(gymnasium.Env):
    """Eight steps; at each a hidden number says what is right, the observation shows it, and the action earns up to 1.

    Attributes:
        hidden: draws the hidden number from a generator.
        show: hidden number -> observation.
        worth: (hidden number, action) -> reward, at most 1.
        allowed: hidden number -> action mask; None: all actions are allowed.
    """

    def __init__(self, observations, actions, hidden, show, worth, allowed=None):
        self.observation_space, self.action_space = observations, actions
        self.hidden, self.show, self.worth, self.allowed = hidden, show, worth, allowed

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._next()

    def _next(self):
        self.now = self.hidden(self.np_random)
        info = {} if self.allowed is None else {"action_mask": self.allowed(self.now)}
        return self.show(self.now), info

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        if self.allowed is not None:
            assert self.allowed(self.now)[action], f"{action} is forbidden"
        reward = float(self.worth(self.now, action))
        self.steps += 1
        return *(found := self._next())[:1], reward, self.steps >= 8, False, found[1]


def lit(side, column, channels=None, dtype=np.uint8, bright=255):
    """A dark square picture with one bright column."""
    picture = np.zeros((side, side) if channels is None else (side, side, channels), dtype)
    picture[:, column] = bright
    return picture


def dictionary():
    """A picture and a vector, both needed: right is whether the bright column is left, exchanged where the vector says so."""
    observations = spaces.Dict(
        {
            "pixels": spaces.Box(0, 255, (8, 8, 1), np.uint8),
            "sign": spaces.Box(-9, 9, (2,), np.int64),
            "noise": spaces.Discrete(3),
        }
    )

    def show(now):
        return {"pixels": lit(8, now[0], 1), "sign": np.array([now[1] * 5 - 2, 1]), "noise": now[2]}

    return Match(
        observations,
        spaces.Discrete(2),
        lambda random: (int(random.integers(8)), int(random.integers(2)), int(random.integers(3))),
        show,
        lambda now, action: action == ((now[0] < 4) ^ now[1]),
    )


def masked():
    """Four actions of which two are forbidden: the vector names an action, right is it, or else the first allowed one."""

    def allowed(now):
        mask = np.zeros(4, np.int8)
        mask[list(now[1])] = 1
        return mask

    return Match(
        spaces.Box(0.0, 1.0, (4,), np.float32),
        spaces.Discrete(4),
        lambda random: (int(random.integers(4)), tuple(random.permutation(4)[:2])),
        lambda now: np.eye(4, dtype=np.float32)[now[0]],
        lambda now, action: action == (now[0] if now[0] in now[1] else min(now[1])),
        allowed,
    )


def factors():
    """Two numbers of three and two values, each right half of the reward."""
    return Match(
        spaces.Box(0, 1, (5,), np.bool_),
        spaces.MultiDiscrete([3, 2]),
        lambda random: (int(random.integers(3)), int(random.integers(2))),
        lambda now: np.concatenate([np.eye(3)[now[0]], np.eye(2)[now[1]]]) > 0,
        lambda now, action: 0.5 * (action[0] == now[0]) + 0.5 * (action[1] == now[1]),
    )


def asymmetric():
    """A vector in a box that no policy around 0 reaches: right is a point of it, and a miss costs its distance."""
    low, high = np.array([50.0, -0.02], np.float32), np.array([100.0, 0.0], np.float32)

    def worth(now, action):
        return 1.0 - np.abs((action - low) / (high - low) - np.array([now, 1.0 - now])).mean()

    return Match(
        spaces.Box(-1.0, 1.0, (1,), np.float64),
        spaces.Box(low, high, (2,), np.float32),
        lambda random: float(random.choice([0.25, 0.75])),
        lambda now: np.array([2.0 * now - 1.0]),
        worth,
    )


def grey():
    """A grey picture without channels: right is whether the bright column is left."""
    return Match(
        spaces.Box(0, 255, (8, 8), np.uint8),
        spaces.Discrete(2),
        lambda random: int(random.integers(8)),
        lambda now: lit(8, now),
        lambda now, action: action == (now < 4),
    )


def channels_first():
    """A picture of floats from -1 to 1 with three channels first: right is whether the bright column is left."""
    return Match(
        spaces.Box(-1.0, 1.0, (3, 8, 8), np.float32),
        spaces.Discrete(2),
        lambda random: int(random.integers(8)),
        lambda now: np.moveaxis(lit(8, now, 3, np.float32, 1.7) - 0.9, -1, 0).astype(np.float32),
        lambda now, action: action == (now < 4),
    )
