"""Small Gymnasium environments of a user's own, found by their module's name: ``gym:own_envs:Picture-v0``."""

import os
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Picture(gymnasium.Env):
    """Random pictures; an episode ends after ``length`` steps, or never. Action 1 is worth 1."""

    def __init__(self, shape=(12, 14, 12), length=5):
        self.observation_space, self.action_space = spaces.Box(0, 255, tuple(shape), np.uint8), spaces.Discrete(3)
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.steps += 1
        return self.seen(), float(action == 1), self.length is not None and self.steps >= self.length, False, {}

    def seen(self):
        return self.np_random.integers(0, 256, self.observation_space.shape, np.uint8)


class Numbers(Picture):
    """As :class:`Picture`, with numbers: random ones, and constants beside them, all times ``unit`` and plus ``offset``."""

    def __init__(self, features=3, constants=(), length=5, unit=1.0, offset=0.0):
        super().__init__(length=length)
        self.features, self.constants, self.unit, self.offset = features, tuple(constants), unit, offset
        self.observation_space = spaces.Box(-np.inf, np.inf, (features + len(self.constants),), np.float32)

    def seen(self):
        return np.float32([*(self.np_random.normal(size=self.features) * self.unit + self.offset), *self.constants])


class Leaves(Numbers):
    """Numbers until a step on which it ends the program, or does not return: ``how`` is exit, os_exit or hang."""

    def __init__(self, how="exit", at=3, **more):
        super().__init__(**more)
        self.how, self.at, self.all_steps = how, at, 0

    def step(self, action):
        self.all_steps += 1
        if self.all_steps >= self.at:
            if self.how == "exit":
                raise SystemExit(0)
            if self.how == "os_exit":
                os._exit(0)
            time.sleep(600)
        return super().step(action)


for name, kind in {"Picture": Picture, "Numbers": Numbers, "Leaves": Leaves}.items():
    gymnasium.register(f"{name}-v0", entry_point=kind, disable_env_checker=True)
