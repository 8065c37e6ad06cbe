"""Runs of several seeds or strategies in the terminal: their figures, and what is planned with the time that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cosearch.cli.output import emit
from latency_tables.terminal import say, show

if TYPE_CHECKING:
    from cosearch.compare.plan import PlannedRun


def show_comparison(folder: Path, as_json: bool) -> None:
    """Write table, plots and pages of a comparison, and print its figures.

    Args:
        folder: of the comparison.
        as_json: print them as one JSON object.
    """
    from cosearch.compare.page import terminal_tables, write_comparison

    result, files = write_comparison(folder)
    if as_json:
        emit({**result.to_json(), "files": [str(file) for file in files]}, True)
        return
    for table in terminal_tables(result):
        show(table)
    if result.unfinished:
        say(f"not finished, so not in the figures: {', '.join(result.unfinished)}")
    say(folder / "compare.html")


def show_forecast(planned: Sequence[PlannedRun], jobs: int, as_json: bool) -> None:
    """Print the runs that are planned, and the expected time.

    Args:
        planned: the runs.
        jobs: at once.
        as_json: print them as one JSON object.
    """
    from dataclasses import replace

    from cosearch.pipeline.forecast import forecast
    from cosearch.planning.budget import run_steps
    from cosearch.planning.plan import make_plan

    each: dict[tuple[str, str], float] = {}
    for run in planned:
        if (run.env, run.strategy) not in each:
            each[run.env, run.strategy] = forecast(make_plan(replace(run.config, control=""))).expected_s
    expected_s = sum(each[run.env, run.strategy] for run in planned) / jobs
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
