"""``report.html``: what a run found, on one page that needs nothing else.

Written from the run folder alone, finished or not. The page has no script, loads nothing and says so to the browser
(its content policy forbids every request), so it can be mailed, archived and opened without a network.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cosearch.record.durable import write_bytes_atomic
from cosearch.report import format as words
from cosearch.report.accelerator import accelerator_section
from cosearch.report.architecture import Cell, cells
from cosearch.report.data import Run, flatten, number, part, read_run
from cosearch.report.facts import PROVENANCE, caveats, certainty, facts, progress, tiles, verdict
from cosearch.report.graph import graph_plot
from cosearch.report.pareto import agent_latency_s, compared_agents, pareto_plot, predicted_measured_plot
from cosearch.report.plots import (
    STAGE_TITLES,
    Plot,
    agreement_plot,
    distillation_plot,
    latency_plot,
    other_curves,
    score_plot,
)
from cosearch.report.probabilities import probability_plots
from cosearch.report.terminal import render_summary

__all__ = ["render_summary", "write_report"]

_DRAWN = frozenset(
    (
        "score_train",
        "score_eval",
        "score_eval_ci95_low",
        "score_eval_ci95_high",
        "distill_actor",
        "distill_critic",
        "teacher_agreement",
        "distill_weight",
        "latency_expected_s",
        "latency_argmax_s",
        "temperature",
        "wall_s",
        "candidate",
    )
)
_OVERHEAD_SHOWN_FROM = 0.001  # part of the prediction that no operation explains


def write_report(run_path: Path) -> Path:
    """Write ``report.html`` into a run folder.

    Args:
        run_path: the run folder; files of stages that have not run yet may be absent.

    Returns:
        Path of the report. It replaces an older one only when it is complete.

    Raises:
        RunFolderError: the path is not a run folder, or one of its files is damaged.
    """
    run = read_run(run_path)
    page = render_page(run)
    target = run.path / "report.html"
    write_bytes_atomic(target, page.encode("utf-8"))
    return target


def render_page(run: Run) -> str:
    """The page of a run, as text."""
    environment = Environment(
        loader=PackageLoader("cosearch.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("time_text", "energy_text", "count_text", "share_text", "score_text", "plain_text", "significant"):
        environment.filters[name] = getattr(words, name)
    environment.filters["keep"] = _keep_units
    environment.filters["svg"] = Markup  # drawings are our own markup; everything else is escaped
    return environment.get_template("report.html").render(_context(run))


def _context(run: Run) -> dict[str, Any]:
    boxes, boxes_note = cells(run)
    known = facts(run)
    subject = (_environment_name(run), part(run.record, "device").get("name"), run.record.get("created_utc"))
    return {
        "name": run.name,
        "progress": progress(run),
        "finished": run.finished,
        "verdict": verdict(run),
        "tiles": tiles(run),
        "missing": run.missing,
        "certainty": certainty(run),
        "provenance_words": PROVENANCE,
        "provenance": known.provenance,
        "subject": " · ".join(str(word) for word in subject if word),
        "curves": _present(
            *(score_plot(run, stage) for stage in STAGE_TITLES),
            latency_plot(run),
            agreement_plot(run),
            *(distillation_plot(run, stage) for stage in STAGE_TITLES),
        ),
        "others": other_curves(run, _DRAWN),
        "cells": boxes,
        "cells_note": boxes_note,
        "graph": graph_plot(run, boxes),
        "widest": max((box.share for box in boxes if box.share is not None), default=None),
        "probabilities": probability_plots(run),
        "pareto": pareto_plot(run),
        "agents": compared_agents(run),
        "predicted_measured": predicted_measured_plot(run),
        "has_energy": any(box.energy_j is not None for box in boxes),
        "overhead_s": _overhead_s(run, boxes),
        "latency_total_s": agent_latency_s(run),
        "latency": part(run.agent, "latency"),
        "latency_rows": _latency_rows(run),
        "paced": _paced(run),
        "clip": _clip(run),
        "caveats": caveats(run),
        "accelerator": accelerator_section(run),
        "tables": _provenance_tables(run),
        "command": run.record.get("command"),
    }


def _present(*plots: Plot | None) -> list[Plot]:
    return [plot for plot in plots if plot]


def _keep_units(text: str) -> str:
    """The same sentence with numbers tied to their units, so that no line ends between the two."""
    return re.sub(r"(?<=\d) (?=(?:%|ms|µs|s|min|h|J|mJ|µJ|[kMGT])(?![\w]))", "\u00a0", text)


def _environment_name(run: Run) -> str | None:
    """The environment's name, wherever the config keeps it."""
    leaves = dict(flatten(part(run.record, "config")))
    return next((str(leaves[key]) for key in ("env.name", "env", "environment.name", "environment") if leaves.get(key)), None)


def _overhead_s(run: Run, boxes: list[Cell]) -> float | None:
    """What the prediction holds beyond the operations: fixed costs of an inference."""
    total = number(run.architecture, "predicted", "latency_s")
    times = [box.latency_s for box in boxes if box.key is not None]
    if total is None or not times or None in times:
        return None
    rest = total - sum(times)
    return rest if abs(rest) > _OVERHEAD_SHOWN_FROM * total else None


def _latency_rows(run: Run) -> list[tuple[str, float | None]]:
    """Latency of one decision: predicted, then the quantiles of the measurement."""
    measured = part(run.agent, "latency", "measured")
    if not measured and agent_latency_s(run) is None:
        return []
    quantiles = [
        (f"measured, {label}", number(measured, key))
        for label, key in (("median", "p50_s"), ("90 of 100 within", "p90_s"), ("99 of 100 within", "p99_s"))
    ]
    return [(f"predicted ({facts(run).provenance})", agent_latency_s(run)), ("target", facts(run).target_s), *quantiles]


def _paced(run: Run) -> dict[str, Any] | None:
    """Latency at the control period, where it was measured."""
    paced = part(run.agent, "latency", "paced")
    if not paced:
        return None
    return {key: number(paced, key) for key in ("period_s", "p50_s", "p99_s", "missed")}


def _clip(run: Run) -> str | None:
    """The clip as a data address."""
    if run.clip is None:
        return None
    media, content = run.clip
    return f"data:{media};base64,{base64.b64encode(content).decode('ascii')}"


def _provenance_tables(run: Run) -> list[tuple[str, list[tuple[str, Any]], bool]]:
    """Tables of where everything comes from: title, rows, and whether it starts folded."""
    record = run.record
    top = [("seed", record.get("seed")), ("created (UTC)", record.get("created_utc"))]
    known = {"name", "command", "created_utc", "seed", "config", "versions", "device", "table", "teacher"}
    extra = {key: value for key, value in record.items() if key not in known}
    found = [("Run", top, False)]
    for title, key, folded in (
        ("Device", "device", False),
        ("Latency table", "table", False),
        ("Teacher", "teacher", False),
        ("Versions", "versions", True),
        ("Configuration", "config", True),
    ):
        rows = list(flatten(part(record, key))) if part(record, key) else []
        found.append((title, rows, folded))
    derived = part(run.architecture, "derived_by")
    found += [(title, list(flatten(values)), True) for title, values in (("Derivation", derived), ("More", extra)) if values]
    return found
