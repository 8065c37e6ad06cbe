"""Replay memory: each frame once, as the environments gave it; n-step returns are put together when a minibatch is drawn.

A ring of ``times`` steps of all environments. The frame that follows a transition is the next row of the ring, so nothing is held
twice; only the last frame of an episode that a time limit cut is kept apart, as the ring's next row belongs to the next episode.
A transition can be drawn as soon as its n following steps are there, until its own row is written over:
    R_t = sum_{k<m} gamma^k r_{t+k},   bootstrapped with gamma^m at the frame of t+m,   m = n or the end of the episode,
and no bootstrap behind a termination (Rainbow, Hessel et al. 2018, arXiv 1710.02298, section "Multi-step learning").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cosearch.record.state import State, read
from cosearch.rl.dqn.sum_tree import SumTree
from cosearch.rl.envs import Step
from latency_tables.errors import ConfigError, ShapeError

RUNS, TERMINATED, TRUNCATED = 0, 1, 2


@dataclass(frozen=True)
class Batch:
    """Transitions drawn from the memory.

    Attributes:
        positions: ``[batch]``, where they lie.
        frames, next_frames: ``[batch, height, width, channels]``, uint8: what was seen, and what the return is bootstrapped at.
        actions: ``[batch]``, int64, or ``[batch, size]``, float32.
        returns: ``[batch]``, float32, of up to n steps.
        discounts: ``[batch]``, float32: gamma to the number of these steps; 0 where the episode terminated.
        weights: ``[batch]``, float32: importance weights, at most 1.
        teacher_policy: ``[batch, labels]``, or None.
    """

    positions: np.ndarray
    frames: torch.Tensor
    next_frames: torch.Tensor
    actions: torch.Tensor
    returns: torch.Tensor
    discounts: torch.Tensor
    weights: torch.Tensor
    teacher_policy: torch.Tensor | None = None


class Replay:
    """The memory of all environments together.

    Args:
        capacity: frames it holds, rounded down to whole steps of all environments.
        num_envs: environments.
        frame_shape: ``(height, width, channels)`` of the frames, or any other shape.
        n_step: steps of the returns.
        gamma: discount of one step.
        exponent: priorities are taken to this power; 0: all transitions alike.
        labels: numbers of the teacher that are kept with each frame, such as the log-probabilities of its actions; 0: no teacher.
        dtype: of the frames.
        action_size: length of an action vector; 0: actions are discrete.

    Raises:
        ConfigError: it has no room for n steps of all environments.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        frame_shape: tuple[int, ...],
        *,
        n_step: int,
        gamma: float,
        exponent: float,
        labels: int = 0,
        dtype: np.dtype | type = np.uint8,
        action_size: int = 0,
    ) -> None:
        times = capacity // num_envs
        if times < n_step + 2:
            raise ConfigError(
                f"a replay of {capacity} frames holds {times} steps of {num_envs} environments, too few for "
                f"returns of {n_step} steps: set {'sac' if action_size else 'dqn'}.replay to at least {(n_step + 2) * num_envs}"
            )
        self.times, self.num_envs, self.n_step, self.gamma, self.exponent = times, num_envs, n_step, gamma, exponent
        self.frames = np.zeros((times, num_envs, *frame_shape), dtype=dtype)
        shape = (times, num_envs, action_size) if action_size else (times, num_envs)
        self.actions = np.zeros(shape, dtype=np.float32 if action_size else np.int16)
        self._drawn_as = np.float32 if action_size else np.int64
        self.rewards = np.zeros((times, num_envs), dtype=np.float32)
        self.ends = np.zeros((times, num_envs), dtype=np.uint8)
        self.labels = np.zeros((times, num_envs, labels), dtype=np.float32) if labels else None
        self.last_frames: dict[int, np.ndarray] = {}  # position -> last frame of an episode that was cut there
        self.tree = SumTree(times * num_envs)
        self.highest = 1.0  # priority of what was never learned from
        self.written = 0  # rows, counted on beyond the ring's length

    @property
    def ready(self) -> int:
        """Transitions that can be drawn."""
        return max(0, min(self.written, self.times) - self.n_step) * self.num_envs

    def add(
        self, frames: np.ndarray, actions: np.ndarray, step: Step, reward: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        """Append one step of all environments.

        Args:
            frames: ``[num_envs, height, width, channels]`` that the actions were chosen at.
            actions: ``[num_envs]``, or ``[num_envs, action_size]``.
            step: what followed.
            reward: ``[num_envs]``, the rewards to learn from.
            labels: ``[num_envs, labels]``, the teacher's at ``frames``.
        """
        row, n = self.written % self.times, self.num_envs
        own = np.arange(row * n, (row + 1) * n)
        if self.written >= self.times:
            for position in own[self.ends[row] == TRUNCATED].tolist():
                del self.last_frames[position]
        self.frames[row], self.actions[row], self.rewards[row] = frames, actions, reward
        self.ends[row] = np.where(step.terminated, TERMINATED, np.where(step.truncated, TRUNCATED, RUNS))
        if self.labels is not None:
            self.labels[row] = labels
        for i in np.flatnonzero(self.ends[row] == TRUNCATED).tolist():
            self.last_frames[row * n + i] = step.last_frames[i].copy()
        complete = (self.written - self.n_step) % self.times * n + np.arange(n) if self.written >= self.n_step else own[:0]
        self.tree.set(np.concatenate([own, complete]), np.concatenate([np.zeros(n), np.full(complete.size, self.highest)]))
        self.written += 1

    def cut(self, environments: Sequence[int]) -> None:
        """The episodes of these environments ended unseen after the newest row: cut there, their value taken from its frames."""
        row = (self.written - 1) % self.times
        for i in environments if self.written else ():
            if self.ends[row, i] == RUNS:
                self.ends[row, i] = TRUNCATED
                self.last_frames[row * self.num_envs + i] = self.frames[row, i].copy()

    def draw(self, size: int, beta: float, rng: np.random.Generator) -> Batch:
        """Draw transitions in proportion to their priorities, one from each of ``size`` equal shares of the total.

        Args:
            size: transitions.
            beta: exponent of the importance weights (1 / (count * probability))^beta over the largest of them.
            rng: of the draw.
        """
        at = self.tree.draw((np.arange(size) + rng.random(size)) / size)
        weights = (self.tree.priorities[at] / self.tree.total * self.ready) ** -beta
        returns, discounts, following = self.outcome(at)
        rows, envs = np.divmod(at, self.num_envs)
        tensor = torch.from_numpy
        return Batch(
            at,
            tensor(self.frames[rows, envs]),
            tensor(following),
            tensor(self.actions[rows, envs].astype(self._drawn_as)),
            tensor(returns),
            tensor(discounts),
            tensor((weights / weights.max()).astype(np.float32)),
            None if self.labels is None else tensor(self.labels[rows, envs]),
        )

    def outcome(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What followed transitions: n-step returns and discounts ``[batch]``, frames ``[batch, height, width, channels]``.

        Args:
            positions: ``[batch]``, of transitions that can be drawn.
        """
        rows, envs = np.divmod(positions, self.num_envs)
        returns, steps = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
        runs, terminated = np.ones(len(rows), dtype=np.bool_), np.zeros(len(rows), dtype=np.bool_)
        for k in range(self.n_step):
            now = (rows + k) % self.times
            returns += runs * self.gamma**k * self.rewards[now, envs]
            steps += runs
            terminated |= runs & (self.ends[now, envs] == TERMINATED)
            runs &= self.ends[now, envs] == RUNS
        following = self.frames[(rows + steps) % self.times, envs]
        for i in np.flatnonzero(~runs & ~terminated).tolist():  # cut by a time limit
            following[i] = self.last_frames[int((rows[i] + steps[i] - 1) % self.times * self.num_envs + envs[i])]
        discounts = np.where(terminated, 0.0, self.gamma**steps)
        return returns.astype(np.float32), discounts.astype(np.float32), following

    def learned(self, positions: np.ndarray, errors: np.ndarray) -> None:
        """Set the priorities of transitions to their errors.

        Args:
            positions: ``[batch]``.
            errors: ``[batch]``, absolute errors of the last update.
        """
        priorities = (errors.astype(np.float64) + 1e-6) ** self.exponent
        self.tree.set(positions, priorities)
        self.highest = max(self.highest, float(priorities.max()))

    def state(self) -> State:
        """Everything that was written, as tensors and plain values; about the bytes of the frames."""
        used = min(self.written, self.times)
        arrays = {key: torch.from_numpy(array[:used].copy()) for key, array in self._arrays().items()}
        return {
            **arrays,
            "priorities": torch.from_numpy(self.tree.priorities[: used * self.num_envs].copy()),
            "last_frames": {key: torch.from_numpy(frame.copy()) for key, frame in self.last_frames.items()},
            "highest": self.highest,
            "written": self.written,
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`.

        Raises:
            ShapeError: the state is of a memory of another size.
        """
        used = min(read(state, "written", int), self.times)
        for key, array in self._arrays().items():
            saved = read(state, key, torch.Tensor)
            if tuple(saved.shape) != (used, *array.shape[1:]):
                raise ShapeError(f"the saved replay holds {key} {list(saved.shape)}, this one {[used, *array.shape[1:]]}")
            array[:used] = saved.numpy()
        priorities = np.zeros(self.times * self.num_envs)
        priorities[: used * self.num_envs] = read(state, "priorities", torch.Tensor).numpy()
        self.tree.restore(priorities)
        last_frames: dict[int, torch.Tensor] = read(state, "last_frames", dict)
        self.last_frames = {key: frame.numpy().copy() for key, frame in last_frames.items()}
        self.highest, self.written = read(state, "highest", float), read(state, "written", int)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"frames": self.frames, "actions": self.actions, "rewards": self.rewards, "ends": self.ends}
        return arrays if self.labels is None else {**arrays, "labels": self.labels}
