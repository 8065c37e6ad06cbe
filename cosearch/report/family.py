"""The page of a family: its agents side by side, so that one can be picked; each agent's own report lies in its folder.

Written from ``family.json``, finished or not. Like a run's report it has no script and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cosearch.record.durable import write_bytes_atomic
from cosearch.record.results.family import AGENTS, Family, FamilyAgent, FamilyDevice, agent_folder, agent_names
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.report import format as words
from cosearch.report.data import read_run
from cosearch.report.drawings.pareto import pareto_front
from cosearch.report.drawings.plots import Plot, score_plot
from cosearch.report.drawings.svg import AGENT, INK, MUTED, TARGET, figure, inline_svg, short
from cosearch.report.page import write_report
from cosearch.space.derivation.derive import within
from latency_tables.text.terminal import plain_if_text

PAGE = "report.html"
HERE = "this machine"


@dataclass(frozen=True)
class Cell:
    """The latency of one agent on one device.

    Attributes:
        latency_s: measured there, else predicted, seconds.
        kind: ``measured``, or the provenance of the prediction.
        target_s: the device's bound, seconds; of several the one in the place of the agent's own.
        met: whether the latency keeps it; None where the bound is on another figure than the median back to back.
        own: the agent was derived for this device.
    """

    latency_s: float
    kind: str
    target_s: float
    met: bool | None
    own: bool


@dataclass(frozen=True)
class Row:
    """One agent of the page.

    Attributes:
        agent: its record.
        best: no other agent for its device that is as fast there scores as much.
        deploy: the command that puts it on its device.
        cells: its latency on each device of the family.
    """

    agent: FamilyAgent
    best: bool
    deploy: str
    cells: tuple[Cell, ...]


def write_reports(path: Path) -> Path:
    """Write the page of a run; of a family also the report of each agent that there is.

    Args:
        path: a run folder.

    Raises:
        RunFolderError: it is none, or one of its files is damaged.
    """
    run = RunDir.open(path)
    if not agent_names(run):
        return write_report(path)
    for name in agent_names(run):
        if (run.path / AGENTS / name / RunRecord.FILE).is_file():
            write_report(agent_folder(path, name))
    return write_family_report(run.path)


def write_family_report(path: Path) -> Path:
    """Write ``report.html`` into the folder of a family; while its search goes on, that of the search.

    Args:
        path: folder of the family.

    Raises:
        RunFolderError: a file of it is damaged.
    """
    run = RunDir.open(path)
    if not (run.path / Family.FILE).is_file():
        return write_report(path)
    target = run.path / PAGE
    write_bytes_atomic(target, render_family_page(run).encode("utf-8"))
    return target


def render_family_page(run: RunDir) -> str:
    """The page of a family, as text."""
    environment = Environment(
        loader=PackageLoader("cosearch.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain_if_text,
    )
    for name in ("time_text", "count_text", "score_text", "share_text", "duration_text", "truth_text"):
        environment.filters[name] = getattr(words, name)
    environment.filters["svg"] = Markup  # drawings are our own markup; everything else is escaped
    family, began = run.read(Family), run.read(RunRecord)
    return environment.get_template("family.html").render(
        name=began.name or run.path.name,
        headline=headline(family),
        family=family,
        rows=rows_of(family, run.path),
        plots=all_plots(family),
        search=score_plot(read_run(run.path), "search"),
        command=began.command,
        agents=AGENTS,
    )


def headline(family: Family) -> str:
    """The page in one sentence."""
    made = [agent for agent in family.agents if agent.result is not None]
    found = [agent.result.target_met for agent in made if agent.result is not None]
    met, unknown = found.count(True), found.count(None)
    text = f"{len(family.agents)} agents from one search"
    if len(family.devices) > 1:
        text += f" for {len(family.devices)} devices"
    if len(made) < len(family.agents):
        return f"{text}: {len(made)} are finished"
    measured = sum(agent.device in agent.latency_measured_s for agent in made)
    how = "" if measured == len(made) else f" ({measured} measured, the others predicted)" if measured else " (predicted)"
    how += f"; of {unknown} it is not known" if unknown else ""
    return f"{text}: {'all' if met == len(made) else f'{met} of {len(made)}'} within their latency targets{how}"


def latency_on(agent: FamilyAgent, device: FamilyDevice) -> tuple[float, str]:
    """Seconds of one decision on a device, and where they come from: measured there, else the provenance of the prediction."""
    if device.name in agent.latency_measured_s:
        return agent.latency_measured_s[device.name], "measured"
    return agent.latency_predicted_s[device.name], device.provenance


def latencies_on(family: Family, device: FamilyDevice) -> dict[str, float]:
    """Seconds of one decision on a device, of each finished agent by its name."""
    return {agent.name: latency_on(agent, device)[0] for agent in family.agents if agent.result is not None}


def front_of(family: Family, latencies_s: Mapping[str, float]) -> list[str]:
    """Names of the finished agents that no other one beats: the Pareto front, the fastest first.

    Args:
        family: gives their scores.
        latencies_s: of each finished agent, seconds.
    """
    scores = {agent.name: agent.result.score_mean for agent in family.agents if agent.result is not None}
    names = list(scores)
    return [names[index] for index in pareto_front([latencies_s[name] for name in names], list(scores.values()))]


def _own_front(family: Family, device: FamilyDevice) -> list[str]:
    """The front among the agents that were derived for a device."""
    own = replace(family, agents=tuple(agent for agent in family.agents if agent.device == device.name))
    return front_of(own, latencies_on(own, device))


def rows_of(family: Family, path: Path) -> list[Row]:
    """The rows of the tables.

    Args:
        family: the record.
        path: its folder, for the commands and the record of what the targets are on.
    """
    on_median = all(target.on_median for target in RunDir.open(path).read(RunRecord).targets[:1])
    places = {device.name: device for device in family.devices}
    fronts = {name: _own_front(family, device) for name, device in places.items()}
    rows = []
    for agent in family.agents:
        place = places[agent.device].latency_targets_s.index(agent.latency_target_s)
        cells = []
        for device in family.devices:
            (latency_s, kind), target_s = latency_on(agent, device), device.latency_targets_s[place]
            met = within(latency_s, target_s) if on_median else None
            cells.append(Cell(latency_s, kind, target_s, met, device.name == agent.device))
        host = "" if is_here(agent.device) else f" --host USER@BOARD --name {agent.device}"
        deploy = f"cosearch deploy {path} --agent {agent.name}{host}"
        rows.append(Row(agent, agent.name in fronts[agent.device], deploy, tuple(cells)))
    return rows


def is_here(device: str) -> bool:
    """Whether a device of a family is the machine of the run."""
    return device == "this" or device.startswith("this-")


def all_plots(family: Family) -> list[Plot]:
    """Score against latency on each device of the family, and as measured here where that is none of them."""
    made = [agent for agent in family.agents if agent.result is not None]
    if not made:
        return []
    plots = [_plot(family, device.name, latencies_on(family, device), device) for device in family.devices]
    here = {agent.name: agent.latency_measured_s[HERE] for agent in made if HERE in agent.latency_measured_s}
    if len(here) == len(made):
        plots.append(_plot(family, HERE, here, None))
    return plots


def _plot(family: Family, place: str, latencies_s: Mapping[str, float], device: FamilyDevice | None) -> Plot:
    """One place's plot; on a device with its targets, else of what was measured in that place."""
    targets_s = () if device is None else sorted(set(device.latency_targets_s))
    scale, unit = words.time_unit([*latencies_s.values(), *targets_s])
    made = {agent.name: (agent, agent.result) for agent in family.agents if agent.result is not None}
    kinds = {"measured"} if device is None else {latency_on(agent, device)[1] for agent, _ in made.values()}
    with figure(height=3.3) as (drawing, (axes,)):
        front = front_of(family, latencies_s)
        x, y = [latencies_s[name] * scale for name in front], [made[name][1].score_mean for name in front]
        axes.step(x, y, where="post", color=AGENT, linewidth=1.1, alpha=0.7, label="Pareto front")
        for name, (agent, result) in made.items():
            own = device is None or agent.device == device.name
            at = latencies_s[name] * scale
            if result.score_ci95 is not None:
                axes.vlines(at, *result.score_ci95, color=AGENT if own else MUTED, linewidth=1.3)
            colour, fill = (AGENT, AGENT) if own else (MUTED, "none")
            axes.plot(at, result.score_mean, "o", color=colour, markerfacecolor=fill, markersize=8, zorder=5)
            alike = [other for other, (twin, _) in made.items() if twin.choices == agent.choices and twin.device == agent.device]
            if own and name == alike[0]:  # one label for agents with the same network
                axes.annotate(
                    short(name) + (f" and {len(alike) - 1} more" if len(alike) > 1 else ""),
                    (at, result.score_mean),
                    xytext=(7, 5),
                    textcoords="offset points",
                    fontsize=8,
                    color=INK,
                )
        for number, target_s in enumerate(targets_s):
            label = "target" if number == 0 else None
            axes.axvline(target_s * scale, color=TARGET, linestyle=(0, (5, 2)), linewidth=1.1, label=label)
        axes.set_xlabel(f"latency on {short(place)}, {unit} ({', '.join(sorted(kinds))})")
        axes.set_ylabel("score")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.margins(x=0.14, y=0.15)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, borderaxespad=0.1, columnspacing=1.1)
        svg = inline_svg(drawing, f"family-{place.replace(' ', '-')}", f"Score against latency on {place}")
    caption = "Up and to the left is better. The line joins the agents that no other one beats; bars are 95 % intervals."
    if device is not None and any(agent.device != device.name for agent, _ in made.values()):
        caption += " Hollow: found for another device."
    return Plot(f"On {HERE if is_here(place) else place}", svg, caption)


def render_family(path: Path) -> RenderableType:
    """What a family amounts to, for a terminal of any width.

    Args:
        path: folder of the family, with its record.
    """
    run = RunDir.open(path)
    family = run.read(Family)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("agent", "score", "target", *(f"on {device.name}" for device in family.devices), "bytes"):
        table.add_column(title, no_wrap=title == "agent")
    for row in rows_of(family, path):
        result = row.agent.result
        table.add_row(
            Text(f"{row.agent.name}{' *' if row.best else ''}"),
            words.score_text(None if result is None else result.score_mean),
            words.time_text(row.agent.latency_target_s),
            *(
                Text(f"{words.time_text(cell.latency_s)} {cell.kind}", style="red" if cell.met is False else "")
                for cell in row.cells
            ),
            "" if result is None else f"{result.bytes:,}",
        )
    return Panel(
        Group(
            Text(headline(family), style="bold"),
            Text(),
            table,
            Text(),
            Text("* no other one for its device is as fast and scores as much; red: over that device's target", style="dim"),
            Text(f"report: {run.path / PAGE}"),
        ),
        title=Text(run.path.name),
        title_align="left",
    )
