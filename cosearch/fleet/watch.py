"""Which workers are idle, stuck or slow, told from when they were last heard of; nothing is stopped for it.

What is seen goes into the record of the work as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from cosearch.fleet.log import WorkLog
from cosearch.record.workers import FINISHED

STUCK_S = 600.0  # without a word
SLOW = 2.0  # times the median of those that are done


@dataclass
class _Piece:
    """A piece under way: where, since when, and when it was last heard of, seconds."""

    where: str
    since: float
    heard: float
    told: frozenset[str] = frozenset()


class Watch:
    """What is under way, and what is wrong with it.

    Args:
        total: pieces of work in all.
        log: of what the processes do.
        clock: seconds.
    """

    def __init__(self, total: int, log: WorkLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._log, self._clock = total, log, clock
        self._pieces: dict[str, _Piece] = {}
        self._places: set[str] = set()
        self._took: list[float] = []
        self._lost = self._ended = 0
        self._idle: set[str] = set()

    def started(self, name: str, where: str) -> None:
        """A piece was begun, or begun again."""
        now = self._clock()
        if name in self._pieces:
            self._lost += 1
            self._places.discard(self._pieces[name].where)
        self._places.add(where)
        self._pieces[name] = _Piece(where, now, now)
        self._log.started(name, where)

    def heard(self, name: str) -> None:
        """A piece sent a message."""
        if name in self._pieces:
            self._pieces[name].heard = self._clock()
            self._pieces[name].told -= {"stuck"}

    def paused(self, name: str, end: str, why: str = "") -> None:
        """A piece waits to go on, or to be tried again.

        Args:
            name: of it.
            end, why: see ``Attempt``.
        """
        self._pieces.pop(name, None)
        self._log.ended(name, end, why)

    def ended(self, name: str, end: str = FINISHED, why: str = "") -> None:
        """A piece ended.

        Args:
            name: of it.
            end, why: see ``Attempt``.
        """
        piece = self._pieces.pop(name, None)
        self._ended += 1
        self._log.ended(name, end, why)
        if piece is not None:
            self._took.append(self._clock() - piece.since)

    def summary(self) -> str:
        """How far the whole is, in one line."""
        waiting = self.total - self._ended - len(self._pieces)
        lost = f", {self._lost} begun again" if self._lost else ""
        return f"{self._ended} of {self.total} ended, {len(self._pieces)} under way, {waiting} waiting{lost}"

    def faults(self) -> list[str]:
        """What is wrong and was not told before, one line each."""
        now, lines = self._clock(), []
        usual = statistics.median(self._took) if self._took else None
        for name, piece in self._pieces.items():
            if now - piece.heard >= STUCK_S and "stuck" not in piece.told:
                lines.append(f"stuck? {name} on {piece.where}: no word for {(now - piece.heard) / 60:.0f} min")
                piece.told |= {"stuck"}
                self._log.stuck(name)
            if usual is not None and now - piece.since >= max(60.0, SLOW * usual) and "slow" not in piece.told:
                took, median = (now - piece.since) / 60, usual / 60
                lines.append(f"slow: {name} on {piece.where} takes {took:.1f} min so far, half of the others took {median:.1f}")
                piece.told |= {"slow"}
                self._log.slow(name)
        idle = self._places - {piece.where for piece in self._pieces.values()}
        if idle - self._idle and self._ended + len(self._pieces) >= self.total and self._pieces:
            lines.append(f"idle: {len(idle)} of {len(self._places)} processes, no work is left for them")
            self._idle = idle
        self._log.keep()
        return lines
