"""``search --seeds N``: the main job for several seeds in one command, and their figures over the seeds."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from cosearch.cli.comparison import show_comparison, show_forecast
from cosearch.cli.output import command_line, resume_hint
from cosearch.compare.making import make_runs
from cosearch.compare.runs import alone, begin
from cosearch.compare.seeds import planned_seeds
from cosearch.config.run import Config
from cosearch.fleet.cluster import Cluster
from cosearch.pipeline.run import default_name
from cosearch.planning.plan import make_plan
from cosearch.record.rundir import check_one_folder
from latency_tables.terminal import say


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
    planned = planned_seeds(config, range(config.seed, config.seed + count))
    if dry_run:
        show_forecast(planned, 1, as_json)
        return
    name = name or f"{default_name(make_plan(planned[0].config))}-{count}-seeds"
    check_one_folder(name, "--run")
    folder, started = (runs / name).resolve(), time.monotonic()

    def tell(text: str) -> None:
        if not quiet:
            say(f"{time.monotonic() - started:7.0f} s  {text}", error=True)

    resume_hint.set(("the same command", folder))
    with alone(folder):
        inputs = begin(folder, planned, command_line.get())
        failed = make_runs(folder, planned, jobs=None, command=command_line.get(), tell=tell, inputs=inputs, cluster=where)
        show_comparison(runs / name, as_json)
    if failed:
        for run, reason in failed.items():
            say(f"error: {run}: {reason}", error=True)
        raise typer.Exit(1)
