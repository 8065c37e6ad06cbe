"""`cosearch list`: the entries of a registry, one line each, with their provenance."""

from __future__ import annotations

from typing import Any

from rich.table import Table as RichTable

from cosearch.cost.accel_table import design_records
from cosearch.pipeline.builtins import load_builtins
from cosearch.pipeline.teacher_facts import teacher_rows
from cosearch.presets import PRESETS
from cosearch.registry import unknown_name
from cosearch.rl.envs import ENVIRONMENTS
from cosearch.space.operations import OPERATIONS
from cosearch.space.space import SPACES
from cosearch.strategies.base import STRATEGIES
from latency_tables.devices import list_devices

Rows = list[dict[str, Any]]


def _devices() -> Rows:
    return [
        {
            "name": d.name,
            "description": d.description,
            "provenance": d.provenance,
            "runtime": d.runtime,
            "dtype": d.dtype,
            "threads": d.threads,
        }
        for d in list_devices()
    ] + [
        {
            "name": "this",
            "description": "this machine, measured before the search",
            "provenance": "measured",
            "runtime": "onnxruntime",
            "dtype": "float32",
            "threads": 1,
        },
        *design_records(),
    ]


def _strategies() -> Rows:
    return [{"name": s.name, "description": s.description, "kind": s.kind, "paper": s.paper} for s in STRATEGIES.entries()]


def _envs() -> Rows:
    return [
        {"name": f"{family.name}:{game}", "description": family.description, "open": family.is_open}
        for family in ENVIRONMENTS.entries()
        for game in family.games
    ]


def _named(entries: Any) -> Rows:
    return [{"name": e.name, "description": e.description} for e in entries]


LISTS = {
    "devices": _devices,
    "strategies": _strategies,
    "envs": _envs,
    "teachers": teacher_rows,
    "ops": lambda: _named(OPERATIONS.entries()),
    "spaces": lambda: _named(SPACES.entries()),
    "presets": lambda: _named(PRESETS.values()),
}


def listing(what: str) -> Rows:
    """The rows of one list.

    Args:
        what: a key of :data:`LISTS`.

    Raises:
        UnknownNameError: there is no such list.
    """
    load_builtins()
    if what not in LISTS:
        raise unknown_name("list", what, LISTS, f"There are {', '.join(LISTS)}")
    return LISTS[what]()


def listing_table(what: str, rows: Rows) -> RichTable:
    """The rows for people."""
    table = RichTable(title=what)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    return table


def _text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):  # latency on each table
        return "\n".join(_latency_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return "" if value is None else str(value)


def _latency_text(item: dict[str, Any]) -> str:
    time = "no rows" if item["latency_s"] is None else f"{item['latency_s'] * 1e3:.3f} ms"
    return f"{item['device']}/{item['runtime']}-{item['dtype']}-{item['threads']}t: {time} ({item['provenance']})"
