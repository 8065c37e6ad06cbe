"""How good results are: the hypervolume of score and latency, and regret and rank among scores that are all known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latency_tables.errors import RequestError


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that is dominated by points of (latency, score), lower latency and higher score being better.

    Zitzler and Thiele, IEEE Transactions on Evolutionary Computation 3, 1999, 257-271. It grows with every point: to compare
    methods that have different numbers of runs, take :func:`mean_hypervolume`.

    Args:
        points: latencies, in any unit of time, and scores.
        reference: the slowest latency and the lowest score that count; what is beyond adds nothing.

    Returns:
        Area in units of latency times units of score.
    """
    slowest, lowest = reference
    area, covered = 0.0, lowest
    for latency, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if latency < slowest and score > covered:
            area += (slowest - latency) * (score - covered)
            covered = score
    return area


def mean_hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Mean over runs of the area that each run's agent dominates by itself: its expectation is the same for any number of runs.

    Args:
        points: latency and score of each run's agent.
        reference: see :func:`hypervolume`.
    """
    return float(np.mean([hypervolume([point], reference) for point in points]))


def regret(score: float, scores: Sequence[float] | np.ndarray) -> float:
    """Simple regret: how far a result's score is below the best of all, 0 for the best.

    As in tabular benchmarks: Ying et al., NAS-Bench-101, ICML 2019, arXiv 1902.09635.

    Args:
        score: of the result.
        scores: of every architecture that could have been found.
    """
    return float(np.max(scores)) - score


def rank(score: float, scores: Sequence[float] | np.ndarray) -> float:
    """Place of a result among all: 1 for the best; equal scores share the mean of their places (midranks, Kendall 1945).

    Args:
        score: of the result.
        scores: of every architecture that could have been found, the result's among them.

    Raises:
        RequestError: the result's score is not among them.
    """
    values = np.asarray(scores, dtype=float)
    equal = int((values == score).sum())
    if not equal:
        raise RequestError(f"the score {score} is none of the {len(values)} scores among which its rank is asked for")
    return float((values > score).sum()) + (equal + 1) / 2
