"""One process working on one run folder, by its parts: what it computes with, its clock, its log, its checkpoints.

The parts are made here, and ``run`` gives each stage those that it needs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cosearch.compute import compute_device
from cosearch.cost.accelerator import Accelerator
from cosearch.fleet.cluster import HERE, Cluster
from cosearch.pipeline.checkpoint import Checkpoint, RetrainOutput, SearchOutput, StageOutputs, State
from cosearch.planning.plan import Plan
from cosearch.record.events import EventWriter
from cosearch.record.json_record import to_json
from cosearch.record.run_record import FreshEpisodes, RunRecord
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.training.progress import Progress

TRAINING_STAGES = ("search", "retrain")


@dataclass(frozen=True)
class Resources:
    """What a process computes with.

    Attributes:
        device: where networks are trained.
        streams: the run's random streams.
        teacher: with its weights; None without one.
        cluster: where candidates are trained that are trained side by side.
    """

    device: torch.device
    streams: Streams
    teacher: Teacher | None
    cluster: Cluster = HERE


class Clock:
    """Seconds of work on a run, over all processes.

    Args:
        spent_s: seconds that earlier processes spent.
    """

    def __init__(self, spent_s: float = 0.0) -> None:
        self._earlier_s, self._started = spent_s, time.perf_counter()

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return self._earlier_s + time.perf_counter() - self._started


class RunLog:
    """The lines of a run: on the disk, as event files, and on the display.

    Args:
        run: the folder.
        clock: of the run.
        progress: display.
    """

    def __init__(self, run: RunDir, clock: Clock, progress: Progress) -> None:
        self._run, self._clock, self.progress = run, clock, progress
        self._events = EventWriter(run.path)

    def add(self, values: Mapping[str, object], stage: str) -> None:
        """Write one line to the log and to the event file, and show it.

        Args:
            values: declared metrics of an update.
            stage: name in the log.
        """
        line = {"stage": stage, "wall_s": round(self._clock.spent_s, 3), **values}
        self._run.append_metrics(line)
        self._events.add(line)
        self._events.flush()
        self.progress.update(line)

    @property
    def run_path(self) -> Path:
        """The run folder."""
        return self._run.path

    def begun_anew(self, stage: str, step: int, environments: Sequence[int]) -> None:
        """Say and record that the episodes of some environments could not be continued, after a kill or a pause.

        Args:
            stage, step: where the run stood.
            environments: whose episodes begin anew.
        """
        record = self._run.read(RunRecord)
        entry = FreshEpisodes(stage=stage, step=step, environments=tuple(environments))
        self._run.change_record(fresh_episodes=[to_json(each) for each in (*record.fresh_episodes, entry)])
        self.progress.note(f"{stage}, step {step:,}: {len(environments)} running episodes could not be continued and begin anew")

    def close(self) -> None:
        """Close the event file."""
        self._events.close()


class Checkpointing:
    """The newest checkpoint of a run, and the writing of the next ones.

    Args:
        run: the folder.
        current: the newest checkpoint.
        streams: the run's random streams, saved with each one.
        clock: of the run.
        accelerator: saved with each one; None on a device with a table.
    """

    def __init__(
        self, run: RunDir, current: Checkpoint, streams: Streams, clock: Clock, accelerator: Accelerator | None = None
    ) -> None:
        self._run, self._streams, self._clock, self._accelerator = run, streams, clock, accelerator
        self.current, self._saved_s = current, clock.spent_s

    @property
    def age_s(self) -> float:
        """Seconds of work since the newest checkpoint."""
        return self._clock.spent_s - self._saved_s

    def restore_streams(self) -> None:
        """Put the random streams where the checkpoint left them: after its stage has drawn what it begins with."""
        self._streams.load_state_dict(self.current.streams)

    def save(self, stage_state: State | None) -> None:
        """Write a checkpoint of the stage in progress.

        Args:
            stage_state: everything that the stage needs to go on, with its ``step``; None at a stage's begin.
        """
        self.current = replace(
            self.current,
            stage_state=stage_state,
            wall_s=self._clock.spent_s,
            ordinal=self.current.ordinal + 1,
            streams=self._streams.state_dict(),
            accelerator=None if self._accelerator is None else self._accelerator.state(),
        )
        self._saved_s = self.current.wall_s
        self._run.save_checkpoint(self.current.to_dict(), self.current.ordinal)

    def finish_stage(self, following: str, *, search: SearchOutput | None = None, retrain: RetrainOutput | None = None) -> None:
        """The stage in progress is done: save its output and go on to the next.

        Args:
            following: name of the next stage.
            search, retrain: the output of the stage that is done; None keeps what there is.
        """
        outputs = self.current.outputs
        outputs = replace(outputs, search=search or outputs.search, retrain=retrain or outputs.retrain)
        self.current = replace(self.current, stage=following, outputs=outputs)
        self.save(None)

    def begin_again(self, stage: str, search: SearchOutput) -> None:
        """Do a stage again for another architecture: save what it begins with; what came after it is of the one before.

        Args:
            stage: its name.
            search: the architecture and its weights.
        """
        self.current = replace(self.current, stage=stage, outputs=StageOutputs(search))
        self.save(None)

    def go_back_to(self, stage: str) -> None:
        """Do a stage again from its begin; the outputs of those before it are there."""
        self.current = replace(self.current, stage=stage)


@dataclass(frozen=True)
class Session:
    """The parts of one process's work on a run.

    Attributes:
        plan: the resolved run.
        run: its folder, locked by the caller.
        resources: what it computes with.
        clock: seconds of work.
        log: lines and display.
        checkpoints: the newest one, and the writing of the next.
    """

    plan: Plan
    run: RunDir
    resources: Resources
    clock: Clock
    log: RunLog
    checkpoints: Checkpointing


def open_session(run: RunDir, plan: Plan, progress: Progress, cluster: Cluster = HERE) -> Session:
    """Take up a run at its newest checkpoint, or at its begin: streams and accelerator restored, the log cut back to it.

    Args:
        run: the run folder, locked by the caller.
        plan: the resolved run.
        progress: display.
        cluster: where candidates are trained that are trained side by side.

    Raises:
        ConfigError: the checkpoint's random streams are of another seed or version.
        RunFolderError: all checkpoints are damaged.
    """
    device, streams = compute_device(plan.config.compute), Streams(plan.config.seed)
    teacher = plan.load_teacher(device)
    saved = run.load_checkpoint()
    current = Checkpoint("search", streams.state_dict()) if saved is None else Checkpoint.from_dict(saved)
    streams.load_state_dict(current.streams)
    if plan.accelerator is not None and current.accelerator is not None:
        plan.accelerator.restore(current.accelerator)
    clock = Clock(current.wall_s)
    if current.stage in TRAINING_STAGES:
        run.truncate_metrics(current.step, current.stage)
    log = RunLog(run, clock, progress)
    resources = Resources(device, streams, teacher, cluster)
    return Session(plan, run, resources, clock, log, Checkpointing(run, current, streams, clock, plan.accelerator))
