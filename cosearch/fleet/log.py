"""Keeps ``workers.json`` while work is done: what each process did, so that the report can say how the work went."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import to_json
from cosearch.record.workers import LOST, STOPPED, UNDER_WAY, Attempt, Session, WorkersRecord, read_workers
from latency_tables.errors import CosearchError

EVERY_S = 5.0  # between two writes: what a killed command did not record is no more than that


class WorkLog:
    """A session of the record in a folder. A context manager: inside the ``with`` block work is done, afterwards none is.

    A disk that does not take the record stops no work: it is told once.

    Args:
        folder: gets the record, or has one of earlier sessions.
        tell: is told of a disk that does not take it.
        clock: seconds since 1970.

    Raises:
        RunFolderError: the record that is there is damaged.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._path, self._tell, self._clock, self._latest = folder / WorkersRecord.FILE, tell, clock, 0.0
        self._earlier = tuple(_stopped(session) for session in read_workers(folder).sessions)
        self._began = self._written = self._now()
        self._attempts: list[Attempt] = []
        self._open: dict[str, int] = {}  # name -> place of its attempt
        self._told = False

    def __enter__(self) -> WorkLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._attempts:
            self._write(_stopped(self._session()))

    def started(self, name: str, where: str) -> None:
        """Work was begun; where it was under way, its process was lost."""
        if name in self._open:
            self.ended(name, LOST, "its process was lost: killed, out of memory, or its machine went away")
        now = self._now()
        self._open[name] = len(self._attempts)
        self._attempts.append(Attempt(name=name, where=where, began_s=now, ended_s=now))

    def ended(self, name: str, end: str, why: str = "") -> None:
        """Work ended.

        Args:
            name: of it; one that is not under way is no fault.
            end, why: see ``Attempt``.
        """
        if name in self._open:
            self._attempts[self._open[name]] = replace(self._attempt(name), ended_s=self._now(), end=end, why=why)
            del self._open[name]

    def slow(self, name: str) -> None:
        """Work that is under way takes twice as long as half of the others did."""
        self._attempts[self._open[name]] = replace(self._attempt(name), slow=True)

    def stuck(self, name: str) -> None:
        """Nothing was heard of work that is under way for ten minutes."""
        self._attempts[self._open[name]] = replace(self._attempt(name), stuck=True)

    def keep(self) -> None:
        """Write the record, unless that was done a moment ago."""
        if self._attempts and self._now() - self._written >= EVERY_S:
            self._write(self._session())

    def _now(self) -> float:
        """The present moment; a clock that is set back stands still until it has caught up."""
        self._latest = max(self._latest, self._clock())
        return self._latest

    def _attempt(self, name: str) -> Attempt:
        return self._attempts[self._open[name]]

    def _session(self) -> Session:
        now = self._now()
        attempts = (replace(one, ended_s=now) if one.end == UNDER_WAY else one for one in self._attempts)
        return Session(began_s=self._began, ended_s=now, attempts=tuple(attempts))

    def _write(self, session: Session) -> None:
        self._written = self._now()
        record = WorkersRecord(sessions=(*self._earlier, session))
        try:
            write_bytes_atomic(self._path, json.dumps(to_json(record), indent=1).encode() + b"\n")
        except CosearchError as error:
            if not self._told:
                self._tell(f"what the processes do is not recorded: {error}")
                self._told = True


def _stopped(session: Session) -> Session:
    """A session that is over: what was under way stopped with it."""
    attempts = (replace(one, end=STOPPED) if one.end == UNDER_WAY else one for one in session.attempts)
    return replace(session, attempts=tuple(attempts))
