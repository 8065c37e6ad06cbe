"""One search over several seeds: its runs as those of a comparison of one strategy, each the run that ``search --seed`` makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cosearch.compare.plan import PlannedRun, with_one_target
from cosearch.config.run import Config, with_seed
from cosearch.fleet.cluster import HERE, Cluster
from cosearch.planning.request import with_absolute_paths
from latency_tables.errors import ConfigError


def planned_seeds(config: Config, seeds: Sequence[int], cluster: Cluster = HERE) -> list[PlannedRun]:
    """The runs of one configuration, one a seed, named ``s0``, ``s1``, ...

    Args:
        config: of the search; its own seed does not count.
        seeds: of the runs.
        cluster: where they are made.

    Returns:
        The runs; on a cluster each uses one thread, the core that is kept for it, unless ``threads`` is set. On an accelerator,
        where each seed searches the reference agent's design anew, all have the first one's target.

    Raises:
        ConfigError: the configuration asks for several agents, or repeats the order of one run; or a seed is out of its range.
    """
    if config.family.wanted:
        raise ConfigError("several seeds make one agent each: give --seeds with one device and one latency target")
    if config.strategy.order:
        raise ConfigError("--order-of repeats the order of one run, --seeds makes several: leave one of the two out")
    placed = with_absolute_paths(replace(config, threads=config.threads or 1) if cluster.address else config)
    return with_one_target(
        [PlannedRun(f"s{seed}", placed.env.name, placed.strategy.name, seed, with_seed(placed, seed)) for seed in seeds]
    )
