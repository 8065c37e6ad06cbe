"""Tables of the documentation that a benchmark writes itself, between two marks of a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cosearch.benchmarks.results import save
from latency_tables.text.writing import write_bytes_atomic

DOCS = Path(__file__).parents[2] / "docs"  # in a checkout
SHIPPED = Path(__file__).parent  # the results in it are what the pages show


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
        page: gets the table; one of the documentation from the result that ships alone.
        name: of the marks in it.
        part: the table.
    """
    save(content, out)
    if page.is_file() and (out.resolve().is_relative_to(SHIPPED) or not page.resolve().is_relative_to(DOCS)):
        write_bytes_atomic(page, between(page.read_text(encoding="utf-8"), name, part).encode())
