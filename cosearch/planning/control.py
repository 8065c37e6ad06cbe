"""The finished random-search run that is shown beside a result."""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.record.architecture import ArchitectureRecord
from cosearch.record.rundir import RunDir
from cosearch.record.summary import ControlRecord, Summary
from latency_tables.errors import ConfigError


def control_of(config: Config) -> ControlRecord | None:
    """Figures of the finished random-search run that is shown beside the result; None where none is named.

    Raises:
        RunFolderError: ``control`` names no finished run, or its results are damaged.
        ConfigError: it names a run of another strategy.
    """
    if not config.control:
        return None
    run = RunDir.open(config.control)
    summary, derived_by = run.read(Summary), run.read(ArchitectureRecord).derived_by
    if summary.strategy != "random" or derived_by.candidates is None:
        raise ConfigError(f"control: {run.path} is a run of {summary.strategy!r}, expected a run made with --strategy random")
    return ControlRecord(
        score_mean=summary.score_mean,
        score_ci95=summary.score_ci95,
        env_steps=summary.env_steps,
        latency_predicted_s=summary.latency_predicted_s,
        seed=summary.seed,
        candidates=derived_by.candidates,
    )
