"""What a search tells its strategy of each candidate: predicted costs, the best for an agent, too many failures, all records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cosearch.config.run import Config
from cosearch.cost.size_cost import MEMORY, SizeCost
from cosearch.pipeline.search.candidate_records import Item, Told, inheritance_of, worth
from cosearch.pipeline.search.co_design import progress_of
from cosearch.pipeline.session import RunLog
from cosearch.planning.plan import Plan
from cosearch.record.results.architecture import CandidateRecord
from cosearch.space.space import Architecture
from cosearch.strategies.base import ProposalStrategy, TargetsInTurn
from latency_tables.errors import ConfigError, RunFailedError
from latency_tables.table import Table

FAILED_MAX = 0.5  # share of the candidates that may fail before the search does


class PredictedCosts:
    """What an architecture is predicted to take beside its latency.

    Args:
        plan: the resolved run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._hardware = plan, plan.hardware
        self._memory = SizeCost(plan.space, plan.hardware, MEMORY) if isinstance(plan.hardware, Table) else None

    def asked(self, index: int, architecture: Architecture) -> Item:
        """A candidate that was just asked for, with all that is predicted of it.

        Args:
            index: from 0, in the order asked.
            architecture: of the candidate; an accelerator is optimised for it by now.
        """
        accelerator = self._plan.accelerator
        return {
            "index": index,
            "choices": list(architecture.choices),
            "latency_s": self._plan.constraints[0].cost.exact(architecture),
            "accelerator": None if accelerator is None else accelerator.state(),
            "searches": progress_of(accelerator),
            "energy_j": self.energy_j(architecture),
            "memory_bytes": self.memory_bytes(architecture),
        }

    def energy_j(self, architecture: Architecture) -> float | None:
        """Joules; None where the device has no energies."""
        return self._hardware.predict(architecture.ops()).energy_j

    def memory_bytes(self, architecture: Architecture) -> float | None:
        """Peak of the process that runs it; None for an accelerator."""
        return None if self._memory is None else self._memory.exact(architecture)


def best_of(agent: int, strategy: ProposalStrategy, targets: TargetsInTurn, told: Sequence[Told], plan: Plan) -> int | None:
    """Index of the best candidate so far for one agent; for several: the best of those that meet its targets.

    With successive halving it is the best of those that trained for longest.
    A rule that has one candidate for each target (``largest``) gives an agent its own.

    Args:
        agent: its place in the plan.
        strategy: which was told.
        targets: of all agents.
        told: what it was told.
        plan: the resolved run.
    """
    count = len(targets.each)
    if count == 1 and plan.strategy.reduction_factor(plan.config.strategy) == 1:
        return strategy.best()
    own = plan.strategy.kind == "proposal" and "candidates" in plan.strategy.unused
    fit = [
        i
        for i, one in enumerate(told)
        if "failure" not in one and (i % count == agent if own else targets.each[agent](plan.space.architecture(one["choices"])))
    ]
    judge_by = plan.config.strategy.judge_by

    def place(index: int) -> tuple[int, float]:
        value = worth(judge_by, told[index])
        return told[index].get("rung", 0), -math.inf if value is None else value

    return max(fit, key=place, default=None)


def told_record(item: Item, place: int) -> Told:
    """What is kept of a candidate's first training, or its only one.

    Args:
        item: with its outcome.
        place: among those that were told.
    """
    outcome, inheritance = item["outcome"], inheritance_of(item)
    told: Told = {
        "choices": item["choices"],
        "score": outcome["score"],
        "latency_s": item["latency_s"],
        "env_steps": outcome["env_steps"],
    }
    if "divergence" in outcome:
        told["divergence"] = outcome["divergence"]
    if item["index"] != place:
        told["asked"] = item["index"]
    if inheritance is not None:
        told["inherited_from"] = list(inheritance.evaluations)
    if outcome["weights"] is None:
        told["failure"] = outcome["failure"]
    return told


