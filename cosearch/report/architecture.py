"""The derived architecture as cells to draw: which operation each choice point got, and its share of the latency.

A cell without an operation of its own is an identity: it costs nothing and is drawn as a passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosearch.planning.builtins import load_builtins
from cosearch.report.data import Run, number, part, records
from cosearch.space.space import FORMAT, SearchSpace, architecture_from_dict
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
        point: name of the choice point; empty for stem, head and what cannot be assigned.
        operation: the chosen candidate's name, or the kind of operation.
        shape: output shape ``32×16×16`` (channels, height, width) or ``None``.
        key: name of the operation's row in the table; ``None`` for an identity.
        latency_s, energy_j, macs, params: of this operation, ``None`` where unknown.
        share: part of the sum of all operations' latencies, ``None`` where a latency is unknown.
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

    Names come from ``point_names``, ``candidate_names`` and ``choice_names`` of ``architecture.json``, or from the space
    that the file describes; what nobody named is numbered.
    """
    design = part(run.architecture)
    chosen = design.get("choices")
    if not isinstance(chosen, list):
        return []
    space = _space(design)
    points, listed = _texts(design.get("point_names")), design.get("candidate_names")
    listed = [_texts(row) for row in listed] if isinstance(listed, list) else []
    if space is not None:
        points, listed = points or [p.name for p in space.points], listed or [list(p.candidates) for p in space.points]
    names = _texts(design.get("choice_names"))
    found = []
    for index, choice in enumerate(chosen):
        candidates = listed[index] if index < len(listed) else []
        known = type(choice) is int and 0 <= choice < len(candidates)
        word = names[index] if index < len(names) else None
        operation = candidates[choice] if known else word or f"candidate {choice}"
        # Where the names are not those of the chosen candidates, they are those of the points.
        spare = word if word is not None and word != operation else None
        found.append(Choice(points[index] if index < len(points) else spare or f"point {index}", operation, tuple(candidates)))
    return found


def cells(run: Run) -> tuple[list[Cell], str | None]:
    """The boxes in order of execution, and a sentence where something needs saying: branches, or what could not be matched.

    An operation may name its choice point itself (``"choice": index``, null for stem and head). Without it, the space
    that the file describes says which skips are identities; without that, only an order that fits in one way counts.
    """
    operations, chosen = _operations(run), choices(run)
    times = [number(item, "latency_s") for item in operations]
    total = None if not times or None in times else sum(times)
    owners = _owners(operations, chosen, _space(run.architecture))
    if owners is None:
        reason = f"{len(operations)} operations could not be matched with {len(chosen)} choices; they are drawn unnamed."
        return [_cell(item, None, total) for item in operations], reason if chosen and operations else None
    wired = bool(part(run.architecture).get("wiring"))
    branches = "The network has branches; its blocks stand in order of execution." if wired else None
    boxes: list[Cell] = []
    upcoming = 0  # the next choice point to draw
    for item, owner in zip(operations, owners, strict=True):
        until = len(chosen) if owner is None and item is operations[-1] else upcoming if owner is None else owner
        boxes += [_identity(choice) for choice in chosen[upcoming:until]]
        upcoming = max(upcoming, until if owner is None else owner + 1)
        boxes.append(_cell(item, None if owner is None else chosen[owner], total))
    return boxes + [_identity(choice) for choice in chosen[upcoming:]], branches


def _operations(run: Run) -> list[dict[str, Any]]:
    """The list of operations with key, costs and sizes, wherever the file keeps each.

    The costs stand in the list itself or in ``predicted.operations``; key and sizes that are not written follow from the
    operation's shapes.
    """
    base, priced = records(run.architecture, "operations"), records(run.architecture, "predicted", "operations")
    if len(base) == len(priced):
        base = [item | price for item, price in zip(base, priced, strict=True)]
    found = []
    for item in base or priced:
        spec = _key_spec(item["key"]) if "key" in item else _spec(item)
        own = {"key": spec.key, "macs": spec.macs, "params": spec.params} if spec else {"key": str(item.get("kind") or "unnamed")}
        found.append(own | {key: value for key, value in item.items() if value is not None or key not in own})
    return found


def _owners(operations: list[dict[str, Any]], chosen: list[Choice], space: SearchSpace | None) -> list[int | None] | None:
    """Index of each operation's choice point (``None``: fixed part), or ``None`` where that cannot be told."""
    if operations and all("choice" in item for item in operations):
        owners = [item["choice"] for item in operations]
        valid = all(owner is None or (type(owner) is int and 0 <= owner < len(chosen)) for owner in owners)
        return owners if valid else None
    inner = len(operations) - 2
    if inner < 0:
        return None
    if space is not None and len(space.points) == len(chosen):
        index_of = [{name: c for c, name in enumerate(point.candidates)} for point in space.points]
        absent = [
            choice.operation in index_of[i] and not space.blocks(i, index_of[i][choice.operation])
            for i, choice in enumerate(chosen)
        ]
        active = [index for index, choice in enumerate(chosen) if not absent[index]]
        fits = [active] if len(active) == inner else []
    else:
        every = list(range(len(chosen)))
        no_skip = [index for index in every if chosen[index].operation != "skip"]
        fits = [order for order in (every, no_skip) if len(order) == inner]
    return [None, *fits[0], None] if fits else None


def _cell(item: dict[str, Any], choice: Choice | None, total: float | None) -> Cell:
    key = str(item["key"])
    spec, latency = _key_spec(key), number(item, "latency_s")
    kind, shape = key.split("-")[0], None
    if spec is not None:
        kind = spec.kind
        shape = f"{spec.out_channels}×{spec.out_height}×{spec.out_width}"
        shape = f"{spec.out_channels - 1} actions + value" if kind == "head" else shape
    return Cell(
        point=choice.point if choice else "",
        operation=choice.operation if choice else kind,
        shape=shape,
        key=key,
        latency_s=latency,
        energy_j=number(item, "energy_j"),
        macs=number(item, "macs"),
        params=number(item, "params"),
        share=latency / total if total and latency is not None else None,
        kind=kind if kind in ("stem", "conv", "mbconv", "head") else "other",
    )


def _identity(choice: Choice) -> Cell:
    return Cell(choice.point, choice.operation, None, None, None, None, None, None, None, "skip")


def _space(design: dict[str, Any]) -> SearchSpace | None:
    """The space that the file describes, or ``None``: files of other versions or of extensions are drawn all the same."""
    if design.get("format") != FORMAT:
        return None
    load_builtins()
    try:
        return architecture_from_dict({key: value for key, value in design.items() if key != "operations"}).space
    except CosearchError:
        return None


def _spec(item: dict[str, Any]) -> OpSpec | None:
    """The operation that its shapes describe; ``None`` where they describe none."""
    try:
        return OpSpec.from_dict({key: value for key, value in item.items() if key in OpSpec.__dataclass_fields__})
    except ShapeError:
        return None


def _key_spec(key: object) -> OpSpec | None:
    """The operation that a key names; ``None`` for a key of another vocabulary."""
    try:
        return OpSpec.from_key(key) if isinstance(key, str) else None
    except ShapeError:
        return None


def _texts(values: Sequence[Any] | None) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []
