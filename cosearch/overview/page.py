"""The page of many runs: one file with a table to sort and filter, score curves, and a Pareto front on which an agent is picked.

It holds everything that it shows and asks nothing of any server. Its own script is the only one that its content policy lets run,
named by its digest: nothing that a run folder holds can become one. The table is there without any script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cosearch.overview.folders import FAILED, FINISHED, IDLE, RUNNING, STATES, STUCK, WAITING, Passed
from cosearch.overview.rows import Reader, Row
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.results.evaluation import EvaluationRecord
from cosearch.report import format as words
from latency_tables.text.terminal import plain_if_text
from latency_tables.text.writing import make_folder

GOING_ON = (RUNNING, STUCK, WAITING)
COLUMNS = (  # title, whether it holds numbers
    ("run", False),
    ("task", False),
    ("device", False),
    ("strategy", False),
    ("seed", True),
    ("state", False),
    ("score", True),
    ("95 % interval", True),
    ("latency, predicted", True),
    ("measured", True),
    ("target met", False),
    ("energy", True),
    ("MACs", True),
    ("parameters", True),
    ("time", True),
    ("written", True),
)
Cell = tuple[str, object]  # what is shown, and what is sorted by


def write_page(rows: Sequence[Row], passed: Sequence[Passed], out: Path, now_s: float) -> Path:
    """Write the page, whole or not at all.

    Args:
        rows: one a run, see ``cosearch.overview.rows.Reader.rows``.
        passed: what could not be read.
        out: the file.
        now_s: the present moment, seconds since 1970.

    Returns:
        The file.

    Raises:
        RunFailedError: the disk refuses the write; an older page is intact.
    """
    make_folder(out.parent)
    write_bytes_atomic(out, render_page(rows, passed, out.parent, now_s).encode())
    return out


def follow(
    folders: Sequence[Path],
    out: Path,
    every_s: float,
    *,
    tell: Callable[[Sequence[Row]], None] = lambda rows: None,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[list[Row], list[Passed]]:
    """Write the page again and again until no run goes on any more; only what has changed is read again.

    Args:
        folders: see ``cosearch.overview.folders.find_runs``.
        out: the file.
        every_s: time between two pages, seconds.
        tell: gets the rows of each page.
        wait: sleeps for so many seconds.

    Returns:
        The rows of the last page, and what could not be read.

    Raises:
        RunFolderError: a folder does not exist, or there is no run in any of them.
        RunFailedError: the disk refuses a write.
    """
    reader = Reader()
    while True:
        rows, passed = reader.rows(folders, now_s := time.time())
        write_page(rows, passed, out, now_s)
        tell(rows)
        if not any(row.state in GOING_ON for row in rows):
            return rows, passed
        wait(every_s)


def render_page(rows: Sequence[Row], passed: Sequence[Passed], beside: Path, now_s: float) -> str:
    """The page as text.

    Args:
        rows: one a run.
        passed: what could not be read.
        beside: folder that the page will lie in; links to reports are relative to it.
        now_s: the present moment, seconds since 1970.
    """
    environment = Environment(
        loader=PackageLoader("cosearch.overview", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain_if_text,
    )
    source, _, _ = PackageLoader("cosearch.overview", "templates").get_source(environment, "dashboard_script.html")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment.get_template("dashboard.html").render(
        columns=COLUMNS,
        rows=[(row, _cells(row)) for row in rows],
        counts=[(state, sum(row.state == state for row in rows), what) for state, what in STATES.items()],
        passed=passed,
        written=datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        choices=[(title, key, sorted({str(getattr(row, key)) for row in rows if getattr(row, key)})) for title, key in FILTERS],
        data=_json({"written_s": now_s, "rows": [_content(row, beside) for row in rows]}),
        script=Markup(source),  # our own
        digest=digest,
    )


FILTERS = (("Task", "task"), ("Device", "device"), ("Strategy", "strategy"), ("State", "state"))


def _cells(row: Row) -> list[Cell]:
    """The cells of a row, in the order of :data:`COLUMNS`; an empty text and None where nobody knows."""
    predicted_s = row.latency_predicted_s
    interval = "" if row.score_ci95 is None else f"{words.score_text(row.score_ci95[0])} to {words.score_text(row.score_ci95[1])}"
    written = "" if row.written_s is None else datetime.fromtimestamp(row.written_s, UTC).strftime("%m-%d %H:%M:%S")
    progress = row.state
    if row.state not in (FINISHED, WAITING) and row.step is not None:
        progress += f": {row.stage} {words.count_text(row.step)}"
    return [
        (row.name, row.name),
        (row.task, row.task),
        (row.device, row.device),
        (row.strategy, row.strategy),
        ("" if row.seed is None else str(row.seed), row.seed),
        (progress, list(STATES).index(row.state)),
        _known(row.score_mean, words.score_text),
        (interval, None if row.score_ci95 is None else row.score_ci95[0]),
        ("" if predicted_s is None else f"{words.time_text(predicted_s)} {row.provenance}", predicted_s),
        (_measured(row), row.latency_measured_s),
        ("" if row.score_mean is None else words.truth_text(row.target_met), row.target_met),
        _known(row.energy_predicted_j, words.energy_text),
        _known(row.macs, words.count_text),
        _known(row.params, words.count_text),
        _known(row.wall_s, words.duration_text),
        (written, row.written_s),
    ]


def _measured(row: Row) -> str:
    """The latency that was timed, and where unless that is the run's device itself; empty where nobody did."""
    if row.latency_measured_s is None:
        return ""
    return words.time_text(row.latency_measured_s) + ("" if row.on_target else f" on {row.latency_measured_on}")


