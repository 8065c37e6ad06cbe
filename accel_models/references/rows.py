"""One compared row, and the statistics over all of them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from latency_tables.errors import DesignError
from latency_tables.text.reading import CsvRow, read_csv, shown
from latency_tables.text.writing import make_folder, write_bytes_atomic

MAX_NUMBER, MAX_WHOLE = 1e30, 10**9


@dataclass(frozen=True)
class ComparedRow:
    """What the equations give and what the reference says for one row; None where the reference has no such quantity.

    Attributes:
        name: row in words.
        exact: whether all counted quantities are equal.
        cycles, reference_cycles: latency in cycles.
        energy, reference_energy: in the unit of the reference.
        details: further quantities for the CSV, ``name -> (ours, reference)``.
    """

    name: str
    exact: bool
    cycles: float
    reference_cycles: float
    energy: float | None = None
    reference_energy: float | None = None
    details: Mapping[str, tuple[float, float]] | None = None

    @property
    def cycles_error(self) -> float:
        """Relative error of the cycles, absolute value."""
        return abs(self.cycles / self.reference_cycles - 1.0)

    @property
    def energy_error(self) -> float | None:
        """Relative error of the energy, absolute value."""
        if self.energy is None or self.reference_energy is None:
            return None
        return abs(self.energy / self.reference_energy - 1.0)

    @property
    def error(self) -> float:
        """The larger of the two errors."""
        return max(self.cycles_error, self.energy_error or 0.0)


def read_rows(path: str | Path, needed: Iterable[str]) -> list[CsvRow]:
    """Rows of a reference CSV.

    Raises:
        DesignError: the file is missing, empty, or lacks columns of that reference.
    """
    file = Path(path)
    if not file.is_file():
        raise DesignError(f"no reference file {str(path)!r}: expected a CSV in the format of the reference")
    return read_csv(file, "rows of a reference", needed, DesignError)


def number(row: Mapping[str, str], name: str, where: str, *, low: float = 0.0) -> float:
    """A finite number of a row, from ``low`` (above 0 where ``low`` is above it) to ``MAX_NUMBER``.

    Raises:
        DesignError: it is something else.
    """
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not low <= value <= MAX_NUMBER:
        raise DesignError(f"{where}: {name} must be a number from {low:g} to {MAX_NUMBER:g}, got {shown(row[name])}")
    return value


def whole(row: Mapping[str, str], name: str, where: str) -> int:
    """An integer of a row, from 1 to ``MAX_WHOLE``.

    Raises:
        DesignError: it is something else.
    """
    text = row[name]
    if not re.fullmatch("[0-9]{1,12}", text) or not 1 <= int(text) <= MAX_WHOLE:
        raise DesignError(f"{where}: {name} must be an integer from 1 to {MAX_WHOLE}, got {shown(text)}")
    return int(text)


@dataclass(frozen=True)
class Statistics:
    """How far the equations are from a reference; errors are fractions, None where the reference lacks the quantity.

    Attributes:
        rows: how many were compared.
        exact_share: share of rows whose counted quantities are all equal.
        cycles_mape, cycles_p95: mean and 95 % quantile of the absolute relative errors of the cycles.
        energy_mape, energy_p95: the same of the energies.
        latency_spearman: rank correlation of the cycles; None where all are equal.
        latency_median_error: median absolute relative error of the cycles.
        worst_row, worst_row_name: largest error of a row, and which row.
    """

    rows: int
    exact_share: float
    cycles_mape: float
    cycles_p95: float
    energy_mape: float | None
    energy_p95: float | None
    latency_spearman: float | None
    latency_median_error: float
    worst_row: float
    worst_row_name: str


def statistics(rows: list[ComparedRow]) -> Statistics:
    """Statistics over all rows."""
    cycles = np.array([row.cycles_error for row in rows])
    energy = [row.energy_error for row in rows if row.energy_error is not None]
    worst = max(rows, key=lambda row: row.error)
    ours, theirs = [row.cycles for row in rows], [row.reference_cycles for row in rows]
    ranked = len(set(ours)) > 1 and len(set(theirs)) > 1
    return Statistics(
        rows=len(rows),
        exact_share=sum(row.exact for row in rows) / len(rows),
        cycles_mape=float(cycles.mean()),
        cycles_p95=float(np.quantile(cycles, 0.95)),
        energy_mape=float(np.mean(energy)) if energy else None,
        energy_p95=float(np.quantile(energy, 0.95)) if energy else None,
        latency_spearman=float(spearmanr(ours, theirs).statistic) if ranked else None,
        latency_median_error=float(np.median(cycles)),
        worst_row=worst.error,
        worst_row_name=worst.name,
    )


def write_rows(rows: list[ComparedRow], path: str | Path) -> None:
    """One line for each row: both values and the errors."""
    extra = sorted({key for row in rows for key in (row.details or {})})
    header = ["row", "exact", "cycles", "reference_cycles", "cycles_error", "energy", "reference_energy", "energy_error"]
    header += [f"{side}{key}" for key in extra for side in ("", "reference_")]
    with io.StringIO(newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            values = [
                row.name,
                int(row.exact),
                row.cycles,
                row.reference_cycles,
                row.cycles_error,
                row.energy,
                row.reference_energy,
                row.energy_error,
            ]
            for key in extra:
                values += list((row.details or {}).get(key, (None, None)))
            writer.writerow(["" if value is None else value for value in values])
        make_folder(Path(path).parent)
        write_bytes_atomic(Path(path), stream.getvalue().encode())
