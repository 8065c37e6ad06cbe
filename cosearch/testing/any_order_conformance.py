"""The conformance check of proposal strategies that may be told in any order: no idle worker, repeated, resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import Evaluation, Feasible, ProposalStrategy, StrategyInfo
from cosearch.strategies.turns import BEGIN, Turns
from cosearch.testing.conformance import require, seeded
from cosearch.testing.strategy_conformance import Told, default_options


def check_any_order(
    info: StrategyInfo, space: SearchSpace, value: Callable[[Architecture], float], *, candidates: int = 18
) -> None:
    """A strategy that declares ``any_order`` keeps three workers busy, repeats itself, resumes, and knows its best.

    Trainings end in three orders: the last begun first, the first begun last, and drawn ones. Some fail.

    Args:
        info: the registry record.
        space: small.
        value: score of an architecture, higher is better.
        candidates: of each search.

    Raises:
        AssertionError: something does not hold.
    """
    drawn = seeded(1)
    for ends, resumes in (
        (lambda running: running[-1], False),
        (lambda running: running[1 % len(running)], True),
        (lambda running: running[int(torch.randint(len(running), (), generator=drawn))], True),
    ):
        straight = _Asynchronous(info, space, value)
        straight.run(candidates, ends)
        events = straight.turns.events
        told = [event for event in events if event != BEGIN]
        require(told != sorted(told), "the check told everything in order")
        again = _Asynchronous(info, space, value, events)
        again.run(candidates, lambda running: running[0], resume_at=candidates // 2 if resumes else None)
        how = "resumed, and told" if resumes else "told again"
        require(again.told == straight.told, f"{info.name}: {how} in the same order, it proposes others")
        scores = [float("-inf") if score is None else score for _, score in straight.told]
        for one in (straight, again):
            best = one.strategy.best()
            require(scores[best] == max(scores), f"{info.name}: best() is {best}, the scores are {scores}")


class _Asynchronous:
    """A search of three workers whose trainings end as the check says."""

    def __init__(
        self, info: StrategyInfo, space: SearchSpace, value: Callable[[Architecture], float], events: Sequence[int] = ()
    ) -> None:
        self.info, self.space, self.value = info, space, value
        self.turns = Turns(3, recorded=events)
        self.asked: list[Architecture] = []
        self.told: list[Told] = []
        self.strategy, self.generator = self._made(3)

    def _made(self, seed: int) -> tuple[ProposalStrategy, torch.Generator]:
        generator = seeded(seed)
        return self.info.make(self.space, default_options(self.info), generator, Feasible()), generator

    def run(self, candidates: int, ends: Callable[[Sequence[int]], int], resume_at: int | None = None) -> None:
        """Train them all; after ``resume_at`` of them another strategy takes over the state."""
        running: list[int] = []
        while len(self.told) < candidates:
            while (turn := self.turns.next(len(self.asked) < candidates)) is not None:
                if turn == BEGIN:
                    self.turns.begin(len(self.asked))
                    running.append(len(self.asked))
                    self.asked.append(self.strategy.ask())
                else:
                    self.turns.take(turn)
                    self._tell(turn)
                    if len(self.told) == resume_at:
                        self._resume()
            left = candidates - len(self.told)
            repeats = len(self.turns.recorded) > 0
            require(repeats or len(running) == min(3, left), f"{self.info.name}: {len(running)} in training, {left} are left")
            if running:
                index = ends(running)
                running.remove(index)
                self.turns.end(index)

    def _tell(self, index: int) -> None:
        architecture = self.asked[index]
        score = None if index % 5 == 4 else self.value(architecture)
        self.strategy.tell(Evaluation(architecture, score, 1e-3, failed=score is None, asked=index))
        self.told.append((architecture.choices, score))

    def _resume(self) -> None:
        state, noise = copy.deepcopy(self.strategy.state()), self.generator.get_state()
        self.strategy, self.generator = self._made(0)
        self.strategy.restore(state)
        self.generator.set_state(noise)