def _known(value: float | None, text: Callable[[float | None], str]) -> Cell:
    return ("" if value is None else text(value), value)


def _group(row: Row) -> str:
    """What scores can be drawn in one plot: those of one task and metric, on one device; empty where nothing is known."""
    metric = "" if row.evaluation is None or row.evaluation.metric == "return" else f", by {row.evaluation.metric}"
    return f"{row.task} on {row.device}{metric}" if row.task else ""


def _content(row: Row, beside: Path) -> dict[str, object]:
    """What the page's script draws of a run. SI units."""
    report = row.folder / "report.html"
    folder = shlex.quote(str(row.folder))
    return {
        "name": row.name,
        "folder": str(row.folder),
        "group": _group(row),
        "strategy": row.strategy,
        "state": row.state,
        "seed": row.seed,
        "score": row.score_mean,
        "ci95": row.score_ci95,
        "teacher": row.teacher_score,
        "judged": None if row.evaluation is None else _judged(row.evaluation),
        "latency": row.latency_predicted_s,
        "measured": row.latency_measured_s if row.on_target else None,
        "timed": _measured(row),
        "target": row.latency_target_s,
        "energy": row.energy_predicted_j,
        "macs": row.macs,
        "params": row.params,
        "provenance": row.provenance,
        "architecture": row.architecture,
        "report": quote(os.path.relpath(report, beside)) if report.is_file() else None,
        "deploy": f"python -m cosearch deploy {folder} --host me@board" if row.state == FINISHED else None,
        "resume": f"python -m cosearch resume {folder}" if row.state in (IDLE, FAILED) and row.written_s is not None else None,
        "reason": row.reason,
        "curves": {stage: [[_short(x), _short(y)] for x, y in points] for stage, points in row.curves if points},
        "evaluations": {
            stage: [
                [_short(one.step), *(None if v is None else _short(v) for v in (one.score, one.low, one.high))] for one in some
            ]
            for stage, some in row.evaluations
            if some
        },
    }


def _judged(found: EvaluationRecord) -> dict[str, object]:
    return {
        "metric": found.metric,
        "random": found.random_mean,
        "share": found.share_of_teacher,
        "success": found.success_rate,
        "solvedAt": found.solved_at,
        "solved": found.solved,
    }


def _short(value: float) -> float:
    """Four significant digits, which no drawing tells from more."""
    return float(f"{value:.4g}")


def _json(content: object) -> Markup:
    """JSON inside a ``script`` element: no letter of it can end the element or begin another."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
