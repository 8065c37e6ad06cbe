"""Layers as accelerator models see them, made from the project's operations or read from a file, and as tensors.

A layer file is JSON (``{"name": ..., "layers": [{"name", "kind", "C", "K", ...}]}``) or CSV with the same columns. Only
``conv``, ``dw`` (depthwise) and ``fc`` keep the array busy; ``pool`` and ``add`` stream through it; ``relu`` and ``cast`` are
applied while a tile leaves or enters a buffer and cost nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from latency_tables.errors import DesignError
from latency_tables.opspec import Layer, OpSpec

ARRAY_KINDS = ("conv", "dw", "fc")
STREAM_KINDS = ("pool", "add")
FREE_KINDS = ("relu", "cast")
NETWORKS = Path(__file__).with_name("networks")


@dataclass(frozen=True)
class LayerShape:
    """One layer, batch 1.

    Attributes:
        name: text for reports.
        kind: ``conv``, ``dw``, ``fc``, ``pool``, ``add``, ``relu`` or ``cast``.
        G, K, C: groups, output and input channels *per group*; depthwise has ``K = C = 1``.
        P, Q, R, S, stride: output rows and columns, kernel rows and columns, stride.
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

    def __post_init__(self) -> None:
        if self.kind not in ARRAY_KINDS + STREAM_KINDS + FREE_KINDS:
            known = ", ".join(ARRAY_KINDS + STREAM_KINDS + FREE_KINDS)
            raise DesignError(f"layer {self.name!r}: kind must be one of {known}, got {self.kind!r}")
        wrong = [
            f"{n}={getattr(self, n)!r}"
            for n in ("G", "K", "C", "P", "Q", "R", "S", "stride")
            if type(getattr(self, n)) is not int or getattr(self, n) < 1
        ]
        if wrong:
            raise DesignError(f"layer {self.name!r}: sizes must be integers of at least 1, got {', '.join(wrong)}")

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations; 0 for layers without weights."""
        return self.G * self.K * self.C * self.P * self.Q * self.R * self.S if self.kind in ARRAY_KINDS else 0

    @property
    def inputs(self) -> int:
        """Input elements that the layer reads, padding counted as data; both summands of an ``add``."""
        window = ((self.P - 1) * self.stride + self.R) * ((self.Q - 1) * self.stride + self.S)
        return self.G * self.C * window * (2 if self.kind == "add" else 1)

    @property
    def outputs(self) -> int:
        """Output elements."""
        return self.G * self.K * self.P * self.Q

    @property
    def weights(self) -> int:
        """Weight elements without biases; 0 for layers without weights."""
        return self.G * self.K * self.C * self.R * self.S if self.kind in ARRAY_KINDS else 0


def from_layer(layer: Layer, groups: int = 1) -> LayerShape:
    """The shape of one primitive of the project's vocabulary.

    Args:
        layer: its ``C`` counts the input channels of one group.
        groups: convolution groups, 1 for all but grouped convolutions.
    """
    sizes = {"P": layer.P, "Q": layer.Q, "R": layer.R, "S": layer.S, "stride": layer.stride}
    if layer.kind in ("conv", "fc"):
        return LayerShape(layer.name, layer.kind, groups, layer.K // groups, layer.C, **sizes)
    return LayerShape(layer.name, layer.kind, layer.K, 1, 1, **sizes)


def from_blocks(blocks: Iterable[OpSpec]) -> list[list[LayerShape]]:
    """The layers of each block, names prefixed by the block's place in the list."""
    out = []
    for index, block in enumerate(blocks):
        depthwise = block.groups == block.in_channels == block.out_channels
        groups = block.groups if block.kind == "conv" and not depthwise else 1
        out.append([replace(from_layer(layer, groups), name=f"{index}.{layer.name}") for layer in block.layers()])
    return out


def _from_record(record: object, where: str) -> LayerShape:
    try:
        if not isinstance(record, Mapping):
            raise TypeError("not an object")
        sizes = {n: int(record[n]) for n in ("C", "K", "P", "Q", "R", "S", "stride")}
        name, kind = str(record["name"]), str(record["kind"])
        groups = int(record.get("G") or 1)
    except (KeyError, TypeError, ValueError) as error:
        raise DesignError(f"{where}: a layer needs name, kind and integer C, K, P, Q, R, S, stride; got {record!r}") from error
    if kind in ("conv", "fc"):
        return LayerShape(name, kind, groups, sizes.pop("K") // groups, sizes.pop("C") // groups, **sizes)
    channels = sizes.pop("K")
    sizes.pop("C")
    return LayerShape(name, kind, channels, 1, 1, **sizes)


def load_layers(source: str | Path) -> list[LayerShape]:
    """Layers of a shipped network (by name) or of a JSON or CSV file.

    ``C`` and ``K`` in a file are channels of the whole layer, also for depthwise (``C = K``).

    Raises:
        DesignError: the file does not exist or cannot be understood.
    """
    path = Path(source)
    if not path.exists() and (NETWORKS / f"{source}.json").exists():
        path = NETWORKS / f"{source}.json"
    if not path.is_file():
        known = ", ".join(network_names())
        raise DesignError(f"no network {str(source)!r}: give a JSON or CSV file of layers, or one of {known}")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        records: object = list(csv.DictReader(text.splitlines()))
    else:
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise DesignError(f"{path}: not JSON: {error}") from error
        records = content.get("layers") if isinstance(content, dict) else content
    if not isinstance(records, list) or not records:
        raise DesignError(f"{path}: expected a list of layers, or an object with a list under 'layers'")
    return [_from_record(record, str(path)) for record in records]


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
    names = ("G", "K", "C", "P", "Q", "R", "S", "stride", "macs", "weights", "inputs", "outputs")
    columns = {n: torch.tensor([float(getattr(layer, n)) for layer in layers], dtype=torch.float64) for n in names}
    masks = {"depthwise": ("dw",), "streams": STREAM_KINDS, "busy": ARRAY_KINDS}
    return LayerTensors(**columns, **{n: torch.tensor([layer.kind in kinds for layer in layers]) for n, kinds in masks.items()})


def to_records(layers: Sequence[LayerShape]) -> list[dict[str, str | int]]:
    """Layers as JSON records in the format that :func:`load_layers` reads."""
    out = []
    for layer in layers:
        record: dict[str, str | int] = asdict(layer)
        record["K"], record["C"] = layer.G * layer.K, layer.G * layer.C
        if layer.kind not in ("conv", "fc"):
            record.pop("G")
        out.append(record)
    return out
