"""The header of a table: which device it is of, where its figures come from, and how its rows add up to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latency_tables.errors import TableError
from latency_tables.opspec import DTYPE_BYTES, Device
from latency_tables.text.fields import integer, number, number_or_none, object_of, one_of, text_of

SCHEMA = 1
PROVENANCES = {
    "measured": "timed on the device itself",
    "derived": "computed from measurements of another device or runtime",
    "imported": "timed by somebody else, in a way that nobody here has seen",
    "estimated": "a model with public specifications; nobody timed it",
    "synthetic": "made under emulation or for a test; says nothing about a board",
}
MAX_LATENCY_S = 3600.0
MAX_ENERGY_J = 1e6
MAX_POWER_W = 1e5
MAX_THREADS = 4096


@dataclass(frozen=True)
class Calibration:
    """How rows become a network: ``overhead_s + scale * sum of rows``.

    Attributes:
        overhead_s: fixed seconds of one inference.
        scale: factor between the sum of rows and a whole network.
        overhead_j: fixed joules of one inference, or None where energy is unknown.
        power_w: constant power of the trivial energy model, watts, or None.
        interval_factors: (low, high) of measured over predicted latency, or None.
    """

    overhead_s: float
    scale: float
    overhead_j: float | None = None
    power_w: float | None = None
    interval_factors: tuple[float, float] | None = None


def read_device(value: object, where: str) -> Device:
    """The device of a header.

    Raises:
        TableError: a field is absent or out of range.
    """
    device = object_of(value, f"{where}: device", "name, description, runtime, dtype and threads")
    name, description, runtime = (text_of(device, field, f"{where}, device") for field in ("name", "description", "runtime"))
    dtype = one_of(device.get("dtype"), DTYPE_BYTES, f"{where}: device.dtype")
    return Device(
        name, description, runtime, dtype, integer(device.get("threads"), f"{where}: device.threads", low=1, high=MAX_THREADS)
    )


def read_calibration(value: object, where: str) -> Calibration:
    """The calibration of a header.

    Raises:
        TableError: a field is absent or out of range.
    """
    fields, where = object_of(value, f"{where}: calibration", "overhead_s and scale"), f"{where}: calibration"
    overhead_s = number(fields.get("overhead_s"), f"{where}.overhead_s", low=0, high=MAX_LATENCY_S)
    scale = number(fields.get("scale"), f"{where}.scale", low=0, high=100, positive=True)
    overhead_j = number_or_none(fields.get("overhead_j"), f"{where}.overhead_j", low=0, high=MAX_ENERGY_J)
    power_w = number_or_none(fields.get("power_w"), f"{where}.power_w", low=0, high=MAX_POWER_W, positive=True)
    factors = fields.get("interval_factors")
    if factors is None:
        return Calibration(overhead_s, scale, overhead_j, power_w)
    if not isinstance(factors, (list, tuple)) or len(factors) != 2:
        raise TableError(f"{where}.interval_factors must be [low, high], got {factors!r:.60}")
    low = number(factors[0], f"{where}.interval_factors[0]", low=0, high=1, positive=True)
    high = number(factors[1], f"{where}.interval_factors[1]", low=low, high=100)
    return Calibration(overhead_s, scale, overhead_j, power_w, (low, high))


def measured_batch(header: Mapping[str, object]) -> int | None:
    """Frames in one inference that the calibration was measured with; None where the header does not say."""
    protocol = header.get("protocol")
    batch = protocol.get("batch") if isinstance(protocol, dict) else None
    return batch if type(batch) is int and batch > 0 else None


def check_header(record: Mapping[str, object], where: str) -> None:
    """Check the header line.

    Raises:
        TableError: a field is absent or out of range.
    """
    if record.get("record") != "header":
        raise TableError(f"{where}: the first line must be the header, got record {record.get('record')!r}")
    if type(record.get("schema")) is not int or record["schema"] != SCHEMA:
        raise TableError(
            f"{where}: this program reads schema {SCHEMA}, got {record.get('schema')!r}; "
            "update the program or measure the table again"
        )
    one_of(record.get("provenance"), PROVENANCES, f"{where}: provenance")
    text_of(record, "table_id", where)
    read_device(record.get("device"), where)
    read_calibration(record.get("calibration"), where)
