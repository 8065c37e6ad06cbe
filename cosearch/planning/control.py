"""The controls of a search, and the finished run of one that is shown beside a result.

``random``: architectures drawn uniformly; ``largest``: the most multiply-accumulates within the target, of the run's own space or
of a hand-made network's widths (``space.kinds.hand_made``). None learns what to choose, so a search that is no better has found
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from cosearch.config.env import EnvConfig
from cosearch.config.run import Config
from cosearch.planning.recorded import config_of
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import ControlRecord, Summary
from cosearch.record.run_record import DeviceRecord, RunRecord
from cosearch.record.rundir import RunDir
from cosearch.space.kinds.hand_made import HAND_MADE
from latency_tables.errors import ConfigError
from latency_tables.opspec import Device
from latency_tables.text.reading import shown

RANDOM, LARGEST = "random", "largest"
CONTROLS = (RANDOM, LARGEST)
SAME_SCORES = ("num_envs", "step_limit_s", "solved_at")  # keys of env that leave what a score means as it is


def is_hand_made(config: Config) -> bool:
    """Whether a run is a control of a hand-made network: as wide as the target allows."""
    return config.strategy.name == LARGEST and config.space.name in HAND_MADE


def control_of(config: Config) -> ControlRecord | None:
    """Figures of the finished run of a control that is shown beside the result; None where none is named.

    Raises:
        RunFolderError: ``control`` names no finished run, or its results are damaged.
        ConfigError: it names a run of a strategy that is no control.
    """
    if not config.control:
        return None
    run = RunDir.open(config.control)
    summary, derived_by = run.read(Summary), run.read(ArchitectureRecord).derived_by
    if summary.strategy not in CONTROLS or derived_by.candidates is None:
        raise ConfigError(
            f"control: {run.path} is a run of {summary.strategy!r}, expected a run made with --strategy {' or '.join(CONTROLS)}"
        )
    return ControlRecord(
        strategy=summary.strategy,
        score_mean=summary.score_mean,
        score_ci95=summary.score_ci95,
        env_steps=summary.env_steps,
        latency_predicted_s=summary.latency_predicted_s,
        seed=summary.seed,
        candidates=derived_by.candidates,
    )


def task_differences(one: EnvConfig, other: EnvConfig) -> list[str]:
    """The keys of ``env`` in which two tasks differ so that scores on them mean different things.

    Args:
        one, other: the sections of two runs.
    """
    first, second = _plain(one), _plain(other)
    return [key for key in first if first[key] != second[key] and key not in SAME_SCORES]


def task_words(env: EnvConfig, keys: Sequence[str]) -> str:
    """Some keys of ``env`` with their values, as they are typed.

    Args:
        env: the section.
        keys: of it.
    """
    values = _plain(env)
    return " ".join(f"env.{key}={shown(values[key])}" for key in keys)


def _plain(env: EnvConfig) -> dict[str, object]:
    plain: dict[str, object] = json.loads(json.dumps(asdict(env)))
    return plain


def check_control(config: Config, device: Device, table_id: str | None) -> None:
    """Raise unless the control that a configuration names can stand beside its result: same task, same device or table.

    Args:
        config: of the run.
        device: that it is for.
        table_id: digest of the device's table; None on an accelerator, whose design is searched.

    Raises:
        RunFolderError: ``control`` names no finished run, or its results are damaged.
        ConfigError: it names a run of a strategy that is no control, of another task, of another table or device.
    """
    if control_of(config) is None:
        return
    run = RunDir.open(config.control)
    theirs = config_of(run).env
    if differing := task_differences(theirs, config.env):
        its, ours = (task_words(each, differing) for each in (theirs, config.env))
        raise ConfigError(
            f"control: {run.path} is a run with {its}, this one has {ours}: their scores cannot be compared. Leave control out, "
            "or make its run on this task"
        )
    record = run.read(RunRecord)
    made_on, made_with = record.device, record.table.table_id
    if table_id is None and any(getattr(made_on, key) != getattr(device, key) for key in ("name", "runtime", "dtype", "threads")):
        raise ConfigError(
            f"control: {run.path} was made for {_words(made_on)}, this run is for {_words(device)}: their latencies cannot be "
            "compared. Leave control out, or make its run for this device"
        )
    if table_id not in (None, made_with):
        raise ConfigError(
            f"control: {run.path} was made with the table {made_with[:12]}, this run has {str(table_id)[:12]}: their latencies "
            "cannot be compared. Leave control out, or make its run with this table"
        )


def _words(device: Device | DeviceRecord) -> str:
    return f"{device.name} ({device.runtime}, {device.dtype}, {device.threads} thread{'s' * (device.threads != 1)})"
