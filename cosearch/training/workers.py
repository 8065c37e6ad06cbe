"""Jobs in processes of their own on this machine: spawned, one thread each, reporting through a pipe.

A process does one job after the other. It watches its parent and ends with it, so that none outlives one that was killed, and
it leaves Ctrl-C to the parent. One that dies (killed by the system, out of memory, a crash inside a library) costs its current
job alone, which is begun again once.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from latency_tables.errors import CosearchError, RunFailedError

Send = Callable[[Any], None]
Function = Callable[[Any, Send], Any]
TRIES = 2


class Workers:
    """Processes for jobs of one kind. Usable as a context manager; leaving it kills them.

    Args:
        function: (job, send) -> result. It is imported by the processes, so it must stand at the top of a module; jobs, results
            and what it sends are pickled.
        count: most processes at once.
    """

    def __init__(self, function: Function, count: int) -> None:
        self.function, self.count = function, count
        self._processes: dict[Connection, BaseProcess] = {}
        self._idle: list[Connection] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(
        self,
        jobs: Sequence[Any],
        *,
        name: Callable[[int], str],
        sent: Callable[[int, Any], None],
        done: Callable[[int, Any], None],
    ) -> None:
        """Do all jobs; ``sent`` and ``done`` are called here with the job's index as messages and results come.

        Args:
            jobs: begun in their order; ``done`` may add to them.
            name: what to call a job in an error.
            sent: (index, message).
            done: (index, result).

        Raises:
            CosearchError: the function raised it.
            RunFailedError: the function raised something else, or two processes in a row died over one job.
        """
        waiting, known = list(range(len(jobs))), len(jobs)
        deaths: Counter[int] = Counter()
        busy: dict[Connection, int] = {}
        while waiting or busy:
            while waiting and len(busy) < self.count:
                connection, index = self._free(), waiting.pop(0)
                busy[connection] = index
                if not _sent(connection, jobs[index]):
                    self._died(connection, busy, waiting, deaths, name)
            ready = multiprocessing.connection.wait(list(busy))
            for connection in [each for each in busy if each in ready]:
                index = busy[connection]
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError):
                    self._died(connection, busy, waiting, deaths, name)
                    continue
                if kind == "message":
                    sent(index, content)
                    continue
                self._idle.append(connection)
                del busy[connection]
                if kind == "error":
                    raise content
                if kind == "failure":
                    raise RunFailedError(f"{name(index)} failed:\n{content}")
                done(index, content)
                waiting += range(known, len(jobs))
                known = len(jobs)

    def close(self) -> None:
        """Kill the processes and wait for their end; safe to call twice."""
        for connection, process in self._processes.items():
            process.kill()
            process.join()
            connection.close()
        self._processes, self._idle = {}, []

    def _free(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.function))
        process.start()
        theirs.close()  # only the process holds it now: its death shows at this end
        self._processes[mine] = process
        return mine

    def _died(
        self,
        connection: Connection,
        busy: dict[Connection, int],
        waiting: list[int],
        deaths: Counter[int],
        name: Callable[[int], str],
    ) -> None:
        process, index = self._processes.pop(connection), busy.pop(connection)
        process.join()
        connection.close()
        deaths[index] += 1
        if deaths[index] == TRIES:
            raise RunFailedError(
                f"{name(index)}: its process died {TRIES} times, the last time with exit code "
                f"{process.exitcode} (-9: killed, often for want of memory); try fewer processes at once"
            )
        waiting.insert(0, index)


def _sent(connection: Connection, job: Any) -> bool:
    try:
        connection.send(job)
    except OSError:
        return False
    return True


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # it is, in a process that was spawned
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _serve(connection: Connection, function: Function) -> None:
    """The life of a process."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        while True:
            job = connection.recv()
            try:
                answer = "done", function(job, lambda message: connection.send(("message", message)))
            except (BrokenPipeError, ConnectionResetError):
                return  # the parent is gone
            except CosearchError as error:
                answer = "error", error
            except Exception as error:  # noqa: BLE001  whatever a library raises: the parent tells it
                answer = "failure", "".join(traceback.format_exception(error, limit=-6))
            connection.send(answer)
    except (EOFError, OSError):
        return
