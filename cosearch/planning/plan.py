"""Everything a run needs, resolved and checked before a folder is made.

A request gives the hardware, the fixed agents beside it give the constraints, and some architecture must meet them. On an
accelerator this searches designs: one for each fixed agent, and the one that the run begins with.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from cosearch.config.run import Config, config_to_dict
from cosearch.cost.accelerator import Accelerator
from cosearch.cost.constraint import Constraint
from cosearch.planning.budget import candidate_rungs, one_shot_rounds
from cosearch.planning.device.artifact import ArtifactPlan, check_parts, plan_artifact
from cosearch.planning.device.constraints import check_gradients, check_reachable, make_constraints, references_on
from cosearch.planning.device.hardware import Hardware, make_hardware, search_first_design
from cosearch.planning.family import agent_configs, agent_names
from cosearch.planning.identity import environment_now
from cosearch.planning.options.unused import check_options
from cosearch.planning.request import resolve_request, with_absolute_paths
from cosearch.planning.store import check_store
from cosearch.planning.teacher import identity_in, load_teacher
from cosearch.record.run_record import (
    CertificateRecord,
    DeviceRecord,
    EnvironmentRecord,
    FamilyMember,
    ReferenceRecord,
    RunRecord,
    SpaceRecord,
    TableRecord,
    TargetRecord,
)
from cosearch.rl.task import inexact_resume
from cosearch.rl.teacher import Teacher, TeacherRecord
from cosearch.space.derivation.counting import Counts, count_networks
from cosearch.space.space import SearchSpace
from cosearch.strategies.base import Feasible, StrategyInfo
from cosearch.strategies.weight_sharing import scoring_of
from latency_tables.errors import ConfigError, InfeasibleTargetError
from latency_tables.table import Table


@dataclass(frozen=True)
class Plan:
    """A resolved run.

    Attributes:
        config: the configuration.
        space: the search space.
        hardware: the device's table, or the accelerator that is searched with the agent.
        strategy: the search method's record.
        teacher: record of the teacher, or None.
        constraints: costs with their upper bounds, the latency's first.
        artifact: the form of the exported agent.
        references: what each fixed agent is predicted to take, by name.
        environment: what the task takes and gives.
        counts: of architectures and different networks within the constraints; on an accelerator, with its first design.
        inexact_resume: why a resumed run cannot equal an uninterrupted one; None where it does.
        agents: plans of the agents of a family, by name: one search gives them all, and this plan is the first one's but for its
            configuration. Empty for a single agent.
    """

    config: Config
    space: SearchSpace
    hardware: Hardware
    strategy: StrategyInfo
    teacher: TeacherRecord | None
    constraints: tuple[Constraint, ...]
    artifact: ArtifactPlan
    references: dict[str, ReferenceRecord]
    environment: EnvironmentRecord
    counts: Counts
    inexact_resume: str | None = None
    agents: Mapping[str, Plan] = field(default_factory=dict)

    @property
    def every(self) -> tuple[Plan, ...]:
        """The plan of each agent that the search is for."""
        return tuple(self.agents.values()) or (self,)

    @property
    def acts_greedily(self) -> bool:
        """Whether the agent takes its best action because its teacher does."""
        return self.teacher is not None and self.teacher.is_greedy

    @property
    def accelerator(self) -> Accelerator | None:
        """The accelerator that is searched with the agent; None for a device with a table."""
        return self.hardware if isinstance(self.hardware, Accelerator) else None

    @property
    def targets(self) -> tuple[TargetRecord, ...]:
        """What the constraints bound, in their order."""
        objective, found = self.config.objective, []
        for bound in self.constraints:
            record = TargetRecord(metric=bound.metric, value=bound.value, margin=bound.margin)
            if bound.metric == "latency_s" and isinstance(self.hardware, Table):  # of an accelerator no call is ever timed
                record = replace(record, statistic=objective.target_statistic, at=objective.target_at)
            found.append(record)
        return tuple(found)

    @property
    def not_known(self) -> str:
        """Which latencies that the targets are on nobody measured for the table, in words; empty where it predicts them."""
        told = {
            f"the table of {plan.hardware.device.table_name} knows nothing of the {target.text}: the search goes by "
            "the median back to back; whether the target holds is not known until it is measured: `cosearch deploy RUN`, or "
            "--device this"
            for plan in self.every
            for target, bound in zip(plan.targets, plan.constraints)
            if not bound.known
        }
        return "; ".join(sorted(told))

    def load_teacher(self, device: torch.device) -> Teacher | None:
        """The teacher with its weights; None without one.

        Args:
            device: where it runs.
        """
        return load_teacher(self.teacher, self.config, self.space, device)

    def search_teacher(self, teacher: Teacher | None) -> Teacher | None:
        """What the search learns from: the run's teacher, or nobody where the strategy searches without one."""
        return teacher if self.strategy.uses_teacher else None

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
            device=DeviceRecord(**dataclasses.asdict(self.hardware.device)),
            table=_table_record(self.hardware),
            teacher=None if self.teacher is None else identity_in(self.teacher, self.config.env),
            targets=self.targets,
            references=self.references,
            environment=self.environment,
            exactly_resumable=self.inexact_resume is None,
            not_exactly_resumable_because=self.inexact_resume,
            feasible_architectures=self.counts.feasible,
            distinct_networks=self.counts.distinct,
            agents=tuple(
                FamilyMember(
                    name=name,
                    device=plan.hardware.device.table_name,
                    table_id=plan.hardware.table_id,
                    latency_target_s=plan.constraints[0].value,
                )
                for name, plan in self.agents.items()
            ),
            space=SpaceRecord(
                name=space.name,
                config=space.config,
                size=space.size,
                frame_shape=tuple(space.frame_shape),
                num_actions=space.num_actions,
                policy=space.policy,
                parts=tuple(part.to_dict() for part in space.parts),
                action_sizes=space.action_sizes,
            ),
        )


