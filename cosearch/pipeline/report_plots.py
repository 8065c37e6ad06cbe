"""The curves of a report: score, distillation, latency against target, and how the architecture settled.

Each function draws one :class:`Plot` from a :class:`~cosearch.pipeline.report_data.Run`, or returns ``None`` where the
run holds nothing to draw; the page then says so in words.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cosearch.metrics import METRICS
from cosearch.pipeline.report_architecture import Choice, choices
from cosearch.pipeline.report_data import Run, interval, latency_target_s, number
from cosearch.pipeline.report_format import count_text, score_text, time_text, time_unit
from cosearch.pipeline.report_svg import (
    AGENT, CONTROL, INK, MUTED, SURFACE, TARGET, TEACHER, figure, inline_svg, short, step_axis,
)

POINTS_MAX = 400  # points of a curve; more do not show at this width and make the page heavy
COLUMNS_MAX = 40  # columns of the heat map over time
SMOOTHED_FROM = 40  # a shorter curve is drawn as it is
STAGE_TITLES = {"teacher": "Score of the teacher in training", "search": "Score during the search", "retrain": "Score during retraining"}


@dataclass(frozen=True)
class Plot:
    """One drawing of the page: its heading, its markup, and the sentence below it."""

    title: str
    svg: str
    caption: str


def thin(steps: Sequence[float], values: Sequence[float], limit: int = POINTS_MAX) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most ``limit`` points: means of equally long pieces. Shorter curves come back as they are."""
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if len(x) <= limit:
        return x, y
    pieces = np.array_split(np.arange(len(x)), limit)
    return np.array([x[piece].mean() for piece in pieces]), np.array([y[piece].mean() for piece in pieces])


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over a twentieth of the curve; windows are cut at the ends, so that constants stay constant."""
    half = len(values) // 40
    return np.array([values[max(0, i - half):i + half + 1].mean() for i in range(len(values))])


def draw_curve(axes: Axes, steps: Sequence[float], values: Sequence[float], colour: str, label: str, style: str = "-") -> None:
    """One curve: as it is where short; pale, with its moving mean on top, where long."""
    x, y = thin(steps, values)
    if len(x) < SMOOTHED_FROM:
        axes.plot(x, y, style, color=colour, label=label, marker="o" if len(x) < 3 else None, markersize=4)
        return
    axes.plot(x, y, style, color=colour, alpha=0.28, linewidth=0.9)
    axes.plot(x, smooth(y), style, color=colour, label=label)


def score_plot(run: Run, stage: str) -> Plot | None:
    """Training score against environment steps, evaluations with their intervals, the teacher and the control."""
    steps, scores = run.curve(stage, "score_train")
    evaluated = run.curve(stage, "score_eval")
    if not steps and not evaluated[0]:
        return None
    with figure() as (drawing, (axes,)):
        _control_curves(axes, run, stage)
        if steps:
            draw_curve(axes, steps, scores, AGENT, "training episodes")
        if evaluated[0]:
            _evaluations(axes, run, stage, evaluated)
        _reference_lines(axes, run, with_control=stage == "retrain")
        step_axis(axes)
        axes.set_ylabel("score")
        _legend(axes)
        newest = scores[-1] if scores else evaluated[1][-1]
        svg = inline_svg(drawing, f"score-{stage}", f"{STAGE_TITLES[stage]}: {score_text(newest)} at the last step")
    caption = "Mean score of the training episodes; the bold line is its moving mean."
    if stage == "search":
        caption += " The supernet's score, not the final agent's: paths are sampled and share their weights."
    return Plot(STAGE_TITLES[stage], svg, caption)


def _control_curves(axes: Axes, run: Run, stage: str) -> None:
    """The control: its candidates beside the search; without candidates, one curve beside the retraining."""
    names = run.candidates("control")
    if stage != ("search" if names else "retrain"):
        return
    for index, name in enumerate(names or [None]):
        steps, scores = run.curve("control", "score_train", name)
        if steps:
            axes.plot(*thin(steps, scores, 120), "-", color=CONTROL, linewidth=1.0, alpha=0.7,
                      label=None if index else "control candidates" if names else "control, trained alone")


def _evaluations(axes: Axes, run: Run, stage: str, evaluated: tuple[list[float], list[float]]) -> None:
    """Evaluations as points, with their 95 % intervals where these were recorded."""
    low = dict(zip(*run.curve(stage, "score_eval_ci95_low"), strict=True))
    high = dict(zip(*run.curve(stage, "score_eval_ci95_high"), strict=True))
    for step, score in zip(*evaluated, strict=True):
        if step in low and step in high:
            axes.vlines(step, low[step], high[step], color=INK, linewidth=1.2)
    axes.plot(*evaluated, "o", color=INK, markersize=3.5, label="evaluation, 95 %")


def _reference_lines(axes: Axes, run: Run, with_control: bool) -> None:
    """The teacher's score, with its interval as a band, and the control's final score."""
    teacher = number(run.record, "teacher", "score_mean")
    teacher = number(run.summary, "teacher_score_mean") if teacher is None else teacher
    if teacher is not None:
        axes.axhline(teacher, color=TEACHER, linestyle=(0, (5, 2)), linewidth=1.3, label="teacher")
        bounds = interval(run.record, "teacher", "score_ci95")
        if bounds:
            axes.axhspan(*bounds, color=TEACHER, alpha=0.12, linewidth=0)
    control = number(run.summary, "control", "score_mean")
    if with_control and control is not None:
        axes.axhline(control, color=CONTROL, linestyle=(0, (1, 1.5)), linewidth=1.5, label="random-search control")


def distillation_plot(run: Run, stage: str) -> Plot | None:
    """The two distillation terms of a stage."""
    terms = {"policy (actor)": "distill_actor", "value (critic)": "distill_critic"}
    curves = {label: run.curve(stage, key) for label, key in terms.items()}
    values = [value for _, points in curves.values() for value in points]
    if not values:
        return None
    with figure(height=2.4) as (drawing, (axes,)):
        for (label, (steps, points)), colour, style in zip(curves.items(), (AGENT, TEACHER), ("-", "--"), strict=True):
            if steps:
                draw_curve(axes, steps, points, colour, label, style)
        if min(values) > 0 and max(values) > 30 * min(values):
            axes.set_yscale("log")
        step_axis(axes)
        axes.set_ylabel("loss term")
        _legend(axes)
        svg = inline_svg(drawing, f"distill-{stage}", f"Distillation terms during {stage}")
    return Plot(f"Distillation terms, {stage}", svg, "Distance of the student from its teacher, before weighting.")


def agreement_plot(run: Run) -> Plot | None:
    """How often the student's preferred action is the teacher's, in both stages, and the weight of the distillation."""
    styles = {"search": (MUTED, "--"), "retrain": (AGENT, "-")}
    curves = {stage: run.curve(stage, "teacher_agreement") for stage in styles}
    if not any(steps for steps, _ in curves.values()):
        return None
    with figure(height=2.6) as (drawing, (axes,)):
        top = 1.02
        for stage, (colour, style) in styles.items():
            if curves[stage][0]:
                draw_curve(axes, *curves[stage], colour, stage, style)
            weight = run.curve(stage, "distill_weight")
            if weight[0] and curves[stage][0]:
                axes.plot(*thin(*weight), color=colour, linestyle=":", linewidth=1.1, label=f"weight, {stage}")
                top = max(top, 1.05 * max(weight[1]))
        step_axis(axes)
        axes.set_ylim(0, top)
        axes.set_ylabel("share / weight")
        _legend(axes)
        svg = inline_svg(drawing, "agreement", "Agreement with the teacher")
    return Plot("Agreement with the teacher", svg, "Share of the observations on which student and teacher prefer the same action; "
                "dotted, the weight of the distillation.")


def latency_plot(run: Run) -> Plot | None:
    """Expected and most probable architecture's latency against the target, with the temperature below."""
    expected, chosen = run.curve("search", "latency_expected_s"), run.curve("search", "latency_argmax_s")
    if not expected[0] and not chosen[0]:
        return None
    target = latency_target_s(run)
    temperature = run.curve("search", "temperature")
    scale, unit = time_unit([*expected[1], *chosen[1], *([] if target is None else [target])])
    with figure(height=3.3 if temperature[0] else 2.6, rows=2 if temperature[0] else 1,
                ratios=(3, 1) if temperature[0] else None) as (drawing, axes):
        for (steps, values), colour, style, label in ((expected, AGENT, "-", "expected"), (chosen, INK, "-", "most probable")):
            if steps:
                x, y = thin(steps, values)
                axes[0].plot(x, y * scale, style, color=colour, label=label, linewidth=1.6 if colour == AGENT else 1.0)
        if target is not None:
            axes[0].axhline(target * scale, color=TARGET, linestyle=(0, (5, 2)), linewidth=1.4, label="target")
        axes[0].set_ylim(bottom=0)
        axes[0].set_ylabel(f"latency, {unit}")
        _legend(axes[0])
        if temperature[0]:
            axes[1].plot(*thin(*temperature), color=MUTED, linewidth=1.3)
            axes[1].set_ylabel("temperature")
            axes[1].yaxis.set_major_locator(MaxNLocator(3))
            axes[1].set_ylim(bottom=0)
        step_axis(axes[-1])
        last = (expected if expected[0] else chosen)[1][-1]
        svg = inline_svg(drawing, "latency", f"Latency during the search, {time_text(last)} at the last step")
    caption = "Predicted from the table. Expected: over the architecture's probabilities; most probable: each point's likeliest."
    return Plot("Latency during the search", svg, caption)


