"""The best division of layers and processing elements among the chunks of a full pipeline, by lazy exact search.

With tiles given, a chunk's time depends on its layers and its own array alone. So an interval below ``T`` exists exactly if some
cuts have arrays, one for each chunk, that are each faster than ``T`` and together no larger than the limit. For every run of
layers the smallest such array is looked for from below, starting at ``products / T`` elements (no array does more than one
product an element and cycle), and only for runs on the cuts that need the fewest elements by what is known so far. A division
found lowers ``T``; once even the best cuts need too many elements, none is left.

Every pair of a run of layers and an array that is looked at counts as one evaluation, every division found as another.
"""

from __future__ import annotations

import numpy as np

from accel_models.searching.elites import Candidate, Elites
from accel_models.searching.problem import SIDES, DesignProblem

ARRAYS = np.array(
    sorted(
        ((a, b) for a in range(len(SIDES)) for b in range(len(SIDES))), key=lambda pair: (SIDES[pair[0]] * SIDES[pair[1]], pair)
    )
)
ELEMENTS = np.asarray(SIDES)[ARRAYS].prod(-1)


class Runs:
    """What is known of the smallest array for every run of layers, for every different tile of the chunks.

    Attributes:
        alike: ``[J]`` the first chunk with the same tile; what is known of one holds for the other.
        place: ``[J, L + 1, L + 1]`` place in :data:`ARRAYS` of the smallest array that may be fast enough, by begin and end.
        seen: ``[J, L + 1, L + 1]`` cycles at that place, NaN if not looked at.
    """

    def __init__(self, problem: DesignProblem, candidate: Candidate, target: float) -> None:
        self.problem, self.target = problem, target
        self.alike = [int((candidate.index[:, 2:] == own).all(-1).argmax()) for own in candidate.index[:, 2:]]
        index = np.repeat(candidate.index[None], len(ARRAYS), axis=0)
        index[:, :, :2] = ARRAYS[:, None]
        table = problem.target(problem.exact_costs(index)).numpy()  # [A, J, L, D]
        self.prefix = np.concatenate([np.zeros_like(table[:, :, :1]), table.cumsum(2)], 2)
        products = np.concatenate([[0], np.cumsum([layer.macs for layer in problem.layers])])
        least = (products[None, :] - products[:, None]) / target
        self.place = np.repeat(np.searchsorted(ELEMENTS, least * (1 - 1e-12))[None], problem.chunks, axis=0)
        self.seen = np.full(self.place.shape, np.nan)

    def cuts(self) -> tuple[float, list[tuple[int, int, int]]]:
        """Fewest elements by what is known, and ``(alike, begin, end)`` of the runs that need them; a run may be empty."""
        chunks, ends = self.place.shape[:2]
        need = np.append(ELEMENTS, self.problem.limits.elements + 1)[np.minimum(self.place, len(ELEMENTS))].astype(float)
        need[:, np.tril(np.ones((ends, ends), dtype=bool), -1)] = np.inf
        best, came = need[0, 0], []
        for j in range(1, chunks):
            joined = best[:, None] + need[self.alike[j]]
            came.append(joined.argmin(0))
            best = joined.min(0)
        end, runs = ends - 1, []
        for j in reversed(range(chunks)):
            begin = int(came[j - 1][end]) if j else 0
            runs.append((self.alike[j], begin, end))
            end = begin
        return float(best[-1]), runs[::-1]

    def advance(self, run: tuple[int, int, int]) -> bool:
        """Look at the smallest array left for a run; whether it is fast enough. One evaluation if it was not looked at before."""
        j, begin, end = run
        if np.isnan(self.seen[run]):
            self.problem.evaluations += 1
            place = self.place[run]
            self.seen[run] = (self.prefix[place, j, end] - self.prefix[place, j, begin]).min()
        if self.seen[run] < self.target:
            return True
        self.place[run] += 1
        self.seen[run] = np.nan
        return False

    def elements(self, runs: list[tuple[int, int, int]]) -> float:
        """Elements that the runs need by what is known."""
        places = np.array([self.place[run] for run in runs])
        return float(ELEMENTS[places].sum()) if places.max() < len(ELEMENTS) else np.inf


def divide(problem: DesignProblem, elites: Elites, candidate: Candidate, end: int) -> bool:
    """Better divisions than a candidate's, with its tiles, until none is left; whether that was proved before the end.

    Args:
        problem: with objective ``interval``.
        elites: takes in what is found; a division whose buffers or DRAM traffic are too large does not get in.
        candidate: where to begin; scored.
        end: value of ``problem.evaluations`` at which to stop.
    """
    runs = Runs(problem, candidate, candidate.value)
    while True:
        need, cuts = runs.cuts()
        if need > problem.limits.elements:
            return True
        waiting = list(cuts)
        while waiting and runs.elements(cuts) <= problem.limits.elements:
            if problem.evaluations >= end:
                return False
            run = waiting.pop(0)
            if not runs.advance(run):
                waiting.append(run)
        if not waiting and runs.elements(cuts) <= problem.limits.elements:
            if problem.evaluations >= end:
                return False
            division = candidate.index.copy()
            division[:, :2] = ARRAYS[[runs.place[run] for run in cuts]]
            elites.add(problem, division[None], problem.score(division[None]))
            runs.target = max(runs.seen[run] for run in cuts)
