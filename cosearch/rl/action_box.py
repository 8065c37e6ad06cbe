"""Bounds of continuous actions, and how a policy's actions become the environment's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latency_tables.errors import ShapeError

REACHED = (0.1, 10.0)  # the farther bound of a box around 0 that a standard normal reaches and does not always overshoot
FAR = 1e6  # a bound beyond is none


@dataclass(frozen=True)
class Box:
    """Bounds of continuous actions, one entry for each component of the action vector; infinite where there is none.

    A policy begins as a Gaussian around 0 with standard deviation 1. Where that reaches the bounds, or there are none, its
    actions are the environment's, clipped. Where it does not (``[50, 100]``, ``[-0.01, 0.01]``), -1 and 1 stand for the bounds.

    Raises:
        ShapeError: bounds of two lengths or without room between them, or a single bound that a policy around 0 does not reach.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low or not all(a < b for a, b in zip(self.low, self.high)):
            raise ShapeError(
                f"the bounds of actions need low < high for each of at least one component, got {self.low} and {self.high}"
            )

        for i, (low, high) in enumerate(zip(self.low, self.high)):
            if not low <= 0 <= high and max(abs(low), abs(high)) > FAR:
                raise ShapeError(
                    f"component {i} of the actions has the bounds {low:g} and {high:g}: a policy around 0 does not reach them, "
                    "and one bound alone cannot be scaled. Register the environment with a wrapper (gymnasium's TransformAction)"
                )

    @property
    def scaling(self) -> tuple[tuple[float, float], ...]:
        """For each component its factor and offset; the environment's action is ``factor * action + offset``, clipped."""
        return tuple(_scaling(low, high) for low, high in zip(self.low, self.high))

    @property
    def is_scaled(self) -> bool:
        """Whether the action of any component is scaled."""
        return any(pair != (1.0, 0.0) for pair in self.scaling)

    @property
    def is_finite(self) -> bool:
        """Whether every component has two bounds."""
        return all(max(abs(low), abs(high)) <= FAR for low, high in zip(self.low, self.high))

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """For each component half of its range and the middle, as a policy gives its actions: what -1 and 1 of an agent of
        bounded actions stand for. Only where all bounds are finite."""
        pairs = zip(self.low, self.high, self.scaling)
        return tuple(((high - low) / 2 / scale, ((high + low) / 2 - shift) / scale) for low, high, (scale, shift) in pairs)

    @property
    def within(self) -> tuple[np.ndarray, np.ndarray]:
        """The outermost float32 numbers within the bounds, ``[size]`` each: what actions, which are float32, are clipped to.

        Where there is none between two bounds, the nearest to each.
        """
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        with np.errstate(over="ignore"):  # a bound beyond float32 is infinite, then the farthest number
            least, most = low.astype(np.float32), high.astype(np.float32)
            lower = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
            upper = np.where(most > high, np.nextafter(most, np.float32(-np.inf)), most)
        return np.where(lower <= upper, lower, least), np.where(lower <= upper, upper, most)

    def from_policy(self, actions: np.ndarray) -> np.ndarray:
        """A policy's actions ``[num_envs, size]`` -> the environment's, scaled where that is needed and clipped, float32."""
        if self.is_scaled:
            scale, shift = np.array(self.scaling, np.float64).T
            actions = scale * actions + shift
        return np.clip(actions, *self.within).astype(np.float32)


def _scaling(low: float, high: float) -> tuple[float, float]:
    nearest, farthest = REACHED
    widest = max(abs(low), abs(high))
    if widest > FAR or (low <= 0 <= high and nearest <= widest <= farthest):
        return 1.0, 0.0
    return (high - low) / 2, (high + low) / 2
