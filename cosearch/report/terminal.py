"""The end of a run in the terminal: the verdict, the key figures and where the report is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cosearch.report.data import read_run
from cosearch.report.facts import caveats, facts, tiles, verdict

_MOODS = {"good": "green", "bad": "red", "": ""}


def render_summary(run_path: Path) -> RenderableType:
    """What a run amounts to, for a terminal of any width.

    Args:
        run_path: the run folder; an unfinished one says what is missing.

    Raises:
        RunFolderError: the path is not a run folder, or one of its files is damaged.
    """
    run = read_run(run_path)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for tile in tiles(run):
        detail = "; ".join(text for text in (tile.word, tile.detail) if text)
        table.add_row(Text(tile.label), Text(tile.figure, style=f"bold {_MOODS[tile.mood]}".strip()), Text(detail, style="dim"))
    colour = {True: "green", False: "red", None: "yellow"}[facts(run).holds]
    notes = [Text(f"· {sentence}", style="dim") for sentence in (*run.missing, *caveats(run))]
    report = run.path / "report.html"
    foot = [Text(f"report: {report}")] if report.is_file() else []
    return Panel(
        Group(Text(verdict(run), style="bold"), Text(), table, Text(), *notes, *foot),
        title=Text(run.name),
        border_style=colour,
        title_align="left",
    )
