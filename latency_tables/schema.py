"""The table file: strict reading and stable writing of its lines. No prediction here, see ``table``.

One JSON object a line: a ``header``, then one ``row`` an operation (sorted by key), then at most one ``certificate``.
Reading trusts nothing: every field that a number depends on is checked, and ``table_id`` (SHA-256 of the content)
must fit, so that a changed digit is an error and never another latency. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency_tables.errors import ShapeError, TableError
from latency_tables.fields import number, parse_line, text_of
from latency_tables.opspec import DTYPE_BYTES, OpSpec

SCHEMA = 1
PROVENANCES = {
    "measured": "timed on the device itself",
    "derived": "computed from published measurements of the device",
    "estimated": "a model with public specifications; nobody timed it",
    "synthetic": "made under emulation or for a test; says nothing about a board",
}
STATUSES = ("ok", "unsupported", "failed")
MAX_FILE_BYTES = 64 * 2**20
MAX_LATENCY_S = 3600.0
MAX_ENERGY_J = 1e6
MAX_POWER_W = 1e5
MAX_NETWORKS = 10**6
PARTS = ("uncalibrated", "flops", "single_operations", "repeat")


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
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TableFile:
    """The parsed content of a table file."""

    header: dict[str, Any]
    rows: dict[str, Row]
    certificate: dict[str, Any] | None


def content_id(records: list[dict[str, Any]]) -> str:
    """SHA-256 over the records in canonical form, leaving out the header's own ``table_id``."""
    digest = hashlib.sha256()
    for record in records:
        kept = {k: v for k, v in record.items() if not (k == "table_id" and record.get("record") == "header")}
        digest.update(json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def dump_table(table: TableFile) -> str:
    """The text of a table file: sorted, rounded to 6 significant digits, one object a line, stable under ``git diff``."""
    header = {"record": "header", **{k: v for k, v in table.header.items() if k != "table_id"}}
    rows = []
    for key in sorted(table.rows):
        row = table.rows[key]
        rows.append(
            {
                "record": "row",
                "key": key,
                "latency_s": row.latency_s,
                "energy_j": row.energy_j,
                "status": row.status,
                "details": row.details,
            }
        )
    tail = [] if table.certificate is None else [{"record": "certificate", **table.certificate}]
    records = [rounded(record) for record in (header, *rows, *tail)]
    records[0]["table_id"] = content_id(records)
    return "".join(json.dumps(record, sort_keys=True, allow_nan=False) + "\n" for record in records)


def rounded(value: Any, digits: int = 6) -> Any:
    """The same JSON value with every float rounded to ``digits`` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    return [rounded(v, digits) for v in value] if isinstance(value, (list, tuple)) else value


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
    header = check_header(records[0][1], f"{where}, line {records[0][0]}")
    rows: dict[str, Row] = {}
    certificate: dict[str, Any] | None = None
    for count, record in records[1:]:
        place = f"{where}, line {count}"
        if record.get("record") == "row" and certificate is None:
            row = _check_row(record, header, place)
            if row.key in rows:
                raise TableError(f"{place}: second row for {row.key}; an operation has one row")
            rows[row.key] = row
        elif record.get("record") == "certificate" and certificate is None:
            certificate = _check_certificate(record, place)
        else:
            raise TableError(
                f"{place}: expected a row or, as the last line, one certificate, got record {record.get('record')!r}"
            )
    if not any(row.status == "ok" for row in rows.values()):
        raise TableError(f"{where} holds no usable row; measure again with: python -m latency_tables measure --out FILE")
    expected = content_id([record for _, record in records])
    if header["table_id"] != expected:
        raise TableError(
            f"{where}: table_id does not fit the content (expected {expected[:12]}, got {header['table_id'][:12]}): "
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
    """
    path = Path(path)
    text = dump_table(table)
    parse_table(text, where=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def check_header(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Check the header line; the record itself.

    Raises:
        TableError: a field is absent or out of range.
    """
    if record.get("record") != "header":
        raise TableError(f"{where}: the first line must be the header, got record {record.get('record')!r}")
    if type(record.get("schema")) is not int or record["schema"] != SCHEMA:
        raise TableError(
            f"{where}: this program reads schema {SCHEMA}, got {record.get('schema')!r}; "
            "update the program or measure the table again"
        )
    if record.get("provenance") not in tuple(PROVENANCES):
        raise TableError(f"{where}: provenance must be one of {', '.join(PROVENANCES)}, got {record.get('provenance')!r}")
    text_of(record, "table_id", where)
    device = record.get("device")
    if not isinstance(device, dict):
        raise TableError(f"{where}: device must be an object with name, description, runtime, dtype and threads")
    for name in ("name", "description", "runtime"):
        text_of(device, name, f"{where}, device")
    if device.get("dtype") not in tuple(DTYPE_BYTES):
        raise TableError(f"{where}: device.dtype must be one of {', '.join(DTYPE_BYTES)}, got {device.get('dtype')!r}")
    if type(device.get("threads")) is not int or not 1 <= device["threads"] <= 4096:
        raise TableError(f"{where}: device.threads must be an integer from 1 to 4096, got {device.get('threads')!r}")
    calibration = record.get("calibration")
    if not isinstance(calibration, dict):
        raise TableError(f"{where}: calibration must be an object with overhead_s and scale")
    number(calibration.get("overhead_s"), f"{where}: calibration.overhead_s", low=0, high=MAX_LATENCY_S)
    number(calibration.get("scale"), f"{where}: calibration.scale", low=0, high=100, positive=True)
    if calibration.get("overhead_j") is not None:
        number(calibration["overhead_j"], f"{where}: calibration.overhead_j", low=0, high=MAX_ENERGY_J)
    if calibration.get("power_w") is not None:
        number(calibration["power_w"], f"{where}: calibration.power_w", low=0, high=MAX_POWER_W, positive=True)
    interval = calibration.get("interval_factors")
    if interval is not None:
        if not isinstance(interval, list) or len(interval) != 2:
            raise TableError(f"{where}: calibration.interval_factors must be [low, high], got {interval!r}")
        low = number(interval[0], f"{where}: calibration.interval_factors[0]", low=0, high=1, positive=True)
        number(interval[1], f"{where}: calibration.interval_factors[1]", low=low, high=100)
    return record


def _check_row(record: dict[str, Any], header: dict[str, Any], where: str) -> Row:
    try:
        op = OpSpec.from_key(text_of(record, "key", where))
    except (ShapeError, ValueError) as error:
        raise TableError(f"{where}: {str(error)[:200]}") from error
    if op.key != record["key"]:
        raise TableError(f"{where}: key {record['key']!r} is not in canonical form, expected {op.key!r}")
    if op.dtype != header["device"]["dtype"]:
        raise TableError(f"{where}: a row of dtype {op.dtype} in a table of dtype {header['device']['dtype']}")
    status, details = record.get("status", "ok"), record.get("details", {})
    if status not in STATUSES:
        raise TableError(f"{where}: status must be one of {', '.join(STATUSES)}, got {status!r}")
    if not isinstance(details, dict):
        raise TableError(f"{where}: details must be an object, got {details!r:.60}")
    latency = record.get("latency_s")
    if status == "ok":
        latency = number(latency, f"{where}: latency_s", low=0, high=MAX_LATENCY_S, positive=True)
    elif latency is not None:
        raise TableError(f"{where}: a row of status {status} has no latency, got {latency!r:.60}")
    interval = details.get("interval_s")
    if interval is not None:
        if not isinstance(interval, list) or len(interval) != 2:
            raise TableError(f"{where}: details.interval_s must be [low, high], got {interval!r:.60}")
        for value in interval:
            number(value, f"{where}: details.interval_s", low=-MAX_LATENCY_S, high=MAX_LATENCY_S)
    energy = record.get("energy_j")
    if energy is not None:
        energy = number(energy, f"{where}: energy_j (null where unknown)", low=0, high=MAX_ENERGY_J, positive=True)
    return Row(record["key"], latency, energy, status, details)


def _check_certificate(record: dict[str, Any], where: str) -> dict[str, Any]:
    for place, figures in (("certificate", record), ("certificate.uniform", record.get("uniform"))):
        if figures is not None:
            _check_figures(figures, f"{where}: {place}")
            for name in PARTS:
                if figures.get(name) is not None:
                    _check_figures(figures[name], f"{where}: {place}.{name}")
    energy = record.get("energy")
    if energy is not None:
        if not isinstance(energy, dict):
            raise TableError(f"{where}: certificate.energy must be an object or null, got {energy!r:.60}")
        for name in ("rows", "power_times_time"):
            _check_figures(energy.get(name), f"{where}: certificate.energy.{name}")
    lists = [record.get(name, []) for name in ("predicted_s", "measured_s")]
    if not all(isinstance(values, list) for values in lists) or len(lists[0]) != len(lists[1]):
        raise TableError(f"{where}: certificate.predicted_s and measured_s must be lists of the same length")
    for value in (*lists[0], *lists[1]):
        number(value, f"{where}: a time of the certificate", low=0, high=MAX_LATENCY_S, positive=True)
    return record


def _check_figures(record: Any, where: str) -> None:
    if not isinstance(record, dict):
        raise TableError(f"{where} must be an object with its figures, got {record!r:.60}")
    count = record.get("networks")
    if type(count) is not int or not 1 <= count <= MAX_NETWORKS:
        raise TableError(f"{where}.networks must be an integer from 1 to {MAX_NETWORKS}, got {count!r:.60}")
    for name, low, high in (("mape", 0, 100.0), ("within_5", 0, 1.0), ("within_10", 0, 1.0), ("bias", -100, 100)):
        number(record.get(name), f"{where}.{name}", low=low, high=high)
    if record.get("kendall_tau") is not None:
        number(record["kendall_tau"], f"{where}.kendall_tau", low=-1, high=1)
