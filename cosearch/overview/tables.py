"""What run folders hold as tables for SQL: typed columns with units in their names, one row a run, line, episode or choice.

``folder`` is in every table and names the run; a quantity that nobody knows is null.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cosearch.overview.folders import Place
from cosearch.overview.rows import Row
from cosearch.record.json_record import from_json
from cosearch.record.metrics import METRICS
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.evaluation import EpisodesRecord
from cosearch.record.results.summary import Summary
from cosearch.report.data import Run
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json, shown

Values = dict[str, object]  # one row: values by the names of columns; one that is absent is null


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: with the unit where it has one.
        type: in DuckDB's SQL.
        meaning: one line.
    """

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        meaning: of one of its rows.
        columns: after ``folder``, which each table has.
        rows: those of one run.
        file: of the run's folder that they come from; empty: several.
    """

    meaning: str
    columns: tuple[Column, ...]
    rows: Callable[[Row, Run], Iterator[Values]]
    file: str = ""


FOLDER = Column("folder", "VARCHAR", "the run's folder")
TEXT, NUMBER, COUNT, TRUTH, MOMENT = "VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN", "TIMESTAMP"
SEED, COUNTS, TEXTS = "UBIGINT", "BIGINT[]", "VARCHAR[]"
LOG = "metrics.jsonl"
WORDS = {  # type of a column -> what its values must be
    TEXT: "text",
    NUMBER: "a number",
    COUNT: "a whole number of 64 bits",
    TRUTH: "true or false",
    MOMENT: "a moment",
    SEED: "a whole number from 0 to 2^64 - 1",
    COUNTS: "a list, each a whole number of 64 bits",
    TEXTS: "a list, each text",
}
OF_KIND = {"number": NUMBER, "count": COUNT, "text": TEXT}


def _runs(row: Row, run: Run) -> Iterator[Values]:
    low, high = row.score_ci95 or (None, None)
    judged = row.evaluation
    summary, record = run.summary, run.record
    yield {
        **{name: getattr(row, name) for name in AS_IN_THE_ROW},
        "run": row.name,
        "created_utc": _moment(row.created_utc),
        "written_utc": None
        if row.written_s is None
        else datetime.fromtimestamp(row.written_s, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "score_ci95_low": low,
        "score_ci95_high": high,
        **({} if judged is None else {name: getattr(judged, name) for name in JUDGED}),
        "random_score": None if judged is None else judged.random_mean,
        "space": record.space.name,
        "space_size": record.space.size if record.space.size < 2**63 else None,
        "teacher": None if record.teacher is None else record.teacher.name,
        "latency_measured_on": None if summary is None else summary.latency_measured_on,
        "target_checked_by": None if summary is None else summary.target_checked_by,
        "table_id": record.table.table_id,
        "cosearch_version": record.versions.get("cosearch"),
        "command": record.command,
    }


AS_IN_THE_ROW = (
    "task",
    "device",
    "strategy",
    "seed",
    "state",
    "stage",
    "step",
    "score_mean",
    "episodes",
    "teacher_score",
    "latency_predicted_s",
    "latency_measured_s",
    "latency_target_s",
    "target_met",
    "energy_predicted_j",
    "macs",
    "params",
    "env_steps",
    "wall_s",
    "provenance",
)


JUDGED = ("metric", "return_mean", "length_mean", "success_rate", "solved_at", "solved", "share_of_teacher")


def _moment(text: str) -> str | None:
    """A moment of a run's record as SQL reads it, in UTC; None for another text."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment.astimezone(UTC) if moment.tzinfo else moment).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):  # the latter: before the year 1 or after 9999 in UTC
        return None


def _curves(row: Row, run: Run) -> Iterator[Values]:
    for line in run.metrics:
        yield {key: value for key, value in line.items() if key in METRICS and METRICS[key].kind in OF_KIND}


def _episodes(row: Row, run: Run) -> Iterator[Values]:
    path = row.folder / EpisodesRecord.FILE
    if not path.is_file():
        return
    found = from_json(EpisodesRecord, read_json(path, "the episodes of a run", RunFolderError, digits=OWN_DIGITS), path)
    nothing = (None,) * len(found.returns)
    for index, (value, length, success) in enumerate(
        zip(found.returns, found.lengths or nothing, found.successes or nothing, strict=True)
    ):
        yield {
            "episode": index,
            "episode_return": value,
            "length": length,
            "success": success,
            "levels": found.levels,
            "actions": found.actions,
        }


