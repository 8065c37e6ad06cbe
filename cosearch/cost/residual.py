"""From predicted to measured figures: what a few measurements on the device say of all architectures.

measured = offset + scale * predicted. One measurement gives the scale, its residual (measured over predicted), or of a size the
offset, its difference; several that lie apart give the line of least squares. A line is raised until none of the measurements
that count lies above it, so that a bound which was read from it is not passed again for the same reason. The offset is what every
call costs more than the table says, such as cold caches after a sleep; the scale is a slower or faster moment of the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

APART = 1.05  # ratio of two predictions from which they lie apart


@dataclass(frozen=True)
class Point:
    """One architecture that was measured.

    Attributes:
        predicted: by the table, seconds, joules or bytes.
        measured: the same unit.
        counts: whether the line must not lie below it.
    """

    predicted: float
    measured: float
    counts: bool = True


@dataclass(frozen=True)
class Line:
    """Measured figures as a line of predicted ones.

    Attributes:
        offset: what every architecture measures more, in the figures' unit.
        scale: measured for predicted, above 0.
    """

    offset: float = 0.0
    scale: float = 1.0

    def measured(self, predicted: float) -> float:
        """What an architecture of this prediction is expected to measure."""
        return self.offset + self.scale * predicted

    def predicted(self, measured: float) -> float:
        """The prediction of an architecture that is expected to measure so much; below 0 where nothing does."""
        return (measured - self.offset) / self.scale


TABLE = Line()


def fit_line(points: Sequence[Point], *, shifted: bool = False) -> Line:
    """The line of the measurements so far; the prediction itself without any.

    Args:
        points: of one target.
        shifted: figures that lie close together differ from the prediction by an offset, as sizes do, and not by a factor.
    """
    if not points:
        return TABLE
    predicted = np.array([point.predicted for point in points])
    measured = np.array([point.measured for point in points])
    line = Line(float(np.median(measured - predicted)), 1.0) if shifted else Line(0.0, float(np.median(measured / predicted)))
    if predicted.max() >= APART * predicted.min():
        scale, offset = np.polyfit(predicted, measured, 1)
        if (offset >= 0 or shifted) and scale > 0:  # else the measurements' noise is larger than what tells them apart
            line = Line(float(offset), float(scale))
    above = max((point.measured - line.measured(point.predicted) for point in points if point.counts), default=0.0)
    return Line(line.offset + max(above, 0.0), line.scale)
