"""The search of a one-shot strategy: rounds of training a supernet along drawn paths, and of scoring proposals with its weights.

A run that is killed goes on between two updates of the supernet or two scores; a score that was in flight is computed again, to
the same figure: its games follow from the run's seed alone.
"""

from __future__ import annotations

import bisect
import itertools
import time
from dataclasses import replace
from typing import NotRequired, TypedDict

import torch

from cosearch.cost.accelerator import SavedAccelerator
from cosearch.pipeline.checkpoint import SearchOutput, State
from cosearch.pipeline.search.candidate_records import Told
from cosearch.pipeline.search.co_design import progress_of
from cosearch.pipeline.search.derivation import Found, contiguous
from cosearch.pipeline.search.told import PredictedCosts, best_of, check_failures, records
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.shared_weights import keep_shared
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import OneShotRound, one_shot_rounds, search_share
from cosearch.planning.plan import Plan
from cosearch.record.results.architecture import Derivation
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import Teacher
from cosearch.rl.validation import without_validation
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import Evaluation, Feasible, TargetsInTurn
from cosearch.strategies.weight_sharing import OneShotStrategy, StagedStrategy, scoring_of
from cosearch.training.algorithms import as_trained, learning_rate, make_training
from cosearch.training.path_subject import PathSubject
from cosearch.training.shared_scores import EpisodeScores, FrameScores, SharedScores
from cosearch.training.stage import Training
from latency_tables.errors import NonFiniteError, RunFailedError

METHOD = "best score with the shared weights among the proposals"
EQUAL = "first of the proposals: their scores with the shared weights are all equal"


class Best(TypedDict):
    """The best proposal so far, and the design that it was scored on."""

    index: int
    accelerator: NotRequired[SavedAccelerator]


def one_shot_strategy(plan: Plan, streams: Streams, targets: TargetsInTurn) -> OneShotStrategy:
    """The strategy of a run.

    Args:
        plan: the resolved run.
        streams: the run's random streams.
        targets: of its agents.
    """
    strategy: OneShotStrategy = plan.strategy.make(
        plan.space,
        plan.strategy.options(plan.config.strategy),
        streams.torch("arch"),
        targets if plan.agents else targets.each[0],
    )
    return strategy


def shared_scores(plan: Plan, subject: PathSubject, teacher: Teacher | None) -> SharedScores:
    """What scores the proposals of a run.

    Args:
        plan: the resolved run.
        subject: the supernet.
        teacher: labels held-out frames; None for none.
    """
    if scoring_of(plan.strategy, plan.config.strategy).by == "frames":
        return FrameScores(plan.config, subject, teacher)
    return EpisodeScores(plan.config, subject)


def path_subject(plan: Plan, strategy: OneShotStrategy, streams: Streams, device: torch.device) -> PathSubject:
    """The supernet of a run with its paths, before its first step.

    Args:
        plan: the resolved run.
        strategy: draws the paths.
        streams: the run's random streams.
        device: where to train.
    """
    config = plan.config
    return PathSubject(
        as_trained(SuperNet(plan.space, streams.torch("weights")), config, streams),
        strategy,
        paths=plan.strategy.paths(config.strategy),
        fresh=config.strategy.update_path == "fresh" and config.rl.algorithm != "a2c",
        lr=learning_rate(config),
        bf16=config.rl.bf16,
        device=device,
    )


def one_shot_training(plan: Plan, subject: PathSubject, streams: Streams, teacher: Teacher | None, steps: int) -> Training:
    """The training of the supernet, on the levels that validation leaves, at a constant learning rate.

    Args:
        plan: the resolved run.
        subject: the supernet.
        streams: the run's random streams.
        teacher: its labels are distilled; None for none.
        steps: environment steps of all rounds.
    """
    config, lr = replace(plan.config, env=without_validation(plan.config.env)), learning_rate(plan.config)
    span = (0.0, search_share(config))
    return make_training(config, subject, streams, teacher, total_steps=steps, span=span, lr=(lr, lr))


