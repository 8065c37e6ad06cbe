"""Parts of the pages that are made when the site is built: tables from saved results, the floors from the code and its tests.

A line ``<!-- made: NAME -->`` of a page is replaced by what the function of that name in :data:`PARTS` returns. The pages of the
search methods are made whole, one a registered strategy: from its file's header, its rows of the leaderboards and its claim.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "cosearch" / "benchmarks"
EVIDENCE = ROOT / "docs" / "evidence"
METHODS = ROOT / "docs" / "methods"  # not kept: written before the site is built
BOARDS = {"bench.md": "Searches on the tabular benchmark", "bench-searches.md": "Searches with shared weights, looked up"}
MARK = re.compile(r"^<!-- made: ([\w-]+) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """A page with its made parts."""
    return MARK.sub(lambda found: PARTS[found[1]](), text)


def saved(name: str) -> dict:
    """A result as its benchmark kept it, by its path in ``cosearch/benchmarks``."""
    return json.loads((SAVED / f"{name}.json").read_text(encoding="utf-8"))


def default_run() -> str:
    from cosearch.benchmarks.searches.default_run import markdown

    return markdown(saved("searches/default_run"))


def throughput() -> str:
    from cosearch.benchmarks.speed.throughput import markdown

    return markdown(saved("speed/throughput"))


def credit(game: str) -> str:
    from cosearch.benchmarks.searches.credit import markdown

    result = saved(f"searches/credit-{game}")
    return markdown(result, [name for name, rows in result.items() if isinstance(rows, list)])


def co_search() -> str:
    from cosearch.benchmarks.searches.co_search import markdown

    return markdown(saved("searches/co_search"))


def cells() -> str:
    from cosearch.benchmarks.searches.cells import markdown

    return markdown(saved("searches/cells"))


def distillation() -> str:
    from cosearch.benchmarks.learning.distillation import markdown

    return markdown(saved("learning/distillation-breakout"))


def certificates() -> str:
    from latency_tables.devices import list_devices, load_any
    from latency_tables.showing.output import certificate_markdown, certificate_rows

    tables = [load_any(str(device.path)) for device in list_devices()]
    rows = certificate_rows([table for table in tables if table.certificate is not None])
    return certificate_markdown([row for row in rows if row.method == "blocks in chains"])


def floors_of_the_test() -> dict[str, int]:
    """Package -> floor, as ``tests/house/test_layers.py`` holds it."""
    tree = ast.parse((ROOT / "tests" / "house" / "test_layers.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            return ast.literal_eval(node.value)
    raise LookupError("tests/house/test_layers.py assigns no FLOORS")


def first_sentence(package: str) -> str:
    """What a room's own docstring says it is."""
    path = ROOT / package.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "/")


def floors() -> str:
    """The floors from the roof down, each room with its files and what it says of itself."""
    levels: dict[int, list[str]] = {}
    for package, level in floors_of_the_test().items():
        levels.setdefault(level, []).append(package)
    rows = ["| floor | room | files | what lives there |", "| --- | --- | --- | --- |"]
    for level in sorted(levels, reverse=True):
        for package in levels[level]:
            path = ROOT / package.replace(".", "/")
            own = package in ("cosearch", "latency_tables", "accel_models")
            files = len(list(path.glob("*.py") if own and package == "cosearch" else path.rglob("*.py"))) if path.is_dir() else 1
            words = first_sentence("cosearch" if package == "cosearch.__init__" else package)
            words = "modules that lie directly in it: names, randomness, statistics" if package == "cosearch" else words
            rows.append(f"| {level} | `{package}` | {files} | {words} |")
    return "\n".join(rows)


def with_literal_blocks(lines: list[str]) -> list[str]:
    """Lines of plain text as reStructuredText: indented lines and drawn trees become literal blocks, numbered lists lists."""
    found: list[str] = []
    kind = "text"
    for line in lines:
        if re.match(r"\d+\. ", line):
            now = "list"
        elif line.startswith(("├", "│", "└")):
            now = "literal"
        elif line.startswith(" "):
            now = "list" if kind == "list" else "literal"
        else:
            now = "text" if line else kind
        if now != kind:
            found += ["", "::", ""] if now == "literal" else [""]
        found.append(f"  {line}" if line.startswith(("├", "│", "└")) else line)
        kind = now
    return found


def rows_of(name: str, page: str) -> list[tuple[str, str, str]]:
    """The rows of a strategy in the tables of an evidence page: heading, the table's first line, the row."""
    found, heading, first = [], "", ""
    for line in (EVIDENCE / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading, first = line.lstrip("# "), ""
        elif line.startswith("|"):
            first = first or line
            if line.split("|")[1].strip() == name:
                found.append((heading, first, line))
        else:
            first = ""
    return found


def claim_of(name: str) -> str:
    """What became of a paper's claim here: the last cell of its row, or nothing."""
    for line in (EVIDENCE / "claims.md").read_text(encoding="utf-8").splitlines():
        cells = line.split(" | ")
        if line.startswith("|") and f"`{name}`" in cells[0] and len(cells) == 3:
            claim = f"**{cells[1]}**: {cells[2].rstrip(' |')}"
            return re.sub(r"\]\((?=[\w-]+\.md)", "](../evidence/", claim)  # the page lies in another folder
    return ""


def method_pages() -> dict[str, str]:
    """Strategy -> its page; the pages of strategies of one file refer to the first of them for the header."""
    from cosearch.planning.builtins import load_builtins
    from cosearch.strategies.base import STRATEGIES

    load_builtins()
    pages: dict[str, str] = {}
    at: dict[str, str] = {}  # module -> the strategy whose page has its header
    for info in STRATEGIES.entries():
        lines = [f"# {info.name}", "", f"{info.description} ({info.kind}). {info.paper}.", ""]
        claim = claim_of(info.name)
        lines += ["## Its claim, here", "", f"{claim} ([all claims](../evidence/claims.md))", ""] if claim else []
        for page, title in BOARDS.items():
            found = rows_of(info.name, page)
            lines += [f"## {title}", "", f"[All strategies](../evidence/{page}).", ""] if found else []
            for heading, first, row in found:
                lines += [f"{heading}:", "", first, "| --- " * (first.count("|") - 1) + "|", row, ""]
        first = at.setdefault(info.make.__module__, info.name)
        if first == info.name:
            lines += ["## Method", "", "```{eval-rst}", f".. automodule:: {info.make.__module__}", "```", ""]
        else:
            lines += ["## Method", "", f"It shares its file with [{first}]({first}.md).", ""]
        pages[info.name] = "\n".join(lines)
    return pages


def write_methods() -> None:
    """Write the pages of the methods; those of strategies that are gone go."""
    METHODS.mkdir(exist_ok=True)
    pages = {f"{name}.md": text for name, text in method_pages().items()}
    for old in METHODS.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = METHODS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def methods() -> str:
    """A list of all methods, each with a link to its page."""
    from cosearch.planning.builtins import load_builtins
    from cosearch.strategies.base import STRATEGIES

    load_builtins()
    rows = [f"| [{i.name}](../methods/{i.name}.md) | {i.kind} | {i.description} |" for i in STRATEGIES.entries()]
    return "\n".join(["| method | kind | what it does |", "| --- | --- | --- |", *rows])


PARTS: dict[str, Callable[[], str]] = {
    "default-run": default_run,
    "throughput": throughput,
    "credit-starpilot": partial(credit, "starpilot"),
    "credit-breakout": partial(credit, "breakout"),
    "co-search": co_search,
    "cells": cells,
    "distillation": distillation,
    "certificates": certificates,
    "floors": floors,
    "methods": methods,
}
