"""The search of a proposal strategy: candidates are trained one after the other, each for its share of the budget."""

from __future__ import annotations

from typing import Any

import torch

from cosearch.pipeline.co_design import progress_of
from cosearch.pipeline.derivation import hand_on, meets_targets
from cosearch.pipeline.plan import Plan
from cosearch.pipeline.session import Session
from cosearch.pipeline.training import Training
from cosearch.rl.subject import NetworkSubject
from cosearch.space.derive import derive
from cosearch.space.space import Architecture
from cosearch.strategies.base import Evaluation, ProposalStrategy


def proposal_search(session: Session) -> None:
    """Search to the end of its budget, or go on where the checkpoint stands."""
    plan, config, streams = session.plan, session.plan.config, session.streams
    strategy: ProposalStrategy = plan.strategy.make(plan.space, plan.strategy.options(config.strategy), streams.torch("arch"),
                                                    lambda architecture: meets_targets(plan, architecture))
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
    hand_on(
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
