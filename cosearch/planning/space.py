"""The search space of a task: its kind, its values, and the observations and actions that the environment has."""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.planning.builtins import load_builtins
from cosearch.rl.policy import policy_of
from cosearch.rl.task import make_task
from cosearch.space.ends import observations_of
from cosearch.space.parts import single_shape
from cosearch.space.space import SPACES, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError


def make_space(config: Config) -> SearchSpace:
    """The search space for the task's frames and actions.

    Raises:
        UnknownNameError: no such environment or space.
        MissingExtraError: the environment's package is not installed.
        ConfigError: the space's values do not fit it.
    """
    load_builtins()
    named = None if config.space.name == "auto" else SPACES.get(config.space.name)
    probe = make_task(config.env, 1, 0)
    frame_shape, num_actions, policy = probe.frame_shape, probe.num_actions, policy_of(probe).name
    parts, sizes = probe.parts, probe.action_sizes
    probe.close()
    shape = single_shape(frame_shape, parts)
    kind = named or default_space("parts" if shape is None else observations_of(shape))
    try:
        values = {**kind.suited(shape or frame_shape), **config.space.values}
        return kind.build(values, frame_shape, num_actions, policy, parts, sizes)
    except TypeError as error:
        raise ConfigError(f"space.values do not fit space {kind.name!r}: {error}") from error


def default_space(observations: str) -> SpaceEntry:
    """The space that is chosen for ``frames``, ``vectors`` or ``parts`` where none is named."""
    return next(entry for entry in SPACES.entries() if entry.is_default and entry.takes == observations)
