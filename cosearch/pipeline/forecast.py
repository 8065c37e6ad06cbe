"""`--dry-run`: the resolved plan, with time and memory forecast from real updates on this machine.

What is timed is what the run will do: the supernet under its strategy, a score with its weights or one candidate's own training,
and the retraining.
Candidates that are trained side by side in worker processes share the cores: more processes than cores are no faster.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from cosearch.compute import compute_device
from cosearch.config.run import config_to_dict
from cosearch.pipeline.rehearsal import unloadable_agent
from cosearch.pipeline.search.derivation import most_likely_feasible
from cosearch.pipeline.search.gradient_search import search_subject
from cosearch.pipeline.search.one_shot_search import one_shot_strategy, one_shot_training, path_subject, shared_scores
from cosearch.planning.budget import candidate_rungs, one_shot_rounds, rollout_steps, whole_rollouts
from cosearch.planning.plan import Plan
from cosearch.record.json_record import to_json
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork
from cosearch.strategies.base import Feasible, TargetsInTurn
from cosearch.strategies.weight_sharing import StagedStrategy, scoring_of
from cosearch.training.algorithms import as_trained, learning_rate, make_training
from cosearch.training.candidates import candidate_training
from cosearch.training.shared_scores import FrameScores
from cosearch.training.stage import Training
from cosearch.training.threads import set_threads
from latency_tables.text.spans import span_text

FINISH_S = 45.0  # evaluation, export, measurement and report of the quick preset on two cores
Clock = Callable[[], float]


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take.

    Attributes:
        plan: the resolved run.
        search_steps_per_s: environment steps of the search a second, of all worker processes together.
        retrain_steps_per_s: of the retraining, of several agents' that of the slowest; None where there is none.
        expected_s: the whole run, seconds.
        peak_memory_bytes: of this process so far.
        unloadable: why the device's own runtime would not load the agent; empty where it would, or where nobody knows it.
    """

    plan: Plan
    search_steps_per_s: float
    retrain_steps_per_s: float | None
    expected_s: float
    peak_memory_bytes: int
    unloadable: str = ""

    def to_json(self) -> dict[str, object]:
        """The configuration, the plan's facts and the figures."""
        plan = self.plan
        return {
            "config": config_to_dict(plan.config),
            "space_size": plan.space.size,
            "space": {
                "name": plan.space.name,
                "size": plan.counts.size,
                "feasible": plan.counts.feasible,
                "distinct": plan.counts.distinct,
            },
            "table": {"device": plan.hardware.device.table_name, "provenance": plan.hardware.provenance},
            "teacher": plan.teacher.name if plan.teacher else None,
            "search_uses_teacher": plan.teacher is not None and plan.strategy.uses_teacher,
            "not_exactly_resumable_because": plan.inexact_resume,
            "not_loadable_because": self.unloadable or None,
            "latency_target_s": plan.constraints[0].value,
            "target_not_known_because": plan.not_known or None,
            "references": {name: to_json(reference) for name, reference in plan.references.items()},
            "search_steps_per_s": self.search_steps_per_s,
            "retrain_steps_per_s": self.retrain_steps_per_s,
            "expected_s": self.expected_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            **({"agents": [self._agent(name, one) for name, one in plan.agents.items()]} if plan.agents else {}),
        }

    def _agent(self, name: str, plan: Plan) -> dict[str, object]:
        return {
            "name": name,
            "device": plan.hardware.device.table_name,
            "provenance": plan.hardware.provenance,
            "latency_target_s": plan.constraints[0].value,
            "feasible": plan.counts.feasible,
            "distinct": plan.counts.distinct,
        }

    def text(self) -> str:
        """For people."""
        plan, retraining = self.plan, ""
        hardware, teacher = plan.hardware, plan.teacher.name if plan.teacher else "none"
        if plan.teacher and not plan.strategy.uses_teacher:
            teacher += f", which acts in retraining only: {plan.strategy.name} searches without a teacher"
        if self.retrain_steps_per_s is not None:
            retraining = f", {self.retrain_steps_per_s:,.0f} steps/s retraining"
        lines = []
        for key, value in config_to_dict(plan.config).items():
            lines += (
                [f"{key}.{name} = {inner}" for name, inner in value.items()] if isinstance(value, dict) else [f"{key} = {value}"]
            )
        lines += [
            "",
            f"table: {hardware.device.table_name} ({hardware.provenance}), teacher: {teacher}",
            *([f"not exactly resumable: {plan.inexact_resume}"] if plan.inexact_resume else []),
            *([self.unloadable] if self.unloadable else []),
            *([plan.not_known] if plan.not_known else []),
            *(
                f"agent {name}: {one.hardware.device.table_name} ({one.hardware.provenance}), latency target "
                f"{one.constraints[0].value * 1e3:.3f} ms, space: {one.counts.text()}"
                for name, one in plan.agents.items()
            ),
            *(
                []
                if plan.agents
                else [f"latency target: {plan.constraints[0].value * 1e3:.3f} ms", f"space: {plan.counts.text()}"]
            ),
            f"speed here: {self.search_steps_per_s:,.0f} steps/s searching{retraining}",
            f"expected time: {span_text(self.expected_s)}, peak memory so far {self.peak_memory_bytes / 2**20:,.0f} MiB",
        ]
        return "\n".join(lines)


