"""ONNX models of blocks, alone in their context or as whole networks, with random weights from a seed.

A block is never timed alone: on CPUs whose runtime changes the memory layout an isolated block pays conversions that it
does not pay inside a network. :func:`build_block_model` puts it between a 1x1 convolution and a nearly free sink (a
pooling that reads one pixel a channel), once or several times in a row. ``onnx`` is imported on use: a board runs
models and needs no ``onnx``.
"""

from __future__ import annotations

from collections.abc import Sequence

from latency_tables.errors import ShapeError
from latency_tables.kinds.cells import CELL_KINDS
from latency_tables.kinds.joins import JOIN_KINDS, side_sizes
from latency_tables.kinds.memories import MEMORY_KINDS
from latency_tables.kinds.reversible import REVERSIBLE_KINDS
from latency_tables.kinds.vectors import VECTOR_KINDS
from latency_tables.onnx_models.builder import FRAMES, GraphBuilder
from latency_tables.onnx_models.cells import cell_block
from latency_tables.onnx_models.memory import memory_block
from latency_tables.onnx_models.reversible import reversible_block
from latency_tables.opspec import OpSpec


def build_network_model(ops: Sequence[OpSpec], *, seed: int = 0, wiring: Sequence[Sequence[int]] | None = None) -> bytes:
    """ONNX model of a whole network: ``frames`` to ``outputs``; frames are uint8 NHWC for a stem, else float NCHW or vectors.

    Args:
        ops: the blocks in order of execution.
        seed: of the weights.
        wiring: for each block the indices of the blocks that it reads; None: each reads the one before. Further blocks that read
            none have inputs of their own, ``frames1`` and so on.

    Raises:
        ShapeError: the list is empty, an operation does not fit what it reads, or the weights are more than a core takes.
    """
    check_chain(ops, wiring)
    return _build(ops, seed=seed, wiring=wiring)


def build_block_model(op: OpSpec, *, repeats: int = 1, seed: int = 0) -> bytes:
    """ONNX model of a block in its context: pre, block ``repeats`` times, sink (a stem and a join have no pre, a head no sink).

    ``repeats=0`` gives the context alone, for the difference.

    Raises:
        ShapeError: repeats are asked of a block that changes its shape, no block of a stem, or more weights than a core takes.
    """
    if repeats > 1 and not keeps_shape(op):
        raise ShapeError(f"{op.key} changes its shape and cannot be chained {repeats} times")
    if repeats < 1 and op.kind in ALONE:
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
    return same and op.kind not in ("stem", "head", "merge", *JOIN_KINDS)


def input_channels(op: OpSpec) -> int:
    """Channels of each tensor that a block reads; of a join in its context those of the last one."""
    return op.in_channels // op.inputs if op.kind in ("merge", *JOIN_KINDS) else op.in_channels


def is_flat(op: OpSpec) -> bool:
    """Whether a block that comes first reads a vector ``[batch, features]``."""
    return op.kind in (*VECTOR_KINDS, *JOIN_KINDS) or (op.kind == "head" and op.reads_vector)


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
        if not inputs and right.kind in ENTRIES:
            continue
        if len(inputs) != right.inputs or not all(0 <= i < number for i in inputs):
            raise ShapeError(f"operation {number} ({right.key}) must read {right.inputs} earlier ones, got {list(inputs)}")
        read = (input_channels(right), right.in_height, right.in_width)
        if right.kind in JOIN_KINDS:
            total = sum(ops[i].out_channels * ops[i].out_height * ops[i].out_width for i in inputs)
            if total != right.in_channels or any(ops[i].kind == "head" for i in inputs):
                raise ShapeError(f"operation {number} ({right.key}) reads vectors of {total} numbers together")
            continue
        for left in (ops[i] for i in inputs):
            made = (left.out_channels, left.out_height, left.out_width)
            other = left.batch != right.batch or left.dtype != right.dtype
            if left.kind == "head" or right.kind == "stem" or made != read or other:
                raise ShapeError(f"operation {number} ({right.key}) cannot follow operation {ops.index(left)} ({left.key})")


