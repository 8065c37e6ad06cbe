"""Latency against score, and predicted against measured latency.

Points come from four places: the path of the search (supernet), the control's candidates, the reference agents and the
agent of this run. The supernet's scores are not final scores, so they stand apart in the drawing and in the caption.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cosearch.report.data import Run, interval, latency_target_s, number, records
from cosearch.report.format import time_text, time_unit
from cosearch.report.plots import Plot, thin
from cosearch.report.svg import AGENT, CONTROL, INK, MUTED, TARGET, TEACHER, figure, inline_svg, short

_SCORES = ("score_mean", "score", "score_eval", "score_train")
_LATENCIES = ("latency_predicted_s", "latency_s", "latency_argmax_s")


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


def agent_latency_s(run: Run) -> float | None:
    """Predicted latency of the derived agent: from the summary, else the export record, else the architecture."""
    for source, path in (
        (run.summary, ("latency_predicted_s",)),
        (run.agent, ("latency", "predicted_s")),
        (run.architecture, ("predicted", "latency_s")),
    ):
        found = number(source, *path)
        if found is not None:
            return found
    return None


def supernet_points(run: Run) -> list[tuple[float, float]]:
    """``(latency_s, score)`` of the most probable architecture along the search, at most 60 of them."""
    latency = dict(zip(*run.curve("search", "latency_argmax_s"), strict=True))
    steps, scores = run.curve("search", "score_train")
    shared = [(latency[step], score) for step, score in zip(steps, scores, strict=True) if step in latency]
    return list(zip(*(axis.tolist() for axis in thin(*zip(*shared, strict=True), limit=60)), strict=True)) if shared else []


def control_points(run: Run) -> list[tuple[float, float]]:
    """``(latency_s, score)`` of the control's candidates, from the summary or else from the last line of each."""
    listed = [(_first(item, _LATENCIES), _first(item, _SCORES)) for item in records(run.summary, "control", "candidates")]
    if not listed:
        last = {
            line.get("candidate"): line
            for line in run.metrics
            if line.get("stage") == "control"
            and _first(line, _SCORES) is not None
            and isinstance(line.get("candidate"), (str, int))
        }
        listed = [(_first(line, _LATENCIES), _first(line, _SCORES)) for line in last.values()]
    return [(latency, score) for latency, score in listed if latency is not None and score is not None]


def pareto_plot(run: Run) -> Plot | None:
    """The Pareto plot, or ``None`` where neither an agent nor a candidate has both figures."""
    supernet, control = supernet_points(run), control_points(run)
    agent = (agent_latency_s(run), number(run.summary, "score_mean"))
    if not supernet and not control and None in agent:
        return None
    references, proposals = records(run.summary, "reference_agents"), bool(run.candidates("search"))
    target = latency_target_s(run)
    times = [latency for latency, _ in supernet + control] + [number(item, "latency_predicted_s") for item in references]
    scale, unit = time_unit([time for time in (*times, agent[0], target) if time is not None])
    with figure(height=3.3) as (drawing, (axes,)):
        _clouds(axes, supernet, control, scale, "candidates, over time" if proposals else "supernet, over time")
        if None not in agent:
            bounds = interval(run.summary, "score_ci95")
            if bounds:
                axes.vlines(agent[0] * scale, *bounds, color=AGENT, linewidth=1.5)
            axes.plot(agent[0] * scale, agent[1], "o", color=AGENT, markersize=9, label="this agent", zorder=5)
        _references(axes, references, scale)
        if target is not None:
            axes.axvline(target * scale, color=TARGET, linestyle=(0, (5, 2)), linewidth=1.3, label="target")
        teacher = number(run.summary, "teacher_score_mean")
        if teacher is not None:
            axes.axhline(teacher, color=TEACHER, linestyle=(0, (5, 2)), linewidth=1.2, label="teacher's score")
        axes.set_xlabel(f"predicted latency, {unit}")
        axes.set_ylabel("score")
        _wide_axis_is_logarithmic(axes, [time * scale for time in (*times, agent[0], target) if time is not None])
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.1, columnspacing=1.1)
        svg = inline_svg(drawing, "pareto", f"Latency against score; this agent: {time_text(agent[0])}")
    caption = "Up and to the left is better. The line joins the control's candidates that no other candidate beats. "
    if supernet and proposals:
        caption += "Candidates are shown with their score while they were trained. "
    elif supernet:
        caption += "The supernet's path shows scores during the search with shared weights; they are not final scores. "
    if any(_first(item, _SCORES) is None for item in references):
        caption += "Reference agents without a score are marks at their latency only."
    return Plot("Latency against score", svg, caption.strip())


