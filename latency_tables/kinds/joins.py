"""The block that joins encoders of several observations: their outputs flattened, one after the other in a vector."""

from __future__ import annotations

from latency_tables.kinds.layer import Block, Layer

JOIN_KINDS = {"join": "outputs of several blocks, flattened and concatenated"}


def join_faults(op: Block) -> list[str]:
    """What is wrong with a block of this kind, in words; empty for a valid one and for other kinds.

    Args:
        op: a block whose fields are in their ranges.
    """
    if op.kind not in JOIN_KINDS:
        return []
    faults = []
    if op.in_channels != op.out_channels or (op.in_height, op.in_width) != (1, 1):
        faults.append(f"a join gives all that it reads as one vector, got {op.in_channels} -> {op.out_channels}")
    if not 2 <= op.groups <= op.in_channels or (op.kernel, op.stride, op.padding, op.expansion, op.hidden) != (1, 1, 0, 1, 0):
        faults.append(f"a join reads at least 2 blocks (groups) and has no window, got {op.groups}")
    if op.activation != "none":
        faults.append(f"a join ends without an activation, got {op.activation}")
    return faults


def join_layers(op: Block) -> tuple[Layer, ...]:
    """The one primitive: every number is read and written once."""
    return (Layer("concat", "relu", op.in_channels, op.in_channels, 1, 1, 1, 1, 1, 0, 1, 1),)


def side_sizes(op: Block) -> list[int]:
    """Sizes of the vectors that a join is timed with, nearly equal: which of them is how long does not matter to a copy.

    Args:
        op: a join.
    """
    share = op.in_channels // op.groups
    return [op.in_channels - share * (op.groups - 1), *[share] * (op.groups - 1)]
