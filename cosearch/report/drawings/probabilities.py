"""How the architecture settled: the probability of each candidate at the end, and of the derived ones over time.

A probability is drawn as the opacity of one hue, so that the drawing follows the page's colours.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from cosearch.report.architecture import Choice, choices
from cosearch.report.data import Run
from cosearch.report.drawings.plots import Plot
from cosearch.report.drawings.svg import AGENT, SURFACE, TARGET, figure, inline_svg, short
from cosearch.report.format import count_text

COLUMNS_MAX = 40  # columns of the heat map over time; more do not show at this width


def probability_plots(run: Run) -> list[Plot]:
    """Final probability of each candidate at each choice point, and how the chosen one's probability grew."""
    steps, rows = run.probabilities()
    if not rows:
        return []
    last, named = rows[-1], choices(run)
    if [len(choice.candidates) for choice in named] != [len(row) for row in last]:
        named = [Choice(f"point {index}", "", ()) for index in range(len(last))]
    chosen = [
        choice.candidates.index(choice.operation) if choice.operation in choice.candidates else int(np.argmax(row))
        for choice, row in zip(named, last, strict=True)
    ]
    plots = [_final_heat_map(last, named, chosen)]
    if len(steps) > 1:
        plots.append(_heat_map_over_time(steps, rows, [choice.point for choice in named], chosen))
    return plots


def _final_heat_map(last: list[list[float]], named: list[Choice], chosen: list[int]) -> Plot:
    labels = named[0].candidates
    same = bool(labels) and all(choice.candidates == labels for choice in named)
    cells = [(column, row, p) for row, line in enumerate(last) for column, p in enumerate(line)]
    with figure(height=1.1 + 0.24 * len(last) + (0.6 if same else 0.2)) as (drawing, (axes,)):
        _cells(axes, cells)
        for row, column in enumerate(chosen):
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=TARGET, linewidth=1.5))
        columns = max(map(len, last))
        axes.set_xticks(
            range(columns),
            [short(label) for label in labels] if same else [str(index) for index in range(columns)],
            rotation=40 if same else 0,
            ha="right" if same else "center",
            rotation_mode="anchor",
        )
        _heat_axes(axes, [choice.point for choice in named], columns)
        svg = inline_svg(drawing, "final", "Probability of each candidate at each choice point at the newest step of the search")
    outlined = "derived" if named[0].operation else "likeliest so far"
    caption = f"The fuller the square, the more probable. Outlined: the candidate that is {outlined}."
    return Plot("Probabilities at the end", svg, caption)


def _heat_map_over_time(steps: list[float], rows: list[list[list[float]]], names: list[str], chosen: list[int]) -> Plot:
    kept = np.unique(np.linspace(0, len(steps) - 1, min(COLUMNS_MAX, len(steps))).round().astype(int))
    cells = [
        (column, point, rows[index][point][choice]) for column, index in enumerate(kept) for point, choice in enumerate(chosen)
    ]
    with figure(height=1.1 + 0.24 * len(names) + 0.5) as (drawing, (axes,)):
        _cells(axes, cells)
        shown = np.unique(np.linspace(0, len(kept) - 1, 4).round().astype(int))
        axes.set_xticks(shown, [count_text(steps[kept[column]]) for column in shown])
        axes.set_xlabel("environment steps")
        _heat_axes(axes, names, len(kept))
        svg = inline_svg(drawing, "overtime", "Probability of the derived candidate at each choice point during the search")
    return Plot("How the choices settled", svg, "Probability of the outlined candidate at each point, from pale (0) to full (1).")


def _cells(axes: Axes, cells: list[tuple[int, int, float]]) -> None:
    """Unit squares whose opacity is the probability: the hue follows the page's colours, in light and in dark."""
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    squares = [corners + np.array((column, row)) for column, row, _ in cells]
    colours = [to_rgba(AGENT, min(1.0, max(0.03, p))) for *_, p in cells]
    axes.add_collection(PolyCollection(squares, facecolors=colours, edgecolors=SURFACE, linewidths=0.4), autolim=False)


def _heat_axes(axes: Axes, names: list[str], columns: int) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
