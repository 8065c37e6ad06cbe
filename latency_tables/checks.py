"""Plausibility of a table beyond its format: the faults that published tables really had.

A finding does not make a table unusable; it says where to look. Each names the rows and what was expected.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from latency_tables.opspec import OpSpec
from latency_tables.table import Table

NEAR_ZERO_SHARE = 0.05
MONOTONE_SLACK = 0.10
POWER_W = (0.05, 1000.0)
UNSURE_SHARE = 0.25
GOOD_TAU = 0.9
GOOD_MAPE = 0.10
SAME_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Attributes:
        rule: short name of the rule.
        text: what was expected and what the table has.
        keys: rows concerned.
    """

    rule: str
    text: str
    keys: tuple[str, ...] = ()


def check_table(table: Table, *, others: Iterable[Table] = (), ops: Sequence[OpSpec] = ()) -> list[Finding]:
    """All findings on a table.

    Args:
        table: the table.
        others: tables of other devices, to find copied rows.
        ops: operations that it should cover.
    """
    rules = (_near_zero, _monotone, _power, _unsure, _preempted, _certificate, _batch)
    findings = [finding for rule in rules for finding in rule(table)]
    for other in others:
        findings += _copied(table, other)
    missing = [op.key for op in ops if table.coverage([op]) == 0]
    if missing:
        findings.append(Finding("coverage", f"{len(missing)} of {len(ops)} operations have no row", tuple(missing)))
    refused = [row.key for row in table.rows.values() if row.status != "ok"]
    if refused:
        findings.append(Finding("status", f"{len(refused)} rows could not be measured", tuple(refused)))
    return findings


def _latencies(table: Table) -> dict[str, float]:
    return {key: row.latency_s for key, row in table.rows.items() if row.latency_s is not None}


def _near_zero(table: Table) -> list[Finding]:
    values = _latencies(table)
    median = float(np.median(list(values.values())))
    low = [key for key, value in values.items() if value < NEAR_ZERO_SHARE * median]
    text = f"rows below {NEAR_ZERO_SHARE:.0%} of the median row ({median * 1e6:.1f} us): real, or a graph that folded away?"
    return [Finding("near-zero", text, tuple(low))] if low else []


def _monotone(table: Table) -> list[Finding]:
    values = _latencies(table)
    groups: dict[tuple[object, ...], list[tuple[int, float, str]]] = {}
    for key, value in values.items():
        op = OpSpec.from_key(key)
        for name in ("out_channels", "expansion", "kernel", "hidden"):
            if name == "out_channels" and op.in_channels == op.out_channels:
                continue
            rest = dataclasses.asdict(op)
            rest.pop(name)
            if name == "kernel":
                rest.pop("padding")
            groups.setdefault((name, *rest.items()), []).append((getattr(op, name), value, key))
    broken = set()
    for members in groups.values():
        members.sort()
        for (size, value, key), (more, larger, other) in itertools.pairwise(members):
            if more > size and larger < (1 - MONOTONE_SLACK) * value:
                broken.add(f"{other} < {key}")
    text = f"operations with more work are more than {MONOTONE_SLACK:.0%} faster"
    return [Finding("monotone", text, tuple(sorted(broken)))] if broken else []


def _power(table: Table) -> list[Finding]:
    odd = [
        row.key
        for row in table.rows.values()
        if row.energy_j is not None and row.latency_s and not POWER_W[0] <= row.energy_j / row.latency_s <= POWER_W[1]
    ]
    return [Finding("power", f"implied power outside {POWER_W[0]:g} to {POWER_W[1]:g} W", tuple(odd))] if odd else []


def _unsure(table: Table) -> list[Finding]:
    unsure = [row.key for row in table.rows.values() if row.details.get("sure") is False]
    share = len(unsure) / len(table.rows)
    text = (
        f"{len(unsure)} of {len(table.rows)} rows have an interval wider than asked ({share:.0%}); measure longer with --budget"
    )
    return [Finding("unsure", text, tuple(unsure))] if share > UNSURE_SHARE else []


def _preempted(table: Table) -> list[Finding]:
    keys = [row.key for row in table.rows.values() if row.details.get("fallback")]
    text = f"{len(keys)} rows are of smallest samples, as more than half of every visit was preempted; measure on an idle machine"
    return [Finding("preempted", text, tuple(keys))] if keys else []


def _certificate(table: Table) -> list[Finding]:
    proof = table.certificate
    if proof is None:
        return (
            [Finding("certificate", "no whole networks were measured: nobody knows how well sums of rows predict")]
            if table.provenance in ("measured", "imported", "synthetic")
            else []
        )
    findings, mape, tau = [], proof.accuracy.mape, proof.accuracy.kendall_tau
    if mape > GOOD_MAPE:
        findings.append(Finding("certificate", f"mean error {mape:.1%} on whole networks, expected at most {GOOD_MAPE:.0%}"))
    if tau is not None and tau < GOOD_TAU:
        findings.append(Finding("certificate", f"Kendall's tau {tau:.3f}, expected at least {GOOD_TAU}"))
    return findings


def _batch(table: Table) -> list[Finding]:
    batches = {key: OpSpec.from_key(key).batch for key in table.rows}
    several = " and ".join(map(str, sorted(set(batches.values()))))
    other = tuple(key for key, batch in batches.items() if batch != table.batch)
    text = f"rows of batch {several}, but overhead and scale are of one: measure the others into a table of their own"
    return [Finding("batch", text, other)] if len(set(batches.values())) > 1 else []


def _copied(table: Table, other: Table) -> list[Finding]:
    if table.table_id == other.table_id or table.device.name == other.device.name:
        return []
    mine, theirs = _latencies(table), _latencies(other)
    shared = [key for key in mine if key in theirs]
    same = [key for key in shared if mine[key] == theirs[key]]
    if len(shared) >= 5 and len(same) > SAME_SHARE * len(shared):
        return [
            Finding(
                "copied", f"{len(same)} of {len(shared)} rows equal those of {other.device.name} digit for digit", tuple(same)
            )
        ]
    return []
