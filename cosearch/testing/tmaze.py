"""The T-maze (Bakker, Reinforcement Learning with Long Short-Term Memory, NIPS 2001): a task that needs a memory.

The first observation shows on which arm the goal lies; a corridor of ``length`` steps leads to the junction. Whoever does not
remember the cue there is right half of the time. ``gym:cosearch.testing.tmaze:TMaze-v0``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

FORWARD, LEFT, RIGHT = range(3)
TURNED_EARLY = -0.1


class TMaze(gymnasium.Env[np.ndarray, np.int64]):
    """A corridor that ends in a junction.

    Observation: the cue (-1 left, 1 right; 0 after the first step), and whether this is the junction, ``[2]``. Actions: forward,
    left, right. The right arm is worth 1 and the wrong one -1, both end the episode; a turn in the corridor costs 0.1.

    Args:
        length: steps from the cue to the junction, at least 1.
    """

    def __init__(self, length: int = 8) -> None:
        self.length, self.cue, self.place, self.steps = length, 1, 0, 0
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Back to the begin, with a new goal."""
        super().reset(seed=seed)
        self.cue, self.place, self.steps = int(self.np_random.choice([-1, 1])), 0, 0
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One action; an episode without an end is cut after four times the shortest way."""
        self.steps += 1
        cut = self.steps >= 4 * (self.length + 1)
        if action == FORWARD:
            self.place = min(self.place + 1, self.length)
            return self._seen(), 0.0, False, cut, {}
        if self.place < self.length:
            return self._seen(), TURNED_EARLY, False, cut, {}
        return self._seen(), 1.0 if (action == RIGHT) == (self.cue == 1) else -1.0, True, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.cue if self.steps == 0 else 0, self.place == self.length], np.float32)


gymnasium.register("TMaze-v0", entry_point=f"{__name__}:TMaze")
