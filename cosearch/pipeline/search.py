"""The search stage: a supernet under a gradient strategy, or candidates one after the other under a proposal strategy.

It hands on the architecture, how it was derived, and the weights that it had learned.
"""

from __future__ import annotations

from typing import Any

import torch

from cosearch.cost.objective import DualPenalty
from cosearch.pipeline.co_design import progress_of, search_again, settle
from cosearch.pipeline.plan import Plan
from cosearch.pipeline.session import Session
from cosearch.pipeline.supernet_subject import SuperNetSubject
from cosearch.pipeline.training import Training
from cosearch.rl.subject import NetworkSubject
from cosearch.space.derive import Limit, derive, discretise, within
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import Evaluation, ProposalStrategy
from cosearch.strategies.one_level import OneLevelOptions
from cosearch.strategies.random_search import RandomOptions


def run_search(session: Session) -> None:
    """Search to the end of its budget, or go on where the checkpoint stands."""
    if session.plan.strategy.kind == "gradient":
        _gradient_search(session)
    else:
        _proposal_search(session)


def most_likely_feasible(plan: Plan, scores: list[list[float]]) -> Architecture:
    """The architecture with the highest score that meets every target in the table's model.

    Raises:
        InfeasibleTargetError: none does.
    """
    limits = [Limit(cost.candidate_costs(), cost.base, target.bound) for cost, target in zip(plan.costs, plan.targets)]
    return discretise(plan.space, scores, *limits)


def meets_targets(plan: Plan, architecture: Architecture) -> bool:
    """Whether an architecture meets every target in the table's model."""
    return all(within(cost.exact(architecture), target.bound) for cost, target in zip(plan.costs, plan.targets))


def _gradient_search(session: Session) -> None:
    plan, config, streams = session.plan, session.plan.config, session.streams
    options = OneLevelOptions(
        config.strategy.active_paths, config.strategy.temperature_start, config.strategy.temperature_end, config.strategy.lr
    )
    strategy = plan.strategy.make(plan.space, options, streams.torch("arch"))
    penalties = [
        (cost, DualPenalty(target, dual_lr=config.objective.dual_lr, quadratic=config.objective.quadratic))
        for cost, target in zip(plan.costs, plan.targets)
    ]
    supernet = SuperNet(plan.space, streams.torch("weights"))
    subject = SuperNetSubject(
        supernet,
        strategy,
        penalties,
        paths=config.strategy.paths_per_rollout,
        fresh=config.strategy.update_path == "fresh",
        lr=config.rl.lr,
        bf16=config.rl.bf16,
        device=session.device,
        warmup=config.strategy.warmup_fraction,
        warmup_factor=config.strategy.warmup_factor if config.strategy.target_form == "multiplier" else None,
    )
    training = Training(
        config, subject, streams, session.teacher, total_steps=config.budget.search_steps, lr=(config.rl.lr, config.rl.lr)
    )
    try:
        saved = session.checkpoint["stage_state"]
        if saved is not None:
            training.restore(saved)
            session.streams.load_state_dict(session.checkpoint["streams"])
        session.progress.stage("search", config.budget.search_steps, training.step)

        def before() -> None:
            search_again(plan.accelerator, training.step, strategy.scores(), lambda scores: most_likely_feasible(plan, scores))
            subject.set_progress(training.progress)

        session.train(training, stage="search", before=before, extra=lambda: progress_of(plan.accelerator))
    finally:
        training.close()
    architecture = most_likely_feasible(plan, strategy.scores())
    network = derive(architecture, torch.Generator().manual_seed(0), supernet.cpu())
    derived_by = {
        "method": "highest score among the architectures that meet the targets (exact integer program)",
        "scores": strategy.scores(),
        "probabilities": [[round(float(p), 6) for p in point.detach()] for point in strategy.probabilities()],
        "unconstrained_choices": list(discretise(plan.space, strategy.scores()).choices),
    }
    _hand_on(session, architecture, network, derived_by, training.step)


