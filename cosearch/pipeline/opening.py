"""Opening a run again: its configuration with the places where its files lie now, planned anew, its inputs compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cosearch.config.run import Config, config_to_dict
from cosearch.planning.family import is_file
from cosearch.planning.identity import Inputs, check_inputs
from cosearch.planning.plan import Plan, make_plan
from cosearch.planning.recorded import config_of
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.training.progress import Progress
from latency_tables.errors import ConfigError, RunFolderError, TableError


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
        ConfigError: the teacher is, or the environment; or a table is given where no device of the run is a file.
    """
    plan = make_plan(_placed(run, config_of(run), places, verb))
    began, now = run.read(RunRecord), plan.record("")
    for line in check_inputs(run.path, began, Inputs.of(now), verb):
        progress.note(line)
    for then, present in zip(began.agents, now.agents):
        if then.table_id != present.table_id:
            raise TableError(
                f"{run.path} began with the table {then.table_id[:12]} of {then.device} for its agent {then.name}, which is "
                f"{present.table_id[:12]} now: give the old one back, or start a new run"
            )
    return plan


def record_places(run: RunDir, plan: Plan) -> None:
    """Write into the run's record where its files lie now, if that has changed."""
    if config_of(run) != plan.config:
        run.change_record(config=config_to_dict(plan.config))


def _placed(run: RunDir, config: Config, places: Places, verb: str) -> Config:
    teacher, table, control = config.distill.teacher, config.table, config.control
    if places.table is not None and config.family.devices and not any(map(is_file, config.family.devices)):
        raise ConfigError(
            f"--table has no effect: the devices of {run.path} are named ({', '.join(config.family.devices)}), none is a file; "
            "leave it out"
        )
    devices = tuple(_place(run, "table", d, places.table, verb) if is_file(d) else d for d in config.family.devices)
    if not devices and (places.table is not None or table):
        table = _place(run, "table", table, places.table, verb)
    if places.teacher is not None or teacher.endswith((".json", ".onnx")):
        teacher = _place(run, "teacher", teacher, places.teacher, verb)
    beside = run.path.resolve().parent / Path(control).name
    if control and not Path(control).exists() and beside.is_dir():  # a comparison that was moved as a whole
        control = str(beside)
    return replace(
        config,
        table=table,
        control=control,
        distill=replace(config.distill, teacher=teacher),
        family=replace(config.family, devices=devices),
    )


def _place(run: RunDir, what: str, recorded: str, given: Path | None, verb: str) -> str:
    if given is not None:
        if not given.is_file():
            raise RunFolderError(f"--{what}: there is no file {given}")
        return str(given.resolve())
    if Path(recorded).exists():
        return recorded
    runs, name = run.path.resolve().parent, Path(recorded).name
    above = runs.parent.parent / "tables" / name  # of the folder of an agent of a family
    for beside in (runs / "tables" / name, runs / "policies" / name, runs / name, runs.parent / name, above):
        if beside.is_file():
            return str(beside)
    raise RunFolderError(
        f"{run.path} began with the {what} {recorded}, which is not there now. Where it was moved: "
        f"`cosearch {verb} {run.path} --{what} FILE`"
    )
