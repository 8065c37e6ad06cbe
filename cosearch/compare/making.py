"""The runs of a comparison made by an engine: those that are missing, and those that were interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cosearch.compare.plan import PlannedRun, controls_first
from cosearch.compare.worker import RunJob, make_run
from cosearch.config.run import config_to_dict
from cosearch.fleet.cluster import HERE, Cluster
from cosearch.fleet.folder_making import FolderMaking, Tell, seen_by_workers
from cosearch.fleet.folder_work import FolderJob
from cosearch.fleet.folders import Shared, recover
from cosearch.fleet.log import WorkLog
from cosearch.fleet.work import Needs
from cosearch.fleet.workers import Workers
from cosearch.pipeline.run import is_finished
from cosearch.planning.identity import Inputs
from cosearch.planning.needs import needs_of
from cosearch.planning.recorded import config_of
from cosearch.record.failures import write_failures
from cosearch.record.rundir import RunDir
from cosearch.training.carried import carried

Begun = Mapping[tuple[str, str], Inputs]


def make_runs(
    folder: Path,
    runs: Sequence[PlannedRun],
    *,
    jobs: int | None,
    command: str,
    tell: Tell,
    inputs: Begun | None = None,
    cluster: Cluster = HERE,
) -> dict[str, str]:
    """Make the runs that are missing and go on with those that were interrupted.

    Args:
        folder: of the comparison.
        runs: see :func:`planned_runs`.
        jobs: runs at once, each in a process of its own; None: one here, as many as a cluster has room for.
        command: the command line, for the runs' records.
        tell: is told what happens, one line each.
        inputs: tables and teachers by task and strategy, which each node compares with what it has.
        cluster: where they are made.

    Returns:
        For each run that failed, why; the others are finished, without a control where theirs failed. One whose process was lost
        three times is among them.
        ``failures.json`` in the folder says the same, and ``workers.json`` what each process did.
    """
    failed: dict[str, str] = {}
    for run in runs:
        recover(folder / run.name)
    with (
        seen_by_workers(folder, cluster) as place,
        carried([run.config for run in runs], cluster) as files,
        WorkLog(folder, tell) as log,
    ):
        engine = cluster.engine(jobs, files.folder)
        needs = [needs_of(run.config) for run in runs]
        with Workers(make_run, engine, max(needs, key=lambda one: (one.cores, one.gpus), default=Needs())) as workers:
            for part in controls_first(runs):
                missing = [run for run in part if not _finished(folder / run.name)]
                todo = {run.name: _beside_finished(folder, runs, run, tell) for run in missing}
                work = [_job(run, place, command, inputs or {}, files.by_path) for run in todo.values()]
                needed, arrived = partial(_controls, todo), partial(_with_own_paths, todo)
                failed |= FolderMaking(folder, work, log, tell, needed=needed, arrived=arrived).make(workers)
    write_failures(folder, failed)
    return failed


def _beside_finished(folder: Path, runs: Sequence[PlannedRun], run: PlannedRun, tell: Tell) -> PlannedRun:
    """A run as it is to be made now: without its control where that is one of the comparison's own and has failed."""
    control = Path(run.config.control)
    if control not in [folder / one.name for one in runs] or _finished(control):
        return run
    tell(f"{run.name}: is made without its control {control.name}, which is not finished")
    return replace(run, config=replace(run.config, control=""))


def _job(run: PlannedRun, place: Shared, command: str, inputs: Begun, files: Mapping[str, tuple[str, ...]]) -> FolderJob[RunJob]:
    content = RunJob(config_to_dict(run.config), command, inputs.get((run.env, run.strategy)), files)
    return FolderJob(place, run.name, content)


def _controls(runs: Mapping[str, PlannedRun], name: str) -> list[str]:
    """The control of a run, which it is made from."""
    control = runs[name].config.control
    return [Path(control).name] if control else []


def _with_own_paths(runs: Mapping[str, PlannedRun], name: str, draft: Path) -> None:
    """Put the paths of this machine into the record of a run that was made on another one."""
    there, asked = RunDir.open(draft), runs[name].config
    recorded = config_of(there)
    own = replace(
        recorded,
        table=asked.table,
        control=asked.control,
        distill=replace(recorded.distill, teacher=asked.distill.teacher),
    )
    if own != recorded:
        with there.lock():
            there.change_record(config=config_to_dict(own))


def _finished(path: Path) -> bool:
    return (path / "run.json").is_file() and is_finished(RunDir.open(path))
