"""One run folder as one row: what it is, how far it is, what it found. The same figures are on the page and in the SQL tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cosearch.overview.folders import FAILED, FINISHED, UNREADABLE, Passed, Place, find_runs, last_written, signature, state_of
from cosearch.record.metrics import number
from cosearch.record.results.evaluation import EvaluationRecord
from cosearch.report.data import Run, flatten, read_run
from cosearch.report.drawings.plots import thin
from cosearch.report.facts import facts
from latency_tables.errors import CosearchError
from latency_tables.opspec import Device

POINTS = 60  # of one curve on the page
LAST_LINES = 20
Curve = tuple[tuple[float, float], ...]  # environment steps, score


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A score during the training: environment steps of its stage, mean return of the episodes, and its 95 % interval."""

    step: float
    score: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of one run; None for what nobody knows yet.

    Attributes:
        name: of the run; of an agent of several, the run's and its own.
        folder: of the run, as it was found.
        state: a key of ``cosearch.overview.folders.STATES``.
        task, strategy, seed: of the run.
        device: with runtime, dtype and threads, as its table is named.
        stage, step: of the newest line of its log, in environment steps.
        score_mean, score_ci95: mean return of the exported agent on held-out levels, and its 95 % interval.
        episodes: that these are of.
        teacher_score: of its teacher.
        evaluation: what the scores are the means of, and what they amount to.
        latency_predicted_s, latency_measured_s, latency_target_s: of one decision, seconds.
        latency_measured_on: machine that timed it, in words; empty where nobody did.
        on_target: whether that is the run's device itself.
        target_met: whether every target is kept there: as measured, without that as predicted; None where that is not known.
        energy_predicted_j: of one decision, joules.
        macs, params: multiply-accumulates of one decision, and parameters.
        env_steps: of search and retraining.
        wall_s: compute time so far, seconds.
        created_utc: when its folder was made, ISO 8601.
        written_s: when a file of it was last written, seconds since 1970.
        provenance: of the table that prices it.
        architecture: names of the chosen candidates.
        curves: training score by stage.
        evaluations: scores of evaluation episodes by stage.
        reason: why it failed or cannot be read; empty where neither is so.
    """

    name: str
    folder: Path
    state: str
    task: str = ""
    strategy: str = ""
    seed: int | None = None
    device: str = ""
    stage: str = ""
    step: float | None = None
    score_mean: float | None = None
    score_ci95: tuple[float, float] | None = None
    episodes: int | None = None
    teacher_score: float | None = None
    evaluation: EvaluationRecord | None = None
    latency_predicted_s: float | None = None
    latency_measured_s: float | None = None
    latency_target_s: float | None = None
    latency_measured_on: str = ""
    on_target: bool = False
    target_met: bool | None = None
    energy_predicted_j: float | None = None
    macs: int | None = None
    params: int | None = None
    env_steps: int | None = None
    wall_s: float | None = None
    created_utc: str = ""
    written_s: float | None = None
    provenance: str = ""
    architecture: tuple[str, ...] = ()
    curves: tuple[tuple[str, Curve], ...] = ()
    evaluations: tuple[tuple[str, tuple[Evaluated, ...]], ...] = ()
    reason: str = ""


class Reader:
    """Reads run folders, and those that have changed again: nothing of what it has read is kept but the rows."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[object, Row, float | None]] = {}

    def rows(self, folders: Sequence[Path], now_s: float) -> tuple[list[Row], list[Passed]]:
        """A row for each run at and below some folders, and what could not be read.

        Args:
            folders: see ``cosearch.overview.folders.find_runs``.
            now_s: the present moment, seconds since 1970.

        Raises:
            RunFolderError: a folder does not exist, or there is no run in any of them.
        """
        places, passed = find_runs(folders)
        return [self._row(place, now_s) for place in places], passed

    def _row(self, place: Place, now_s: float) -> Row:
        if not place.begun:
            return _planned(place, state_of(place, now_s, None))
        files = signature(place)
        if place.path not in self._known or self._known[place.path][0] != files:
            self._known[place.path] = (files, *_read(place))
        _, row, gap_s = self._known[place.path]
        if row.state == UNREADABLE:
            return row
        state = state_of(place, now_s, gap_s)
        return replace(row, state=state, reason=place.failure if state == FAILED else "")


