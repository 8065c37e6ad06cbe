"""Saved states: nested dictionaries of tensors and plain values, and how an entry is read back as what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from latency_tables.errors import RunFolderError

State = dict[str, object]  # what ``state()`` gives and ``restore`` takes: names, and tensors, numbers, text, lists, dictionaries
Kind = TypeVar("Kind")


def read(state: Mapping[str, object], key: str, kind: type[Kind]) -> Kind:
    """The entry ``key``; a whole number counts as a ``float``.

    Raises:
        RunFolderError: there is none, or it is of another kind.
    """
    value = state.get(key)
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind):
        raise _other(key, kind.__name__, value, key in state)
    return value


def read_list(state: Mapping[str, object], key: str, kind: type[Kind]) -> list[Kind]:
    """The entry ``key``, a list or tuple whose items are all of one kind.

    Raises:
        RunFolderError: there is none, or it is something else.
    """
    value = state.get(key)
    if not isinstance(value, list | tuple):
        raise _other(key, f"list of {kind.__name__}", value, key in state)
    return [read({key: item}, key, kind) for item in value]


def read_state(state: Mapping[str, object], key: str) -> State:
    """The entry ``key``, itself a state; its keys need not be text (an optimiser numbers its parameters).

    Raises:
        RunFolderError: there is none, or it is no dictionary.
    """
    return read(state, key, dict)


def _other(key: str, expected: str, value: object, present: bool) -> RunFolderError:
    found = type(value).__name__ if present else "nothing"
    return RunFolderError(
        f"the saved state should have {key!r} of type {expected}, it has {found}: another version of cosearch wrote it; "
        "begin the run again under another name"
    )
