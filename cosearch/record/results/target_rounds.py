"""``rounds.json``: the architectures that were measured on the device until one kept the targets, round by round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cosearch.record.json_record import OMITTED

BEFORE, AFTER = "before", "after"  # the retraining


@dataclass(frozen=True, kw_only=True)
class TargetFigure:
    """One target and what an architecture measured of it.

    Attributes:
        metric: ``latency_s``, ``energy_j``, ``file_bytes`` or ``memory_bytes``.
        target: the bound, in the metric's unit.
        bound: on the prediction, under which the architecture was derived.
        predicted: of the architecture; None where the table knows nothing of such a figure.
        measured: of it, the median over visits of the device.
        low, high: 95 % interval of the measured figure; equal to it where it is exact.
        visits: of the device.
        verdict: ``under``, ``over``, or ``unclear``: the interval holds the target after the last visit.
        statistic, at: of a latency: ``median`` or ``p99``, ``back-to-back`` or ``period``.
    """

    metric: str
    target: float
    bound: float
    predicted: float | None
    measured: float
    low: float
    high: float
    visits: int
    verdict: str
    statistic: str = field(default="median", metadata=OMITTED)
    at: str = field(default="back-to-back", metadata=OMITTED)

    @property
    def slack(self) -> float:
        """Share of the target that is left unused; negative where the figure is over it."""
        return 1.0 - self.measured / self.target


@dataclass(frozen=True, kw_only=True)
class TargetRound:
    """One architecture on the device.

    Attributes:
        choices: one candidate's index for each choice point.
        choice_names: their names.
        why: how it came to be measured, in words.
        retraining: ``before`` or ``after`` its retraining.
        measured_on: name of the device.
        score: sum of the search's scores of the choices.
        figures: one a target.
        load: jobs a minute of the measuring host before, where it is this machine.
    """

    choices: tuple[int, ...]
    choice_names: tuple[str, ...]
    why: str
    retraining: str
    measured_on: str
    score: float
    figures: tuple[TargetFigure, ...]
    load: float | None = None

    @property
    def holds(self) -> bool:
        """Whether every target is kept, by the whole interval of each figure."""
        return all(figure.verdict == "under" for figure in self.figures)

    @property
    def slack(self) -> float:
        """What the tightest target leaves unused, by the upper end of the interval."""
        return min(1.0 - figure.high / figure.target for figure in self.figures)


@dataclass(frozen=True, kw_only=True)
class TargetRounds:
    """All rounds of a run.

    Attributes:
        budget: most rounds on one device.
        rounds: in order, of all devices.
        outcome: ``holds``; ``nothing can``: the cheapest one was measured over; ``none left``: none was shown to hold, and none
            is left to try, though the cheapest one is not clearly over; ``rounds used up``; ``over``: the agent does not hold
            and was kept, though rounds were left or another one held; empty while under way.
        deployed: index of the round whose architecture is the agent; None while under way.
    """

    FILE: ClassVar[str] = "rounds.json"

    budget: int
    rounds: tuple[TargetRound, ...] = ()
    outcome: str = ""
    deployed: int | None = None