def one_shot_search(plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> tuple[Found, ...]:
    """Search to the end of its budget, or go on where the checkpoint stands.

    Args:
        plan, resources, run, log, checkpoints: of the session; the run folder gets ``supernet.pt``.

    Returns:
        What was found for each agent of the plan.
    """
    search = OneShotSearch(plan, resources, log, checkpoints)
    try:
        search.run()
    finally:
        search.training.close()
    return search.found(run)


class OneShotSearch:
    """The search stage of one run.

    Args:
        plan, resources, log, checkpoints: of the session.
    """

    def __init__(self, plan: Plan, resources: Resources, log: RunLog, checkpoints: Checkpointing) -> None:
        self.plan, self.config, self.log, self.checkpoints = plan, plan.config, log, checkpoints
        streams, teacher = resources.streams, plan.search_teacher(resources.teacher)
        self.rounds = one_shot_rounds(self.config, scoring_of(plan.strategy, self.config.strategy), len(plan.every))
        self.targets = TargetsInTurn(tuple(Feasible(agent.constraints) for agent in plan.every))
        self.strategy = one_shot_strategy(plan, streams, self.targets)
        self.subject = path_subject(plan, self.strategy, streams, resources.device)
        steps = sum(one.train_steps for one in self.rounds)
        self.training = one_shot_training(plan, self.subject, streams, teacher, steps)
        self.scores = shared_scores(plan, self.subject, teacher)
        self.costs = PredictedCosts(plan)
        self.told: list[Told] = []
        self.best: list[Best | None] = [None for _ in plan.every]
        self.begun, self.ready = 0, 0  # rounds whose training, and whose scoring, has begun
        saved = checkpoints.current.stage_state
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: State) -> None:
        self.told, self.best, self.begun, self.ready = saved["told"], saved["best"], saved["begun"], saved["ready"]
        go_on(self.training, saved["training"], self.plan, self.log, "search", self.scored)
        self.strategy.restore(saved["strategy"])
        if isinstance(self.scores, FrameScores):
            self.scores.restore(saved["frames"])
        self.checkpoints.restore_streams()

    @property
    def done(self) -> int:
        """Environment steps so far."""
        return self.training.step + self.scored

    @property
    def scored(self) -> int:
        """Environment steps of the scores so far."""
        return sum(told["env_steps"] for told in self.told)

    def state(self) -> State:
        """The stage's state for a checkpoint."""
        return {
            "step": self.done,
            "training": self.training.state(),
            "strategy": self.strategy.state(),
            **({"frames": self.scores.state()} if isinstance(self.scores, FrameScores) else {}),
            "told": list(self.told),
            "best": list(self.best),
            "begun": self.begun,
            "ready": self.ready,
        }

    def run(self) -> None:
        """Train and score, round after round."""
        total = sum(one.train_steps + sum(one.scored_steps) for one in self.rounds)
        self.log.progress.stage("search", total, self.done)
        train_until, told_until = 0, 0
        for index, one in enumerate(self.rounds):
            train_until, told_until = train_until + one.train_steps, told_until + len(one.scored_steps)
            if self.begun == index:
                if isinstance(self.strategy, StagedStrategy):
                    self.strategy.begin_round(index)
                self.begun = index + 1
            if self.training.step < train_until:
                self._train(train_until)
            if len(self.told) < told_until:
                self._score(index, one, told_until - len(one.scored_steps))

    def _train(self, until: int) -> None:
        def before() -> None:
            self.targets.take_turn(self.training.step // self.training.steps_per_update)

        train(
            self.training,
            self.log,
            self.checkpoints,
            stage="search",
            interval_s=self.config.budget.checkpoint_interval_s,
            extra=lambda: progress_of(self.plan.accelerator),
            state=self.state,
            offset=self.scored,
            before=before,
            until=until,
        )

    def _score(self, index: int, one: OneShotRound, before: int) -> None:
        """Score the proposals of a round that are not scored yet; ``before`` were told in the rounds before it."""
        if self.ready == index:
            if isinstance(self.scores, FrameScores):
                self.scores.play(sum(one.scored_steps), self.training.stage.distill_weight)
            self.ready = index + 1
        for steps in one.scored_steps[len(self.told) - before :]:
            self._score_one(steps)
            if self.checkpoints.age_s >= self.config.budget.checkpoint_interval_s:
                self.checkpoints.save(self.state())

    def _score_one(self, steps: int) -> None:
        accelerator, index = self.plan.accelerator, len(self.told)
        if accelerator is not None:
            accelerator.start_over()
        self.targets.take_turn(index)
        architecture = self.strategy.ask()
        if accelerator is not None:
            accelerator.optimise(architecture, accelerator.options.evaluations)
        latency_s, name = self.plan.constraints[0].cost.exact(architecture), "/".join(architecture.choice_names)
        score, failure, started = None, "", time.perf_counter()
        try:
            score = self.scores.score(architecture, steps)
        except NonFiniteError as error:
            failure = str(error)
        steps_per_s = steps / (time.perf_counter() - started)
        self.strategy.tell(
            Evaluation(
                architecture,
                score,
                latency_s,
                failed=score is None,
                asked=index,
                energy_j=self.costs.energy_j(architecture),
                memory_bytes=self.costs.memory_bytes(architecture),
                env_steps=steps,
            )
        )
        told: Told = {"choices": list(architecture.choices), "score": score, "latency_s": latency_s, "env_steps": steps}
        self.told.append({**told, "failure": failure} if score is None else told)
        for agent in range(len(self.best)):
            if score is not None and best_of(agent, self.strategy, self.targets, self.told, self.plan) == index:
                design: Best = {"index": index}
                self.best[agent] = design if accelerator is None else {**design, "accelerator": accelerator.state()}
        line = {"step": self.done, "candidate": name, "latency_argmax_s": latency_s, "score_shared": score}
        self.log.add({**line, **progress_of(accelerator), "steps_per_s": steps_per_s}, "search")
        if score is None:
            check_failures(self.told, sum(len(each.scored_steps) for each in self.rounds), name, self.log)

    def found(self, run: RunDir) -> tuple[Found, ...]:
        """The best proposal for each agent, with the shared weights along its path.

        Args:
            run: gets ``supernet.pt``.

        Raises:
            RunFailedError: no proposal was scored, or none that meets the targets of an agent.
        """
        keep_shared(run, self.subject.supernet.cpu())
        names = list(self.plan.agents) or [""]
        return tuple(self._found(*each) for each in zip(names, self.best, self.targets.each, strict=True))

    def _beside(self, index: int) -> list[Told]:
        """The proposals of the same stage as this one, which the same weights scored."""
        ends = list(itertools.accumulate(len(one.scored_steps) for one in self.rounds))
        stage = bisect.bisect(ends, index)
        return self.told[ends[stage - 1] if stage else 0 : ends[stage]]

    def _found(self, name: str, best: Best | None, target: Feasible) -> Found:
        plan, within = self.plan, f" that meets the targets of {name}" if name else ""
        if best is None:
            raise RunFailedError(f"no proposal{within} could be scored, so there is no result")
        architecture = plan.space.architecture(self.told[best["index"]]["choices"])
        network = derive(architecture, torch.Generator().manual_seed(0), self.subject.supernet)
        if plan.accelerator is not None and "accelerator" in best:
            plan.accelerator.return_to(best["accelerator"])
        scored = [told for told in self._beside(best["index"]) if told["score"] is not None]
        scores = [told["score"] for told in scored if not name or target(plan.space.architecture(told["choices"]))]
        method = METHOD if len(set(scores)) > 1 or len(scores) == 1 else EQUAL
        method += " of the last stage" if len(self.rounds) > 1 else ""
        derived_by = Derivation(
            method=method + (" that meet the targets" if name else ""),
            scored_by=scoring_of(plan.strategy, self.config.strategy).by,
            candidates=records(self.told, plan, plan.agents.get(name, plan)),
            supernet_steps=self.training.step,
        )
        return Found(
            architecture, derived_by, SearchOutput(tuple(architecture.choices), contiguous(network.state_dict()), self.done)
        )
