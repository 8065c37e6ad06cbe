"""The rounds on the device in words: each architecture that was measured, its figures beside their targets, and the agent."""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import AFTER, TargetFigure
from cosearch.report.format import NOT_KNOWN, energy_text, share_text, time_text

OUTCOMES = {
    "holds": "The agent holds its targets where it was measured.",
    "nothing can": "No architecture of this space holds the targets: the cheapest one was measured over.",
    "rounds used up": "The rounds (budget.repair_rounds) were used up before an architecture held its targets.",
    "none left": "No architecture was shown to hold the targets, and none was left to try: the cheapest one is not clearly over.",
    "over": "The agent was measured over its targets, and no other architecture took its place.",
}


@dataclass(frozen=True)
class RoundRow:
    """One row of the report's table: texts, and ``good`` or ``bad`` where the architecture held or not.

    Attributes:
        number: from 1; empty for a further target of the same round.
        architecture: names of its choices.
        when: before or after the retraining, and why it was measured.
        target, predicted, measured, verdict: of one target.
        mood: for the colour.
        deployed: whether it is the agent.
    """

    number: str
    architecture: str
    when: str
    target: str
    predicted: str
    measured: str
    verdict: str
    mood: str
    deployed: bool


def round_rows(summary: Summary | None) -> list[RoundRow]:
    """The rows of a run's rounds; none where nothing was measured on its device."""
    rows = []
    for index, each in enumerate(() if summary is None else summary.target_rounds):
        deployed = summary is not None and summary.deployed_round == index + 1
        for place, figure in enumerate(each.figures):
            first = place == 0
            rows.append(
                RoundRow(
                    number=str(index + 1) if first else "",
                    architecture="/".join(each.choice_names) if first else "",
                    when=f"{each.retraining} the retraining: {each.why}" if first else "",
                    target=f"{name_text(figure)} {value_text(figure.metric, figure.target)}",
                    predicted=value_text(figure.metric, figure.predicted),
                    measured=value_text(figure.metric, figure.measured) + interval_text(figure),
                    verdict=verdict_text(figure),
                    mood="good" if figure.verdict == "under" else "bad",
                    deployed=deployed and each.retraining == AFTER and first,
                )
            )
    return rows


def name_text(figure: TargetFigure) -> str:
    """What a figure is of."""
    if figure.metric != "latency_s":
        return {"energy_j": "energy", "file_bytes": "file", "memory_bytes": "peak memory"}[figure.metric]
    return f"{figure.statistic} latency, {'back to back' if figure.at == 'back-to-back' else 'once a period'}"


def value_text(metric: str, value: float | None) -> str:
    """A figure of a metric with its unit; None: the table knows nothing of it."""
    if value is None:
        return NOT_KNOWN
    if metric == "latency_s":
        return time_text(value)
    return energy_text(value) if metric == "energy_j" else f"{value / 1024:,.0f} KiB"


def interval_text(figure: TargetFigure) -> str:
    """The 95 % interval in brackets; empty for an exact figure."""
    if figure.low == figure.high:
        return ""
    return f" ({value_text(figure.metric, figure.low)} to {value_text(figure.metric, figure.high)})"


def verdict_text(figure: TargetFigure) -> str:
    """Under or over, and by how much."""
    if figure.verdict == "unclear":
        return "too close to tell"
    return f"{figure.verdict} by {share_text(abs(figure.slack))}"


def figure_text(figure: TargetFigure) -> str:
    """One line about a figure, for the terminal."""
    predicted, measured, target = (value_text(figure.metric, v) for v in (figure.predicted, figure.measured, figure.target))
    found = f"measured {measured}{interval_text(figure)}"
    return f"{name_text(figure)}: predicted {predicted}, {found}, target {target}: {verdict_text(figure)}"
