"""Latency against score, and predicted against measured latency.

Points come from four places: the path of the search (supernet) or its proposals, the control's candidates, the reference agents
and the agent of this run. Scores with shared weights are not final scores, so they stand apart in the drawing and in the caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator

from cosearch.record.results.summary import ReferenceAgent
from cosearch.report.data import Run
from cosearch.report.drawings.plots import Plot, control_text, thin
from cosearch.report.drawings.svg import AGENT, CONTROL, INK, MUTED, TARGET, TEACHER, figure, inline_svg, short
from cosearch.report.facts import facts
from cosearch.report.format import time_text, time_unit

THIS_AGENT = "this agent"


def pareto_front(latencies_s: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the points that no other point beats, by ascending latency.

    Latencies are in seconds. A point is beaten by one that is no slower and scores no less, and is better in one of the
    two. Of equal points the first is kept.
    """
    front: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: (latencies_s[i], -scores[i], i)):
        if not front or scores[index] > scores[front[-1]]:
            front.append(index)
    return front


def supernet_points(run: Run) -> list[tuple[float, float]]:
    """``(latency_s, score)`` of the most probable architecture along the search, at most 60 of them."""
    latency = dict(zip(*run.curve("search", "latency_argmax_s"), strict=True))
    shared = [(step, score) for step, score in zip(*run.curve("search", "score_train"), strict=True) if step in latency]
    times, scores = thin([latency[step] for step, _ in shared], [score for _, score in shared], limit=60)
    return list(zip(times.tolist(), scores.tolist(), strict=True))


def control_points(run: Run) -> list[tuple[float, float]]:
    """``(latency_s, score)`` of the control's candidates that have a score."""
    control = None if run.summary is None else run.summary.control
    candidates = () if control is None else control.candidates
    return [(candidate.latency_s, candidate.score) for candidate in candidates if candidate.score is not None]


def proposal_points(run: Run) -> list[tuple[float, float]]:
    """``(latency_s, score)`` of what a one-shot search scored by episodes with the weights of its supernet."""
    found = None if run.architecture is None else run.architecture.derived_by
    if found is None or found.scored_by != "episodes":
        return []
    return [(one.latency_s, one.score) for one in found.candidates or () if one.score is not None]


def pareto_plot(run: Run) -> Plot | None:
    """The Pareto plot, or ``None`` where neither an agent nor a candidate has both figures."""
    proposals, control, summary = proposal_points(run), control_points(run), run.summary
    supernet = supernet_points(run) or proposals
    if not supernet and not control and summary is None:
        return None
    references = () if summary is None else summary.reference_agents
    target, teacher = run.latency_target_s, run.teacher_score
    times = [latency for latency, _ in supernet + control] + [agent.latency_predicted_s for agent in references]
    times += [time for time in (None if summary is None else summary.latency_predicted_s, target) if time is not None]
    scale, unit = time_unit(times)
    with figure(height=3.3) as (drawing, (axes,)):
        name = "candidates, over time" if run.has_candidates else "supernet, over time"
        name = "proposals, shared weights" if proposals else name
        _clouds(axes, supernet, control, scale, name=name, control_name=control_text(run))
        if summary is not None:
            latency = summary.latency_predicted_s * scale
            if summary.score_ci95 is not None:
                axes.vlines(latency, *summary.score_ci95, color=AGENT, linewidth=1.5)
            axes.plot(latency, summary.score_mean, "o", color=AGENT, markersize=9, label=THIS_AGENT, zorder=5)
        _references(axes, references, scale)
        if target is not None:
            axes.axvline(target * scale, color=TARGET, linestyle=(0, (5, 2)), linewidth=1.3, label="target")
        if teacher is not None:
            axes.axhline(teacher, color=TEACHER, linestyle=(0, (5, 2)), linewidth=1.2, label="teacher's score")
        axes.set_xlabel(f"predicted latency, {unit}")
        axes.set_ylabel("score")
        _wide_axis_is_logarithmic(axes, [time * scale for time in times])
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.1, columnspacing=1.1)
        described = f"Latency against score; this agent: {time_text(run.latency_predicted_s)}"
        svg = inline_svg(drawing, "pareto", described)
    caption = "Up and to the left is better. The line joins the control's candidates that no other candidate beats. "
    if proposals:
        caption += (
            "Proposals have their score with the supernet's weights, of a few steps on validation levels; it is not final. "
        )
    elif supernet and run.has_candidates:
        caption += "Candidates are shown with their score while they were trained. "
    elif supernet:
        caption += "The supernet's path shows scores during the search with shared weights; they are not final scores. "
    if references:
        caption += "Reference agents are marks at their latency only: nobody trained them here."
    return Plot("Latency against score", svg, caption.strip())


