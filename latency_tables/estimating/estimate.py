"""Builds an ``estimated`` table from a device's specification; fitting its constants is ``published``'s work.

Rows of the given operations are written out, so that the file reads like any other table; an operation outside them is
computed by the same roofline.
"""

from __future__ import annotations

from collections.abc import Iterable

from latency_tables.estimating.specification import Specification
from latency_tables.header import SCHEMA
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile
from latency_tables.text.fields import object_of


def build_estimate(spec: Specification, ops: Iterable[OpSpec]) -> TableFile:
    """The estimated table of a specification, with one row for each operation.

    Energy is power times time with the specification's ``power_w``, the trivial model, and is said to be so.

    Raises:
        TableError: a constant is absent, out of range or without a source.
    """
    roofline = spec.roofline()
    power_w = roofline.power_w
    rows = {}
    for op in ops:
        latency_s = roofline.latency_s(op)
        rows[op.key] = Row(op.key, latency_s, None if power_w is None else power_w * latency_s, details={"method": "roofline"})
    header: dict[str, object] = {
        "schema": SCHEMA,
        "device": {
            "name": spec.name,
            "description": spec.description,
            "runtime": "roofline",
            "dtype": "float32",
            "threads": 1,
        },
        "provenance": "estimated",
        "calibration": {
            "overhead_s": spec.overhead_s,
            "overhead_source": spec.overhead_source,
            "scale": 1.0,
            "overhead_j": None if power_w is None else power_w * spec.overhead_s,
            "interval_factors": list(spec.interval_factors),
        },
        "model": spec.model,
        "error": spec.error,
        "sources": list(spec.sources),
        "power_measurement": None
        if power_w is None
        else {
            "method": "power times time, not a measurement",
            "power_w": power_w,
            "source": object_of(spec.constants["power_w"], "constants.power_w", "value and source")["source"],
        },
        "command": f"python -m latency_tables fit --device {spec.name}",
    }
    return TableFile(header, rows, None)
