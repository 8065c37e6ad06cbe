"""From visits to row values and their intervals, and from whole networks to calibration and certificate.

A model's time is the median over its visits of the clean median, or the smallest one (``min``), or the median after each
visit was rescaled by the sentinel timed around it (``paired``). Which of them a table uses is decided by the calibration
networks. On a shared server with a rare fast state (a tenth of the visits, up to 40 % faster) some models never meet that
state: ``min`` gave 8.7 % error and ``median`` 0.9 % on the same visits. Interval: bootstrap over visits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from latency_tables.board.timing import Visit
from latency_tables.certificate import Accuracy
from latency_tables.errors import MeasurementError

MIN_CLEAN_SHARE = 0.5
BOOTSTRAP = 200
AFFINE_GAIN = 0.9
RIDGES = (0.1, 0.03, 0.01, 0.003)
ESTIMATORS = ("median", "paired", "min")  # where no network decides, the first: without a sentinel paired is the same
Fitter = Callable[[np.ndarray, np.ndarray], tuple[float, float]]


@dataclass(frozen=True)
class Fit:
    """Overhead and scale from whole networks, and how well they predict networks left out of the fit.

    Attributes:
        overhead_s: fixed seconds of one inference.
        scale: factor between the sum of rows and a whole network.
        networks: how many were fitted; 0: too few for a fit.
        method: what was fitted, in words.
        mape: mean absolute relative error on left-out networks, or None.
        interval_factors: (low, high) of measured over predicted latency of left-out networks: the extremes, as so few
            networks cannot give tighter 95 % limits; or None.
        ridge: of the row corrections, or None without a correction.
    """

    overhead_s: float
    scale: float
    networks: int
    method: str
    mape: float | None
    interval_factors: tuple[float, float] | None
    ridge: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Correction:
    """Factors ``[rows]`` on rows, and what :class:`Fit` says about left-out networks with them; no ridge: all are 1."""

    factors: np.ndarray
    ridge: float | None
    mape: float
    interval_factors: tuple[float, float]


def paired_visits(visits: Mapping[str, Sequence[Visit]]) -> dict[str, list[Visit]]:
    """All visits as on a machine whose sentinel always takes its median time."""
    seen = [v.sentinel_s for many in visits.values() for v in many if v.sentinel_s]
    reference = float(np.median(seen)) if seen else 0.0
    return {name: [v.at(reference) if seen else v for v in many] for name, many in visits.items()}


def model_time_s(visits: Sequence[Visit], estimator: str = "median") -> float:
    """Median or smallest of the clean medians; the smallest sample where no visit was clean enough.

    Raises:
        MeasurementError: there was no visit.
    """
    if not visits:
        raise MeasurementError("a model was never visited; give the measurement more time")
    clean = [v.median_s for v in visits if is_clean_visit(v)]
    return float(_middle(estimator, clean)) if clean else min(v.min_s for v in visits)


def is_clean_visit(visit: Visit) -> bool:
    """Whether at least half of a visit's samples were not preempted (where nothing tells: yes)."""
    return visit.clean_share is None or visit.clean_share >= MIN_CLEAN_SHARE


def bootstrap_times_s(visits: Sequence[Visit], rng: np.random.Generator, estimator: str = "median") -> np.ndarray:
    """``[BOOTSTRAP]`` times as other visits could have given them."""
    kept = [v for v in visits if is_clean_visit(v)] or list(visits)
    medians = np.array([v.median_s for v in kept])
    errors = np.array([(v.high_s - v.low_s) / (2 * 1.96) for v in kept])
    chosen = rng.integers(0, len(kept), (BOOTSTRAP, len(kept)))
    return _middle(estimator, medians[chosen] + errors[chosen] * rng.standard_normal(chosen.shape))


