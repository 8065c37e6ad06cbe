"""The retraining of several candidates as successive halving: all begin it, the best half goes on, the last one to the end.

Candidates are the best by the search's score, and the largest networks (``cosearch.space.derivation.shortlist``). Each begins
the retraining that it would have alone: from its searched weights, with the learning rate and the distillation of its own steps.
After a rung those with the lower loss go on where they stopped: the mean divergence from the teacher over the rung, without a
teacher minus the mean return of the last training episodes. All play the same levels with the same random numbers, so that they
differ by their networks. The steps of the candidates that are given up are taken from the last rung: the run's total stays.
Paper: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
arXiv 1502.07943.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cosearch.pipeline.agent.fine_tuning import FineTuning
from cosearch.pipeline.checkpoint import Candidate, RetrainOutput, SearchOutput, State
from cosearch.pipeline.search.derivation import contiguous, write_architecture
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import bracket_rungs, search_share
from cosearch.planning.plan import Plan
from cosearch.record.metrics import number
from cosearch.record.results.architecture import ArchitectureRecord, BracketRecord, Derivation
from cosearch.record.rundir import RunDir
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.seeding import Streams, derived_seed
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import as_deployed, as_trained, learning_rate, make_training
from cosearch.training.stage import Training
from latency_tables.errors import NonFiniteError, RunFailedError

THEN = "; then the best of a bracket at the begin of the retraining"


def write_winner(
    plan: Plan, run: RunDir, choices: Sequence[int], derived_by: Derivation, bracket: tuple[BracketRecord, ...]
) -> str:
    """Write ``architecture.json`` for the candidate that a bracket left.

    Args:
        plan: the resolved run.
        run: its folder.
        choices: of the candidate.
        derived_by: how the search chose the first one.
        bracket: all candidates, as they began.

    Returns:
        One line about it.
    """
    derived_by = replace(derived_by, method=derived_by.method.removesuffix(THEN) + THEN, bracket=bracket)
    return write_architecture(plan, run, plan.space.architecture(choices), derived_by)


@dataclass
class Contender:
    """A candidate of the bracket.

    Attributes:
        candidate: architecture and searched weights.
        losses: of the rungs that it took part in; None where it has none.
        env_steps: of its training so far.
        paused: its training and random streams between two rungs; None before the first.
        failure: why its training ended; None: it may go on.
    """

    candidate: Candidate
    losses: list[float | None] = field(default_factory=list)
    env_steps: int = 0
    paused: State | None = None
    failure: str | None = None


class Bracket:
    """The retraining stage of one run with several candidates.

    Args:
        plan: the resolved run.
        searched: the candidates.
        resources, run, log, checkpoints: of the session.
    """

    def __init__(
        self, plan: Plan, searched: SearchOutput, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing
    ) -> None:
        self.plan, self.config, self.searched, self.resources = plan, plan.config, searched, resources
        self.run, self.log, self.checkpoints = run, log, checkpoints
        self.contenders = [Contender(c) for c in (Candidate(searched.choices, searched.weights), *searched.others)]
        self.rungs = bracket_rungs(self.config, len(self.contenders))
        self.rung, self.alive = 0, list(range(len(self.contenders)))
        self.place = 0  # in the rung: which of those alive is trained
        self.seen: list[float] = []  # losses of its updates in this rung
        saved = checkpoints.current.stage_state
        if saved is not None:
            self.rung, self.alive, self.place, self.seen = saved["rung"], saved["alive"], saved["place"], saved["seen"]
            for contender, values in zip(self.contenders, saved["contenders"]):
                contender.losses, contender.env_steps, contender.paused = values["losses"], values["env_steps"], values["paused"]
                contender.failure = values.get("failure")
            checkpoints.restore_streams()

    @property
    def done(self) -> int:
        """Environment steps of all candidates."""
        return sum(contender.env_steps for contender in self.contenders)

    def state(self) -> State:
        """The stage's state for a checkpoint, between two updates of a candidate or two candidates."""
        return {
            "step": self.done,
            "rung": self.rung,
            "alive": list(self.alive),
            "place": self.place,
            "seen": list(self.seen),
            "contenders": [
                {"losses": list(one.losses), "env_steps": one.env_steps, "paused": one.paused, "failure": one.failure}
                for one in self.contenders
            ],
        }

    def choose(self) -> SearchOutput:
        """Train all rungs but the last.

        Returns:
            The candidate that is left, as the search gave it.

        Raises:
            RunFailedError: the training of every candidate failed.
        """
        self.log.progress.stage("retrain", sum(rung.candidates * rung.steps for rung in self.rungs), self.done)
        while self.rung < len(self.rungs) - 1:
            while self.place < len(self.alive):
                self._train(self.contenders[self.alive[self.place]])
                self.place, self.seen = self.place + 1, []
            self._halve()
        won = self.contenders[self.alive[0]].candidate
        return SearchOutput(won.choices, won.weights, self.searched.steps)

    def finish(self) -> tuple[SearchOutput, RetrainOutput]:
        """Train to the end of the last rung.

        Returns:
            The candidate that was left, as the search gave it, and its final weights with the steps of all candidates.

        Raises:
            NonFiniteError: the last candidate's loss is not finite.
            RunFailedError: the training of every candidate failed before.
        """
        won = self.choose()
        network, rounded = self._train(self.contenders[self.alive[0]])
        return won, RetrainOutput(contiguous(as_deployed(network, self.config).state_dict()), self.done, rounded)

    def _halve(self) -> None:
        """Keep those with the lowest losses of the rung, of equal ones those with the higher score of the search.

        One that failed is never kept, so fewer than planned may go on.

        Raises:
            RunFailedError: all failed.
        """

        def loss(index: int) -> float:
            value = self.contenders[index].losses[-1]
            return math.inf if value is None else value

        sound = [index for index in self.alive if self.contenders[index].failure is None]
        if not sound:
            raise RunFailedError(
                f"all {len(self.alive)} candidates that were left of the bracket failed, so there is none to retrain; a smaller "
                f"rl.lr may help. The last one: {self.contenders[self.alive[-1]].failure}"
            )
        kept = sorted(sound, key=loss)[: self.rungs[self.rung + 1].candidates]
        for index in set(self.alive) - set(kept):
            self.contenders[index].paused = None
        self.rung, self.alive, self.place = self.rung + 1, sorted(kept), 0
        if self.rung == len(self.rungs) - 1:
            self._write(self.contenders[self.alive[0]])

    def _write(self, won: Contender) -> None:
        """Write ``architecture.json`` anew, for the candidate that is left."""
        derived_by = self.run.read(ArchitectureRecord).derived_by
        cost, space = self.plan.constraints[0].cost, self.plan.space
        bracket = tuple(
            BracketRecord(
                choices=one.candidate.choices,
                latency_s=cost.exact(space.architecture(one.candidate.choices)),
                env_steps=one.env_steps,
                losses=tuple(one.losses),
            )
            for one in self.contenders
        )
        self.log.progress.note(write_winner(self.plan, self.run, won.candidate.choices, derived_by, bracket))

    def _train(self, contender: Contender) -> tuple[AgentNetwork, int]:
        """One candidate's steps of this rung; its network, and how many steps were with int8 rounding."""
        last = self.rung == len(self.rungs) - 1
        streams = Streams(derived_seed(self.config.seed, "bracket", 63))
        network, training = self._opened(contender, streams)
        before = self.done - contender.env_steps
        ended = sum(rung.steps for rung in self.rungs[: self.rung + 1])
        fine = FineTuning(self.plan, network, self.resources.streams, sum(rung.steps for rung in self.rungs))
        if last and contender.paused is not None:
            fine.restore(contender.paused)

        def pause() -> None:
            contender.env_steps = training.step
            contender.paused = {"training": training.state(), "streams": streams.state_dict(), **fine.state()}

        def state() -> State:
            pause()
            return self.state()

        def go(until: int | None) -> None:
            train(
                training,
                self.log,
                self.checkpoints,
                stage="retrain",
                interval_s=self.config.budget.checkpoint_interval_s,
                extra=lambda: {"candidate": "/".join(self.plan.space.architecture(contender.candidate.choices).choice_names)},
                state=state,
                offset=before,
                after=self._see,
                until=until,
            )

        try:
            if last:
                go(fine.begins_at)
                if not training.finished:
                    fine.begin(training.step, self.log.progress)
            go(ended)
            pause()
            contender.losses.append(self._loss(training))
        except NonFiniteError as error:
            if last:
                raise
            contender.env_steps, contender.failure = training.step, str(error)
            contender.losses.append(None)
            self.log.progress.note(f"bracket: a candidate failed and does not go on: {error}")
        finally:
            training.close()
        return network, fine.end(training.step)

    def _see(self, values: Mapping[str, object]) -> None:
        value = number(values, "distill_actor")
        if value is not None:
            self.seen.append(value)

    def _loss(self, training: Training) -> float | None:
        if self.seen and self.config.distill.actor > 0.0:
            return sum(self.seen) / len(self.seen)
        return None if training.score is None else -training.score

    def _opened(self, contender: Contender, streams: Streams) -> tuple[AgentNetwork, Training]:
        """A candidate's network and training, where they stopped."""
        config, candidate = self.config, contender.candidate
        network = as_trained(derive(self.plan.space.architecture(candidate.choices), streams.torch("weights")), config, streams)
        inherited = config.budget.retrain_init == "inherit"
        if inherited:
            network.load_state_dict(candidate.weights)
        training = make_training(
            config,
            NetworkSubject(network, lr=learning_rate(config), bf16=config.rl.bf16, device=self.resources.device),
            streams,
            self.resources.teacher,
            inherited=inherited,
            total_steps=sum(rung.steps for rung in self.rungs),
            span=(search_share(config), 1.0),
            env_index=1,
        )
        if contender.paused is not None:
            before = self.done - contender.env_steps
            go_on(training, contender.paused["training"], self.plan, self.log, "retrain", before)
            streams.load_state_dict(contender.paused["streams"])
        return network, training
