"""Opening a run again: its configuration with the places where its files lie now, planned anew, its inputs compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cosearch.config.run import Config, config_to_dict
from cosearch.planning.identity import Inputs, check_inputs
from cosearch.planning.plan import Plan, make_plan
from cosearch.planning.recorded import config_of
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.training.progress import Progress
from latency_tables.errors import RunFolderError


@dataclass(frozen=True)
class Places:
    """Files of a run that were moved; None: where the run's record says, or beside the run.

    Attributes:
        table: latency table, or accelerator design.
        teacher: JSON or ONNX file.
    """

    table: Path | None = None
    teacher: Path | None = None


WHERE_RECORDED = Places()


def opened(run: RunDir, places: Places, progress: Progress, verb: str) -> Plan:
    """The plan of a run that goes on, with the inputs that it began with.

    Args:
        run: the folder.
        places: of files that were moved.
        progress: is told what differs without harm.
        verb: that the user typed, for advice.

    Raises:
        RunFolderError: a file of the run is neither where it was nor beside the run.
        TableError: the table is another one.
        ConfigError: the teacher is, or the environment.
    """
    plan = make_plan(_placed(run, config_of(run), places, verb))
    for line in check_inputs(run.path, run.read(RunRecord), Inputs.of(plan.record("")), verb):
        progress.note(line)
    return plan


def record_places(run: RunDir, plan: Plan) -> None:
    """Write into the run's record where its files lie now, if that has changed."""
    if config_of(run) != plan.config:
        run.change_record(config=config_to_dict(plan.config))


def _placed(run: RunDir, config: Config, places: Places, verb: str) -> Config:
    teacher, table, control = config.distill.teacher, config.table, config.control
    if places.table is not None or table:
        table = _place(run, "table", table, places.table, verb)
    if places.teacher is not None or teacher.endswith((".json", ".onnx")):
        teacher = _place(run, "teacher", teacher, places.teacher, verb)
    beside = run.path.resolve().parent / Path(control).name
    if control and not Path(control).exists() and beside.is_dir():  # a comparison that was moved as a whole
        control = str(beside)
    return replace(config, table=table, control=control, distill=replace(config.distill, teacher=teacher))


def _place(run: RunDir, what: str, recorded: str, given: Path | None, verb: str) -> str:
    if given is not None:
        if not given.is_file():
            raise RunFolderError(f"--{what}: there is no file {given}")
        return str(given.resolve())
    if Path(recorded).exists():
        return recorded
    runs, name = run.path.resolve().parent, Path(recorded).name
    for beside in (runs / "tables" / name, runs / name, runs.parent / name):
        if beside.is_file():
            return str(beside)
    raise RunFolderError(
        f"{run.path} began with the {what} {recorded}, which is not there now. Where it was moved: "
        f"`cosearch {verb} {run.path} --{what} FILE`"
    )