def _candidates(row: Row, run: Run) -> Iterator[Values]:
    found = None if run.architecture is None else run.architecture.derived_by.candidates
    for index, one in enumerate(found or ()):
        yield {
            "candidate": index,
            "asked": one.asked,
            "choices": list(one.choices),
            "score": one.score,
            "latency_predicted_s": one.latency_s,
            "env_steps": one.env_steps,
            "failure": one.failure,
        }


def _layers(row: Row, run: Run) -> Iterator[Values]:
    for index, one in enumerate(() if run.architecture is None else run.architecture.predicted.operations):
        yield {
            "layer": index,
            "operation": one.key,
            "latency_predicted_s": one.latency_s,
            "energy_predicted_j": one.energy_j,
            "macs": one.macs,
            "params": one.params,
        }


def _choices(row: Row, run: Run) -> Iterator[Values]:
    if run.architecture is None:
        return
    for point, (choice, name) in enumerate(zip(run.architecture.choices, run.architecture.choice_names, strict=True)):
        yield {"point": point, "choice": choice, "name": name, "candidates": list(run.architecture.candidate_names[point])}


def _targets(row: Row, run: Run) -> Iterator[Values]:
    for one in () if run.summary is None else run.summary.targets:
        yield {
            "metric": one.metric,
            "statistic": one.statistic,
            "measured_at": one.at,
            "target": one.target,
            "predicted": one.predicted,
            "measured": one.measured,
            "met": one.met,
            "probability": one.probability,
        }


