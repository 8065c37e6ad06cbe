"""Kinds of blocks that read vectors: layers and residual blocks of a multilayer perceptron, and blocks with a memory."""

from __future__ import annotations

from latency_tables.kinds.layer import Block, Layer
from latency_tables.kinds.memories import MEMORY_KINDS
from latency_tables.kinds.reversible import REVERSIBLE_KINDS

VECTOR_KINDS = {
    "linear": "linear, bias, activation, of a vector; first in a network: of the observations",
    "mlp": "linear, activation, linear, sum with the input where the width is kept",
    "revmlp": REVERSIBLE_KINDS["revmlp"],
    **MEMORY_KINDS,
}
TANH_KINDS = ("act", "linear", "mlp", "revmlp", "stack")


def vector_faults(op: Block) -> list[str]:
    """What is wrong with a block of these kinds, or with a head's activation; empty for a valid one.

    Args:
        op: a block whose fields are in their ranges.
    """
    faults: list[str] = []
    if op.activation == "tanh" and op.kind not in TANH_KINDS:
        faults.append(f"only {', '.join(TANH_KINDS)} have the activation tanh, got a {op.kind}")
    if op.hidden < 1 and op.kind == "mlp":
        faults.append(f"hidden of an {op.kind} must be at least 1, got {op.hidden}")
    if op.kind in VECTOR_KINDS and not op.reads_vector:
        faults.append(f"{op.kind} reads a vector, 1x1, got {op.in_height}x{op.in_width}")
    if op.kind in ("linear", "mlp") and (op.kernel, op.stride, op.padding, op.groups, op.expansion) != (1, 1, 0, 1, 1):
        faults.append(f"{op.kind} has no window, groups or expansion")
    return faults


def vector_layers(op: Block) -> tuple[Layer, ...]:
    """The primitives of a block of these kinds, in order of execution."""
    if op.kind == "mlp":
        return (_linear("hidden", op.in_channels, op.hidden), _linear("outputs", op.hidden, op.out_channels))
    return (_linear("linear", op.in_channels, op.out_channels),)


def _linear(name: str, inputs: int, outputs: int) -> Layer:
    return Layer(name, "fc", inputs, outputs, 1, 1, 1, 1, 1, 0, 1, 1)
