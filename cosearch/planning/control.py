"""The controls of a search, and the finished run of one that is shown beside a result.

``random``: architectures drawn uniformly; ``largest``: the most multiply-accumulates within the target, of the run's own space or
of a hand-made network's widths (``space.kinds.hand_made``). None learns what to choose, so a search that is no better has found
nothing.
"""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.record.architecture import ArchitectureRecord
from cosearch.record.rundir import RunDir
from cosearch.record.summary import ControlRecord, Summary
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
