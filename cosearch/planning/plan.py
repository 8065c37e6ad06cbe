"""Everything a run needs, resolved and checked before a folder is made: table, space, costs, target, teacher, references."""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from cosearch.config.run import Config, config_to_dict
from cosearch.cost.accel_cost import AccelCost
from cosearch.cost.accelerator import Accelerator
from cosearch.cost.constraint import Constraint, Cost
from cosearch.cost.table_cost import TableCost
from cosearch.planning.budget import candidate_shares
from cosearch.planning.builtins import load_builtins
from cosearch.planning.control import control_of
from cosearch.planning.hardware import table_or_design, widen
from cosearch.planning.space import make_space
from cosearch.planning.teacher import check_fits, teacher_of
from cosearch.planning.unused import refuse_ignored, refuse_unused
from cosearch.record.json_record import from_json
from cosearch.record.run_record import (
    CertificateRecord,
    DeviceRecord,
    ReferenceRecord,
    RunRecord,
    SpaceRecord,
    TableRecord,
    TargetRecord,
    TeacherIdentity,
)
from cosearch.rl.envs import split_name
from cosearch.rl.teacher import Teacher, TeacherRecord
from cosearch.seeding import Streams
from cosearch.space.derive import discretise
from cosearch.space.ends import observations_of
from cosearch.space.network import reference_agents
from cosearch.space.space import SearchSpace
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from latency_tables.errors import ConfigError
from latency_tables.table import Table

LATENCY_RATIOS = {"frames": 0.2, "vectors": 1.0}  # of the first reference agent, where objective.latency_ratio is not given


@dataclass(frozen=True)
class Plan:
    """A resolved run.

    Attributes:
        config: the configuration.
        space: the search space.
        table: the device's table, or the accelerator that answers as one.
        strategy: the search method's record.
        teacher: record of the teacher, or None.
        constraints: costs with their upper bounds, the latency's first.
        references: what each fixed agent is predicted to take, by name.
    """

    config: Config
    space: SearchSpace
    table: Table | Accelerator
    strategy: StrategyInfo
    teacher: TeacherRecord | None
    constraints: tuple[Constraint, ...]
    references: dict[str, ReferenceRecord]

    @property
    def accelerator(self) -> Accelerator | None:
        """The accelerator that is searched with the agent; None for a device with a table."""
        return self.table if isinstance(self.table, Accelerator) else None

    def load_teacher(self, device: torch.device) -> Teacher | None:
        """The teacher with its weights; None without one.

        Args:
            device: where it runs.
        """
        if self.teacher is None:
            return None
        space = self.space
        return Teacher(
            self.teacher, device=device, bf16=self.config.rl.bf16, frame_shape=space.frame_shape, num_actions=space.num_actions
        )

    def record(self, command: str) -> RunRecord:
        """What ``run.json`` says of the run, without its name and date.

        Args:
            command: the command line.
        """
        space = self.space
        return RunRecord(
            command=command,
            config=config_to_dict(self.config),
            seed=self.config.seed,
            versions=versions(),
            device=DeviceRecord(**dataclasses.asdict(self.table.device)),
            table=_table_record(self.table),
            teacher=None if self.teacher is None else teacher_identity(self.teacher),
            targets=tuple(
                TargetRecord(metric=bound.metric, value=bound.value, margin=bound.margin) for bound in self.constraints
            ),
            references=self.references,
            space=SpaceRecord(
                name=space.name,
                config=space.config,
                size=space.size,
                frame_shape=tuple(space.frame_shape),
                num_actions=space.num_actions,
                policy=space.policy,
            ),
        )


def _table_record(table: Table | Accelerator) -> TableRecord:
    figures = table.certificate
    return TableRecord(
        table_id=table.table_id,
        provenance=table.provenance,
        path=f"{table.path.parent.name}/{table.path.name}" if table.path else None,
        certificate=None
        if figures is None
        else CertificateRecord(**{field.name: figures[field.name] for field in dataclasses.fields(CertificateRecord)}),
    )


