"""Named things that can be listed and chosen: strategies, operations, devices, environments, algorithms.

A registry holds frozen records, so that ``cosearch list`` can print what there is without building any of it. A second
entry of one name is an error, an unknown name is answered with the nearest one, and other packages add entries through
an entry point group (``cosearch.strategies``, ``cosearch.devices``, ...), which is read on first use and never at import.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar

from latency_tables.errors import RequestError, UnknownNameError


class Entry(Protocol):
    """What each entry has at least: a frozen dataclass with these two fields (and what its kind needs besides)."""

    @property
    def name(self) -> str:
        """The word that users type."""

    @property
    def description(self) -> str:
        """One line for ``cosearch list``."""


T = TypeVar("T", bound=Entry)


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str) -> UnknownNameError:
    """The error for a name that nobody knows, with the nearest known name where one is near.

    Args:
        kind: what the name stands for, such as ``device``.
        name: what was asked for.
        known: every name there is.
        hint: what to do next, the end of the message.

    Returns:
        The error, for the caller to raise.
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    suggestion = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}.{suggestion} {hint}")


class Registry(Generic[T]):
    """Entries of one kind by name.

    Args:
        kind: the singular, for messages: ``device``.
        entry_point_group: where other packages announce theirs, such as ``cosearch.devices``; ``None`` for none. An
            entry point names one entry, or a list or tuple of entries.
        plural: the word after ``cosearch list``; made from ``kind`` when it is not given.
    """

    def __init__(self, kind: str, entry_point_group: str | None = None, *, plural: str | None = None) -> None:
        self.kind = kind
        self.plural = plural or (f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s")
        self.entry_point_group = entry_point_group
        self._entries: dict[str, T] = {}
        self._others_loaded = entry_point_group is None

    def register(self, entry: T) -> T:
        """Add one entry and hand it back.

        Args:
            entry: an instance of a frozen dataclass with ``name`` and ``description``.

        Raises:
            RequestError: the name is taken already.
            TypeError: the entry is not such a record.
            ValueError: its name has blanks or is empty, or its description is not one line.
        """
        if isinstance(entry, type) or not is_dataclass(entry) or not entry.__dataclass_params__.frozen:
            raise TypeError(f"a {self.kind} must be an instance of a frozen dataclass, got {entry!r}")
        name, description = (getattr(entry, key, None) for key in ("name", "description"))
        if not isinstance(name, str) or not name or any(letter.isspace() for letter in name):
            raise ValueError(f"the name of a {self.kind} must be a word without blanks, got {name!r}")
        if not isinstance(description, str) or not description.strip() or "\n" in description:
            raise ValueError(f"the {self.kind} {name!r} needs a description of one line, got {description!r}")
        if name in self._entries:
            raise RequestError(f"two {self.plural} are named {name!r}: {self._entries[name]!r} and {entry!r}; rename one of them")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UnknownNameError: there is none; the message suggests the nearest name.
            RequestError: another package's entries cannot be loaded.
        """
        self._load_others()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, f"`cosearch list {self.plural}` shows all")
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names in alphabetical order."""
        self._load_others()
        return tuple(sorted(self._entries))

    def entries(self) -> tuple[T, ...]:
        """All entries in the order of :meth:`names`."""
        return tuple(self._entries[name] for name in self.names())

    def _load_others(self) -> None:
        """Read the entry points once. A broken package is an error that names it, not an entry that is missing in silence."""
        if self._others_loaded or self.entry_point_group is None:
            return
        self._others_loaded = True  # first: what is loaded below may look itself up here
        before = dict(self._entries)
        try:
            for point in sorted(entry_points(group=self.entry_point_group), key=lambda point: (point.name, point.value)):
                self._load_one(point)
        except BaseException:
            self._entries, self._others_loaded = before, False  # the next use meets the same error again
            raise

    def _load_one(self, point: EntryPoint) -> None:
        try:
            found = point.load()
            for entry in found if isinstance(found, (list, tuple)) else (found,):
                self.register(entry)
        except Exception as error:  # whatever the code of another package raises
            package = point.dist.name if point.dist else "an installed package"
            raise RequestError(
                f"the {self.kind} {point.name!r} of {package} ({point.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}. Repair that package, or remove it with `pip uninstall {package}`"
            ) from error
