"""Small deterministic environments with known best scores, for tests of learners, collectors and whole runs.

``toy:signal`` shows one lit row of pixels an action and pays 1 for pressing the action that is lit, 0 otherwise: a perfect
policy scores the episode's length, a blind one a fraction ``1 / num_actions`` of it. ``toy:limit`` is the same game, but
its episodes are cut by a time limit instead of ending, so that values must be bootstrapped.
"""

from __future__ import annotations

import numpy as np
import torch

from cosearch.record.state import State, read, read_list
from cosearch.rl.envs import Box, EnvFamily, EnvOptions, Step

EPISODE_STEPS = 8
NUM_ACTIONS = 3
SIDE = 6


class SignalEnv:
    """Press the action whose rows are lit. Which one is lit next is drawn from a counter-based stream: exact resume.

    Args:
        game: ``signal`` (episodes terminate) or ``limit`` (a time limit truncates them).
        options: number and seed; the test levels are another stream.
    """

    frame_shape = (SIDE, SIDE, 1)
    num_actions = NUM_ACTIONS
    action_box: Box | None = None
    exact_resume = True

    def __init__(self, game: str, options: EnvOptions) -> None:
        self.num_envs, self._seed, self._limit = options.num_envs, [options.seed, int(options.test)], game == "limit"
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._draws = np.zeros(self.num_envs, dtype=np.int64)
        self._lit = np.zeros(self.num_envs, dtype=np.int64)
        self._steps += np.arange(self.num_envs) % EPISODE_STEPS  # the episodes of different environments end apart
        self._pending = np.zeros(self.num_envs, dtype=np.int64)
        for i in range(self.num_envs):
            self._light(i)

    def _light(self, i: int) -> None:
        stream = np.random.default_rng([*self._seed, i, int(self._draws[i])])
        self._lit[i] = stream.integers(NUM_ACTIONS)
        self._draws[i] += 1

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``."""
        frames = np.zeros((self.num_envs, *self.frame_shape), dtype=np.uint8)
        height = SIDE // NUM_ACTIONS
        for i, lit in enumerate(self._lit):
            frames[i, lit * height : (lit + 1) * height] = 255
        return frames

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        self._pending = np.asarray(actions)

    def receive(self) -> Step:
        """See ``VectorEnv``."""
        reward = (self._pending == self._lit).astype(np.float32)
        self._steps += 1
        ended = self._steps >= EPISODE_STEPS
        self._steps[ended] = 0
        for i in range(self.num_envs):
            self._light(i)
        frames = self.observe()
        never = np.zeros(self.num_envs, dtype=np.bool_)
        last = {int(i): frames[i].copy() for i in np.flatnonzero(ended)} if self._limit else {}
        return Step(frames, reward, never if self._limit else ended, ended if self._limit else never, last)

    def state(self) -> State:
        """See ``VectorEnv``."""
        return {
            "steps": torch.from_numpy(self._steps.copy()),
            "draws": torch.from_numpy(self._draws.copy()),
            "lit": torch.from_numpy(self._lit.copy()),
            "seed": list(self._seed),
        }

    def restore(self, state: State) -> None:
        """See ``VectorEnv``."""
        self._steps, self._draws, self._lit = (read(state, key, torch.Tensor).numpy().copy() for key in ("steps", "draws", "lit"))
        self._seed = read_list(state, "seed", int)

    def close(self) -> None:
        """Drop the actions that wait; nothing else is held."""
        self._pending = np.zeros(0, dtype=np.int64)


TOYS = EnvFamily("toy", "games with known best scores, for tests: signal, limit", ("signal", "limit"), SignalEnv)
