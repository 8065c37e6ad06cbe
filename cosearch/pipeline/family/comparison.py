"""``family.json`` from the agents' own folders: what each one takes on every device of the family, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosearch.cost.accel_table import AccelTable
from cosearch.planning.device.hardware import table_to_predict
from cosearch.planning.family import device_names
from cosearch.planning.recorded import config_of
from cosearch.record.metrics import number
from cosearch.record.results.agent import AgentRecord, MeasuredLatency
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.deployment import Deployments
from cosearch.record.results.family import AGENTS, AgentResult, Family, FamilyAgent, FamilyDevice
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import FamilyMember, RunRecord
from cosearch.record.rundir import RunDir
from cosearch.report.family import write_family_report
from latency_tables.opspec import Device, OpSpec
from latency_tables.table import Table

HERE = "this machine"
THIS = "this"


def compare_agents(run: RunDir) -> Family:
    """Write ``family.json`` and the page of a family anew from its agents' folders.

    A device's table is read where an agent has another architecture than the record knows, and only then.

    Args:
        run: the family's folder, its search ended.

    Raises:
        RunFolderError: an agent's file is damaged.
        UnknownNameError: a device is needed that is not there any more.
        TableError: so is its table, or it is not valid.
    """
    began = run.read(RunRecord)
    before = run.read(Family) if (run.path / Family.FILE).is_file() else None
    folders = {member.name: RunDir.open(run.path / AGENTS / member.name) for member in began.agents}
    devices = _devices(began.agents, list(folders.values()))
    known = {} if before is None else {agent.name: agent for agent in before.agents}
    tables = _Tables(tuple(devices.values()), began.agents, folders)
    agents = tuple(_agent(one, folders[one.name], devices, known.get(one.name), tables) for one in began.agents)
    trained = [folder for folder in folders.values() if folder.read(RunRecord).trained_as is None]
    summaries = [folder.read(Summary) for folder in trained if (folder.path / Summary.FILE).is_file()]
    log = run.read_metrics()  # of the search alone
    search_steps = int(max((number(line, "step") or 0.0 for line in log), default=0.0))
    search_s = max((number(line, "wall_s") or 0.0 for line in log), default=0.0)
    family = Family(
        strategy=str(config_of(run).strategy.name),
        seed=began.seed,
        search_steps=search_steps,
        env_steps=search_steps + sum(summary.env_steps - search_steps for summary in summaries),
        wall_s=search_s + sum(max(0.0, summary.wall_s - search_s) for summary in summaries),
        devices=tuple(devices.values()),
        agents=agents,
    )
    run.write(family)
    write_family_report(run.path)
    return family


def _devices(members: Sequence[FamilyMember], folders: Sequence[RunDir]) -> dict[str, FamilyDevice]:
    """The devices by the names of their tables."""
    records = [folder.read(RunRecord) for folder in folders]
    of = [Device(r.device.name, r.device.description, r.device.runtime, r.device.dtype, r.device.threads) for r in records]
    names = device_names(of)
    return {
        member.device: FamilyDevice(
            name=name,
            table=member.device,
            provenance=record.table.provenance,
            latency_targets_s=tuple(other.latency_target_s for other in members if other.device == member.device),
        )
        for member, name, record in zip(members, names, records, strict=True)
    }


class _Tables:
    """Predictions on every device of a family; a table is read at its first use."""

    def __init__(self, devices: Sequence[FamilyDevice], members: Sequence[FamilyMember], folders: Mapping[str, RunDir]) -> None:
        self._devices, self._loaded = devices, dict[str, Table | AccelTable]()
        self._folders = {member.device: folders[member.name] for member in members}

    def predict(self, ops: Sequence[OpSpec]) -> dict[str, float]:
        """Seconds of one decision, by the short name of each device."""
        return {device.name: self._table(device.table).predict(ops).latency_s for device in self._devices}

    def _table(self, name: str) -> Table | AccelTable:
        if name not in self._loaded:
            config = config_of(self._folders[name])
            self._loaded[name] = table_to_predict(config.device, config.table)
        return self._loaded[name]


def _agent(
    member: FamilyMember, folder: RunDir, devices: Mapping[str, FamilyDevice], before: FamilyAgent | None, tables: _Tables
) -> FamilyAgent:
    architecture = folder.read(ArchitectureRecord)
    ops = [OpSpec.from_dict(op) for op in architecture.operations]
    same = before is not None and before.choices == architecture.choices
    return FamilyAgent(
        name=member.name,
        device=devices[member.device].name,
        latency_target_s=member.latency_target_s,
        choices=architecture.choices,
        architecture=architecture.choice_names,
        params=sum(op.params for op in ops),
        macs=sum(op.macs for op in ops),
        latency_predicted_s=before.latency_predicted_s if before is not None and same else tables.predict(ops),
        latency_measured_s=_measured(folder, devices, before.latency_measured_s if before is not None and same else {}),
        result=_result(folder),
    )


def _result(folder: RunDir) -> AgentResult | None:
    if not (folder.path / Summary.FILE).is_file():
        return None
    summary, agent = folder.read(Summary), folder.read(AgentRecord)
    return AgentResult(
        score_mean=summary.score_mean,
        score_ci95=summary.score_ci95,
        episodes=summary.episodes,
        target_met=summary.target_met,
        target_checked_by=summary.target_checked_by,
        bytes=agent.parity.bytes if agent.artifact is None else agent.artifact.bytes,
    )


def _measured(folder: RunDir, devices: Mapping[str, FamilyDevice], before: Mapping[str, float]) -> dict[str, float]:
    """Medians in seconds by place; what an earlier look saw, and a deployment has replaced since, stays."""
    if not (folder.path / AgentRecord.FILE).is_file():
        return dict(before)
    latency = folder.read(AgentRecord).latency.measured
    deployed = folder.read(Deployments).deployments if (folder.path / Deployments.FILE).is_file() else ()
    figures = [each.measured for each in deployed if each.provenance == "measured"]
    if latency is not None and latency.device not in [each.name for each in deployed]:
        figures = [latency, *figures]
    return {**before, **{_place(figure, devices): figure.p50_s for figure in figures}}


def _place(figure: MeasuredLatency, devices: Mapping[str, FamilyDevice]) -> str:
    """The device of the family that was measured, as its table runs agents; else the name that the measurement has."""
    device = THIS if figure.device == HERE else figure.device
    table = Device(device, "", figure.runtime, figure.dtype, figure.threads).table_name
    return devices[table].name if table in devices else figure.device
