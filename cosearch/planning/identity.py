"""What a run works on, by content: recorded when it begins, and compared by every verb that opens its folder.

Table, teacher and environment each have one record in ``run.json``. Where one is another now than it was, nothing is computed:
a result would be of neither. Names and folders may change; what is compared is the content of files, and shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cosearch.config.env import EnvConfig
from cosearch.record.json_record import Absent, from_json
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import EnvironmentRecord, RunRecord, TableRecord, TeacherIdentity
from cosearch.rl.envs import Box, VectorEnv, frame_dtype
from cosearch.rl.policy import policy_of
from cosearch.rl.task import make_task
from cosearch.rl.teacher import TeacherRecord
from latency_tables.errors import ConfigError, RunFolderError, TableError
from latency_tables.opspec import Device

ENVIRONMENT_WORDS = {  # field of the record -> how a message names it
    "observation_shape": "observations",
    "observation_dtype": "their dtype",
    "policy": "policy",
    "num_actions": "actions",
    "first_action": "first action",
    "action_low": "lower bounds of actions",
    "action_high": "upper bounds of actions",
    "parts": "parts of observations",
    "action_sizes": "sizes of the factors of actions",
}


@dataclass(frozen=True)
class Inputs:
    """What there is now; what a verb does not use is absent, and is not compared.

    Attributes:
        table: the table or the accelerator's platform.
        teacher: None: no teacher.
        environment: of the task.
        versions: of what a result depends on.
    """

    table: TableRecord | Absent = Absent.ABSENT
    teacher: TeacherIdentity | Absent | None = Absent.ABSENT
    environment: EnvironmentRecord | Absent = Absent.ABSENT
    versions: Mapping[str, str] | Absent = Absent.ABSENT

    @classmethod
    def of(cls, record: RunRecord) -> Inputs:
        """All inputs of a run that would begin now."""
        environment = Absent.ABSENT if record.environment is None else record.environment
        return cls(record.table, record.teacher, environment, record.versions)


def environment_record(env: VectorEnv) -> EnvironmentRecord:
    """What an environment takes and gives."""

    def bounds(values: tuple[float, ...]) -> tuple[float | None, ...]:
        return tuple(value if math.isfinite(value) else None for value in values)

    box: Box | None = getattr(env, "action_box", None)
    return EnvironmentRecord(
        observation_shape=env.frame_shape,
        observation_dtype=frame_dtype(env.frame_shape).name,
        num_actions=env.num_actions,
        policy=policy_of(env).name,
        first_action=getattr(env, "first_action", 0),
        action_low=() if box is None else bounds(box.low),
        action_high=() if box is None else bounds(box.high),
        parts=tuple(f"{part.kind} {part.name} {part.shape}" for part in getattr(env, "parts", ())),
        action_sizes=tuple(getattr(env, "action_sizes", ())),
    )


def environment_now(task: EnvConfig) -> EnvironmentRecord:
    """What the environment of a task takes and gives now.

    Raises:
        UnknownNameError: there is none.
        EnvironmentFailedError: it cannot be made.
    """
    env = make_task(task, 1, 0)
    try:
        return environment_record(env)
    finally:
        env.close()


def teacher_identity(teacher: TeacherRecord) -> TeacherIdentity:
    """What a run's record keeps of a teacher.

    Raises:
        ConfigError: a file of it cannot be read.
    """
    record = {
        **teacher.provenance,
        "name": teacher.name,
        "network": teacher.description,
        "weights_sha256": teacher.weights_sha256(),
        "further_sha256": teacher.further_sha256() or None,
        "reward_std": teacher.reward_std,
    }
    return from_json(TeacherIdentity, record, teacher.path, "provenance")


def check_inputs(path: Path, began: RunRecord, now: Inputs, verb: str | None = "resume") -> list[str]:
    """Raise unless the inputs are those that a run began with.

    Args:
        path: the run folder, for the message.
        began: its record.
        now: what there is.
        verb: that the user typed, for the advice; None: one that takes no file's new place.

    Returns:
        What differs without making another run of it, one line each: versions of packages.

    Raises:
        TableError: another table.
        ConfigError: another teacher, or an environment with other observations or actions.
    """
    if not isinstance(now.table, Absent):
        _check_table(path, began, now.table, verb)
    if not isinstance(now.teacher, Absent):
        _check_teacher(path, began.teacher, now.teacher, verb)
    if not isinstance(now.environment, Absent):
        _check_environment(path, began, now.environment)
    return [] if isinstance(now.versions, Absent) else _other_versions(path, began.versions, now.versions)


def _check_table(path: Path, began: RunRecord, now: TableRecord, verb: str | None) -> None:
    if began.table.table_id != now.table_id:
        kind = "accelerator" if now.path is None else "table"
        elsewhere = f"`cosearch {verb} {path} --table FILE`"
        raise TableError(
            f"{path} began with the {kind} {began.table.table_id[:12]} of {began.device.name}, which is {now.table_id[:12]} now: "
            f"going on would mix two {kind}s. {_give_back(elsewhere, verb)}"
        )


def _check_teacher(path: Path, began: TeacherIdentity | None, now: TeacherIdentity | None, verb: str | None) -> None:
    changed = _other_teacher(began, now)
    if changed:
        elsewhere = f"`cosearch {verb} {path} --teacher FILE`"
        raise ConfigError(
            f"{path} began with another teacher ({changed}): going on would mix two teachers. {_give_back(elsewhere, verb)}"
        )


def _give_back(elsewhere: str, verb: str | None) -> str:
    if verb is None:
        return "Give the old one back, or move the folder away and begin again"
    return f"Give the old one back, where it lies elsewhere by {elsewhere}, or start a new run"


def _other_teacher(began: TeacherIdentity | None, now: TeacherIdentity | None) -> str | None:
    """What differs, in words; None where nothing does. What an earlier version did not record is not compared."""
    if began is None or now is None:
        named = [None if teacher is None else teacher.name for teacher in (began, now)]
        return None if began is now else f"{named[0] or 'none'} then, {named[1] or 'none'} now"
    if began.weights_sha256 is None:
        return None if (began.name, began.network) == (now.name, now.network) else f"{began.name} then, {now.name} now"
    digests: dict[str, tuple[str | None, str | None]] = {"its weights": (began.weights_sha256, now.weights_sha256)}
    if began.further_sha256 is not None:
        names = sorted({*began.further_sha256, *(now.further_sha256 or {})})
        digests |= {name: (began.further_sha256.get(name), (now.further_sha256 or {}).get(name)) for name in names}
    for name, (old, new) in digests.items():
        if old != new:
            return f"{name}: {(old or 'no such file')[:12]} then, {(new or 'no such file')[:12]} now"
    if None not in (began.reward_std, now.reward_std) and began.reward_std != now.reward_std:
        return f"reward_std {began.reward_std} then, {now.reward_std} now"
    return None if began.network == now.network else f"{began.network} then, {now.network} now"


def _check_environment(path: Path, began: RunRecord, now: EnvironmentRecord) -> None:
    then = began.environment
    if then is None:  # a version that recorded the shapes alone
        space = began.space
        then = replace(now, observation_shape=space.frame_shape, num_actions=space.num_actions, policy=space.policy)
    check_environment(path, then, now)


def check_environment(path: Path, then: EnvironmentRecord, now: EnvironmentRecord) -> None:
    """Raise unless an environment takes and gives what it did when a run began.

    Args:
        path: the run folder, for the message.
        then, now: of the environment.

    Raises:
        ConfigError: it does not; says what was recorded and what there is.
    """
    faults = [
        f"{words} {_text(getattr(then, name))} then, {_text(getattr(now, name))} now"
        for name, words in ENVIRONMENT_WORDS.items()
        if getattr(then, name) != getattr(now, name)
    ]
    if faults:
        raise ConfigError(
            f"{path} began with another environment ({'; '.join(faults)}): its agent is none for this one. Give the old "
            "environment back, or start a new run"
        )


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _other_versions(path: Path, began: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = [f"{name} {began[name]}, now {now[name]}" for name in began if name in now and began[name] != now[name]]
    return [f"{path} began with {'; '.join(changed)}: what follows need not equal a run that was not interrupted"] * bool(changed)


def check_results(path: Path, began: RunRecord, summary: Summary | None, agent: AgentRecord | None) -> None:
    """Raise unless a folder's results are of the device that the run began with.

    Args:
        path: the run folder, for the message.
        began: the run's record.
        summary, agent: its results; None where it has none.

    Raises:
        RunFolderError: a file is of another device or table.
    """
    device = Device(began.device.name, "", began.device.runtime, began.device.dtype, began.device.threads).table_name
    names = {device, began.device.name}  # earlier versions recorded the device alone
    found = {} if summary is None else {Summary.FILE: summary.latency_predicted_for}
    found |= {} if agent is None else {AgentRecord.FILE: agent.latency.predicted_for}
    if summary is not None and summary.table_id not in (None, began.table.table_id):
        found[Summary.FILE] = f"the table {str(summary.table_id)[:12]}"
        device = f"{device} with the table {began.table.table_id[:12]}"
    for file, of in found.items():
        if of not in names:
            raise RunFolderError(
                f"{path / file} is of {of}, {RunRecord.FILE} of {device}: a report would mix the two. `cosearch export {path}` "
                "with the table that the run began with writes its results again"
            )
