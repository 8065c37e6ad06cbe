"""ONNX nodes of blocks that keep numbers from one observation to the next (``kinds.memories``), for ``blocks``.

What a block keeps is an input and an output of the model, as in an exported agent, so that neither can be left out or computed
beforehand.
"""

from __future__ import annotations

import numpy as np

from latency_tables.kinds.memories import GATES
from latency_tables.onnx_models.builder import GraphBuilder
from latency_tables.opspec import OpSpec


def memory_block(graph: GraphBuilder, op: OpSpec) -> str:
    """Append one block with a memory that reads ``value``."""
    before, kept = graph.value, graph.remember(op.batch, op.memory)
    if op.kind == "stack":
        graph.node("Concat", [before, kept], axis=1)
        stacked = graph.value
        graph.keep(_part(graph, stacked, 0, op.memory))
        graph.value = stacked
        graph.linear(op.groups * op.in_channels, op.out_channels)
        graph.activate(op.activation)
        return graph.node("Add", [before, graph.value])
    n, first = op.hidden, graph.weight(np.array([0], dtype=np.int64))
    parts = [kept] if op.kind == "gru" else [_part(graph, kept, 0, n), _part(graph, kept, n, 2 * n)]
    states = [graph.node("Unsqueeze", [part, first]) for part in parts]
    read = graph.node("Unsqueeze", [before, first])
    gates = GATES[op.kind]
    weights = graph.normal((1, gates * n, op.in_channels), op.in_channels), graph.normal((1, gates * n, n), n)
    biases = graph.normal((1, 2 * gates * n), n)
    form = {"linear_before_reset": 1} if op.kind == "gru" else {}
    found = graph.cell(op.kind.upper(), [read, *weights, biases, "", *states], len(states), hidden_size=n, **form)
    after = [graph.node("Squeeze", [state, first]) for state in found]
    graph.keep(after[0] if len(after) == 1 else graph.node("Concat", after, axis=1))
    graph.value = after[0]
    graph.linear(n, op.out_channels)
    return graph.node("Add", [before, graph.value])


def _part(graph: GraphBuilder, value: str, begin: int, end: int) -> str:
    """The numbers from ``begin`` to ``end`` of each row."""
    return graph.node("Slice", [value, *(graph.weight(np.array([number], dtype=np.int64)) for number in (begin, end, 1))])
