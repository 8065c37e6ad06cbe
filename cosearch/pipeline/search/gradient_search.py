"""The search of a gradient strategy: a supernet, whose weights and architecture learn from the same rollouts.

For several agents its rollouts go by the targets of one after the other (``cosearch.benchmarks.searches.families`` compares other
ways). Once-for-all (Cai et al., ICLR 2020, arXiv 1908.09791) gives networks for many targets from one set of weights;
AttentiveNAS (Wang et al., CVPR 2021, arXiv 2011.09011) draws a budget for each step from a prior, and then a network of that
cost.
Differs from the papers in:
1. The budgets are those that were asked for, in turn, on the device of each; no prior.
2. A path is drawn from the learned distribution that holds the budget, not uniformly, the best or the worst of a few.
3. Weights are shared for the search alone; each agent is retrained.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from cosearch.cost.objective import DualPenalty
from cosearch.pipeline.checkpoint import Candidate, SearchOutput
from cosearch.pipeline.search.co_design import progress_of, search_again
from cosearch.pipeline.search.derivation import Found, contiguous, most_likely_feasible
from cosearch.pipeline.search.task_start import begin_from_store
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.shared_weights import keep_shared
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import search_share
from cosearch.planning.plan import Plan
from cosearch.record.results.architecture import Derivation, RegressionRecord, Rows
from cosearch.record.rundir import RunDir
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive, discretise
from cosearch.space.derivation.shortlist import shortlist
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import Feasible
from cosearch.strategies.proposals import UniformDraws
from cosearch.strategies.regression import AdditiveFit, fit_scores
from cosearch.strategies.relaxation import learned
from cosearch.training.algorithms import as_trained, learning_rate, make_training
from cosearch.training.stage import Training
from cosearch.training.supernet_subject import SuperNetSubject

METHOD = "highest score among the architectures that meet the targets (exact integer program)"
REGRESSED = "highest regression score among the architectures that meet the targets (exact integer program)"
DRAWN = "drawn uniformly among the architectures that meet the targets: the search preferred no candidate"


def search_subject(plan: Plan, streams: Streams, device: torch.device) -> SuperNetSubject:
    """The supernet of a run with its strategy and penalties, before its first step.

    Args:
        plan: the resolved run.
        streams: the run's random streams.
        device: where to train.
    """
    config = plan.config
    strategy = plan.strategy.make(plan.space, plan.strategy.options(config.strategy), streams.torch("arch"))
    objective = config.objective
    penalties, *others = (
        [DualPenalty(bound, dual_lr=objective.dual_lr, quadratic=objective.quadratic) for bound in agent.constraints]
        for agent in plan.every
    )
    return SuperNetSubject(
        as_trained(SuperNet(plan.space, streams.torch("weights")), config, streams),
        strategy,
        penalties,
        paths=plan.strategy.paths(config.strategy),
        fresh=config.strategy.update_path == "fresh" and config.rl.algorithm != "a2c",
        lr=learning_rate(config),
        bf16=config.rl.bf16,
        device=device,
        warmup=config.strategy.warmup_fraction,
        warmup_factor=config.strategy.warmup_factor if plan.strategy.holds_target(config.strategy) else None,
        others=others,
    )


def found_by(
    plan: Plan, scores: list[list[float]], generator: torch.Generator, fit: AdditiveFit | None = None
) -> tuple[Architecture, Derivation]:
    """The architecture of a search that ended with these scores, and how it was chosen.

    Where all scores are alike nothing chose: with ``strategy.warmup_fraction=1``, a control whose logits stay as they were.

    Args:
        plan: the resolved run.
        scores: the strategy's: for each point one a candidate.
        generator: draws where the scores prefer nothing.
        fit: of the losses of the drawn paths; None where there are none.
    """
    regressed = fit is not None and plan.strategy.derived_by(plan.config.strategy) == "regression"
    chosen = fit.scores if fit is not None and regressed else scores
    derived_by = Derivation(
        method=DRAWN,
        scores=_rows(scores),
        regression=None
        if fit is None
        else RegressionRecord(
            scores=_rows(fit.scores),
            pairs=fit.pairs,
            r2=fit.r2,
            rank_correlation=fit.rank_correlation,
            penalty=fit.penalty,
        ),
        unconstrained_choices=tuple(discretise(plan.space, chosen).choices),
    )
    if learned(chosen, plan.space.zeros):
        method, scored_by = (REGRESSED, "regression") if regressed else (METHOD, "scores")
        return most_likely_feasible(plan, chosen), replace(derived_by, method=method, scored_by=scored_by)
    return UniformDraws(plan.space, generator, Feasible(plan.constraints)).draw(), derived_by


def _others(plan: Plan, supernet: SuperNet, fit: AdditiveFit | None, scores: list[list[float]]) -> tuple[Candidate, ...]:
    """What begins the retraining beside the best one, with the weights of the supernet; nothing without a bracket."""
    budget = plan.config.budget
    if budget.bracket == 1 or budget.retrain_steps == 0 or not plan.config.rl.on_policy:
        return ()
    chosen = fit.scores if fit is not None and plan.strategy.derived_by(plan.config.strategy) == "regression" else scores
    found = shortlist(plan.space, chosen, *(constraint.limit for constraint in plan.constraints), count=budget.bracket)
    networks = [derive(other, torch.Generator().manual_seed(0), supernet) for other in found[1:]]
    return tuple(Candidate(tuple(other.choices), contiguous(network.state_dict())) for other, network in zip(found[1:], networks))


def _rows(scores: list[list[float]]) -> Rows:
    return tuple(tuple(row) for row in scores)


def gradient_search(plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> tuple[Found, ...]:
    """Search to the end of its budget, or go on where the checkpoint stands.

    With several agents each rollout goes by the targets of one of them, in turn, and every agent is derived from the same scores.

    Args:
        plan, resources, run, log, checkpoints: of the session; the run folder gets ``supernet.pt``.

    Returns:
        What was found for each agent of the plan.
    """
    config, streams = plan.config, resources.streams
    subject = search_subject(plan, streams, resources.device)
    strategy, lr = subject.strategy, learning_rate(config)
    if checkpoints.current.stage_state is None:
        begun = begin_from_store(plan, run, subject.supernet)
        if begun is not None:
            log.progress.note(begun)
    teacher = plan.search_teacher(resources.teacher)
    steps, span = config.budget.search_steps, (0.0, search_share(config))
    training = make_training(config, subject, streams, teacher, total_steps=steps, span=span, lr=(lr, lr))
    try:
        saved = checkpoints.current.stage_state
        if saved is not None:
            go_on(training, saved, plan, log, "search")
            checkpoints.restore_streams()
        log.progress.stage("search", config.budget.search_steps, training.step)

        def before() -> None:
            search_again(plan.accelerator, training.step, strategy.scores(), lambda scores: most_likely_feasible(plan, scores))
            subject.take_turn(training.step // training.steps_per_update)
            subject.set_progress(training.progress)

        def extra() -> dict[str, object]:
            agent = {"agent": list(plan.agents)[subject.turn]} if plan.agents else {}
            return {**progress_of(plan.accelerator), **agent}

        train(
            training,
            log,
            checkpoints,
            stage="search",
            interval_s=config.budget.checkpoint_interval_s,
            before=before,
            extra=extra,
        )
    finally:
        training.close()
    fit = fit_scores([len(point.candidates) for point in plan.space.points], subject.drawn)
    if fit is None and learned(strategy.scores(), plan.space.zeros) and plan.strategy.derived_by(config.strategy) == "regression":
        log.progress.note("no losses of single paths to regress on: derived from the learned scores")
    keep_shared(run, subject.supernet.cpu())
    return tuple(_found(agent, turn, subject, streams, fit, training) for turn, agent in enumerate(plan.every))


def _found(
    plan: Plan, turn: int, subject: SuperNetSubject, streams: Streams, fit: AdditiveFit | None, training: Training
) -> Found:
    """The architecture of one agent, with the shared weights along its path."""
    strategy = subject.strategy
    if turn != subject.turn:
        subject.take_turn(turn)
        subject.set_progress(training.progress)
    architecture, derived_by = found_by(plan, strategy.scores(), streams.torch("arch"), fit)
    network = derive(architecture, torch.Generator().manual_seed(0), subject.supernet)
    probabilities = tuple(tuple(round(float(p), 6) for p in point.detach()) for point in strategy.arch.probabilities())
    others = () if derived_by.scored_by is None else _others(plan, subject.supernet, fit, strategy.scores())
    output = SearchOutput(tuple(architecture.choices), contiguous(network.state_dict()), training.step, others)
    return Found(architecture, replace(derived_by, probabilities=probabilities), output)
