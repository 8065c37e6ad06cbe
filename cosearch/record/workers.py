"""``workers.json`` of a comparison, or of a search with several workers: which process worked on what, when, and how it ended.

The same command may be typed several times until all is done; each time is a session. All moments are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cosearch.record.json_record import OMITTED, from_json
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json

UNDER_WAY, FINISHED, FAILED, HANDED_BACK = "under way", "finished", "failed", "handed back"
LOST, BROKE, STOPPED = "lost", "broke", "stopped"
LATEST_S = 1e11  # in the year 5138
BEGUN_AGAIN = (LOST, BROKE, STOPPED)  # ends after which the work since the last checkpoint is done again


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A process at work on one run, candidate or teacher.

    Attributes:
        name: of what it works on.
        where: the process.
        began_s, ended_s: when; of one that is under way, when it was last known to be.
        end: ``finished``; ``failed``, with a reason; ``handed back`` by a machine that does not see the folder, to go on;
            ``lost`` with its process; ``broke`` by an unforeseen error, to be tried again; ``stopped`` with the command; else
            ``under way``.
        why: the reason, in words; empty: none.
        slow: it took twice as long as half of the others.
        stuck: nothing was heard of it for ten minutes.
    """

    name: str
    where: str
    began_s: float
    ended_s: float
    end: str = UNDER_WAY
    why: str = field(default="", metadata=OMITTED)
    slow: bool = field(default=False, metadata=OMITTED)
    stuck: bool = field(default=False, metadata=OMITTED)

    @property
    def busy_s(self) -> float:
        """How long the process worked, seconds."""
        return self.ended_s - self.began_s


@dataclass(frozen=True, kw_only=True)
class Session:
    """One time that the command was typed.

    Attributes:
        began_s, ended_s: when; of one that was killed, when it was last known to work.
        attempts: in the order of their beginnings.
    """

    began_s: float
    ended_s: float
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkersRecord:
    """All sessions, the first one first."""

    FILE: ClassVar[str] = "workers.json"

    sessions: tuple[Session, ...] = ()


def read_workers(folder: Path) -> WorkersRecord:
    """What is recorded in a folder; no sessions where there is no record.

    Args:
        folder: of a comparison, or of a run.

    Raises:
        RunFolderError: the file is damaged, or holds moments out of their order.
    """
    path = folder / WorkersRecord.FILE
    if not path.is_file():
        return WorkersRecord()
    record = from_json(WorkersRecord, read_json(path, "the record of workers", RunFolderError, digits=OWN_DIGITS), path)
    spans: list[Session | Attempt] = [*record.sessions, *(one for session in record.sessions for one in session.attempts)]
    for one in spans:
        if not 0 <= one.began_s <= one.ended_s <= LATEST_S:
            raise RunFolderError(
                f"{path}: expected moments in seconds since 1970, the beginning before the end, got {one.began_s} and "
                f"{one.ended_s}; move the file away: nothing but the report reads it"
            )
    return record
