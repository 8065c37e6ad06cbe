"""What a configuration's names stand for: strategy, teacher, space and the device's hardware, before anything is searched."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from accel_models.design import AccelDesign
from cosearch.compute import compute_device
from cosearch.config.run import Config
from cosearch.cost.accel_table import device_of
from cosearch.planning.budget import candidate_rungs, one_shot_rounds
from cosearch.planning.builtins import load_builtins
from cosearch.planning.control import check_control
from cosearch.planning.device.hardware import table_or_design
from cosearch.planning.family import is_file
from cosearch.planning.sac import check_sac
from cosearch.planning.size import check_size
from cosearch.planning.space import make_space
from cosearch.planning.teacher import check_fits, first_action, teacher_of
from cosearch.rl.envs import split_name
from cosearch.rl.learning.minibatches import check_minibatches
from cosearch.rl.teacher import TeacherRecord
from cosearch.rl.validation import without_validation
from cosearch.space.parts import Part
from cosearch.space.space import SearchSpace
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from cosearch.strategies.minibatch import ChoosesHeldOut
from cosearch.strategies.weight_sharing import scoring_of
from latency_tables.errors import ConfigError
from latency_tables.table import Table


@dataclass(frozen=True)
class Request:
    """A configuration with what its names stand for.

    Attributes:
        config: the configuration, with absolute paths and with the teacher's discount where it had none.
        strategy: the search method's record.
        teacher: record of the teacher; None without one.
        hardware: the device's table, or the design of an accelerator.
        space: the search space of the task.
    """

    config: Config
    strategy: StrategyInfo
    teacher: TeacherRecord | None
    hardware: Table | AccelDesign
    space: SearchSpace

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(height, width, channels)`` of images, or ``(features,)`` of vectors."""
        return self.space.frame_shape

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of the observations; none where they are one image or vector."""
        return self.space.parts


def resolve_request(config: Config) -> Request:
    """Find what the names stand for, and refuse what does not go together. No design is searched; see also ``check_options``.

    Raises:
        UnknownNameError: a name stands for nothing.
        ConfigError: values that contradict each other, or need more than this machine has, or years.
        ShapeError: a teacher of other observations or actions.
        TableError: the table's file is not valid.
        DesignError: nor is the design's.
        RunFolderError: ``control`` names no finished run.
    """
    load_builtins()
    config = with_absolute_paths(config)
    strategy = STRATEGIES.get(config.strategy.name)
    options = strategy.options(config.strategy)  # raises where an option of the strategy's own is wrong
    compute_device(config.compute)
    split_name(config.env.name)
    hardware = table_or_design(config.device, config.table)
    config, teacher = teacher_of(config)
    paths = strategy.paths(config.strategy)
    if config.env.num_envs % paths:
        raise ConfigError(f"env.num_envs ({config.env.num_envs}) must be a multiple of strategy.paths_per_rollout ({paths})")
    if strategy.kind == "proposal":
        candidate_rungs(config, strategy)
    if strategy.kind == "one-shot":
        _check_one_shot(config, strategy)
    if isinstance(options, ChoosesHeldOut) and options.held_out == "levels":
        _check_levels(config, paths)
    if isinstance(hardware, Table):
        check_control(config, hardware.device, hardware.table_id)
    else:
        check_control(config, device_of(hardware), None)
    space = make_space(config)
    check_size(config, space.frame_shape)
    if config.rl.on_policy:
        for envs in {config.env.num_envs // paths, config.env.num_envs}:  # of a path of the search, and of a network alone
            check_minibatches(config.rl.rollout_steps, envs, config.rl.minibatch, whole=space.remembers)
    values = config.distill.critic > 0 and config.rl.on_policy
    first = 0 if teacher is None else first_action(teacher, config)
    check_fits(teacher, space.frame_shape, space.num_actions, space.policy, space.parts, first=first, values=values)
    if config.rl.algorithm == "dqn" and space.policy != "categorical":
        raise ConfigError(
            f"rl.algorithm=dqn chooses one of some discrete actions, {config.env.name} has action vectors: use ppo or a2c"
        )
    if (
        config.rl.algorithm == "dqn"
        and space.shares_widths
        and (strategy.kind != "proposal" or config.strategy.candidate_init == "shared")
    ):
        raise ConfigError(
            f"rl.algorithm=dqn learns quantiles in its head; space {space.name!r} chooses the head, whose shared weights learn "
            "none: use rl.algorithm=ppo, or a strategy that trains its candidates alone (strategy.name=random)"
        )
    if config.rl.algorithm == "sac":
        check_sac(config, space)
    if space.remembers:
        _check_memory(config, strategy, hardware, space)
    return Request(config, strategy, teacher, hardware, space)


def _check_memory(config: Config, strategy: StrategyInfo, hardware: Table | AccelDesign, space: SearchSpace) -> None:
    """Raise where the policies of a space with a memory cannot be trained or exported."""
    said = "space.values names blocks with a memory"
    if space.parts:
        raise ConfigError(f"{said}: such agents read one image or vector, {config.env.name} has observations of several parts")
    if not config.rl.on_policy:
        raise ConfigError(
            f"{said}, and rl.algorithm={config.rl.algorithm} learns from single transitions, where a memory has no past: use "
            "rl.algorithm=ppo or rl.algorithm=a2c"
        )
    if isinstance(hardware, Table) and (hardware.device.runtime == "tvm" or hardware.device.dtype != "float32"):
        raise ConfigError(
            f"{said}: such agents are exported for ONNX Runtime in float32, and the table of "
            f"{hardware.device.table_name} is of {hardware.device.identity}: choose a device of float32, or leave the memory out"
        )
    if config.strategy.store:
        raise ConfigError(
            f"{said}, and strategy.store compares tasks by single states that a policy meets, where a memory has no past: leave "
            "strategy.store out"
        )
    if strategy.kind == "one-shot" and scoring_of(strategy, config.strategy).by == "frames":
        raise ConfigError(
            f"{said}, and strategy.values.scores=frames compares policies on single frames, where a memory has no past: use "
            "strategy.values.scores=episodes"
        )


def _check_one_shot(config: Config, strategy: StrategyInfo) -> None:
    scoring = scoring_of(strategy, config.strategy)
    one_shot_rounds(config, scoring)
    without_validation(config.env)
    if scoring.by == "frames" and not config.rl.on_policy:
        raise ConfigError(
            "strategy.values.scores=frames compares policies by the advantages of the actions that were drawn, which "
            f"rl.algorithm={config.rl.algorithm} does not have: use strategy.values.scores=episodes, or rl.algorithm=ppo"
        )


def _check_levels(config: Config, paths: int) -> None:
    said = "strategy.values.held_out=levels"
    if not split_name(config.env.name)[0].has_levels:
        raise ConfigError(
            f"{said} needs a task with levels, such as procgen:starpilot, and {config.env.name} has none: leave it out: "
            "then half of the frames are held out"
        )
    if not config.rl.on_policy:
        raise ConfigError(
            f"{said} keeps half of the environments from the weights, and {config.rl.algorithm} learns from a replay: "
            "use ppo or a2c"
        )
    if config.env.num_envs % (2 * paths):
        raise ConfigError(
            f"{said} puts half of the environments of each path on validation levels: env.num_envs ({config.env.num_envs}) "
            f"must be a multiple of twice strategy.paths_per_rollout ({paths})"
        )
    without_validation(config.env)


def with_absolute_paths(config: Config) -> Config:
    """The configuration with the paths it names made absolute, so that a run can be resumed from any folder."""
    teacher = config.distill.teacher
    if teacher.endswith((".json", ".onnx")):
        teacher = str(Path(teacher).resolve())
    table, control, store = (
        str(Path(path).resolve()) if path else "" for path in (config.table, config.control, config.strategy.store)
    )
    values = dict(config.strategy.values)
    if isinstance(values.get("tasks"), str) and values["tasks"]:  # of catch: a file
        values["tasks"] = str(Path(str(values["tasks"])).resolve())
    devices = tuple(str(Path(device).resolve()) if is_file(device) else device for device in config.family.devices)
    return dataclasses.replace(
        config,
        table=table,
        control=control,
        distill=dataclasses.replace(config.distill, teacher=teacher),
        strategy=dataclasses.replace(config.strategy, store=store, values=values),
        family=dataclasses.replace(config.family, devices=devices),
    )
