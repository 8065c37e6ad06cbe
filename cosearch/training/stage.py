"""One stage of learning, whatever the algorithm: its data, how far it is, and the loop that ends with its steps.

The search of a supernet, the training of one candidate, the retraining of the derived network and the training of a teacher
are this loop with another subject; a round (play, then learn) is that of ``on_policy`` or ``off_policy``. The whole state can be
saved between two rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from torch import Tensor, nn

from cosearch.config.run import Config
from cosearch.record.metrics import number
from cosearch.record.state import State, read, read_list, read_state
from cosearch.rl.envs import VectorEnv
from cosearch.rl.learning.lanes import Lanes
from cosearch.rl.learning.learner import Subject
from cosearch.rl.rollout import RewardScale
from cosearch.rl.teacher import Teacher
from latency_tables.errors import EnvironmentFailedError

Metrics = dict[str, object]


class Trainable(Subject, Protocol):
    """A subject whose learning rate can be set, that logs, saves and restores itself."""

    @property
    def network(self) -> nn.Module:
        """The module whose weights learn."""

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps."""

    def set_eps(self, eps: float) -> None:
        """Adam's ``eps`` of the next steps; until then PPO's."""

    def see(self, frames: Tensor) -> None:
        """Update the observation statistics from ``[time, envs, *frame_shape]``; after each update of the weights."""

    def metrics(self) -> dict[str, object]:
        """Declared metrics beyond the learner's."""

    def state(self) -> State:
        """Everything, as tensors and plain values."""

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""


@dataclass
class Stage:
    """What is trained, on what, for how long, and how far it is.

    Attributes:
        config: the run's configuration.
        subject: what is trained.
        teacher: its labels are distilled; None for none.
        env: the environments, owned by the stage.
        lanes: threads that share each minibatch, owned by the stage.
        total_steps: environment steps of the stage.
        span: the stage's begin and end in the run, as shares of the run's environment steps.
        lr: learning rate at the stage's begin and end.
        step: environment steps that are done.
    """

    config: Config
    subject: Trainable
    teacher: Teacher | None
    env: VectorEnv
    lanes: Lanes
    total_steps: int
    span: tuple[float, float]
    lr: tuple[float, float]
    step: int = 0

    @property
    def finished(self) -> bool:
        """Whether the stage's steps are done."""
        return self.step >= self.total_steps

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0..1."""
        return min(1.0, self.step / self.total_steps)

    @property
    def distill_weight(self) -> float | None:
        """Share of the distillation's weights that holds now; None without a teacher."""
        if self.teacher is None:
            return None
        begin, end = self.span
        return self.config.distill.share_at(begin + (end - begin) * self.progress)


def not_replayed(environment: int, config: Config, run: str) -> EnvironmentFailedError:
    """The error of an episode that a run could have continued when it began, and cannot now.

    Args:
        environment: number of the first one of which this is so.
        config: of the run.
        run: its folder.
    """
    return EnvironmentFailedError(
        f"environment {environment} of {config.env.name} does not replay: its recorded actions after its seed lead to other "
        "frames, so it is another one now, or not deterministic after reset(seed). Give the old one back, or go on with "
        f"fresh episodes: `cosearch resume {run} --fresh-episodes`"
    )


class Player(Protocol):
    """What steps the environments and counts their episodes."""

    @property
    def scale(self) -> RewardScale:
        """What divides the rewards."""

    @property
    def score(self) -> float | None:
        """Mean return of the last episodes; None before the first one has ended."""

    @property
    def episodes(self) -> int:
        """Episodes that have ended."""


class Rounds(Protocol):
    """What a stage repeats."""

    @property
    def collector(self) -> Player:
        """What plays."""

    def advance(self) -> Metrics:
        """Play ``rl.rollout_steps`` steps of all environments and learn; moves the stage's ``step``.

        Returns:
            Declared metrics, without ``step``, ``score_train``, ``episodes``, those of the subject, and the speed.
        """

    def state(self) -> State:
        """Everything but the stage's step, the subject and the random streams."""

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`; returns the environments whose episode begins anew, see ``VectorEnv.restore``."""


class Training:
    """A stage in progress.

    Args:
        stage: what is trained.
        rounds: how.
    """

    def __init__(self, stage: Stage, rounds: Rounds) -> None:
        self.stage, self.rounds = stage, rounds
        self._divergences: list[float] = []  # from the teacher, of each round

    @property
    def step(self) -> int:
        """Environment steps that are done."""
        return self.stage.step

    @property
    def finished(self) -> bool:
        """Whether the stage's steps are done."""
        return self.stage.finished

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0..1."""
        return self.stage.progress

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one round."""
        return self.stage.config.env.num_envs * self.stage.config.rl.rollout_steps

    @property
    def score(self) -> float | None:
        """Mean return of the last episodes; None before the first one has ended."""
        return self.rounds.collector.score

    @property
    def divergence(self) -> float | None:
        """Mean divergence from the teacher over the last half of the rounds, nats; None without a teacher's actor.

        After few steps it tells networks apart that returns do not. Means of training losses as estimates of what a network will
        be worth: Ru et al., Speedy Performance Estimation for Neural Architecture Search, NeurIPS 2021, arXiv 2006.04492.
        """
        last = self._divergences[len(self._divergences) // 2 :]
        return fmean(last) if last else None

    def advance(self) -> Metrics:
        """One round.

        Returns:
            Declared metrics of the round, ``step`` and ``steps_per_s`` included.

        Raises:
            NonFiniteError: an action value, loss or gradient is not finite.
            EnvironmentFailedError: an environment failed.
        """
        started, begun = time.perf_counter(), self.step
        values = self.rounds.advance()
        if (divergence := number(values, "distill_actor")) is not None:
            self._divergences.append(divergence)
        return {
            "step": self.step,
            "score_train": self.score,
            "episodes": self.rounds.collector.episodes,
            **values,
            **self.stage.subject.metrics(),
            "steps_per_s": (self.step - begun) / (time.perf_counter() - started),
        }

    def run(self, report: Callable[[Metrics], None], until: int | None = None) -> None:
        """Advance to the end, or to a step before it.

        Args:
            report: gets each round's metrics, may save :meth:`state`, and may raise to interrupt.
            until: environment steps; None: the end.
        """
        while not self.finished and (until is None or self.step < until):
            report(self.advance())

    def state(self) -> State:
        """Everything but the random streams, which the run saves."""
        return {
            "step": self.step,
            "subject": self.stage.subject.state(),
            "divergences": list(self._divergences),
            **self.rounds.state(),
        }

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`; returns the environments whose episode begins anew, see ``VectorEnv.restore``."""
        self.stage.step = read(state, "step", int)
        self._divergences = read_list(state, "divergences", float) if "divergences" in state else []  # of before it was saved
        self.stage.subject.restore(read_state(state, "subject"))
        return self.rounds.restore(state)

    def close(self) -> None:
        """Release the environments and the threads."""
        try:
            self.stage.env.close()
        finally:
            self.stage.lanes.close()