def trained_on(told: list[Told], item: Item) -> int:
    """Record how a candidate did that trained on; one that failed keeps the score that it had.

    Args:
        told: all that was told; the candidate's entry is replaced.
        item: with its outcome.

    Returns:
        The candidate's place.
    """
    outcome, place = item["outcome"], next(i for i, one in enumerate(told) if one.get("asked", i) == item["index"])
    entry = told[place] = told[place].copy()
    entry["env_steps"] = max(outcome["env_steps"], entry["env_steps"])
    if "failure" in outcome:
        entry["stopped"] = outcome["failure"]
    else:
        entry["score"], entry["rung"] = outcome["score"], item.get("rung", 0)
        if "divergence" in outcome:
            entry["divergence"] = outcome["divergence"]
    return place


def trainings_of(told: Sequence[Told]) -> int:
    """How many trainings those that were told have had, one on each rung that they came to."""
    return sum(one.get("rung", 0) + 1 + ("stopped" in one) for one in told)


def check_failures(told: Sequence[Told], of: int, name: str, log: RunLog) -> None:
    """Say that the newest candidate failed; too many failures are a fault of the settings, not of the candidates.

    Args:
        told: with the failed one at the end.
        of: candidates of the whole search.
        name: of its architecture.
        log: is told.

    Raises:
        RunFailedError: more than ``FAILED_MAX`` of them failed.
    """
    failed, index, failure = sum("failure" in one for one in told), len(told) - 1, told[-1].get("failure", "")
    log.progress.note(f"candidate {index} ({name}) failed and is not the result: {failure}")
    if failed > FAILED_MAX * of:
        raise RunFailedError(
            f"{failed} of {of} candidates failed, at most {FAILED_MAX:.0%} may; the last one, {index} ({name}): {failure}"
        )


def check_judged(told: Sequence[Told], config: Config) -> None:
    """Raise where candidates are compared by divergences from the teacher, and one that was trained has none.

    Args:
        told: what the strategy was told.
        config: of the run.

    Raises:
        ConfigError: names the first one.
    """
    if config.strategy.judge_by != "divergence":
        return
    index = next((i for i, one in enumerate(told) if "failure" not in one and "divergence" not in one), None)
    if index is not None:
        starts = "" if config.rl.on_policy else f", or a smaller {config.rl.algorithm}.learning_starts"
        raise ConfigError(
            f"candidate {index} was not compared with the teacher in its {told[index]['env_steps']} environment steps, so "
            f"strategy.judge_by=divergence has nothing to judge it by: set a larger budget.search_steps{starts}, or "
            "strategy.judge_by=score"
        )


def chosen_by(told: Sequence[Told], config: Config) -> str:
    """How the best candidate was chosen, in words; where no score tells them apart it is the first.

    Args:
        told: what the strategy was told.
        config: of the run.
    """
    if config.strategy.judge_by == "divergence":
        return "least divergence from the teacher among the candidates"
    scores = [one["score"] for one in told if "failure" not in one]
    if all(score is None for score in scores):
        return "in no training did an episode end, so no score tells them apart: first of the candidates"
    if len(set(scores)) == 1 < len(scores):
        return "all training scores are equal: first of the candidates"
    return "best training score among the candidates"


def records(told: Sequence[Told], searched: Plan, agent: Plan) -> tuple[CandidateRecord, ...]:
    """All candidates, for an agent's ``architecture.json``: with the latencies of its device.

    Args:
        told: of the search, with the latencies of its first agent's device.
        searched: plan of the search.
        agent: plan of the agent.
    """
    cost = None if agent.hardware.table_id == searched.hardware.table_id else agent.constraints[0].cost
    return tuple(
        CandidateRecord(
            choices=tuple(one["choices"]),
            score=one["score"],
            latency_s=one["latency_s"] if cost is None else cost.exact(agent.space.architecture(one["choices"])),
            env_steps=one["env_steps"],
            divergence=one.get("divergence"),
            failure=one.get("failure"),
            asked=one.get("asked"),
            rung=one.get("rung"),
            stopped=one.get("stopped"),
            inherited_from=tuple(one["inherited_from"]) if "inherited_from" in one else None,
        )
        for one in told
    )
