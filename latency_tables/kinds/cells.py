"""Kinds of blocks that only cells have: pools, bare activations, dilated and separable convolutions, sums and merges of branches.

Liu et al., DARTS (arXiv 1806.09055) and Miao et al., RL-DARTS (arXiv 2106.02229), without batch normalisation.
"""

from __future__ import annotations

from latency_tables.kinds.layer import Block, Layer

CELL_KINDS = {
    "act": "activation (relu, tanh), behind a 3x3 average pool where it has a stride",
    "avgpool": "average pooling, padding not counted",
    "reluconv": "ReLU, convolution, bias",
    "dilconv": "convolution with dilation 2, bias, activation",
    "sepconv": "ReLU, depthwise (with the stride), 1x1, ReLU, depthwise, 1x1",
    "add": "element-wise sum of several blocks",
    "merge": "concatenation of several blocks along the channels, 1x1 convolution, bias",
}
JOINS = ("add", "merge")  # read several blocks
KEEP_CHANNELS = ("act", "avgpool", "add")


def cell_faults(op: Block) -> list[str]:
    """What is wrong with a block of these kinds, in words; empty for a valid one and for other kinds.

    Args:
        op: a block whose fields are in their ranges.
    """
    faults: list[str] = []
    if op.kind not in CELL_KINDS:
        return faults
    if op.kind in KEEP_CHANNELS and op.in_channels != op.out_channels:
        faults.append(f"{op.kind} keeps the channels, got {op.in_channels} -> {op.out_channels}")
    if op.kind == "act" and op.activation == "none":
        faults.append("an act needs an activation")
    if op.kind == "act" and (op.stride == 1) != (op.kernel == 1):
        faults.append(f"an act has a window where it has a stride, got kernel {op.kernel} and stride {op.stride}")
    if op.kind in ("avgpool", "reluconv", "sepconv", "add", "merge") and op.activation != "none":
        faults.append(f"{op.kind} ends without an activation, got {op.activation}")
    if op.kind in ("dilconv", "sepconv") and op.kernel % 2 == 0:
        faults.append(f"{op.kind} needs an odd kernel, got {op.kernel}")
    if op.kind in JOINS and (op.groups < 2 or (op.kernel, op.stride, op.padding) != (1, 1, 0)):
        faults.append(f"{op.kind} reads at least 2 blocks (groups) and has no window, got {op.groups}")
    if op.kind == "merge" and op.in_channels % op.groups:
        faults.append(f"the {op.in_channels} channels of a merge are not a multiple of its {op.groups} inputs")
    if op.kind not in JOINS and op.groups != 1:
        faults.append(f"{op.kind} has no groups, got {op.groups}")
    return faults


def cell_layers(op: Block) -> tuple[Layer, ...]:
    """The primitives of a block of these kinds, in order of execution."""
    c, h, w, o = op.in_channels, op.in_height, op.in_width, op.out_channels
    k, s, p, y, x = op.kernel, op.stride, op.padding, op.out_height, op.out_width
    relu = Layer("relu", "relu", c, c, h, w, 1, 1, 1, 0, h, w)
    pool = Layer("pool", "pool", c, c, h, w, k, k, s, p, y, x)
    if op.kind == "act":
        act = Layer("act", "relu", c, c, y, x, 1, 1, 1, 0, y, x)
        return (pool, act) if s > 1 else (act,)
    if op.kind == "avgpool":
        return (pool,)
    if op.kind == "reluconv":
        return (relu, Layer("conv", "conv", c, o, h, w, k, k, s, p, y, x))
    if op.kind == "dilconv":
        return (Layer("conv", "conv", c, o, h, w, k, k, s, max(p - k // 2, 0), y, x),)
    if op.kind == "sepconv":
        return (
            relu,
            Layer("depthwise1", "dw", c, c, h, w, k, k, s, p, y, x),
            Layer("pointwise1", "conv", c, c, y, x, 1, 1, 1, 0, y, x),
            Layer("depthwise2", "dw", c, c, y, x, k, k, 1, k // 2, y, x),
            Layer("pointwise2", "conv", c, o, y, x, 1, 1, 1, 0, y, x),
        )
    if op.kind == "add":
        return tuple(Layer(f"add{i}", "add", c, c, h, w, 1, 1, 1, 0, h, w) for i in range(1, op.groups))
    return (Layer("concat", "relu", c, c, h, w, 1, 1, 1, 0, h, w), Layer("conv", "conv", c, o, h, w, 1, 1, 1, 0, h, w))
