"""Which run folders there are below some folders, and in what state each of them is.

A folder that is given may be a run, a comparison, or any folder that holds runs below it; those of teachers and of
`cosearch bench search` are left out. The agents of a run that made several are run folders of their own; their run itself is
listed until it has them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cosearch.compare.plan import PlannedRun
from cosearch.compare.runs import RECORD, read_comparison
from cosearch.record.failures import read_failures
from cosearch.record.results.family import AGENTS
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from latency_tables.errors import CosearchError, RunFolderError

FINISHED, RUNNING, STUCK, IDLE, WAITING = "finished", "running", "stuck", "idle", "waiting"
FAILED, UNREADABLE = "failed", "unreadable"
STATES = {
    FINISHED: "it has its results",
    RUNNING: "a process works on it",
    STUCK: "a process has it, and has written nothing for ten minutes or twenty times as long as between its last lines",
    IDLE: "not finished, and no process works on it: `cosearch resume FOLDER` goes on with it",
    WAITING: "a run that its comparison has not begun yet",
    FAILED: "its comparison says that it failed; the same command tries it again",
    UNREADABLE: "one of its files is damaged",
}
FRESH_S = 60.0  # a run without a lock that this machine sees, on another node, counts as running for so long after its last write
QUIET_S = 600.0
QUIET_GAPS = 20


@dataclass(frozen=True)
class Place:
    """One run folder.

    Attributes:
        path: of the folder; it need not exist yet where the run is only planned.
        holder: the folder whose lock a process that works on the run has: that of its family, else its own.
        planned: what its comparison plans; None where it belongs to none.
        failure: why it failed, as its comparison says; empty where it did not.
    """

    path: Path
    holder: Path
    planned: PlannedRun | None = None
    failure: str = ""

    @property
    def begun(self) -> bool:
        """Whether the folder is there."""
        return (self.path / RunRecord.FILE).is_file()


@dataclass(frozen=True)
class Passed:
    """A folder that could not be read, and why."""

    path: Path
    reason: str


def find_runs(folders: Sequence[Path]) -> tuple[list[Place], list[Passed]]:
    """All run folders at and below some folders, each once, in the order of their names; and what could not be read.

    Args:
        folders: runs, comparisons, or folders that hold runs at any depth.

    Raises:
        RunFolderError: one of the folders does not exist, or there is no run in any of them.
    """
    found: dict[Path, Place] = {}
    passed: list[Passed] = []
    for folder in folders:
        if not folder.is_dir():
            raise RunFolderError(f"there is no folder {folder}; give run folders, or folders that hold some, such as runs")
        for place in _below(folder, passed):
            found.setdefault(place.path.resolve(), place)
    if not found and not passed:
        raise RunFolderError(
            f"there is no run in {', '.join(map(str, folders))}: "
            "a run folder holds run.json, and is not a teacher's or of `cosearch bench search`; "
            "`cosearch search --run NAME` makes one"
        )
    return list(found.values()), passed


def _below(folder: Path, passed: list[Passed]) -> Iterator[Place]:
    if (folder / RunRecord.FILE).is_file():
        with suppress(RunFolderError):  # of a damaged one its reader says so
            run = RunDir.open(folder, teacher=True)
            if run.of_teacher or run.of_bench:
                return
        agents = sorted(path.parent for path in folder.glob(f"{AGENTS}/*/{RunRecord.FILE}"))
        yield from [Place(agent, folder) for agent in agents] or [Place(folder, folder)]
        return
    planned: dict[Path, PlannedRun] = {}
    failures: Mapping[str, str] = {}
    if (folder / RECORD).is_file():
        try:
            planned = {folder / run.name: run for run in read_comparison(folder)}
            failures = read_failures(folder)
        except CosearchError as error:
            passed.append(Passed(folder / RECORD, str(error)))
    here = {path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")}
    for path in sorted({*here, *planned}):
        if path.is_dir():
            yield from (replace(place, failure=failures.get(path.name, place.failure)) for place in _below(path, passed))
        else:
            yield Place(path, path, planned[path], failures.get(path.name, ""))


def state_of(place: Place, now_s: float, gap_s: float | None) -> str:
    """A key of :data:`STATES`, by the run's files and their times.

    Args:
        place: of the run.
        now_s: the present moment, seconds since 1970.
        gap_s: usual time between two lines of its log, seconds; None where it has fewer than two.
    """
    if not place.begun:
        return FAILED if place.failure else WAITING
    if (place.path / Summary.FILE).is_file():
        return FINISHED
    silent_s = now_s - last_written(place)
    if not _held(place.holder):
        return FAILED if place.failure else RUNNING if silent_s < FRESH_S else IDLE
    return STUCK if silent_s > max(QUIET_S, QUIET_GAPS * (gap_s or 0.0)) else RUNNING


def last_written(place: Place) -> float:
    """When a file of the run was last written, seconds since 1970; its lock does not count.

    Args:
        place: of a run that has begun.
    """
    return max(moment for moment, _ in signature(place).values())


def signature(place: Place) -> dict[str, tuple[float, int]]:
    """Time of the last write (seconds since 1970) and size of each of the run's files: equal while nobody writes it."""
    found = {}
    for folder in {place.path, place.holder, place.holder / "checkpoints"}:
        if folder.is_dir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # the run's own process takes old checkpoints away
                        if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False):
                            status = entry.stat(follow_symlinks=False)
                            found[entry.path] = (status.st_mtime, status.st_size)
    return found


def _held(folder: Path) -> bool:
    """Whether a process writes a run folder: its lock is asked for, shared and for a moment, which hinders no writer."""
    try:
        lock = os.open(folder / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
