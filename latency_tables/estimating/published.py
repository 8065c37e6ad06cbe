"""Fits a roofline to published measurements of FBNet blocks, and says how far off it is on blocks it has not seen.

The rows are HW-NAS-Bench's FBNet block latencies (Li et al., ICLR 2021): each is a block's time minus that of ``skip``
at the same place. A block is 1x1 convolution, depthwise convolution, 1x1 convolution, also at expansion 1; ``skip`` is
nothing, or a 1x1 convolution where the shape changes. Grouped blocks are left out: our spaces have none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import optimize

from latency_tables.errors import TableError
from latency_tables.estimating.roofline import Roofline
from latency_tables.estimating.specification import Specification
from latency_tables.opspec import Layer
from latency_tables.text.fields import object_of
from latency_tables.text.reading import read_csv, shown

FITTED = ("launch_s", "utilisation_conv", "utilisation_dw", "utilisation_bandwidth")
BOUNDS = {"launch_s": (1e-9, 1e-2)}
HEADER_CHANNELS, CLASSES = 1504, 100
SHAPE = ("in_ch", "out_ch", "stride", "input_h", "input_w")
NEEDED = ("device", "metric", "value_kind", "op", "value", *SHAPE)
MAX_SIZE, MAX_VALUE_MS = 10**6, 1e6
KINDS = {"conv": 0, "dw": 1, "fc": 2}
PARTS = 26  # stem, 22 blocks, header, pooling, classifier


@dataclass(frozen=True)
class PublishedRow:
    """One published latency: seconds of ``layers`` minus seconds of ``minus``; ``place`` names the block's position."""

    name: str
    place: str
    layers: tuple[Layer, ...]
    minus: tuple[Layer, ...]
    latency_s: float


def load_published(path: str | Path, device: str) -> tuple[list[PublishedRow], float]:
    """The block rows of one device, and its constant (stem, all skips, header, pooling, classifier) in seconds.

    Args:
        path: CSV in the form of ``hwnasbench_fbnet_ops.csv``.
        device: as named in its ``device`` column.

    Raises:
        TableError: the file cannot be read, or has no such rows.
    """
    everything = read_csv(Path(path), "published block latencies", NEEDED, TableError)
    try:
        lines = [line for line in everything if line["device"] == device and line["metric"] == "latency"]
        blocks = [line for line in lines if line["value_kind"] == "delta_vs_skip" and not line["op"].endswith("_g2")]
        constants = [_value(line) * 1e-3 for line in lines if line["value_kind"] == "constant"]
        rows = [_row(line) for line in blocks]
    except ValueError as error:
        raise TableError(f"{path}: cannot be read as published block latencies: {error!s:.200}") from error
    if not rows or len(constants) != 1:
        raise TableError(f"{path} has {len(rows)} block rows and {len(constants)} constants of {device}; expected some and 1")
    return rows, constants[0]


def predict_row(roofline: Roofline, row: PublishedRow) -> float:
    """Seconds that a roofline gives for a published row."""
    return sum(map(roofline.kernel_s, row.layers)) - sum(map(roofline.kernel_s, row.minus))


def predict_rows(roofline: Roofline, rows: Sequence[PublishedRow], *, batch: int = 1) -> np.ndarray:
    """``[rows]`` seconds, as :func:`predict_row` gives them one by one, in one pass over all kernels."""
    return _seconds(roofline, _Kernels.of(rows, batch))


@dataclass(frozen=True)
class _Kernels:
    """All kernels of some rows as arrays ``[kernels]``: operations, bytes, kind, row and sign; ``count`` rows."""

    flops: np.ndarray
    moved: np.ndarray
    kind: np.ndarray
    row: np.ndarray
    sign: np.ndarray
    count: int

    @classmethod
    def of(cls, rows: Sequence[PublishedRow], batch: int) -> _Kernels:
        signed = [(layer, i, 1.0) for i, row in enumerate(rows) for layer in row.layers]
        signed += [(layer, i, -1.0) for i, row in enumerate(rows) for layer in row.minus]
        flops = [2.0 * batch * layer.macs for layer, _, _ in signed]
        moved = [4.0 * (batch * (la.elements_in + la.elements_out) + la.params) for la, _, _ in signed]
        kinds = [KINDS.get(layer.kind, len(KINDS)) for layer, _, _ in signed]
        row, sign = np.array([i for _, i, _ in signed]), np.array([sign for *_, sign in signed])
        return cls(np.array(flops), np.array(moved), np.array(kinds), row, sign, len(rows))


