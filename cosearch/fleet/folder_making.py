"""Folders that workers make: told as they go, tried again where something unforeseen broke, put in place as they come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cosearch.fleet.cluster import Cluster
from cosearch.fleet.folder_work import FolderJob, FolderMade
from cosearch.fleet.folders import Shared, marked, packed, unmarked, unpack
from cosearch.fleet.log import WorkLog
from cosearch.fleet.watch import Watch
from cosearch.fleet.work import TRIES
from cosearch.fleet.workers import Workers
from cosearch.record.workers import BROKE, FAILED, HANDED_BACK, LOST
from latency_tables.errors import CosearchError, RunFailedError
from latency_tables.text.terminal import system_fault

Tell = Callable[[str], None]


@contextmanager
def seen_by_workers(folder: Path, cluster: Cluster) -> Iterator[Shared]:
    """A folder as workers are to recognise it, inside the ``with`` block.

    Args:
        folder: an existing one.
        cluster: where the workers are.
    """
    if not cluster.address:
        yield Shared(str(folder))
        return
    try:
        yield marked(folder)
    finally:
        unmarked(folder)


class FolderMaking:
    """Some folders to make in one place, and what comes of them.

    Args:
        folder: their place.
        jobs: one for each.
        log: of what the processes do.
        tell: is told what happens, one line each.
        needed: names of the folders of that place which one of a name is made from, itself left out.
        arrived: (name, draft) of one that came back from another machine, to be corrected before it is in its place.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[FolderJob[Any]],
        log: WorkLog,
        tell: Tell,
        *,
        needed: Callable[[str], Sequence[str]] = lambda name: (),
        arrived: Callable[[str, Path], None] = lambda name, draft: None,
    ) -> None:
        self._folder, self._tell, self._needed, self._arrived = folder, tell, needed, arrived
        self._jobs, self._watch, self._apart = list(jobs), Watch(len(jobs), log), False
        self._failed: dict[str, str] = {}
        self._broke: Counter[str] = Counter()

    def make(self, workers: Workers) -> Mapping[str, str]:
        """Make them all.

        Args:
            workers: whose function takes the jobs and gives a ``FolderMade``.

        Returns:
            For each that failed, why. One whose process was lost ``TRIES`` times is among them, and one that broke as often.
        """
        workers.run(
            self._jobs,
            name=lambda index: f"the run {self._jobs[index].name}",
            started=lambda index, where: self._watch.started(self._jobs[index].name, where),
            sent=self._sent,
            done=self._done,
            failed=self._broken,
            lost=lambda index, reason: self._end(index, LOST, reason),
            waits=lambda index, reason: self._tell(f"{self._jobs[index].name}: {reason}"),
            tick=self._tick,
        )
        return self._failed

    def _sent(self, index: int, text: str) -> None:
        self._watch.heard(self._jobs[index].name)
        self._tell(f"{self._jobs[index].name}: {text}")

    def _tick(self) -> None:
        for line in self._watch.faults():
            self._tell(line)

    def _done(self, index: int, made: FolderMade) -> None:
        job, failure = self._jobs[index], made.failure
        if made.folder is not None:
            failure = self._take(job.name, made.folder) or failure
        if made.unfinished and failure is None:
            if made.folder is None and not self._apart:
                self._apart = True
                self._tell("the nodes do not see this folder: runs come back in whole pieces")
            self._watch.paused(job.name, HANDED_BACK)
            self._jobs.append(replace(job, parts=self._parts(job.name)))
        elif failure is None:
            self._end(index)
        else:
            self._end(index, FAILED, failure)

    def _broken(self, index: int, error: CosearchError) -> None:
        """Something that nobody foresaw, on one machine perhaps: it is tried again."""
        job = self._jobs[index]
        self._broke[job.name] += 1
        if isinstance(error, RunFailedError) and self._broke[job.name] < TRIES:
            why = str(error).strip().splitlines()[-1]
            self._tell(f"{job.name}: is tried again, it broke: {why}")
            self._watch.paused(job.name, BROKE, why)
            self._jobs.append(job)
        else:
            self._end(index, FAILED, str(error))

    def _end(self, index: int, end: str = "", reason: str = "") -> None:
        name = self._jobs[index].name
        if end:
            self._failed[name] = reason
            self._watch.ended(name, end, reason)
        else:
            self._watch.ended(name)
        self._tell(f"{name}: {f'failed: {reason}' if end else 'finished'}; {self._watch.summary()}")

    def _parts(self, name: str) -> dict[str, bytes]:
        """The folder so far, and those that it is made from, in whole pieces."""
        return {one: packed(self._folder / one) for one in (name, *self._needed(name)) if (self._folder / one).is_dir()}

    def _take(self, name: str, content: bytes) -> str | None:
        """Put a folder that was handed back in its place; why that failed."""
        path = self._folder / name
        try:
            unpack(content, path, partial(self._arrived, name))
        except CosearchError as error:
            return str(error)
        except OSError as error:
            return f"{path}: {system_fault(error)}"
        return None
