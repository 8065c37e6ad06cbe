"""Which teacher a run has, and whether the two fit: game, discount, frames, actions."""

from __future__ import annotations

import dataclasses

import torch

from cosearch.config.env import EnvConfig
from cosearch.config.run import Config
from cosearch.planning.control import task_differences, task_words
from cosearch.planning.identity import environment_now, teacher_identity
from cosearch.record.run_record import TeacherIdentity
from cosearch.rl.teacher import Teacher, TeacherRecord, find_teacher, load_network
from cosearch.rl.typed import typed
from cosearch.space.parts import Part, frame_shape_of, single_shape
from cosearch.space.space import SearchSpace
from latency_tables.errors import ConfigError, ShapeError

REWARDS = ("kwargs", "wrappers")  # keys of env that say what the rewards of an environment are
TASK = (*REWARDS, "episode_steps")  # that a teacher's file says


def teacher_of(config: Config) -> tuple[Config, TeacherRecord | None]:
    """The teacher that a configuration names, and the configuration with the teacher's discount where it had none.

    A task's own temperature is left out where the teacher says its best action alone.

    Raises:
        UnknownNameError: no such teacher.
        ConfigError: it is damaged, plays another game, or its values mean something else than the run's.
    """
    distill = config.distill
    teacher = named_teacher(config)
    if teacher is None:
        return config, None
    if config.rl.on_policy and distill.critic and (differing := _other_rewards(teacher, config.env)):
        theirs, ours = (task_words(each, differing) for each in (task_of(teacher), config.env))
        raise ConfigError(
            f"teacher {teacher.name!r} was trained with {theirs}, this run has {ours}: its values and the divisor of its rewards "
            "mean something else. Set distill.critic=0 to learn its actions alone, distill.teacher=none to learn without one, or "
            f"train one with the run's words: `cosearch teacher --env {config.env.name} --out FILE.json`"
        )
    known = teacher.understood
    if known is not None and known.teaches_by == "actions" and "distill.temperature" not in config.said:
        config = dataclasses.replace(config, distill=dataclasses.replace(distill, temperature=1.0))  # nothing to sharpen
    if not teacher.is_onnx:
        load_network(teacher)  # a damaged file must show now, not after the search
    if not config.rl.on_policy:
        if any(op.memory for op in teacher.ops) or (teacher.understood is not None and teacher.understood.states):
            raise ConfigError(
                f"teacher {teacher.name!r} has a memory, and rl.algorithm={config.rl.algorithm} learns from single transitions, "
                "where it has no past: set rl.algorithm=ppo, or name another teacher"
            )
        return config, teacher  # which learns its actions alone, with a discount of its own
    if config.rl.gamma is None:
        config = dataclasses.replace(config, rl=dataclasses.replace(config.rl, gamma=teacher.gamma))
    if distill.critic and (teacher.gamma is None or teacher.reward_std is None):
        raise ConfigError(
            f"teacher {teacher.path}: no ONNX file says what its values mean. Give its discount and the divisor of "
            "its rewards, e.g. distill.gamma=0.99 distill.reward_std=1 (rewards as they are), or distill.critic=0 "
            "to learn its actions alone"
        )
    if distill.critic and teacher.gamma is not None and abs(teacher.gamma - config.rl.discount) > 1e-9:
        raise ConfigError(
            f"teacher {teacher.name!r} learned with gamma {teacher.gamma}, the run has rl.gamma {config.rl.discount}: "
            f"its values mean something else. Set rl.gamma={teacher.gamma}, or distill.critic=0 to learn its actions alone"
        )
    return config, teacher


def named_teacher(config: Config) -> TeacherRecord | None:
    """The teacher that a configuration names, with what the configuration says of an ONNX file's values; None for none.

    One of a task with other rewards comes without the divisor of its own.

    Raises:
        UnknownNameError: no such teacher.
        ConfigError: it is damaged, or plays another game.
    """
    distill = config.distill
    teacher = find_teacher(
        distill.teacher, config.env.name, distill.gamma, distill.reward_std, outputs=distill.outputs, layout=distill.layout
    )
    return dataclasses.replace(teacher, reward_std=None) if teacher and _other_rewards(teacher, config.env) else teacher


def task_said(env: EnvConfig) -> dict[str, object]:
    """What a teacher's file says of the task that it was trained on, under ``task`` in its provenance.

    Args:
        env: the section of its training.
    """
    return {key: getattr(env, key) for key in TASK}


def task_of(teacher: TeacherRecord) -> EnvConfig:
    """The task that a teacher's file is of; one that does not say it is of its environment as it is by default.

    Raises:
        ConfigError: what the file says is damaged.
    """
    try:
        said = typed(dict, teacher.provenance.get("task", {}))
        return EnvConfig(name=teacher.env, **said)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{teacher.path}: provenance.task cannot be read as keys of env: {' '.join(str(error).split())[:200]}"
        ) from error


