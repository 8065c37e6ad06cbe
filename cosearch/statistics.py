"""Statistics of a comparison: inter-quartile mean, stratified bootstrap intervals, probability of improvement, hypervolume.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021, arXiv 2108.13264.
Their library, rliable, pins arch 5.3, which has no wheel for Python 3.11 and needs a compiler there; so the intervals come from
``scipy.stats.bootstrap``, whose samples are resampled apart from each other: with one sample a task, that is the stratified
bootstrap. Scores of a strategy are one list a task, one number a run. Intervals are percentile intervals, 95 %; with few runs
they are too narrow (a test measures by how much), as any bootstrap's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, trim_mean

RESAMPLES = 5_000
Scores = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; ``low`` and ``high`` are None where there are too few runs for one."""

    value: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        """``value`` and ``ci95``, plain JSON."""
        return {"value": self.value, "ci95": None if self.low is None else [self.low, self.high]}


def iqm(scores: Scores) -> float:
    """Inter-quartile mean: the mean of the middle half of all runs of all tasks.

    A quarter of the runs, rounded down, is left out at each end: with three runs or fewer it is the mean.
    """
    return float(trim_mean(np.concatenate([np.asarray(task, dtype=float) for task in scores]), 0.25))


def iqm_estimate(scores: Scores, seed: int = 0) -> Estimate:
    """The inter-quartile mean with its stratified bootstrap interval: runs are drawn anew within each task."""
    return _estimate(scores, lambda *tasks, axis: trim_mean(np.concatenate(tasks, axis=axis), 0.25, axis=axis), seed)


def improvement(ours: Scores, theirs: Scores) -> float:
    """Probability that a run of ours scores more than one of theirs; equal scores count half; the mean over the tasks."""
    return float(
        np.mean(
            [_better(np.asarray(x, dtype=float), np.asarray(y, dtype=float), axis=0) for x, y in zip(ours, theirs, strict=True)]
        )
    )


def improvement_estimate(ours: Scores, theirs: Scores, seed: int = 0) -> Estimate:
    """The same with its interval: runs of both are drawn anew within each task."""
    tasks = len(ours)

    def statistic(*samples: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([_better(samples[t], samples[tasks + t], axis) for t in range(tasks)], axis=0)

    return _estimate([*ours, *theirs], statistic, seed)


def _better(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    x, y = np.moveaxis(x, axis, -1)[..., :, None], np.moveaxis(y, axis, -1)[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1))


def _estimate(samples: Scores, statistic: Callable[..., Any], seed: int) -> Estimate:
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    value = float(statistic(*arrays, axis=0))
    if min(map(len, arrays)) < 2:
        return Estimate(value, None, None)
    found = bootstrap(
        arrays,
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=1000,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high))


def band(curves: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of curves ``[runs, points]`` with the percentile interval of the mean at each point.

    Returns:
        Mean, low and high, each ``[points]``; with one run all three are that run.
    """
    mean = curves.mean(axis=0)
    if len(curves) < 2:
        return mean, mean, mean
    drawn = np.random.default_rng(seed).integers(0, len(curves), (1000, len(curves)))
    low, high = np.percentile(curves[drawn].mean(axis=1), [2.5, 97.5], axis=0)
    return mean, low, high


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that is dominated by points of (latency, score), lower latency and higher score being better.

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
