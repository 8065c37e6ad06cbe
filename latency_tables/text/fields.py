"""Strict reading of JSON: what comes in is an ``object``, what comes out has a type; each fault is one ``TableError``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from latency_tables.errors import TableError
from latency_tables.text.reading import parse_json


def number(value: object, what: str, *, low: float, high: float, positive: bool = False) -> float:
    """``value`` as a float, if it is a finite number inside ``[low, high]`` (``(low, high]`` with ``positive``).

    Raises:
        TableError: it is not.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        finite = isinstance(value, int) or math.isfinite(value)
        if finite and low <= value <= high and not (positive and value <= low):
            return float(value)
    shown = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."
    raise TableError(f"{what} must be a number {'above' if positive else 'from'} {low:g} and at most {high:g}, got {shown}")


def number_or_none(value: object, what: str, *, low: float, high: float, positive: bool = False) -> float | None:
    """As :func:`number`; None stays None.

    Raises:
        TableError: it is something else.
    """
    return None if value is None else number(value, what, low=low, high=high, positive=positive)


def integer(value: object, what: str, *, low: int, high: int) -> int:
    """``value``, if it is an integer inside ``[low, high]``.

    Raises:
        TableError: it is not.
    """
    if type(value) is int and low <= value <= high:
        return value
    raise TableError(f"{what} must be an integer from {low} to {high}, got {value!r:.60}")


def one_of(value: object, names: Iterable[str], what: str) -> str:
    """``value``, if it is one of some names.

    Raises:
        TableError: it is not.
    """
    known = tuple(names)
    if isinstance(value, str) and value in known:
        return value
    raise TableError(f"{what} must be one of {', '.join(known)}, got {value!r:.60}")


def object_of(value: object, what: str, content: str) -> dict[str, object]:
    """``value``, if it is a JSON object; ``content`` says in a message what it holds.

    Raises:
        TableError: it is not.
    """
    if isinstance(value, dict):
        return value
    raise TableError(f"{what} must be an object with {content}, got {value!r:.60}")


def pair_of(value: object, what: str, *, low: float, high: float) -> tuple[float, float]:
    """``[low, high]`` as two numbers of that range.

    Raises:
        TableError: it is something else.
    """
    if not isinstance(value, list) or len(value) != 2:
        raise TableError(f"{what} must be [low, high], got {value!r:.60}")
    return number(value[0], what, low=low, high=high), number(value[1], what, low=low, high=high)


def text_of(record: Mapping[str, object], name: str, where: str) -> str:
    """A non-empty text field.

    Raises:
        TableError: it is absent or something else.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise TableError(f"{where}: {name} must be a non-empty text, got {value!r}")
    return value


def parse_line(line: str, where: str) -> dict[str, object]:
    """One line as a JSON object, by the rules of ``reading.parse_json``.

    Raises:
        TableError: it is something else.
    """
    record = parse_json(line, where, TableError)
    if not isinstance(record, dict):
        raise TableError(f"{where}: expected one JSON object, got {type(record).__name__}")
    return record
