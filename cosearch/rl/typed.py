"""Values of plain JSON that must be of a type."""

from __future__ import annotations

from typing import TypeVar

from latency_tables.text.reading import shown

Value = TypeVar("Value")


def number(value: object) -> float:
    """``value``, if it is a number.

    Raises:
        TypeError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected a number, got {shown(value)}")
    return float(value)


def typed(kind: type[Value], value: object) -> Value:
    """``value``, if it is of that type.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {shown(value)}")
    return value
