"""One run of a comparison where a worker makes it: in the comparison's folder, or beside it where the machine does not see that.

A machine that sees the folder writes the run there. One that does not is given the run so far and its control in whole pieces,
works in a temporary folder, and hands the run back whole: at its end, and after a checkpoint every ``HAND_BACK_S`` seconds, so
that a machine that is lost costs no more than the work since then.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosearch.config.run import Config, config_from_dict, config_to_dict
from cosearch.fleet.folders import Shared, packed, unpack
from cosearch.fleet.work import Send
from cosearch.pipeline.run import resume_run, start_run
from cosearch.planning.builtins import load_builtins
from cosearch.planning.identity import Inputs
from cosearch.planning.plan import Plan, make_plan
from cosearch.planning.recorded import config_of
from cosearch.planning.request import resolve_request
from cosearch.record.json_record import Absent
from cosearch.record.rundir import RunDir
from cosearch.report.data import flatten
from cosearch.training.threads import set_threads
from latency_tables.errors import ConfigError, CosearchError, TableError

LINE_EVERY_S = 60.0
HAND_BACK_S = 300.0


@dataclass(frozen=True)
class RunJob:
    """What a worker needs to make a run.

    Attributes:
        place: of the comparison.
        name: of the run.
        config: of the run, as ``config_to_dict`` writes it.
        command: the command line, for the run's record.
        inputs: what the run is to begin with, as the machine sees it that asks for it; None: not compared.
        files: table and teacher by the path that the configuration names, and where a worker's current folder holds a copy.
        parts: folders in whole pieces by name: the run so far and its control; None: not sent along.
    """

    place: Shared
    name: str
    config: Mapping[str, Any]
    command: str
    inputs: Inputs | None = None
    files: Mapping[str, tuple[str, ...]] | None = None
    parts: Mapping[str, bytes] | None = None


@dataclass(frozen=True)
class RunMade:
    """What became of a run.

    Attributes:
        failure: why it failed; None: it did not.
        unfinished: it is to be asked for again, with its parts.
        folder: of the run, in one piece; None: it lies in its place.
    """

    failure: str | None = None
    unfinished: bool = False
    folder: bytes | None = None


class Paused(Exception):
    """A run stops after a checkpoint, to be handed back."""


def make_run(job: RunJob, send: Send) -> RunMade:
    """One run in a worker process.

    Args:
        job: which one.
        send: gets lines of text.
    """
    set_threads(1)  # until the run sets its own
    load_builtins()
    config = config_from_dict(job.config, job.name)
    if job.place.seen():
        return RunMade(_made(job, Path(job.place.path), config, config, TextProgress(send)))
    if job.parts is None:
        return RunMade(unfinished=True)
    with tempfile.TemporaryDirectory(prefix="cosearch-") as scratch:
        folder = Path(scratch)
        for name, content in job.parts.items():
            unpack(content, folder / name)
        here, path = _here(config, folder, job.files or {}), folder / job.name
        try:
            made = RunMade(_made(job, folder, here, config, TextProgress(send, _after_a_checkpoint(path))))
        except Paused:
            made = RunMade(unfinished=True)
        return replace(made, folder=packed(path) if path.exists() else None)


def _made(job: RunJob, folder: Path, here: Config, asked: Config, progress: TextProgress) -> str | None:
    """Make a run in a folder; why it failed.

    Args:
        job: of the run.
        folder: gets it.
        here: its configuration with the paths of this machine.
        asked: its configuration.
        progress: is told of it.
    """
    path = folder / job.name
    try:
        if not path.exists():
            plan = make_plan(here)
            _check(job, plan)
            start_run(plan, folder, job.name, job.command, progress)
        elif placeless(recorded := config_of(RunDir.open(path))) != placeless(resolved := _resolved(here, asked)):
            differs = difference(recorded, resolved)
            return f"{path} was made with other values ({differs}); move it away, then the same command goes on"
        else:
            resume_run(path, progress)
    except CosearchError as error:
        return str(error)
    return None


def _resolved(here: Config, asked: Config) -> Config:
    """What a run of this configuration is to record: resolved with the files of this machine, named as they were asked for."""
    resolved = resolve_request(here).config
    if here == asked:
        return resolved
    return replace(resolved, table=asked.table, distill=replace(resolved.distill, teacher=asked.distill.teacher))


def _check(job: RunJob, plan: Plan) -> None:
    """Raise unless a plan that was made here has the table and the teacher that were asked for."""
    if job.inputs is None:
        return
    now, then = Inputs.of(plan.record("")), job.inputs
    tables = [(None, "") if isinstance(one.table, Absent) else (one.table.path, one.table.table_id) for one in (then, now)]
    if tables[0][0] is not None and tables[0][1] != tables[1][1]:
        raise TableError(
            f"{job.name}: this node has the table {tables[1][1][:12]} where {tables[0][1][:12]} was asked for; give the node the "
            "same file, or none: it is brought along where there is none"
        )
    weights = [
        None if isinstance(one.teacher, Absent) or one.teacher is None else one.teacher.weights_sha256 for one in (then, now)
    ]
    if weights[0] != weights[1]:
        said, got = ((digest or "none")[:12] for digest in weights)
        raise ConfigError(
            f"{job.name}: this node has a teacher with the weights {got} where {said} was asked for; give it the same file"
        )


def _here(config: Config, folder: Path, files: Mapping[str, tuple[str, ...]]) -> Config:
    """The configuration with the paths of this machine, whose files are put beside the run where they are not where it says."""

    def placed(path: str) -> str:
        if not path or Path(path).exists() or path not in files:
            return path
        for file in files[path]:
            shutil.copy(file, folder / Path(file).name)
        return str(folder / Path(path).name)

    return replace(
        config,
        table=placed(config.table),
        control=str(folder / Path(config.control).name) if config.control else "",
        distill=replace(config.distill, teacher=placed(config.distill.teacher)),
    )


def _after_a_checkpoint(path: Path) -> Callable[[], bool]:
    """Whether the run has made a checkpoint since it was time to hand it back."""
    began: float = time.monotonic()
    seen: set[str] | None = None

    def due() -> bool:
        nonlocal seen
        if time.monotonic() - began < HAND_BACK_S:
            return False
        there = {file.name for file in (path / "checkpoints").glob("*")}
        if seen is None:
            seen = there
        return not there <= seen

    return due


class TextProgress:
    """A run's progress in lines of text: its stages and notes, and where it is once a minute.

    Args:
        send: gets each line.
        pause: whether the run is to stop now.
    """

    def __init__(self, send: Send, pause: Callable[[], bool] = lambda: False) -> None:
        self._send, self._pause, self._last = send, pause, time.monotonic()

    def stage(self, name: str, total_steps: int, done_steps: int) -> None:
        """See ``Progress``."""
        self._send(f"{name}: step {done_steps:,} of {total_steps:,}")

    def update(self, metrics: dict[str, Any]) -> None:
        """See ``Progress``.

        Raises:
            Paused: the run is to stop now.
        """
        if self._pause():
            raise Paused
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            score = "" if metrics.get("score_train") is None else f", score {metrics['score_train']:.2f}"
            self._send(f"{metrics['stage']}: step {metrics['step']:,}{score}, {metrics['steps_per_s']:,.0f} steps/s")

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._send(text)


def placeless(config: Config) -> Config:
    """The configuration with its control by name alone: a comparison may be moved as a whole."""
    return replace(config, control=Path(config.control).name)


def difference(old: Config, new: Config) -> str:
    """In which values two configurations differ, in words."""
    before, after = dict(flatten(config_to_dict(old))), dict(flatten(config_to_dict(new)))
    return ", ".join(
        f"{key} {before.get(key)} there, {after.get(key)} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )
