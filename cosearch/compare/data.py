"""The figures of a comparison, from its run folders alone: which runs there are, what each found, what the strategies are worth.

Scores of several tasks are put on one scale for the figures over all tasks: 0 for the lowest and 1 for the highest score that a
run of this comparison has on the task. Within one task scores stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cosearch.compare.plan import PlannedRun
from cosearch.compare.runs import read_comparison
from cosearch.planning.budget import run_steps
from cosearch.planning.control import LARGEST, RANDOM, is_hand_made
from cosearch.quality import mean_hypervolume
from cosearch.record.json_record import FURTHER, OMITTED, Absent, JsonObject, to_json
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord, TeacherIdentity
from cosearch.report.data import Run, read_run
from cosearch.report.learned import hardly_learned
from cosearch.statistics import Estimate, improvement_estimate, iqm_estimate
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
    "evaluation",
)


@dataclass(frozen=True)
class ComparedRun:
    """A planned run and what its folder holds; ``run`` is None where there is no folder yet."""

    planned: PlannedRun
    run: Run | None


@dataclass(frozen=True)
class Result:
    """A finished run: what was planned, its record and its summary."""

    planned: PlannedRun
    record: RunRecord
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of the comparison.

    Attributes:
        name, env, strategy, seed: as planned.
        status: ``finished``, ``unfinished`` or ``missing``.
        figures: those of its summary that :data:`FIGURES` names; empty until it is finished.
    """

    name: str
    env: str
    strategy: str
    seed: int
    status: str
    figures: JsonObject = field(default_factory=dict, metadata=FURTHER)


@dataclass(frozen=True, kw_only=True)
class StrategyRow:
    """One strategy on one task, or over all tasks, where scores are on the common scale and the figures of a task are absent.

    Attributes:
        env, strategy: the task and the label.
        runs: how many are finished.
        iqm: inter-quartile mean of the score.
        score_mean: its mean.
        improvement: probability of a better score than random search; None for random search itself and without its runs.
        improvement_largest: the same, than ``largest``.
        improvement_hand_made: the same, than each hand-made network that is a control; absent where there is none.
        latency_predicted_s: median, seconds.
        targets_met: runs that meet their target; None where one of them does not know.
        hypervolume: share of the box from the reference to the fastest and highest that a run dominates, mean over the runs; None
            where that box is empty.
        env_steps: of each run, as planned.
        wall_s: mean compute time of a run, seconds.
        share_of_teacher: mean share of the teacher's score, counted from a random policy's; absent where a run did not record it.
        solved: runs that solve the task; absent where nobody named the score that counts as solved.
    """

    env: str
    strategy: str
    runs: int
    iqm: Estimate
    score_mean: float
    improvement: Estimate | None
    improvement_largest: Estimate | None
    improvement_hand_made: Mapping[str, Estimate | None] | None = field(default=None, metadata=OMITTED)
    latency_predicted_s: float | None = field(default=None, metadata=OMITTED)
    targets_met: int | None = field(default=None, metadata=OMITTED)
    hypervolume: float | Absent | None = field(default=Absent.ABSENT, metadata=OMITTED)
    env_steps: int | None = field(default=None, metadata=OMITTED)
    wall_s: float | None = field(default=None, metadata=OMITTED)
    share_of_teacher: float | None = field(default=None, metadata=OMITTED)
    solved: int | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Slowest latency (the target) and lowest score that count in the hypervolume, and the fastest and highest there are."""

    latency_s: float
    fastest_s: float
    score_low: float
    score_high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All figures of a comparison.

    Attributes:
        folder: of the comparison.
        runs: one entry each, with its status.
        strategies: one entry for each task and strategy that has finished runs, and for several tasks one over all of them.
        unfinished: names of runs.
        unlearned: names of finished runs whose search ended with shared weights that had hardly learned (``report.learned``).
        reference: of the hypervolume, by task; None without finished runs.
        spent_otherwise: environment steps of the finished runs that took more or fewer than planned, by name: a repair of the
            target adds some, a candidate that failed leaves some out.
    """

    folder: str
    runs: tuple[RunRow, ...]
    strategies: tuple[StrategyRow, ...]
    unfinished: tuple[str, ...]
    unlearned: tuple[str, ...]
    reference: Mapping[str, Reference | None]
    spent_otherwise: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The same as one plain JSON object."""
        return to_json(self)


def compared_runs(folder: Path) -> list[ComparedRun]:
    """The runs of a comparison in the order of the request.

    Raises:
        RunFolderError: the folder holds no comparison, or a run's files are damaged.
        ConfigError: finished runs of one task differ in what must be equal.
    """
    planned = read_comparison(folder)
    runs = [
        ComparedRun(run, read_run(Path(folder) / run.name) if (Path(folder) / run.name / "run.json").is_file() else None)
        for run in planned
    ]
    for env in tasks(runs):
        _require_equal(results_of(runs, env))
    return runs


def results_of(runs: Sequence[ComparedRun], env: str) -> list[Result]:
    """The finished runs of one task."""
    return [
        Result(item.planned, item.run.record, item.run.summary)
        for item in runs
        if item.planned.env == env and item.run is not None and item.run.summary is not None
    ]


def tasks(runs: Sequence[ComparedRun]) -> list[str]:
    """The environments, in order of appearance."""
    return list(dict.fromkeys(item.planned.env for item in runs))


def strategies(runs: Sequence[ComparedRun | Result]) -> list[str]:
    """The strategies, in order of appearance."""
    return list(dict.fromkeys(item.planned.strategy for item in runs))


def hand_made(runs: Sequence[ComparedRun | Result]) -> list[str]:
    """The hand-made networks that are controls, in order of appearance."""
    return list(dict.fromkeys(item.planned.strategy for item in runs if is_hand_made(item.planned.config)))


def _require_equal(results: Sequence[Result]) -> None:
    """Refuse runs with other planned steps, targets, tables or search spaces: their scores would mean other things."""
    values: dict[str, dict[str, object]] = {
        "environment steps": {item.planned.name: run_steps(item.planned.config) for item in results},
        "metric of the score": {
            item.planned.name: item.summary.evaluation.metric if item.summary.evaluation is not None else "return"
            for item in results
        },
        "latency target": {item.planned.name: item.summary.latency_target_s for item in results},
        "table": {item.planned.name: item.record.table.table_id for item in results},
        "search space": {
            item.planned.name: item.record.space
            for item in results
            if not any(key.startswith("space.") for key in item.planned.own)
        },
        "teacher": {
            item.planned.name: item.record.teacher
            for item in results
            if not any(key.startswith("distill.") for key in item.planned.own)
        },
    }
    for what, by_run in values.items():
        if not by_run:
            continue
        (first, wanted), *others = by_run.items()
        for name, value in others:
            if value != wanted:
                raise ConfigError(
                    f"the runs cannot be compared: their {what} differs, {first} has {_shortly(wanted)}, "
                    f"{name} has {_shortly(value)}"
                )


def _shortly(value: object) -> str:
    return str(value.name if isinstance(value, TeacherIdentity) else value)[:80]


def comparison(folder: Path) -> Comparison:
    """All figures of a comparison.

    Args:
        folder: of the comparison.

    Raises:
        RunFolderError, ConfigError: see :func:`compared_runs`.
    """
    runs = compared_runs(folder)
    rows: list[StrategyRow] = []
    references: dict[str, Reference | None] = {}
    for env in tasks(runs):
        here = results_of(runs, env)
        references[env] = reference = _reference(here)
        if reference is not None:
            rows += [_row(env, name, here, reference) for name in strategies(here)]
    if len(tasks(runs)) > 1:
        rows += _over_all(runs, references)
    return Comparison(
        folder=str(folder),
        runs=tuple(_run(item) for item in runs),
        strategies=tuple(rows),
        unfinished=tuple(item.planned.name for item in runs if item.run is None or not item.run.finished),
        unlearned=tuple(
            item.planned.name
            for item in runs
            if item.run is not None and item.run.finished and hardly_learned(item.run) is not None
        ),
        reference=references,
        spent_otherwise={
            item.planned.name: item.summary.env_steps
            for env in references
            for item in results_of(runs, env)
            if item.summary.env_steps != run_steps(item.planned.config)
        },
    )


def _run(item: ComparedRun) -> RunRow:
    planned, summary = item.planned, None if item.run is None else item.run.summary
    status = "missing" if item.run is None else "unfinished" if summary is None else "finished"
    content = {} if summary is None else to_json(summary)
    return RunRow(
        name=planned.name,
        env=planned.env,
        strategy=planned.strategy,
        seed=planned.seed,
        status=status,
        figures={key: content[key] for key in FIGURES if key in content},
    )


def _reference(results: Sequence[Result]) -> Reference | None:
    if not results:
        return None
    scores = [item.summary.score_mean for item in results]
    return Reference(
        latency_s=results[0].summary.latency_target_s,
        fastest_s=min(item.summary.latency_predicted_s for item in results),
        score_low=min(scores),
        score_high=max(scores),
    )


def _scores(results: Sequence[Result], name: str) -> list[float]:
    return [item.summary.score_mean for item in results if item.planned.strategy == name]


def _row(env: str, name: str, here: Sequence[Result], reference: Reference) -> StrategyRow:
    mine = [item.summary for item in here if item.planned.strategy == name]
    planned = next(item.planned.config for item in here if item.planned.strategy == name)
    scores = _scores(here, name)
    box = (reference.latency_s - reference.fastest_s) * (reference.score_high - reference.score_low)
    points = [(summary.latency_predicted_s, summary.score_mean) for summary in mine]
    area = mean_hypervolume(points, (reference.latency_s, reference.score_low))
    return StrategyRow(
        env=env,
        strategy=name,
        runs=len(mine),
        iqm=iqm_estimate([scores]),
        score_mean=float(np.mean(scores)),
        improvement=_improvement(name, RANDOM, lambda strategy: [_scores(here, strategy)]),
        improvement_largest=_improvement(name, LARGEST, lambda strategy: [_scores(here, strategy)]),
        improvement_hand_made={
            network: _improvement(name, network, lambda strategy: [_scores(here, strategy)]) for network in hand_made(here)
        }
        or None,
        latency_predicted_s=float(np.median([summary.latency_predicted_s for summary in mine])),
        targets_met=_all_of(summary.target_met for summary in mine),
        hypervolume=area / box if box > 0 else None,
        env_steps=run_steps(planned),
        wall_s=float(np.mean([summary.wall_s for summary in mine])),
        share_of_teacher=_mean_share(mine),
        solved=_solved(mine),
    )


def _mean_share(summaries: Sequence[Summary]) -> float | None:
    """Mean share of the teacher's score, counted from a random policy's; None where one of the runs has none."""
    shares = [summary.evaluation.share_of_teacher for summary in summaries if summary.evaluation is not None]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if len(known) == len(summaries) else None


def _solved(summaries: Sequence[Summary]) -> int | None:
    """How many of the runs solve the task; None where one of them does not know."""
    return _all_of(None if summary.evaluation is None else summary.evaluation.solved for summary in summaries)


def _all_of(values: Iterable[bool | None]) -> int | None:
    """How many are true; None where one is not known."""
    found = list(values)
    return None if None in found else sum(map(bool, found))


def _improvement(name: str, control: str, scores: Callable[[str], list[list[float]]]) -> Estimate | None:
    """Probability that a run of ``name`` scores more than one of ``control``; None for itself, and without its runs."""
    theirs = scores(control)
    return improvement_estimate(scores(name), theirs) if all(theirs) and name != control else None


def _over_all(runs: Sequence[ComparedRun], references: Mapping[str, Reference | None]) -> list[StrategyRow]:
    """One row a strategy that has finished runs on every task, on the common scale."""

    def scaled(name: str) -> list[list[float]]:
        per_task = []
        for env, reference in references.items():
            low, width = (0.0, 0.0) if reference is None else (reference.score_low, reference.score_high - reference.score_low)
            per_task.append([(s - low) / width if width else 0.5 for s in _scores(results_of(runs, env), name)])
        return per_task

    rows = []
    for name in strategies(runs):
        scores = scaled(name)
        if all(scores):
            rows.append(
                StrategyRow(
                    env=ALL,
                    strategy=name,
                    runs=sum(map(len, scores)),
                    iqm=iqm_estimate(scores),
                    score_mean=float(np.mean([np.mean(task) for task in scores])),
                    improvement=_improvement(name, RANDOM, scaled),
                    improvement_largest=_improvement(name, LARGEST, scaled),
                )
            )
    return rows
