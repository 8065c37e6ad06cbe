"""The table file: strict reading and stable writing of its lines. No prediction here, see ``table``.

One JSON object a line: a ``header``, then one ``row`` an operation (sorted by key), then at most one ``certificate``.
Reading trusts nothing: every field that a number depends on is checked, and ``table_id`` (SHA-256 of the content)
must fit, so that a changed digit is an error and never another latency.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latency_tables.certificate import read_certificate
from latency_tables.errors import RequestError, ShapeError, TableError
from latency_tables.header import MAX_ENERGY_J, MAX_LATENCY_S, check_header, read_device
from latency_tables.opspec import OpSpec
from latency_tables.text.fields import number, number_or_none, object_of, one_of, pair_of, parse_line, text_of
from latency_tables.text.writing import make_folder, write_bytes_atomic

STATUSES = ("ok", "unsupported", "failed")
MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Row:
    """One operation of a table.

    Attributes:
        key: see ``OpSpec.key``.
        latency_s: what the operation adds to a network, seconds, before calibration; None unless ``status`` is ok.
        energy_j: joules, or None where nobody measured it.
        status: ``ok``, ``unsupported`` (the runtime refuses it) or ``failed``.
        details: everything else that was recorded: method, interval, rounds, clean share, graph, ...
    """

    key: str
    latency_s: float | None
    energy_j: float | None = None
    status: str = "ok"
    details: dict[str, object] = field(default_factory=dict)

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """95 % interval of ``latency_s`` in seconds, or None where it was not recorded.

        Raises:
            TableError: ``details`` holds something else in its place.
        """
        value = self.details.get("interval_s")
        return None if value is None else pair_of(value, "details.interval_s", low=-MAX_LATENCY_S, high=MAX_LATENCY_S)


@dataclass(frozen=True)
class TableFile:
    """The parsed content of a table file; ``header`` and ``certificate`` as they stand there."""

    header: dict[str, object]
    rows: dict[str, Row]
    certificate: dict[str, object] | None


def content_id(records: Sequence[Mapping[str, object]]) -> str:
    """SHA-256 over the records in canonical form, leaving out the header's own ``table_id``."""
    digest = hashlib.sha256()
    for record in records:
        kept = {k: v for k, v in record.items() if not (k == "table_id" and record.get("record") == "header")}
        digest.update(json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def dump_table(table: TableFile) -> str:
    """The text of a table file: sorted, rounded to 6 significant digits, one object a line, stable under ``git diff``."""
    lines: list[dict[str, object]] = [{"record": "header", **{k: v for k, v in table.header.items() if k != "table_id"}}]
    for key in sorted(table.rows):
        row = table.rows[key]
        lines.append(
            {
                "record": "row",
                "key": key,
                "latency_s": row.latency_s,
                "energy_j": row.energy_j,
                "status": row.status,
                "details": row.details,
            }
        )
    if table.certificate is not None:
        lines.append({"record": "certificate", **table.certificate})
    records = [_rounded_fields(line) for line in lines]
    records[0]["table_id"] = content_id(records)
    return "".join(json.dumps(record, sort_keys=True, allow_nan=False) + "\n" for record in records)


def rounded(value: object) -> object:
    """The same JSON value with every float rounded to 6 significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return _rounded_fields(value)
    return [rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def _rounded_fields(record: Mapping[str, object]) -> dict[str, object]:
    return {name: rounded(value) for name, value in record.items()}


def parse_table(text: str, *, where: str) -> TableFile:
    """Read and check the text of a table file.

    Args:
        text: the whole file.
        where: how messages name it, usually the path.

    Raises:
        TableError: anything that is not exactly a valid table; the message names the line and the rule.
    """
    records = []
    for count, line in enumerate(text.splitlines(), 1):
        if line.strip():
            records.append((count, parse_line(line, f"{where}, line {count}")))
    if not records:
        raise TableError(
            f"{where} is empty; expected a header line, then one line an operation. "
            "Make a table with: python -m latency_tables measure --out FILE"
        )
    header, place = records[0][1], f"{where}, line {records[0][0]}"
    check_header(header, place)
    device, table_id = read_device(header["device"], place), text_of(header, "table_id", place)
    rows: dict[str, Row] = {}
    certificate: dict[str, object] | None = None
    for count, record in records[1:]:
        place = f"{where}, line {count}"
        if record.get("record") == "row" and certificate is None:
            row = _read_row(record, device.dtype, place)
            if row.key in rows:
                raise TableError(f"{place}: second row for {row.key}; an operation has one row")
            rows[row.key] = row
        elif record.get("record") == "certificate" and certificate is None:
            read_certificate(record, place)
            certificate = record
        else:
            raise TableError(
                f"{place}: expected a row or, as the last line, one certificate, got record {record.get('record')!r}"
            )
    if not any(row.status == "ok" for row in rows.values()):
        raise TableError(f"{where} holds no usable row; measure again with: python -m latency_tables measure --out FILE")
    expected = content_id([record for _, record in records])
    if table_id != expected:
        raise TableError(
            f"{where}: table_id does not fit the content (expected {expected[:12]}, got {table_id[:12]}): "
            "the file was changed or cut after it was written; get it again or measure again"
        )
    return TableFile(header, rows, certificate)


def read_table(path: str | Path) -> TableFile:
    """Read and check a table file.

    Raises:
        TableError: the file is absent, unreadable or not a valid table.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise TableError(f"no table file at {path}; `python -m latency_tables list` names the shipped ones")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TableError(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB; a table has one short line an operation")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise TableError(f"cannot read {path} as a table: {error}") from error
    return parse_table(text, where=str(path))


def write_table(path: str | Path, table: TableFile) -> None:
    """Write a table file whole or not at all, after reading its own text back.

    Raises:
        TableError: the content would not be a valid table.
        RequestError: something that is no regular file is there.
        RunFailedError: the disk refuses the write.
    """
    path = Path(path)
    text = dump_table(table)
    parse_table(text, where=str(path))
    make_folder(path.parent)
    write_bytes_atomic(path, text.encode())


def write_new_table(path: Path, table: TableFile, *, again: bool) -> None:
    """:func:`write_table`, which replaces an earlier table of the same device and provenance, and anything else if asked to.

    Args:
        path: of the file.
        table: what to write.
        again: replace whatever file is there.

    Raises:
        TableError: the content would not be a valid table.
        RequestError: a file is there that is no such table, or no regular file.
        RunFailedError: the disk refuses the write.
    """
    if path.exists() and not again:
        try:
            there, new = (
                f"the {h['provenance']} table of {read_device(h['device'], '').name}"
                for h in (read_table(path).header, table.header)
            )
        except TableError:
            there, new = "no table", "a table"
        if there != new:
            raise RequestError(f"{path} is there already ({there}); give --again to replace it, or another --out")
    write_table(path, table)


def _read_row(record: dict[str, object], dtype: str, where: str) -> Row:
    key = text_of(record, "key", where)
    try:
        op = OpSpec.from_key(key)
    except (ShapeError, ValueError) as error:
        raise TableError(f"{where}: {str(error)[:200]}") from error
    if op.key != key:
        raise TableError(f"{where}: key {key!r} is not in canonical form, expected {op.key!r}")
    if op.dtype != dtype:
        raise TableError(f"{where}: a row of dtype {op.dtype} in a table of dtype {dtype}")
    status = one_of(record.get("status", "ok"), STATUSES, f"{where}: status")
    details = object_of(record.get("details", {}), f"{where}: details", "what else was recorded")
    latency_s = None
    if status == "ok":
        latency_s = number(record.get("latency_s"), f"{where}: latency_s", low=0, high=MAX_LATENCY_S, positive=True)
    elif record.get("latency_s") is not None:
        raise TableError(f"{where}: a row of status {status} has no latency, got {record['latency_s']!r:.60}")
    if details.get("interval_s") is not None:
        pair_of(details["interval_s"], f"{where}: details.interval_s", low=-MAX_LATENCY_S, high=MAX_LATENCY_S)
    energy = record.get("energy_j")
    energy_j = number_or_none(energy, f"{where}: energy_j (null where unknown)", low=0, high=MAX_ENERGY_J, positive=True)
    return Row(key, latency_s, energy_j, status, details)
