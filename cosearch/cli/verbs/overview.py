"""The verbs ``dashboard`` and ``query``: many run folders on one page, and SQL over them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosearch.cli.commands import Json, Quiet, app, emit, resume_hint
from latency_tables.text.terminal import say

if TYPE_CHECKING:
    from cosearch.overview.folders import Passed
    from cosearch.overview.rows import Row

Folders = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FOLDER]...", help="Run folders, comparisons, or folders that hold some; default: runs."),
]
RUNS = Path("runs")


@app.command(
    epilog="`cosearch dashboard` | `cosearch dashboard runs other/runs --out all.html` | `cosearch dashboard --follow 10`"
)
def dashboard(
    folders: Folders = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("dashboard.html"),
    follow: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=1.0, max=86_400.0, help="Write it again after so many seconds, until no run goes on any more."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One page of many runs, finished or not: a table to sort and filter, score curves, and the front to pick an agent from."""
    from cosearch.overview.page import follow as go_on
    from cosearch.overview.page import write_page
    from cosearch.overview.rows import Reader
    from latency_tables.text.writing import check_destination

    check_destination(out)
    places = folders or [RUNS]
    if follow is None:
        rows, passed = Reader().rows(places, now_s := time.time())
        write_page(rows, passed, out, now_s)
    else:
        resume_hint.set(("the same command", None))
        rows, passed = go_on(places, out, follow, tell=lambda rows: None if quiet else say(_counts(rows), error=True))
    _tell_passed(passed, rows)
    counts = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    emit(
        {"page": str(out), "runs": len(rows), "states": counts, "passed": _listed(passed, rows)},
        as_json,
        f"{_counts(rows)}\n{out}",
    )


def _counts(rows: Sequence[Row]) -> str:
    states = list(dict.fromkeys(row.state for row in rows))
    return f"{len(rows)} runs: " + ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in states)


def _listed(passed: Sequence[Passed], rows: Sequence[Row]) -> list[dict[str, str]]:
    """What could not be read, and why: comparisons, and runs."""
    from cosearch.overview.folders import UNREADABLE

    return [{"folder": str(one.path), "reason": one.reason} for one in passed] + [
        {"folder": str(row.folder), "reason": row.reason} for row in rows if row.state == UNREADABLE
    ]


def _tell_passed(passed: Sequence[Passed], rows: Sequence[Row] = ()) -> None:
    for one in _listed(passed, rows):
        say(f"passed over {one['folder']}: {one['reason']}", error=True)


@app.command(
    epilog='`cosearch query` | `cosearch query "SELECT strategy, avg(score_mean) FROM runs GROUP BY strategy" runs` | '
    '`cosearch query "SELECT * FROM layers" runs/first --csv`'
)
def query(
    sql: Annotated[str | None, typer.Argument(metavar="[SQL]", help="One SELECT; default: list the tables and columns.")] = None,
    folders: Folders = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Answer SQL over many run folders: runs, curves, episodes, candidates, layers, choices, targets. Needs the extra `query`."""
    from cosearch.overview.answers import csv_text, json_rows, schema_rows, text_table
    from cosearch.overview.query import query as answer
    from cosearch.overview.query import schema_text
    from latency_tables.errors import RequestError

    if csv and as_json:
        raise RequestError("give --csv or --json, not both")
    if sql is None:
        emit(schema_rows(), as_json, schema_text())
        return
    found = answer(sql, folders or [RUNS])
    _tell_passed(found.passed)
    if csv:
        say(csv_text(found))
    else:
        emit(json_rows(found) if as_json else None, as_json, text_table(found))
