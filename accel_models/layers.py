"""Layers as accelerator models see them, made from the project's operations or read from a file, and as tensors.

A layer file is JSON (``{"name": ..., "layers": [{"name", "kind", "C", "K", ...}]}``) or CSV with the same columns; a field that
is not known is refused, as it would be computed as if it were not there. Only
``conv``, ``dw`` (depthwise) and ``fc`` keep the array busy; ``pool`` and ``add`` stream through it; ``relu`` and ``cast`` are
applied while a tile leaves or enters a buffer and cost nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from accel_models.topologies import is_topology, read_topology
from latency_tables.errors import DesignError, ShapeError
from latency_tables.opspec import Layer, OpSpec
from latency_tables.text.reading import read_csv, read_json, shown

ARRAY_KINDS = ("conv", "dw", "fc")
STREAM_KINDS = ("pool", "add")
FREE_KINDS = ("relu", "cast")
NETWORKS = Path(__file__).with_name("networks")
MAX_SIZE = 10**8  # of one dimension: seven of them multiplied are far inside a float
NEEDED = ("name", "kind", "C", "K", "P", "Q", "R", "S", "stride")
DERIVED = ("H", "W", "pad", "macs")  # what a file may state besides: it must fit the rest


@dataclass(frozen=True)
class LayerShape:
    """One layer, batch 1.

    Attributes:
        name: text for reports.
        kind: ``conv``, ``dw``, ``fc``, ``pool``, ``add``, ``relu`` or ``cast``.
        G, K, C: groups, output and input channels *per group*; depthwise has ``K = C = 1``.
        P, Q, R, S, stride: output rows and columns, kernel rows and columns, stride.
        dilation: input rows and columns from one kernel element to the next, 1 for most.

    Raises:
        DesignError: an unknown kind, or a size that is no integer from 1 to ``MAX_SIZE``.
    """

    name: str
    kind: str
    G: int
    K: int
    C: int
    P: int
    Q: int
    R: int
    S: int
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ARRAY_KINDS + STREAM_KINDS + FREE_KINDS:
            known = ", ".join(ARRAY_KINDS + STREAM_KINDS + FREE_KINDS)
            raise DesignError(f"layer {shown(self.name)}: kind must be one of {known}, got {shown(self.kind)}")
        wrong = [
            f"{n}={shown(getattr(self, n))}"
            for n in ("G", "K", "C", "P", "Q", "R", "S", "stride", "dilation")
            if type(getattr(self, n)) is not int or not 1 <= getattr(self, n) <= MAX_SIZE
        ]
        if wrong:
            raise DesignError(f"layer {shown(self.name)}: sizes must be integers from 1 to {MAX_SIZE}, got {', '.join(wrong)}")

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations; 0 for layers without weights."""
        return self.G * self.K * self.C * self.P * self.Q * self.R * self.S if self.kind in ARRAY_KINDS else 0

    @property
    def window_rows(self) -> int:
        """Input rows that one output spans: those of the kernel, spread where it is dilated."""
        return (self.R - 1) * self.dilation + 1

    @property
    def window_cols(self) -> int:
        """Input columns that one output spans."""
        return (self.S - 1) * self.dilation + 1

    @property
    def inputs(self) -> int:
        """Input elements that the layer reads, padding counted as data; both summands of an ``add``."""
        high, wide = (self.P - 1) * self.stride + self.window_rows, (self.Q - 1) * self.stride + self.window_cols
        return self.G * self.C * high * wide * (2 if self.kind == "add" else 1)

    @property
    def outputs(self) -> int:
        """Output elements."""
        return self.G * self.K * self.P * self.Q

    @property
    def weights(self) -> int:
        """Weight elements without biases; 0 for layers without weights."""
        return self.G * self.K * self.C * self.R * self.S if self.kind in ARRAY_KINDS else 0


def check_work(layers: Sequence[LayerShape]) -> None:
    """Raise unless a network has at least one layer that takes time.

    Raises:
        ShapeError: it has none.
    """
    if all(layer.kind in FREE_KINDS for layer in layers):
        kinds = ", ".join(sorted({layer.kind for layer in layers})) or "no kind"
        raise ShapeError(
            f"expected at least one layer of kind {', '.join(ARRAY_KINDS + STREAM_KINDS)}, got {len(layers)} layers of {kinds}: "
            "they take no time"
        )


