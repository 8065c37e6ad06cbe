"""The certificate of a measured table: whole networks, timed end to end, that took no part in any fit.

Beside the table's own figures stand, for the same networks: a second measurement of them (what a perfect predictor would
reach), single-operation sums, FLOPs, a uniform draw of networks instead of one over the space's whole range, energy beside
constant power times time, and calls at a control period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latency_tables.board.timing import Visit
from latency_tables.measuring.loop import Measurer
from latency_tables.measuring.plan import EMPTY, single_sum_s
from latency_tables.measuring.statistics import accuracy, fit_line, model_time_s, paired_visits
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row

Networks = Sequence[tuple[str, tuple[OpSpec, ...]]]
SHORT = ("networks", "mape", "within_5", "within_10", "kendall_tau", "bias")


def visits_of(measurer: Measurer, estimator: str) -> Mapping[str, Sequence[Visit]]:
    """All visits, set right by the sentinel where the estimator asks for it."""
    return paired_visits(measurer.journal.visits) if estimator == "paired" else measurer.journal.visits


def energies_j(measurer: Measurer) -> dict[str, float]:
    """Joules of one inference by model, of those where the sensor gave an answer."""
    found = [e for e in measurer.journal.extra if e.get("kind") == "energy"]
    return {e["id"]: float(e["energy_j"]) for e in found if e.get("energy_j") is not None}


def usable(measurer: Measurer, networks: Networks, rows: dict[str, Row]) -> list[tuple[str, tuple[OpSpec, ...]]]:
    """The networks that ran and have all their rows."""
    good = {key for key, row in rows.items() if row.latency_s is not None}
    return [(n, ops) for n, ops in networks if n not in measurer.journal.failed and all(op.key in good for op in ops)]


def row_sum_s(ops: Sequence[OpSpec], rows: dict[str, Row]) -> float:
    """Seconds of a network's rows, before calibration; every row must be usable."""
    return float(sum(rows[op.key].latency_s or 0.0 for op in ops))


def constant_power_w(measurer: Measurer, networks: Networks, estimator: str) -> float | None:
    """One power for all networks: the median of energy over time on those that calibrate, watts; None without energy."""
    energies, visits = energies_j(measurer), visits_of(measurer, estimator)
    powers = [energies[name] / model_time_s(visits[name], estimator) for name, _ in networks if name in energies]
    return float(np.median(powers)) if powers else None


def make_certificate(measurer: Measurer, calibration: dict[str, Any], rows: dict[str, Row]) -> dict[str, Any] | None:
    """All figures of the certificate, or None where no network could be measured.

    Args:
        measurer: after ``run``.
        calibration: as it stands in the header.
        rows: the table's rows.
    """
    plan, estimator = measurer.plan, calibration["estimator"]
    proof = usable(measurer, plan.certificate, rows)
    if not proof:
        return None
    found = _figures(measurer, proof, calibration, rows)
    found["left_out"] = len(plan.certificate) - len(proof)
    found["uncalibrated"] = accuracy(
        [calibration["empty_s"] + row_sum_s(ops, rows) for _, ops in proof], _times_s(measurer, proof, estimator)
    )
    found["energy"] = _energy(measurer, proof, calibration, rows)
    found["predicted_s"] = [_predicted_s(ops, calibration, rows) for _, ops in proof]
    found["measured_s"] = _times_s(measurer, proof, estimator)
    control = usable(measurer, plan.uniform, rows)
    if control:
        found["uniform"] = _figures(measurer, control, calibration, rows)
    rhythm = _paced(measurer, proof, estimator)
    if rhythm:
        found["paced"] = rhythm
    return found