def _seconds(roofline: Roofline, kernels: _Kernels) -> np.ndarray:
    shares = np.array([roofline.utilisation_conv, roofline.utilisation_dw, roofline.utilisation_fc, np.inf])
    compute = kernels.flops / (roofline.peak_flops * shares[kernels.kind])
    work = np.maximum(compute, kernels.moved / (roofline.bandwidth_bytes_per_s * roofline.utilisation_bandwidth))
    times = np.maximum(roofline.launch_s, work) if roofline.combine == "max" else roofline.launch_s + work
    return np.bincount(kernels.row, weights=kernels.sign * times, minlength=kernels.count)


def fit_roofline(start: Roofline, rows: Sequence[PublishedRow], *, batch: int = 1) -> Roofline:
    """Constants :data:`FITTED` by least squares of the relative error, from ``start``; the others stay."""
    names = list(FITTED)
    low = np.log([BOUNDS.get(name, (1e-4, 1.0))[0] for name in names])
    high = np.log([BOUNDS.get(name, (1e-4, 1.0))[1] for name in names])
    kernels, measured = _Kernels.of(rows, batch), np.array([row.latency_s for row in rows])

    def residuals(logs: np.ndarray) -> np.ndarray:
        roofline = replace(start, **dict(zip(names, np.exp(logs).tolist(), strict=True)))
        return _seconds(roofline, kernels) / measured - 1

    first = np.clip(np.log([max(getattr(start, name), 1e-9) for name in names]), low + 1e-6, high - 1e-6)
    fit = optimize.least_squares(residuals, first, bounds=(low, high), loss="soft_l1")
    return replace(start, **dict(zip(names, np.exp(fit.x).tolist(), strict=True)))


@dataclass(frozen=True)
class LeftOutError:
    """Relative error on blocks that took no part in the fit, as fractions.

    Attributes:
        rows: number of blocks.
        mape, median_ape, p95_ape: mean, median and 95th percentile of the absolute error.
        bias: mean signed error; positive: predicted too slow.
        ratio_low, ratio_high: 2.5th and 97.5th percentile of published over predicted latency.
    """

    rows: int
    mape: float
    median_ape: float
    p95_ape: float
    bias: float
    ratio_low: float
    ratio_high: float

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object, with ``kind`` in words."""
        return {"kind": "leave one block position out, published FBNet blocks without grouped ones", **asdict(self)}


def left_out_error(start: Roofline, rows: Sequence[PublishedRow]) -> LeftOutError:
    """Relative error on each place's rows when fitted on the other places only."""
    errors = []
    for place in sorted({row.place for row in rows}):
        fitted = fit_roofline(start, [row for row in rows if row.place != place])
        errors += [predict_row(fitted, row) / row.latency_s - 1 for row in rows if row.place == place]
    size, ratios = np.abs(errors), 1 / (1 + np.array(errors))
    return LeftOutError(
        rows=len(errors),
        mape=float(size.mean()),
        median_ape=float(np.median(size)),
        p95_ape=float(np.quantile(size, 0.95)),
        bias=float(np.mean(errors)),
        ratio_low=float(np.quantile(ratios, 0.025)),
        ratio_high=float(np.quantile(ratios, 0.975)),
    )


