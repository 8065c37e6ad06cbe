"""The runs of a comparison made by an engine: those that are missing, and those that were interrupted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cosearch.compare.plan import PlannedRun
from cosearch.compare.worker import RunJob, RunMade, make_run
from cosearch.config.run import Config, config_to_dict
from cosearch.fleet.cluster import HERE, Cluster
from cosearch.fleet.folders import Shared, marked, packed, recover, unmarked, unpack
from cosearch.fleet.watch import Watch
from cosearch.fleet.work import TRIES, Needs
from cosearch.fleet.workers import Workers
from cosearch.pipeline.run import is_finished
from cosearch.planning.control import RANDOM
from cosearch.planning.identity import Inputs
from cosearch.planning.recorded import config_of
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.rundir import RunDir
from cosearch.training.carried import carried
from latency_tables.errors import CosearchError, RunFailedError
from latency_tables.terminal import system_fault

FAILURES = "failures.json"
Tell = Callable[[str], None]
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
        For each run that failed, why; the others are finished. One whose process was lost three times is among them.
        ``failures.json`` in the folder says the same.
    """
    failed: dict[str, str] = {}
    for run in runs:
        recover(folder / run.name)
    with _visible(folder, cluster) as place, carried([run.config for run in runs], cluster) as files:
        engine = cluster.engine(jobs, files.folder)
        needs = [needs_of(run.config) for run in runs]
        with Workers(make_run, engine, max(needs, key=lambda one: (one.cores, one.gpus), default=Needs())) as workers:
            for controls in (True, False):
                todo = [run for run in runs if (run.strategy == RANDOM) == controls and not _finished(folder / run.name)]
                made = _Making(folder, place, todo, command, inputs or {}, files.by_path, tell)
                made.work(workers)
                failed |= made.failed
    write_failures(folder, failed)
    return failed


@contextmanager
def _visible(folder: Path, cluster: Cluster) -> Iterator[Shared]:
    """The folder as workers are to recognise it."""
    if not cluster.address:
        yield Shared(str(folder))
        return
    try:
        yield marked(folder)
    finally:
        unmarked(folder)


def write_failures(folder: Path, failed: Mapping[str, str]) -> None:
    """Record which runs failed, and why; without any the record is taken away."""
    if failed:
        write_bytes_atomic(folder / FAILURES, json.dumps({"format": 1, "failed": dict(failed)}, indent=1).encode() + b"\n")
    else:
        (folder / FAILURES).unlink(missing_ok=True)


def needs_of(config: Config) -> Needs:
    """What a run needs of a machine: a core for each thread or worker process, a GPU where it must have one."""
    return Needs(cores=max(config.threads or 1, config.strategy.workers), gpus=1.0 if config.compute == "cuda" else 0.0)


class _Making:
    """Some runs, their jobs, and what came of them.

    Args:
        folder, todo, command, tell: see :func:`make_runs`.
        place: the folder as workers are to recognise it.
        inputs: see :func:`make_runs`.
        files: see ``RunJob``.
    """

    def __init__(
        self,
        folder: Path,
        place: Shared,
        todo: Sequence[PlannedRun],
        command: str,
        inputs: Begun,
        files: Mapping[str, tuple[str, ...]],
        tell: Tell,
    ) -> None:
        self.folder, self.tell, self.failed = folder, tell, dict[str, str]()
        self.runs = list(todo)
        self.jobs = [
            RunJob(place, run.name, config_to_dict(run.config), command, inputs.get((run.env, run.strategy)), files)
            for run in todo
        ]
        self.watch, self._apart = Watch(len(todo)), False
        self._broke: Counter[str] = Counter()

    def work(self, workers: Workers) -> None:
        """Make them all."""
        workers.run(
            self.jobs,
            name=self._name,
            started=self._started,
            sent=self._sent,
            done=self._done,
            failed=self._failed,
            lost=self._end,
            tick=self._tick,
        )

    def _name(self, index: int) -> str:
        return f"the run {self.runs[index].name}"

    def _started(self, index: int, where: str) -> None:
        self.watch.started(self.runs[index].name, where)

    def _sent(self, index: int, text: str) -> None:
        self.watch.heard(self.runs[index].name)
        self.tell(f"{self.runs[index].name}: {text}")

    def _tick(self) -> None:
        for line in self.watch.faults():
            self.tell(line)

    def _done(self, index: int, made: RunMade) -> None:
        run, failure = self.runs[index], made.failure
        if made.folder is not None:
            failure = self._take(run, made.folder) or failure
        if made.unfinished and failure is None:
            if made.folder is None and not self._apart:
                self._apart = True
                self.tell("the nodes do not see this folder: runs come back in whole pieces")
            self.watch.paused(run.name)
            self.runs.append(run)
            self.jobs.append(replace(self.jobs[index], parts=self._parts(run)))
            return
        self._end(index, failure)

    def _failed(self, index: int, error: CosearchError) -> None:
        """A run broke by something that nobody foresaw, on one machine perhaps: it is tried again."""
        run = self.runs[index]
        self._broke[run.name] += 1
        if isinstance(error, RunFailedError) and self._broke[run.name] < TRIES:
            self.tell(f"{run.name}: is tried again, it broke: {str(error).strip().splitlines()[-1]}")
            self.watch.paused(run.name)
            self.runs.append(run)
            self.jobs.append(self.jobs[index])
        else:
            self._end(index, str(error))

    def _end(self, index: int, reason: str | None) -> None:
        name = self.runs[index].name
        self.watch.ended(name)
        self.tell(f"{name}: " + ("finished" if reason is None else f"failed: {reason}") + f"; {self.watch.summary()}")
        if reason is not None:
            self.failed[name] = reason

    def _parts(self, run: PlannedRun) -> dict[str, bytes]:
        """The run so far, and its control, in whole pieces."""
        names = [run.name, *([Path(run.config.control).name] if run.config.control else [])]
        return {name: packed(self.folder / name) for name in names if (self.folder / name).is_dir()}

    def _take(self, run: PlannedRun, content: bytes) -> str | None:
        """Put a run that was handed back in its place, with the paths of this machine in its record; why that failed."""
        path = self.folder / run.name
        try:
            unpack(content, path)
            there = RunDir.open(path)
            recorded = config_of(there)
            own = replace(
                recorded,
                table=run.config.table,
                control=run.config.control,
                distill=replace(recorded.distill, teacher=run.config.distill.teacher),
            )
            if own != recorded:
                with there.lock():
                    there.change_record(config=config_to_dict(own))
        except CosearchError as error:
            return str(error)
        except OSError as error:
            return f"{path}: {system_fault(error)}"
        return None


def _finished(path: Path) -> bool:
    return (path / "run.json").is_file() and is_finished(RunDir.open(path))
