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
    if what == "teachers":
        rows = [_teacher_in_short(row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return "" if value is None else str(value)


def _teacher_in_short(row: dict[str, Any]) -> dict[str, str]:
    """What fits a terminal; ``--json`` has the rest."""
    low, high = row["score_ci95"] or (None, None)
    latencies = [f"{item['device']} {item['latency_s'] * 1e3:.3g} ms {item['provenance']}" for item in row["latency"]
                 if item["latency_s"] is not None and (item["dtype"], item["threads"]) == ("float32", 1)]
    return {
        "name": row["name"], "plays": row["env"], "what": row["description"],
        "score [95 %]": f"{_text(row['score_mean'])} [{_text(low)}, {_text(high)}] after {row['steps']:,} steps",
        "size": f"{row['params']:,} parameters, {row['bytes'] / 1e3:,.0f} kB",
        "predicted latency": "\n".join(latencies),
    }
