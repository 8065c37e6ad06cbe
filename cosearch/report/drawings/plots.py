"""The curves of a report: score, distillation, agreement with the teacher, latency against target.

Each function draws one :class:`Plot` from a :class:`~cosearch.report.data.Run`, or returns ``None`` where the
run holds nothing to draw; the page then says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cosearch.record.metrics import METRICS, number
from cosearch.report.data import Run
from cosearch.report.drawings.svg import AGENT, CONTROL, INK, MUTED, TARGET, TEACHER, figure, inline_svg, step_axis
from cosearch.report.format import score_text, time_text, time_unit

POINTS_MAX = 400  # points of a curve; more do not show at this width and make the page heavy
SMOOTHED_FROM = 40  # a shorter curve is drawn as it is
STAGE_TITLES = {
    "search": "Score during the search",
    "retrain": "Score during retraining",
}


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
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


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
    if stage == "search" and not run.has_candidates:
        caption += " The supernet's score, not the final agent's: paths are sampled and share their weights."
    return Plot(STAGE_TITLES[stage], svg, caption)


def _evaluations(axes: Axes, run: Run, stage: str, evaluated: tuple[list[float], list[float]]) -> None:
    """Evaluations as points, with their 95 % intervals where these were recorded."""
    low = dict(zip(*run.curve(stage, "score_eval_ci95_low"), strict=True))
    high = dict(zip(*run.curve(stage, "score_eval_ci95_high"), strict=True))
    steps = [step for step in evaluated[0] if step in low and step in high]
    axes.vlines(steps, [low[step] for step in steps], [high[step] for step in steps], color=INK, linewidth=1.2)
    axes.plot(*evaluated, "o", color=INK, markersize=3.5, label="evaluation, 95 %")


def control_text(run: Run) -> str:
    """The name of the control beside the result."""
    largest = run.summary is not None and run.summary.control is not None and run.summary.control.strategy == "largest"
    return "largest-network control" if largest else "random-search control"


def _reference_lines(axes: Axes, run: Run, with_control: bool) -> None:
    """The teacher's score, with its interval as a band, and the control's final score."""
    teacher, record = run.teacher_score, run.record.teacher
    if teacher is not None:
        axes.axhline(teacher, color=TEACHER, linestyle=(0, (5, 2)), linewidth=1.3, label="teacher")
        if record is not None and record.score_ci95 is not None:
            axes.axhspan(*record.score_ci95, color=TEACHER, alpha=0.12, linewidth=0)
    control = None if run.summary is None else run.summary.control
    if with_control and control is not None:
        axes.axhline(control.score_mean, color=CONTROL, linestyle=(0, (1, 1.5)), linewidth=1.5, label=control_text(run))


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
    caption = "Share of the observations on which student and teacher prefer the same action; dotted: the distillation's weight."
    return Plot("Agreement with the teacher", svg, caption)


def latency_plot(run: Run) -> Plot | None:
    """Expected and most probable architecture's latency against the target, with the temperature below; or each candidate's."""
    expected, chosen = run.curve("search", "latency_expected_s"), run.curve("search", "latency_argmax_s")
    if not expected[0] and not chosen[0]:
        return None
    by = "most probable" if expected[0] else "candidate"  # without an expectation the search has no distribution
    target = run.latency_target_s
    temperature = run.curve("search", "temperature")
    scale, unit = time_unit([*expected[1], *chosen[1], *([] if target is None else [target])])
    with figure(
        height=3.3 if temperature[0] else 2.6, rows=2 if temperature[0] else 1, ratios=(3, 1) if temperature[0] else None
    ) as (drawing, axes):
        for (steps, values), colour, style, label in ((expected, AGENT, "-", "expected"), (chosen, INK, "-", by)):
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
    caption = "Predicted, not measured. Expected: over the architecture's probabilities; most probable: each point's likeliest."
    if not expected[0]:
        caption = "Predicted, not measured: of each candidate as it was trained or scored."
    return Plot("Latency during the search", svg, caption)


def _legend(axes: Axes) -> None:
    """One row of names above the axes, where no curve runs."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1, columnspacing=1.2)


def sparkline(steps: Sequence[float], values: Sequence[float], description: str) -> str:
    """A small curve without axes, for the metrics that rarely matter. Plain markup: a page holds dozens of them."""
    x, y = thin(steps, values, 120)
    wide, high = np.ptp(x) or 1.0, np.ptp(y) or 1.0
    points = " ".join(f"{1 + 98 * (a - x[0]) / wide:.1f},{25 - 22 * (b - y.min()) / high:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg class="plot" viewBox="0 0 100 28" role="img" aria-label="{escape(description, quote=True)}">'
        f'<polyline points="{points}" style="fill: none; stroke: var(--agent); stroke-width: 0.9"/></svg>'
    )


@dataclass(frozen=True)
class Sparkline:
    """A further metric: its stage, name, last value, small curve, and what it means."""

    stage: str
    key: str
    last: float
    svg: str
    meaning: str


def other_curves(run: Run, shown: frozenset[str] = frozenset()) -> list[Sparkline]:
    """Every further metric as a small curve.

    Args:
        run: with its log.
        shown: names of the metrics that are drawn elsewhere.
    """
    pairs = {
        (str(line["stage"]), key)
        for line in run.metrics
        for key in line
        if key not in shown and key not in ("step", "stage") and number(line, key) is not None
    }
    found = []
    for stage, key in sorted(pairs):
        steps, values = run.curve(stage, key)
        if len(steps) > 1:
            svg = sparkline(steps, values, f"{key} during {stage}")
            found.append(Sparkline(stage, key, values[-1], svg, METRICS[key].meaning if key in METRICS else ""))
    return found