def forecast(plan: Plan, clock: Clock = time.perf_counter) -> Forecast:
    """Time an update of the search and one of the retraining, each after its first, and scale them to the budget.

    Args:
        plan: the resolved run.
        clock: seconds.
    """
    config = plan.config
    set_threads(config.threads)
    device, streams = compute_device(config.compute), Streams(config.seed)
    teacher = plan.load_teacher(device)
    search_teacher = plan.search_teacher(teacher)
    if plan.strategy.kind == "gradient":
        subject = search_subject(plan, streams, device)
        subject.set_progress(1.0)  # as after the warm-up, when weights and architecture learn
        lr = learning_rate(config)
        search_steps = whole_rollouts(config, config.budget.search_steps)
        training = make_training(config, subject, streams, search_teacher, total_steps=search_steps, lr=(lr, lr))
        search_s = search_steps / _rate(training, clock)
    elif plan.strategy.kind == "one-shot":
        search_steps, search_s = _one_shot(plan, streams, search_teacher, device, clock)
    else:
        rungs, workers = candidate_rungs(config, plan.strategy, len(plan.every)), config.strategy.workers
        shares = [steps for rung in rungs for steps in rung]
        alone = replace(config, threads=1) if workers > 1 else config  # a worker process has one thread
        training = candidate_training(alone, _network(plan, streams), streams, search_teacher, max(shares))
        beside = _side_by_side(shares, workers, os.cpu_count() or 1, in_batches=not plan.strategy.any_order)
        search_steps, search_s = whole_rollouts(config, config.budget.search_steps), beside / _rate(training, clock)
        set_threads(config.threads)
    retrain_rate, retrain_s = None, 0.0
    if config.budget.retrain_steps:
        rates = [_retraining_rate(agent, streams, teacher, clock) for agent in plan.every]
        retrain_rate = min(rates)
        retrain_s = sum(whole_rollouts(config, config.budget.retrain_steps) / rate for rate in rates)
    unit = 1 if sys.platform == "darwin" else 1024
    return Forecast(
        plan,
        search_steps / search_s,
        retrain_rate,
        search_s + retrain_s + FINISH_S * len(plan.every),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        unloadable_agent(plan),
    )


def _one_shot(plan: Plan, streams: Streams, teacher: Teacher | None, device: torch.device, clock: Clock) -> tuple[int, float]:
    """Environment steps of a one-shot search, and its seconds: an update of the supernet and one score are timed."""
    rounds = one_shot_rounds(plan.config, scoring_of(plan.strategy, plan.config.strategy), len(plan.every))
    strategy = one_shot_strategy(plan, streams, TargetsInTurn(tuple(Feasible(agent.constraints) for agent in plan.every)))
    if isinstance(strategy, StagedStrategy):
        strategy.begin_round(0)
    subject = path_subject(plan, strategy, streams, device)
    train_steps, scored = sum(one.train_steps for one in rounds), [steps for one in rounds for steps in one.scored_steps]
    train_s = train_steps / _rate(one_shot_training(plan, subject, streams, teacher, train_steps), clock)
    scores, rollout, started = shared_scores(plan, subject, teacher), rollout_steps(plan.config), clock()
    if isinstance(scores, FrameScores):
        scores.play(rollout, None)
    played_s, started = (clock() - started) * sum(scored) / rollout, clock()
    scores.score(strategy.playing_path(), scored[0])
    return train_steps + sum(scored), train_s + played_s + (clock() - started) * len(scored)


def _network(plan: Plan, streams: Streams) -> AgentNetwork:
    """Some architecture that meets the targets, as it is trained."""
    scores = [torch.rand(len(point.candidates), generator=streams.torch("arch")).tolist() for point in plan.space.points]
    return as_trained(derive(most_likely_feasible(plan, scores), streams.torch("weights")), plan.config, streams)


def _retraining_rate(plan: Plan, streams: Streams, teacher: Teacher | None, clock: Clock) -> float:
    config, device = plan.config, compute_device(plan.config.compute)
    subject = NetworkSubject(_network(plan, streams), lr=learning_rate(config), bf16=config.rl.bf16, device=device)
    steps = config.budget.retrain_steps
    return _rate(make_training(config, subject, streams, teacher, total_steps=steps, env_index=1), clock)


def _rate(training: Training, clock: Clock) -> float:
    """Environment steps a second of the second round that learned something; with a replay the first ones only play."""
    try:
        values = training.advance()
        while values.get("updates") == 0 and not training.finished:
            values = training.advance()
        started, begun = clock(), training.step
        training.advance()
        return (training.step - begun) / (clock() - started)
    finally:
        training.close()


def _side_by_side(shares: list[int], workers: int, cores: int, *, in_batches: bool) -> float:
    """How many steps of one process take as long as all candidates.

    Args:
        shares: environment steps of each candidate.
        workers: processes.
        cores: that they share.
        in_batches: whether the next ones begin when the last of ``workers`` has ended; else each as one ends.
    """
    size = workers if in_batches else len(shares)
    return sum(as_each_ends(shares[start : start + size], workers, cores) for start in range(0, len(shares), size))


def as_each_ends(shares: Sequence[float], workers: int, cores: float) -> float:
    """How long pieces of work take together, of which the next one begins as one ends; those that run share the cores equally.

    Args:
        shares: of each piece, alone on its core; in steps or seconds, as the result.
        workers: pieces at once.
        cores: for how many of them there are cores, at least 1.
    """
    running, begun, took = list(shares[:workers]), workers, 0.0
    while running:
        shortest = min(running)
        took += shortest * max(1.0, len(running) / cores)
        running = [left - shortest for left in running if left > shortest]
        free = workers - len(running)
        running, begun = [*running, *shares[begun : begun + free]], begun + free
    return took
