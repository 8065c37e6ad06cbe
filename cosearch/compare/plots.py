"""The plots of a comparison as PNG files: score against latency, learning curves with bands, inter-quartile means."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosearch.compare.data import ComparedRun, Comparison, Reference, Result, StrategyRow, results_of, strategies, tasks
from cosearch.planning.control import LARGEST, RANDOM
from cosearch.report.drawings.svg import make_plain, step_axis
from cosearch.report.format import time_unit
from cosearch.statistics import Estimate, band

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

COLOURS = ("#1769aa", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be185d", "#4d7c0f", "#334155", "#a16207")
GREY, DARK_GREY = "#6b7280", "#1f2937"
POINTS = 200
STYLE: dict[RcKeyType, object] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.dpi": 144,
    "text.parse_math": False,
}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each strategy; grey for random search, dark grey for ``largest``."""
    others = [name for name in names if name not in (RANDOM, LARGEST)]
    return {RANDOM: GREY, LARGEST: DARK_GREY, **{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}}


def all_plots(runs: Sequence[ComparedRun], result: Comparison) -> dict[str, bytes]:
    """PNG files by name.

    Args:
        runs: of the comparison.
        result: its figures.
    """
    drawn = {}
    for env in tasks(runs):
        reference, finished = result.reference[env], results_of(runs, env)
        if reference is not None:
            stem = "" if len(tasks(runs)) == 1 else f"{env.replace(':', '-').replace('/', '-')}-"
            drawn[f"{stem}scatter.png"] = scatter_plot(finished, reference)
            drawn[f"{stem}curves.png"] = curves_plot([item for item in runs if item.planned.env == env])
            drawn[f"{stem}intervals.png"] = intervals_plot([row for row in result.strategies if row.env == env])
    return drawn


def scatter_plot(finished: Sequence[Result], reference: Reference) -> bytes:
    """Score against latency of every finished run of one task; a line around what each strategy dominates."""
    scale, unit = time_unit([reference.latency_s])
    with rc_context(STYLE):
        drawing, axes = _figure(1)
        for name, colour in _ordered(finished):
            summaries = [item.summary for item in finished if item.planned.strategy == name]
            points = sorted((summary.latency_predicted_s * scale, summary.score_mean) for summary in summaries)
            axes[0].plot(*zip(*points, strict=True), "o", color=colour, label=name, markersize=6, alpha=0.85)
            x, y = _staircase(points, reference.latency_s * scale, reference.score_low)
            axes[0].plot(x, y, "-", color=colour, linewidth=1.1, alpha=0.6)
        axes[0].axvline(reference.latency_s * scale, color="#b91c1c", linestyle=(0, (5, 2)), linewidth=1.2, label="target")
        axes[0].set_xlabel(f"predicted latency, {unit}")
        axes[0].set_ylabel("score")
        axes[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _png(drawing)


def _staircase(points: Sequence[tuple[float, float]], slowest: float, lowest: float) -> tuple[list[float], list[float]]:
    """The border of the area that ascending ``points`` dominate, up to the reference."""
    x, y, covered = [], [], lowest
    for latency, score in points:
        if latency < slowest and score > covered:
            x += [latency, latency]
            y += [covered, score]
            covered = score
    return ([*x, slowest], [*y, covered]) if x else ([], [])


def curves_plot(runs: Sequence[ComparedRun]) -> bytes:
    """Training score of search and retraining: mean over the runs, with its 95 % bootstrap interval."""
    begun = [(item.planned.strategy, item.run) for item in runs if item.run is not None]
    stages = [stage for stage in ("search", "retrain") if any(run.curve(stage, "score_train")[0] for _, run in begun)]
    with rc_context(STYLE):
        drawing, axes = _figure(max(1, len(stages)))
        for panel, stage in zip(axes, stages, strict=False):
            for name, colour in _ordered(runs):
                curves = [run.curve(stage, "score_train") for strategy, run in begun if strategy == name]
                _banded(panel, [curve for curve in curves if curve[0]], colour, name)
            panel.set_title(stage)
            panel.set_ylabel("training score")
            step_axis(panel)
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _png(drawing)


def _banded(panel: Axes, curves: Sequence[tuple[list[float], list[float]]], colour: str, name: str) -> None:
    """The curves on a common grid that all of them reach."""
    if not curves:
        return
    grid = np.linspace(max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves), POINTS)
    together = np.array([np.interp(grid, steps, values) for steps, values in curves])
    panel.plot(grid, together.mean(axis=0), color=colour, label=name, linewidth=1.5)
    if (bounds := band(together)) is not None:
        panel.fill_between(grid, *bounds, color=colour, alpha=0.15, linewidth=0)


def intervals_plot(rows: Sequence[StrategyRow]) -> bytes:
    """Inter-quartile mean of each strategy and its probability of improvement over each control, with their intervals."""
    with rc_context(STYLE):
        panels: list[tuple[list[Estimate | None], str]] = [
            ([row.iqm for row in rows], "inter-quartile mean of the score"),
            ([row.improvement for row in rows], "probability of improvement over random search"),
            ([row.improvement_largest for row in rows], "probability of improvement over largest"),
        ]
        for network in dict.fromkeys(network for row in rows for network in row.improvement_hand_made or ()):
            beside = [(row.improvement_hand_made or {}).get(network) for row in rows]
            panels.append((beside, f"probability of improvement over {network}"))
        panels = [panel for panel in panels if any(panel[0])]
        drawing, axes = _figure(len(panels), height=1.2 + 0.38 * len(rows))
        shades = colours([row.strategy for row in rows])
        for panel, (estimates, label) in zip(axes, panels, strict=True):
            for place, (row, estimate) in enumerate(zip(rows, estimates, strict=True)):
                if estimate is None:
                    continue
                colour = shades[row.strategy]
                if estimate.ci95 is not None:
                    panel.plot(estimate.ci95, [place, place], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
                panel.plot(estimate.value, place, "|", color=colour, markersize=13, markeredgewidth=2)
            panel.set_yticks(range(len(rows)), [row.strategy for row in rows])
            panel.set_ylim(len(rows) - 0.4, -0.6)
            panel.set_xlabel(label)
        for panel in axes[1:]:
            panel.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (5, 2)))
            panel.set_xlim(-0.02, 1.02)
            panel.tick_params(labelleft=False)
        return _png(drawing)


def _ordered(runs: Sequence[ComparedRun | Result]) -> list[tuple[str, str]]:
    return [(name, colour) for name, colour in colours(strategies(runs)).items() if name in strategies(runs)]


def _figure(panels: int, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    drawing = Figure(figsize=(4.6 * panels if panels > 1 else 6.2, height), layout="constrained")
    return drawing, list(drawing.subplots(1, panels, squeeze=False)[0])


def _png(drawing: Figure) -> bytes:
    make_plain(drawing)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