def _figures(measurer: Measurer, proof: Networks, calibration: dict[str, Any], rows: dict[str, Row]) -> dict[str, Any]:
    plan, estimator = measurer.plan, calibration["estimator"]
    visits, measured = visits_of(measurer, estimator), _times_s(measurer, proof, estimator)
    found = accuracy([_predicted_s(ops, calibration, rows) for _, ops in proof], measured)
    halves = [[model_time_s(visits[name][start::2], estimator) for name, _ in proof if len(visits[name]) > 1] for start in (0, 1)]
    if len(halves[0]) == len(proof):
        found["repeat"] = _short(accuracy(*halves))
    fitting = usable(measurer, plan.calibration, rows)
    if len(fitting) >= 3:
        line = fit_line([_macs(ops) for _, ops in fitting], _times_s(measurer, fitting, estimator))
        found["flops"] = accuracy([line[0] + line[1] * _macs(ops) for _, ops in proof], measured)
    times = {name: model_time_s(v, estimator) for name, v in visits.items() if name.startswith("single-")}
    if plan.singles and set(plan.singles.values()) <= set(times):
        found["single_operations"] = accuracy([single_sum_s(ops, plan.singles, times) for _, ops in proof], measured)
    return found


def _macs(ops: Sequence[OpSpec]) -> int:
    return sum(op.macs for op in ops)


def _times_s(measurer: Measurer, networks: Networks, estimator: str) -> list[float]:
    visits = visits_of(measurer, estimator)
    return [model_time_s(visits[name], estimator) for name, _ in networks]


def _predicted_s(ops: Sequence[OpSpec], calibration: dict[str, Any], rows: dict[str, Row]) -> float:
    return calibration["overhead_s"] + calibration["scale"] * row_sum_s(ops, rows)


def _energy(measurer: Measurer, proof: Networks, calibration: dict[str, Any], rows: dict[str, Row]) -> dict[str, Any] | None:
    """Energy from rows beside constant power times predicted time; None where any part of it is unknown."""
    energies, power_w, overhead_j = energies_j(measurer), calibration.get("power_w"), calibration.get("overhead_j")
    known = [(name, ops) for name, ops in proof if name in energies and all(rows[op.key].energy_j is not None for op in ops)]
    if not known or power_w is None or overhead_j is None:
        return None
    measured = [energies[name] for name, _ in known]
    sums = [overhead_j + calibration["scale"] * sum(rows[op.key].energy_j or 0.0 for op in ops) for _, ops in known]
    return {
        "rows": accuracy(sums, measured),
        "power_times_time": accuracy([power_w * _predicted_s(ops, calibration, rows) for _, ops in known], measured),
        "power_w": power_w,
        "measured_j": measured,
    }


def _paced(measurer: Measurer, proof: Networks, estimator: str) -> dict[str, Any] | None:
    """Calls at a control period beside back-to-back ones, and how well one factor between the two does."""
    seen = {e["id"]: e["paced"] for e in measurer.journal.extra if e.get("kind") == "paced"}
    kept = [(name, ops) for name, ops in proof if name in seen]
    fitting = [(name, ops) for name, ops in measurer.plan.calibration if name in seen]
    if not kept:
        return None
    measured = _times_s(measurer, kept, estimator)
    p50, p99 = ([seen[name][quantile] for name, _ in kept] for quantile in ("p50_s", "p99_s"))
    found = {
        "period_s": seen[kept[0][0]]["period_s"],
        "networks": len(kept),
        "calls": sum(seen[name]["samples"] for name, _ in kept),
        "missed": sum(seen[name]["missed"] for name, _ in kept),
        "p50_over_back_to_back": float(np.median(np.array(p50) / measured)),
        "p99_over_back_to_back": float(np.median(np.array(p99) / measured)),
        "p50_s": p50,
        "p99_s": p99,
    }
    if len(fitting) >= 3:
        ratios = [seen[name]["p50_s"] / t for (name, _), t in zip(fitting, _times_s(measurer, fitting, estimator), strict=True)]
        factor = float(np.median(ratios))
        found["one_factor"] = {"factor": factor, **_short(accuracy([factor * t for t in measured], p50))}
    return found


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in SHORT}


def overhead_j(measurer: Measurer) -> float | None:
    """Joules of an empty call, or None where nobody measured it."""
    return energies_j(measurer).get(EMPTY)
