"""Strict reading of single JSON fields, each fault one ``TableError`` that says where. Standard library only."""

from __future__ import annotations

import json
import math
from typing import Any

from latency_tables.errors import TableError


def number(value: Any, what: str, *, low: float, high: float, positive: bool = False) -> float:
    """``value`` as a float, if it is a finite number inside ``[low, high]`` (``(low, high]`` with ``positive``).

    Raises:
        TableError: it is not.
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    good = good and (isinstance(value, int) or math.isfinite(value)) and low <= value <= high and not (positive and value <= low)
    if not good:
        shown = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."
        raise TableError(f"{what} must be a number {'above' if positive else 'from'} {low:g} and at most {high:g}, got {shown}")
    return float(value)


def text_of(record: dict[str, Any], name: str, where: str) -> str:
    """A non-empty text field.

    Raises:
        TableError: it is absent or something else.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise TableError(f"{where}: {name} must be a non-empty text, got {value!r}")
    return value


def parse_line(line: str, where: str) -> dict[str, Any]:
    """One line as a JSON object: no field twice, no NaN, nothing that cannot be written back.

    Raises:
        TableError: it is something else.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in items}) != len(items):
            raise TableError(f"{where}: a field is named twice")
        return dict(items)

    def constant(name: str) -> None:
        raise TableError(f"{where}: {name} is not a number that a table may hold")

    try:
        record = json.loads(line, object_pairs_hook=pairs, parse_constant=constant)
        json.dumps(record, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise TableError(f"{where}: not a JSON object: {str(error)[:120]}") from error
    if not isinstance(record, dict):
        raise TableError(f"{where}: expected one JSON object, got {type(record).__name__}")
    return record
