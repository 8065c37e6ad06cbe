"""Kinds of blocks that read vectors and keep numbers from one observation to the next: recurrent cells, and stacked features.

The cells are those of Cho et al. 2014 (arXiv 1406.1078) and Hochreiter and Schmidhuber 1997, in the form of ONNX's operators and
of cuDNN (the reset gate acts behind the recurrent layer). What a block keeps goes into the network and comes out of it: the
network itself has no state.
"""

from __future__ import annotations

from latency_tables.kinds.layer import Block, Layer

MEMORY_KINDS = {
    "gru": "gated recurrent unit, linear of its state, sum with the input",
    "lstm": "long short-term memory, linear of its output, sum with the input",
    "stack": "linear, activation of the input beside the inputs of the steps before, sum with the input",
}
GATES = {"gru": 3, "lstm": 4}


def kept_numbers(op: Block) -> int:
    """How many numbers a block keeps from one observation to the next; 0 for the kinds that keep none."""
    if op.kind == "stack":
        return (op.groups - 1) * op.in_channels
    return {"gru": 1, "lstm": 2}.get(op.kind, 0) * op.hidden


def memory_faults(op: Block) -> list[str]:
    """What is wrong with a block of these kinds, in words; empty for a valid one and for other kinds.

    Args:
        op: a block whose fields are in their ranges.
    """
    if op.kind not in MEMORY_KINDS:
        return []
    faults: list[str] = []
    if op.in_channels != op.out_channels:
        faults.append(f"{op.kind} keeps the width, got {op.in_channels} -> {op.out_channels}")
    if (op.kernel, op.stride, op.padding, op.expansion) != (1, 1, 0, 1):
        faults.append(f"{op.kind} has no window or expansion")
    if op.kind == "stack" and (op.groups < 2 or op.hidden):
        faults.append(f"a stack has at least 2 steps (groups) and no hidden layer, got {op.groups} and {op.hidden}")
    if op.kind in GATES and (op.hidden < 1 or op.groups != 1 or op.activation != "none"):
        faults.append(
            f"hidden of a {op.kind} must be at least 1, groups 1 and its activation none, "
            f"got {op.hidden}, {op.groups} and {op.activation}"
        )
    return faults


def memory_layers(op: Block) -> tuple[Layer, ...]:
    """The primitives of a block of these kinds, in order of execution; the maps of a cell's gates count as one."""
    c, n = op.in_channels, op.hidden
    if op.kind == "stack":
        return (_map("stack", op.groups * c), _linear("linear", op.groups * c, c))
    gates = GATES[op.kind] * n
    return (_linear("inputs", c, gates), _linear("state", n, gates), _map("gates", gates), _linear("outputs", n, c))


def _linear(name: str, inputs: int, outputs: int) -> Layer:
    return Layer(name, "fc", inputs, outputs, 1, 1, 1, 1, 1, 0, 1, 1)


def _map(name: str, size: int) -> Layer:
    return Layer(name, "relu", size, size, 1, 1, 1, 1, 1, 0, 1, 1)
