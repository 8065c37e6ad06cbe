"""Which architecture is measured next on the device, from those that were measured: tighter after one over, looser after slack.

The saved scores of the search and the exact derivation give each architecture; what changes is the bound on the predicted cost,
which follows from the residuals of all rounds there (``cosearch.cost.residual``). None is measured twice before its retraining.
Where the tightened bound is below every architecture the cheapest one is measured: if that is over, nothing can keep the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import pvariance

from cosearch.cost.constraint import Constraint
from cosearch.cost.residual import Line, Point, fit_line
from cosearch.cost.size_cost import FILE, MEMORY
from cosearch.deploy.readings import OVER, UNDER, Reading
from cosearch.planning.control import LARGEST
from cosearch.planning.plan import Plan
from cosearch.record.results.architecture import Derivation
from cosearch.record.results.target_rounds import AFTER, TargetFigure, TargetRound, TargetRounds
from cosearch.record.run_record import TargetRecord
from cosearch.space.derivation.derive import Limit, cheapest, discretise, within
from cosearch.space.derivation.largest import mean_macs
from cosearch.space.factors import Factor
from cosearch.space.space import Architecture
from latency_tables.errors import InfeasibleTargetError, MeasurementError
from latency_tables.opspec import OpSpec

SLACK = 0.08  # of the target: more than this unused, and a larger network is tried
AIM = 0.02  # of the target: kept free by a bound that follows from measurements, for architectures scatter about their line
ReadingOf = Callable[[TargetRecord], Reading | None]
HOLDS, NOTHING_CAN, USED_UP = "holds", "nothing can", "rounds used up"
NONE_LEFT = "none left"  # to try, and the cheapest one is not clearly over
KEPT_OVER = "over"  # measured again without looking for another


@dataclass(frozen=True)
class Scores:
    """What an architecture is chosen by.

    Attributes:
        rows: for each point one score a candidate.
        joint: scores of several points together.
        tie: difference of two architectures' scores up to which they say nothing; then the larger network is taken.
    """

    rows: Sequence[Sequence[float]]
    joint: tuple[Factor, ...] = ()
    tie: float = 0.0

    def of(self, choices: Sequence[int]) -> float:
        """Sum over an architecture's choices."""
        return sum(row[c] for row, c in zip(self.rows, choices)) + sum(factor.at(choices) for factor in self.joint)


def saved_scores(plan: Plan, derived_by: Derivation, found: Sequence[int]) -> Scores:
    """The scores of a search, as ``architecture.json`` keeps them.

    Args:
        plan: the resolved run.
        derived_by: how the architecture was chosen.
        found: its choices.

    A regression tells architectures apart as far as it ranks losses that it was not fitted to: with a rank correlation r its
    error is sqrt(1 - r^2) / r of the spread of its scores, and without any it tells nothing. A proposal strategy scores no
    candidates: there the architecture with the most of the found choices is next, of equal ones the one with more
    multiply-accumulates. ``largest`` goes by size: there the next largest architecture is next.
    """
    if plan.strategy.name == LARGEST:
        value = _size(str(plan.config.strategy.values.get("by", "macs")), plan.space.architecture(found))
        return Scores(plan.space.rows(value), plan.space.factors(value))
    if derived_by.scored_by == "regression" and derived_by.regression is not None:
        rows, known = derived_by.regression.scores, max(0.0, derived_by.regression.rank_correlation or 0.0)
        spread = math.sqrt(sum(pvariance(row) for row in rows))  # of the architectures' scores
        return Scores(rows, tie=spread * math.sqrt(1.0 - known**2) / known if known > 0.0 else math.inf)
    if derived_by.scores is not None:
        return Scores(derived_by.scores)
    macs = mean_macs(plan.space)
    most = max((value for row in macs for value in row), default=0.0) * max(len(macs), 1) or 1.0
    return Scores([[float(c == best) + value / most for c, value in enumerate(row)] for row, best in zip(macs, found)])


def _size(by: str, found: Architecture) -> Callable[[OpSpec], float]:
    """What a block adds to the size that ``largest`` goes by; of the product of both its share of each, near ``found``."""
    if by == "macs":
        return lambda op: op.macs
    if by == "weights":
        return lambda op: op.params
    macs, weights = sum(op.macs for op in found.ops()) or 1, sum(op.params for op in found.ops()) or 1
    return lambda op: op.macs / macs + op.params / weights


