"""Values of a space's own configuration, from plain JSON to its dataclass and back, with faults that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from latency_tables.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def read_values(space: str, config: type[T], values: Mapping[str, object]) -> T:
    """The configuration of a kind of space.

    Args:
        space: its name, for messages.
        config: a frozen dataclass with defaults.
        values: fields that differ from the defaults.

    Raises:
        ConfigError: an unknown key, answered with the nearest one, or a value of another type.
    """
    known = [field.name for field in fields(config)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            raise ConfigError(
                f"space.values.{key}: unknown key"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + f" The {space} space has {', '.join(known)}"
            )
    try:
        return TypeAdapter(config).validate_python(values)
    except ValidationError as error:
        lines = [
            f"space.values.{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}" for item in error.errors()
        ]
        raise ConfigError("; ".join(lines)) from error


def plain_values(config: DataclassInstance) -> dict[str, object]:
    """The dataclass as plain JSON, tuples as lists: :func:`read_values` reads it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
