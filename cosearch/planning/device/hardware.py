"""What a device name or file stands for, a table or an accelerator design, and what a run's blocks cost on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from accel_models.design import DESIGNS, AccelDesign, design_names, load_design
from cosearch.config.run import Config
from cosearch.cost.accel_table import AccelTable
from cosearch.cost.accelerator import Accelerator
from cosearch.cost.constraint import Constraint
from cosearch.seeding import Streams
from cosearch.space.derivation.largest import largest
from cosearch.space.space import SearchSpace
from latency_tables.devices import find_table
from latency_tables.errors import UnknownNameError
from latency_tables.table import Table, load_table

Hardware = Table | Accelerator  # of a run: a device's table, or an accelerator whose design is searched with the agent


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


def make_hardware(found: Table | AccelDesign, space: SearchSpace, config: Config) -> Hardware:
    """What blocks of the space cost on: the table as it is, or an accelerator that begins with the design's platform.

    Args:
        found: see :func:`table_or_design`.
        space: the search space.
        config: of the run: how designs are searched, and their seeds.
    """
    if isinstance(found, Table):
        return found
    streams = Streams(config.seed)
    return Accelerator(space, found, config.accel, lambda number: streams.derive("accel", number))


def search_first_design(accelerator: Accelerator, constraints: Sequence[Constraint]) -> None:
    """Make an accelerator ready: its first design, on which some network meets the constraints, is the run's start.

    The smallest network's design comes first, or the platform's own; then that of the network with the most work within the
    constraints.

    Args:
        accelerator: new.
        constraints: on its costs.

    Raises:
        DesignError: no design holds the smallest network, or a fixed design exceeds its platform.
        InfeasibleTargetError: no network meets the constraints on the first design.
    """
    space = accelerator.space
    accelerator.begin({constraint.metric: constraint.bound for constraint in constraints})
    limits = [constraint.limit for constraint in constraints]
    accelerator.optimise(largest(space, *limits, by="macs"), accelerator.options.evaluations)
    accelerator.keep_as_start()