def other_task(teacher: TeacherRecord, env: EnvConfig) -> list[str]:
    """The keys of ``env`` in which a teacher's task differs from a run's, so that the score in its file says nothing there.

    Args:
        teacher: of the run. Of an ONNX file nothing is known but what the run says of it.
        env: of the run.

    Raises:
        ConfigError: what the file says of its task is damaged.
    """
    if teacher.is_onnx:
        return []
    return [key for key in task_differences(task_of(teacher), env) if key in (*TASK, "metric")]


def _other_rewards(teacher: TeacherRecord, env: EnvConfig) -> list[str]:
    return [key for key in other_task(teacher, env) if key in REWARDS]


def identity_in(teacher: TeacherRecord, env: EnvConfig) -> TeacherIdentity:
    """What a run's record keeps of a teacher: its score only where that is of the run's task.

    Args:
        teacher: of the run.
        env: of the run.

    Raises:
        ConfigError: a file of it cannot be read, or is damaged.
    """
    found = teacher_identity(teacher)
    return dataclasses.replace(found, score_mean=None, score_ci95=None) if other_task(teacher, env) else found


def first_action(record: TeacherRecord, config: Config) -> int:
    """The environment's own number of action 0, by which a plain ONNX file may name its actions; 0 for any other teacher.

    Args:
        record: which one.
        config: of the run.
    """
    return environment_now(config.env).first_action if record.is_onnx and record.understood is None else 0


def load_teacher(record: TeacherRecord | None, config: Config, space: SearchSpace, device: torch.device) -> Teacher | None:
    """A teacher with its weights; None for None.

    Args:
        record: which one.
        config: of the run.
        space: the search space of the task, whose observations and actions it has.
        device: where it runs.

    Raises:
        ConfigError: the weights are missing, damaged or of another network.
        ShapeError: an ONNX file has other inputs or outputs than such an agent's.
    """
    if record is None:
        return None
    return Teacher(
        record,
        device=device,
        bf16=config.rl.bf16,
        frame_shape=space.frame_shape,
        num_actions=space.num_actions,
        first_action=first_action(record, config),
        temperature=config.distill.temperature,
    )


def check_fits(
    teacher: TeacherRecord | None,
    frame_shape: tuple[int, ...],
    num_actions: int,
    policy: str = "categorical",
    parts: tuple[Part, ...] = (),
    *,
    first: int = 0,
    values: bool = False,
) -> None:
    """Raise unless the teacher takes these observations and has these actions.

    Args:
        teacher: None fits everything.
        frame_shape: ``(height, width, channels)``, or ``(features,)``.
        num_actions: discrete actions, or length of an action vector.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``.
        parts: of an observation; empty: it is an image or a vector itself.
        first: the environment's own number of action 0, see :func:`first_action`.
        values: whether its values are learned.

    Raises:
        ShapeError: it does not.
        ConfigError: it gives no values where they are learned, an ONNX file cannot be loaded, or the policies are of two kinds.
    """
    if teacher is None:
        return
    if teacher.is_onnx and parts:
        raise ConfigError(
            f"teacher {teacher.path}: an ONNX file teaches tasks of one image or vector, this one has observations of the parts "
            f"{_names(parts)}: train a teacher (`cosearch teacher --env TASK --out FILE`), or leave it out: "
            "distill.teacher=none"
        )
    if teacher.is_onnx and teacher.understood is None and policy != "categorical":
        raise ConfigError(
            f"teacher {teacher.path}: no plain ONNX file says how the components of its actions are scaled. `cosearch compress "
            f"{teacher.path} --env {teacher.env}` asks for it and writes a file that does"
        )
    if teacher.policy != policy:
        raise ConfigError(f"teacher {teacher.name!r} has a {teacher.policy} policy, the run's environment needs a {policy} one")
    if teacher.is_onnx:
        network = teacher.open_network(frame_shape, num_actions, first)
        if values and network.understood.value is None:
            raise ConfigError(f"teacher {teacher.path} gives no values: set distill.critic=0 to learn its actions alone")
        return
    stem, head = teacher.ops[0], teacher.ops[-1]
    if teacher.parts != parts:
        raise ShapeError(
            f"teacher {teacher.name!r} takes observations of the parts {_names(teacher.parts)}, the run's environment has "
            f"{_names(parts)}"
        )
    if parts:
        frame_shape = single_shape(frame_shape, parts) or frame_shape_of(parts)
    taken = (stem.in_height, stem.in_width, stem.in_channels) if stem.kind == "stem" else (stem.in_channels,)
    if (taken != tuple(frame_shape) and len(frame_shape) != 2) or head.out_channels - 1 != num_actions:
        raise ShapeError(
            f"teacher {teacher.name!r} takes frames {taken} and has {head.out_channels - 1} actions, the run's "
            f"environment has frames {tuple(frame_shape)} and {num_actions} actions"
        )


def _names(parts: tuple[Part, ...]) -> str:
    return ", ".join(f"{part.name} {part.shape}" for part in parts) or "one image or vector"
