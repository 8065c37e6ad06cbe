"""What the agent must keep on its device: the fixed agents beside it, and the constraints that are made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal

import torch

from cosearch.config.run import ObjectiveConfig
from cosearch.cost.accel_cost import AccelCost
from cosearch.cost.constraint import Constraint, Cost
from cosearch.cost.residual import TABLE, Line, Point, fit_line
from cosearch.cost.size_cost import FILE, MEMORY, SizeCost
from cosearch.cost.table_cost import TableCost
from cosearch.deploy.measure import PERIOD_S
from cosearch.planning.device.hardware import Hardware
from cosearch.record.run_record import ReferenceRecord, TargetRecord
from cosearch.space.derivation.derive import cheapest, discretise
from cosearch.space.network import reference_agents
from cosearch.space.space import SearchSpace
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from latency_tables.errors import ConfigError, InfeasibleTargetError, MissingOpError
from latency_tables.table import Table

MEDIAN_ALONE = ", its median back to back: the table knows nothing else"
LATENCY_RATIOS = {"frames": 0.2, "vectors": 1.0}  # of the first reference agent, where objective.latency_ratio is not given


def check_gradients(strategy: StrategyInfo, space: SearchSpace, constraints: Sequence[Constraint]) -> None:
    """Raise unless the costs give gradients where the strategy learns from them.

    Args:
        strategy: the search method's record.
        space: gives the path weights.
        constraints: of the run.

    Raises:
        ConfigError: a cost whose expectation has no gradient in the path weights, or one that is not finite.
    """
    if not strategy.needs_differentiable_cost:
        return
    for constraint in constraints:
        sizes = [len(point.candidates) for point in space.points]
        weights = [torch.full((size,), 1.0 / size, requires_grad=True) for size in sizes]
        expected = constraint.cost.expected(weights)
        gradients = torch.autograd.grad(expected, weights, allow_unused=True) if expected.requires_grad else [None]
        if not any(gradient is not None for gradient in gradients) or not all(
            gradient is None or torch.isfinite(gradient).all() for gradient in gradients
        ):
            others = ", ".join(info.name for info in STRATEGIES.entries() if not info.needs_differentiable_cost)
            raise ConfigError(
                f"strategy {strategy.name!r} learns from the gradient of the cost, and this {constraint.metric} "
                f"({type(constraint.cost).__name__}) gives none: choose a strategy that needs none: {others}"
            )


def references_on(hardware: Hardware, space: SearchSpace) -> dict[str, ReferenceRecord]:
    """What each fixed agent of the task is predicted to take, by name; on an accelerator a design is searched for each.

    An agent with a block that the table lacks is left out.

    Args:
        hardware: of the run.
        space: gives observations and actions.

    Raises:
        DesignError: no design holds an agent.
    """
    references = {}
    for number, (name, ops) in enumerate(reference_agents(space.frame_shape, space.num_actions, space.parts).items()):
        if isinstance(hardware, Table) and hardware.coverage(ops) < 1:
            continue
        prediction = hardware.predict(ops) if isinstance(hardware, Table) else hardware.reference(ops, number)
        references[name] = ReferenceRecord(
            latency_predicted_s=prediction.latency_s, params=sum(op.params for op in ops), macs=sum(op.macs for op in ops)
        )
    return references


def make_constraints(
    objective: ObjectiveConfig, hardware: Hardware, space: SearchSpace, references: Mapping[str, ReferenceRecord]
) -> tuple[Constraint, ...]:
    """The constraints of a run, the latency's first.

    Args:
        objective: the targets that are asked for.
        hardware: what blocks cost on.
        space: the search space.
        references: the fixed agents that the hardware can cost; a latency target is a share of the task's first one where none
            is given in seconds.

    Raises:
        MissingOpError: the table lacks a block of the space, or of that agent where the target is a share of it.
        RequestError: the device has no energies, or a target is out of range.
    """

    def cost(metric: str) -> Cost:
        return TableCost(space, hardware, metric) if isinstance(hardware, Table) else AccelCost(hardware, metric)

    known = latency_line(hardware, objective.target_statistic, objective.target_at)
    line = known or TABLE
    latency_s = objective.latency_target_s
    if latency_s is None:
        latency_s = latency_ratio(objective, space) * line.measured(_share_of(references, hardware, space))
    constraints = [Constraint(cost("latency_s"), latency_s, objective.margin, line, known is not None)]
    if objective.energy_target_j is not None:
        constraints.append(Constraint(cost("energy_j"), objective.energy_target_j, objective.margin))
    for metric, most_bytes in ((FILE, objective.file_target_bytes), (MEMORY, objective.memory_target_bytes)):
        if most_bytes is not None and isinstance(hardware, Table):
            constraints.append(Constraint(SizeCost(space, hardware, metric), float(most_bytes), objective.margin))
    return tuple(constraints)


def latency_line(hardware: Hardware, statistic: str, at: str) -> Line | None:
    """A latency as a line of the predicted one, of the networks in the table's certificate.

    Args:
        hardware: of the run.
        statistic, at: ``median`` or ``p99``, ``back-to-back`` or ``period``.

    Returns:
        The table's own for the median back to back; None where nobody measured the others, so that they are not known.
    """
    if not isinstance(hardware, Table) or (statistic, at) == ("median", "back-to-back"):
        return TABLE
    measured = hardware.certificate.residuals(statistic, PERIOD_S if at == "period" else None) if hardware.certificate else ()
    return fit_line([Point(predicted, time, counts=False) for predicted, time in measured]) if measured else None


def _share_of(references: Mapping[str, ReferenceRecord], hardware: Hardware, space: SearchSpace) -> float:
    """Seconds of the task's first fixed agent."""
    name, ops = next(iter(reference_agents(space.frame_shape, space.num_actions, space.parts).items()))
    if name not in references and isinstance(hardware, Table):
        try:
            hardware.predict(ops)  # raises: it names the blocks and the command that measures them
        except MissingOpError as error:
            raise MissingOpError(
                f"without a latency target in seconds it is a share of {name}, which this table cannot cost: {error}. "
                "Or give a target: --latency-target-ms MS"
            ) from error
    return references[name].latency_predicted_s