def constant_s(roofline: Roofline, rows: Sequence[PublishedRow]) -> float:
    """Seconds that a roofline gives for stem, shape-changing skips, header, pooling and classifier of that network."""
    skips = {row.place: row.minus for row in rows if row.minus}
    side = 4
    last = (
        Layer("stem", "conv", 3, 16, 32, 32, 3, 3, 1, 1, 32, 32),
        Layer("header", "conv", 352, HEADER_CHANNELS, side, side, 1, 1, 1, 0, side, side),
        Layer("pool", "pool", HEADER_CHANNELS, HEADER_CHANNELS, side, side, side, side, 1, 0, 1, 1),
        Layer("classifier", "fc", HEADER_CHANNELS, CLASSES, 1, 1, 1, 1, 1, 0, 1, 1),
    )
    return sum(map(roofline.kernel_s, (*last, *(layer for layers in skips.values() for layer in layers))))


def refit_spec(spec: Specification, path: str | Path) -> Specification:
    """The specification with its fitted constants, overhead, error and interval computed anew from published rows.

    The published network is a sum over separately timed parts, so what its constant holds beyond the modelled kernels
    is taken as the fixed cost of :data:`PARTS` calls.

    Raises:
        TableError: the specification names no published device, or the file does not hold it.
    """
    if spec.published is None:
        raise TableError(f"the specification of {spec.name} names no published rows; it cannot be fitted to {path}")
    rows, constant = load_published(path, spec.published)
    start = spec.roofline()
    fitted = fit_roofline(start, rows)
    constants = dict(spec.constants)
    for name in FITTED:
        constants[name] = {**object_of(constants[name], name, "value and source"), "value": getattr(fitted, name)}
    error = left_out_error(start, rows)
    overhead_s = max(0.0, constant - constant_s(fitted, rows)) / PARTS
    interval = (min(1.0, error.ratio_low), max(1.0, error.ratio_high))
    return replace(spec, constants=constants, overhead_s=overhead_s, error=error.to_dict(), interval_factors=interval)


def _row(line: dict[str, str]) -> PublishedRow:
    return block_row(line["op"], block_shape(line), _value(line) * 1e-3)


def _value(line: dict[str, str]) -> float:
    value = float(line["value"])
    if not abs(value) <= MAX_VALUE_MS:
        raise ValueError(f"value must be a number up to {MAX_VALUE_MS:g} (milliseconds), got {shown(line['value'])}")
    return value


def block_shape(line: dict[str, str]) -> tuple[int, ...]:
    """``(in_channels, out_channels, stride, height, width)`` of the input of a published block.

    Raises:
        ValueError: one is no integer from 1 to ``MAX_SIZE``.
    """
    for name in SHAPE:
        if not re.fullmatch("[0-9]{1,9}", line[name]) or not 1 <= int(line[name]) <= MAX_SIZE:
            raise ValueError(f"{name} must be an integer from 1 to {MAX_SIZE}, got {shown(line[name])}")
    return tuple(int(line[name]) for name in SHAPE)


def block_row(name: str, shape: tuple[int, ...], latency_s: float, *, above_skip: bool = True) -> PublishedRow:
    """A published latency of one FBNet block.

    Args:
        name: such as ``k3_e6``.
        shape: ``(in_channels, out_channels, stride, height, width)``, of the input.
        latency_s: published seconds.
        above_skip: whether ``skip``'s seconds at the same place were taken away.

    Raises:
        ValueError: the name is no such block.
    """
    parts = re.fullmatch(r"k([1-9][0-9]?)_e([1-9][0-9]?)", name)
    if not parts:
        raise ValueError(f"op must be like k3_e6, got {shown(name)}")
    kernel, widen = int(parts[1]), int(parts[2])
    c, o, stride, h, w = shape
    m, y, x = c * widen, -(-h // stride), -(-w // stride)
    layers = (
        Layer("expand", "conv", c, m, h, w, 1, 1, 1, 0, h, w),
        Layer("depthwise", "dw", m, m, h, w, kernel, kernel, stride, kernel // 2, y, x),
        Layer("project", "conv", m, o, y, x, 1, 1, 1, 0, y, x),
    )
    keeps = stride == 1 and c == o
    minus = () if keeps or not above_skip else (Layer("skip", "conv", c, o, h, w, 1, 1, stride, 0, y, x),)
    return PublishedRow(name, f"{c}-{o}-s{stride}-{h}x{w}", layers, minus, latency_s)
