"""A fleet of 10 to 10,000 workers on paper: ``python -m cosearch.benchmarks.workers.fleet`` (needs SimPy, the extra ``bench``).

``fleet_model`` is the simulation, ``fleet_measures`` reads what it is fed with from run folders, ``fleet_check`` measures the
shared parts and a small fleet of real processes. The result says how many workers each part carries, and what helps beyond.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.benchmarks.workers.fleet_check import RealFleet, SleepJob, measured_costs, real_fleet
from cosearch.benchmarks.workers.fleet_measures import FleetMeasures, load_measures
from cosearch.benchmarks.workers.fleet_model import Costs, Fleet, FleetSimulation, Outcome, Work
from cosearch.statistics import percentile_interval
from latency_tables.text.terminal import say

OUT = Path(__file__).with_suffix(".json")
PAGE = DOCS / "evidence" / "fleet.md"
SIZES = (10, 100, 1_000, 10_000)
INTERVAL_S = 30.0  # the default of budget.checkpoint_interval_s
LONG = 60.0  # how many times as long the longer runs are: hours, as with --preset standard
MOST_SPANS = 300_000  # of one simulation
CHECKED = ((2, 0.0), (4, 0.0), (4, 60.0))  # processes, and failures an hour of each
RUNS_A_WORKER, SHRUNK = 8, 50.0
SEEDS = 40  # simulations that one real fleet is compared with


@dataclass(frozen=True)
class Row:
    """One simulation.

    Attributes:
        runs: which runs, in words.
        remedy: what is done about the limits, in words.
        fleet: its size and settings.
        outcome: of it.
    """

    runs: str
    remedy: str
    fleet: Fleet
    outcome: Outcome


@dataclass(frozen=True)
class Check:
    """A small fleet of real processes beside simulations of it.

    Attributes:
        workers: processes.
        failures_an_hour: of each.
        real: what they did.
        efficiency, lost: means over the simulations.
        efficiency_range, lost_range: of their middle 95 %.
    """

    workers: int
    failures_an_hour: float
    real: RealFleet
    efficiency: float
    efficiency_range: tuple[float, float]
    lost: float
    lost_range: tuple[float, float]


def work_of(measures: FleetMeasures, scale: float = 1.0) -> Work:
    """The measured runs, so many times as long."""
    seconds = [scale * value for value in measures.run_s]
    return Work(seconds, measures.checkpoint_bytes, measures.folder_bytes, measures.lines * max(1.0, scale))


def simulated(fleet: Fleet, work: Work, costs: Costs) -> Outcome:
    """A fleet in the middle of its work, for as long as some hundred thousand spans take."""
    span_s = min(fleet.interval_s, float(np.mean(work.run_s)))
    until_s = min(4.0 * max(float(np.mean(work.run_s)), fleet.interval_s), MOST_SPANS / fleet.workers * span_s)
    return FleetSimulation(fleet, work, costs).run(until_s, warm_up_s=until_s / 4)


def tables(measures: FleetMeasures, costs: Costs) -> list[Row]:
    """All sizes as it is; the largest with each remedy and with all."""
    rows = []
    for name, scale in (("as measured", 1.0), (f"{LONG:g} times as long", LONG)):
        work = work_of(measures, scale)
        for workers in SIZES:
            fleet = Fleet(workers, INTERVAL_S, measures.failures_an_hour)
            rows.append(Row(name, "", fleet, simulated(fleet, work, costs)))
        largest = Fleet(SIZES[-1], INTERVAL_S, measures.failures_an_hour)
        own_disks = replace(largest, stores=largest.workers)
        rows += [
            Row(name, remedy, fleet, simulated(fleet, work, costs))
            for remedy, fleet in (
                ("a checkpoint each 10 minutes", replace(largest, interval_s=600.0)),
                ("checkpoints on the workers' own disks", own_disks),
                ("own disks, and 10 drivers, each with a tenth", replace(own_disks, drivers=10)),
            )
        ]
    return rows


def checked(workers: int, failures_an_hour: float, measures: FleetMeasures, costs: Costs) -> Check:
    """Do shrunken runs with real processes, and simulate the same."""
    random, interval_s = np.random.default_rng(workers), INTERVAL_S / SHRUNK
    seconds = [max(0.2, float(value) / SHRUNK) for value in random.choice(measures.run_s, RUNS_A_WORKER * workers)]
    size, folder = (int(np.median(values)) for values in (measures.checkpoint_bytes, measures.folder_bytes))
    jobs: list[SleepJob] = [
        {
            "place": "",
            "seed": index,
            "run_s": each,
            "interval_s": interval_s,
            "checkpoint_bytes": size,
            "folder_bytes": folder,
            "lines": round(measures.lines),
            "failures_an_hour": failures_an_hour,
        }
        for index, each in enumerate(seconds)
    ]
    real = real_fleet(workers, jobs)
    fleet, outcomes = Fleet(workers, interval_s, failures_an_hour), []
    for seed in range(SEEDS):
        work = Work(seconds, [size], [folder], measures.lines)
        outcomes.append(FleetSimulation(fleet, work, costs, seed, runs=len(jobs)).run())
    efficiency, lost = ([getattr(outcome, name) for outcome in outcomes] for name in ("efficiency", "lost"))
    middle, lost_middle = (percentile_interval(values, [SEEDS]) for values in (efficiency, lost))
    assert middle is not None and lost_middle is not None, "there are many simulations"
    return Check(workers, failures_an_hour, real, float(np.mean(efficiency)), middle, float(np.mean(lost)), lost_middle)


def lines(rows: Sequence[Row], costs: Costs, checks: Sequence[Check], measures: FleetMeasures) -> str:
    """The tables of the page."""
    found = [
        f"Fed with {measures.runs} runs ({measures.how}): {np.mean(measures.run_s):.0f} s each, checkpoints of "
        f"{np.mean(measures.checkpoint_bytes) / 1e6:.2f} MB, folders of {np.mean(measures.folder_bytes) / 1e6:.2f} MB, "
        f"{measures.failures_an_hour:.2f} interruptions an hour of work. Of the shared parts, as timed with processes of that "
        f"machine: {1e3 * costs.job_s:.2g} ms of the driver to begin or end a run, {1e3 * costs.message_s:.2g} ms a line, "
        f"{1e3 * costs.save_s:.0f} ms to save a checkpoint and {costs.store_bytes_s / 1e6:.0f} MB/s, results at "
        f"{costs.object_bytes_s / 1e6:.0f} MB/s, {costs.restart_s:.1f} s to replace a worker.",
        "",
        "| runs | workers | what is done | efficiency | done again | driver, store, objects busy | they carry, workers |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        busy = ", ".join(f"{value:.0%}" for value in row.outcome.busy.values())
        limits = ", ".join(f"{float(f'{value:.2g}'):,.0f}" for value in row.outcome.limits.values())
        found.append(
            f"| {row.runs} | {row.fleet.workers:,} | {row.remedy} | {row.outcome.efficiency:.3f} | {row.outcome.lost:.2%} "
            f"| {busy} | {limits} |"
        )
    found += [
        "",
        "| processes | failures an hour | efficiency, real | simulated [95 %] | done again, real | simulated [95 %] | deaths |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for check in checks:
        found.append(
            f"| {check.workers} | {check.failures_an_hour:g} | {check.real.efficiency:.2f} "
            f"| {check.efficiency:.2f} [{check.efficiency_range[0]:.2f}, {check.efficiency_range[1]:.2f}] "
            f"| {check.real.lost:.1%} "
            f"| {check.lost:.1%} [{check.lost_range[0]:.1%}, {check.lost_range[1]:.1%}] | {check.real.deaths} |"
        )
    return "\n".join(found)


def main(
    measures: Annotated[Path | None, typer.Option(help="File of fleet_measures; default: the shipped one.")] = None,
    out: Annotated[Path, typer.Option(help="JSON file.")] = OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time the shared parts, check the simulation with real processes, simulate all sizes, write the tables of the page."""
    known = load_measures() if measures is None else load_measures(measures)
    costs = measured_costs(out.parent)
    checks = [checked(workers, failures, known, costs) for workers, failures in CHECKED]
    rows = tables(known, costs)
    content = {"costs": asdict(costs), "rows": [asdict(row) for row in rows], "checks": [asdict(check) for check in checks]}
    table = lines(rows, costs, checks, known)
    keep(content, out, PAGE, "fleet", table)
    say(json.dumps(content) if as_json else table)


if __name__ == "__main__":
    program(main)
