"""Turns a finished measurement into a table: rows, overhead, calibration, certificate, and everything recorded beside.

The certificate's networks were measured end to end and took no part in any fit; the same networks are also predicted
from isolated single operations and from FLOPs, side by side.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latency_tables.errors import MeasurementError
from latency_tables.measure import Measurer
from latency_tables.opspec import Device, OpSpec
from latency_tables.plan import EMPTY, single_sum_s
from latency_tables.schema import SCHEMA, Row, TableFile
from latency_tables.statistics import (
    ESTIMATORS,
    accuracy,
    calibrate,
    correct_rows,
    difference,
    fit_line,
    model_time_s,
    paired_visits,
)
from latency_tables.timing import Visit

MIN_FOR_CORRECTION = 10


def compose_table(measurer: Measurer, device: Device, *, space: str, command: str, provenance: str = "measured") -> TableFile:
    """The table of a finished measurement.

    Args:
        measurer: after ``run``.
        device: what was measured.
        space: name of the work list.
        command: the command line, for the header.
        provenance: ``measured``, or ``synthetic`` under emulation.

    Raises:
        MeasurementError: too little was measured.
    """
    if EMPTY not in measurer.journal.visits:
        raise MeasurementError("the empty model was never visited; give the measurement more time")
    choices = {name: _calibrated(measurer, name) for name in ESTIMATORS}
    estimator = min(choices, key=lambda name: (choices[name][1]["mape"] is None, choices[name][1]["mape"] or 0.0))
    rows, calibration = choices[estimator]
    calibration["estimator"] = estimator
    calibration["mape_by_estimator"] = {name: fitted["mape"] for name, (_, fitted) in choices.items()}
    powers = [e for e in measurer.journal.extra if e.get("kind") == "energy" and e.get("energy_j") is not None]
    calibration["overhead_j"] = None if not powers else next((e["energy_j"] for e in powers if e["id"] == EMPTY), None)
    header = {
        "schema": SCHEMA,
        "device": {
            "name": device.name,
            "description": device.description,
            "runtime": device.runtime,
            "dtype": device.dtype,
            "threads": device.threads,
        },
        "provenance": provenance,
        "space": space,
        "calibration": calibration,
        "created_utc": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tool": {"name": "latency_tables", "version": _version()},
        "command": command,
        "host": measurer.hello.get("fingerprint", {}),
        "software": {
            "runtime": device.runtime,
            "version": measurer.hello.get("runtime_version"),
            "provider": measurer.settings.provider,
            "nchw": measurer.settings.nchw,
        },
        "protocol": _protocol(measurer, calibration),
        "power_state": {"start": measurer.hello.get("state"), "end": measurer.states[-1] if measurer.states else None},
        "power_measurement": None if not powers else {"sensor": measurer.hello.get("power"), "idle_subtracted": True},
    }
    if not powers:
        header["power_reason"] = measurer.hello.get("power_reason")
    return TableFile(header, rows, _certificate(measurer, calibration, rows))


def _version() -> str:
    try:
        return importlib.metadata.version("cosearch")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _visits(measurer: Measurer, estimator: str) -> Mapping[str, Sequence[Visit]]:
    return paired_visits(measurer.journal.visits) if estimator == "paired" else measurer.journal.visits


def _calibrated(measurer: Measurer, estimator: str) -> tuple[dict[str, Row], dict[str, Any]]:
    rows = _rows(measurer, estimator)
    empty_s = model_time_s(_visits(measurer, estimator)[EMPTY], estimator)
    fitting = _networks(measurer, measurer.plan.calibration, rows, estimator)
    found = calibrate([s for s, _, _ in fitting], [m for _, m, _ in fitting], overhead_s=empty_s)
    found["empty_s"] = empty_s
    if len(fitting) < MIN_FOR_CORRECTION:
        return rows, {**found, "ridge": None}
    keys = sorted({op.key for _, _, ops in fitting for op in ops})
    parts = np.array(
        [[found["scale"] * rows[k].latency_s * sum(op.key == k for op in ops) for k in keys] for _, _, ops in fitting]
    )
    factors, fit = correct_rows(parts, np.array([m for _, m, _ in fitting]), found["overhead_s"])
    if fit["ridge"] is not None:
        for key, factor in zip(keys, factors.tolist(), strict=True):
            row = rows[key]
            span = [factor * v for v in row.details["interval_s"]]
            details = {**row.details, "alone_s": row.latency_s, "interval_s": span}
            rows[key] = dataclasses.replace(row, latency_s=factor * row.latency_s, details=details)
        found |= fit
    return rows, {"ridge": None, **found}


def _protocol(measurer: Measurer, calibration: dict[str, Any]) -> dict[str, Any]:
    settings, visits = measurer.settings, measurer.journal.visits
    sentinels = [v.sentinel_s for many in visits.values() for v in many if v.sentinel_s]
    return {
        "estimator": f"{calibration['estimator']} over rounds of the clean median",
        "clock": "perf_counter_ns and thread_time_ns",
        "io": "inputs and outputs bound",
        "visit": settings.visit.to_dict(),
        "rounds": [min(map(len, visits.values())), max(map(len, visits.values()))],
        "visits": sum(map(len, visits.values())),
        "tolerance": settings.tolerance,
        "seed": settings.seed,
        "sentinel_s": [float(v) for v in np.quantile(sentinels, (0.05, 0.5, 0.95))] if sentinels else None,
        "elapsed_s": measurer.elapsed_s,
        "resumed": measurer.journal.resumed,
        "fixed": measurer.hello.get("settings"),
        "batch": 1,
    }


def _rows(measurer: Measurer, estimator: str) -> dict[str, Row]:
    visits, failed, rows = _visits(measurer, estimator), measurer.journal.failed, {}
    energies = {e["id"]: e.get("energy_j") for e in measurer.journal.extra if e.get("kind") == "energy"}
    for plan in measurer.plan.rows:
        op = plan.op
        details: dict[str, Any] = {"method": plan.method, "macs": op.macs, "params": op.params, "bytes": op.bytes_moved}
        reason = failed.get(plan.more) or failed.get(plan.less)
        if reason:
            rows[op.key] = Row(op.key, None, None, "unsupported", {**details, "reason": reason})
            continue
        value, low, high = difference(visits[plan.more], visits[plan.less], plan.divisor, estimator=estimator)
        shares = [v.clean_share for v in visits[plan.more] if v.clean_share is not None]
        details |= {
            "interval_s": [low, high],
            "sure": value > 0 and (high - low) / 2 <= measurer.settings.tolerance * value,
            "rounds": len(visits[plan.more]),
            "round_medians_s": [v.median_s for v in visits[plan.more]][:12],
            "clean_share": sum(shares) / len(shares) if shares else None,
            "graph": measurer.journal.graphs.get(plan.more),
        }
        if value <= 0:
            why = f"the difference of two contexts came out as {value:.3g} s: too small to be told from noise"
            rows[op.key] = Row(op.key, None, None, "failed", {**details, "reason": why})
            continue
        more, less = energies.get(plan.more), energies.get(plan.less)
        energy = None if more is None or less is None or more <= less else (more - less) / plan.divisor
        rows[op.key] = Row(op.key, value, energy, "ok", details)
    return rows


def _networks(
    measurer: Measurer, networks: Sequence[tuple[str, tuple[OpSpec, ...]]], rows: dict[str, Row], estimator: str
) -> list[tuple[float, float, tuple[OpSpec, ...]]]:
    """``(sum of rows, measured, operations)`` of each network that ran and has all its rows."""
    visits, failed = _visits(measurer, estimator), measurer.journal.failed
    usable = {key: row.latency_s for key, row in rows.items() if row.latency_s is not None}
    return [
        (sum(usable[op.key] for op in ops), model_time_s(visits[name], estimator), ops)
        for name, ops in networks
        if name not in failed and all(op.key in usable for op in ops)
    ]


def _certificate(measurer: Measurer, calibration: dict[str, Any], rows: dict[str, Row]) -> dict[str, Any] | None:
    estimator = calibration["estimator"]
    proof = _networks(measurer, measurer.plan.certificate, rows, estimator)
    if not proof:
        return None
    measured = [m for _, m, _ in proof]
    predicted = [calibration["overhead_s"] + calibration["scale"] * s for s, _, _ in proof]
    found = accuracy(predicted, measured)
    found["left_out"] = len(measurer.plan.certificate) - len(proof)
    found["uncalibrated"] = accuracy([calibration["empty_s"] + s for s, _, _ in proof], measured)
    fitting = _networks(measurer, measurer.plan.calibration, rows, estimator)
    if len(fitting) >= 3:
        intercept, slope = fit_line([sum(op.macs for op in ops) for _, _, ops in fitting], [m for _, m, _ in fitting])
        found["flops"] = accuracy([intercept + slope * sum(op.macs for op in ops) for _, _, ops in proof], measured)
    times = {name: model_time_s(v, estimator) for name, v in _visits(measurer, estimator).items() if name.startswith("single-")}
    if measurer.plan.singles and set(measurer.plan.singles.values()) <= set(times):
        sums = [single_sum_s(ops, measurer.plan.singles, times) for _, _, ops in proof]
        found["single_operations"] = accuracy(sums, measured)
    found["predicted_s"], found["measured_s"] = predicted, measured
    return found