def from_layer(layer: Layer, groups: int = 1, dilation: int = 1) -> LayerShape:
    """The shape of one primitive of the project's vocabulary.

    Args:
        layer: its ``C`` counts the input channels of one group.
        groups: convolution groups, 1 for all but grouped convolutions.
        dilation: of the kernel.
    """
    sizes = {"P": layer.P, "Q": layer.Q, "R": layer.R, "S": layer.S, "stride": layer.stride, "dilation": dilation}
    if layer.kind in ("conv", "fc"):
        return LayerShape(layer.name, layer.kind, groups, layer.K // groups, layer.C, **sizes)
    return LayerShape(layer.name, layer.kind, layer.K, 1, 1, **sizes)


def from_blocks(blocks: Iterable[OpSpec]) -> list[list[LayerShape]]:
    """The layers of each block, names prefixed by the block's place in the list; a sum that ends a block is one of them."""
    out = []
    for index, block in enumerate(blocks):
        depthwise = block.groups == block.in_channels == block.out_channels
        groups = block.groups if block.kind == "conv" and not depthwise else 1
        dilation = (block.window - 1) // (block.kernel - 1) if block.kernel > 1 else 1
        layers = [replace(from_layer(layer, groups, dilation), name=f"{index}.{layer.name}") for layer in block.layers()]
        if block.adds:
            layers.append(LayerShape(f"{index}.add", "add", block.out_channels, 1, 1, block.out_height, block.out_width, 1, 1))
        out.append(layers)
    return out


def _from_record(record: object, where: str, *, as_text: bool) -> LayerShape:
    """One layer of a file; its numbers are texts in a CSV. Nothing that it states is left out of account."""
    if not isinstance(record, Mapping):
        raise DesignError(f"{where}: a layer must be an object with {', '.join(NEEDED)}, got {shown(record)}")
    unknown = [name for name in record if name not in (*NEEDED, "G", *DERIVED)]
    missing = [name for name in NEEDED if name not in record]
    if unknown or missing:
        fault = f"unknown field {shown(unknown[0])}" if unknown else f"{missing[0]} is missing"
        raise DesignError(
            f"{where}: {fault}; a layer has {', '.join(NEEDED)} and may have G (groups) and, to be checked, "
            f"{', '.join(DERIVED)}. It has one stride and no dilation, and the batch is 1"
        )
    name, kind = record["name"], record["kind"]
    if not isinstance(name, str) or not isinstance(kind, str):
        raise DesignError(f"{where}: name and kind of a layer must be texts, got {shown(name)} and {shown(kind)}")
    given = [n for n in (*NEEDED[2:], "G", *DERIVED) if n in record and not (as_text and n not in NEEDED and record[n] == "")]
    sizes = {n: _whole(record[n], f"{where}: {n}", low=0 if n in DERIVED else 1, as_text=as_text) for n in given}
    _check_derived(sizes, kind, where)
    shape = {n: sizes[n] for n in ("P", "Q", "R", "S", "stride")}
    channels_in, channels_out = sizes["C"], sizes["K"]
    if kind in ("conv", "fc"):
        groups = sizes.get("G", 1)
        if channels_in % groups or channels_out % groups:
            raise DesignError(f"{where}: C {channels_in} and K {channels_out} must be multiples of the {groups} groups (G)")
        return LayerShape(name, kind, groups, channels_out // groups, channels_in // groups, **shape)
    if channels_in != channels_out or sizes.get("G", channels_out) != channels_out:
        raise DesignError(
            f"{where}: a layer of kind {shown(kind)} has as many output as input channels, each a group of its own; "
            f"got C {channels_in}, K {channels_out}{', G ' + str(sizes['G']) if 'G' in sizes else ''}"
        )
    return LayerShape(name, kind, channels_out, 1, 1, **shape)


def _whole(value: object, what: str, *, low: int, as_text: bool) -> int:
    """An integer from ``low`` to ``MAX_SIZE`` (the multiply-accumulates: without an upper end)."""
    if as_text and isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
        value = int(value)
    if type(value) is not int or value < low or (value > MAX_SIZE and not what.endswith("macs")):
        raise DesignError(f"{what} must be an integer from {low} to {MAX_SIZE}, got {shown(value)}")
    return value


def _check_derived(sizes: Mapping[str, int], kind: str, where: str) -> None:
    """Refuse input sizes, padding or work that do not fit the layer, or cannot be checked: it may be another than it seems."""
    if ("pad" in sizes) != ("H" in sizes or "W" in sizes):
        raise DesignError(f"{where}: H or W, and pad, are checked together, and one of them is missing; give both or none")
    for out, size, kernel in (("P", "H", "R"), ("Q", "W", "S")):
        if size in sizes:
            fits = (sizes[size] + 2 * sizes["pad"] - sizes[kernel]) // sizes["stride"] + 1
            if fits != sizes[out]:
                raise DesignError(
                    f"{where}: {size} {sizes[size]}, pad {sizes['pad']}, {kernel} {sizes[kernel]} and stride {sizes['stride']} "
                    f"give {out} {fits}, got {sizes[out]}"
                )
    if "macs" in sizes and kind in ARRAY_KINDS + STREAM_KINDS + FREE_KINDS:
        groups = sizes["K"] if kind == "dw" else sizes.get("G", 1)
        macs = math.prod(sizes[n] for n in "CKPQRS") // groups if kind in ARRAY_KINDS else 0
        if macs != sizes["macs"]:
            raise DesignError(f"{where}: the layer has {macs} multiply-accumulates, got macs {sizes['macs']}")


def load_layers(source: str | Path) -> list[LayerShape]:
    """Layers of a shipped network (by name), of a JSON or CSV file, or of a topology of SCALE-Sim (CSV).

    ``C`` and ``K`` in a file are channels of the whole layer, also for depthwise (``C = K``).

    Raises:
        DesignError: the file does not exist or cannot be understood.
    """
    path = Path(source)
    if not path.is_file() and (NETWORKS / f"{source}.json").exists():
        path = NETWORKS / f"{source}.json"
    if not path.is_file():
        known = ", ".join(network_names())
        raise DesignError(f"no network {str(source)!r}: give a JSON or CSV file of layers, or one of {known}")
    as_text = path.suffix.lower() == ".csv"
    if as_text and is_topology(path):
        return [_from_record(record, where, as_text=False) for where, record in read_topology(path)]
    if as_text:
        records: object = read_csv(path, "a list of layers", NEEDED, DesignError)
    else:
        content = read_json(path, "a list of layers", DesignError)
        records = content.get("layers") if isinstance(content, dict) else content
        unknown = [name for name in content if name not in ("name", "description", "layers")] if isinstance(content, dict) else []
        if unknown:
            raise DesignError(f"{path}: unknown field {shown(unknown[0])} beside name, description and layers")
    if not isinstance(records, list) or not records:
        raise DesignError(f"{path}: expected a list of layers, or an object with a list under 'layers'")
    return [_from_record(record, f"{path}, layer {n}", as_text=as_text) for n, record in enumerate(records, start=1)]


def network_names() -> list[str]:
    """Names of the shipped layer lists."""
    return sorted(path.stem for path in NETWORKS.glob("*.json"))


@dataclass(frozen=True)
class LayerTensors:
    """Sizes of L layers, each ``[L]`` in float64; ``depthwise``, ``streams`` and ``busy`` are masks ``[L]``."""

    G: Tensor
    K: Tensor
    C: Tensor
    P: Tensor
    Q: Tensor
    R: Tensor
    S: Tensor
    stride: Tensor
    window_rows: Tensor
    window_cols: Tensor
    macs: Tensor
    weights: Tensor
    inputs: Tensor
    outputs: Tensor
    depthwise: Tensor
    streams: Tensor
    busy: Tensor

    def column(self) -> LayerTensors:
        """The same with a trailing axis ``[L, 1]`` for options (dataflows, loop orders)."""
        return LayerTensors(**{f.name: getattr(self, f.name).unsqueeze(-1) for f in fields(self)})


def stack(layers: Sequence[LayerShape]) -> LayerTensors:
    """Layers as tensors, for batched evaluation."""
    names = ("G", "K", "C", "P", "Q", "R", "S", "stride", "window_rows", "window_cols", "macs", "weights", "inputs", "outputs")
    columns = {n: torch.tensor([float(getattr(layer, n)) for layer in layers], dtype=torch.float64) for n in names}
    masks = {"depthwise": ("dw",), "streams": STREAM_KINDS, "busy": ARRAY_KINDS}
    return LayerTensors(**columns, **{n: torch.tensor([layer.kind in kinds for layer in layers]) for n, kinds in masks.items()})


def to_records(layers: Sequence[LayerShape]) -> list[dict[str, str | int]]:
    """Layers as JSON records in the format that :func:`load_layers` reads.

    Raises:
        DesignError: a layer is dilated, which that format does not hold.
    """
    out = []
    for layer in layers:
        record: dict[str, str | int] = asdict(layer)
        if record.pop("dilation") != 1:
            raise DesignError(
                f"layer {shown(layer.name)}: a file of layers has no dilation, got {layer.dilation}; leave the layer out"
            )
        record["K"], record["C"] = layer.G * layer.K, layer.G * layer.C
        if layer.kind not in ("conv", "fc"):
            record.pop("G")
        out.append(record)
    return out
