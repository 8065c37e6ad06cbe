"""The certificate of a measured table: whole networks, timed end to end, that took no part in any fit.

Beside the table's own figures stand, for the same networks: a second measurement of them (what a perfect predictor would
reach), single-operation sums, FLOPs, a uniform draw of networks instead of one over the space's whole range, energy beside
constant power times time, and calls at a control period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency_tables.board.timing import Visit
from latency_tables.header import Calibration
from latency_tables.measuring.plan import EMPTY, MeasurePlan, single_sum_s
from latency_tables.measuring.statistics import accuracy, fit_line, model_time_s, paired_visits
from latency_tables.measuring.visits import MeasuredVisits
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row

Networks = Sequence[tuple[str, Sequence[OpSpec]]]


@dataclass(frozen=True)
class ModelTimes:
    """Seconds of each model by one estimator.

    Attributes:
        visits: by model id; rescaled by the sentinel where the estimator asks for it.
        estimator: name in ``statistics.ESTIMATORS``.
    """

    visits: Mapping[str, Sequence[Visit]]
    estimator: str

    @classmethod
    def of(cls, seen: MeasuredVisits, estimator: str) -> ModelTimes:
        """The times of a measurement."""
        return cls(paired_visits(seen.visits) if estimator == "paired" else seen.visits, estimator)

    def model_s(self, name: str) -> float:
        """Seconds of one model."""
        return model_time_s(self.visits[name], self.estimator)

    def networks_s(self, networks: Networks) -> list[float]:
        """Seconds of whole networks."""
        return [self.model_s(name) for name, _ in networks]


def usable(networks: Networks, failed: Mapping[str, str], rows: Mapping[str, Row]) -> list[tuple[str, Sequence[OpSpec]]]:
    """The networks that ran and have all their rows."""
    good = {key for key, row in rows.items() if row.latency_s is not None}
    return [(name, ops) for name, ops in networks if name not in failed and all(op.key in good for op in ops)]


def row_sum_s(ops: Sequence[OpSpec], rows: Mapping[str, Row]) -> float:
    """Seconds of a network's rows, before calibration; every row must be usable."""
    return float(sum(rows[op.key].latency_s or 0.0 for op in ops))


def constant_power_w(energies_j: Mapping[str, float], times: ModelTimes, networks: Networks) -> float | None:
    """One power for all networks, watts: the median of energy (joules) over time; None without energy."""
    powers = [energies_j[name] / times.model_s(name) for name, _ in networks if name in energies_j]
    return float(np.median(powers)) if powers else None


def make_certificate(
    plan: MeasurePlan, seen: MeasuredVisits, times: ModelTimes, calibration: Calibration, rows: Mapping[str, Row]
) -> dict[str, object] | None:
    """All figures of the certificate, or None where no network could be measured.

    Args:
        plan: what was measured.
        seen: what the measurement saw.
        times: seconds of each model.
        calibration: of the table.
        rows: the table's rows.
    """
    proof = usable(plan.certificate, seen.failed, rows)
    if not proof:
        return None
    measured_s = times.networks_s(proof)
    uncalibrated_s = [times.model_s(EMPTY) + row_sum_s(ops, rows) for _, ops in proof]
    certificate = _figures(plan, seen, times, proof, calibration, rows) | {
        "left_out": len(plan.certificate) - len(proof),
        "uncalibrated": accuracy(uncalibrated_s, measured_s).to_dict(),
        "energy": _energy(seen, proof, calibration, rows),
        "predicted_s": [_predicted_s(ops, calibration, rows) for _, ops in proof],
        "measured_s": measured_s,
    }
    control = usable(plan.uniform, seen.failed, rows)
    if control:
        certificate["uniform"] = _figures(plan, seen, times, control, calibration, rows)
    paced = _paced(plan, seen, times, proof)
    if paced:
        certificate["paced"] = paced
    return certificate


