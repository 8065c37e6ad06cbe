"""Builds ONNX models of blocks and networks with ``onnx.helper``: no torch, random weights from a seed.

A block is never timed alone: on CPUs whose runtime changes the memory layout an isolated block pays conversions that it
does not pay inside a network. :func:`build_block_model` puts it between a 1x1 convolution and a nearly free sink (a
pooling that reads one pixel a channel), once or several times in a row. ``onnx`` is imported on use: a board runs
models and needs no ``onnx``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from latency_tables.errors import ShapeError
from latency_tables.opspec import Layer, OpSpec

OPSET = 17
IR_VERSION = 8
FRAMES = "frames"
OUTPUTS = "outputs"


class GraphBuilder:
    """Collects nodes and weights; ``value`` names the tensor that the next block reads.

    Weights are normal with the variance that keeps activations of order one, so that no denormal number slows a run.
    """

    def __init__(self, seed: int) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.value = ""
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append one node; its output becomes ``value``."""
        self._count += 1
        self.value = f"v{self._count}"
        name = f"{op_type.lower()}{self._count}"
        self.nodes.append(self._helper.make_node(op_type, list(inputs), [self.value], name=name, **attributes))
        return self.value

    def weight(self, array: np.ndarray) -> str:
        """Append one constant tensor and name it."""
        name = f"w{len(self.weights)}"
        self.weights.append(self._numpy.from_array(array, name))
        return name

    def conv(self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, pad: int = 0, groups: int = 1) -> str:
        """Convolution with bias of ``value``."""
        fan_in = channels // groups * kernel * kernel
        weights = self._rng.normal(0, (2 / fan_in) ** 0.5, (out, channels // groups, kernel, kernel)).astype(np.float32)
        bias = self._rng.normal(0, 0.01, out).astype(np.float32)
        return self.node(
            "Conv",
            [self.value, self.weight(weights), self.weight(bias)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )

    def linear(self, inputs: int, out: int) -> str:
        """Fully connected layer with bias of ``value``."""
        weights = self._rng.normal(0, (2 / inputs) ** 0.5, (out, inputs)).astype(np.float32)
        bias = self._rng.normal(0, 0.01, out).astype(np.float32)
        return self.node("Gemm", [self.value, self.weight(weights), self.weight(bias)], transB=1)

    def relu(self, active: bool = True) -> str:
        """ReLU of ``value``, or nothing."""
        return self.node("Relu", [self.value]) if active else self.value

    def scale_frames(self) -> str:
        """uint8 NHWC frames to float NCHW in [0, 1]."""
        self.node("Transpose", [self.value], perm=[0, 3, 1, 2])
        self.node("Cast", [self.value], to=1)
        return self.node("Mul", [self.value, self.weight(np.array(1 / 255, dtype=np.float32))])

    def block(self, op: OpSpec) -> str:
        """Append one fused block that reads ``value``."""
        c, o, k, s, p = op.in_channels, op.out_channels, op.kernel, op.stride, op.padding
        before = self.value
        if op.kind == "stem":
            self.scale_frames()
            self.conv(c, o, kernel=k, stride=s, pad=p)
            return self.relu(op.activation == "relu")
        if op.kind == "conv":
            self.conv(c, o, kernel=k, stride=s, pad=p, groups=op.groups)
            return self.relu(op.activation == "relu")
        if op.kind == "mbconv":
            m = c * op.expansion
            if op.expansion > 1:
                self.conv(c, m)
                self.relu()
            self.conv(m, m, kernel=k, stride=s, pad=p, groups=m)
            self.relu()
            self.conv(m, o)
            if op.sums_input:
                self.node("Add", [self.value, before])
            return self.relu(op.activation == "relu")
        if op.kind == "maxpool":
            return self.node("MaxPool", [self.value], kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)
        if op.kind == "residual":
            self.relu()
            self.conv(c, c, kernel=k, pad=p)
            self.relu()
            self.conv(c, c, kernel=k, pad=p)
            return self.node("Add", [before, self.value])
        self.relu(op.activation == "relu")
        self.node("Flatten", [self.value], axis=1)
        self.linear(c * op.in_height * op.in_width, op.hidden)
        self.relu()
        return self.linear(op.hidden, o)

    def pre(self, op: OpSpec) -> str:
        """Context before a block: a 1x1 convolution, with ReLU unless the block starts with its own."""
        self.conv(op.in_channels, op.in_channels)
        return self.relu(not (op.kind == "residual" or op.kind == "head" and op.activation == "relu"))

    def sink(self, side: int) -> str:
        """Context after a block: pooling that reads one pixel a channel."""
        return self.node("MaxPool", [self.value], kernel_shape=[1, 1], strides=[side, side])

    def finish(self, input_name: str, input_shape: Sequence[int], input_type: int, output_shape: Sequence[int]) -> bytes:
        """The serialized model, checked."""
        from onnx import TensorProto, checker

        last = self.nodes[-1]
        last.output[0] = OUTPUTS
        graph = self._helper.make_graph(
            self.nodes,
            "network",
            [self._helper.make_tensor_value_info(input_name, input_type, list(input_shape))],
            [self._helper.make_tensor_value_info(OUTPUTS, TensorProto.FLOAT, list(output_shape))],
            self.weights,
        )
        model = self._helper.make_model(
            graph, opset_imports=[self._helper.make_opsetid("", OPSET)], producer_name="latency_tables"
        )
        model.ir_version = IR_VERSION
        checker.check_model(model)
        return model.SerializeToString()


def build_network_model(ops: Sequence[OpSpec], *, seed: int = 0) -> bytes:
    """ONNX model of a whole network: ``frames`` (uint8 NHWC after a stem, else float NCHW) to ``outputs``.

    Raises:
        ShapeError: the list is empty, or an operation does not fit the one before it.
    """
    check_chain(ops)
    return _build(ops, seed=seed)


def build_block_model(op: OpSpec, *, repeats: int = 1, seed: int = 0) -> bytes:
    """ONNX model of a block in its context: pre, block ``repeats`` times, sink (a stem has no pre, a head no sink).

    ``repeats=0`` gives the context alone, for the difference.

    Raises:
        ShapeError: repeats are asked of a block that changes its shape, or no block of a stem.
    """
    if repeats > 1 and not keeps_shape(op):
        raise ShapeError(f"{op.key} changes its shape and cannot be chained {repeats} times")
    if repeats < 1 and op.kind == "stem":
        raise ShapeError(f"{op.key} is its own context; repeats must be 1, got {repeats}")
    return _build([op] * repeats, seed=seed, context=op)


def build_empty_model() -> bytes:
    """ONNX model that does nothing: one ReLU of one number. Its time is the fixed cost of a call."""
    from onnx import TensorProto

    graph = GraphBuilder(0)
    graph.value = FRAMES
    graph.relu()
    return graph.finish(FRAMES, (1, 1), TensorProto.FLOAT, (1, 1))


def keeps_shape(op: OpSpec) -> bool:
    """Whether a block can follow itself."""
    same = (op.in_channels, op.in_height, op.in_width) == (op.out_channels, op.out_height, op.out_width)
    return same and op.kind not in ("stem", "head")


def check_chain(ops: Sequence[OpSpec]) -> None:
    """Check that each operation reads what the one before it writes.

    Raises:
        ShapeError: it does not, or the list is empty.
    """
    if not ops:
        raise ShapeError("a network needs at least one operation, got an empty list")
    for number, (left, right) in enumerate(zip(ops, ops[1:]), 1):  # noqa: RUF007 - Python 3.8 has neither
        made = (left.out_channels, left.out_height, left.out_width)
        read = (right.in_channels, right.in_height, right.in_width)
        if left.kind == "head" or right.kind == "stem" or made != read or left.batch != right.batch or left.dtype != right.dtype:
            raise ShapeError(f"operation {number} ({right.key}) cannot follow operation {number - 1} ({left.key})")


def _build(ops: Sequence[OpSpec], *, seed: int, context: OpSpec | None = None) -> bytes:
    from onnx import TensorProto

    first, graph = (context or ops[0]), GraphBuilder(seed)
    if first.dtype != "float32":
        raise ShapeError(f"models are built in float32, got {first.key}; quantise.quantise_model makes the int8 form")
    graph.value = FRAMES
    is_stem = first.kind == "stem"
    shape = (
        (first.batch, first.in_height, first.in_width, first.in_channels)
        if is_stem
        else (first.batch, first.in_channels, first.in_height, first.in_width)
    )
    if context is not None and not is_stem:
        graph.pre(context)
    for op in ops:
        graph.block(op)
    last = ops[-1] if ops else None
    out = (
        (first.batch, first.in_channels, first.in_height, first.in_width)
        if last is None
        else (last.batch, last.out_channels, last.out_height, last.out_width)
    )
    if last is not None and last.kind == "head":
        out = out[:2]
    elif context is not None:
        side = max(out[2:])
        graph.sink(side)
        out = (*out[:2], *((size - 1) // side + 1 for size in out[2:]))
    return graph.finish(FRAMES, shape, TensorProto.UINT8 if is_stem else TensorProto.FLOAT, out)


def build_layer_model(layer: Layer, *, batch: int = 1, seed: int = 0) -> bytes:
    """ONNX model of one isolated primitive, plain layout in and out: how naive tables are made, for comparison only."""
    from onnx import TensorProto

    graph = GraphBuilder(seed)
    graph.value = FRAMES
    shape: tuple[int, ...] = (batch, layer.C, layer.H, layer.W)
    out: tuple[int, ...] = (batch, layer.K, layer.P, layer.Q)
    kind = TensorProto.FLOAT
    if layer.kind == "cast":
        shape, kind = (batch, layer.H, layer.W, layer.C), TensorProto.UINT8
        graph.scale_frames()
    elif layer.kind == "fc":
        shape, out = (batch, layer.C), (batch, layer.K)
        graph.linear(layer.C, layer.K)
        graph.relu()
    elif layer.kind == "pool":
        graph.node("MaxPool", [graph.value], kernel_shape=[layer.R, layer.S], strides=[layer.stride] * 2, pads=[layer.pad] * 4)
    elif layer.kind == "relu":
        graph.relu()
    else:
        groups = layer.K if layer.kind == "dw" else 1
        graph.conv(layer.C, layer.K, kernel=layer.R, stride=layer.stride, pad=layer.pad, groups=groups)
        graph.relu()
    return graph.finish(FRAMES, shape, kind, out)
