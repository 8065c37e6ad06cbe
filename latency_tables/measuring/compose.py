"""Turns the record of a measurement into a table: rows, overhead, calibration, certificate, and everything recorded beside.

Which estimator makes a table is decided by its calibration networks, unless it is named; those of the certificate
(``certify``) took no part in any fit.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from dataclasses import dataclass

import numpy as np

from latency_tables.board.runners import CPU
from latency_tables.errors import MeasurementError
from latency_tables.header import SCHEMA, Calibration
from latency_tables.measuring.certify import ModelTimes, constant_power_w, make_certificate, row_sum_s, usable
from latency_tables.measuring.plan import EMPTY, MeasurePlan
from latency_tables.measuring.settings import Settings
from latency_tables.measuring.statistics import ESTIMATORS, Fit, calibrate, correct_rows, difference, is_clean_visit
from latency_tables.measuring.visits import MeasuredVisits
from latency_tables.opspec import Device
from latency_tables.schema import Row, TableFile

MIN_FOR_CORRECTION = 10
PLAIN_IO, BOUND_IO = "arrays in and out, as a program calls it", "inputs and outputs bound"
MAX_MEDIANS = 12


@dataclass(frozen=True)
class FittedRows:
    """The rows that one estimator gives, and the fit that calibrates them."""

    times: ModelTimes
    rows: dict[str, Row]
    fit: Fit


def compose_table(
    plan: MeasurePlan,
    seen: MeasuredVisits,
    settings: Settings,
    device: Device,
    *,
    space: str,
    command: str,
    provenance: str = "measured",
    estimator: str | None = None,
) -> TableFile:
    """The table of a finished measurement.

    Args:
        plan: what was measured.
        seen: what the measurement saw.
        settings: how it was measured.
        device: where.
        space: name of the work list.
        command: the command line, for the header.
        provenance: ``measured``, or ``synthetic`` under emulation.
        estimator: a name of ``statistics.ESTIMATORS``; by default the one that fits the calibration networks best.

    Raises:
        MeasurementError: too little was measured.
    """
    if EMPTY not in seen.visits:
        raise MeasurementError("the empty model was never visited; give the measurement more time")
    choices = [_fitted(plan, seen, settings, name) for name in (ESTIMATORS if estimator is None else (estimator,))]
    best = min(choices, key=lambda choice: (choice.fit.mape is None, choice.fit.mape or 0.0))
    calibration = Calibration(
        best.fit.overhead_s,
        best.fit.scale,
        overhead_j=seen.energies_j.get(EMPTY),
        power_w=constant_power_w(seen.energies_j, best.times, plan.calibration),
        interval_factors=best.fit.interval_factors,
    )
    header: dict[str, object] = {
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
        "calibration": {
            **best.fit.to_dict(),
            "empty_s": best.times.model_s(EMPTY),
            "estimator": best.times.estimator,
            "mape_by_estimator": {choice.times.estimator: choice.fit.mape for choice in choices},
            "overhead_j": calibration.overhead_j,
            "power_w": calibration.power_w,
        },
        "created_utc": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tool": {"name": "latency_tables", "version": _version()},
        "command": command,
        "host": seen.hello.fingerprint,
        "software": {
            "runtime": device.runtime,
            "version": seen.hello.runtime_version,
            "provider": settings.provider,
            "nchw": settings.nchw,
            **({"tuned": False} if device.runtime == "tvm" else {}),  # no schedules are searched for
        },
        "protocol": {
            **_protocol(plan, seen, settings, best.times.estimator),
            "io": PLAIN_IO if device.runtime == "onnxruntime" and settings.provider == CPU else BOUND_IO,
        },
        "power_state": {"start": seen.hello.state, "end": seen.end_state},
        "power_measurement": {"sensor": seen.hello.power, "idle_subtracted": True} if seen.energies_j else None,
    }
    if not seen.energies_j:
        header["power_reason"] = seen.hello.power_reason
    return TableFile(header, best.rows, make_certificate(plan, seen, best.times, calibration, best.rows))


def _version() -> str:
    try:
        return importlib.metadata.version("cosearch")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _fitted(plan: MeasurePlan, seen: MeasuredVisits, settings: Settings, estimator: str) -> FittedRows:
    times = ModelTimes.of(seen, estimator)
    rows = _rows(plan, seen, times, settings.tolerance)
    fitting = usable(plan.calibration, seen.failed, rows)
    measured_s = times.networks_s(fitting)
    fit = calibrate([row_sum_s(ops, rows) for _, ops in fitting], measured_s, overhead_s=times.model_s(EMPTY))
    if len(fitting) < MIN_FOR_CORRECTION:
        return FittedRows(times, rows, fit)
    alone_s = {op.key: rows[op.key].latency_s or 0.0 for _, ops in fitting for op in ops}
    keys = sorted(alone_s)
    parts_s = np.array([[fit.scale * alone_s[key] * sum(op.key == key for op in ops) for key in keys] for _, ops in fitting])
    correction = correct_rows(parts_s, np.array(measured_s), fit.overhead_s)
    if correction.ridge is None:
        return FittedRows(times, rows, fit)
    for key, factor in zip(keys, correction.factors.tolist(), strict=True):
        span = [factor * bound for bound in rows[key].interval_s or ()]
        details = {**rows[key].details, "alone_s": alone_s[key], "interval_s": span}
        rows[key] = dataclasses.replace(rows[key], latency_s=factor * alone_s[key], details=details)
    fit = dataclasses.replace(fit, mape=correction.mape, interval_factors=correction.interval_factors, ridge=correction.ridge)
    return FittedRows(times, rows, fit)


def _protocol(plan: MeasurePlan, seen: MeasuredVisits, settings: Settings, estimator: str) -> dict[str, object]:
    sentinels = [v.sentinel_s for many in seen.visits.values() for v in many if v.sentinel_s]
    counts = [len(many) for many in seen.visits.values()]
    return {
        "estimator": f"{estimator} over rounds of the clean median",
        "clock": "perf_counter_ns and thread_time_ns",
        "visit": settings.visit.to_dict(),
        "rounds": [min(counts), max(counts)],
        "visits": sum(counts),
        "tolerance": settings.tolerance,
        "seed": settings.seed,
        "sentinel_s": [float(v) for v in np.quantile(sentinels, (0.05, 0.5, 0.95))] if sentinels else None,
        "elapsed_s": seen.elapsed_s,
        "resumed": seen.resumed,
        "fixed": seen.hello.fixed,
        "batch": plan.rows[0].op.batch,
        "network_factor": settings.network_factor,
    }


def _rows(plan: MeasurePlan, seen: MeasuredVisits, times: ModelTimes, tolerance: float) -> dict[str, Row]:
    rows = {}
    for planned in plan.rows:
        op = planned.op
        details: dict[str, object] = {"method": planned.method, "macs": op.macs, "params": op.params, "bytes": op.bytes_moved}
        reason = seen.failed.get(planned.more) or seen.failed.get(planned.less)
        if reason:
            rows[op.key] = Row(op.key, None, None, "unsupported", {**details, "reason": reason})
            continue
        more, less = times.visits[planned.more], times.visits[planned.less]
        value_s, low_s, high_s = difference(more, less, planned.divisor, estimator=times.estimator)
        shares = [visit.clean_share for visit in more if visit.clean_share is not None]
        details |= {
            "interval_s": [low_s, high_s],
            "sure": value_s > 0 and (high_s - low_s) / 2 <= tolerance * value_s,
            "rounds": len(more),
            "round_medians_s": [visit.median_s for visit in more][:MAX_MEDIANS],
            "clean_share": sum(shares) / len(shares) if shares else None,
            "graph": seen.graphs.get(planned.more),
        }
        preempted = [name for name in (planned.more, planned.less) if name and not any(map(is_clean_visit, times.visits[name]))]
        if preempted:
            details["fallback"] = f"no visit of {' and '.join(preempted)} was clean: its smallest sample stands for it"
        if value_s <= 0:
            why = f"the difference of two contexts came out as {value_s:.3g} s: too small to be told from noise"
            rows[op.key] = Row(op.key, None, None, "failed", {**details, "reason": why})
            continue
        more_j, less_j = seen.energies_j.get(planned.more), seen.energies_j.get(planned.less)
        energy_j = None if more_j is None or less_j is None or more_j <= less_j else (more_j - less_j) / planned.divisor
        rows[op.key] = Row(op.key, value_s, energy_j, "ok", details)
    return rows