def _table_record(hardware: Hardware) -> TableRecord:
    proof = None if hardware.certificate is None else hardware.certificate.accuracy
    return TableRecord(
        table_id=hardware.table_id,
        provenance=hardware.provenance,
        path=f"{hardware.path.parent.name}/{hardware.path.name}" if hardware.path else None,
        certificate=None
        if proof is None
        else CertificateRecord(
            mape=proof.mape,
            within_5=proof.within_5,
            within_10=proof.within_10,
            kendall_tau=proof.kendall_tau,
            bias=proof.bias,
        ),
    )


def make_plan(config: Config, *, begun: bool = False) -> Plan:
    """Resolve and check a configuration. For an accelerator this searches designs: the references' and the run's first one.

    Args:
        config: of the run.
        begun: the run has begun: what its search alone reads may be gone by now.

    Raises:
        RequestError: anything that the run would trip over later: unknown names, a table without a block of the space, a
            teacher of another game, a target that no architecture meets, a GPU that is not there, an option without effect, a
            file or folder that the search reads first.
        RunFolderError: shared weights of the store cannot be read.
    """
    plan = _family(with_absolute_paths(config)) if config.family.wanted else _single(config)
    if not begun:
        _check_beginning(plan)
    return plan


def _check_beginning(plan: Plan) -> None:
    """Raise where the search could not begin with the files that it reads first, its strategy's and its store's."""
    section = plan.config.strategy
    targets = () if plan.strategy.kind == "gradient" else (Feasible(plan.constraints),)
    plan.strategy.make(plan.space, plan.strategy.options(section), torch.Generator().manual_seed(0), *targets)
    if section.store:
        check_store(Path(section.store), plan.space, plan.record("").space)


def _family(config: Config) -> Plan:
    """The plan of the first agent, with those of all."""
    configs = agent_configs(config)
    request = resolve_request(configs[0])
    asked = {key: getattr(config, key) for key in ("family", "device", "table", "objective")}  # as they were said
    check_options(dataclasses.replace(request, config=dataclasses.replace(request.config, **asked)))
    plans = [_member(one, len(configs)) for one in configs]
    if any(plan.accelerator is not None for plan in plans):
        raise ConfigError(
            "an accelerator is searched with its agent, so it cannot share a search with other devices or targets: give one "
            "accelerator and one target"
        )
    names = agent_names(config.family, [plan.hardware.device for plan in plans], [plan.constraints[0].value for plan in plans])
    first = plans[0]
    if first.strategy.kind == "proposal":
        candidate_rungs(config, first.strategy, len(plans))
    if first.strategy.kind == "one-shot":
        scoring = scoring_of(first.strategy, config.strategy)
        one_shot_rounds(config, scoring, len(plans))
        if scoring.one_agent:
            raise ConfigError(
                f"strategy {first.strategy.name!r} searches for one device and target, got {len(plans)}: give one, or use "
                "strategy.name=one-shot, whose supernet serves all"
            )
    agents = dict(zip(names, plans, strict=True))
    return dataclasses.replace(first, config=dataclasses.replace(first.config, family=config.family), agents=agents)


def _member(config: Config, agents: int) -> Plan:
    """The plan of one agent of a family; a target that none of its device meets is said with the device."""
    try:
        return _single(config, agents)
    except InfeasibleTargetError as error:
        raise InfeasibleTargetError(f"on {config.device}: {error}", error.least, error.metric) from error


def _single(config: Config, agents: int = 1) -> Plan:
    request = resolve_request(config)
    check_options(request)
    space = request.space
    hardware = make_hardware(request.hardware, space, request.config)
    artifact = plan_artifact(hardware)
    check_parts(artifact, space)
    references = references_on(hardware, space)
    constraints = make_constraints(request.config.objective, hardware, space, references)
    if isinstance(hardware, Accelerator):
        search_first_design(hardware, constraints)
    check_gradients(request.strategy, space, constraints)
    check_reachable(space, constraints, request.config.objective)
    counts = count_networks(space, [constraint.limit for constraint in constraints])
    return Plan(
        request.config,
        space,
        hardware,
        request.strategy,
        request.teacher,
        constraints,
        artifact,
        references,
        environment_now(request.config.env),
        counts,
        inexact_resume(request.config.env) or _order_of_time(request.strategy, request.config, agents),
    )


def _order_of_time(strategy: StrategyInfo, config: Config, agents: int) -> str | None:
    """Why two runs of a strategy that is told of candidates as they end may differ; None where they cannot."""
    section = config.strategy
    if not strategy.any_order or section.workers == 1:
        return None
    given, events = len(section.order), 2 * sum(map(len, candidate_rungs(config, strategy, agents)))  # each begins and is taken
    if given >= events:
        return None
    after = f"strategy.order ends after {given} of {events} events; from there on " if given else ""
    return (
        f"{after}{strategy.name} is told of candidates as their trainings end, with strategy.workers={section.workers} in an "
        "order that differs from run to run; order.json records it, and --order-of repeats it"
    )


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