def append_block(graph: GraphBuilder, op: OpSpec, inputs: Sequence[str] = ()) -> str:
    """Append one fused block that reads ``inputs``; without them ``value``, and the context's sides if it reads several."""
    if inputs:
        graph.value = inputs[0]
    if op.kind in CELL_KINDS:
        return cell_block(graph, op, list(inputs) or [graph.value, *graph.sides])
    if op.kind in REVERSIBLE_KINDS:
        return reversible_block(graph, op)
    if op.kind in MEMORY_KINDS:
        return memory_block(graph, op)
    if op.kind in JOIN_KINDS:
        sides = [graph.node("Flatten", [name], axis=1) for name in list(inputs) or [graph.value, *graph.sides]]
        graph.flat = True
        return graph.node("Concat", sides, axis=1)
    c, o, k, s, p = op.in_channels, op.out_channels, op.kernel, op.stride, op.padding
    before = graph.value
    if op.kind == "stem":
        graph.scale_frames()
        if op.groups > 1:
            graph.node("AveragePool", [graph.value], kernel_shape=[op.groups] * 2, strides=[op.groups] * 2)
        graph.conv(c, o, kernel=k, stride=s, pad=p)
        return graph.relu(op.activation == "relu")
    if op.kind == "conv":
        graph.conv(c, o, kernel=k, stride=s, pad=p, groups=op.groups)
        return graph.relu(op.activation == "relu")
    if op.kind == "mbconv":
        m = c * op.expansion
        if op.expansion > 1:
            graph.conv(c, m)
            graph.relu()
        graph.conv(m, m, kernel=k, stride=s, pad=p, groups=m)
        graph.relu()
        graph.conv(m, o)
        if op.sums_input:
            graph.node("Add", [graph.value, before])
        return graph.relu(op.activation == "relu")
    if op.kind == "maxpool":
        return graph.node("MaxPool", [graph.value], kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)
    if op.kind == "residual":
        graph.relu()
        graph.conv(c, c, kernel=k, pad=p)
        graph.relu()
        graph.conv(c, c, kernel=k, pad=p)
        return graph.node("Add", [before, graph.value])
    if op.kind == "linear":
        graph.linear(c, o)
        return graph.activate(op.activation)
    if op.kind == "mlp":
        graph.linear(c, op.hidden)
        graph.activate(op.activation)
        graph.linear(op.hidden, o)
        return graph.node("Add", [before, graph.value]) if op.sums_input else graph.value
    graph.relu(op.activation == "relu")
    if op.pools:
        graph.node("GlobalAveragePool", [graph.value])
    if not graph.flat:
        graph.node("Flatten", [graph.value], axis=1)
    if not op.hidden:
        return graph.linear(op.features, o)
    graph.linear(op.features, op.hidden)
    graph.relu()
    return graph.linear(op.hidden, o)


def append_context(graph: GraphBuilder, op: OpSpec) -> str:
    """Context before a block: a 1x1 convolution (linear for vectors), with ReLU unless the block starts with its own.

    A row of them for several inputs.
    """
    channels, starts_with_relu = input_channels(op), op.kind in ("residual", "reluconv", "sepconv")
    for _ in range(op.inputs):
        (graph.linear if graph.flat else graph.conv)(channels, channels)
        graph.relu(not (starts_with_relu or (op.kind in ("head", "act") and op.activation == "relu")))
        graph.sides.append(graph.value)
    graph.sides.pop()
    return graph.value


ENTRIES = ("stem", "linear")  # may read observations
ALONE = ("stem", *JOIN_KINDS)  # their own context


def _build(
    ops: Sequence[OpSpec], *, seed: int, context: OpSpec | None = None, wiring: Sequence[Sequence[int]] | None = None
) -> bytes:
    first, graph = (context or ops[0]), GraphBuilder(seed)
    if first.dtype != "float32":
        raise ShapeError(f"models are built in float32, got {first.key}; quantise.quantise_model makes the int8 form")
    graph.value = FRAMES
    graph.flat = is_flat(first)
    shape, element = _input_of(first)
    further: list[tuple[str, tuple[int, ...], int]] = []
    if context is not None and context.kind not in ALONE:
        append_context(graph, context)
    elif context is not None and context.kind in JOIN_KINDS:
        graph.sides = [f"{FRAMES}{i}" for i in range(1, context.groups)]
        further = [(name, (first.batch, input_channels(first)), element) for name in graph.sides]
    made: list[str] = []
    for number, op in enumerate(ops):
        inputs = [] if wiring is None or not number else [made[i] for i in wiring[number]]
        if wiring is not None and number and not inputs:
            inputs = [f"{FRAMES}{len(further) + 1}"]
            further.append((inputs[0], *_input_of(op)))
        made.append(append_block(graph, op, inputs))
    last = ops[-1] if ops else None
    out = shape if last is None else (last.batch, last.out_channels, last.out_height, last.out_width)
    if graph.flat or (last is not None and last.kind == "head"):
        out = out[:2]
    elif context is not None:
        side = max(out[2:])
        graph.sink(side)
        out = (*out[:2], *((size - 1) // side + 1 for size in out[2:]))
    return graph.finish(FRAMES, shape, element, out, further)


def _input_of(op: OpSpec) -> tuple[tuple[int, ...], int]:
    """Shape and type of what a block reads that comes first."""
    from onnx import TensorProto

    channels, size = side_sizes(op)[0] if op.kind in JOIN_KINDS else input_channels(op), (op.in_height, op.in_width)
    if op.kind == "stem":
        return (op.batch, *size, channels), TensorProto.UINT8
    return ((op.batch, channels) if is_flat(op) else (op.batch, channels, *size)), TensorProto.FLOAT