def probability_plots(run: Run) -> list[Plot]:
    """Final probability of each candidate at each choice point, and how the chosen one's probability grew."""
    steps, rows = run.probabilities()
    if not rows:
        return []
    last, named = rows[-1], choices(run)
    if [len(choice.candidates) for choice in named] != [len(row) for row in last]:
        named = [Choice(f"point {index}", "", ()) for index in range(len(last))]
    chosen = [choice.candidates.index(choice.operation) if choice.operation in choice.candidates else int(np.argmax(row))
              for choice, row in zip(named, last, strict=True)]
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
        axes.set_xticks(range(columns), [short(label) for label in labels] if same else [str(index) for index in range(columns)],
                        rotation=40 if same else 0, ha="right" if same else "center", rotation_mode="anchor")
        _heat_axes(axes, [choice.point for choice in named], columns)
        svg = inline_svg(drawing, "final", "Probability of each candidate at each choice point at the newest step of the search")
    outlined = "derived" if named[0].operation else "likeliest so far"
    return Plot("Probabilities at the end", svg, f"The fuller the square, the more probable. Outlined: the candidate that is {outlined}.")


def _heat_map_over_time(steps: list[float], rows: list[list[list[float]]], names: list[str], chosen: list[int]) -> Plot:
    kept = np.unique(np.linspace(0, len(steps) - 1, min(COLUMNS_MAX, len(steps))).round().astype(int))
    cells = [(column, point, rows[index][point][chosen[point]]) for column, index in enumerate(kept) for point in range(len(names))]
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
    squares = [corners + (column, row) for column, row, _ in cells]
    colours = [to_rgba(AGENT, min(1.0, max(0.03, p))) for *_, p in cells]
    axes.add_collection(PolyCollection(squares, facecolors=colours, edgecolors=SURFACE, linewidths=0.4), autolim=False)


