"""Values of a space's own configuration, from plain JSON to its dataclass and back, with faults that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from latency_tables.errors import ConfigError
from latency_tables.text.reading import shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_SIZE, MAX_ENTRIES, MAX_FAULTS = 10**6, 100, 3
MOST_OF = {"repeats": 1000, "cells": 100, "nodes": 16}  # ends of keys whose values multiply the parts of a network
T = TypeVar("T", bound="DataclassInstance")


def read_values(space: str, config: type[T], values: Mapping[str, object]) -> T:
    """The configuration of a kind of space.

    Args:
        space: its name, for messages.
        config: a frozen dataclass with defaults.
        values: fields that differ from the defaults.

    Raises:
        ConfigError: an unknown key, answered with the nearest one, a value of another type, or a size out of reason.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"space.values must be an object of values of the {space} space, got {shown(values)}")
    known = [field.name for field in fields(config)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            raise ConfigError(
                f"space.values.{str(key)[:60]}: unknown key"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + f" The {space} space has {', '.join(known)}"
            )
    try:
        made = TypeAdapter(config).validate_python(values)
    except ValidationError as error:
        faults = error.errors()
        lines = [f"space.values.{'.'.join(map(str, item['loc']))}: {item['msg']}, got {shown(item['input'])}" for item in faults]
        more = [f"and {len(lines) - MAX_FAULTS} more"] if len(lines) > MAX_FAULTS else []
        raise ConfigError("; ".join(lines[:MAX_FAULTS] + more)) from error
    _check_sizes(plain_values(made))
    return made


def _check_sizes(values: Mapping[str, object]) -> None:
    """Refuse what would take a lifetime to build: before anything is built."""
    for key, value in values.items():
        several = value if isinstance(value, list) else [value]
        for inner in several:
            if isinstance(inner, list):
                _check_sizes({key: inner})
        numbers = [number for number in several if isinstance(number, int)]
        if len(several) > MAX_ENTRIES:
            raise ConfigError(f"space.values.{key} has {len(several)} entries, expected at most {MAX_ENTRIES}")
        if any(abs(number) > MAX_SIZE for number in numbers):
            raise ConfigError(f"space.values.{key} must be at most {MAX_SIZE} each, got {shown(value)}")
        most = MOST_OF.get(key.rpartition("_")[2])
        if most is not None and sum(numbers) > most:
            raise ConfigError(f"space.values.{key} must be at most {most} together, got {shown(value)}")


def plain_values(config: DataclassInstance) -> dict[str, object]:
    """The dataclass as plain JSON, tuples as lists: :func:`read_values` reads it back."""
    return {key: _plain(value) for key, value in asdict(config).items()}


def _plain(value: object) -> object:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
