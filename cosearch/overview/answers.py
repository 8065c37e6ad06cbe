"""Answers of SQL as text: a table for a terminal, CSV, or rows of plain JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from datetime import datetime

from rich.table import Table
from rich.text import Text

from cosearch.overview.query import Answer
from cosearch.overview.tables import TABLES, columns
from latency_tables.errors import RequestError


def text_table(answer: Answer) -> Table:
    """The answer for a terminal; numbers with six significant digits.

    Args:
        answer: what the statement gave.
    """
    table = Table()
    for name in answer.columns:
        table.add_column(Text(name), overflow="fold")
    for row in answer.rows:
        table.add_row(*(Text(f"{value:.6g}" if isinstance(value, float) else _word(value)) for value in row))
    return table


def csv_text(answer: Answer) -> str:
    """The answer as CSV: a line of names, then the rows; null is empty, numbers are whole.

    Args:
        answer: what the statement gave.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([[_word(value) for value in row] for row in answer.rows])
    return buffer.getvalue().removesuffix("\n")


def json_rows(answer: Answer) -> list[dict[str, object]]:
    """The answer as plain JSON: one object a row. Moments and numbers that are not finite become text.

    Args:
        answer: what the statement gave.

    Raises:
        RequestError: two columns have one name.
    """
    twice = [name for name in answer.columns if answer.columns.count(name) > 1]
    if twice:
        raise RequestError(f"two columns of the result are named {twice[0]}: give one of them another name, `... AS NAME`")
    return [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]


def schema_rows() -> list[dict[str, object]]:
    """The tables as plain JSON: name, meaning, and name, type and meaning of each column."""
    return [
        {
            "name": name,
            "description": table.meaning,
            "columns": [{"name": one.name, "type": one.type, "description": one.meaning} for one in columns(name)],
        }
        for name, table in TABLES.items()
    ]


def _word(value: object) -> str:
    return "" if value is None else value.isoformat(" ") if isinstance(value, datetime) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else _word(value)
