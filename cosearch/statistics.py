"""Statistics of scores: bootstrap intervals, inter-quartile mean, probability of improvement, hypervolume.

Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021, arXiv 2108.13264.
Their library, rliable, pins arch 5.3, which has no wheel for Python 3.11 and needs a compiler there; so the intervals come from
``scipy.stats.bootstrap``, whose samples are resampled apart from each other: with one sample a task, that is the stratified
bootstrap. Scores of a strategy are one list a task, one number a run. Intervals are percentile intervals, 95 %; with few runs
they are too narrow (a test measures by how much), as any bootstrap's. From fewer than two values there is no interval: every
resample of one value is that value, and an interval of width zero would say that nothing is uncertain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, t, trim_mean

RESAMPLES = 5_000
Scores = Sequence[Sequence[float]]
Interval = tuple[float, float]


def percentile_interval(resamples: Sequence[float] | np.ndarray, sizes: Iterable[int]) -> Interval | None:
    """The middle 95 % of a statistic's bootstrap resamples.

    Args:
        resamples: the statistic of each resample.
        sizes: for each sample that was resampled how many values it has.

    Returns:
        Low and high; None where a sample has fewer than two values.
    """
    if min(sizes) < 2:
        return None
    low, high = np.percentile(resamples, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Bootstrap interval of the mean, from a fixed seed; None for fewer than two values.

    Args:
        values: such as the returns of episodes.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return None
    if (sample == sample[0]).all():
        return float(sample.mean()), float(sample.mean())
    found = bootstrap(
        (sample,), np.mean, n_resamples=2000, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def student_interval(values: Sequence[float] | np.ndarray) -> Interval | None:
    """Student's 95 % interval of the mean of independent normal values; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def interval_text(ci95: Interval | Sequence[float] | None, of: str, form: str = ".2f") -> str:
    """An interval in brackets: ``[1.20, 3.40]``, or that one value gives none: ``no interval (1 episode)``.

    Args:
        ci95: low and high.
        of: what was sampled, such as ``episode``, ``run`` or ``seed``.
        form: format of the two figures.
    """
    return f"no interval (1 {of})" if ci95 is None else f"[{ci95[0]:{form}}, {ci95[1]:{form}}]"


def estimate_text(value: float, ci95: Interval | Sequence[float] | None, of: str, form: str = ".2f") -> str:
    """A figure with its interval: ``12.50 [11.02, 14.10]``, or ``4.00, no interval (1 episode)``.

    Args:
        value: the figure.
        ci95, of, form: see :func:`interval_text`.
    """
    return f"{value:{form}}{',' if ci95 is None else ''} {interval_text(ci95, of, form)}"


def mean_text(mean: float, ci95: Interval | Sequence[float] | None, episodes: int) -> str:
    """A mean score: ``12.50 [11.02, 14.10] over 256 episodes``, or ``4.00, no interval (1 episode)``."""
    return estimate_text(mean, ci95, "episode") + ("" if ci95 is None else f" over {episodes} episodes")


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; ``ci95`` is None where a task has one run."""

    value: float
    ci95: Interval | None

    def to_dict(self) -> dict[str, object]:
        """``value`` and ``ci95``, plain JSON."""
        return {"value": self.value, "ci95": None if self.ci95 is None else list(self.ci95)}


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
        return np.mean([_better(samples[i], samples[tasks + i], axis) for i in range(tasks)], axis=0)

    return _estimate([*ours, *theirs], statistic, seed)


def _better(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    x, y = np.moveaxis(x, axis, -1)[..., :, None], np.moveaxis(y, axis, -1)[..., None, :]
    return ((x > y) + 0.5 * (x == y)).mean(axis=(-2, -1))


def _estimate(samples: Scores, statistic: Callable[..., Any], seed: int) -> Estimate:
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    value = float(statistic(*arrays, axis=0))
    if min(map(len, arrays)) < 2:
        return Estimate(value, None)
    found = bootstrap(
        arrays,
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        batch=1000,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, (float(found.low), float(found.high)))


def band(curves: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
    """Percentile interval of the mean of curves ``[runs, points]`` at each point; None for fewer than two runs.

    Returns:
        Low and high, each ``[points]``.
    """
    if len(curves) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(curves), (1000, len(curves)))
    low, high = np.percentile(curves[drawn].mean(axis=1), [2.5, 97.5], axis=0)
    return low, high


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
