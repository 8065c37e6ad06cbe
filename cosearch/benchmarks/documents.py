"""Tables of the documentation that a benchmark writes itself, between two marks of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"  # in a checkout


def between(page: str, name: str, part: str) -> str:
    """A page with a part between its marks ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    Args:
        page: the whole text; has both marks once.
        name: of the marks.
        part: takes the place of what was between them.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, rest = page.split(begin)
    return f"{before}{begin}{part}\n{end}{rest.split(end)[1]}"


def keep(content: Mapping[str, object], out: Path, page: Path, name: str, part: str) -> None:
    """Write a result as JSON, and its table into a page, where that exists: an installed package has no pages.

    Args:
        content: the JSON object.
        out: its file.
        page: of the documentation.
        name: of the marks in it.
        part: the table.
    """
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if page.is_file():
        page.write_text(between(page.read_text(encoding="utf-8"), name, part), encoding="utf-8")