def _figures(
    plan: MeasurePlan,
    seen: MeasuredVisits,
    times: ModelTimes,
    proof: Networks,
    calibration: Calibration,
    rows: Mapping[str, Row],
) -> dict[str, object]:
    visits, measured_s = times.visits, times.networks_s(proof)
    figures = accuracy([_predicted_s(ops, calibration, rows) for _, ops in proof], measured_s).to_dict()
    first_s, second_s = (
        [model_time_s(visits[name][start::2], times.estimator) for name, _ in proof if len(visits[name]) > 1] for start in (0, 1)
    )
    if len(first_s) == len(proof):
        figures["repeat"] = accuracy(first_s, second_s).short()
    fitting = usable(plan.calibration, seen.failed, rows)
    if len(fitting) >= 3:
        line = fit_line([_macs(ops) for _, ops in fitting], times.networks_s(fitting))
        figures["flops"] = accuracy([line[0] + line[1] * _macs(ops) for _, ops in proof], measured_s).to_dict()
    singles_s = {name: times.model_s(name) for name in visits if name.startswith("single-")}
    if plan.singles and set(plan.singles.values()) <= set(singles_s):
        sums_s = [single_sum_s(ops, plan.singles, singles_s) for _, ops in proof]
        figures["single_operations"] = accuracy(sums_s, measured_s).to_dict()
    return figures


def _macs(ops: Sequence[OpSpec]) -> int:
    return sum(op.macs for op in ops)


def _predicted_s(ops: Sequence[OpSpec], calibration: Calibration, rows: Mapping[str, Row]) -> float:
    return calibration.overhead_s + calibration.scale * row_sum_s(ops, rows)


def _energy(seen: MeasuredVisits, proof: Networks, calibration: Calibration, rows: Mapping[str, Row]) -> dict[str, object] | None:
    """Energy from rows beside constant power times predicted time; None where any part of it is unknown."""
    power_w, overhead_j = calibration.power_w, calibration.overhead_j
    known = [
        (name, ops) for name, ops in proof if name in seen.energies_j and all(rows[op.key].energy_j is not None for op in ops)
    ]
    if not known or power_w is None or overhead_j is None:
        return None
    measured_j = [seen.energies_j[name] for name, _ in known]
    sums_j = [overhead_j + calibration.scale * sum(rows[op.key].energy_j or 0.0 for op in ops) for _, ops in known]
    trivial_j = [power_w * _predicted_s(ops, calibration, rows) for _, ops in known]
    return {
        "rows": accuracy(sums_j, measured_j).to_dict(),
        "power_times_time": accuracy(trivial_j, measured_j).to_dict(),
        "power_w": power_w,
        "measured_j": measured_j,
    }


def _paced(plan: MeasurePlan, seen: MeasuredVisits, times: ModelTimes, proof: Networks) -> dict[str, object] | None:
    """Calls at a control period beside back-to-back ones, and how well one factor between the two does."""
    kept, fitting = ([(name, ops) for name, ops in group if name in seen.paced] for group in (proof, plan.calibration))
    if not kept:
        return None
    measured_s = times.networks_s(kept)
    calls = [seen.paced[name] for name, _ in kept]
    p50_s, p99_s = [call.p50_s for call in calls], [call.p99_s for call in calls]
    figures: dict[str, object] = {
        "period_s": calls[0].period_s,
        "networks": len(kept),
        "calls": sum(call.samples for call in calls),
        "missed": sum(call.missed for call in calls),
        "p50_over_back_to_back": float(np.median(np.array(p50_s) / measured_s)),
        "p99_over_back_to_back": float(np.median(np.array(p99_s) / measured_s)),
        "p50_s": p50_s,
        "p99_s": p99_s,
    }
    if len(fitting) >= 3:
        pairs = zip(fitting, times.networks_s(fitting), strict=True)
        factor = float(np.median([seen.paced[name].p50_s / time_s for (name, _), time_s in pairs]))
        figures["one_factor"] = {"factor": factor, **accuracy([factor * time_s for time_s in measured_s], p50_s).short()}
    return figures
