"""What `cosearch list teachers` says: scores, steps, size, and the predicted latency on each device that has a table."""

from __future__ import annotations

from cosearch.rl.teacher import TeacherRecord, list_teachers
from latency_tables.devices import list_devices
from latency_tables.errors import MissingOpError
from latency_tables.table import Table, load_table

SCORES = ("steps", "seed", "train_levels", "score_mean", "score_ci95", "episodes", "score_train_mean", "score_train_ci95")


def teacher_rows() -> list[dict[str, object]]:
    """One row a shipped teacher.

    Returns:
        ``name``, ``description``, ``env``, the scores with their intervals, ``params``, ``macs``, ``bytes`` of the weights'
        file, and ``latency``: for each table ``{"device", "runtime", "dtype", "threads", "latency_s", "provenance"}``, with
        null for ``latency_s`` where the table lacks a row of the network.
    """
    tables = [load_table(device.path) for device in list_devices()]
    return [_row(record, tables) for record in list_teachers()]


def _row(record: TeacherRecord, tables: list[Table]) -> dict[str, object]:
    return {
        "name": record.name,
        "description": record.description,
        "env": record.env,
        **{key: record.provenance.get(key) for key in SCORES},
        "params": sum(op.params for op in record.ops),
        "macs": sum(op.macs for op in record.ops),
        "bytes": record.path.with_suffix(".safetensors").stat().st_size,
        "latency": [_latency(record, table) for table in tables],
    }


def _latency(record: TeacherRecord, table: Table) -> dict[str, object]:
    device = table.device
    try:
        latency_s = table.predict(record.ops).latency_s
    except MissingOpError:
        latency_s = None
    return {
        "device": device.name,
        "runtime": device.runtime,
        "dtype": device.dtype,
        "threads": device.threads,
        "latency_s": latency_s,
        "provenance": table.provenance,
    }