def teacher_identity(teacher: TeacherRecord) -> TeacherIdentity:
    """What a run's record keeps of a teacher."""
    record = {
        "name": teacher.name,
        "network": teacher.description,
        "weights_sha256": teacher.weights_sha256(),
        **teacher.provenance,
    }
    return from_json(TeacherIdentity, record, teacher.path, "provenance")


def make_plan(config: Config) -> Plan:
    """Resolve and check a configuration.

    Raises:
        RequestError: anything that the run would trip over later: unknown names, a table without a block of the space, a
            teacher of another game, a target that no architecture meets.
    """
    load_builtins()
    config = with_absolute_paths(config)
    strategy = STRATEGIES.get(config.strategy.name)
    refuse_unused(config, strategy)
    refuse_ignored(config)
    split_name(config.env.name)
    table = table_or_design(config.device, config.table)
    config, teacher = teacher_of(config)
    groups = strategy.paths(config.strategy)
    if config.env.num_envs % groups:
        raise ConfigError(f"env.num_envs ({config.env.num_envs}) must be a multiple of strategy.paths_per_rollout ({groups})")
    if strategy.kind == "proposal":
        candidate_shares(config)
    control_of(config)
    space = make_space(config)
    check_fits(teacher, space.frame_shape, space.num_actions, space.policy)
    if config.rl.algorithm == "dqn" and space.policy != "categorical":
        raise ConfigError(f"rl.algorithm=dqn chooses discrete actions, {config.env.name} has action vectors: use ppo or a2c")
    accelerator = None
    if not isinstance(table, Table):
        streams = Streams(config.seed)
        table = accelerator = Accelerator(space, table, config.accel, lambda number: streams.derive("accel", number))
    references: dict[str, ReferenceRecord] = {}
    for number, (name, ops) in enumerate(reference_agents(space.frame_shape, space.num_actions).items()):
        prediction = table.predict(ops) if accelerator is None else accelerator.reference(ops, number)
        references[name] = ReferenceRecord(
            latency_predicted_s=prediction.latency_s,
            params=sum(op.params for op in ops),
            macs=sum(op.macs for op in ops),
        )
    o = config.objective
    ratio = o.latency_ratio if o.latency_ratio is not None else LATENCY_RATIOS[observations_of(space.frame_shape)]
    reference = next(iter(references.values()))
    latency = o.latency_target_s if o.latency_target_s is not None else ratio * reference.latency_predicted_s

    def cost(metric: str) -> Cost:
        return TableCost(space, table, metric) if accelerator is None else AccelCost(accelerator, metric)

    constraints = [Constraint(cost("latency_s"), latency, o.margin)]
    if o.energy_target_j is not None:
        constraints.append(Constraint(cost("energy_j"), o.energy_target_j, o.margin))
    if accelerator is not None:
        accelerator.begin({constraint.metric: constraint.bound for constraint in constraints})
    limits = [constraint.limit for constraint in constraints]
    discretise(space, [[0.0] * len(point.candidates) for point in space.points], *limits)
    if accelerator is not None:
        widen(accelerator, limits)
    return Plan(config, space, table, strategy, teacher, tuple(constraints), references)


def with_absolute_paths(config: Config) -> Config:
    """The configuration with the paths it names made absolute, so that a run can be resumed from any folder."""
    teacher = config.distill.teacher
    if teacher.endswith((".json", ".onnx")):
        teacher = str(Path(teacher).resolve())
    table, control = (str(Path(path).resolve()) if path else "" for path in (config.table, config.control))
    return dataclasses.replace(config, table=table, control=control, distill=dataclasses.replace(config.distill, teacher=teacher))


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import numpy
    import onnx
    import scipy

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "onnx": onnx.__version__,
        "cpu_count": str(os.cpu_count()),
        "machine": platform.machine(),
    }
