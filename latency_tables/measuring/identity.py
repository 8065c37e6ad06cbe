"""Which machine and which runtime were measured: compared wherever a measurement or a table goes on.

Rows of two runtimes or of two machines do not belong into one table, whichever way they would get there: an interrupted
measurement that goes on, or single operations that are added to a table.
"""

from __future__ import annotations

from collections.abc import Mapping

from latency_tables.errors import TableError
from latency_tables.measuring.remote import Connection, Location
from latency_tables.measuring.visits import Hello
from latency_tables.text.fields import object_of

SOFTWARE = ("version", "provider", "nchw")
HOST = ("machine", "cpu", "model", "cores", "serial_sha256", "target")


def place_of(hello: Hello) -> dict[str, object]:
    """What a measuring core says of its machine and runtime, as far as it must stay the same."""
    return {"version": hello.runtime_version, **{name: hello.fingerprint.get(name) for name in HOST}}


def place_here(runtime: str) -> dict[str, object]:
    """:func:`place_of` this machine, as a measuring core says it.

    Args:
        runtime: ``onnxruntime``, ``torch`` or ``tvm``.

    Raises:
        MeasurementError: the core cannot be started, or there is no such runtime here.
    """
    core = Connection(Location())
    try:
        return place_of(Hello.from_answer(core.one("hello", runtime=runtime)))
    finally:
        core.close()


def recorded_place(header: Mapping[str, object]) -> dict[str, object]:
    """The machine and the runtime in a table's header; empty where it names none.

    Raises:
        TableError: something else stands in their place.
    """
    parts = (object_of(header.get(name, {}), f"the header's {name}", "what was recorded") for name in ("host", "software"))
    return {name: value for part in parts for name, value in part.items()}


def is_same_place(began: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether rows of both may stand in one table; see :func:`check_same_place`."""
    return all(began.get(name) == now.get(name) for name in (*SOFTWARE, *HOST))


def check_same_place(began: Mapping[str, object], now: Mapping[str, object], *, what: str, advice: str) -> None:
    """Raise unless rows of both may stand in one table.

    Args:
        began, now: fields of the software and of the machine by name; one that neither has says nothing.
        what: that began, for the message: ``the table``.
        advice: what to do, the end of the message.

    Raises:
        TableError: another runtime, or another machine; says what was recorded and what there is.
    """
    for name in SOFTWARE:
        if began.get(name) != now.get(name):
            raise TableError(
                f"{what} was made with software.{name} {began.get(name)!r}, these rows with {now.get(name)!r}; {advice}"
            )
    changed = [f"{name} {began.get(name)!r:.60}, now {now.get(name)!r:.60}" for name in HOST if began.get(name) != now.get(name)]
    if changed:
        raise TableError(f"{what} was made on another machine (different: {'; '.join(changed)}); {advice}")
