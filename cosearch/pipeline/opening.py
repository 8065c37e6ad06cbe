"""Opening a run again: its configuration with the places where its files lie now, planned anew, its inputs compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from latency_tables.errors import ConfigError, RequestError, RunFolderError, TableError
from latency_tables.table import load_table


@dataclass(frozen=True)
class Places:
    """Files of a run that were moved; not given: where the run's record says, or beside the run.

    Attributes:
        tables: latency tables, or one accelerator design; several of a run that makes agents for several devices.
        teacher: JSON or ONNX file.
    """

    tables: tuple[Path, ...] = ()
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
        RequestError: several tables are given, and the run has one.
        ConfigError: the teacher is another one, or the environment; or a table is given where no device of the run is a file.
    """
    plan = make_plan(_placed(run, config_of(run), places, verb), begun=True)
    began, now = run.read(RunRecord), plan.record("")
    for line in check_inputs(run.path, began, Inputs.of(now), verb):
        progress.note(line)
    for then, present in zip(began.agents, now.agents):
        if then.table_id != present.table_id:
            raise TableError(
                f"{run.path} began with the table {then.table_id[:12]} of {then.device} for its agent {then.name}, which is "
                f"{present.table_id[:12]} now: give the old one back, where it lies elsewhere by `cosearch {verb} {run.path} "
                "--table FILE`, or start a new run"
            )
    return plan


def record_places(run: RunDir, plan: Plan) -> None:
    """Write into the run's record where its files lie now, if that has changed."""
    if config_of(run) != plan.config:
        run.change_record(config=config_to_dict(plan.config))


def own_tables(run: RunDir, config: Config, tables: Sequence[Path]) -> dict[str, Path]:
    """Which table of a family each of some files is, told by its content: its SHA-256 -> the file.

    Args:
        run: folder of a family.
        config: of the run.
        tables: files that the user named.

    Raises:
        ConfigError: the devices of the run are named, none is a file.
        RunFolderError: a file is not there.
        TableError: a file is no table, or none that the run began with.
    """
    devices = config.family.devices
    if tables and devices and not any(map(is_file, devices)):
        raise ConfigError(
            f"--table has no effect: the devices of {run.path} are named ({', '.join(devices)}), none is a file; leave it out"
        )
    files = {table_id for device, table_id in _devices_began(devices, run).items() if is_file(device)}
    agents = run.read(RunRecord).agents
    began = {agent.table_id: agent.device for agent in agents if agent.table_id in files or not devices}
    found = {}
    for path in tables:
        table = load_table(_file("table", path))
        if table.table_id not in began:
            own = " and ".join(f"{table_id[:12]} of {device}" for table_id, device in began.items())
            raise TableError(
                f"--table: {path} is the table {table.table_id[:12]} of {table.device.table_name}, and {run.path} began with "
                f"{own}: name the file of that, or leave it out"
            )
        found[table.table_id] = path.resolve()
    return found


def _devices_began(devices: Sequence[str], run: RunDir) -> Mapping[str, str]:
    """SHA-256 of the table that each device of a family began with."""
    agents = run.read(RunRecord).agents  # every device with every target, devices outermost
    if devices and (not agents or len(agents) % len(devices)):
        raise RunFolderError(
            f"{run.path / RunRecord.FILE} names {len(agents)} agents for {len(devices)} devices: it is not whole"
        )
    return {device: agents[place * len(agents) // len(devices)].table_id for place, device in enumerate(devices)}


def _placed(run: RunDir, config: Config, places: Places, verb: str) -> Config:
    teacher, table, control, devices = config.distill.teacher, config.table, config.control, config.family.devices
    if devices:
        devices = _placed_devices(run, config, places, verb)
    elif places.tables or table:
        if len(places.tables) > 1:
            raise RequestError(f"--table: {run.path} has one table, got {len(places.tables)}: leave the others out")
        table = _place(run, "table", table, *places.tables[:1], verb=verb)
    if places.teacher is not None or teacher.endswith((".json", ".onnx")):
        teacher = _place(run, "teacher", teacher, places.teacher, verb=verb)
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


def _placed_devices(run: RunDir, config: Config, places: Places, verb: str) -> tuple[str, ...]:
    given, found, gone = own_tables(run, config, places.tables), [], []
    for device, table_id in _devices_began(config.family.devices, run).items():
        if table_id in given and is_file(device):
            found.append(str(given[table_id]))
        elif not is_file(device):
            found.append(device)
        elif (there := _there(run, device, table_id)) is not None:
            found.append(there)
        else:
            gone.append(device)
    if gone:
        raise _gone(run, "table", gone, verb, places.tables)
    return tuple(found)


def _place(run: RunDir, what: str, recorded: str, given: Path | None = None, *, verb: str) -> str:
    if given is not None:
        return str(_file(what, given).resolve())
    there = _there(run, recorded)
    if there is None:
        raise _gone(run, what, [recorded], verb)
    return there


def _file(what: str, given: Path) -> Path:
    if not given.is_file():
        raise RunFolderError(f"--{what}: there is no file {given}")
    return given


def _there(run: RunDir, recorded: str, table_id: str = "") -> str | None:
    """Where a file lies now: where it was, or beside the run, there with the content that a table had; None: neither."""
    if Path(recorded).exists():
        return recorded
    runs, name = run.path.resolve().parent, Path(recorded).name
    above = runs.parent.parent / "tables" / name  # of the folder of an agent of a family
    for beside in (runs / "tables" / name, runs / "policies" / name, runs / name, runs.parent / name, above):
        if beside.is_file() and (not table_id or load_table(beside).table_id == table_id):
            return str(beside)
    return None


def _gone(run: RunDir, what: str, recorded: Sequence[str], verb: str, given: Sequence[Path] = ()) -> RunFolderError:
    are, moved = ("are", "they were") if len(recorded) > 1 else ("is", "it was")
    files = f" --{what} ".join([*map(str, given), *["FILE"] * len(recorded)])
    return RunFolderError(
        f"{run.path} began with the {what} {' and '.join(recorded)}, which {are} not there now. Where {moved} moved: "
        f"`cosearch {verb} {run.path} --{what} {files}`"
    )
