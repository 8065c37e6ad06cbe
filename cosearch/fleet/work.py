"""What an engine is: it does named pieces of work, says what becomes of each, and can be told to stop one.

An engine begins a piece again whose process was lost (killed, out of memory, a node that went away), ``TRIES`` times in all. An
error that the piece itself raises is its result: it is handed back and not tried again.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from latency_tables.errors import CosearchError, RunFailedError

Send: TypeAlias = Callable[[Any], None]
Function: TypeAlias = Callable[[Any, Send], Any]
TRIES = 3  # of a piece whose process is lost


@dataclass(frozen=True)
class Needs:
    """What a piece of work needs of the machine that does it.

    Attributes:
        cores: CPU cores.
        memory_bytes: 0: not said.
        gpus: devices; a share of one is a fraction.
        board: name of a device that must be attached to the machine; empty: none.
    """

    cores: float = 1.0
    memory_bytes: int = 0
    gpus: float = 0.0
    board: str = ""


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Attributes:
        name: unique among those that are under way.
        function: (job, send) -> result. It is imported where the work is done, so it must stand at the top of a module; job,
            result and what it sends are pickled on the way, never on a disk.
        job: what it is called with.
        needs: of the machine.
    """

    name: str
    function: Function
    job: Any
    needs: Needs = Needs()


@dataclass(frozen=True)
class Waits:
    """No machine has what a piece needs; it is begun once one joins.

    Attributes:
        name: of the piece.
        reason: what it waits for, in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Started:
    """A piece was begun; a second time after its process was lost.

    Attributes:
        name: of the piece.
        where: the process or node.
    """

    name: str
    where: str


@dataclass(frozen=True)
class Sent:
    """A piece sent a message; those of one attempt come in their order, and before its result."""

    name: str
    message: Any


@dataclass(frozen=True)
class Done:
    """A piece has its result."""

    name: str
    result: Any


@dataclass(frozen=True)
class Failed:
    """A piece raised an error: a ``CosearchError`` as it was, any other as a ``RunFailedError`` with its traceback."""

    name: str
    error: CosearchError


@dataclass(frozen=True)
class Lost:
    """The process of a piece was lost ``TRIES`` times.

    Attributes:
        name: of the piece.
        reason: of the last time, in words.
    """

    name: str
    reason: str


Event: TypeAlias = Waits | Started | Sent | Done | Failed | Lost


class Engine(Protocol):
    """Does pieces of work. ``cosearch.testing.engine_conformance`` says what must hold of each one."""

    def submit(self, work: Work) -> None:
        """Do a piece as soon as there is a place for it; those that wait are begun in the order given.

        Raises:
            ValueError: one of that name is under way.
            RequestError: no machine has what it needs.
        """

    def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event; each piece ends with exactly one of ``Done``, ``Failed`` and ``Lost``.

        Args:
            timeout_s: most seconds to wait; None: no end.

        Returns:
            None: nothing happened in that time, or nothing is under way.
        """

    def cancel(self, name: str) -> None:
        """Stop a piece at once; no event of it follows. One that has ended, or is unknown, is no fault."""

    def close(self) -> None:
        """Stop everything; safe to call twice."""


def answer_of(function: Function, job: Any, send: Send) -> tuple[str, Any]:
    """Call a function where the work is done.

    Returns:
        ``done`` and its result, ``error`` and the ``CosearchError`` that it raised, or ``failure`` and any other error's
        traceback.

    Raises:
        BrokenPipeError: nobody listens any more.
        ConnectionResetError: likewise.
    """
    try:
        return "done", function(job, send)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except CosearchError as error:
        return "error", error
    except Exception as error:  # noqa: BLE001  whatever a library raises: the other side tells it
        return "failure", "".join(traceback.format_exception(error, limit=-6))


def ended(name: str, answer: tuple[str, Any]) -> Done | Failed:
    """The event that an answer of :func:`answer_of` is."""
    kind, content = answer
    if kind == "done":
        return Done(name, content)
    return Failed(name, content if kind == "error" else RunFailedError(f"{name} failed:\n{content}"))


def is_broken(event: Done | Failed) -> bool:
    """Whether a piece ended by an error that nobody foresaw: its process may be unfit for more (a half-imported library).

    Args:
        event: the end of a piece.
    """
    return isinstance(event, Failed) and isinstance(event.error, RunFailedError)