class Tries:
    """The rounds of one run on one device.

    Args:
        plan: the resolved run.
        scores: see :func:`saved_scores`.
        first: what the search derived.
        rounds: so far, on any device.
        measured: indices of the constraints that the device measures.
        device: its name.
    """

    def __init__(
        self, plan: Plan, scores: Scores, first: Architecture, rounds: TargetRounds, measured: Sequence[int], device: str
    ) -> None:
        self.plan, self.scores, self.first, self.rounds, self.measured = plan, scores, first, rounds, tuple(measured)
        self.device = device
        self.why = "derived by the search"

    @property
    def here(self) -> dict[int, TargetRound]:
        """Rounds on the device that have a figure of each measured target, by their index among all rounds."""
        wanted = {self.plan.targets[index].metric for index in self.measured}
        return {
            index: each
            for index, each in enumerate(self.rounds.rounds)
            if each.measured_on == self.device and wanted <= {figure.metric for figure in each.figures}
        }

    @property
    def left(self) -> int:
        """Rounds that the budget still has on the device."""
        return self.rounds.budget - len(self.here)

    def constraints(self) -> tuple[Constraint, ...]:
        """The run's constraints, each measured one with the line that its measurements give."""
        found = list(self.plan.constraints)
        for index in self.measured:
            planned = found[index]
            points = [
                Point(planned.line.measured(self._cost(planned, each)), figure.high, counts=figure.verdict != UNDER)
                for each in self.here.values()
                for figure in each.figures
                if figure.metric == planned.metric
            ]
            if points:
                fitted = fit_line(points, shifted=planned.metric in (FILE, MEMORY))
                line = Line(fitted.measured(planned.line.offset), fitted.scale * planned.line.scale)
                found[index] = replace(planned, line=line, margin=max(planned.margin, AIM))
        return tuple(found)

    def add(self, architecture: Architecture, reading_of: ReadingOf, retraining: str, load: float | None = None) -> TargetRound:
        """Keep what an architecture measured.

        Args:
            architecture: that was measured.
            reading_of: its figure of a target; None where that was not measured.
            retraining: ``before`` its retraining the whole interval decides, ``after`` it the figure.
            load: jobs a minute of this machine; None of another.

        Raises:
            MeasurementError: the device did not measure one of the targets, so it is not known whether the architecture holds.
        """
        chosen = tuple(architecture.choices)
        if retraining == AFTER:  # a finish that is done again
            again = (AFTER, chosen, self.device)
            kept = tuple(each for each in self.rounds.rounds if (each.retraining, each.choices, each.measured_on) != again)
            self.rounds = replace(self.rounds, rounds=kept)
        figures, bounds = [], self.constraints()
        for index in self.measured:
            target, planned = self.plan.targets[index], self.plan.constraints[index]
            reading = reading_of(target)
            if reading is None:
                raise MeasurementError(
                    f"{self.device} gave no figure of {target.metric}, which a target of this run is on: measure it there again, "
                    "or begin a run without that target"
                )
            low, high = reading.interval
            verdict = reading.verdict(target.value)
            if retraining == AFTER:
                verdict = UNDER if within(reading.value, target.value) else OVER
            figures.append(
                TargetFigure(
                    metric=target.metric,
                    statistic=target.statistic,
                    at=target.at,
                    target=target.value,
                    bound=bounds[index].bound,
                    predicted=planned.expected(architecture),
                    measured=reading.value,
                    low=low,
                    high=high,
                    visits=len(reading.values),
                    verdict=verdict,
                )
            )
        made = TargetRound(
            choices=chosen,
            choice_names=tuple(architecture.choice_names),
            why=self.why,
            retraining=retraining,
            measured_on=self.device,
            score=self.scores.of(architecture.choices),
            figures=tuple(figures),
            load=load,
        )
        self.rounds = replace(self.rounds, rounds=(*self.rounds.rounds, made))
        return made

    def best(self) -> int | None:
        """Index of the round with the highest score among architectures that held at last; None where none did.

        Of those that the scores cannot tell from it, the largest network.
        """
        rounds = self.here
        newest = {each.choices: index for index, each in rounds.items()}
        held = [index for index in newest.values() if rounds[index].holds]
        top = max((rounds[index].score for index in held), default=0.0)
        tied = [index for index in held if rounds[index].score >= top - self.scores.tie]
        return max(tied, key=lambda index: (self._macs(rounds[index].choices), rounds[index].score), default=None)

    def nearest(self) -> int:
        """Index of the round that is least over its targets."""
        rounds = self.here
        return min(rounds, key=lambda index: -min(1 - f.measured / f.target for f in rounds[index].figures))

    def next(self) -> Architecture | None:
        """What is measured next; None where the rounds have an outcome, see :meth:`end`."""
        if not self.here:
            return self.first
        if self.left <= 0:
            return None
        best = self.best()
        if best is None:
            return self._smaller()
        held = self.rounds.rounds[best]
        if held.slack <= max(SLACK, self.plan.constraints[self.measured[0]].margin):
            return None
        larger = self._larger(held)
        self.why = f"{held.slack:.0%} of the target were unused: the bound is loosened by the residuals"
        return larger

    def end(self) -> TargetRounds:
        """The rounds with their outcome and the architecture that is the agent."""
        best = self.best()
        if best is not None:
            return replace(self.rounds, outcome=HOLDS, deployed=best)
        outcome = USED_UP
        if self._cheapest_is_over():
            outcome = NOTHING_CAN
        elif self.left > 0 and self._smaller() is None:
            outcome = NONE_LEFT
        return replace(self.rounds, outcome=outcome, deployed=self.nearest())

    def _smaller(self) -> Architecture | None:
        verdicts = {figure.verdict for figure in list(self.here.values())[-1].figures}
        before = "was over" if OVER in verdicts else "was too close to tell"
        self.why = f"the one before {before}: the bound is tightened by the residuals"
        found = self._derived()
        if found is not None:
            return found
        found = self._cheapest(self._worst())
        if any(each.choices == tuple(found.choices) for each in self.here.values()):
            return None
        self.why = "no architecture is expected within the targets: the cheapest one"
        return found

    def _larger(self, held: TargetRound) -> Architecture | None:
        """Of a higher score within the loosened bound; else as good as that as far as the scores can tell, and larger."""
        top = max(each.score for each in self.here.values() if each.holds)
        found = self._derived()
        if found is not None and self.scores.of(found.choices) > top:
            return found
        found = self._derived(self._used_by(held))
        if found is None or self._macs(found.choices) <= self._macs(held.choices):
            return None
        return found if self.scores.of(found.choices) >= top - self.scores.tie else None

    def _used_by(self, held: TargetRound) -> Limit:
        """What an architecture must be predicted at least, to use the tightest of the targets up to ``SLACK``."""
        figure = max(held.figures, key=lambda each: each.high / each.target)
        bound = next(each for each in self.constraints() if each.metric == figure.metric)
        limit, least = bound.limit, bound.line.predicted((1.0 - SLACK) * bound.value)
        costs = [[-cost for cost in row] for row in limit.costs]
        return Limit(costs, -limit.base, -least, tuple(factor.scaled(-1.0) for factor in limit.factors))

    def _cost(self, constraint: Constraint, measured: TargetRound) -> float:
        return constraint.cost.exact(self.plan.space.architecture(measured.choices))

    def _macs(self, choices: Sequence[int]) -> int:
        return sum(op.macs for op in self.plan.space.architecture(choices).ops())

    def _derived(self, *further: Limit) -> Architecture | None:
        tried = [self.plan.space.architecture(choices) for choices in dict.fromkeys(each.choices for each in self.here.values())]
        limits = [*(constraint.limit for constraint in self.constraints()), *further]
        try:
            return discretise(self.plan.space, self.scores.rows, *limits, joint=self.scores.joint, without=tried)
        except InfeasibleTargetError:
            return None

    def _worst(self) -> str:
        """Metric of the target that the last round was over by most."""
        return max(list(self.here.values())[-1].figures, key=lambda figure: figure.high / figure.target).metric

    def _cheapest(self, metric: str) -> Architecture:
        return cheapest(self.plan.space, next(each for each in self.plan.constraints if each.metric == metric).limit)

    def _cheapest_is_over(self) -> bool:
        return any(
            figure.verdict == OVER and each.choices == tuple(self._cheapest(figure.metric).choices)
            for each in self.here.values()
            for figure in each.figures
        )
