"""What a run, or a candidate of its search, needs of the machine that makes it, for an engine that places it."""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.fleet.work import Needs


def needs_of(config: Config) -> Needs:
    """What a run needs of a machine: a core for each thread or worker process, a GPU where it must have one.

    Args:
        config: of the run.
    """
    return Needs(cores=max(config.threads or 1, config.strategy.workers), gpus=1.0 if config.compute == "cuda" else 0.0)


def candidate_needs(config: Config) -> Needs:
    """What each candidate that is trained beside others needs of a machine: its one thread's core, and its share of a GPU.

    Args:
        config: of the run; where it must have a GPU, all candidates that are trained at once fit on one.
    """
    return Needs(gpus=1.0 / config.strategy.workers if config.compute == "cuda" else 0.0)