def _clouds(axes: Axes, supernet: list[tuple[float, float]], control: list[tuple[float, float]], scale: float, name: str) -> None:
    """The path of the search, later points fuller; the control's candidates and their front."""
    if supernet:
        latency, score = np.array(supernet).T
        axes.scatter(latency * scale, score, s=10, color=AGENT, alpha=np.linspace(0.12, 0.6, len(score)), linewidths=0)
        axes.scatter([], [], s=10, color=AGENT, alpha=0.5, linewidths=0, label=name)
    if control:
        latency, score = np.array(control).T
        front = pareto_front(latency.tolist(), score.tolist())
        axes.step(latency[front] * scale, score[front], where="post", color=CONTROL, linewidth=1.0, alpha=0.8)
        axes.plot(latency * scale, score, "D", color=CONTROL, markersize=4, label="random-search control")


def _references(axes: Axes, references: list[dict], scale: float) -> None:
    """Reference agents: a cross where a score is known, else a mark at the foot of the plot; the name beside it."""
    for item in references:
        latency, score = number(item, "latency_predicted_s"), _first(item, _SCORES)
        if latency is None:
            continue
        name = short(str(item.get("name", "reference")))
        if score is None:
            axes.plot(
                latency * scale,
                0.0,
                "|",
                color=MUTED,
                markersize=12,
                markeredgewidth=1.6,
                transform=axes.get_xaxis_transform(),
                clip_on=False,
            )
            axes.annotate(
                name,
                (latency * scale, 0.0),
                xycoords=axes.get_xaxis_transform(),
                xytext=(-3, 9),
                textcoords="offset points",
                rotation=90,
                fontsize=8,
                color=MUTED,
                ha="right",
                va="bottom",
            )
        else:
            axes.plot(latency * scale, score, "x", color=INK, markersize=6)
            axes.annotate(name, (latency * scale, score), xytext=(6, 4), textcoords="offset points", fontsize=8, color=MUTED)


def predicted_measured_plot(run: Run) -> Plot | None:
    """Predicted against measured latency of this agent and of the reference agents, with the line of equality."""
    points = [("this agent", agent_latency_s(run), measured_s(run))]
    points += [
        (str(item.get("name", "reference")), number(item, "latency_predicted_s"), number(item, "latency_measured_s"))
        for item in records(run.summary, "reference_agents")
    ]
    points = [point for point in points if None not in point]
    if not points:
        return None
    times = [time for _, *pair in points for time in pair]
    scale, unit = time_unit(times)
    with figure(height=3.3) as (drawing, (axes,)):
        low, high = min(times) * scale / 1.8, max(times) * scale * 1.8
        axes.plot([low, high], [low, high], color=MUTED, linestyle=":", linewidth=1.1, label="equal")
        for index, (name, predicted, measured) in enumerate(points):
            agent = index == 0 and name == "this agent"
            axes.plot(
                predicted * scale,
                measured * scale,
                "o" if agent else "x",
                color=AGENT if agent else INK,
                markersize=8 if agent else 6,
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
        axes.set_ylabel(f"measured, {unit}")
        _wide_axis_is_logarithmic(axes, [low, high], both=True)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.1)
        svg = inline_svg(drawing, "measured", "Predicted against measured latency")
    return Plot("Predicted against measured", svg, "On the dotted line prediction and measurement agree.")


def measured_s(run: Run) -> float | None:
    """Measured median latency of the exported agent: from the export record, else from the summary."""
    median = number(run.agent, "latency", "measured", "p50_s")
    return number(run.summary, "latency_measured_s") if median is None else median


def compared_agents(run: Run) -> list[dict[str, float | str | None]]:
    """Rows of the table beside the plots: this agent, the control and the reference agents, each with what is known."""
    rows = []
    if run.summary or agent_latency_s(run) is not None:
        rows.append(
            {
                "name": "this agent",
                "score": number(run.summary, "score_mean"),
                "predicted_s": agent_latency_s(run),
                "measured_s": measured_s(run),
                "params": number(run.summary, "params"),
                "macs": number(run.summary, "macs"),
            }
        )
    named = [("random-search control", run.summary["control"])] if isinstance(run.summary.get("control"), dict) else []
    named += [(str(item.get("name", "reference")), item) for item in records(run.summary, "reference_agents")]
    for name, item in named:
        sizes = {key: number(item, key) for key in ("params", "macs")}
        rows.append(
            {
                "name": name,
                "score": _first(item, _SCORES),
                "predicted_s": number(item, "latency_predicted_s"),
                "measured_s": number(item, "latency_measured_s"),
                **sizes,
            }
        )
    return rows


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


def _first(source: dict, keys: tuple[str, ...]) -> float | None:
    """The first of several keys that holds a number."""
    return next((value for value in (number(source, key) for key in keys) if value is not None), None)
