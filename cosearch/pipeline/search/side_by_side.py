"""Candidates that are trained side by side in worker processes, and those that are begun as they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cosearch.fleet.log import WorkLog
from cosearch.fleet.watch import Watch
from cosearch.fleet.workers import Workers
from cosearch.pipeline.checkpoint import State
from cosearch.pipeline.search.candidate_records import Item, outcome_record
from cosearch.record.workers import FAILED, FINISHED, LOST

Told = Callable[[str], None]


class SideBySide:
    """The trainings of one search in this process.

    Args:
        workers: train candidates, see ``cosearch.training.candidates.train_candidate``.
        log: of what the processes do.
        total: trainings that are to come.
        note: is told of workers that are idle, stuck or slow.
    """

    def __init__(self, workers: Workers, log: WorkLog, total: int, note: Told) -> None:
        self._workers, self._watch, self._note = workers, Watch(total, log), note

    def train(
        self,
        waiting: Callable[[], Sequence[Item]],
        *,
        name: Callable[[Item], str],
        job: Callable[[Item], dict[str, Any]],
        ended: Callable[[Item], None],
        save: Callable[[], None],
    ) -> None:
        """Train the candidates that wait, until none waits for its training.

        Args:
            waiting: those that are begun and not told; each gets its outcome.
            name: of a training, unique.
            job: what a worker needs for it.
            ended: is told of a candidate that has its outcome; then others may wait.
            save: after each end, once the next ones are begun.
        """
        begun: list[Item] = []
        names: list[str] = []
        lines: list[list[State]] = []
        jobs: list[dict[str, Any]] = []

        def begin() -> None:
            for item in waiting():
                if "outcome" not in item and not any(item is other for other in begun):
                    begun.append(item)
                    names.append(name(item))
                    lines.append([])
                    jobs.append(job(item))

        def sent(index: int, line: State) -> None:
            self._watch.heard(names[index])
            if lines[index] and line["step"] <= lines[index][-1]["step"]:
                lines[index] = []  # its process had died: this is the second one
            lines[index].append(line)

        def done(index: int, outcome: State, end: str = FINISHED) -> None:
            failure = outcome.get("failure")
            self._watch.ended(names[index], FAILED if failure and end == FINISHED else end, failure or "")
            begun[index]["outcome"] = outcome_record(outcome, lines[index])
            ended(begun[index])
            begin()
            save()

        def lost(index: int, reason: str) -> None:
            steps = lines[index][-1]["step"] if lines[index] else 0
            done(index, {"score": None, "env_steps": steps, "weights": None, "failure": reason}, LOST)

        def tick() -> None:
            for line in self._watch.faults():
                self._note(line)

        begin()
        self._workers.run(
            jobs,
            name=names.__getitem__,
            started=lambda index, where: self._watch.started(names[index], where),
            sent=sent,
            done=done,
            lost=lost,
            waits=lambda index, reason: self._note(f"{names[index]}: {reason}"),
            tick=tick,
        )
