"""``search --seeds N``: the main job for several seeds in one command, and their figures over the seeds."""

from __future__ import annotations

from pathlib import Path

from cosearch.cli.comparison import make_and_show, show_forecast, teller
from cosearch.compare.seeds import planned_seeds
from cosearch.config.run import Config
from cosearch.fleet.cluster import Cluster
from cosearch.pipeline.run import default_name
from cosearch.planning.plan import make_plan
from cosearch.record.rundir import RunDir, check_one_folder


def search_seeds(
    config: Config,
    count: int,
    runs: Path,
    name: str | None,
    *,
    where: Cluster,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make the runs, or go on with them, one after the other; then show them together.

    Args:
        config: of the search; the seeds begin with its own.
        count: of the seeds.
        runs: folder of the run folders.
        name: of the folder that gets the runs; None: made from task, device and strategy.
        where: the cluster that makes them; or this machine.
        dry_run: print the runs and the expected time; do nothing.
        as_json, quiet: see the verb.

    Raises:
        ConfigError: see ``cosearch.compare.seeds.planned_seeds``.
        RunFolderError: the folder holds something else, or runs of other values.
    """
    planned = planned_seeds(config, range(config.seed, config.seed + count), where)
    if dry_run:
        show_forecast(planned, 1, as_json)
        return
    name = name or f"{default_name(make_plan(planned[0].config))}-{count}-seeds"
    check_one_folder(name, "--run")
    RunDir.check_new((runs / name).resolve(), None)
    make_and_show(runs / name, planned, None, where=where, tell=teller(quiet), as_json=as_json)
