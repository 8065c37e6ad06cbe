"""One run of a comparison where a worker makes it, with the table and the teacher that the machine has or is brought."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosearch.config.run import Config, config_from_dict, config_to_dict
from cosearch.fleet.folder_work import FolderJob, FolderMade, TextProgress, make_folder
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
from latency_tables.errors import ConfigError, RunFolderError, TableError


@dataclass(frozen=True)
class RunJob:
    """What a worker makes a run from.

    Attributes:
        config: of the run, as ``config_to_dict`` writes it.
        command: the command line, for the run's record.
        inputs: what the run is to begin with, as the machine sees it that asks for it; None: not compared.
        files: table and teacher by the path that the configuration names, and where a worker's current folder holds a copy.
    """

    config: Mapping[str, Any]
    command: str
    inputs: Inputs | None = None
    files: Mapping[str, tuple[str, ...]] | None = None


def make_run(job: FolderJob[RunJob], send: Send) -> FolderMade:
    """One run in a worker process.

    Args:
        job: which one.
        send: gets lines of text.
    """
    set_threads(1)  # until the run sets its own
    load_builtins()
    asked = config_from_dict(job.content.config, job.name)

    def make(folder: Path, progress: TextProgress) -> None:
        in_place = folder == Path(job.place.path)
        here = asked if in_place else _here(asked, folder, job.content.files or {})
        _make(job.name, job.content, folder, here, asked, progress)

    return make_folder(job, send, make)


def _make(name: str, job: RunJob, folder: Path, here: Config, asked: Config, progress: TextProgress) -> None:
    """Make a run in a folder, or go on with it.

    Args:
        name: of the run.
        job: what it is made from.
        folder: gets it.
        here: its configuration with the paths of this machine.
        asked: its configuration.
        progress: is told of it.

    Raises:
        RunFolderError: the folder holds a run of other values.
        CosearchError: the run failed.
    """
    path = folder / name
    if not path.exists():
        plan = make_plan(here)
        _check(name, job.inputs, plan)
        start_run(plan, folder, name, job.command, progress)
        return
    there, resolved = RunDir.open(path), _resolved(here, asked)
    recorded = config_of(there)
    if replace(recorded, control=here.control) != replace(resolved, control=here.control):
        differs = difference(recorded, resolved)
        raise RunFolderError(f"{path} was made with other values ({differs}); move it away, then the same command goes on")
    if recorded.control != here.control:  # moved, or it has failed or was repaired since
        with there.lock():
            there.change_record(config=config_to_dict(replace(recorded, control=here.control)))
    resume_run(path, progress)


def _resolved(here: Config, asked: Config) -> Config:
    """What a run of this configuration is to record: resolved with the files of this machine, named as they were asked for."""
    resolved = resolve_request(here).config
    if here == asked:
        return resolved
    return replace(resolved, table=asked.table, distill=replace(resolved.distill, teacher=asked.distill.teacher))


def _check(name: str, then: Inputs | None, plan: Plan) -> None:
    """Raise unless a plan that was made here has the table and the teacher that were asked for."""
    if then is None:
        return
    now = Inputs.of(plan.record(""))
    tables = [(None, "") if isinstance(one.table, Absent) else (one.table.path, one.table.table_id) for one in (then, now)]
    if tables[0][0] is not None and tables[0][1] != tables[1][1]:
        raise TableError(
            f"{name}: this node has the table {tables[1][1][:12]} where {tables[0][1][:12]} was asked for; give the node the "
            "same file, or none: it is brought along where there is none"
        )
    weights = [
        None if isinstance(one.teacher, Absent) or one.teacher is None else one.teacher.weights_sha256 for one in (then, now)
    ]
    if weights[0] != weights[1]:
        said, got = ((digest or "none")[:12] for digest in weights)
        raise ConfigError(
            f"{name}: this node has a teacher with the weights {got} where {said} was asked for; give it the same file"
        )


def _here(config: Config, folder: Path, files: Mapping[str, tuple[str, ...]]) -> Config:
    """The configuration with the paths of this machine, whose files are put beside the run where they are not where it says."""

    def placed(path: str) -> str:
        if not path or Path(path).exists() or path not in files:
            return path
        for file in files[path]:
            copy = folder / Path(file).relative_to(Path(files[path][0]).parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        return str(folder / Path(path).name)

    return replace(
        config,
        table=placed(config.table),
        control=str(folder / Path(config.control).name) if config.control else "",
        distill=replace(config.distill, teacher=placed(config.distill.teacher)),
    )


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
