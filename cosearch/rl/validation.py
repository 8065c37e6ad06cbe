"""Validation levels: what a search judges architectures on, never what their weights learned from, never the test levels.

Where the task has levels (Procgen) the last fifth of its training levels is kept from the weights while the search lasts, as a
validation set is kept from a training set; the retraining has them all again. Where it has none, validation differs from training
by its random streams alone: they are derived from the run's seed under a name of their own, so that no other stream moves.
"""

from __future__ import annotations

from dataclasses import replace

from cosearch.config.env import EnvConfig
from cosearch.rl.envs import CheckedEnv, split_name
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


def _first(config: EnvConfig) -> int:
    """The first validation level."""
    if config.train_levels < 2:
        raise ConfigError(
            f"env.train_levels={config.train_levels} leaves no level for validation beside the training: set env.train_levels=2 "
            "or more, or choose a strategy that trains its candidates alone (strategy.name=random)"
        )
    return config.train_levels - max(1, round(SHARE * config.train_levels))
