"""An agent beside the policy that it was made from: return counted from actions at random, latency in the same runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cosearch.deploy.measure import AgentLatency, SideBySide
from cosearch.pipeline.agent.artifact import POLICY
from cosearch.planning.plan import Plan
from cosearch.record.results.summary import Interval, PolicyComparison
from cosearch.record.run_record import ReferenceRecord
from cosearch.rl.evaluate import Score
from cosearch.rl.foreign.understood import Understood
from cosearch.statistics import RESAMPLES, percentile_interval
from latency_tables.opspec import Device

MEASUREMENT = "measurement"


def share_of(agent: Score, policy: Score, by_chance: Score) -> tuple[float | None, Interval | None]:
    """The agent's share of what the policy has above actions at random, and its 95 % bootstrap interval over episodes.

    Args:
        agent, policy, by_chance: episodes of the three on the same task.

    Returns:
        None, None where the policy is no better than random.
    """
    if policy.mean <= by_chance.mean:
        return None, None
    draws = np.random.default_rng(0)
    means = []
    for score in (agent, policy, by_chance):
        returns = np.asarray(score.values)
        means.append(returns[draws.integers(len(returns), size=(RESAMPLES, len(returns)))].mean(1))
    above = means[1] - means[2]
    share = (agent.mean - by_chance.mean) / (policy.mean - by_chance.mean)
    if (above <= 0).any():
        return share, None
    return share, percentile_interval((means[0] - means[2]) / above, [len(s.values) for s in (agent, policy, by_chance)])


def policy_latency(
    device: Device, references: Mapping[str, ReferenceRecord], timed: Mapping[str, AgentLatency]
) -> tuple[float | None, str]:
    """Latency of the policy on the target device in seconds, and where it is from.

    Timed on that device it is what was measured. Elsewhere its ratio to the first reference agent, both timed in turns on this
    machine, is taken times the prediction of that agent for the device.

    Args:
        device: the target.
        references: what each fixed agent is predicted to take there, by name.
        timed: policy and fixed agents, by name.

    Returns:
        None and an empty text where nobody timed it.
    """
    if POLICY not in timed:
        return None, ""
    measured = timed[POLICY].measured
    if device.name == "this" and measured.identity == device.identity:
        return measured.p50_s, MEASUREMENT
    name = next((name for name in references if name in timed), None)
    if name is None:
        return None, ""
    ratio = measured.p50_s / timed[name].measured.p50_s
    return ratio * references[name].latency_predicted_s, f"{ratio:.3g} of the {name}'s, measured on this machine"


def compare_with_policy(
    plan: Plan, known: Understood, agent: Score, policy: Score, by_chance: Score, timed: SideBySide | None
) -> tuple[float | None, PolicyComparison]:
    """The agent beside its policy.

    Args:
        plan: the resolved run.
        known: what was understood of the policy's file.
        agent, policy, by_chance: returns of the agent, of the policy and of actions at random.
        timed: what was timed in turns; None where nothing could be.

    Returns:
        The policy's latency on the target device in seconds, None where nobody timed it; and the comparison.
    """
    agents = {} if timed is None else timed.agents
    latency_s, source = policy_latency(plan.hardware.device, plan.references, agents)
    ratio = None if timed is None else timed.ratios.get(POLICY)
    share, share_ci95 = share_of(agent, policy, by_chance)
    return latency_s, PolicyComparison(
        origin=known.origin,
        acting=known.acting,
        score_ci95=policy.ci95,
        random_score_mean=by_chance.mean,
        score_share=share,
        score_share_ci95=share_ci95,
        latency_from=source,
        latency_measured_s=agents[POLICY].measured.p50_s if POLICY in agents else None,
        latency_ratio=None if ratio is None else 1.0 / ratio.p50,
        latency_ratio_range=None if ratio is None else (1.0 / ratio.high, 1.0 / ratio.low),
    )
