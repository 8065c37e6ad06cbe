"""Runs of several seeds or strategies in the terminal: their figures, and what is planned with the time that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cosearch.cli.output import command_line, emit, resume_hint
from latency_tables.text.terminal import say, show

if TYPE_CHECKING:
    from cosearch.compare.plan import PlannedRun
    from cosearch.fleet.cluster import Cluster


def teller(quiet: bool) -> Callable[[str], None]:
    """Prints what goes on, with the seconds since now; nothing where ``quiet``."""
    started = time.monotonic()

    def tell(text: str) -> None:
        if not quiet:
            say(f"{time.monotonic() - started:7.0f} s  {text}", error=True)

    return tell


def make_and_show(
    folder: Path,
    planned: Sequence[PlannedRun],
    jobs: int | None,
    *,
    where: Cluster,
    tell: Callable[[str], None],
    as_json: bool,
) -> None:
    """Make the runs that are planned, or go on with them, and print their figures.

    Args:
        folder: gets them.
        planned: the runs.
        jobs: at once; None: see ``make_runs``.
        where: the cluster that makes them; or this machine.
        tell: told what goes on.
        as_json: print the figures as one JSON object.

    Raises:
        RunFolderError: the folder holds something else, or runs of other values.

    A run that failed or was lost ends the command with 1 when the others are made.
    """
    from cosearch.compare.making import make_runs
    from cosearch.compare.runs import alone, begin

    own = folder.resolve()
    resume_hint.set(("the same command", own))
    with alone(own):
        inputs = begin(own, planned, command_line.get())
        failed = make_runs(own, planned, jobs=jobs, command=command_line.get(), tell=tell, inputs=inputs, cluster=where)
        show_comparison(folder, as_json)
    for run, reason in failed.items():
        say(f"error: {run}: {reason}", error=True)
    if failed:
        raise typer.Exit(1)


def show_comparison(folder: Path, as_json: bool) -> None:
    """Write table, plots and pages of a comparison, and print its figures.

    Args:
        folder: of the comparison.
        as_json: print them as one JSON object.
    """
    from cosearch.compare.page import remarks, terminal_tables, write_comparison

    result, files = write_comparison(folder)
    if as_json:
        emit({**result.to_json(), "files": [str(file) for file in files]}, True, "")
        return
    for table in terminal_tables(result):
        show(table)
    for remark in remarks(result):
        say(remark)
    say(folder / "compare.html")


def show_forecast(planned: Sequence[PlannedRun], jobs: int, as_json: bool) -> None:
    """Print the runs that are planned, and the expected time: random search's runs first, then the others.

    Args:
        planned: the runs.
        jobs: at once.
        as_json: print them as one JSON object.
    """
    import os
    from dataclasses import replace

    from cosearch.compare.plan import controls_first
    from cosearch.pipeline.forecast import as_each_ends, forecast
    from cosearch.planning.budget import run_steps
    from cosearch.planning.needs import needs_of
    from cosearch.planning.plan import make_plan

    each: dict[tuple[str, str], float] = {}
    for run in planned:
        if (run.env, run.strategy) not in each:
            each[run.env, run.strategy] = forecast(make_plan(replace(run.config, control=""))).expected_s
    at_once = max(1.0, (os.cpu_count() or 1) / max(needs_of(run.config).cores for run in planned))
    expected_s = sum(
        as_each_ends([each[run.env, run.strategy] for run in part], jobs, at_once) for part in controls_first(planned)
    )
    rows = [
        {
            "name": run.name,
            "env": run.env,
            "strategy": run.strategy,
            "seed": run.seed,
            "env_steps": run_steps(run.config),
            "expected_s": each[run.env, run.strategy],
        }
        for run in planned
    ]
    text = "\n".join(
        [
            *(f"{run.name}: {run_steps(run.config):,} steps, {each[run.env, run.strategy] / 60:.1f} min" for run in planned),
            f"expected time with {jobs} at once: {expected_s / 60:.1f} min",
        ]
    )
    emit({"runs": rows, "expected_s": expected_s}, as_json, text)
