"""The journal of a measurement: every visit is on disk before the next is asked for, so that nothing is lost or doubled.

First line: what is measured (plan, device, settings). Then one line a result. A journal of another plan is refused; a
line that was cut by a crash is dropped. When the table is written the journal is removed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from latency_tables.board.timing import Visit
from latency_tables.errors import TableError


class Journal:
    """Visits of all models so far, kept in step with the file.

    Args:
        path: the file; made if absent.
        identity: what a journal must say about itself to be gone on with.

    Raises:
        TableError: the file belongs to another measurement, or is damaged other than at its end.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.visits: dict[str, list[Visit]] = {}
        self.failed: dict[str, str] = {}
        self.graphs: dict[str, dict[str, int]] = {}
        self.extra: list[dict[str, Any]] = []
        self.resumed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._read(identity) if path.exists() else 0
        self._stream = path.open("r+b" if kept else "wb")
        self._stream.seek(kept)
        self._stream.truncate()
        if not kept:
            self._write({"journal": 1, **identity})

    def _read(self, identity: dict[str, Any]) -> int:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if not end:
            return 0
        for number, line in enumerate(data[:end].splitlines(), 1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._check(record, identity)
                else:
                    self._take(record)
            except (ValueError, KeyError, TypeError) as error:
                raise TableError(
                    f"{self.path}, line {number} is damaged ({error}); remove the file to measure from the start"
                ) from error
        self.resumed = True
        return end

    def _check(self, record: dict[str, Any], identity: dict[str, Any]) -> None:
        expected = json.loads(json.dumps({"journal": 1, **identity}))
        if record != expected:
            changed = sorted(k for k in {*record, *expected} if record.get(k) != expected.get(k))
            raise TableError(
                f"{self.path} belongs to another measurement (different: {', '.join(changed)}); "
                "finish that one with its own options, or remove the file to measure from the start"
            )

    def _take(self, record: dict[str, Any]) -> None:
        if "visit" in record:
            self.visits.setdefault(record["id"], []).append(Visit(**record["visit"]))
        elif "failed" in record:
            self.failed[record["id"]] = record["failed"]
        elif "graph" in record:
            self.graphs[record["id"]] = record["graph"]
        else:
            self.extra.append(record)

    def add(self, record: dict[str, Any]) -> None:
        """Write one result (an object with ``id`` and ``visit``, ``failed`` or ``graph``, or anything else) and take it."""
        self._write(record)
        self._take(record)

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, sort_keys=True).encode() + b"\n")
        self._stream.flush()

    def close(self) -> None:
        """Write the file out and close it; safe to call twice."""
        if self._stream.closed:
            return
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