def check_reachable(space: SearchSpace, constraints: Sequence[Constraint], objective: ObjectiveConfig) -> None:
    """Raise unless some architecture meets all constraints.

    Args:
        space: the search space.
        constraints: of the run.
        objective: how its targets were asked for, so that the advice is in the same words.

    Raises:
        InfeasibleTargetError: none does; names the cheapest, and what to type.
    """
    for constraint in constraints:
        limit = constraint.limit
        found = cheapest(space, limit)
        if limit.meets(found.choices):
            continue
        least = constraint.line.measured(limit.total(found.choices))
        ask = _to_ask(space, constraint, least / (1.0 - constraint.margin), objective)
        takes = _figure(constraint.metric, least) + ("" if constraint.known else MEDIAN_ALONE)
        raise InfeasibleTargetError(
            f"no architecture of space {space.name!r} meets the target of {_asked(space, constraint, objective)}: the cheapest, "
            f"{'/'.join(found.choice_names)}, is expected to take {takes}. Ask for {ask}, or for a smaller space",
            least,
            constraint.metric,
        )
    limits = [constraint.limit for constraint in constraints]
    try:
        discretise(space, [[0.0] * len(point.candidates) for point in space.points], *limits)
    except InfeasibleTargetError as error:
        if len(constraints) == 1:
            raise
        asked = "; ".join(_asked(space, each, objective) for each in constraints)
        raise InfeasibleTargetError(
            f"each of the {len(constraints)} targets ({asked}) is met by some "
            f"architecture of space {space.name!r}, but none was found that meets them together: ask for more of one of them, "
            f"{' or '.join(_option(each.metric, objective) for each in constraints)}"
        ) from error


def _figure(metric: str, value: float) -> str:
    """A figure in the unit that its target is typed in."""
    if metric == "latency_s":
        return f"{value * 1e3:.4g} ms"
    return f"{value:.4g} J" if metric == "energy_j" else f"{value:.0f} bytes"


def _asked(space: SearchSpace, constraint: Constraint, objective: ObjectiveConfig) -> str:
    """A target as it was asked for, and what it is on."""
    target = TargetRecord(metric=constraint.metric, value=constraint.value, margin=constraint.margin)
    figure = _figure(constraint.metric, constraint.value)
    if constraint.metric == "latency_s":
        target = replace(target, statistic=objective.target_statistic, at=objective.target_at)
        if objective.latency_target_s is None:
            figure += f" (objective.latency_ratio={latency_ratio(objective, space):g})"
    margin = f", less objective.margin={constraint.margin:g}" if constraint.margin else ""
    return f"{figure} of {target.text}{margin}"


def _option(metric: str, objective: ObjectiveConfig) -> str:
    """The option that a target of the run is asked for with."""
    if metric == "latency_s":
        return "objective.latency_ratio" if objective.latency_target_s is None else "--latency-target-ms"
    return f"objective.{metric.replace('_', '_target_')}"


def rounded_up(value: float) -> Decimal:
    """A bound that a user can type: the smallest number of four significant digits that is not below ``value``."""
    exact = Decimal(value)
    return exact.quantize(Decimal(1).scaleb(exact.adjusted() - 3), ROUND_CEILING)


def _to_ask(space: SearchSpace, constraint: Constraint, least: float, objective: ObjectiveConfig) -> str:
    """The smallest target that can be met, as the option that was used takes it: ``least`` in seconds, joules or bytes."""
    option = _option(constraint.metric, objective)
    if constraint.metric == "energy_j":
        return f"{option}={rounded_up(least):e} or more"
    if constraint.metric in (FILE, MEMORY):
        return f"{option}={math.ceil(least)} or more"
    if objective.latency_target_s is not None:
        return f"{rounded_up(least * 1e3):f} ms or more, {option} {rounded_up(least * 1e3):f}"
    share = least / constraint.value * latency_ratio(objective, space)
    return f"{option}={rounded_up(share):f} or more"


def latency_ratio(objective: ObjectiveConfig, space: SearchSpace) -> float:
    """The share of the task's first fixed agent that a latency target is where none is given in seconds."""
    return objective.latency_ratio or LATENCY_RATIOS["vectors" if space.stem.kind == "linear" else "frames"]
