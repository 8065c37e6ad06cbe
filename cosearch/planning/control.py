"""The finished random-search run that is shown beside a result."""

from __future__ import annotations

from typing import Any

from cosearch.config.run import Config
from cosearch.record.rundir import RunDir
from latency_tables.errors import ConfigError

CONTROL_KEYS = ("score_mean", "score_ci95", "env_steps", "latency_predicted_s", "seed")


def control_of(config: Config) -> dict[str, Any] | None:
    """Figures of the finished random-search run that is shown beside the result; None where none is named.

    Raises:
        RunFolderError: ``control`` names no finished run.
        ConfigError: it names a run of another strategy, or its results are damaged.
    """
    if not config.control:
        return None
    run = RunDir.open(config.control)
    summary, architecture = run.read_json("summary.json"), run.read_json("architecture.json")
    try:
        if summary["strategy"] != "random":
            raise ConfigError(
                f"control: {run.path} is a run of {summary['strategy']!r}, expected a run made with --strategy random"
            )
        figures = {key: summary[key] for key in CONTROL_KEYS}
        return {**figures, "candidates": architecture["derived_by"]["candidates"]}
    except (KeyError, TypeError) as error:
        raise ConfigError(f"control: the results in {run.path} are damaged: {error} is missing") from error