def _planned(place: Place, state: str) -> Row:
    """The row of a run that a comparison has not begun."""
    row, planned = Row(name=place.path.name, folder=place.path, state=state, reason=place.failure), place.planned
    if planned is None:
        return row
    return replace(row, task=planned.env, strategy=planned.strategy, seed=planned.seed, device=planned.config.device)


def _read(place: Place) -> tuple[Row, float | None]:
    """The row of a run that has begun, with the state ``finished``; and the usual time between lines of its log, seconds."""
    try:
        run = read_run(place.path)
    except CosearchError as error:
        row = Row(name=place.path.name, folder=place.path, state=UNREADABLE, written_s=last_written(place), reason=str(error))
        return row, None
    return row_of(place, run, FINISHED), gap_s(run)


def row_of(place: Place, run: Run, state: str) -> Row:
    """The row of a run.

    Args:
        place: of its folder.
        run: what that holds.
        state: a key of ``cosearch.overview.folders.STATES``.
    """
    record, summary, last = run.record, run.summary, run.metrics[-1] if run.metrics else {}
    config, device = dict(flatten(record.config)), record.device
    predicted = None if run.architecture is None else run.architecture.predicted
    operations = () if predicted is None else predicted.operations
    known = facts(run)
    name = run.name if place.path == place.holder else f"{place.holder.name}/{place.path.name}"
    return Row(
        name=name,
        folder=place.path,
        state=state,
        task=str(config.get("env.name", "")),
        strategy=str(config.get("strategy.name", "")) if summary is None else summary.strategy,
        seed=record.seed,
        device=Device(device.name, device.description, device.runtime, device.dtype, device.threads).table_name,
        stage=str(last.get("stage", "")),
        step=number(last, "step"),
        score_mean=None if summary is None else summary.score_mean,
        score_ci95=None if summary is None else summary.score_ci95,
        episodes=None if summary is None else summary.episodes,
        teacher_score=run.teacher_score,
        evaluation=None if summary is None else summary.evaluation,
        latency_predicted_s=run.latency_predicted_s,
        latency_measured_s=run.latency_measured_s,
        latency_target_s=run.latency_target_s,
        latency_measured_on="" if known.measured_s is None else known.measured_on,
        on_target=known.on_target,
        target_met=None if summary is None else known.holds,
        energy_predicted_j=None if predicted is None else predicted.energy_j,
        macs=summary.macs if summary is not None else sum(one.macs for one in operations) or None,
        params=summary.params if summary is not None else sum(one.params for one in operations) or None,
        env_steps=None if summary is None else summary.env_steps,
        wall_s=number(last, "wall_s") if summary is None else summary.wall_s,
        created_utc=record.created_utc,
        written_s=last_written(place),
        provenance=record.table.provenance,
        architecture=() if run.architecture is None else run.architecture.choice_names,
        curves=tuple((stage, _curve(run, stage)) for stage in ("search", "retrain")),
        evaluations=tuple((stage, _evaluations(run, stage)) for stage in ("search", "retrain")),
    )


def gap_s(run: Run) -> float | None:
    """Usual time between two of the last lines of a run's log, seconds; None where it has fewer than two."""
    walls = [wall for line in run.metrics[-LAST_LINES:] if (wall := number(line, "wall_s")) is not None]
    return float(np.median(np.diff(walls))) if len(walls) > 1 else None


def _curve(run: Run, stage: str) -> Curve:
    steps, scores = run.curve(stage, "score_train")
    return tuple(zip(*(values.tolist() for values in thin(steps, scores, limit=POINTS)), strict=True))


def _evaluations(run: Run, stage: str) -> tuple[Evaluated, ...]:
    bounds = [dict(zip(*run.curve(stage, f"score_eval_ci95_{end}"), strict=True)) for end in ("low", "high")]
    steps, scores = run.curve(stage, "score_eval")
    return tuple(
        Evaluated(step=step, score=score, low=bounds[0].get(step), high=bounds[1].get(step))
        for step, score in zip(steps, scores, strict=True)
    )