def _proposal_search(session: Session) -> None:
    plan, config, streams = session.plan, session.plan.config, session.streams
    strategy: ProposalStrategy = plan.strategy.make(plan.space, RandomOptions(), streams.torch("arch"))
    strategy.is_feasible = lambda architecture: meets_targets(plan, architecture)
    count = config.strategy.candidates
    share = max(1, config.budget.search_steps // count)
    state: dict[str, Any] = session.checkpoint["stage_state"] or {
        "step": 0,
        "index": 0,
        "strategy": strategy.state(),
        "best": None,
    }
    strategy.restore(state["strategy"])
    done, best = state["step"], state["best"]
    session.progress.stage("search", config.budget.search_steps, done)
    for index in range(state["index"], count):
        resumed = state.get("training") if index == state["index"] else None
        architecture = plan.space.architecture(resumed["choices"]) if resumed else _next_candidate(plan, strategy)
        # a resumed candidate is built with its own fresh generator state and then overwritten, so streams are restored last
        network = derive(architecture, streams.torch("weights"))
        training = Training(
            config,
            NetworkSubject(network, lr=config.rl.lr, bf16=config.rl.bf16, device=session.device),
            streams,
            session.teacher,
            total_steps=share,
            env_index=100 + index,
            lr=(config.rl.lr, config.rl.lr),
        )
        offset = resumed["offset"] if resumed else done
        try:
            if resumed:
                training.restore(resumed["training"])
                session.streams.load_state_dict(session.checkpoint["streams"])
            label = "/".join(architecture.choice_names)

            def candidate_state() -> dict[str, Any]:
                return {
                    "step": offset + training.step,
                    "index": index,
                    "strategy": strategy.state(),
                    "best": best,
                    "training": {"choices": list(architecture.choices), "offset": offset, "training": training.state()},
                }

            session.train(
                training,
                stage="search",
                offset=offset,
                state=candidate_state,
                extra=lambda: {"candidate": label, "latency_argmax_s": plan.costs[0].exact(architecture),
                               **progress_of(plan.accelerator)},
            )
        finally:
            training.close()
        strategy.tell(Evaluation(architecture, training.collector.score, plan.costs[0].exact(architecture)))
        done = offset + training.step
        if strategy.best() == index:
            best = {"choices": list(architecture.choices), "weights": network.cpu().state_dict(),
                    "accelerator": None if plan.accelerator is None else plan.accelerator.state()}
        session.save({"step": done, "index": index + 1, "strategy": strategy.state(), "best": best})
    architecture = plan.space.architecture(best["choices"])
    network = derive(architecture, torch.Generator().manual_seed(0))
    network.load_state_dict(best["weights"])
    if plan.accelerator is not None:
        plan.accelerator.restore({**best["accelerator"], "searches": plan.accelerator.searches})
    candidates = [{"choices": choices, "score": score, "latency_s": cost} for choices, score, cost in strategy.state()["results"]]
    _hand_on(
        session, architecture, network, {"method": "best training score among the candidates", "candidates": candidates}, done
    )


def _next_candidate(plan: Plan, strategy: ProposalStrategy) -> Architecture:
    """A proposal; where the device is an accelerator, with one that is searched for it."""
    if plan.accelerator is None:
        return strategy.ask()
    plan.accelerator.start_over()
    architecture = strategy.ask()
    plan.accelerator.optimise(architecture, plan.accelerator.options.evaluations)
    return architecture


def _hand_on(
    session: Session, architecture: Architecture, network: torch.nn.Module, derived_by: dict[str, Any], steps: int
) -> None:
    plan = session.plan
    accelerator = {}
    if plan.accelerator is not None:
        accelerator = {"accelerator": settle(plan.accelerator, architecture, session.run)}
    prediction = plan.table.predict(architecture.ops())
    operations = [
        {"key": key, "latency_s": latency, "energy_j": energy, "macs": op.macs, "params": op.params}
        for op, (key, latency, energy) in zip(architecture.ops(), prediction.operations)
    ]
    session.run.write_json(
        "architecture.json",
        {
            **architecture.to_dict(),
            "candidate_names": [list(point.candidates) for point in plan.space.points],
            "predicted": {
                "latency_s": prediction.latency_s,
                "energy_j": prediction.energy_j,
                "overhead_s": prediction.overhead_s,
                "interval_s": list(prediction.interval) if prediction.interval else None,
                "provenance": prediction.provenance,
                "device": plan.table.device.name,
                "operations": operations,
                **accelerator,
            },
            "derived_by": derived_by,
        },
    )
    session.progress.note(
        f"derived {'/'.join(architecture.choice_names)}: {prediction.latency_s * 1e3:.3f} ms {prediction.provenance} "
        f"on {plan.table.device.name}"
    )
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    session.finish_stage("retrain", choices=list(architecture.choices), searched_weights=weights, search_steps=steps)
