"""What a device name or file stands for: a table, or an accelerator design that answers as one."""

from __future__ import annotations

import difflib
from pathlib import Path

from accel_models.design import DESIGNS, AccelDesign, design_names, load_design
from cosearch.cost.accel_table import AccelTable
from cosearch.cost.accelerator import Accelerator
from cosearch.space.derive import Limit, discretise
from latency_tables.devices import find_table
from latency_tables.errors import UnknownNameError
from latency_tables.table import Table, load_table


def table_or_design(device: str, path: str = "") -> Table | AccelDesign:
    """What costs are taken from: a device's table, or an accelerator design.

    Args:
        device: name of either.
        path: file of either (a design is JSON, a table JSON lines) that goes before the name; empty: none.

    Raises:
        UnknownNameError: no such device.
        TableError: the table's file is not valid.
        DesignError: nor is the design's.
    """
    if path:
        return load_design(Path(path).resolve()) if path.endswith(".json") else load_table(Path(path))
    if device in design_names():
        return load_design(DESIGNS / f"{device}.json")
    try:
        return find_table(device)
    except UnknownNameError as error:
        near = difflib.get_close_matches(device, design_names(), n=1, cutoff=0.6)
        hint = f". Did you mean the accelerator {near[0]}?" if near else ""
        raise UnknownNameError(f"{error}. Accelerators: {', '.join(design_names())}, or --table DESIGN.json{hint}") from error


def table_to_predict(device: str, path: str = "") -> Table | AccelTable:
    """What predicts a fixed network: a table, or a design as it is (searched for nothing).

    Args:
        device, path: as for :func:`table_or_design`.
    """
    found = table_or_design(device, path)
    if isinstance(found, Table):
        return found
    table = AccelTable(found)
    table.check_limits()
    return table


def widen(accelerator: Accelerator, limits: list[Limit]) -> None:
    """Make the first design for the network with the most work within the limits, and take it as the run's start.

    Args:
        accelerator: begun, so that some network keeps the limits.
        limits: of its present design.
    """
    accelerator.optimise(discretise(accelerator.space, accelerator.space.macs(), *limits), accelerator.options.evaluations)
    accelerator.keep_as_start()
