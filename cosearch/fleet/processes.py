"""The engine of one machine: spawned processes that report through a pipe.

A process does one piece after the other. It watches its parent and ends with it, so that none outlives one that was killed, and
it leaves Ctrl-C to the parent. One that dies (killed by the system, out of memory, a crash inside a library) costs its current
piece alone, which is begun again.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from cosearch.fleet.work import TRIES, Event, Lost, Sent, Started, Work, answer_of, ended, is_broken
from latency_tables.errors import RequestError

WORKER = "cosearch-worker"  # name of our processes
UNGUARDED = 86  # exit code of one that ran the script of its parent again


def check_main_guard() -> None:
    """Look whether this process was spawned by a script and is running it again: it would do all work a second time.

    Raises:
        RequestError: it is. A process of :class:`Processes` ends instead, and its parent raises this.
    """
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False):  # as multiprocessing itself asks before it starts a process
        if process.name == WORKER:
            sys.exit(UNGUARDED)
        raise unguarded()


def unguarded() -> RequestError:
    """What to say where a process ended with :data:`UNGUARDED`."""
    return RequestError(
        "every process that this script starts runs it again, and would begin the same work: put its calls under "
        'if __name__ == "__main__":'
    )


class Processes:
    """An engine of processes of this machine; what a piece needs of a machine is taken as there.

    Args:
        count: most processes at once.

    Raises:
        RequestError: see :func:`check_main_guard`.
    """

    def __init__(self, count: int) -> None:
        check_main_guard()
        self.count = count
        self._processes: dict[Connection, BaseProcess] = {}
        self._idle: list[Connection] = []
        self._waiting: deque[Work] = deque()
        self._busy: dict[Connection, Work] = {}
        self._deaths: Counter[str] = Counter()
        self._events: deque[Event] = deque()

    def submit(self, work: Work) -> None:
        """See ``Engine``.

        Raises:
            ValueError: a piece of that name is under way.
        """
        if any(work.name == other.name for other in (*self._waiting, *self._busy.values())):
            raise ValueError(f"{work.name} is under way already")
        self._waiting.append(work)

    def next(self, timeout_s: float | None = None) -> Event | None:
        """See ``Engine``: waits for ``timeout_s`` seconds at most.

        Raises:
            RequestError: the processes run the script of this one again, see :func:`check_main_guard`.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            self._begin()
            if self._events:
                break
            if not self._busy:
                return None
            left = None if until is None else max(0.0, until - time.monotonic())
            ready = multiprocessing.connection.wait(list(self._busy), left)
            if not ready and left is not None:
                return None
            for connection in [each for each in self._busy if each in ready]:
                self._read(connection)
        return self._events.popleft()

    def cancel(self, name: str) -> None:
        """See ``Engine``."""
        self._waiting = deque(work for work in self._waiting if work.name != name)
        self._events = deque(event for event in self._events if event.name != name)
        self._deaths.pop(name, None)
        for connection in [each for each, work in self._busy.items() if work.name == name]:
            del self._busy[connection]
            self._end(connection)

    def close(self) -> None:
        """See ``Engine``; waits for the end of the processes."""
        for connection in list(self._processes):
            self._end(connection)
        self._idle, self._busy = [], {}
        self._waiting.clear()
        self._events.clear()
        self._deaths.clear()

    def _end(self, connection: Connection) -> int | None:
        """Kill a process; its exit code."""
        process = self._processes.pop(connection)
        process.kill()
        process.join()
        connection.close()
        return process.exitcode

    def _begin(self) -> None:
        while self._waiting and len(self._busy) < self.count:
            connection, work = self._free(), self._waiting.popleft()
            self._busy[connection] = work
            self._events.append(Started(work.name, f"process {self._processes[connection].pid}"))
            try:
                connection.send((work.function, work.job))
            except OSError:
                self._died(connection)

    def _free(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), name=WORKER)
        process.start()
        theirs.close()  # only the process holds it now: its death shows at this end
        self._processes[mine] = process
        return mine

    def _read(self, connection: Connection) -> None:
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            self._died(connection)
            return
        if kind == "message":
            self._events.append(Sent(self._busy[connection].name, content))
            return
        work = self._busy.pop(connection)
        self._deaths.pop(work.name, None)
        event = ended(work.name, (kind, content))
        if is_broken(event):
            self._end(connection)
        else:
            self._idle.append(connection)
        self._events.append(event)

    def _died(self, connection: Connection) -> None:
        work = self._busy.pop(connection)
        self._processes[connection].join()  # the exit code is its own, not that of a kill
        code = self._end(connection)
        if code == UNGUARDED:
            raise unguarded() from None
        self._deaths[work.name] += 1
        if self._deaths[work.name] < TRIES:
            self._waiting.appendleft(work)
            return
        del self._deaths[work.name]
        advice = " (killed, often for want of memory); try fewer processes at once" if code == -signal.SIGKILL else ""
        reason = f"its process died {TRIES} times, the last time with exit code {code}{advice}"
        self._events.append(Lost(work.name, reason))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # it is, in a process that was spawned
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _serve(connection: Connection) -> None:
    """The life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def send(message: Any) -> None:
        connection.send(("message", message))

    try:
        while True:
            function, job = connection.recv()
            connection.send(answer_of(function, job, send))
    except (EOFError, OSError):  # the parent is gone
        return
