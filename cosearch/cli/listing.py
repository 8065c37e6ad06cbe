"""`cosearch list`: the entries of a registry, one line each, with their provenance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.table import Table as RichTable

from cosearch.config.presets import PRESETS
from cosearch.cost.accel_table import design_records
from cosearch.planning.builtins import load_builtins
from cosearch.registry import unknown_name
from cosearch.rl.env_families.wrappers import WRAPPERS
from cosearch.rl.envs import ENVIRONMENTS
from cosearch.space.operations import OPERATIONS
from cosearch.space.space import SPACES
from cosearch.statistics import estimate_text
from cosearch.strategies.base import STRATEGIES
from cosearch.teachers.listing import teacher_rows
from latency_tables.devices import list_devices

Row = dict[str, Any]  # each list has columns of its own
Rows = list[Row]


class Described(Protocol):
    """An entry of a registry."""

    @property
    def name(self) -> str:
        """By which it is chosen."""

    @property
    def description(self) -> str:
        """For the list."""


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


def _wrappers() -> Rows:
    return [
        {"name": e.name, "description": e.description, "example": f"{e.name}:{e.example}" if e.example else e.name}
        for e in WRAPPERS.entries()
    ]


def _named(entries: Iterable[Described]) -> Rows:
    return [{"name": e.name, "description": e.description} for e in entries]


LISTS = {
    "devices": _devices,
    "strategies": _strategies,
    "envs": _envs,
    "teachers": teacher_rows,
    "ops": lambda: _named(OPERATIONS.entries()),
    "spaces": lambda: _named(SPACES.entries()),
    "presets": lambda: _named(PRESETS.values()),
    "wrappers": _wrappers,
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


def listing_table(what: str, rows: Rows) -> RenderableType:
    """The rows for people: a table; of teachers two, their scores and their latencies by device (``--json`` has the rest)."""
    if what == "teachers":
        latencies = _table("predicted latency, float32, 1 thread", _latencies(rows))
        return Group(_table(what, [_scores(row) for row in rows]), latencies)
    return _table(what, rows)


def _table(title: str, rows: Rows) -> RichTable:
    table = RichTable(title=title)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    return table


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    return "" if value is None else str(value)


def _scores(row: Row) -> dict[str, str]:
    return {
        "name": row["name"],
        "score [95 %]": estimate_text(row["score_mean"], row["score_ci95"], "episode"),
        "steps": f"{row['steps']:,}",
        "parameters": f"{row['params']:,}",
        "file": f"{row['bytes'] / 1e3:,.0f} kB",
    }


def _latencies(rows: Rows) -> Rows:
    """One row a device; teachers that no device tells apart share a column."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        for item in row["latency"]:
            if (item["dtype"], item["threads"]) == ("float32", 1):
                latency_s = item["latency_s"]
                cell = "no rows" if latency_s is None else f"{latency_s * 1e3:.3g} ms"
                found.setdefault((item["device"], f"{item['provenance']}, {item['runtime']}"), {})[row["name"]] = cell
    columns: dict[tuple[str | None, ...], list[str]] = {}
    for row in rows:
        columns.setdefault(tuple(cells.get(row["name"]) for cells in found.values()), []).append(row["name"])
    return [
        {"device": device, "provenance": how, **{"\n".join(names): cells.get(names[0]) for names in columns.values()}}
        for (device, how), cells in found.items()
    ]
