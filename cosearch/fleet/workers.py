"""Many pieces of work of one kind, done by an engine; what becomes of each is told here, by its index."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from cosearch.fleet.work import Done, Engine, Failed, Function, Lost, Needs, Sent, Started, Waits, Work
from latency_tables.errors import CosearchError, RunFailedError

TICK_S = 30.0


class Workers:
    """Whoever does jobs of one kind. Usable as a context manager; leaving it closes the engine.

    Args:
        function: (job, send) -> result, see ``cosearch.fleet.work.Work``.
        engine: does the work.
        needs: of each job.
    """

    def __init__(self, function: Function, engine: Engine, needs: Needs = Needs()) -> None:  # noqa: B008  frozen
        self.function, self.engine, self.needs = function, engine, needs

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything; safe to call twice."""
        self.engine.close()

    def run(
        self,
        jobs: Sequence[Any],
        *,
        name: Callable[[int], str],
        sent: Callable[[int, Any], None],
        done: Callable[[int, Any], None],
        started: Callable[[int, str], None] = lambda index, where: None,
        failed: Callable[[int, CosearchError], None] | None = None,
        lost: Callable[[int, str], None] | None = None,
        waits: Callable[[int, str], None] = lambda index, reason: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Do all jobs; what happens is told here with the job's index.

        Args:
            jobs: begun in their order; ``done``, ``failed`` and ``lost`` may add to them.
            name: what to call a job, unique among those that are under way.
            sent: (index, message).
            done: (index, result).
            started: (index, where); again after its process was lost.
            failed: (index, error) of a job that raised one; the others go on. None: it is raised here.
            lost: (index, reason) of a job whose process was lost ``TRIES`` times; the others go on. None: an error.
            waits: (index, reason) of a job that no machine can do yet.
            tick: is called at least every ``TICK_S`` seconds.

        Raises:
            CosearchError: the function raised it.
            RunFailedError: the function raised something else, or a job's process was lost too often.
        """
        indices: dict[str, int] = {}  # by name: a job that is added for one that ended may have its name
        submitted = 0

        def submit() -> range:
            nonlocal submitted
            new = range(submitted, len(jobs))
            submitted = len(jobs)
            for index in new:
                indices[name(index)] = index
                self.engine.submit(Work(name(index), self.function, jobs[index], self.needs))
            return new

        def end(index: int, event: Done | Failed | Lost) -> None:
            if isinstance(event, Done):
                done(index, event.result)
            elif isinstance(event, Failed):
                if failed is None:
                    raise event.error
                failed(index, event.error)
            elif lost is None:
                raise RunFailedError(f"{event.name}: {event.reason}")
            else:
                lost(index, event.reason)

        open_jobs = set(submit())
        while open_jobs:
            before = time.monotonic()
            event = self.engine.next(TICK_S)
            tick()
            if event is None:
                if time.monotonic() - before < TICK_S / 2:
                    raise RuntimeError(f"the engine forgot {', '.join(name(index) for index in sorted(open_jobs))}")
                continue
            index = indices[event.name]
            if isinstance(event, Waits):
                waits(index, event.reason)
            elif isinstance(event, Started):
                started(index, event.where)
            elif isinstance(event, Sent):
                sent(index, event.message)
            else:
                end(index, event)
                open_jobs.remove(index)
                open_jobs |= set(submit())
