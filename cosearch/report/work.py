"""How the work went, for a report: how busy the processes were, what was begun again and why, what was slow or stuck, or lost.

Told from ``workers.json`` alone, and from the times that finished runs hold by their own clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosearch.record.workers import BEGUN_AGAIN, FAILED, FINISHED, HANDED_BACK, LOST, UNDER_WAY, Attempt, Session, WorkersRecord
from cosearch.report.format import duration_text, share_text

WORKER_COLUMNS = ("process", "worked", "of", "busy", "attempts")
FAULT_COLUMNS = ("what", "process", "after", "how it ended")
MOST_WORKERS, MOST_FAULTS, MOST_LETTERS = 12, 40, 200


@dataclass(frozen=True)
class WorkerTime:
    """A process in one session.

    Attributes:
        where: the process.
        busy_s: how long it worked, seconds.
        there_s: from its first beginning to the end of the session, or to its own where it was lost, seconds.
        attempts: that it made.
    """

    where: str
    busy_s: float
    there_s: float
    attempts: int

    @property
    def utilisation(self) -> float:
        """Share of its time in which it worked, 0..1."""
        return self.busy_s / self.there_s if self.there_s > 0 else 1.0


@dataclass(frozen=True)
class WorkSection:
    """The part of a report.

    Attributes:
        sentences: in their order.
        workers: cells below ``WORKER_COLUMNS``, the least busy process first.
        faults: cells below ``FAULT_COLUMNS``, in the order of time.
    """

    sentences: tuple[str, ...]
    workers: tuple[tuple[str, ...], ...]
    faults: tuple[tuple[str, ...], ...]


def at_once(session: Session) -> int:
    """Most attempts that were under way at the same time."""
    changes = [(one.began_s, 1) for one in session.attempts] + [(one.ended_s, -1) for one in session.attempts]
    most = now = 0
    for _, change in sorted(changes):  # an end comes before a beginning of the same moment
        now += change
        most = max(most, now)
    return most


def worker_times(record: WorkersRecord) -> list[WorkerTime]:
    """The processes of all sessions, the least busy first."""
    found = []
    for session in record.sessions:
        by_process: dict[str, list[Attempt]] = {}
        for attempt in session.attempts:
            by_process.setdefault(attempt.where, []).append(attempt)
        for where, own in by_process.items():
            until = own[-1].ended_s if own[-1].end == LOST else session.ended_s
            found.append(WorkerTime(where, sum(one.busy_s for one in own), until - own[0].began_s, len(own)))
    return sorted(found, key=lambda one: one.utilisation)


def utilisation(record: WorkersRecord) -> float:
    """Share of the time of all sessions in which the places were busy: as many as worked at the same time, 0..1."""
    places_s = sum(at_once(session) * (session.ended_s - session.began_s) for session in record.sessions)
    busy_s = sum(one.busy_s for session in record.sessions for one in session.attempts)
    return busy_s / places_s if places_s > 0 else 1.0


def lost_s(record: WorkersRecord, own_s: Mapping[str, float]) -> tuple[float, float]:
    """Seconds that processes worked on finished runs, and those of them that the runs do not hold.

    Args:
        record: of the processes.
        own_s: what each finished run took by its own clock, seconds; one that was made in part without a record does not count.
    """
    worked: dict[str, float] = {}
    for session in record.sessions:
        for one in session.attempts:
            worked[one.name] = worked.get(one.name, 0.0) + one.busy_s
    known = {name: busy_s for name, busy_s in worked.items() if busy_s >= own_s.get(name, float("inf"))}
    return sum(known.values()), sum(busy_s - own_s[name] for name, busy_s in known.items())


def work_section(record: WorkersRecord, own_s: Mapping[str, float] | None = None, noun: str = "run") -> WorkSection | None:
    """The part of a report; None where no process was recorded.

    Args:
        record: of the processes.
        own_s: what each finished one took by its own clock, seconds, see :func:`lost_s`; None: the work has no such clock, and is
            begun anew where it is begun again.
        noun: what the work is on.
    """
    attempts = [one for session in record.sessions for one in session.attempts]
    if not attempts:
        return None
    span_s = sum(session.ended_s - session.began_s for session in record.sessions)
    most = max(map(at_once, record.sessions))
    again = sum(one.end in BEGUN_AGAIN for one in attempts)
    sentences = [
        f"{_count(len({one.name for one in attempts}), noun)} in {_count(len(attempts), 'attempt')}, "
        f"{_count(len(record.sessions), 'command')} and {duration_text(span_s)}; at most {most} at once, and these were busy for "
        f"{share_text(utilisation(record))} of the time.",
        f"Begun again: {again or 'none'}. Slow: {sum(one.slow for one in attempts) or 'none'}. "
        f"Stuck: {sum(one.stuck for one in attempts) or 'none'}.",
    ]
    if own_s is None:
        again_s = sum(one.busy_s for one in attempts if one.end in BEGUN_AGAIN)
        sentences.append(f"Lost: {duration_text(again_s)} of work that was done again.")
    else:
        worked_s, gone_s = lost_s(record, own_s)
        if worked_s:
            sentences.append(
                f"Processes worked for {duration_text(worked_s)} on finished {noun}s; {duration_text(gone_s)} of it is in none "
                "of them: processes being started, and work that was lost and done again."
            )
    workers, faults = worker_times(record), [one for one in attempts if _fault(one)]
    if len(workers) > MOST_WORKERS:
        sentences.append(f"The {MOST_WORKERS} least busy of {len(workers)} processes:")
    if len(faults) > MOST_FAULTS:
        sentences.append(
            f"The last {MOST_FAULTS} of {len(faults)} attempts that were begun again, slow, stuck or failed are shown."
        )
    return WorkSection(
        tuple(sentences),
        tuple(_worker_cells(one) for one in workers[:MOST_WORKERS]),
        tuple((one.name, one.where, duration_text(one.busy_s), _fault(one)) for one in faults[-MOST_FAULTS:]),
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _worker_cells(one: WorkerTime) -> tuple[str, ...]:
    return one.where, duration_text(one.busy_s), duration_text(one.there_s), share_text(one.utilisation), str(one.attempts)


def _fault(one: Attempt) -> str:
    """What was wrong with an attempt, in words; empty: nothing."""
    words = [word for word, holds in (("slow", one.slow), ("stuck for a time", one.stuck)) if holds]
    if one.end not in (FINISHED, HANDED_BACK, UNDER_WAY):
        why = " ".join(one.why.split())
        words.append(
            f"{one.end}: {why[:MOST_LETTERS]}" if why else f"{one.end} with the command" if one.end != FAILED else FAILED
        )
    return ", ".join(words)
