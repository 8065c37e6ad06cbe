"""Check the equations against reference rows of SCALE-Sim, ZigZag or Timeloop."""

from __future__ import annotations

from pathlib import Path

from accel_models.references import scalesim, timeloop, zigzag
from accel_models.references.rows import ComparedRow
from latency_tables.errors import UnknownNameError

DATA = Path(__file__).with_name("data")
EXACT_MEANS = {
    "scalesim": "cycles, buffer reads of inputs and weights, buffer writes of outputs",
    "zigzag": "DRAM bytes of weights, inputs and outputs, to within one 8-byte word",
    "timeloop": "whole cycles",
}


def compare(reference: str, path: str | Path, layers: str | Path | None = None) -> list[ComparedRow]:
    """Compare every row of a reference file.

    Args:
        reference: ``scalesim``, ``zigzag`` or ``timeloop``.
        path: rows as that reference's file has them.
        layers: shapes of layers that the rows name (``scalesim``, ``zigzag``); default ``layers.csv`` beside the file, else the
            shipped list.

    Raises:
        UnknownNameError: no such reference.
        DesignError: the file cannot be read as rows of that reference.
    """
    if reference not in EXACT_MEANS:
        raise UnknownNameError(f"reference must be one of {', '.join(EXACT_MEANS)}, got {reference!r}")
    if reference == "timeloop":
        return timeloop.compare(path)
    beside = Path(path).with_name("layers.csv")
    shapes = layers or (beside if beside.is_file() else DATA / "layers.csv")
    return {"scalesim": scalesim, "zigzag": zigzag}[reference].compare(path, shapes)