TABLES = {
    "runs": Table(
        "a run, finished or not",
        (
            Column("run", TEXT, "its name; of an agent of several, the run's and its own"),
            Column("task", TEXT, "environment"),
            Column("device", TEXT, "target device"),
            Column("strategy", TEXT, "of the search"),
            Column("seed", SEED, "of all random streams"),
            Column("state", TEXT, "finished, running, stuck, idle or failed"),
            Column("stage", TEXT, "of the newest line of its log"),
            Column("step", COUNT, "of that line, environment steps of the stage"),
            Column("score_mean", NUMBER, "mean return of the exported agent on held-out levels"),
            Column("score_ci95_low", NUMBER, "lower end of its 95 % interval"),
            Column("score_ci95_high", NUMBER, "upper end of it"),
            Column("episodes", COUNT, "that the score is of"),
            Column("teacher", TEXT, "name of the teacher"),
            Column("teacher_score", NUMBER, "its mean return"),
            Column("random_score", NUMBER, "of a random policy in the same evaluation"),
            Column("share_of_teacher", NUMBER, "how far the score is from the random policy's (0) to the teacher's (1)"),
            Column("metric", TEXT, "what the score is the mean of: return, success or length; null: return"),
            Column("return_mean", NUMBER, "mean return"),
            Column("length_mean", NUMBER, "mean length of an episode, environment steps"),
            Column("success_rate", NUMBER, "share of the episodes that succeeded"),
            Column("solved_at", NUMBER, "score from which the task counts as solved"),
            Column("solved", TRUTH, "whether the score reaches it"),
            Column("latency_predicted_s", NUMBER, "of one decision on the device, seconds"),
            Column("latency_measured_s", NUMBER, "median, seconds"),
            Column("latency_measured_on", TEXT, "machine and runtime that timed it"),
            Column("latency_target_s", NUMBER, "the bound, seconds"),
            Column("target_met", TRUTH, "whether every target is kept; null where that is not known"),
            Column("target_checked_by", TEXT, "measurement, or the kind of the prediction"),
            Column("energy_predicted_j", NUMBER, "of one decision, joules"),
            Column("macs", COUNT, "multiply-accumulates of one decision"),
            Column("params", COUNT, "parameters"),
            Column("env_steps", COUNT, "environment steps of search and retraining"),
            Column("wall_s", NUMBER, "compute time so far, seconds"),
            Column("created_utc", MOMENT, "when its folder was made"),
            Column("written_utc", MOMENT, "when a file of it was last written"),
            Column("provenance", TEXT, "of the table that prices it: measured, estimated, ..."),
            Column("table_id", TEXT, "SHA-256 of that table"),
            Column("space", TEXT, "kind of the search space"),
            Column("space_size", COUNT, "its architectures; null from 2^63 on"),
            Column("cosearch_version", TEXT, "that made it"),
            Column("command", TEXT, "command line"),
        ),
        _runs,
    ),
    "curves": Table(
        "a line of metrics.jsonl",
        tuple(
            Column(name, OF_KIND[metric.kind], f"{metric.meaning} ({metric.unit})" if metric.unit not in "-1" else metric.meaning)
            for name, metric in METRICS.items()
            if metric.kind in OF_KIND
        ),
        _curves,
        LOG,
    ),
    "episodes": Table(
        "an episode of the exported agent's evaluation",
        (
            Column("episode", COUNT, "its number, from 0"),
            Column("episode_return", NUMBER, "sum of its rewards"),
            Column("length", COUNT, "environment steps"),
            Column("success", TRUTH, "whether it succeeded; null where the environment does not say"),
            Column("levels", TEXT, "test or train"),
            Column("actions", TEXT, "sampled or greedy"),
        ),
        _episodes,
        EpisodesRecord.FILE,
    ),
    "candidates": Table(
        "an architecture that a proposal strategy trained, or a one-shot strategy scored",
        (
            Column("candidate", COUNT, "its number in the order of the results, from 0"),
            Column("asked", COUNT, "which proposal it was, where that is another order"),
            Column("choices", COUNTS, "index of the candidate at each choice point"),
            Column("score", NUMBER, "of its training; null where it has none"),
            Column("latency_predicted_s", NUMBER, "of one decision, seconds"),
            Column("env_steps", COUNT, "environment steps of its training"),
            Column("failure", TEXT, "why it has no score"),
        ),
        _candidates,
        ArchitectureRecord.FILE,
    ),
    "layers": Table(
        "an operation of the derived network",
        (
            Column("layer", COUNT, "its place in the order of execution, from 0"),
            Column("operation", TEXT, "key of its row in the latency table"),
            Column("latency_predicted_s", NUMBER, "seconds"),
            Column("energy_predicted_j", NUMBER, "joules"),
            Column("macs", COUNT, "multiply-accumulates"),
            Column("params", COUNT, "parameters"),
        ),
        _layers,
        ArchitectureRecord.FILE,
    ),
    "choices": Table(
        "a choice point of the derived architecture",
        (
            Column("point", COUNT, "its number, from 0"),
            Column("choice", COUNT, "index of the chosen candidate"),
            Column("name", TEXT, "its name"),
            Column("candidates", TEXTS, "names of all of them"),
        ),
        _choices,
        ArchitectureRecord.FILE,
    ),
    "targets": Table(
        "a target of a finished run",
        (
            Column("metric", TEXT, "latency_s, energy_j, file_bytes or memory_bytes: the unit of the next three"),
            Column("statistic", TEXT, "of a latency: median or p99"),
            Column("measured_at", TEXT, "of a latency: back-to-back or period"),
            Column("target", NUMBER, "the bound"),
            Column("predicted", NUMBER, "of this figure; null where the table knows nothing of it"),
            Column("measured", NUMBER, "on the device; null where nobody measured it"),
            Column("met", TRUTH, "whether it is kept; null where that is not known"),
            Column("probability", NUMBER, "that the device keeps it, of a prediction"),
        ),
        _targets,
        Summary.FILE,
    ),
}


def columns(name: str) -> tuple[Column, ...]:
    """All columns of a table, ``folder`` first.

    Args:
        name: of the table.
    """
    return (FOLDER, *TABLES[name].columns)


def rows_of(name: str, place: Place, row: Row, run: Run) -> Iterator[Values]:
    """The rows that one run has in a table.

    Args:
        name: of the table.
        place, row, run: of the run.

    Raises:
        RunFolderError: one of its files is damaged, or holds a value that its column cannot; says where.
    """
    table = TABLES[name]
    types = {column.name: column.type for column in table.columns}
    for count, values in enumerate(table.rows(row, run), 1):
        for key, value in values.items():
            if value is not None and not _fits(value, types[key]):
                where = f"{place.path / table.file}, line {count}" if table.file == LOG else place.path / table.file
                raise RunFolderError(f"{where}: {key} must be {WORDS[types[key]]}, got {shown(value)}")
        yield {FOLDER.name: str(place.path), **values}


def _fits(value: object, kind: str) -> bool:
    """Whether a column of a type holds a value: what it does not hold would end the query, for all runs."""
    if kind.endswith("[]"):
        return isinstance(value, list) and all(_fits(item, kind.removesuffix("[]")) for item in value)
    if kind == COUNT:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind == SEED:
        return type(value) is int and 0 <= value < 2**64
    if kind == NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, bool if kind == TRUTH else str)
