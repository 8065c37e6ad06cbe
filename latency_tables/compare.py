"""Compares two tables: two devices, two runtimes or two dates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from latency_tables.errors import TableError
from latency_tables.table import Table


@dataclass(frozen=True)
class Comparison:
    """How a second table differs from a first, over the rows that both have.

    Attributes:
        rows: ``(key, first_s, second_s, second / first)``, largest change first.
        only_first, only_second: keys that the other lacks.
        ratio_median, ratio_low, ratio_high: median and quartiles of second / first.
        spearman, kendall_tau: rank agreement, None below 3 shared rows or where one side is constant.
        changed: header fields that differ, as ``name: (first, second)``.
    """

    rows: tuple[tuple[str, float, float, float], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    ratio_median: float
    ratio_low: float
    ratio_high: float
    spearman: float | None
    kendall_tau: float | None
    changed: dict[str, tuple[object, object]]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object."""
        return asdict(self)


def compare_tables(first: Table, second: Table) -> Comparison:
    """Compare two tables, calibrated rows with calibrated rows.

    Raises:
        TableError: they share no row.
    """
    mine = {k: first.scale * r.latency_s for k, r in first.rows.items() if r.latency_s is not None}
    theirs = {k: second.scale * r.latency_s for k, r in second.rows.items() if r.latency_s is not None}
    shared = sorted(set(mine) & set(theirs))
    if not shared:
        raise TableError(
            f"the tables of {first.device.name} and {second.device.name} share no row; "
            "they must hold operations of the same space, dtype and batch"
        )
    a, b = np.array([mine[k] for k in shared]), np.array([theirs[k] for k in shared])
    ratios = b / a
    low, median, high = (float(v) for v in np.quantile(ratios, (0.25, 0.5, 0.75)))
    ranked = len(shared) >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0
    rows = sorted(((k, mine[k], theirs[k], theirs[k] / mine[k]) for k in shared), key=lambda row: -abs(math.log(row[3])))
    return Comparison(
        tuple(rows),
        tuple(sorted(set(mine) - set(theirs))),
        tuple(sorted(set(theirs) - set(mine))),
        median,
        low,
        high,
        float(stats.spearmanr(a, b).statistic) if ranked else None,
        float(stats.kendalltau(a, b).statistic) if ranked else None,
        _changed(first.header, second.header),
    )


def _changed(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    changed: dict[str, tuple[object, object]] = {}
    for group in ("device", "software", "host", "provenance", "created_utc"):
        one, two = first.get(group), second.get(group)
        if isinstance(one, dict) or isinstance(two, dict):
            before, after = (value if isinstance(value, dict) else {} for value in (one, two))
            for name in sorted({*before, *after}):
                if before.get(name) != after.get(name):
                    changed[f"{group}.{name}"] = (before.get(name), after.get(name))
        elif one != two:
            changed[group] = (one, two)
    return changed
