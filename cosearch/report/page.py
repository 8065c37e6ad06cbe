"""``report.html``: what a run found, on one page that needs nothing else.

Written from the run folder alone, finished or not. The page has no script, loads nothing and says so to the browser
(its content policy forbids every request), so it can be mailed, archived and opened without a network.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import to_json
from cosearch.record.workers import read_workers
from cosearch.report import format as words
from cosearch.report.accelerator import accelerator_section
from cosearch.report.architecture import cells
from cosearch.report.certainty import certainty
from cosearch.report.data import Run, flatten, read_run
from cosearch.report.drawings.graph import graph_plot
from cosearch.report.drawings.pareto import compared_agents, pareto_plot, predicted_measured_plot
from cosearch.report.drawings.plots import (
    STAGE_TITLES,
    Plot,
    agreement_plot,
    distillation_plot,
    latency_plot,
    other_curves,
    score_plot,
)
from cosearch.report.drawings.probabilities import probability_plots
from cosearch.report.facts import PROVENANCE, caveats, facts, progress, tiles, verdict
from cosearch.report.rounds import OUTCOMES, round_rows
from cosearch.report.terminal import render_summary
from cosearch.report.work import FAULT_COLUMNS, WORKER_COLUMNS, work_section
from cosearch.space.derivation.counting import Counts
from latency_tables.text.terminal import plain_if_text

__all__ = ["render_summary", "write_report"]

DRAWN = frozenset(
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
    return _template().render(_context(run))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("cosearch.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain_if_text,
    )
    for name in ("time_text", "energy_text", "count_text", "share_text", "score_text", "plain_text", "significant"):
        environment.filters[name] = getattr(words, name)
    environment.filters["keep"] = _keep_units
    environment.filters["svg"] = Markup  # drawings are our own markup; everything else is escaped
    return environment.get_template("report.html")


def _context(run: Run) -> dict[str, object]:
    boxes, boxes_note = cells(run)
    known = facts(run)
    subject = (_environment_name(run), run.record.device.name, run.record.created_utc)
    return {
        "name": run.name,
        "progress": progress(run),
        "finished": run.finished,
        "verdict": verdict(run),
        "tiles": tiles(run),
        "missing": run.missing,
        "certainty": certainty(run),
        "rounds": round_rows(run.summary),
        "rounds_outcome": OUTCOMES.get("" if run.summary is None else run.summary.rounds_outcome, ""),
        "provenance_words": PROVENANCE,
        "provenance": known.provenance,
        "subject": " · ".join(word for word in subject if word),
        "curves": _present(
            *(score_plot(run, stage) for stage in STAGE_TITLES),
            latency_plot(run),
            agreement_plot(run),
            *(distillation_plot(run, stage) for stage in STAGE_TITLES),
        ),
        "others": other_curves(run, DRAWN),
        "cells": boxes,
        "cells_note": boxes_note,
        "graph": graph_plot(run, boxes),
        "widest": max((box.share for box in boxes if box.share is not None), default=None),
        "probabilities": probability_plots(run),
        "pareto": pareto_plot(run),
        "agents": compared_agents(run),
        "predicted_measured": predicted_measured_plot(run),
        "has_energy": any(box.energy_j is not None for box in boxes),
        "overhead_s": _overhead_s(run),
        "latency_total_s": run.latency_predicted_s,
        "latency_rows": _latency_rows(run),
        "paced": None if run.agent is None else run.agent.latency.paced,
        "clip": None if run.clip is None else f"data:image/gif;base64,{base64.b64encode(run.clip).decode('ascii')}",
        "caveats": caveats(run),
        "accelerator": accelerator_section(run),
        "work": work_section(read_workers(run.path), noun="training"),
        "worker_columns": WORKER_COLUMNS,
        "fault_columns": FAULT_COLUMNS,
        "tables": _provenance_tables(run),
        "command": run.record.command,
    }


def _present(*plots: Plot | None) -> list[Plot]:
    return [plot for plot in plots if plot]


def _keep_units(text: str) -> str:
    """The same sentence with numbers tied to their units, so that no line ends between the two."""
    return re.sub(r"(?<=\d) (?=(?:%|ms|µs|s|min|h|J|mJ|µJ|[kMGT])(?![\w]))", "\u00a0", text)


def _environment_name(run: Run) -> str:
    return str(dict(flatten(run.record.config)).get("env.name", ""))


def _overhead_s(run: Run) -> float | None:
    """What the prediction holds beyond the operations, where that is worth a row: fixed costs of an inference."""
    if run.architecture is None:
        return None
    predicted = run.architecture.predicted
    rest = predicted.latency_s - sum(operation.latency_s for operation in predicted.operations)
    return rest if abs(rest) > _OVERHEAD_SHOWN_FROM * predicted.latency_s else None


def _latency_rows(run: Run) -> list[tuple[str, float | None]]:
    """Latency of one decision: predicted, then the quantiles of the measurement."""
    measured = None if run.agent is None else run.agent.latency.measured
    if run.latency_predicted_s is None:
        return []
    known = facts(run)
    rows = [(f"predicted ({known.provenance})", known.predicted_s), ("target", known.target_s)]
    p50_s, p90_s, p99_s = (None, None, None) if measured is None else (measured.p50_s, measured.p90_s, measured.p99_s)
    return [
        *rows,
        ("measured, median", p50_s),
        ("measured, 90 of 100 within", p90_s),
        ("measured, 99 of 100 within", p99_s),
    ]


def _provenance_tables(run: Run) -> list[tuple[str, list[tuple[str, object]], bool]]:
    """Tables of where everything comes from: title, rows, and whether it starts folded."""
    content = to_json(run.record)
    derived_by = {} if run.architecture is None else to_json(run.architecture)["derived_by"]
    counts = Counts(run.record.space.size, run.record.feasible_architectures, run.record.distinct_networks)
    top: list[tuple[str, object]] = [("seed", run.record.seed), ("created (UTC)", run.record.created_utc or None)]
    tables: list[tuple[str, list[tuple[str, object]], bool]] = [("Run", top, False)]
    for title, values, folded in (
        ("Device", content["device"], False),
        ("Latency table", content["table"], False),
        ("Teacher", content["teacher"], False),
        ("Versions", content["versions"], True),
        ("Configuration", content["config"], True),
        ("Search space", {"architectures": counts.text(), **to_json(run.record.space)}, True),
        ("Targets", {str(target.metric): target.value for target in run.record.targets}, True),
        ("Reference agents", content["references"], True),
        ("Derivation", derived_by, True),
    ):
        tables.append((title, list(flatten(values)) if values else [], folded))
    return tables
