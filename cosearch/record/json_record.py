"""Typed records and JSON: the one reader and the one writer of every record that a run leaves.

A record is a frozen dataclass whose fields are the keys of a JSON object. A key that an earlier version did not write is a
field with a default; a key that no field names is left out. Anything else is refused with the file and the key.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from latency_tables.errors import RunFolderError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)

JsonObject = Mapping[str, object]
OMITTED = {"omitted": True}  # metadata of a field whose key is not written where the field has its default
FURTHER = {"further": True}  # metadata of a field that holds the keys of the same object which no other field names


class Absent(Enum):
    """The value of a key that a file does not have, where null would say something else."""

    ABSENT = "absent"


def to_json(record: DataclassInstance) -> dict[str, object]:
    """The JSON object of a record: plain dictionaries, lists, text, numbers, booleans, ``None``.

    Args:
        record: an instance of a record.
    """
    content: dict[str, object] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.metadata.get("further"):
            content |= value
        elif not (field.metadata.get("omitted") and value == field.default):
            content[field.name] = _plain(value)
    return content


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def from_json(record: type[Record], content: object, file: Path | str, key: str = "") -> Record:
    """The record that a JSON object holds.

    Args:
        record: class of the record.
        content: the JSON object.
        file: where it came from, for the message.
        key: place in that file, for the message; empty for the whole file.

    Returns:
        The record; a key that is missing has its field's default.

    Raises:
        RunFolderError: a key without a default is missing, a value is not of its field's type, or the record refuses them.
    """
    if not isinstance(content, Mapping):
        raise _wrong(file, key, "an object", content)
    hints, values = typing.get_type_hints(record), dict(content)
    given: dict[str, object] = {}
    further = None
    for field in dataclasses.fields(record):
        place = f"{key}.{field.name}" if key else field.name
        if field.metadata.get("further"):
            further = field.name
        elif field.name in values:
            given[field.name] = _value(hints[field.name], values.pop(field.name), file, place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RunFolderError(f"{file}: {place} is missing; {_ADVICE}")
    if further is not None:
        given[further] = values
    try:
        return record(**given)
    except ValueError as error:  # what the record itself checks
        raise RunFolderError(f"{file}: {error}; {_ADVICE}") from error


_ADVICE = "move the file away and `cosearch resume FOLDER`, or use the version of cosearch that wrote it"
_WORDS: dict[object, str] = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}


def _value(kind: object, value: object, file: Path | str, key: str) -> object:
    """A JSON value as its field's type demands it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        kinds = [each for each in inner if each not in (types.NoneType, Absent)]
        return None if value is None and types.NoneType in inner else _value(kinds[0], value, file, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(file, key, "a list", value)
        each = [inner[0]] * len(value) if inner[-1] is ... else list(inner)
        if len(value) != len(each):
            raise _wrong(file, key, f"a list of {len(each)}", value)
        return tuple(_value(kind, item, file, f"{key}[{i}]") for i, (kind, item) in enumerate(zip(each, value, strict=True)))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(file, key, "an object", value)
        return {name: _value(inner[1], item, file, f"{key}.{name}") for name, item in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_json(kind, value, file, key)
    if kind is float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    else:
        fits = kind is object or type(value) is kind
    if not fits:
        raise _wrong(file, key, _WORDS[kind], value)
    return value


def _wrong(file: Path | str, key: str, expected: str, value: object) -> RunFolderError:
    return RunFolderError(f"{file}: {key or 'its content'} must be {expected}, got {str(value)[:80]!r}; {_ADVICE}")
