"""A small Gymnasium environment that a test can edit: its spaces and its dynamics come from the environment's variables."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np

NAME = "gym:editable_env:Editable-v0"
TINY = (  # of a run of it that takes a second
    'space.values={"stem_width": 8, "stage_widths": [8], "stage_repeats": [2], "hidden": 8}',
    "threads=1",
    "env.num_envs=4",
    "strategy.paths_per_rollout=2",
    "rl.rollout_steps=8",
    "rl.minibatch=8",
    "rl.epochs=1",
    "budget.search_steps=128",
    "budget.retrain_steps=64",
    "budget.eval_episodes=4",
    "budget.parity_frames=8",
    "budget.measure_s=0.05",
    "distill.teacher=none",
)


class Editable(gymnasium.Env):
    """Episodes of ten steps; the action that equals the sign of the first feature pays 1.

    ``FEATURES`` and ``ACTIONS``: of its spaces; ``START``: the first action; ``GAIN``: of its dynamics; ``LOOSE``: what ignores
    the seed, ``reset`` or ``step``.
    """

    def __init__(self) -> None:
        self.features, self.gain = int(os.environ.get("FEATURES", "3")), float(os.environ.get("GAIN", "1"))
        self.loose = os.environ.get("LOOSE", "")
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (self.features,), np.float32)
        start = int(os.environ.get("START", "0"))
        self.action_space = gymnasium.spaces.Discrete(int(os.environ.get("ACTIONS", "2")), start=start)
        self.state, self.steps = np.zeros(self.features, np.float32), 0

    def _drawn(self, loose: bool) -> np.ndarray:
        stream = np.random.default_rng() if loose else self.np_random
        return stream.normal(0.0, 1.0, self.features).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode."""
        super().reset(seed=seed)
        self.state, self.steps = self._drawn(self.loose == "reset"), 0
        return self.state, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step."""
        reward = float(int(action) == int(self.state[0] > 0))
        self.steps += 1
        self.state = np.clip(self.gain * self._drawn(self.loose == "step"), -10, 10)
        return self.state, reward, self.steps >= 10, False, {}


gymnasium.register("Editable-v0", entry_point=Editable)
