"""The journal of a measurement: results go to disk as they come, so that an interrupted one goes on where it stopped.

First line: what must match for a resume (plan, device, settings); then the state in which the machine was at the start, and the
machine and the runtime, which must match, too. Then one line a result; the visits of a batch are
written when the batch has ended, so at most one batch is made again. A journal of another plan is refused; a line that
was cut by a crash is dropped. When the table is written the journal is removed.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from latency_tables.board.timing import Paced, Visit
from latency_tables.errors import TableError
from latency_tables.measuring.identity import check_same_place
from latency_tables.text.fields import parse_line
from latency_tables.text.writing import make_folder, one_clear_error, regular_file, remove

KINDS = ("visit", "failed", "graph")


class Journal:
    """Results of all models so far, kept in step with the file.

    Args:
        path: the file; made if absent.
        identity: what must match for a resume.

    Raises:
        TableError: the file belongs to another measurement, or is damaged other than at its end.
        RequestError: something that is no regular file is there.
        RunFailedError: the disk refuses the file.
    """

    def __init__(self, path: Path, identity: Mapping[str, object]) -> None:
        self.path = path
        self.visits: dict[str, list[Visit]] = {}
        self.failed: dict[str, str] = {}
        self.graphs: dict[str, dict[str, int]] = {}
        self.energies_j: dict[str, float | None] = {}  # None: the sensor gave no answer
        self.paced: dict[str, Paced] = {}
        self.place: Mapping[str, object] | None = None  # None: no core has answered yet
        self.start: Mapping[str, object] = {}  # empty in the journal of an earlier version
        self.resumed = False
        make_folder(path.parent)
        with one_clear_error(path):
            kept = self._read(identity) if regular_file(path).exists() else 0
            self._stream = path.open("r+b" if kept else "wb")
            self._stream.seek(kept)
            self._stream.truncate()
        if not kept:
            self._write({"journal": 1, **identity})

    def _read(self, identity: Mapping[str, object]) -> int:
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        if not end:
            return 0
        for number, line in enumerate(data[:end].splitlines(), 1):
            try:
                record = self._record(line)
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

    def _record(self, line: bytes) -> dict[str, object]:
        try:
            return parse_line(line.decode(), "it")
        except TableError as error:
            raise ValueError(str(error)) from error

    def _check(self, record: object, identity: Mapping[str, object]) -> None:
        expected = json.loads(json.dumps({"journal": 1, **identity}))
        before = record if isinstance(record, dict) else {}
        if "readings" not in before:  # an earlier version did not write them down
            expected.pop("readings", None)
        if record != expected:
            changed = sorted(k for k in {*before, *expected} if before.get(k) != expected.get(k))
            raise TableError(
                f"{self.path} belongs to another measurement (different: {', '.join(changed)}); "
                "finish that one with its own options, or remove the file to measure from the start"
            )

    def _take(self, record: Mapping[str, object]) -> None:
        name = str(record["id"])
        kind = next((kind for kind in KINDS if kind in record), record.get("kind"))
        if kind == "visit":
            self.visits.setdefault(name, []).append(Visit.from_dict(record["visit"]))
        elif kind == "place":
            self.place = {str(key): value for key, value in record.items() if key not in ("id", "kind")}
        elif kind == "start":
            self.start = {"state": record["state"], "fixed": record["fixed"]}
        elif kind == "failed":
            self.failed[name] = str(record["failed"])
        elif kind == "graph":
            self.graphs[name] = _counts(record["graph"])
            self.failed.pop(name, None)  # it ran when it was tried again
        elif kind == "paced":
            self.paced[name] = Paced.from_dict(record["paced"])
        elif kind == "energy":
            energy_j = record["energy_j"]
            if energy_j is not None and not isinstance(energy_j, (int, float)):
                raise TypeError(f"energy_j must be a number or null, got {energy_j!r:.60}")
            self.energies_j[name] = energy_j
        else:
            raise ValueError(f"a result of kind {kind!r}")

    def began_with(self, state: object, fixed: object) -> None:
        """Write down what the first core of the measurement said; later ones say how the machine was in its midst or at its end.

        Args:
            state: clocks, temperatures and load.
            fixed: what that core could fix.
        """
        if self.place is None:
            self.add({"kind": "start", "id": "", "state": state, "fixed": fixed})

    def measured_at(self, place: Mapping[str, object]) -> None:
        """Write down which machine and runtime answer, or compare them with those that the measurement began with.

        Args:
            place: see ``identity.place_of``.

        Raises:
            TableError: it was another machine or runtime.
        """
        if self.place is None:
            self.add({"kind": "place", "id": "", **place})
            return
        advice = f"go on with that one, or measure the whole table again after `rm {shlex.quote(str(self.path))}`"
        check_same_place(self.place, json.loads(json.dumps(place)), what=f"the measurement in {self.path}", advice=advice)

    def try_failures_again(self) -> None:
        """Forget which models could not be run: a board that was mended, or a passing fault, may run them now."""
        self.failed.clear()

    def add(self, record: Mapping[str, object]) -> None:
        """Write one result and take it.

        Args:
            record: an object with ``id`` and one of ``visit``, ``failed``, ``graph`` and ``paced``, or of ``kind`` energy with
                ``energy_j``, or of ``kind`` start or place.
        """
        self._write(record)
        self._take(record)

    def _write(self, record: Mapping[str, object]) -> None:
        with one_clear_error(self.path):
            self._stream.write(json.dumps(record, sort_keys=True).encode() + b"\n")
            self._stream.flush()

    def close(self) -> None:
        """Write the file out and close it, or remove it where nothing was measured; safe to call twice."""
        if self._stream.closed:
            return
        if not (self.visits or self.failed or self.graphs):
            self._stream.close()
            remove(self.path)
            return
        with one_clear_error(self.path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()


def _counts(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError(f"a graph must be an object of counts, got {value!r:.60}")
    return {str(name): int(count) for name, count in value.items()}