def _clouds(
    axes: Axes,
    supernet: list[tuple[float, float]],
    control: list[tuple[float, float]],
    scale: float,
    *,
    name: str,
    control_name: str,
) -> None:
    """The path of the search, later points fuller; the control's candidates and their front."""
    if supernet:
        latency, score = np.array(supernet).T
        fuller = [to_rgba(AGENT, alpha) for alpha in np.linspace(0.12, 0.6, len(score)).tolist()]
        axes.scatter(latency * scale, score, s=10, c=fuller, linewidths=0)
        axes.scatter([], [], s=10, color=AGENT, alpha=0.5, linewidths=0, label=name)
    if control:
        latency, score = np.array(control).T
        front = pareto_front(latency.tolist(), score.tolist())
        axes.step(latency[front] * scale, score[front], where="post", color=CONTROL, linewidth=1.0, alpha=0.8)
        axes.plot(latency * scale, score, "D", color=CONTROL, markersize=4, label=control_name)


def _references(axes: Axes, references: Sequence[ReferenceAgent], scale: float) -> None:
    """Reference agents as marks at the foot of the plot, each with its name beside it."""
    for agent in references:
        latency = agent.latency_predicted_s * scale
        axes.plot(
            latency,
            0.0,
            "|",
            color=MUTED,
            markersize=12,
            markeredgewidth=1.6,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
        )
        axes.annotate(
            short(agent.name),
            (latency, 0.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-3, 9),
            textcoords="offset points",
            rotation=90,
            fontsize=8,
            color=MUTED,
            ha="right",
            va="bottom",
        )


def predicted_measured_plot(run: Run) -> Plot | None:
    """Predicted against measured latency of this agent and of the reference agents; a line of equality on the target device."""
    compared = [agent for agent in compared_agents(run) if agent.predicted_s is not None and agent.measured_s is not None]
    points = [(agent.name, agent.predicted_s or 0.0, agent.measured_s or 0.0) for agent in compared]
    if not points:
        return None
    times = [time for _, *pair in points for time in pair]
    scale, unit = time_unit(times)
    known = facts(run)
    with figure(height=3.3) as (drawing, (axes,)):
        low, high = min(times) * scale / 1.8, max(times) * scale * 1.8
        if known.on_target:
            axes.plot([low, high], [low, high], color=MUTED, linestyle=":", linewidth=1.1, label="equal")
        for name, predicted, measured in points:
            own = name == THIS_AGENT
            axes.plot(
                predicted * scale, measured * scale, "o" if own else "x", color=AGENT if own else INK, markersize=8 if own else 6
            )
            right = predicted * scale < (low * high) ** 0.5
            axes.annotate(
                short(name),
                (predicted * scale, measured * scale),
                xytext=(8 if right else -8, -3),
                textcoords="offset points",
                fontsize=8.5,
                color=INK,
                ha="left" if right else "right",
            )
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel(f"predicted for the target device, {unit}")
        axes.set_ylabel(f"measured on {'it' if known.on_target else known.measured_on}, {unit}")
        _wide_axis_is_logarithmic(axes, [low, high], both=True)
        if known.on_target:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.1)
        svg = inline_svg(drawing, "measured", "Predicted against measured latency")
    elsewhere = "Measured on another device than the prediction is for: their order can be compared, not their figures."
    said = "On the dotted line prediction and measurement agree." if known.on_target else elsewhere
    return Plot("Predicted against measured", svg, said)


@dataclass(frozen=True)
class ComparedAgent:
    """One row of the table beside the plots; None for what nobody knows. Latencies are in seconds."""

    name: str
    score: float | None
    predicted_s: float | None
    measured_s: float | None
    params: int | None


def compared_agents(run: Run) -> list[ComparedAgent]:
    """This agent, the control and the reference agents, each with what is known."""
    summary = run.summary
    if summary is None:
        predicted_s = run.latency_predicted_s
        return [] if predicted_s is None else [ComparedAgent(THIS_AGENT, None, predicted_s, run.latency_measured_s, None)]
    rows = [ComparedAgent(THIS_AGENT, summary.score_mean, summary.latency_predicted_s, run.latency_measured_s, summary.params)]
    if (control := summary.control) is not None:
        rows.append(ComparedAgent(control_text(run), control.score_mean, control.latency_predicted_s, None, None))
    return rows + [
        ComparedAgent(agent.name, None, agent.latency_predicted_s, agent.latency_measured_s, agent.params)
        for agent in summary.reference_agents
    ]


def _wide_axis_is_logarithmic(axes: Axes, values: list[float], both: bool = False) -> None:
    """A logarithmic axis with plain numbers where the values span more than a factor of eight."""
    for axis, name in ((axes.xaxis, "x"), *(((axes.yaxis, "y"),) if both else ())):
        if min(values) > 0 and max(values) > 8 * min(values):
            (axes.set_xscale if name == "x" else axes.set_yscale)("log")
            decades = range(int(np.floor(np.log10(min(values)))), int(np.ceil(np.log10(max(values)))) + 1)
            ticks = [m * 10.0**d for d in decades for m in (1, 2, 5) if min(values) / 1.5 <= m * 10.0**d <= max(values) * 1.5]
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        else:
            axis.set_major_locator(MaxNLocator(6))
