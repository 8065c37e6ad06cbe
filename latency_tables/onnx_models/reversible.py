"""ONNX nodes of reversible blocks (``kinds.reversible``), for ``blocks``."""

from __future__ import annotations

import numpy as np

from latency_tables.kinds.reversible import part_sizes
from latency_tables.onnx_models.builder import GraphBuilder
from latency_tables.opspec import OpSpec


def reversible_block(graph: GraphBuilder, op: OpSpec) -> str:
    """Append one reversible block that reads ``value``."""
    before, begin, parts = graph.value, 0, []
    for size in part_sizes(op):
        bounds = [graph.weight(np.array([number], dtype=np.int64)) for number in (begin, begin + size, 1)]
        parts.append(graph.node("Slice", [before, *bounds]))
        begin += size
    for number, size in enumerate(part_sizes(op)):
        others, count = parts[:number] + parts[number + 1 :], op.in_channels - size
        graph.value = others[0] if len(others) == 1 else graph.node("Concat", others, axis=1)
        if op.kind == "revmlp":
            graph.linear(count, op.hidden)
            graph.activate(op.activation)
            graph.linear(op.hidden, size)
        else:
            graph.relu()
            graph.conv(count, size, kernel=op.kernel, pad=op.padding)
        parts[number] = graph.node("Add", [parts[number], graph.value])
    return graph.node("Concat", parts, axis=1)
