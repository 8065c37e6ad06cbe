"""Validation levels: what a search judges architectures on, never what their weights learned from, never the test levels.

Where the task has levels (Procgen) the last fifth of its training levels is kept from the weights while the search lasts, as a
validation set is kept from a training set; the retraining has them all again. Where it has none, validation differs from training
by its random streams alone: they are derived from the run's seed under a name of their own, so that no other stream moves.
A two-level search may learn its architecture from them while it trains (:class:`BesideValidation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cosearch.config.env import EnvConfig
from cosearch.record.state import State, read_state
from cosearch.rl.envs import CheckedEnv, Step, split_name
from cosearch.rl.task import make_task
from cosearch.seeding import Streams, derived_seed
from latency_tables.errors import ConfigError

SHARE = 0.2  # of the training levels


def validation_streams(seed: int) -> Streams:
    """The random streams of validation in the run with this seed: always the same, and apart from all others of the run."""
    return Streams(derived_seed(seed, "validation", 63))


def without_validation(config: EnvConfig) -> EnvConfig:
    """The task with the levels that the weights may learn from during a search that validates.

    Args:
        config: the task.

    Raises:
        ConfigError: it has levels, and too few to keep one.
    """
    return replace(config, train_levels=_first(config)) if split_name(config.name)[0].has_levels else config


def make_validation(config: EnvConfig, num_envs: int, seed: int) -> CheckedEnv:
    """The environments of validation: on the levels that :func:`without_validation` leaves out.

    Args:
        config: the task, with all its training levels.
        num_envs: how many.
        seed: 31-bit seed; of :func:`validation_streams`.

    Raises:
        ConfigError: see :func:`without_validation`; see also ``make_task``.
    """
    if not split_name(config.name)[0].has_levels:
        return make_task(config, num_envs, seed)
    first = _first(config)
    return make_task(replace(config, train_levels=config.train_levels - first), num_envs, seed, first_level=first)


class BesideValidation:
    """Training environments and as many on validation levels, stepped as one: they take turns, the first is one of training.

    Args:
        train: on the training levels.
        validation: on validation levels of the same task.
    """

    def __init__(self, train: CheckedEnv, validation: CheckedEnv) -> None:
        self.halves = (train, validation)
        self.num_envs, self.frame_shape, self.num_actions = 2 * train.num_envs, train.frame_shape, train.num_actions
        self.action_box, self.exact_resume = train.action_box, train.exact_resume and validation.exact_resume
        self.parts, self.action_sizes, self.action_names = train.parts, train.action_sizes, train.action_names
        self.first_action, self.endless, self.solved_at = train.first_action, train.endless, train.solved_at

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``."""
        return _by_turns([half.observe() for half in self.halves])

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``."""
        for first, half in enumerate(self.halves):
            half.env.send(actions[first::2])  # they are in the box already

    def receive(self) -> Step:
        """See ``VectorEnv``."""
        steps = [half.receive() for half in self.halves]
        return Step(
            _by_turns([step.frames for step in steps]),
            _by_turns([step.reward for step in steps]),
            _by_turns([step.terminated for step in steps]),
            _by_turns([step.truncated for step in steps]),
            {2 * i + first: frame for first, step in enumerate(steps) for i, frame in step.last_frames.items()},
            {2 * i + first: success for first, step in enumerate(steps) for i, success in step.success.items()},
        )

    def state(self) -> State:
        """See ``VectorEnv``."""
        return {"train": self.halves[0].state(), "validation": self.halves[1].state()}

    def restore(self, state: State) -> Sequence[int]:
        """See ``VectorEnv``."""
        anew: list[int] = []
        for first, (half, name) in enumerate(zip(self.halves, ("train", "validation"))):
            begun = half.restore(read_state(state, name))
            every = () if half.exact_resume else range(half.num_envs)
            anew += [2 * i + first for i in (every if begun is None else begun)]
        return sorted(anew)

    def close(self) -> None:
        """See ``VectorEnv``."""
        for half in self.halves:
            half.close()


def make_beside_validation(config: EnvConfig, seed: int, validation_seed: int) -> CheckedEnv:
    """The environments of a search, half of them on the training levels that validation leaves, half on validation levels.

    Args:
        config: the task, with all its training levels and the number of both together, which is even.
        seed, validation_seed: 31-bit seeds.

    Raises:
        ConfigError: see :func:`without_validation`.
    """
    half = config.num_envs // 2
    train, validation = make_task(without_validation(config), half, seed), make_validation(config, half, validation_seed)
    return CheckedEnv(BesideValidation(train, validation), config.name)


def _by_turns(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Two arrays ``[envs, ...]`` as one ``[2 * envs, ...]`` in which they take turns."""
    return np.stack(arrays, 1).reshape(-1, *arrays[0].shape[1:])


def _first(config: EnvConfig) -> int:
    """The first validation level."""
    if config.train_levels < 2:
        raise ConfigError(
            f"env.train_levels={config.train_levels} leaves no level for validation beside the training: set env.train_levels=2 "
            "or more, or choose a strategy that trains its candidates alone (strategy.name=random)"
        )
    return config.train_levels - max(1, round(SHARE * config.train_levels))
