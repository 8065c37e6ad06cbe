"""Check the equations against reference rows of SCALE-Sim, ZigZag or Timeloop."""

from __future__ import annotations

from pathlib import Path

from accel_models.references import scalesim, timeloop, zigzag
from accel_models.references.rows import ComparedRow
from latency_tables.errors import ConfigError, UnknownNameError

DATA = Path(__file__).with_name("data")
EXACT_MEANS = {
    "scalesim": "cycles, buffer reads of inputs and weights, buffer writes of outputs",
    "zigzag": "DRAM bytes of weights, inputs and outputs, to within one 8-byte word",
    "timeloop": "whole cycles",
}


def shapes_of(path: Path, layers: Path | None) -> Path:
    """The shapes of the layers that rows name: the file given, else ``layers.csv`` beside them, else the shipped list.

    Args:
        path: the rows.
        layers: given, or None.
    """
    beside = path.with_name("layers.csv")
    return layers or (beside if beside.is_file() else DATA / "layers.csv")


def compare(reference: str, path: str | Path, layers: str | Path | None = None) -> list[ComparedRow]:
    """Compare every row of a reference file.

    Args:
        reference: ``scalesim``, ``zigzag`` or ``timeloop``.
        path: rows as that reference's file has them.
        layers: shapes of layers that the rows name (``scalesim``, ``zigzag`` alone); default see :func:`shapes_of`.

    Raises:
        UnknownNameError: no such reference.
        ConfigError: ``layers`` for a reference whose rows name none.
        DesignError: the file cannot be read as rows of that reference.
    """
    if reference not in EXACT_MEANS:
        raise UnknownNameError(f"reference must be one of {', '.join(EXACT_MEANS)}, got {reference!r}")
    if reference == "timeloop":
        if layers is not None:
            raise ConfigError(f"rows of timeloop hold their shapes themselves, got layers {str(layers)!r}: leave it out")
        return timeloop.compare(path)
    shapes = shapes_of(Path(path), None if layers is None else Path(layers))
    return {"scalesim": scalesim, "zigzag": zigzag}[reference].compare(path, shapes)
