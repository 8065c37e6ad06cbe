"""A stage's training, run to its end: each update logged, the stage's state saved at intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cosearch.pipeline.checkpoint import State
from cosearch.pipeline.session import Checkpointing, RunLog
from cosearch.planning.plan import Plan
from cosearch.training.stage import Metrics, not_replayed


class Advancing(Protocol):
    """A stage's training: of one subject, or of several networks on shared frames."""

    @property
    def step(self) -> int:
        """Environment steps that are done."""

    @property
    def finished(self) -> bool:
        """Whether the stage's steps are done."""

    def advance(self) -> Metrics:
        """One round; its declared metrics."""

    def state(self) -> State:
        """Everything but the random streams, which the run saves."""

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`; returns the environments whose episode begins anew."""


def go_on(training: Advancing, saved: State, plan: Plan, log: RunLog, stage: str, offset: int = 0) -> None:
    """Restore a training; episodes that cannot be continued begin anew where the run allows that, and its record says so.

    Args:
        training: fresh.
        saved: its state.
        plan: says why the run is not exactly resumable, if it is not.
        log: is told.
        stage: name in the log.
        offset: environment steps of the stage before this training.

    Raises:
        EnvironmentFailedError: the environment replayed when the run began, and does not now.
    """
    anew = [int(i) for i in training.restore(saved)]
    if anew and plan.inexact_resume is None:
        raise not_replayed(anew[0], plan.config, str(log.run_path))
    if anew:
        log.begun_anew(stage, training.step + offset, anew)


def train(
    training: Advancing,
    log: RunLog,
    checkpoints: Checkpointing,
    *,
    stage: str,
    interval_s: float,
    extra: Callable[[], Mapping[str, object]] | None = None,
    state: Callable[[], State] | None = None,
    offset: int = 0,
    before: Callable[[], None] | None = None,
    after: Callable[[Mapping[str, object]], None] | None = None,
    until: int | None = None,
) -> None:
    """Run a training to its end, or to a step before it.

    Args:
        training: fresh or restored.
        log: gets each update.
        checkpoints: get the stage's state.
        stage: name in the log.
        interval_s: seconds between checkpoints.
        extra: more metrics of an update.
        state: the stage's state for checkpoints, with its ``step``; None: the training's own.
        offset: environment steps of the stage before this training.
        before: called before each update.
        after: gets the metrics of each update.
        until: environment steps of this training at which to stop; None: its end.
    """
    while not training.finished and (until is None or training.step < until):
        if before is not None:
            before()
        values = training.advance()
        if after is not None:
            after(values)
        log.add({**values, "step": training.step + offset, **(extra() if extra else {})}, stage)
        if checkpoints.age_s >= interval_s and not training.finished:
            checkpoints.save(state() if state else training.state())
