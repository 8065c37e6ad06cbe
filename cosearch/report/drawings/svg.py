"""Figures as SVG that lives inside the page: colours come from the page's style sheet, so one drawing suits light and dark.

matplotlib draws with stand-in colours; :func:`inline_svg` puts CSS variables in their place, and takes out everything
that would reach beyond the figure (prologue, metadata with addresses, a style rule for all elements, shared ids).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, MaxNLocator

from latency_tables.errors import plain

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Stand-in colour of each variable of the style sheet; no two alike, and none that a figure would use by itself.
INK, MUTED, LINE, AGENT, TEACHER, CONTROL, TARGET, SURFACE = (f"#0a0b{index:02x}" for index in range(1, 9))
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    AGENT: "--agent",
    TEACHER: "--teacher",
    CONTROL: "--control",
    TARGET: "--target",
    SURFACE: "--surface",
}
_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.left": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


@contextmanager
def figure(
    width: float = 4.6,
    height: float = 2.9,
    rows: int = 1,
    ratios: tuple[float, ...] | None = None,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the style of the report with ``rows`` axes that share the horizontal one.

    Args:
        width, height: inches; 4.6 x 72 points is a column of the page, and still readable on a phone.
        rows: axes one above the other.
        ratios: their heights.
    """
    with rc_context(_STYLE):
        drawing = Figure(figsize=(width, height), layout="constrained")
        grid = drawing.subplots(rows, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios} if ratios else None)
        yield drawing, [row[0] for row in grid]


def step_axis(axes: Axes, label: str = "environment steps") -> None:
    """Steps with prefixes (200 k) on the horizontal axis."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(label)


def short(name: str, limit: int = 22) -> str:
    """A name that fits beside an axis; the middle of a long one gives way, for names differ at their ends."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit - limit // 2 - 1) :]}"


def make_plain(drawing: Figure) -> None:
    """Turn every text of a figure into plain text, just before it is drawn: labels may be names from files."""
    for text in drawing.findobj(Text):
        if isinstance(text, Text) and plain(text.get_text()) != text.get_text():
            text.set_text(plain(text.get_text()))


def inline_svg(drawing: Figure, prefix: str, description: str) -> str:
    """The figure as an ``<svg>`` element for the body of a page.

    Args:
        drawing: made inside :func:`figure`, while its context is open.
        prefix: unique in the page; put before every id.
        description: what a reader who cannot see the figure is told.

    Returns:
        Markup without addresses, scripts, style elements or colours of its own.
    """
    make_plain(drawing)
    buffer = io.StringIO()
    drawing.savefig(
        buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = head.split('viewBox="', 1)[1].split('"', 1)[0]
    body = body.replace("xlink:href", "href")
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = re.sub(r"'DejaVu Sans'(, [^;\"]+)?", "var(--sans)", body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg class="plot" viewBox="{box}" role="img" aria-label="{escape(description, quote=True)}">{body}'
