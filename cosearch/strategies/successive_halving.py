"""Successive halving among the candidates of a proposal strategy: all train briefly, the best of them train on.

Papers: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016, arXiv
1502.07943; asynchronous: Li et al., A System for Massively Parallel Hyperparameter Tuning (ASHA), MLSys 2020, arXiv 1810.05934,
algorithm 2. With eta the reduction factor, N candidates and rung k the k-th level of training:
  promote    = from the highest rung down: one that is among the best  floor(|rung k| / eta)  so far and was not promoted
  else       = a new candidate enters rung 0
Differs from ASHA in:
1. Rung k takes floor(N / eta^k) trainings and no more, so that all of them together take exactly the steps of the search.
2. A candidate's weights, its environments and its optimiser go on where they stopped.
3. The strategy is told of the score at rung 0, where all have had equal steps; the higher rungs choose the result.
4. A training that failed has ended like any other and its candidate is never promoted. Where no more can come to a rung, its best
   go on until the next one is full, so a failure costs no other training as long as there is a candidate to take its place.
Optuna's pruner and Ray Tune's scheduler hold this rule inside a study or a trial runner of their own, whose state would not be in
our checkpoints: it is these lines instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from cosearch.record.state import State, read_list


class SuccessiveHalving:
    """Which candidate trains on.

    Args:
        sizes: trainings of each rung; one rung: nobody is promoted.
        factor: eta, at least 2.
    """

    def __init__(self, sizes: Sequence[int], factor: int) -> None:
        self.sizes, self.factor = tuple(sizes), factor
        self._scores: list[dict[int, float | None]] = [{} for _ in sizes]  # None: its training failed
        self._promoted: list[list[int]] = [[] for _ in sizes]

    def add(self, index: int, rung: int, score: float | None) -> None:
        """A candidate's training at a rung has ended.

        Args:
            index: of the candidate.
            rung: from 0.
            score: None where no episode ended: worse than any.
        """
        self._scores[rung][index] = float("-inf") if score is None else score

    def fail(self, index: int, rung: int) -> None:
        """A candidate's training at a rung has failed: it has ended, and trains no further.

        Args:
            index: of the candidate.
            rung: from 0.
        """
        self._scores[rung][index] = None

    def next(self) -> tuple[int, int, int] | None:
        """Who trains on, and is counted as promoted from now on: candidate, rung, and place among those of that rung.

        Returns:
            None: nobody, as far as is known by now.
        """
        for rung in reversed(range(len(self.sizes) - 1)):
            following = self._following(rung)
            if following is not None:
                self._promoted[rung].append(following)
                return following, rung + 1, len(self._promoted[rung]) - 1
        return None

    def _following(self, rung: int) -> int | None:
        """Who trains on from a rung by now."""
        promoted, most = self._promoted[rung], self.sizes[rung + 1]
        if len(promoted) == most:
            return None
        trained = {index: score for index, score in self._scores[rung].items() if score is not None}
        by_now = most if self._complete(rung) else len(self._scores[rung]) // self.factor
        best = sorted(trained, key=lambda index: -trained[index])[:by_now]
        return next((index for index in best if index not in promoted), None)

    def _complete(self, rung: int) -> bool:
        """Whether all trainings of a rung have ended, and no more can come."""
        if rung == 0:
            return len(self._scores[0]) == self.sizes[0]
        ended = len(self._scores[rung]) == len(self._promoted[rung - 1])
        return ended and self._complete(rung - 1) and self._following(rung - 1) is None

    @property
    def more(self) -> bool:
        """Whether :meth:`next` would name one."""
        saved = [list(promoted) for promoted in self._promoted]
        found = self.next() is not None
        self._promoted = saved
        return found

    def open(self, index: int, rung: int) -> bool:
        """Whether a candidate that has ended a rung may still be promoted."""
        return (
            rung + 1 < len(self.sizes) and index not in self._promoted[rung] and len(self._promoted[rung]) < self.sizes[rung + 1]
        )

    def promoted(self, rung: int) -> int:
        """How many trained on from a rung so far.

        Args:
            rung: from 0, not the last.
        """
        return len(self._promoted[rung])

    def state(self) -> State:
        """Everything, as plain values."""
        return {
            "scores": [[[index, score] for index, score in scores.items()] for scores in self._scores],
            "promoted": [list(promoted) for promoted in self._promoted],
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self._scores = [
            {int(index): None if score is None else float(score) for index, score in rung}
            for rung in read_list(state, "scores", list)
        ]
        self._promoted = [[int(index) for index in rung] for rung in read_list(state, "promoted", list)]
