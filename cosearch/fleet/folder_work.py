"""A piece of work that makes a folder, where a worker does it: in its place, or apart where the machine does not see that.

A machine that sees the place writes the folder there. One that does not is given the folder so far in a whole piece, works in a
temporary one, and hands it back whole: at its end, and after a checkpoint every ``HAND_BACK_S`` seconds, so that a machine that
is lost costs no more than the work since then.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cosearch.fleet.folders import Shared, packed, unpack
from cosearch.fleet.work import Send
from latency_tables.errors import CosearchError

LINE_EVERY_S = 60.0
HAND_BACK_S = 300.0
Content = TypeVar("Content")


@dataclass(frozen=True)
class FolderJob(Generic[Content]):
    """A folder to make.

    Attributes:
        place: folder that gets it.
        name: of it.
        content: what it is made from.
        parts: folders in whole pieces by name: the one so far, and those that it needs; None: not sent along.
    """

    place: Shared
    name: str
    content: Content
    parts: Mapping[str, bytes] | None = None


@dataclass(frozen=True)
class FolderMade:
    """What became of a folder.

    Attributes:
        failure: why it failed; None: it did not.
        unfinished: it is to be asked for again, with its parts.
        folder: in one piece; None: it lies in its place.
    """

    failure: str | None = None
    unfinished: bool = False
    folder: bytes | None = None


class Paused(Exception):
    """The work stops after a checkpoint, to be handed back."""


def make_folder(job: FolderJob[Content], send: Send, make: Callable[[Path, TextProgress], None]) -> FolderMade:
    """Make a folder in a worker process.

    Args:
        job: which one.
        send: gets lines of text.
        make: makes the folder of the job's name in the one that it is given, or goes on with what is there; that one is
            ``job.place.path`` where this machine sees it. A ``CosearchError`` of it is why the work failed.
    """
    if job.place.seen():
        return FolderMade(_failure(make, Path(job.place.path), TextProgress(send)))
    if job.parts is None:
        return FolderMade(unfinished=True)
    with tempfile.TemporaryDirectory(prefix="cosearch-") as scratch:
        path = Path(scratch) / job.name
        for name, content in job.parts.items():
            unpack(content, path.parent / name)
        try:
            failure, unfinished = _failure(make, path.parent, TextProgress(send, _after_a_checkpoint(path))), False
        except Paused:
            failure, unfinished = None, True
        return FolderMade(failure, unfinished, packed(path) if path.exists() else None)


def _failure(make: Callable[[Path, TextProgress], None], folder: Path, progress: TextProgress) -> str | None:
    try:
        make(folder, progress)
    except CosearchError as error:
        return str(error)
    return None


def _after_a_checkpoint(path: Path) -> Callable[[], bool]:
    """Whether the work has made a checkpoint since it was time to hand it back."""
    began: float = time.monotonic()
    seen: set[str] | None = None

    def due() -> bool:
        nonlocal seen
        if time.monotonic() - began < HAND_BACK_S:
            return False
        there = {file.name for file in (path / "checkpoints").glob("*")}
        if seen is None:
            seen = there
        return not there <= seen

    return due


class TextProgress:
    """Progress in lines of text: stages and notes, and once a minute where the work is.

    Args:
        send: gets each line.
        pause: whether the work is to stop now.
    """

    def __init__(self, send: Send, pause: Callable[[], bool] = lambda: False) -> None:
        self._send, self._pause, self._last = send, pause, time.monotonic()

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """See ``Progress``."""
        self._send(f"{name}: step {done_steps:,} of {total_steps:,}")

    def update(self, metrics: dict[str, Any]) -> None:
        """See ``Progress``.

        Raises:
            Paused: the work is to stop now.
        """
        if self._pause():
            raise Paused
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            score = "" if metrics.get("score_train") is None else f", score {metrics['score_train']:.2f}"
            self._send(f"{metrics['stage']}: step {metrics['step']:,}{score}, {metrics['steps_per_s']:,.0f} steps/s")

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._send(text)
