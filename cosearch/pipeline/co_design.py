"""The accelerator in a run: which devices are accelerators, when their design is searched again, and what a run keeps of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accel_models.design import DESIGNS, AccelDesign, design_names, load_design
from cosearch.cost.accel_cost import Accelerator
from cosearch.cost.accel_table import AccelTable
from cosearch.rundir import RunDir
from cosearch.space.derive import Limit, discretise
from cosearch.space.space import Architecture
from latency_tables.devices import find_table
from latency_tables.errors import UnknownNameError
from latency_tables.table import Table, load_table

FILE = "accelerator.json"
LEARNED = 1e-9  # difference of scores from which a candidate is preferred


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


def search_again(accelerator: Accelerator | None, step: int, scores: list[list[float]],
                 most_likely: Callable[[list[list[float]]], Architecture]) -> None:
    """Between two updates: search the accelerator for the current network where that is due.

    Args:
        accelerator: None where the device is no accelerator.
        step: of the search.
        scores: of the candidates; while they are all alike nothing is learned yet, and the first design stays.
        most_likely: (scores) -> the network.
    """
    learned = any(max(row) - min(row) > LEARNED for row in scores)
    if accelerator is not None and learned and accelerator.due(step):
        accelerator.optimise(most_likely(scores), accelerator.options.evaluations)


def progress_of(accelerator: Accelerator | None) -> dict[str, Any]:
    """Metrics of a step."""
    return {} if accelerator is None else {"accel_searches": accelerator.searches}


def settle(accelerator: Accelerator, architecture: Architecture, run: RunDir) -> dict[str, Any]:
    """The last and longest search, for the derived network; the design is written in the format that `accel_models` reads.

    Args:
        accelerator: of the run.
        architecture: the derived network.
        run: gets ``accelerator.json``.

    Returns:
        Design, limits and the network on it, for ``architecture.json``.
    """
    accelerator.optimise(architecture, accelerator.options.final_evaluations)
    run.write_json(FILE, accelerator.design.to_dict())
    return accelerator.record(architecture.ops())


def in_short(accelerator: Accelerator, architecture: Architecture) -> dict[str, Any]:
    """The accelerator's figures for the summary.

    Args:
        accelerator: of the run.
        architecture: the derived network.
    """
    network = accelerator.network(architecture.ops())
    resources = network.resources.to_dict()
    return {"design": FILE, "fixed": accelerator.options.fixed, "objective": accelerator.objective,
            "chunks": len(accelerator.design.chunks), "searches": accelerator.searches,
            "frames_per_s": network.frames_per_s, "single_frame_per_s": 1.0 / network.latency_s, **resources}
