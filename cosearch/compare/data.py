"""The figures of a comparison, from its run folders alone: which runs there are, what each found, what the strategies are worth.

Scores of several tasks are put on one scale for the figures over all tasks: 0 for the lowest and 1 for the highest score that a
run of this comparison has on the task. Within one task scores stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosearch.compare.plan import CONTROL, PlannedRun
from cosearch.compare.runs import read_comparison
from cosearch.report.data import Run, read_run
from cosearch.statistics import hypervolume, improvement_estimate, iqm_estimate
from latency_tables.errors import ConfigError

ALL = "all tasks"
FIGURES = (
    "score_mean",
    "score_ci95",
    "latency_predicted_s",
    "latency_measured_s",
    "latency_target_s",
    "target_met",
    "table_provenance",
    "env_steps",
    "wall_s",
    "params",
    "macs",
)


@dataclass(frozen=True)
class Found:
    """A planned run and what its folder holds; ``run`` is None where there is no folder yet."""

    planned: PlannedRun
    run: Run | None

    @property
    def finished(self) -> bool:
        """Whether it has its summary."""
        return self.run is not None and self.run.finished

    @property
    def score(self) -> float:
        """Mean score of the final agent's episodes."""
        return float(self.run.summary["score_mean"])

    @property
    def latency_s(self) -> float:
        """Predicted latency of the final agent, seconds."""
        return float(self.run.summary["latency_predicted_s"])


def find_runs(folder: Path) -> list[Found]:
    """The runs of a comparison in the order of the request.

    Raises:
        RunFolderError: the folder holds no comparison, or a run's files are damaged.
        ConfigError: finished runs of one task differ in what must be equal.
    """
    planned = read_comparison(folder)
    found = [
        Found(run, read_run(Path(folder) / run.name) if (Path(folder) / run.name / "run.json").is_file() else None)
        for run in planned
    ]
    for env in tasks(found):
        _require_equal([item for item in found if item.planned.env == env and item.finished])
    return found


def tasks(found: Sequence[Found]) -> list[str]:
    """The environments, in order of appearance."""
    return list(dict.fromkeys(item.planned.env for item in found))


def strategies(found: Sequence[Found]) -> list[str]:
    """The strategies, in order of appearance."""
    return list(dict.fromkeys(item.planned.strategy for item in found))


def _require_equal(found: Sequence[Found]) -> None:
    """Refuse a comparison of runs with other steps, targets, tables or search spaces: their scores would mean other things."""
    for what, values in {
        "environment steps": {item.planned.name: item.run.summary["env_steps"] for item in found},
        "latency target": {item.planned.name: item.run.summary["latency_target_s"] for item in found},
        "table": {item.planned.name: item.run.record["table"]["table_id"] for item in found},
        "search space": {item.planned.name: str(item.run.record["space"]) for item in found},
        "teacher": {
            item.planned.name: str(item.run.record["teacher"])
            for item in found
            if not any(key.startswith("distill.") for key in item.planned.own)
        },
    }.items():
        if len(set(values.values())) > 1:
            first, *others = values.items()
            other = next(pair for pair in others if pair[1] != first[1])
            raise ConfigError(
                f"the runs cannot be compared: their {what} differs, {first[0]} has {str(first[1])[:80]}, "
                f"{other[0]} has {str(other[1])[:80]}"
            )


def comparison(folder: Path) -> dict[str, Any]:
    """All figures as one plain JSON object.

    Args:
        folder: of the comparison.

    Returns:
        ``runs`` (one entry each, with its status), ``strategies`` (one entry for each task and strategy that has finished runs,
        and for several tasks one over all of them), ``unfinished`` (names), ``reference`` (of the hypervolume, by task).

    Raises:
        RunFolderError, ConfigError: see :func:`find_runs`.
    """
    found = find_runs(folder)
    rows, references = [], {}
    for env in tasks(found):
        here = [item for item in found if item.planned.env == env and item.finished]
        references[env] = _reference(here)
        rows += [_row(env, name, here, references[env]) for name in strategies(here)]
    if len(tasks(found)) > 1:
        rows += _over_all(found, references)
    return {
        "folder": str(folder),
        "runs": [_run(item) for item in found],
        "strategies": rows,
        "unfinished": [item.planned.name for item in found if not item.finished],
        "reference": references,
    }


def _run(item: Found) -> dict[str, Any]:
    status = "finished" if item.finished else "missing" if item.run is None else "unfinished"
    figures = {key: item.run.summary.get(key) for key in FIGURES} if item.finished else {}
    planned = item.planned
    return {
        "name": planned.name,
        "env": planned.env,
        "strategy": planned.strategy,
        "seed": planned.seed,
        "status": status,
        **figures,
    }


def _reference(found: Sequence[Found]) -> dict[str, float] | None:
    """Slowest latency (the target) and lowest score that count in the hypervolume, and the fastest and highest there are."""
    if not found:
        return None
    scores = [item.score for item in found]
    return {
        "latency_s": float(found[0].run.summary["latency_target_s"]),
        "fastest_s": min(item.latency_s for item in found),
        "score_low": min(scores),
        "score_high": max(scores),
    }


def _scores(found: Sequence[Found], name: str) -> list[float]:
    return [item.score for item in found if item.planned.strategy == name]


def _row(env: str, name: str, here: Sequence[Found], reference: dict[str, float]) -> dict[str, Any]:
    mine, scores, control = [item for item in here if item.planned.strategy == name], _scores(here, name), _scores(here, CONTROL)
    box = (reference["latency_s"] - reference["fastest_s"]) * (reference["score_high"] - reference["score_low"])
    area = hypervolume([(item.latency_s, item.score) for item in mine], (reference["latency_s"], reference["score_low"]))
    return {
        "env": env,
        "strategy": name,
        "runs": len(mine),
        "iqm": iqm_estimate([scores]).to_dict(),
        "score_mean": float(np.mean(scores)),
        "improvement": improvement_estimate([scores], [control]).to_dict() if control and name != CONTROL else None,
        "latency_predicted_s": float(np.median([item.latency_s for item in mine])),
        "targets_met": sum(bool(item.run.summary["target_met"]) for item in mine),
        "hypervolume": area / box if box > 0 else None,
        "env_steps": mine[0].run.summary["env_steps"],
        "wall_s": float(np.mean([item.run.summary["wall_s"] for item in mine])),
    }


def _over_all(found: Sequence[Found], references: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a strategy that has finished runs on every task, on the common scale."""

    def scaled(name: str) -> list[list[float]]:
        per_task = []
        for env, reference in references.items():
            here = [item for item in found if item.planned.env == env and item.finished]
            width = reference["score_high"] - reference["score_low"] if reference else 0.0
            per_task.append([(s - reference["score_low"]) / width if width else 0.5 for s in _scores(here, name)])
        return per_task

    rows, control = [], scaled(CONTROL)
    for name in strategies(found):
        scores = scaled(name)
        if all(scores):
            improved = all(control) and name != CONTROL
            rows.append(
                {
                    "env": ALL,
                    "strategy": name,
                    "runs": sum(map(len, scores)),
                    "iqm": iqm_estimate(scores).to_dict(),
                    "score_mean": float(np.mean([np.mean(task) for task in scores])),
                    "improvement": improvement_estimate(scores, control).to_dict() if improved else None,
                }
            )
    return rows
