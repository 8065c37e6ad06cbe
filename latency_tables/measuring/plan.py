"""Which models to time for a work list, and how their times become rows.

A block that keeps its shape is timed in two chains, of 1 and of 5: a fourth of their difference is its row. One that
changes it is timed as the difference between its context with and without it; a stem or join as itself minus the cost of an
empty call; a head as its context with it (without the sink then) minus the context alone. Method ``blk_chain`` of the
additivity study behind this project: isolated blocks are 10 to 30 % wrong where a runtime changes the memory layout.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from latency_tables.errors import ShapeError
from latency_tables.onnx_models.blocks import (
    ALONE,
    build_block_model,
    build_empty_model,
    build_network_model,
    check_chain,
    is_flat,
    keeps_shape,
)
from latency_tables.onnx_models.layers import build_layer_model
from latency_tables.onnx_models.quantise import quantise_model
from latency_tables.opspec import Layer, OpSpec
from latency_tables.worklists import Network, WorkList

CHAIN = 5
EMPTY = "empty"


@dataclass(frozen=True)
class RowPlan:
    """How one row comes from model times: ``(T(more) - T(less)) / divisor``."""

    op: OpSpec
    method: str
    more: str
    less: str
    divisor: int


@dataclass(frozen=True)
class MeasurePlan:
    """All models of a measurement.

    Attributes:
        builders: function that builds the ONNX bytes, by model id.
        rows: how each row is computed.
        calibration, certificate, uniform: model ids of whole networks, with their blocks; disjoint.
        singles: model id of each isolated primitive, by layer; for comparison in the certificate only.
    """

    builders: dict[str, Callable[[], bytes]]
    rows: tuple[RowPlan, ...]
    calibration: tuple[tuple[str, Network], ...]
    certificate: tuple[tuple[str, Network], ...]
    singles: dict[Layer, str]
    uniform: tuple[tuple[str, Network], ...] = ()

    @property
    def networks(self) -> tuple[tuple[str, Network], ...]:
        """All whole networks, whatever they serve."""
        return (*self.calibration, *self.certificate, *self.uniform)

    @property
    def plan_id(self) -> str:
        """Names the set of models, so that a journal of another set is refused."""
        groups = ((name for name, _ in group) for group in (self.calibration, self.certificate, self.uniform))
        text = "\n".join([*sorted(self.builders), *("|".join(group) for group in groups)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def network_id(ops: Sequence[OpSpec]) -> str:
    """Model id of a whole network."""
    wiring = ops.wiring if isinstance(ops, Network) else None
    text = "\n".join([*(op.key for op in ops), *([] if wiring is None else [str(wiring)])])
    return "net-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def make_plan(work: WorkList, *, seed: int = 0, singles: bool = True) -> MeasurePlan:
    """The models for a work list.

    Half of its networks calibrates, the others certify: a seeded draw out of each pair of networks with neighbouring MACs,
    so that both halves reach over the same range. The uniform ones only certify.

    Raises:
        ShapeError: a network of the list does not fit together.
    """
    builders: dict[str, Callable[[], bytes]] = {EMPTY: build_empty_model}
    rows = [_plan_row(op, builders, seed) for op in work.ops]
    networks = {}
    for ops in (*work.networks, *work.uniform):
        check_chain(ops, ops.wiring)
        networks[network_id(ops)] = ops
        builders[network_id(ops)] = partial(_network, ops, seed)
    spread = list(dict.fromkeys(map(network_id, work.networks)))
    calibration, certificate = _split(spread, {name: sum(op.macs for op in networks[name]) for name in spread}, seed)
    uniform = [name for name in networks if name not in spread]
    layers: dict[Layer, str] = {}
    if singles:
        for op in sorted({op for name in (*certificate, *uniform) for op in networks[name]}, key=lambda op: op.key):
            for layer in op.layers():
                bare = dataclasses.replace(layer, name="single")
                if bare not in layers:
                    layers[bare] = "single-" + "-".join(str(v) for v in dataclasses.astuple(bare)[1:])
                    builders[layers[bare]] = partial(_single, bare, op, seed)
    groups = [tuple((name, networks[name]) for name in group) for group in (calibration, certificate, uniform)]
    return MeasurePlan(builders, tuple(rows), groups[0], groups[1], layers, groups[2])


def _split(names: Sequence[str], macs: dict[str, int], seed: int) -> tuple[list[str], list[str]]:
    rng, ordered = np.random.default_rng(seed), sorted(names, key=lambda name: (macs[name], name))
    first, second = [], []
    for pair in zip(ordered[::2], ordered[1::2]):
        chosen = int(rng.integers(2))
        first.append(pair[chosen])
        second.append(pair[1 - chosen])
    return first, second + ordered[len(ordered) // 2 * 2 :]


def _plan_row(op: OpSpec, builders: dict[str, Callable[[], bytes]], seed: int) -> RowPlan:
    once = f"{op.key}|x1"
    builders[once] = lambda: _block(op, 1, seed)
    if op.kind in ALONE:
        return RowPlan(op, "stem", once, EMPTY, 1)
    if keeps_shape(op):
        more = f"{op.key}|x{CHAIN}"
        builders[more] = lambda: _block(op, CHAIN, seed)
        return RowPlan(op, "chain", more, once, CHAIN - 1)
    starts_with_relu = op.kind in ("reluconv", "sepconv") or (op.kind in ("head", "act") and op.activation == "relu")
    plain = "plain" if starts_with_relu else "relu"
    several = f"{op.inputs}of" if op.inputs > 1 else ""
    shape = f"vector{op.in_channels}" if is_flat(op) else f"{op.in_channels}x{op.in_height}x{op.in_width}"
    base = f"base-{several}{shape}-{plain}-{op.dtype}-b{op.batch}"
    builders.setdefault(base, lambda: _block(op, 0, seed))
    return RowPlan(op, "head" if op.kind == "head" else "tail", once, base, 1)


def _network(ops: Network, seed: int) -> bytes:
    floats = [dataclasses.replace(op, dtype="float32") for op in ops]
    return _in_dtype(build_network_model(floats, seed=seed, wiring=ops.wiring), ops[0].dtype)


def _block(op: OpSpec, repeats: int, seed: int) -> bytes:
    return _in_dtype(build_block_model(dataclasses.replace(op, dtype="float32"), repeats=repeats, seed=seed), op.dtype)


def _single(layer: Layer, op: OpSpec, seed: int) -> bytes:
    return _in_dtype(build_layer_model(layer, batch=op.batch, seed=seed), op.dtype)


def _in_dtype(model: bytes, dtype: str) -> bytes:
    if dtype == "float32":
        return model
    if dtype == "int8":
        return quantise_model(model)
    raise ShapeError(f"models are built in float32 and int8, got {dtype}")


def single_sum_s(ops: Sequence[OpSpec], singles: Mapping[Layer, str], time_s: Mapping[str, float]) -> float:
    """Sum of isolated primitives of a network: the naive prediction, for comparison.

    Args:
        ops: the network.
        singles: model id of each primitive.
        time_s: seconds of each model.

    Returns:
        Seconds.

    Raises:
        ShapeError: a primitive was not planned.
    """
    total = 0.0
    for op in ops:
        for layer in op.layers():
            name = singles.get(dataclasses.replace(layer, name="single"))
            if name is None:
                raise ShapeError(f"no isolated model of {layer} was planned")
            total += time_s[name]
    return total
