"""What every engine of ``cosearch.fleet`` must hold: results, messages, errors, lost processes and cancelled pieces.

An engine gets two places, so that pieces overlap. Its processes import :func:`obey` from here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from cosearch.fleet.work import TRIES, Done, Engine, Event, Failed, Lost, Send, Sent, Started, Work
from latency_tables.errors import ConfigError, RunFailedError

Words: TypeAlias = tuple[str, Any]
MOST_S = 120.0  # until an event, also of a process that is still to be started


def require(holds: bool, text: str) -> None:
    """Raise ``AssertionError`` with ``text`` unless ``holds``; that of ``conformance`` would bring torch into each process."""
    if not holds:
        raise AssertionError(text)


def obey(words: Words, send: Send) -> tuple[str, int]:
    """What the processes do: send numbers, sleep, raise, or die, always or the first time (then a file is left).

    Args:
        words: kind and content.
        send: gets the numbers.

    Returns:
        The kind, and the number of the process.

    Raises:
        ConfigError: it was told to.
        ZeroDivisionError: likewise.
    """
    kind, content = words
    if kind == "send":
        for number in range(content):
            send(number)
    elif kind == "sleep":
        time.sleep(content)
    elif kind == "wrong request":
        raise ConfigError(content)
    elif kind == "crash":
        raise ZeroDivisionError(content)
    elif kind == "die" or (kind == "die once" and not Path(content).exists()):
        if kind == "die once":
            Path(content).write_text(str(os.getpid()), encoding="utf-8")
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "live for ever":
        Path(content).write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(1000)
    return kind, os.getpid()


def check_engine(make: Callable[[], Engine], folder: Path) -> None:
    """All checks on one engine.

    Args:
        make: a new engine with two places.
        folder: an empty one, which its processes see.

    Raises:
        AssertionError: what was expected, and what was got.
    """
    with closing(make()) as engine:
        require(engine.next(0.0) is None, "an engine without work has no events")
        check_results(engine)
        check_errors(engine)
        check_cancelled(engine, folder)
        check_lost(engine, folder)
        engine.close()


def check_results(engine: Engine) -> None:
    """Each piece is begun once, and its messages come in their order and before its result."""
    jobs: dict[str, Words] = {"a": ("send", 300), "b": ("sleep", 0.3), "c": ("send", 2)}
    events = events_of(engine, jobs)
    for name, (kind, content) in jobs.items():
        own = [event for event in events if event.name == name]
        require(isinstance(own[0], Started) and isinstance(own[-1], Done), f"expected a start and a result of {name}, got {own}")
        sent = [event.message for event in own[1:-1] if isinstance(event, Sent)]
        require(sent == list(range(content if kind == "send" else 0)), f"expected the messages of {name} in order, got {sent}")
        result, pid = own[-1].result if isinstance(own[-1], Done) else ("", os.getpid())
        require(result == kind and pid != os.getpid(), f"expected {kind} of another process, got {result} of {pid}")
    begun = [event.name for event in events if isinstance(event, Started)]
    require(sorted(begun) == list(jobs) and begun[-1] == "c", f"expected a and b to be begun first, got {begun}")


def check_errors(engine: Engine) -> None:
    """An error is handed back with its class where it is ours; the other pieces go on."""
    events = events_of(engine, {"wrong": ("wrong request", "a wrong key"), "crash": ("crash", "by nought"), "well": ("send", 0)})
    errors = {event.name: event.error for event in events if isinstance(event, Failed)}
    done = [event.name for event in events if isinstance(event, Done)]
    require(type(errors.get("wrong")) is ConfigError and "a wrong key" in str(errors["wrong"]), f"expected ours, got {errors}")
    crash = errors.get("crash")
    require(type(crash) is RunFailedError and "ZeroDivisionError: by nought" in str(crash), f"expected its trace, got {crash!r}")
    require(done == ["well"], f"expected the third piece to be done, got {done}")
    first, second = ([e.where for e in events_of(engine, {"crash": ("crash", "")}) if isinstance(e, Started)] for _ in range(2))
    require(first != second, f"expected another process after an error that nobody foresaw, got {first} and {second}")


def check_cancelled(engine: Engine, folder: Path) -> None:
    """A piece that is cancelled stops, whether it was begun or waits, and nothing is heard of it afterwards."""
    files = [folder / "first", folder / "second"]
    for file in files:
        engine.submit(Work(file.name, obey, ("live for ever", str(file))))
    engine.submit(Work("third", obey, ("send", 1)))
    try:
        engine.submit(Work("first", obey, ("send", 1)))
    except ValueError:
        pass
    else:
        raise AssertionError("expected an error: a piece of that name is under way")
    begun = [_next(engine) for _ in files]
    require({event.name for event in begun} == {"first", "second"}, f"expected two pieces to be begun, got {begun}")
    pids = [_content(file) for file in files]
    for name in ("third", "first", "unknown"):
        engine.cancel(name)
    _until_gone(pids[0])
    engine.submit(Work("fourth", obey, ("send", 1)))
    events = [_next(engine) for _ in range(3)]
    require([event.name for event in events] == ["fourth"] * 3, f"expected events of the fourth piece alone, got {events}")
    engine.cancel("second")
    _until_gone(pids[1])
    require(engine.next(0.2) is None, "expected no event of a cancelled piece")


def check_lost(engine: Engine, folder: Path) -> None:
    """A piece whose process dies is begun again; one whose process always dies is reported, and the others go on."""
    events = events_of(engine, {"once": ("die once", str(folder / "pid")), "always": ("die", ""), "well": ("send", 1)})
    counts = {
        name: sum(event == Started(name, event.where) for event in events if isinstance(event, Started)) for name in ("once",)
    }
    require(counts["once"] == 2, f"expected the first piece to be begun twice, got {counts['once']}")
    results = {event.name: event.result for event in events if isinstance(event, Done)}
    require(set(results) == {"once", "well"}, f"expected two pieces to be done, got {results}")
    require(results["once"][1] != int(_content(folder / "pid")), "expected another process than the one that died")
    lost = [event for event in events if isinstance(event, Lost)]
    require([event.name for event in lost] == ["always"], f"expected one piece to be lost, got {lost}")
    begun = sum(isinstance(event, Started) and event.name == "always" for event in events)
    require(begun == TRIES, f"expected it to be begun {TRIES} times, got {begun}")


def events_of(engine: Engine, jobs: dict[str, Words]) -> Sequence[Event]:
    """All events of pieces that are submitted together, until each has ended.

    Args:
        engine: with nothing under way.
        jobs: words of :func:`obey` by name.
    """
    for name, words in jobs.items():
        engine.submit(Work(name, obey, words))
    events: list[Event] = []
    while sum(isinstance(event, Done | Failed | Lost) for event in events) < len(jobs):
        events.append(_next(engine))
    require(engine.next(0.0) is None, "expected no event after the last end")
    return events


def _next(engine: Engine) -> Event:
    event = engine.next(MOST_S)
    if event is None:
        raise AssertionError(f"expected an event within {MOST_S:.0f} s")
    return event


def _content(file: Path) -> str:
    """What a file holds once it holds something."""
    until = time.monotonic() + MOST_S
    while not (file.exists() and file.read_text(encoding="utf-8")):
        require(time.monotonic() < until, f"expected {file} within {MOST_S:.0f} s")
        time.sleep(0.02)
    return file.read_text(encoding="utf-8")


def _until_gone(pid: str) -> None:
    """Wait until a process of this machine has ended."""
    until = time.monotonic() + 30.0
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z":
        require(time.monotonic() < until, f"expected the process {pid} of a cancelled piece to end")
        time.sleep(0.02)
