"""Scores of the candidates from all drawn paths and their losses: a ridge regression on one-hot choices beside a trend in time.

With a_i the path of minibatch i, t_i the progress of the search, L_i its loss, m and s piecewise linear in t:
  (L_i - m(t_i)) / s(t_i) = trend(t_i) + sum_l theta[l, a_il] + noise,   score[l, o] = -theta[l, o]
m and s take out that the loss and its spread fall while the weights learn. The trend is not penalised, theta is:
  min ||y - X theta||^2 + lambda ||theta||^2,   X and y without their part in the trend (Frisch and Waugh, Econometrica 1, 1933),
solved in closed form, with the lambda of the smallest leave-one-out error (generalised cross-validation: Golub, Heath and Wahba,
Technometrics 21, 1979). A score function updates a logit only when its candidate is drawn, so that the late, peaked distribution
says nothing more about the candidates that it no longer draws; a regression uses each pair once, whenever it was drawn, and a
candidate that was hardly drawn is held near 0, the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from cosearch.record.state import State, read, read_list
from latency_tables.errors import NonFiniteError

MOST_PAIRS = 32_768  # held at once; about 1 MB
KNOTS = 8  # of the trend
PAIRS_A_KNOT = 8  # at least
PENALTIES = np.logspace(-2, 4, 25)  # lambda, in units of one pair
FOLDS = 5
SPREAD_MIN = 0.05  # of s, as a share of its mean
OUTLIER = 4.0  # standardised losses are held within this


class DrawnPaths:
    """The paths along which minibatches were learned, with their losses: what the regression is fitted to.

    At ``most`` pairs every other one is dropped, and from then on every other one is kept: an even sample of the whole search.

    Args:
        points: choice points of a path.
        most: pairs held at once, at least 2.
    """

    def __init__(self, points: int, most: int = MOST_PAIRS) -> None:
        self.most, self.stride, self.seen, self.count = most, 1, 0, 0
        self._choices = torch.zeros((0, points), dtype=torch.int16)
        self._values = torch.zeros((0, 2), dtype=torch.float64)

    def add(self, choices: Sequence[int], loss: float, progress: float) -> None:
        """A minibatch was learned along a path.

        Args:
            choices: one candidate's index for each choice point.
            loss: of the minibatch; what the path is credited with, the lower the better.
            progress: of the search, 0..1.
        """
        self.seen += 1
        if (self.seen - 1) % self.stride:
            return
        if self.count == self.most:
            kept = slice(0, self.count, 2)
            self._choices, self._values = self._choices[kept].clone(), self._values[kept].clone()
            self.count, self.stride = len(self._choices), 2 * self.stride
            if (self.seen - 1) % self.stride:
                return
        if self.count == len(self._choices):
            self._choices = _longer(self._choices, self.most)
            self._values = _longer(self._values, self.most)
        self._choices[self.count] = torch.tensor(choices, dtype=torch.int16)
        self._values[self.count] = torch.tensor((loss, progress), dtype=torch.float64)
        self.count += 1

    @property
    def choices(self) -> np.ndarray:
        """``[pairs, points]``, int."""
        return self._choices[: self.count].numpy().astype(np.int64)

    @property
    def losses(self) -> np.ndarray:
        """``[pairs]``."""
        return self._values[: self.count, 0].numpy().copy()

    @property
    def progress(self) -> np.ndarray:
        """``[pairs]``, 0..1."""
        return self._values[: self.count, 1].numpy().copy()

    def state(self) -> State:
        """All pairs."""
        return {
            "seen": self.seen,
            "stride": self.stride,
            "pairs": [self._choices[: self.count].clone(), self._values[: self.count].clone()],
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.seen, self.stride = read(state, "seen", int), read(state, "stride", int)
        self._choices, self._values = (tensor.clone() for tensor in read_list(state, "pairs", Tensor))
        self.count = len(self._choices)


def _longer(tensor: Tensor, most: int) -> Tensor:
    """The rows with free ones behind them, twice as many, ``most`` at most."""
    rows = torch.zeros((min(most, max(64, 2 * len(tensor))), tensor.shape[1]), dtype=tensor.dtype)
    rows[: len(tensor)] = tensor
    return rows


@dataclass(frozen=True)
class AdditiveFit:
    """A fitted regression.

    Attributes:
        scores: for each point one a candidate, the higher the better, in standard deviations of the loss; 0 is the mean.
        pairs: that it was fitted to.
        r2: share of the standardised losses' variance, beside the trend, that the choices explain.
        penalty: lambda.
        rank_correlation: Spearman's, of the losses with what fits without them predict; None where either is constant.
    """

    scores: list[list[float]]
    pairs: int
    r2: float
    penalty: float
    rank_correlation: float | None


def fit_scores(sizes: Sequence[int], drawn: DrawnPaths) -> AdditiveFit | None:
    """Fit the regression.

    Args:
        sizes: candidates of each point.
        drawn: paths and losses.

    Returns:
        The fit; None where there are fewer than two pairs, or nothing tells their losses apart.

    Raises:
        NonFiniteError: a loss is NaN or infinite.
    """
    if drawn.count < 2:
        return None
    choices, losses, trend = drawn.choices, drawn.losses, _trend(drawn.progress)
    if not np.isfinite(losses).all():
        raise NonFiniteError("the losses of the search's paths hold NaN or infinity")
    x, y = _one_hot(sizes, choices), standardised(losses, trend)
    penalty, theta, r2 = _fit(x, y, trend)
    if penalty is None:
        return None
    fold = np.arange(drawn.count) % FOLDS
    rest, predicted = np.zeros(drawn.count), np.zeros(drawn.count)
    for held in range(min(FOLDS, drawn.count)):
        train, test = fold != held, fold == held
        coefficients = _ridge(_without(x[train], trend[train]), _without(y[train], trend[train]), penalty)
        predicted[test] = x[test] @ coefficients
        rest[test] = y[test]
    correlation = float(spearmanr(predicted, rest).statistic) if np.ptp(predicted) and np.ptp(rest) else None
    starts = np.cumsum([0, *sizes])
    scores = [(-theta[start:end]).tolist() for start, end in pairwise(starts)]
    return AdditiveFit(scores, drawn.count, r2, penalty, correlation)


def standardised(losses: np.ndarray, trend: np.ndarray) -> np.ndarray:
    """Losses ``[pairs]`` without their mean and over their spread, both smooth in time, within ``OUTLIER``; 0 where constant."""
    rest = _without(losses, trend)
    if np.allclose(rest, 0.0, atol=1e-12 * (np.abs(losses).max() or 1.0)):
        return np.zeros_like(losses)
    variance = rest**2 - _without(rest**2, trend)
    spread = np.sqrt(np.maximum(variance, SPREAD_MIN**2 * (rest**2).mean()))
    return np.clip(rest / spread, -OUTLIER, OUTLIER)


def _trend(progress: np.ndarray) -> np.ndarray:
    """Piecewise linear functions ``[pairs, knots]`` that sum to 1, with knots at equal shares of the pairs."""
    count = max(1, min(KNOTS, len(progress) // PAIRS_A_KNOT))
    knots = np.unique(np.quantile(progress, np.linspace(0.0, 1.0, count + 1)))
    return np.stack([np.interp(progress, knots, row) for row in np.eye(len(knots))], 1)


def _one_hot(sizes: Sequence[int], choices: np.ndarray) -> np.ndarray:
    return np.concatenate([np.eye(size)[choices[:, point]] for point, size in enumerate(sizes)], 1)


def _without(values: np.ndarray, trend: np.ndarray) -> np.ndarray:
    """The part of values ``[pairs]`` or ``[pairs, columns]`` that least squares on the trend leaves."""
    return values - trend @ np.linalg.lstsq(trend, values, rcond=None)[0]


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def _fit(x: np.ndarray, y: np.ndarray, trend: np.ndarray) -> tuple[float | None, np.ndarray, float]:
    """Penalty, coefficients and share of the variance that they explain; no penalty where the losses are constant."""
    x, y = _without(x, trend), _without(y, trend)
    total = float(y @ y)
    if total < 1e-9 * len(y):
        return None, np.zeros(x.shape[1]), 0.0
    squares, vectors = np.linalg.eigh(x.T @ x)
    squares, along, errors = squares.clip(0.0), vectors.T @ (x.T @ y), []
    for penalty in PENALTIES:
        shrunk = 1.0 / (squares + penalty)
        rest = total - float((along**2 * (2.0 * shrunk - squares * shrunk**2)).sum())
        freedom = trend.shape[1] + float((squares * shrunk).sum())
        errors.append(rest / max(1e-9, 1.0 - freedom / len(y)) ** 2)
    penalty = float(PENALTIES[int(np.argmin(errors))])
    theta = _ridge(x, y, penalty)
    return penalty, theta, 1.0 - float(((y - x @ theta) ** 2).sum()) / total
