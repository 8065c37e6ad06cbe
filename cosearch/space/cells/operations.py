"""The candidate operations of cells: those of RL-DARTS (micro and classic) and those of DARTS.

Miao et al., RL-DARTS (arXiv 2106.02229), ``rl_darts/`` of google/brain_autorl; Liu et al., DARTS (arXiv 1806.09055).
Differs from the papers in:
1. No batch normalisation (RL-DARTS has it switched off; see ``operations``).
2. DARTS' dilated convolutions are plain ones here, as those of RL-DARTS are, not depthwise separable.
3. A skip with a stride is a 3x3 average pool (RL-DARTS), not DARTS' pair of shifted convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

from cosearch.space.operations import OPERATIONS, CandidateOp
from latency_tables.opspec import OpSpec

MICRO = ("conv3x3", "relu", "tanh", "skip_connect", "none")
CLASSIC = ("conv3x3_relu", "dil_conv3x3_relu", "conv5x5_relu", "dil_conv5x5_relu", "skip_connect", "none")
DARTS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv3x3_relu",
    "dil_conv5x5_relu",
)
OPERATION_SETS = {"micro": MICRO, "classic": CLASSIC, "darts": DARTS}


def _window(kind: str, kernel: int, activation: str) -> Callable[..., OpSpec]:
    spread = 2 * kernel - 1 if kind == "dilconv" else kernel
    return lambda c, h, w, o, s: OpSpec(kind, c, h, w, o, kernel=kernel, stride=s, padding=spread // 2, activation=activation)


def _act(activation: str) -> Callable[..., OpSpec]:
    return lambda c, h, w, o, s: OpSpec(
        "act", c, h, w, o, kernel=3 if s > 1 else 1, stride=s, padding=int(s > 1), activation=activation
    )


def _skip(c: int, h: int, w: int, o: int, s: int) -> OpSpec | None:
    return None if s == 1 else OpSpec("avgpool", c, h, w, o, kernel=3, stride=s, padding=1, activation="none")


for _kernel in (3, 5):
    _size = f"{_kernel}x{_kernel}"
    OPERATIONS.register(CandidateOp(f"conv{_size}", f"{_size} convolution", _window("conv", _kernel, "none")))
    OPERATIONS.register(CandidateOp(f"conv{_size}_relu", f"{_size} convolution, ReLU", _window("conv", _kernel, "relu")))
    OPERATIONS.register(CandidateOp(f"relu_conv{_size}", f"ReLU, {_size} convolution", _window("reluconv", _kernel, "none")))
    OPERATIONS.register(
        CandidateOp(f"dil_conv{_size}_relu", f"{_size} convolution with dilation 2, ReLU", _window("dilconv", _kernel, "relu"))
    )
    OPERATIONS.register(
        CandidateOp(f"sep_conv_{_size}", f"separable {_size} convolution, twice", _window("sepconv", _kernel, "none"))
    )
OPERATIONS.register(CandidateOp("relu", "ReLU", _act("relu"), keeps_channels=True))
OPERATIONS.register(CandidateOp("tanh", "hyperbolic tangent", _act("tanh"), keeps_channels=True))
OPERATIONS.register(CandidateOp("max_pool_3x3", "3x3 max pooling", _window("maxpool", 3, "none"), keeps_channels=True))
OPERATIONS.register(CandidateOp("avg_pool_3x3", "3x3 average pooling", _window("avgpool", 3, "none"), keeps_channels=True))
OPERATIONS.register(
    CandidateOp("skip_connect", "identity; a 3x3 average pool where there is a stride", _skip, keeps_channels=True)
)
OPERATIONS.register(CandidateOp("none", "no connection", lambda c, h, w, o, s: None, keeps_channels=True, zero=True))
