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

from latency_tables.cell_kinds import CELL_KINDS
from latency_tables.errors import ShapeError
from latency_tables.onnx_models.cells import cell_block
from latency_tables.opspec import OpSpec
from latency_tables.vector_kinds import VECTOR_KINDS

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
        self.flat = False  # the value is a vector [batch, features] and no feature map
        self._rng = np.random.default_rng(seed)
        self._count = 0
        self.sides: list[str] = []  # further tensors that a block in its context reads

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

    def conv(
        self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, pad: int = 0, groups: int = 1, dilation: int = 1
    ) -> str:
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
            **({"dilations": [dilation] * 2} if dilation > 1 else {}),
        )

    def linear(self, inputs: int, out: int) -> str:
        """Fully connected layer with bias of ``value``."""
        weights = self._rng.normal(0, (2 / inputs) ** 0.5, (out, inputs)).astype(np.float32)
        bias = self._rng.normal(0, 0.01, out).astype(np.float32)
        return self.node("Gemm", [self.value, self.weight(weights), self.weight(bias)], transB=1)

    def relu(self, active: bool = True) -> str:
        """ReLU of ``value``, or nothing."""
        return self.node("Relu", [self.value]) if active else self.value

    def activate(self, activation: str) -> str:
        """``none``, ``relu`` or ``tanh`` of ``value``."""
        return self.node("Tanh", [self.value]) if activation == "tanh" else self.relu(activation == "relu")

    def scale_frames(self) -> str:
        """uint8 NHWC frames to float NCHW in [0, 1]."""
        self.node("Transpose", [self.value], perm=[0, 3, 1, 2])
        self.node("Cast", [self.value], to=1)
        return self.node("Mul", [self.value, self.weight(np.array(1 / 255, dtype=np.float32))])

    def block(self, op: OpSpec, inputs: Sequence[str] = ()) -> str:
        """Append one fused block that reads ``inputs``; without them ``value``, and the context's sides if it reads several."""
        if inputs:
            self.value = inputs[0]
        if op.kind in CELL_KINDS:
            return cell_block(self, op, list(inputs) or [self.value, *self.sides])
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
        if op.kind == "linear":
            self.linear(c, o)
            return self.activate(op.activation)
        if op.kind == "mlp":
            self.linear(c, op.hidden)
            self.activate(op.activation)
            self.linear(op.hidden, o)
            return self.node("Add", [before, self.value]) if op.sums_input else self.value
        self.relu(op.activation == "relu")
        if not self.flat:
            self.node("Flatten", [self.value], axis=1)
        if not op.hidden:
            return self.linear(c, o)
        self.linear(c * op.in_height * op.in_width, op.hidden)
        self.relu()
        return self.linear(op.hidden, o)

    def pre(self, op: OpSpec) -> str:
        """Context before a block: a 1x1 convolution (linear for vectors), with ReLU unless the block starts with its own.

        A row of them for several inputs.
        """
        channels, starts_with_relu = input_channels(op), op.kind in ("residual", "reluconv", "sepconv")
        for _ in range(op.inputs):
            (self.linear if self.flat else self.conv)(channels, channels)
            self.relu(not (starts_with_relu or (op.kind in ("head", "act") and op.activation == "relu")))
            self.sides.append(self.value)
        self.sides.pop()
        return self.value

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


def build_network_model(ops: Sequence[OpSpec], *, seed: int = 0, wiring: Sequence[Sequence[int]] | None = None) -> bytes:
    """ONNX model of a whole network: ``frames`` to ``outputs``; frames are uint8 NHWC for a stem, else float NCHW or vectors.

    Args:
        ops: the blocks in order of execution.
        seed: of the weights.
        wiring: for each block the indices of the blocks that it reads; None: each reads the one before.

    Raises:
        ShapeError: the list is empty, or an operation does not fit what it reads.
    """
    check_chain(ops, wiring)
    return _build(ops, seed=seed, wiring=wiring)


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
    return same and op.kind not in ("stem", "head", "merge")


def input_channels(op: OpSpec) -> int:
    """Channels of each tensor that a block reads."""
    return op.in_channels // op.inputs if op.kind == "merge" else op.in_channels


def is_flat(op: OpSpec) -> bool:
    """Whether a block that comes first reads a vector ``[batch, features]``."""
    return op.kind in VECTOR_KINDS or (op.kind == "head" and op.reads_vector)


def check_chain(ops: Sequence[OpSpec], wiring: Sequence[Sequence[int]] | None = None) -> None:
    """Check that each operation reads what the ones that it is wired to (the one before it) write.

    Raises:
        ShapeError: it does not, or the list is empty.
    """
    if not ops:
        raise ShapeError("a network needs at least one operation, got an empty list")
    wiring = [[i - 1] if i else [] for i in range(len(ops))] if wiring is None else wiring
    if len(wiring) != len(ops) or len(wiring[0]):
        raise ShapeError(f"a network of {len(ops)} operations needs the inputs of each, none for the first; got {wiring}")
    for number, (right, inputs) in enumerate(zip(ops[1:], wiring[1:]), 1):
        if len(inputs) != right.inputs or not all(0 <= i < number for i in inputs):
            raise ShapeError(f"operation {number} ({right.key}) must read {right.inputs} earlier ones, got {list(inputs)}")
        read = (input_channels(right), right.in_height, right.in_width)
        for left in (ops[i] for i in inputs):
            made = (left.out_channels, left.out_height, left.out_width)
            other = left.batch != right.batch or left.dtype != right.dtype
            if left.kind == "head" or right.kind == "stem" or made != read or other:
                raise ShapeError(f"operation {number} ({right.key}) cannot follow operation {ops.index(left)} ({left.key})")


def _build(
    ops: Sequence[OpSpec], *, seed: int, context: OpSpec | None = None, wiring: Sequence[Sequence[int]] | None = None
) -> bytes:
    from onnx import TensorProto

    first, graph = (context or ops[0]), GraphBuilder(seed)
    if first.dtype != "float32":
        raise ShapeError(f"models are built in float32, got {first.key}; quantise.quantise_model makes the int8 form")
    graph.value = FRAMES
    is_stem = first.kind == "stem"
    graph.flat = is_flat(first)
    channels, size = input_channels(first), (first.in_height, first.in_width)
    shape: tuple[int, ...] = (first.batch, *size, channels) if is_stem else (first.batch, channels, *size)
    shape = shape[:2] if graph.flat else shape
    if context is not None and not is_stem:
        graph.pre(context)
    made: list[str] = []
    for number, op in enumerate(ops):
        made.append(graph.block(op, () if wiring is None or not number else [made[i] for i in wiring[number]]))
    last = ops[-1] if ops else None
    out = shape if last is None else (last.batch, last.out_channels, last.out_height, last.out_width)
    if graph.flat or (last is not None and last.kind == "head"):
        out = out[:2]
    elif context is not None:
        side = max(out[2:])
        graph.sink(side)
        out = (*out[:2], *((size - 1) // side + 1 for size in out[2:]))
    return graph.finish(FRAMES, shape, TensorProto.UINT8 if is_stem else TensorProto.FLOAT, out)
