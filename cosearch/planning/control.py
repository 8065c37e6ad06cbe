"""The controls of a search, and the finished run of one that is shown beside a result.

``random``: architectures drawn uniformly; ``largest``: the most multiply-accumulates within the target, of the run's own space or
of a hand-made network's widths (``space.kinds.hand_made``). None learns what to choose, so a search that is no better has found
nothing.
"""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.planning.recorded import config_of
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import ControlRecord, Summary
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.space.kinds.hand_made import HAND_MADE
from latency_tables.errors import ConfigError

RANDOM, LARGEST = "random", "largest"
CONTROLS = (RANDOM, LARGEST)


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


def check_control(config: Config, table_id: str | None) -> None:
    """Raise unless the control that a configuration names can stand beside its result: same task, same table.

    Args:
        config: of the run.
        table_id: digest of its table; None on an accelerator, whose design is searched.

    Raises:
        RunFolderError: ``control`` names no finished run, or its results are damaged.
        ConfigError: it names a run of a strategy that is no control, of another task or of another table.
    """
    if control_of(config) is None:
        return
    run = RunDir.open(config.control)
    task, own = config_of(run).env, config.env
    if (task.name, task.kwargs) != (own.name, own.kwargs):
        raise ConfigError(
            f"control: {run.path} is a run of {task.name} {task.kwargs or ''}, this one is of {own.name} {own.kwargs or ''}: "
            "their scores cannot be compared. Leave control out, or make its run on this task"
        )
    made_with = run.read(RunRecord).table.table_id
    if table_id not in (None, made_with):
        raise ConfigError(
            f"control: {run.path} was made with the table {made_with[:12]}, this run has {str(table_id)[:12]}: their latencies "
            "cannot be compared. Leave control out, or make its run with this table"
        )
