"""What is known of each target at the end of a run: measured, or predicted with the probability that it holds."""

from __future__ import annotations

from collections.abc import Mapping

from cosearch.cost.constraint import Constraint
from cosearch.cost.size_cost import FILE
from cosearch.deploy.measure import PERIOD_S, AgentLatency
from cosearch.planning.plan import Plan
from cosearch.record.results.agent import latency_figure
from cosearch.record.results.summary import TargetCheck
from cosearch.record.results.target_rounds import TargetRound
from cosearch.record.run_record import TargetRecord
from cosearch.space.derivation.derive import within
from cosearch.space.space import Architecture
from latency_tables.certificate import chance_within
from latency_tables.table import Table


def measured_figures(
    plan: Plan, file_bytes: int, agent: AgentLatency | None, last: TargetRound | None = None
) -> dict[str, float]:
    """What was measured of an agent's targets on the run's own device.

    Args:
        plan: the resolved run.
        file_bytes: size of the file that is deployed, in bytes; the same on any device.
        agent: timed on this machine; None where nobody timed it. It counts where this machine is the device.
        last: round of the agent; None without rounds.

    Returns:
        Seconds, joules or bytes by metric; a metric that was not measured is not there.
    """
    found, device = {FILE: float(file_bytes)}, plan.hardware.device
    if agent is not None and device.name == "this" and agent.measured.identity == device.identity:
        latency = plan.targets[0]
        figure = latency_figure(agent.measured, agent.paced, latency.statistic, latency.at)
        found |= {} if figure is None else {latency.metric: figure}
    return found if last is None else found | {figure.metric: figure.measured for figure in last.figures}


def checked_targets(plan: Plan, architecture: Architecture, measured: Mapping[str, float]) -> tuple[TargetCheck, ...]:
    """Each target of a run.

    Args:
        plan: the resolved run.
        architecture: of the agent.
        measured: see :func:`measured_figures`; what is not there is predicted, and not known where the table cannot.
    """
    found = []
    for target, constraint in zip(plan.targets, plan.constraints):
        predicted, figure = constraint.expected(architecture), measured.get(target.metric)
        ratios = () if figure is not None or predicted is None else _ratios(plan, target, constraint)
        decides = predicted if figure is None else figure
        found.append(
            TargetCheck(
                metric=target.metric,
                statistic=target.statistic,
                at=target.at,
                target=target.value,
                predicted=predicted,
                measured=figure,
                met=None if decides is None else within(decides, target.value),
                probability=None if predicted is None else chance_within(ratios, target.value / predicted),
                residuals=len(ratios),
            )
        )
    return tuple(found)


def _ratios(plan: Plan, target: TargetRecord, constraint: Constraint) -> tuple[float, ...]:
    """Measured by predicted figures of the certificate's networks."""
    certificate = plan.hardware.certificate if isinstance(plan.hardware, Table) else None
    if certificate is None or target.metric != "latency_s":
        return ()
    known = certificate.residuals(target.statistic, PERIOD_S if target.at == "period" else None)
    return tuple(measured / constraint.line.measured(predicted) for predicted, measured in known)
