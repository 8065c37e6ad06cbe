"""The derived architecture as cells to draw: which operation each choice point got, and its share of the latency.

A cell without an operation of its own is an identity: it costs nothing and is drawn as a passage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cosearch.planning.builtins import load_builtins
from cosearch.record.json_record import Absent, to_json
from cosearch.record.results.architecture import ArchitectureRecord, OperationRecord
from cosearch.report.data import Run
from cosearch.space.space import SearchSpace, architecture_from_dict
from latency_tables.errors import CosearchError, ShapeError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class Choice:
    """What was chosen at one point: the point's name, the chosen operation, and all candidates (empty where unknown)."""

    point: str
    operation: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One box of the drawing, and one row of the table of operations.

    Attributes:
        point: name of the choice point, or of the place where several points decide; empty for stem, head and what cannot be
            assigned.
        operation: the chosen candidate's name, or the kind of operation.
        shape: output shape ``32×16×16`` (channels, height, width) or ``None``.
        key: name of the operation's row in the table; ``None`` for an identity.
        latency_s, energy_j, macs, params: of this operation, ``None`` where unknown.
        share: part of the sum of all operations' latencies, ``None`` for an identity.
        kind: ``stem``, ``conv``, ``mbconv``, ``skip``, ``head``, ``other``; the style sheet draws by it.
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
    kind: str


def choices(run: Run) -> list[Choice]:
    """What was chosen at each point, in order; empty while nothing is derived.

    The points' names are those of the space that the file describes; where that space is not known here, they are numbered.
    """
    design = run.architecture
    if design is None:
        return []
    space = _space(design)
    points = [f"point {index}" for index in range(len(design.choices))] if space is None else [p.name for p in space.points]
    return [Choice(*named) for named in zip(points, design.choice_names, design.candidate_names, strict=True)]


def cells(run: Run) -> tuple[list[Cell], str | None]:
    """The boxes in order of execution, and a sentence where something needs saying: branches, or what could not be matched.

    In a network with branches each operation names its choice point (none for stem and head). In a chain, the space that
    the file describes says which skips are identities; without that, only an order that fits in one way counts. Where several
    points decide one block, an operation has the name of its place instead.
    """
    design, chosen = run.architecture, choices(run)
    if design is None:
        return [], None
    operations = design.predicted.operations
    total = sum(operation.latency_s for operation in operations)
    space = _space(design)
    if space is not None and space.shares_widths:
        placed = space.architecture(design.choices).placed()
        names = [space.nodes[block.node].name for block in placed]
        return [replace(_cell(operation, None, total), point=name) for operation, name in zip(operations, names)], None
    owners = _owners(design, chosen, space)
    if owners is None:
        reason = f"{len(operations)} operations could not be matched with {len(chosen)} choices; they are drawn unnamed."
        return [_cell(operation, None, total) for operation in operations], reason
    branches = "The network has branches; its blocks stand in order of execution." if design.wiring else None
    boxes: list[Cell] = []
    upcoming = 0  # the next choice point to draw
    for operation, owner in zip(operations, owners, strict=True):
        until = len(chosen) if owner is None and operation is operations[-1] else upcoming if owner is None else owner
        boxes += [_identity(choice) for choice in chosen[upcoming:until]]
        upcoming = max(upcoming, until if owner is None else owner + 1)
        boxes.append(_cell(operation, None if owner is None else chosen[owner], total))
    return boxes + [_identity(choice) for choice in chosen[upcoming:]], branches


def _owners(design: ArchitectureRecord, chosen: list[Choice], space: SearchSpace | None) -> list[int | None] | None:
    """Index of each operation's choice point (``None``: fixed part), or ``None`` where that cannot be told."""
    operations = design.predicted.operations
    named = [operation.choice for operation in operations if not isinstance(operation.choice, Absent)]
    if operations and len(named) == len(operations):
        return named if all(owner is None or 0 <= owner < len(chosen) for owner in named) else None
    inner = len(operations) - 2
    if inner < 0:
        return None
    every = list(range(len(chosen)))
    if space is not None:
        active = [index for index in every if space.blocks(index, design.choices[index])]
        fits = [active] if len(active) == inner else []
    else:
        no_skip = [index for index in every if chosen[index].operation != "skip"]
        fits = [order for order in (every, no_skip) if len(order) == inner]
    return [None, *fits[0], None] if fits else None


def _cell(operation: OperationRecord, choice: Choice | None, total: float) -> Cell:
    spec, kind, shape = _key_spec(operation.key), operation.key.split("-")[0], None
    if spec is not None:
        kind = spec.kind
        shape = f"{spec.out_channels}×{spec.out_height}×{spec.out_width}"
        shape = f"{spec.out_channels - 1} actions + value" if kind == "head" else shape
    return Cell(
        point=choice.point if choice else "",
        operation=choice.operation if choice else kind,
        shape=shape,
        key=operation.key,
        latency_s=operation.latency_s,
        energy_j=operation.energy_j,
        macs=operation.macs,
        params=operation.params,
        share=operation.latency_s / total if total else None,
        kind=kind if kind in ("stem", "conv", "mbconv", "head") else "other",
    )


def _identity(choice: Choice) -> Cell:
    return Cell(choice.point, choice.operation, None, None, None, None, None, None, None, "skip")


def _space(design: ArchitectureRecord) -> SearchSpace | None:
    """The space that the file describes, or ``None``: files of other versions or of extensions are drawn all the same."""
    load_builtins()
    try:
        return architecture_from_dict(to_json(design)).space
    except CosearchError:
        return None


def _key_spec(key: str) -> OpSpec | None:
    """The operation that a key names; ``None`` for a key of another vocabulary."""
    try:
        return OpSpec.from_key(key)
    except ShapeError:
        return None
