"""``Table``: what an operation, and a network of operations, costs on one device.

A prediction is ``overhead_s + scale * sum(rows)``: rows of fused blocks measured in the context of a chain, an explicit
fixed cost of one inference, and one factor fitted on whole networks that are not in the certificate. An operation
without a row raises; nothing is ever replaced by zero or guessed. Differentiable use is in ``cosearch.cost``.
A network is described in float32 and for one frame, as it is trained; a table prices its blocks in the table's own dtype and
batch (:meth:`Table.cast`). A block that names another dtype or batch than these is never exchanged for one of them.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latency_tables.certificate import read_certificate
from latency_tables.errors import MissingOpError, TableError
from latency_tables.estimating.roofline import Roofline
from latency_tables.header import measured_batch, read_calibration, read_device
from latency_tables.opspec import OpSpec
from latency_tables.schema import TableFile, read_table
from latency_tables.text.fields import text_of

TRAINED_DTYPE = "float32"  # of every network until it is exported
MEASURED_BY_DEFAULT = {"runtime": "onnxruntime", "dtype": "float32", "threads": 1, "batch": 1}


@dataclass(frozen=True)
class Prediction:
    """What a network is expected to cost.

    Attributes:
        latency_s: seconds for one inference, back to back, median.
        energy_j: joules for one inference (``header["power_measurement"]`` says what was counted), or None where unknown.
        operations: one ``(key, latency_s, energy_j)`` an operation, calibrated; with ``overhead_s`` they sum to ``latency_s``.
        overhead_s: the fixed part of ``latency_s``.
        provenance: of the table: a name of ``header.PROVENANCES``.
        interval: ``(low_s, high_s)``, seconds: the extremes of the networks that were left out of a measured table's fit; of an
            estimate those of left-out blocks, or what its specification assumes. None where nothing is known.
        power_times_time_j: one constant power times ``latency_s``, joules: what ``energy_j`` must beat; None where unknown.
    """

    latency_s: float
    energy_j: float | None
    operations: tuple[tuple[str, float, float | None], ...]
    overhead_s: float
    provenance: str
    interval: tuple[float, float] | None
    power_times_time_j: float | None = None


class Table:
    """A checked table of one device. Immutable; build it with :func:`load_table`.

    Attributes:
        header: the header line as written.
        device: what the table was made for.
        calibration: how rows become a network.
        certificate: whole networks that were measured and never used for fitting, or None.
        rows: the rows by key.
        path: where it was read from, or None.

    Raises:
        TableError: device, calibration, model or certificate are not valid.
    """

    def __init__(self, content: TableFile, *, path: Path | None = None) -> None:
        where = "table" if path is None else str(path)
        self.header = content.header
        self.device = read_device(content.header.get("device"), where)
        self.calibration = read_calibration(content.header.get("calibration"), where)
        self.rows = content.rows
        self.certificate = None if content.certificate is None else read_certificate(content.certificate, where)
        self.path = path
        self._roofline = Roofline.from_dict(content.header["model"]) if content.header.get("model") else None

    @property
    def provenance(self) -> str:
        """One of ``header.PROVENANCES``: ``measured``, ``derived``, ``imported``, ``estimated`` or ``synthetic``."""
        return text_of(self.header, "provenance", "header")

    @property
    def table_id(self) -> str:
        """SHA-256 of the content."""
        return text_of(self.header, "table_id", "header")

    @property
    def batch(self) -> int:
        """Frames in one inference, 1 unless the table was measured for more."""
        return measured_batch(self.header) or 1

    @property
    def overhead_s(self) -> float:
        """Fixed seconds of one inference."""
        return self.calibration.overhead_s

    @property
    def scale(self) -> float:
        """Factor between the sum of rows and a whole network."""
        return self.calibration.scale

    @property
    def overhead_j(self) -> float | None:
        """Fixed joules of one inference, or None where energy is unknown."""
        return self.calibration.overhead_j

    @property
    def power_w(self) -> float | None:
        """The constant power of the trivial energy model, watts: of the calibration networks, or an estimate's; or None."""
        return self.calibration.power_w if self._roofline is None else self._roofline.power_w

    def latency_s(self, op: OpSpec) -> float:
        """Seconds of one operation, before ``scale``.

        Raises:
            MissingOpError: no row, and the table is not an estimate that can compute it.
        """
        (op,) = self.cast([op])
        row = self.rows.get(op.key)
        if row is not None and row.latency_s is not None:
            return row.latency_s
        if self._roofline is not None and op.dtype == self.device.dtype:
            return self._roofline.latency_s(op)
        raise MissingOpError(self._missing(op))

    def energy_j(self, op: OpSpec) -> float | None:
        """Joules of one operation, before ``scale``; None where nobody measured them.

        Raises:
            MissingOpError: no row, and the table is not an estimate that can compute it.
        """
        (op,) = self.cast([op])
        latency = self.latency_s(op)
        row = self.rows.get(op.key)
        if row is not None:
            return row.energy_j
        return None if self._roofline is None or self._roofline.power_w is None else self._roofline.power_w * latency

    def latency_rows_s(self, ops: Sequence[OpSpec]) -> list[float]:
        """Calibrated seconds of each operation: with ``overhead_s`` their sum is the network's latency.

        Raises:
            MissingOpError: naming every operation without a row.
        """
        ops = self.cast(ops)
        self.require(ops)
        return [self.scale * self.latency_s(op) for op in ops]

    def predict(self, ops: Sequence[OpSpec]) -> Prediction:
        """What a network, the list of its fused blocks, costs in the table's dtype and batch.

        Raises:
            MissingOpError: an operation has no row.
            TableError: the list is empty, or its operations are of several batches or of another one than the table's.
        """
        if not ops:
            raise TableError("a network needs at least one operation, got an empty list")
        ops = self.cast(ops)
        batches, own = sorted({op.batch for op in ops}), measured_batch(self.header)
        if batches != [own or batches[0]]:
            wanted = "one batch" if own is None else f"batch {own}, as its calibration is"
            got = " and ".join(map(str, batches))
            raise TableError(f"the operations that a table predicts together must be of {wanted}, got {got}")
        rows = self.latency_rows_s(ops)
        energies = [self.energy_j(op) for op in ops]
        known = [self.scale * energy for energy in energies if energy is not None]
        total_j = None if self.overhead_j is None or len(known) < len(ops) else self.overhead_j + sum(known)
        latency = self.overhead_s + sum(rows)
        factors = self.calibration.interval_factors
        return Prediction(
            latency_s=latency,
            energy_j=total_j,
            operations=tuple(zip((op.key for op in ops), rows, [None] * len(ops) if total_j is None else known)),
            overhead_s=self.overhead_s,
            provenance=self.provenance,
            interval=None if factors is None else (factors[0] * latency, factors[1] * latency),
            power_times_time_j=None if self.power_w is None else self.power_w * latency,
        )

    def cast(self, ops: Sequence[OpSpec]) -> list[OpSpec]:
        """The operations of a trained network (float32, one frame) as this table has them: in its dtype and batch.

        Operations that name another dtype or batch stay as they are, and have no row.
        """
        dtype, batch = self.device.dtype, self.batch
        if (dtype, batch) == (TRAINED_DTYPE, 1):
            return list(ops)
        return [
            dataclasses.replace(
                op, dtype=dtype if op.dtype == TRAINED_DTYPE else op.dtype, batch=batch if op.batch == 1 else op.batch
            )
            for op in ops
        ]

    def coverage(self, ops: Sequence[OpSpec]) -> float:
        """Share of the distinct operations that can be predicted."""
        distinct = {op.key: op for op in self.cast(ops)}
        return sum(not self._is_missing(op) for op in distinct.values()) / len(distinct) if distinct else 1.0

    def _is_missing(self, op: OpSpec) -> bool:
        row = self.rows.get(op.key)
        return (row is None or row.latency_s is None) and (self._roofline is None or op.dtype != self.device.dtype)

    def require(self, ops: Sequence[OpSpec]) -> None:
        """Raise unless all operations can be predicted.

        Raises:
            MissingOpError: some cannot; names the first, how many more there are, and the command that measures it.
        """
        missing = list({op.key: op for op in ops if self._is_missing(op)}.values())
        if missing:
            raise MissingOpError(self._missing(missing[0], more=[op.key for op in missing[1:]]))

    def _missing(self, op: OpSpec, *, more: Sequence[str] = ()) -> str:
        device = self.device
        named = f"{device.name} ({device.runtime}, {device.dtype}, {device.threads} thread{'s' * (device.threads > 1)})"
        if op.dtype != device.dtype:
            return (
                f"the table of {named} holds {device.dtype} operations, got {op.key}; "
                f"use the table of {op.dtype}, named like {device.name}/onnxruntime-{op.dtype}-1t"
            )
        row = self.rows.get(op.key)
        why = (
            "has no row"
            if row is None
            else f"could not be measured ({row.status}: {row.details.get('reason', 'no reason recorded')})"
        )
        also = f" (and {len(more)} more: {', '.join(list(more)[:3])}{', ...' * (len(more) > 3)})" if more else ""
        near = sorted((key for key, r in self.rows.items() if r.latency_s is not None), key=lambda key: _distance(op, key))[:3]
        return f"operation {op.key}{also} {why} in the table of {named}. Nearest rows: {', '.join(near)}. {self._advice(op)}"

    def _advice(self, op: OpSpec) -> str:
        """What gives the table a row of an operation."""
        device, target = self.device, shlex.quote(str(self.path)) if self.path else "FILE"
        if self.provenance == "imported":
            return "Add its latency to the file that the table was imported from, and import that again with --out " + target
        if self.provenance not in ("measured", "synthetic"):
            return f"Nothing here can measure it, as the table is {self.provenance}: give one that has the row with --table FILE"
        identity = {"runtime": device.runtime, "dtype": device.dtype, "threads": device.threads, "batch": self.batch}
        options = "".join(f" --{name} {value}" for name, value in identity.items() if value != MEASURED_BY_DEFAULT[name])
        options += " --synthetic" * (self.provenance == "synthetic")
        return f"Measure it with: python -m latency_tables measure --device {device.name}{options} --op {op.key} --out {target}"


def load_table(path: str | Path) -> Table:
    """Read a table file.

    Raises:
        TableError: the file is absent or not a valid table.
    """
    return Table(read_table(path), path=Path(path))


def _distance(op: OpSpec, key: str) -> tuple[bool, float, str]:
    other = OpSpec.from_key(key)
    numbers = (
        "in_channels",
        "in_height",
        "in_width",
        "out_channels",
        "kernel",
        "stride",
        "padding",
        "groups",
        "expansion",
        "hidden",
        "batch",
    )
    gaps = [abs(getattr(op, n) - getattr(other, n)) / max(getattr(op, n), getattr(other, n), 1) for n in numbers]
    return op.kind != other.kind, sum(gaps) + (op.activation != other.activation), key
