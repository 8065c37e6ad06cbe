"""What a fleet's simulation is fed with, read from run folders: times, checkpoints, interruptions, sizes.

``python -m cosearch.benchmarks.workers.fleet_measures RUNS... --out FILE`` looks through folders of runs. A run folder holds it
all: the seconds of work (``wall_s`` of the last line), its checkpoints, and when the newest process that worked on it began: long
after the run was made, it was interrupted and resumed, whoever caused that. How often is not told: each such run counts once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cosearch.benchmarks.results import program
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import from_json, to_json
from cosearch.record.rundir import RunDir
from latency_tables.errors import CosearchError, RequestError, RunFolderError
from latency_tables.text.reading import read_json
from latency_tables.text.terminal import say

SHIPPED = Path(__file__).with_name("fleet_measures.json")
POINTS = 41  # quantiles of a distribution, 0 to 1
GRACE_S = 60.0  # between a run's record and its first event file
SAVES, SAVED_BYTES = 20, 4_000_000


@dataclass(frozen=True, kw_only=True)
class FleetMeasures:
    """Measured distributions; a distribution is its quantiles at even steps from 0 to 1.

    Attributes:
        how: how and where it was measured, in words.
        runs: folders that were read.
        run_s: seconds of work of a run.
        checkpoint_bytes: size of a checkpoint.
        folder_bytes: size of a finished run's folder without its checkpoints.
        lines: mean lines of a run's log: what it tells whoever watches it.
        failures_an_hour: interruptions per hour of work.
        save_s: seconds to write and synchronise a checkpoint of next to no size.
        store_bytes_s: bytes a second that a store takes beyond that.
    """

    how: str
    runs: int
    run_s: tuple[float, ...]
    checkpoint_bytes: tuple[float, ...]
    folder_bytes: tuple[float, ...]
    lines: float
    failures_an_hour: float
    save_s: float
    store_bytes_s: float


def run_folders(places: Iterable[Path]) -> list[RunDir]:
    """All readable run folders below these, in the order of their paths."""
    found = []
    for record in sorted({path for place in places for path in place.rglob("run.json")}):
        try:
            found.append(RunDir.open(record.parent, teacher=True))
        except CosearchError:  # of a damaged or a foreign one there is nothing to measure
            continue
    return found


def read_measures(places: Sequence[Path], how: str, store: Path) -> FleetMeasures:
    """Read run folders, and time the store.

    Args:
        places: folders with run folders in them, at any depth.
        how: for the record.
        store: folder in which saving is timed.

    Raises:
        RequestError: no run of them has trained.
    """
    seconds, checkpoints, folders, lines, sessions = [], [], [], [], 0
    for run in run_folders(places):
        try:
            log = run.read_metrics()
        except CosearchError:
            continue
        worked = [float(value) for line in log if isinstance(value := line.get("wall_s"), int | float)]
        if not worked or worked[-1] <= 0:
            continue
        sizes = [path.stat().st_size for path in (run.path / "checkpoints").glob("*.pt")]
        seconds.append(worked[-1])
        lines.append(len(log))
        sessions += was_resumed(run)
        checkpoints += sizes
        folders.append(sum(path.stat().st_size for path in run.path.iterdir() if path.is_file()))
    if not seconds or not checkpoints:
        raise RequestError(f"{', '.join(map(str, places))}: no run folder with a log and a checkpoint; name folders of runs")
    save_s, bytes_s = timed_store(store)
    return FleetMeasures(
        how=how,
        runs=len(seconds),
        run_s=quantiles(seconds),
        checkpoint_bytes=quantiles(checkpoints),
        folder_bytes=quantiles(folders),
        lines=float(np.mean(lines)),
        failures_an_hour=sessions / (sum(seconds) / 3600.0),
        save_s=save_s,
        store_bytes_s=bytes_s,
    )


def was_resumed(run: RunDir) -> bool:
    """Whether a later process than the one that made a run worked on it; False where its record does not say when it was made."""
    made = run.record.get("created_utc")
    if not isinstance(made, str):
        return False
    moments = [path.name.split(".")[3] for path in run.path.glob("events.out.tfevents.*")]
    begun = max((int(moment) for moment in moments if moment.isdigit()), default=0)
    return begun > datetime.fromisoformat(made).timestamp() + GRACE_S


def quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """Quantiles at even steps, with four digits."""
    return tuple(float(f"{value:.4g}") for value in np.quantile(np.asarray(values, dtype=float), np.linspace(0.0, 1.0, POINTS)))


def timed_store(folder: Path) -> tuple[float, float]:
    """Median seconds of a durable write of one byte, and bytes a second of a large one beyond it."""

    def median_s(content: bytes) -> float:
        times = []
        for _ in range(SAVES):
            begun = time.perf_counter()
            write_bytes_atomic(folder / f"store-{os.getpid()}", content)
            times.append(time.perf_counter() - begun)
        (folder / f"store-{os.getpid()}").unlink()
        return float(np.median(times))

    small, large = median_s(b"x"), median_s(os.urandom(SAVED_BYTES))
    return small, SAVED_BYTES / max(1e-9, large - small)


def load_measures(path: Path = SHIPPED) -> FleetMeasures:
    """The record that was kept.

    Raises:
        RunFolderError: the file is damaged.
    """
    return from_json(FleetMeasures, read_json(path, "the measures of a fleet", RunFolderError), path)


def main(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders with run folders in them.")],
    out: Annotated[Path, typer.Option(help="JSON file.")] = SHIPPED,
    how: Annotated[str, typer.Option(help="Where they come from, for the record.")] = "run folders of one machine",
) -> None:
    """Measure, and keep the record."""
    measures = read_measures(runs, how, out.parent)
    out.write_text(json.dumps(to_json(measures)) + "\n", encoding="utf-8")
    say(json.dumps({key: value for key, value in asdict(measures).items() if not isinstance(value, tuple)}, indent=1))


if __name__ == "__main__":
    program(main)
