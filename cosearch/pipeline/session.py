"""One process working on one run folder: streams, clock, log and checkpoints, shared by all stages.

A checkpoint is one dictionary: the stage in progress, its state, the random streams, the seconds spent and what earlier
stages handed on. It is saved between two updates, at intervals and at the end of each stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cosearch.compute import compute_device
from cosearch.planning.plan import Plan
from cosearch.record.events import EventWriter
from cosearch.record.rundir import RunDir
from cosearch.seeding import Streams
from cosearch.training.progress import Progress
from cosearch.training.stage import Training

TRAINING_STAGES = ("search", "retrain")


class Session:
    """The state of a run while a process works on it.

    Args:
        run: the run folder, locked by the caller.
        plan: the resolved run.
        progress: display.
    """

    def __init__(self, run: RunDir, plan: Plan, progress: Progress) -> None:
        self.run, self.plan, self.progress = run, plan, progress
        config = plan.config
        self.device = compute_device(config.compute)
        self.streams = Streams(config.seed)
        self.teacher = plan.load_teacher(self.device)
        self.search_teacher = plan.search_teacher(self.teacher)
        self.checkpoint: dict[str, Any] = run.load_checkpoint() or {
            "stage": "search",
            "stage_state": None,
            "handed_on": {},
            "wall_s": 0.0,
            "ordinal": 0,
            "streams": self.streams.state_dict(),
        }
        self.streams.load_state_dict(self.checkpoint["streams"])
        if plan.accelerator is not None and "accelerator" in self.checkpoint:
            plan.accelerator.restore(self.checkpoint["accelerator"])
        self._started = time.perf_counter()
        self._saved = self._started
        step = self.checkpoint["stage_state"]["step"] if self.checkpoint["stage_state"] else 0
        if self.stage in TRAINING_STAGES:
            run.truncate_metrics(step, self.stage)
        self.events = EventWriter(run.path)

    @property
    def stage(self) -> str:
        """Name of the stage in progress."""
        return self.checkpoint["stage"]

    @property
    def handed_on(self) -> dict[str, Any]:
        """What finished stages left for the next ones."""
        return self.checkpoint["handed_on"]

    @property
    def wall_s(self) -> float:
        """Seconds of work so far, over all resumes."""
        return self.checkpoint["wall_s"] + time.perf_counter() - self._started

    def save(self, stage_state: dict[str, Any] | None) -> None:
        """Write a checkpoint of the stage in progress."""
        ordinal = self.checkpoint["ordinal"] + 1
        self.checkpoint = {
            **self.checkpoint,
            "stage_state": stage_state,
            "wall_s": self.wall_s,
            "ordinal": ordinal,
            "streams": self.streams.state_dict(),
            **({} if self.plan.accelerator is None else {"accelerator": self.plan.accelerator.state()}),
        }
        self._started = self._saved = time.perf_counter()
        self.run.save_checkpoint(self.checkpoint, ordinal)

    def finish_stage(self, following: str, **handed_on: Any) -> None:
        """The stage is done: hand its result on and save."""
        self.checkpoint = {**self.checkpoint, "stage": following, "handed_on": {**self.handed_on, **handed_on}}
        self.save(None)

    def close(self) -> None:
        """Close the event file."""
        self.events.close()

    def train(
        self,
        training: Training,
        *,
        stage: str,
        extra: Callable[[], dict[str, Any]] | None = None,
        state: Callable[[], dict[str, Any]] | None = None,
        offset: int = 0,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Run a training to its end, logging each update and saving at intervals.

        Args:
            training: fresh or restored.
            stage: name in the log.
            extra: more metrics of an update.
            state: the stage's state for checkpoints, with its ``step``; None: the training's own.
            offset: steps of the stage before this training.
            before: called before each update.
        """
        interval = self.plan.config.budget.checkpoint_interval_s
        while not training.finished:
            if before is not None:
                before()
            values = training.advance()
            values["step"] += offset
            self.log({**values, **(extra() if extra else {})}, stage)
            if time.perf_counter() - self._saved >= interval and not training.finished:
                self.save(state() if state else training.state())

    def log(self, values: dict[str, Any], stage: str) -> None:
        """Write one line to the log and to the event file, and show it.

        Args:
            values: declared metrics of an update.
            stage: name in the log.
        """
        line = {"stage": stage, "wall_s": round(self.wall_s, 3), **values}
        self.run.append_metrics(line)
        self.events.add(line)
        self.events.flush()
        self.progress.update(line)
