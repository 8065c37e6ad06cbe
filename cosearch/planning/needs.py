"""What a run needs of the machine that makes it, for an engine that places it."""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.fleet.work import Needs


def needs_of(config: Config) -> Needs:
    """What a run needs of a machine: a core for each thread or worker process, a GPU where it must have one.

    Args:
        config: of the run.
    """
    return Needs(cores=max(config.threads or 1, config.strategy.workers), gpus=1.0 if config.compute == "cuda" else 0.0)
