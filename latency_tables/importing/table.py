"""A table of imported rows: who measured them, where they came from, and that they are not ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from latency_tables.errors import RequestError, TableError
from latency_tables.header import SCHEMA
from latency_tables.importing.formats import FORMATS, Found, Read
from latency_tables.schema import Row, TableFile


@dataclass(frozen=True)
class ImportRequest:
    """What is imported, and what it is of.

    Attributes:
        file: with the latencies.
        kind: a name of ``FORMATS``.
        device, description: of the device that was timed.
        runtime, dtype, threads: that it was timed with.
        source: who measured it and how, for the record.
        overhead_s: seconds that one inference takes beside its operations; 0 where nobody knows. Its joules count as 0
            where every row has an energy; where one has none, networks have no energy.

    Raises:
        RequestError: no source is named, the device has the name of this machine, or the overhead is no time.
    """

    file: Path
    kind: str
    device: str
    description: str
    runtime: str
    dtype: str
    threads: int
    source: str
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise RequestError("--source must say who measured the latencies, how and when; got an empty text")
        if self.device == "this":
            raise RequestError("--device must name the machine that was timed: 'this' stands for the one that searches")
        if not 0 <= self.overhead_s <= 3600:
            raise RequestError(f"--overhead-us must be a time of at most an hour, got {self.overhead_s * 1e6:g}")


def imported_table(request: ImportRequest) -> tuple[TableFile, Read]:
    """The table of a file, and what was read; it is checked where it is written.

    Raises:
        RequestError: no such format.
        TableError: the file cannot be read, holds none of our operations, or one of them with two latencies.
    """
    if request.kind not in FORMATS:
        raise RequestError(f"--format must be one of {', '.join(FORMATS)}, got {request.kind!r}")
    read = FORMATS[request.kind](request.file, request.dtype)
    if not read.rows:
        first = f"; the first: {read.left_out[0][:200]}" if read.left_out else ""
        raise TableError(f"{request.file}: none of its {len(read.left_out)} entries is an operation here{first}")
    rows: dict[str, Row] = {}
    for found in read.rows:
        before = rows.get(found.op.key)
        if before is not None and (before.latency_s, before.energy_j) != (found.latency_s, found.energy_j):
            raise TableError(
                f"{request.file}: {found.op.key} is there twice, with {before.latency_s:g} and {found.latency_s:g} s; keep one"
            )
        rows[found.op.key] = _row(found, request)
    header: dict[str, object] = {
        "schema": SCHEMA,
        "device": {
            "name": request.device,
            "description": request.description,
            "runtime": request.runtime,
            "dtype": request.dtype,
            "threads": request.threads,
        },
        "provenance": "imported",
        "calibration": {
            "overhead_s": request.overhead_s,
            "scale": 1.0,
            "overhead_j": 0.0 if all(row.energy_j is not None for row in rows.values()) else None,
            "interval_factors": None,
        },
        "imported": {
            "format": request.kind,
            "file": request.file.name,
            "sha256": hashlib.sha256(request.file.read_bytes()).hexdigest(),
            "source": request.source,
            "left_out": len(read.left_out),
        },
    }
    return TableFile(header, rows, None), read


def _row(found: Found, request: ImportRequest) -> Row:
    note = {"note": found.note} if found.note else {}
    return Row(found.op.key, found.latency_s, found.energy_j, details={"method": f"imported from {request.kind}", **note})
