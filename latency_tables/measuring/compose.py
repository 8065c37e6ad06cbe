"""Turns a finished measurement into a table: rows, overhead, calibration, certificate, and everything recorded beside.

Which estimator makes a table is decided by its calibration networks; those of the certificate (``certify``) took no
part in any fit.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from typing import Any

import numpy as np

from latency_tables.errors import MeasurementError
from latency_tables.measuring.certify import (
    constant_power_w,
    energies_j,
    make_certificate,
    overhead_j,
    row_sum_s,
    usable,
    visits_of,
)
from latency_tables.measuring.loop import Measurer
from latency_tables.measuring.plan import EMPTY
from latency_tables.measuring.statistics import ESTIMATORS, calibrate, correct_rows, difference, model_time_s
from latency_tables.opspec import Device
from latency_tables.schema import SCHEMA, Row, TableFile

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
    powers = energies_j(measurer)
    calibration["overhead_j"] = overhead_j(measurer)
    calibration["power_w"] = constant_power_w(measurer, measurer.plan.calibration, estimator)
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
    return TableFile(header, rows, make_certificate(measurer, calibration, rows))


def _version() -> str:
    try:
        return importlib.metadata.version("cosearch")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _calibrated(measurer: Measurer, estimator: str) -> tuple[dict[str, Row], dict[str, Any]]:
    rows = _rows(measurer, estimator)
    visits = visits_of(measurer, estimator)
    empty_s = model_time_s(visits[EMPTY], estimator)
    fitting = usable(measurer, measurer.plan.calibration, rows)
    measured = [model_time_s(visits[name], estimator) for name, _ in fitting]
    found = calibrate([row_sum_s(ops, rows) for _, ops in fitting], measured, overhead_s=empty_s)
    found["empty_s"] = empty_s
    if len(fitting) < MIN_FOR_CORRECTION:
        return rows, {**found, "ridge": None}
    keys = sorted({op.key for _, ops in fitting for op in ops})
    parts = np.array([[found["scale"] * rows[k].latency_s * sum(op.key == k for op in ops) for k in keys] for _, ops in fitting])
    factors, fit = correct_rows(parts, np.array(measured), found["overhead_s"])
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
        "batch": measurer.plan.rows[0].op.batch,
        "network_factor": settings.network_factor,
    }


def _rows(measurer: Measurer, estimator: str) -> dict[str, Row]:
    visits, failed, rows, energies = visits_of(measurer, estimator), measurer.journal.failed, {}, energies_j(measurer)
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
