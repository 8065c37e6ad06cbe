"""ONNX nodes of the blocks that only cells have (``kinds.cells``), for ``blocks``."""

from __future__ import annotations

from collections.abc import Sequence

from latency_tables.onnx_models.builder import GraphBuilder
from latency_tables.opspec import OpSpec


def cell_block(graph: GraphBuilder, op: OpSpec, inputs: Sequence[str]) -> str:
    """Append one block of these kinds.

    Args:
        graph: what is built so far; its ``value`` is the first input.
        op: the block.
        inputs: names of the tensors that it reads.

    Returns:
        Name of its output.
    """
    c, o, k, s, p = op.in_channels, op.out_channels, op.kernel, op.stride, op.padding
    if op.kind == "add":
        for other in inputs[1:]:
            graph.node("Add", [graph.value, other])
        return graph.value
    if op.kind == "merge":
        graph.node("Concat", list(inputs), axis=1)
        return graph.conv(c, o)
    if op.kind == "avgpool" or (op.kind == "act" and s > 1):
        graph.node("AveragePool", [graph.value], kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)
    if op.kind == "avgpool":
        return graph.value
    if op.kind == "act":
        return graph.relu() if op.activation == "relu" else graph.node("Tanh", [graph.value])
    if op.kind == "dilconv":
        graph.conv(c, o, kernel=k, stride=s, pad=p, dilation=2)
        return graph.relu(op.activation == "relu")
    graph.relu()
    if op.kind == "reluconv":
        return graph.conv(c, o, kernel=k, stride=s, pad=p)
    graph.conv(c, c, kernel=k, stride=s, pad=p, groups=c)
    graph.conv(c, c)
    graph.relu()
    graph.conv(c, c, kernel=k, pad=k // 2, groups=c)
    return graph.conv(c, o)
