"""When the next training of a search begins, and whose result is taken next, where several are trained at once.

A proposal strategy that may be told in any order (``StrategyInfo.any_order``) is told of each training as it ends, and the next
one begins at once: no worker waits while there is something to train. Any other is asked for as many candidates as there are
workers, and told in the order asked when the last of them is trained. What was done is a list of events, ``BEGIN`` or the index
of the candidate whose training was taken; the same list again gives the same search, whatever ends first.
"""

from __future__ import annotations

from collections.abc import Sequence

from latency_tables.errors import RequestError

BEGIN = -1


class Turns:
    """The trainings of one search: begun, ended, taken.

    Args:
        slots: trainings at once, at least 1.
        in_batches: whether all of a batch end before the first of them is taken.
        recorded: events of an earlier search, to be repeated as far as they go; then ``in_batches`` holds.

    Attributes:
        events: all so far.
        waiting: candidates whose training has begun and is not taken, in the order begun.
    """

    def __init__(self, slots: int, *, in_batches: bool = False, recorded: Sequence[int] = ()) -> None:
        self.slots, self.in_batches, self.recorded = slots, in_batches, tuple(recorded)
        self.events: list[int] = []
        self.waiting: list[int] = []
        self._ended: list[int] = []
        self._full = False

    @property
    def running(self) -> int:
        """Trainings that have begun and not ended."""
        return len(self.waiting) - len(self._ended)

    def begin(self, index: int) -> None:
        """The training of a candidate begins, after :meth:`next` said ``BEGIN``."""
        self.events.append(BEGIN)
        self.waiting.append(index)

    def end(self, index: int) -> None:
        """The training of a candidate has ended."""
        self._ended.append(index)

    def take(self, index: int) -> None:
        """The result of a candidate is taken, after :meth:`next` named it."""
        self.events.append(index)
        self.waiting.remove(index)
        self._ended.remove(index)

    def restore(self, events: Sequence[int], waiting: Sequence[int]) -> None:
        """Go back to where the events stood; nothing that waits has ended yet.

        Args:
            events: see the attribute.
            waiting: candidates, in the order begun.
        """
        self.events, self.waiting, self._ended, self._full = list(events), list(waiting), [], bool(waiting)

    def next(self, more: bool) -> int | None:
        """What is to be done now.

        Args:
            more: whether there is another training to begin.

        Returns:
            ``BEGIN``, the index of the candidate whose result is to be taken, or None: wait for the end of one, or, where none
            is waiting, the search is over.

        Raises:
            RequestError: the recorded events are those of another search.
        """
        if len(self.events) < len(self.recorded):
            return self._repeated(more)
        if self.in_batches:
            return self._of_batch(more)
        if self._ended:
            return self._ended[0]
        return BEGIN if more and self.running < self.slots else None

    def _of_batch(self, more: bool) -> int | None:
        self._full = self._full and bool(self.waiting)
        if not self._full:
            if more and len(self.waiting) < self.slots:
                return BEGIN
            self._full = True
        return None if self.running or not self.waiting else self.waiting[0]

    def _repeated(self, more: bool) -> int | None:
        place, event = len(self.events), self.recorded[len(self.events)]
        if event in self._ended:
            return event
        if event in self.waiting:
            return None
        if event == BEGIN and more:
            return BEGIN
        wants = "another training to begin" if event == BEGIN else f"the result of candidate {event}"
        raise RequestError(
            f"strategy.order wants {wants} as its event {place} (from 0), where candidates {self.waiting} are in training and "
            f"{'there are more' if more else 'there is no other'} to come: a search with other settings recorded it. Repeat it "
            "with the settings in that run's run.json, or leave it out"
        )


def in_order(told: int, waiting: int, slots: int) -> list[int]:
    """The events of a search in batches that recorded none: so many candidates told, and so many that wait.

    Args:
        told, waiting: candidates.
        slots: of a batch.
    """
    events: list[int] = []
    for first in range(0, told, slots):
        batch = range(first, min(first + slots, told))
        events += [*(BEGIN for _ in batch), *batch]
    return events + [BEGIN] * waiting