def _middle(estimator: str, values: np.ndarray | Sequence[float]) -> np.ndarray:
    """The estimator over the last axis."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    return np.asarray(np.min(values, axis=-1) if estimator == "min" else np.median(values, axis=-1))


def difference(
    more: Sequence[Visit], less: Sequence[Visit] | None, divisor: int, *, estimator: str = "median", seed: int = 0
) -> tuple[float, float, float]:
    """A row's value and its 95 % interval.

    Args:
        more, less: visits of the two models; ``less`` None takes nothing away.
        divisor: chain length minus one.
        estimator: name in :data:`ESTIMATORS`.
        seed: of the bootstrap.

    Returns:
        ``(value_s, low_s, high_s)``; the interval holds the value.
    """
    rng = np.random.default_rng(seed)
    value, samples = model_time_s(more, estimator), bootstrap_times_s(more, rng, estimator)
    if less is not None:
        value -= model_time_s(less, estimator)
        samples = samples - bootstrap_times_s(less, rng, estimator)
    low, high = np.quantile(samples / divisor, (0.025, 0.975))
    value /= divisor
    return value, min(value, float(low)), max(value, float(high))


def calibrate(sums_s: Sequence[float], measured_s: Sequence[float], *, overhead_s: float) -> Fit:
    """Overhead and scale from whole networks, by least squares of the relative error.

    The overhead is the measured cost of an empty call, and only the scale is fitted, unless a fitted overhead lowers
    the leave-one-out error by a tenth: networks of similar size cannot tell the two apart.

    Args:
        sums_s: sum of rows in seconds, without overhead.
        measured_s: measured seconds of the same networks.
        overhead_s: measured seconds of an empty call.
    """
    sums, measured = np.asarray(sums_s, dtype=float), np.asarray(measured_s, dtype=float)
    if len(sums) < 3:
        return Fit(overhead_s, 1.0, 0, "none: fewer than 3 networks", None, None)
    fits: dict[str, Fitter] = {"scale": lambda s, m: (overhead_s, _scale(s, m - overhead_s, m)), "affine": _affine}
    ratios = {name: _left_out(fit, sums, measured) for name, fit in fits.items()}
    errors = {name: float(np.abs(1 / r - 1).mean()) for name, r in ratios.items()}
    method = "affine" if errors["affine"] < AFFINE_GAIN * errors["scale"] else "scale"
    overhead, scale = fits[method](sums, measured)
    interval = (min(1.0, float(ratios[method].min())), max(1.0, float(ratios[method].max())))
    return Fit(overhead, scale, len(sums), method, errors[method], interval)


def correct_rows(parts_s: np.ndarray, measured_s: np.ndarray, overhead_s: float) -> Correction:
    """Small corrections of rows from whole networks: ridge regression of the relative error, towards no correction.

    A block can cost something else inside a network than in a chain of itself (caches, a busy neighbour). The ridge is
    chosen by the leave-one-out error, among those that leave every row and every predicted network above 0; no correction is
    made unless it lowers that error by a tenth.

    Args:
        parts_s: ``[networks, rows]``, calibrated seconds of each row in each network.
        measured_s: ``[networks]``, measured seconds.
        overhead_s: fixed seconds of an inference.
    """
    design = parts_s / measured_s[:, None]
    rest = (measured_s - overhead_s) / measured_s - design.sum(axis=1)
    count, rows = design.shape

    def solve(keep: np.ndarray, ridge: float) -> np.ndarray:
        kept = design[keep]
        return np.linalg.solve(kept.T @ kept + ridge * np.eye(rows), kept.T @ rest[keep])

    best, ratios = np.abs(rest).mean(), 1 / (1 - rest)
    best_ridge: float | None = None
    factors: np.ndarray = np.ones(rows)
    for ridge in RIDGES:
        left = np.array([rest[i] - design[i] @ solve(np.arange(count) != i, ridge) for i in range(count)])
        found = 1 + solve(np.ones(count, dtype=bool), ridge)
        possible = found.min() > 0 and left.max() < 1
        if possible and np.abs(left).mean() < (best if best_ridge else AFFINE_GAIN * best):
            best, best_ridge, ratios, factors = np.abs(left).mean(), ridge, 1 / (1 - left), found
    interval = (min(1.0, float(ratios.min())), max(1.0, float(ratios.max())))
    return Correction(factors, best_ridge, float(best), interval)


def _scale(sums: np.ndarray, rest: np.ndarray, measured: np.ndarray) -> float:
    weights = measured**-2.0
    return float((weights * sums * rest).sum() / (weights * sums * sums).sum())


def _affine(sums: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    design = np.stack([1 / measured, sums / measured], axis=1)
    (overhead, scale), *_ = np.linalg.lstsq(design, np.ones(len(sums)), rcond=None)
    return (float(overhead), float(scale)) if overhead >= 0 and scale > 0 else (0.0, _scale(sums, measured, measured))


def _left_out(fit: Fitter, sums: np.ndarray, measured: np.ndarray) -> np.ndarray:
    ratios = []
    for i in range(len(sums)):
        keep = np.arange(len(sums)) != i
        overhead, scale = fit(sums[keep], measured[keep])
        ratios.append(measured[i] / (overhead + scale * sums[i]))
    return np.array(ratios)


def accuracy(predicted_s: Sequence[float] | np.ndarray, measured_s: Sequence[float] | np.ndarray) -> Accuracy:
    """How well predicted seconds fit measured seconds (or joules joules)."""
    predicted, measured = np.asarray(predicted_s, dtype=float), np.asarray(measured_s, dtype=float)
    relative = predicted / measured - 1
    size = np.abs(relative)
    tau = float(stats.kendalltau(predicted, measured).statistic) if len(measured) > 2 else math.nan
    spread = float(((measured - measured.mean()) ** 2).sum())
    return Accuracy(
        networks=len(measured),
        mape=float(size.mean()),
        median_ape=float(np.median(size)),
        max_ape=float(size.max()),
        within_5=float((size <= 0.05).mean()),
        within_10=float((size <= 0.10).mean()),
        bias=float(relative.mean()),
        kendall_tau=None if math.isnan(tau) else tau,
        r2=None if spread == 0 else 1 - float(((measured - predicted) ** 2).sum()) / spread,
    )


def fit_line(xs: Sequence[float], measured_s: Sequence[float]) -> tuple[float, float]:
    """``(intercept, slope)`` in seconds by least squares of the relative error: the FLOPs baseline of a certificate."""
    x, measured = np.asarray(xs, dtype=float), np.asarray(measured_s, dtype=float)
    design = np.stack([1 / measured, x / measured], axis=1)
    (intercept, slope), *_ = np.linalg.lstsq(design, np.ones(len(x)), rcond=None)
    return float(intercept), float(slope)
