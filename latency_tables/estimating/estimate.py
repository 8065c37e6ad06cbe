"""Builds an ``estimated`` table from a device's specification file; fitting its constants is ``fit``'s work.

A specification (``latency_tables/specs/<device>.json``) names each constant with its value and source, what it was
compared with, and the error found there. Rows of the given operations are written out, so that the file reads like
any other table; an operation outside them is computed by the same roofline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from latency_tables.errors import TableError, UnknownNameError
from latency_tables.estimating.roofline import Roofline
from latency_tables.opspec import OpSpec
from latency_tables.schema import SCHEMA, Row, TableFile

SPECS = Path(__file__).parents[1] / "specs"
FIELDS = ("name", "description", "combine", "constants", "overhead", "interval_factors", "error", "sources")


def list_specs() -> list[str]:
    """Names of the shipped specifications."""
    return sorted(path.stem for path in SPECS.glob("*.json"))


def load_spec(name: str | Path) -> dict[str, Any]:
    """A shipped specification by name, or a file.

    Raises:
        UnknownNameError: neither a shipped name nor a file.
        TableError: the file is not a specification.
    """
    shipped = SPECS / f"{name}.json"
    path = shipped if shipped.is_file() else Path(name)
    if not path.is_file():
        raise UnknownNameError(f"no specification {name}; shipped: {', '.join(list_specs())}; or give a JSON file")
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TableError(f"cannot read {path} as a specification: {error}") from error
    if not isinstance(spec, dict) or not set(FIELDS) <= set(spec):
        raise TableError(f"{path} is not a specification; it needs the fields {', '.join(FIELDS)}")
    return spec


def build_estimate(spec: dict[str, Any], ops: Iterable[OpSpec]) -> TableFile:
    """The estimated table of a specification, with one row for each operation.

    Energy is power times time with the specification's ``power_w``, the trivial model, and is said to be so.

    Raises:
        TableError: the specification is not complete.
    """
    model = {"kind": "roofline", "combine": spec["combine"], "constants": spec["constants"]}
    roofline = Roofline.from_dict(model)
    overhead_s = spec["overhead"]["value"]
    power = roofline.power_w
    rows = {}
    for op in ops:
        latency = roofline.latency_s(op)
        rows[op.key] = Row(op.key, latency, None if power is None else power * latency, details={"method": "roofline"})
    header = {
        "schema": SCHEMA,
        "device": {
            "name": spec["name"],
            "description": spec["description"],
            "runtime": "roofline",
            "dtype": "float32",
            "threads": 1,
        },
        "provenance": "estimated",
        "calibration": {
            "overhead_s": overhead_s,
            "overhead_source": spec["overhead"]["source"],
            "scale": 1.0,
            "overhead_j": None if power is None else power * overhead_s,
            "interval_factors": spec["interval_factors"],
        },
        "model": model,
        "error": spec["error"],
        "sources": spec["sources"],
        "power_measurement": None
        if power is None
        else {
            "method": "power times time, not a measurement",
            "power_w": power,
            "source": spec["constants"]["power_w"]["source"],
        },
        "command": f"python -m latency_tables fit --device {spec['name']}",
    }
    return TableFile(header, rows, None)
