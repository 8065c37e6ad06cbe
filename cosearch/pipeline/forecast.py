"""`--dry-run`: the resolved plan, with time and memory forecast from one real update on this machine."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from typing import Any

import torch

from cosearch.compute import compute_device
from cosearch.config.run import config_to_dict
from cosearch.cost.objective import DualPenalty
from cosearch.pipeline.derivation import most_likely_feasible
from cosearch.planning.plan import Plan
from cosearch.record.json_record import to_json
from cosearch.rl.subject import NetworkSubject
from cosearch.seeding import Streams
from cosearch.space.derive import derive
from cosearch.space.supernet import SuperNet
from cosearch.strategies.one_level import OneLevelOptions, OneLevelStrategy
from cosearch.training.algorithms import as_trained, learning_rate, make_training
from cosearch.training.supernet_subject import SuperNetSubject
from cosearch.training.threads import set_threads

FINISH_S = 45.0  # evaluation, export, measurement and report of the quick preset on two cores


def forecast(plan: Plan) -> dict[str, Any]:
    """Time two updates of the search and two of the retraining, and scale them to the budget.

    Returns:
        The configuration, the plan's facts, ``expected_s`` in seconds and ``peak_memory_bytes``.
    """
    config = plan.config
    set_threads(config.threads)
    device, streams = compute_device(config.compute), Streams(config.seed)
    teacher = plan.load_teacher(device)
    supernet = as_trained(SuperNet(plan.space, streams.torch("weights")), config, streams)
    if plan.strategy.kind == "gradient":
        strategy = plan.strategy.make(plan.space, plan.strategy.options(config.strategy), streams.torch("arch"))
    else:
        strategy = OneLevelStrategy(plan.space, OneLevelOptions(active_paths=config.strategy.active_paths), streams.torch("arch"))
    searching = SuperNetSubject(
        supernet,
        strategy,
        [DualPenalty(plan.constraints[0], dual_lr=0.0, quadratic=0.0)],
        paths=plan.strategy.paths(config.strategy),
        fresh=config.strategy.update_path == "fresh",
        lr=learning_rate(config),
        bf16=config.rl.bf16,
        device=device,
        warmup=0.0,
    )
    scores = [torch.rand(len(point.candidates), generator=streams.torch("arch")).tolist() for point in plan.space.points]
    network = as_trained(derive(most_likely_feasible(plan, scores), streams.torch("weights")), config, streams)
    rates = []
    alone = NetworkSubject(network, lr=learning_rate(config), bf16=config.rl.bf16, device=device)
    for subject, taught_by in ((searching, plan.search_teacher(teacher)), (alone, teacher)):
        training = make_training(replace(config), subject, streams, taught_by, total_steps=1)
        training.advance()
        rates.append(training.advance()["steps_per_s"])
        training.close()
    searching_rate = rates[0] if plan.strategy.kind == "gradient" else rates[1] * config.strategy.workers
    expected = config.budget.search_steps / searching_rate + config.budget.retrain_steps / rates[1] + FINISH_S
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "config": config_to_dict(config),
        "space_size": plan.space.size,
        "table": {"device": plan.hardware.device.name, "provenance": plan.hardware.provenance},
        "teacher": plan.teacher.name if plan.teacher else None,
        "search_uses_teacher": plan.teacher is not None and plan.strategy.uses_teacher,
        "not_exactly_resumable_because": plan.inexact_resume,
        "latency_target_s": plan.constraints[0].value,
        "references": {name: to_json(reference) for name, reference in plan.references.items()},
        "search_steps_per_s": searching_rate,
        "retrain_steps_per_s": rates[1],
        "expected_s": expected,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def forecast_text(result: dict[str, Any]) -> str:
    """The forecast for people."""
    lines = [
        f"{section}.{key} = {value}" if section else f"{key} = {value}"
        for section, values in [
            ("", {k: v for k, v in result["config"].items() if not isinstance(v, dict)}),
            *((k, v) for k, v in result["config"].items() if isinstance(v, dict)),
        ]
        for key, value in values.items()
    ]
    taught = f", which acts in retraining only: {result['config']['strategy']['name']} searches without a teacher"
    return "\n".join(
        [
            *lines,
            "",
            f"table: {result['table']['device']} ({result['table']['provenance']}), teacher: {result['teacher'] or 'none'}"
            + (taught if result["teacher"] and not result["search_uses_teacher"] else ""),
            *([f"not exactly resumable: {why}"] if (why := result["not_exactly_resumable_because"]) else []),
            f"space: {result['space_size']:.3g} architectures, latency target {result['latency_target_s'] * 1e3:.3f} ms",
            f"speed here: {result['search_steps_per_s']:,.0f} steps/s searching, "
            f"{result['retrain_steps_per_s']:,.0f} steps/s retraining",
            f"expected time: {result['expected_s'] / 60:.1f} min, "
            f"peak memory so far {result['peak_memory_bytes'] / 2**20:,.0f} MiB",
        ]
    )
