"""Kinds of blocks whose input follows from their output: the channels in parts, each changed by a function of all the others.

Zhao et al., Memory-Efficient Differentiable Transformer Architecture Search (Findings of ACL 2021, arXiv 2105.14669); two parts
as in Gomez et al., The Reversible Residual Network (NeurIPS 2017, arXiv 1707.04585).
"""

from __future__ import annotations

from latency_tables.kinds.layer import Block, Layer

REVERSIBLE_KINDS = {
    "revmlp": "vector in parts, to each in turn is added: linear, activation, linear of all the others",
    "revconv": "channels in parts, to each in turn is added: ReLU, convolution of all the others",
}


def part_sizes(op: Block) -> tuple[int, ...]:
    """Channels of each part: as equal as they can be, the larger ones first."""
    least, larger = divmod(op.in_channels, op.groups)
    return tuple(least + (i < larger) for i in range(op.groups))


def reversible_faults(op: Block) -> list[str]:
    """What is wrong with a block of these kinds, in words; empty for a valid one and for other kinds.

    Args:
        op: a block whose fields are in their ranges.
    """
    faults: list[str] = []
    if op.kind not in REVERSIBLE_KINDS:
        return faults
    if op.in_channels != op.out_channels:
        faults.append(f"{op.kind} keeps the channels, got {op.in_channels} -> {op.out_channels}")
    if not 2 <= op.groups <= op.in_channels:
        faults.append(f"{op.kind} has at least 2 parts (groups), of at least 1 channel each, got {op.groups} of {op.in_channels}")
    if op.expansion != 1:
        faults.append(f"{op.kind} has no expansion, got {op.expansion}")
    if op.kind == "revmlp" and op.hidden < 1:
        faults.append(f"hidden of a revmlp must be at least 1, got {op.hidden}")
    if op.kind == "revmlp" and (op.kernel, op.stride, op.padding) != (1, 1, 0):
        faults.append("revmlp has no window")
    if op.kind == "revconv" and (op.stride != 1 or op.kernel != 2 * op.padding + 1 or op.hidden):
        faults.append(
            f"revconv keeps its map: an odd kernel with half of it as padding, no stride; got {op.kernel}, {op.padding}"
        )
    if op.kind == "revconv" and op.activation != "none":
        faults.append(f"revconv ends without an activation, got {op.activation}")
    return faults


def reversible_layers(op: Block) -> tuple[Layer, ...]:
    """The primitives of a block of these kinds, in order of execution; to cut into parts costs nothing."""
    c, h, w, k, p = op.in_channels, op.in_height, op.in_width, op.kernel, op.padding
    found: list[Layer] = []
    for number, size in enumerate(part_sizes(op), 1):
        others = c - size
        if op.kind == "revmlp":
            found.append(Layer(f"hidden{number}", "fc", others, op.hidden, 1, 1, 1, 1, 1, 0, 1, 1))
            found.append(Layer(f"outputs{number}", "fc", op.hidden, size, 1, 1, 1, 1, 1, 0, 1, 1))
        else:
            found.append(Layer(f"relu{number}", "relu", others, others, h, w, 1, 1, 1, 0, h, w))
            found.append(Layer(f"conv{number}", "conv", others, size, h, w, k, k, 1, p, h, w))
    return (*found, Layer("concat", "relu", c, c, h, w, 1, 1, 1, 0, h, w))
