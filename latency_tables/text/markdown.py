"""Tables in Markdown: a name from a file is a word in its cell, whatever letters it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from latency_tables.errors import plain

MEANING = re.compile(
    r"[\\|`<*~&]|(?<=\])[(\[]|(?<![^\W_])_|_(?![^\W_])"
)  # what GitHub's Markdown reads in a cell as more than a letter


def word(text: object) -> str:
    """Text as plain words of one line: nothing in it ends a cell or a line, opens code, a link, markup or emphasis.

    Args:
        text: of any origin.
    """
    return MEANING.sub(r"\\\g<0>", " ".join(plain(str(text)).split()))


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table.

    Args:
        titles: of the columns.
        rows: one cell a column; any origin.
    """
    return [_line(titles), "|" + " --- |" * len(titles), *map(_line, rows)]


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(word, cells)) + " |"