def _heat_axes(axes: Axes, names: list[str], columns: int) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _legend(axes: Axes) -> None:
    """One row of names above the axes, where no curve runs."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1, columnspacing=1.2)


def sparkline(steps: Sequence[float], values: Sequence[float], description: str) -> str:
    """A small curve without axes, for the metrics that rarely matter. Plain markup: a page holds dozens of them."""
    x, y = thin(steps, values, 120)
    wide, high = np.ptp(x) or 1.0, np.ptp(y) or 1.0
    points = " ".join(f"{1 + 98 * (a - x[0]) / wide:.1f},{25 - 22 * (b - y.min()) / high:.1f}" for a, b in zip(x, y, strict=True))
    return (f'<svg class="plot" viewBox="0 0 100 28" role="img" aria-label="{escape(description, quote=True)}">'
            f'<polyline points="{points}" style="fill: none; stroke: var(--agent); stroke-width: 0.9"/></svg>')


def other_curves(run: Run, shown: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Every further metric as a sparkline with its last value: stage, key, last, svg."""
    pairs = dict.fromkeys((str(line.get("stage")), key) for line in run.metrics for key in line
                          if key not in shown and key not in ("step", "stage") and number(line, key) is not None)
    found = []
    for stage, key in sorted(pairs):
        steps, values = run.curve(stage, key)
        if stage != "control" and len(steps) > 1:
            svg = sparkline(steps, values, f"{key} during {stage}")
            meaning = METRICS[key].meaning if key in METRICS else ""
            found.append({"stage": stage, "key": key, "last": values[-1], "svg": svg, "meaning": meaning})
    return found
