"""The derived architecture as cells to draw: which operation each choice point got, and its share of the latency.

A cell without an operation of its own is an identity: it costs nothing and is drawn as a passage.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cosearch.pipeline.report_data import Run, number, part, records
from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class Cell:
    """One box of the drawing, and one row of the table of operations.

    Attributes:
        point: name of the choice point; empty for stem, head and what cannot be assigned.
        operation: the chosen candidate's name, or the kind of operation.
        shape: output shape ``32×16×16`` (channels, height, width) or ``None``.
        key: name of the operation's row in the table; ``None`` for an identity.
        latency_s, energy_j, macs, params: of this operation, ``None`` where unknown.
        share: part of the sum of all operations' latencies, ``None`` where a latency is unknown.
        alternatives: how many candidates the choice point had.
        kind: ``stem``, ``conv``, ``mbconv``, ``skip``, ``head``, ``other``; the style sheet colours by it.
    """

    point: str
    operation: str
    shape: str | None
    key: str | None
    latency_s: float | None
    energy_j: float | None
    macs: float | None
    params: float | None
    share: float | None
    alternatives: int | None
    kind: str


def cells(run: Run) -> tuple[list[Cell], str | None]:
    """The boxes in order of execution, and a sentence where operations and choices could not be matched.

    An operation record may say its choice point itself (``"choice": index``, null for stem and head). Without it the
    operations between first and last are matched in order: one for each choice, or one for each choice that is not a skip.
    """
    operations = records(run.architecture, "operations")
    chosen = _chosen(run)
    total = _total([number(item, "latency_s") for item in operations])
    assigned = _assign(operations, [name for _, name, _ in chosen])
    if assigned is None:
        boxes = [_cell(item, "", None, None, total) for item in operations]
        reason = f"{len(operations)} operations could not be matched with {len(chosen)} choices; they are drawn without their names."
        return boxes, reason if chosen and operations else None
    boxes = []
    upcoming = 0  # the next choice point to draw
    for item, owner in zip(operations, assigned, strict=True):
        if owner is None:
            if item is operations[-1]:
                boxes += [_identity(chosen[index]) for index in range(upcoming, len(chosen))]
                upcoming = len(chosen)
            boxes.append(_cell(item, "", None, None, total))
            continue
        boxes += [_identity(chosen[index]) for index in range(upcoming, owner)]
        upcoming = max(upcoming, owner + 1)
        boxes.append(_cell(item, *chosen[owner], total))
    boxes += [_identity(chosen[index]) for index in range(upcoming, len(chosen))]
    return boxes, None


def _chosen(run: Run) -> list[tuple[str, str, int]]:
    """Choice point, name of its chosen candidate, number of candidates."""
    design = part(run.architecture)
    choices, names, candidates = (design.get(key) for key in ("choices", "choice_names", "candidate_names"))
    if not isinstance(choices, list):
        return []
    found = []
    for index, choice in enumerate(choices):
        name = names[index] if isinstance(names, list) and index < len(names) else f"point {index}"
        options = candidates[index] if isinstance(candidates, list) and index < len(candidates) else []
        known = isinstance(options, list) and type(choice) is int and 0 <= choice < len(options)
        found.append((str(name), str(options[choice]) if known else f"candidate {choice}", len(options) if known else 0))
    return found


def _assign(operations: list[dict[str, Any]], names: list[str]) -> list[int | None] | None:
    """Index of each operation's choice point (``None``: fixed part), or ``None`` where that cannot be told."""
    if operations and all("choice" in item for item in operations):
        owners = [item["choice"] for item in operations]
        valid = all(owner is None or type(owner) is int and 0 <= owner < len(names) for owner in owners)
        return owners if valid else None
    inner = len(operations) - 2
    if inner == len(names):
        return [None, *range(len(names)), None]
    active = [index for index, name in enumerate(names) if not _is_skip(name)]
    return [None, *active, None] if inner == len(active) and inner >= 0 else None


def _cell(item: dict[str, Any], point: str, name: str | None, alternatives: int | None, total: float | None) -> Cell:
    key = item.get("key") if isinstance(item.get("key"), str) else None
    kind, shape = _read_key(key)
    latency = number(item, "latency_s")
    return Cell(
        point=point, operation=name or kind, shape=shape, key=key, latency_s=latency, energy_j=number(item, "energy_j"),
        macs=number(item, "macs"), params=number(item, "params"), share=latency / total if total and latency is not None else None,
        alternatives=alternatives or None, kind=kind if kind in ("stem", "conv", "mbconv", "head") else "other",
    )


def _identity(choice: tuple[str, str, int]) -> Cell:
    point, name, alternatives = choice
    return Cell(point, name, None, None, None, None, None, None, None, alternatives or None, "skip")


def _read_key(key: str | None) -> tuple[str, str | None]:
    """Kind and output shape that a key names; a key of another vocabulary is its own kind."""
    if key is None:
        return "operation", None
    try:
        spec = OpSpec.from_key(key)
    except ShapeError:
        return key.split("-")[0], None
    if spec.kind == "head":
        return spec.kind, f"{spec.out_channels - 1} actions + value"
    return spec.kind, f"{spec.out_channels}×{spec.out_height}×{spec.out_width}"


def _is_skip(name: str) -> bool:
    return name.lower() in ("skip", "identity", "skip_connect")


def _total(latencies: list[float | None]) -> float | None:
    """Sum of the operations' latencies; unknown as soon as one of them is."""
    return None if not latencies or None in latencies else sum(latencies)
