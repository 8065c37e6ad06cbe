"""Operations: each one record that makes both the torch module and the ``OpSpec``, so network and cost cannot disagree.

The blocks carry no batch normalisation: in reinforcement learning its statistics follow the policy and differ between
acting and deploying (RL-DARTS switched it off too). Every candidate of the chain space but the identity ends with a ReLU, so that
any chain of them is non-linear; candidates of cells and of the mlp space end as their papers have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.registry import Registry
from cosearch.space.blocks.depthwise import DepthwiseConv
from cosearch.space.blocks.memory import Remembering
from cosearch.space.blocks.reversible import Reversible
from cosearch.space.cells.blocks import CELL_BUILDERS, Merge
from cosearch.space.cells.layout import MaxPool, flat_linear, flatten, scaled
from latency_tables.opspec import OpSpec


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups)


class Stem(nn.Module):
    """``stem``: uint8 frames ``[batch, height, width, channels]`` -> float features ``[batch, channels, height, width]``."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = _conv(spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding)
        self.relu, self.averaged = spec.activation == "relu", spec.groups

    def forward(self, frames: Tensor) -> Tensor:
        """Scale frames ``[batch, height, width, channels]`` to 0..1, average squares of pixels, convolve.

        NHWC memory *is* channels-last after the permutation: nothing is copied twice.
        """
        x = scaled(frames, self.conv.weight.dtype).permute(0, 3, 1, 2)
        x = self.conv(F.avg_pool2d(x, self.averaged) if self.averaged > 1 else x)
        return F.relu(x) if self.relu else x


class Conv(nn.Module):
    """``conv``: convolution, bias, optional ReLU."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = _conv(spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding, spec.groups)
        self.relu = spec.activation == "relu"

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in, height, width]`` -> ``[batch, out, height', width']``."""
        x = self.conv(x)
        return F.relu(x) if self.relu else x


class InvertedResidual(nn.Module):
    """``mbconv`` (MobileNetV2, Sandler et al. 2018) without batch norm and with a ReLU after the sum."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        wide = spec.in_channels * spec.expansion
        self.expand = _conv(spec.in_channels, wide, 1) if spec.expansion > 1 else None
        self.depthwise = DepthwiseConv(wide, spec.kernel, spec.stride, spec.padding)
        self.project = _conv(wide, spec.out_channels, 1)
        self.sums = spec.sums_input
        self.relu = spec.activation == "relu"

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in, height, width]`` -> ``[batch, out, height', width']``."""
        y = x if self.expand is None else F.relu(self.expand(x))
        y = self.project(F.relu(self.depthwise(y)))
        y = x + y if self.sums else y
        return F.relu(y) if self.relu else y


class Residual(nn.Module):
    """``residual`` of the IMPALA-CNN (Espeholt et al. 2018): x + conv(relu(conv(relu(x))))."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv1 = _conv(spec.in_channels, spec.in_channels, spec.kernel, 1, spec.padding)
        self.conv2 = _conv(spec.in_channels, spec.in_channels, spec.kernel, 1, spec.padding)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]``, shape kept."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Head(nn.Module):
    """``head``: features ``[batch, channels, height, width]`` or ``[batch, channels]`` -> actions and value."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.relu, self.pools = spec.activation == "relu", spec.pools
        self.hidden = nn.Linear(spec.features, spec.hidden) if spec.hidden else None
        self.outputs = nn.Linear(spec.hidden or spec.features, spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, ...]`` -> ``[batch, actions + 1]``: one joint linear layer, one kernel instead of two.

        Its output layer computes in float32 also under autocast: bfloat16 would round log-probabilities and values.
        """
        x = F.relu(x) if self.relu else x
        if self.pools:
            x = x.mean((2, 3))
        if self.hidden is not None:
            x = F.relu(flat_linear(x, self.hidden) if x.dim() > 2 else self.hidden(x))
        elif x.dim() > 2:
            x = flatten(x)
        if not torch.is_autocast_enabled(x.device.type):
            return self.outputs(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.outputs(x.to(self.outputs.weight.dtype))


class Linear(nn.Module):
    """``linear``: linear layer, bias, activation, on vectors."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.in_channels, spec.out_channels)
        self.activation = spec.activation

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in]`` -> ``[batch, out]``."""
        return _ACTIVATIONS[self.activation](self.linear(x))


class Mlp(nn.Module):
    """``mlp``: linear, activation, linear; added to the input where the width is kept."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.hidden = nn.Linear(spec.in_channels, spec.hidden)
        self.outputs = nn.Linear(spec.hidden, spec.out_channels)
        self.activation, self.sums = spec.activation, spec.sums_input

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in]`` -> ``[batch, out]``."""
        y = self.outputs(_ACTIVATIONS[self.activation](self.hidden(x)))
        return x + y if self.sums else y


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "tanh": torch.tanh}


_BUILDERS: dict[str, Callable[[OpSpec], nn.Module]] = {
    "stem": Stem,
    "conv": Conv,
    "mbconv": InvertedResidual,
    "residual": Residual,
    "head": Head,
    "linear": Linear,
    "mlp": Mlp,
    "revmlp": Reversible,
    "revconv": Reversible,
    "gru": Remembering,
    "lstm": Remembering,
    "stack": Remembering,
    "maxpool": lambda spec: MaxPool(spec.kernel, spec.stride, spec.padding),
    **CELL_BUILDERS,
}


def block_module(spec: OpSpec) -> nn.Module:
    """The torch module of a block without weights: they are handed to it at each call."""
    with torch.device("meta"):
        return _BUILDERS[spec.kind](spec)


def build_block(spec: OpSpec, generator: torch.Generator) -> nn.Module:
    """The torch module of a block, its weights drawn from ``generator`` alone.

    He initialisation for layers before a ReLU, Glorot's for the blocks of the IMPALA-CNN. As in PPO's reference implementations
    (Huang et al. 2022, The 37 Implementation Details of Proximal Policy Optimization) linear layers before a tanh are orthogonal
    with gain sqrt(2), each gate of a recurrent cell with gain 1, and the output layer with gain 0.01 for the action logits (a
    nearly uniform first policy) and 1 for the value; biases are 0, but 1 for the gate that keeps the state (Jozefowicz et al.
    2015, An Empirical Exploration of Recurrent Network Architectures).
    Other blocks that keep their shape begin near the identity: then all candidates of a cell begin as nearly the same function,
    and the cells behind them learn the same features whichever path is drawn.

    Args:
        spec: the block.
        generator: CPU generator of the weights.

    Returns:
        A module in float32.
    """
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator: give it back untouched
        block = _BUILDERS[spec.kind](spec)
    for module in block.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            with torch.no_grad():
                module.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    if isinstance(block, Head):
        with torch.no_grad():
            nn.init.orthogonal_(block.outputs.weight[:-1], 0.01, generator=generator)
            nn.init.orthogonal_(block.outputs.weight[-1:], 1.0, generator=generator)
    if isinstance(block, Conv) and spec.kernel > 1 and spec.stride == spec.groups == 1 and spec.in_channels == spec.out_channels:
        with torch.no_grad():  # features are never negative behind a ReLU, so a centre tap of 1 passes them on as they are
            block.conv.weight.mul_(0.3)
            block.conv.weight[range(spec.out_channels), range(spec.out_channels), spec.kernel // 2, spec.kernel // 2] += 1.0
    if isinstance(block, Linear) and spec.activation == "tanh":
        nn.init.orthogonal_(block.linear.weight, 2.0**0.5, generator=generator)
    elif isinstance(block, Linear) and spec.in_channels == spec.out_channels:
        with torch.no_grad():
            block.linear.weight.mul_(0.3).add_(torch.eye(spec.out_channels))
    if isinstance(block, Mlp) and block.sums:
        with torch.no_grad():
            block.outputs.weight.mul_(0.3)
    if isinstance(block, Remembering):
        with torch.no_grad():
            if block.cell is None:  # a cell is no near copy of another candidate, and its gates learn through this layer
                block.outputs.weight.mul_(0.3)
            for name, parameter in () if block.cell is None else block.cell.named_parameters():
                if name.startswith("bias"):
                    parameter.zero_()
                    if name.startswith("bias_hh"):  # of an LSTM's forget gate and a GRU's update gate, which stand second
                        parameter[spec.hidden : 2 * spec.hidden] = 1.0
                else:
                    for gate in parameter.split(spec.hidden):  # of all gates together each would have half the gain of 1
                        nn.init.orthogonal_(gate, 1.0, generator=generator)
    if isinstance(block, Reversible):
        with torch.no_grad():
            for parameter in block.outputs.parameters():
                parameter.mul_(0.3)
    if isinstance(block, InvertedResidual) and block.sums:
        with torch.no_grad():
            block.project.weight.mul_(0.3)
    if isinstance(block, Merge):
        with torch.no_grad():
            block.conv.weight.mul_(0.5**0.5)  # no ReLU follows that would halve the variance
    if _of_impala(spec):
        for layer in (layer for name, layer in block.named_modules() if name != "outputs" and hasattr(layer, "weight")):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
    return block


def _of_impala(spec: OpSpec) -> bool:
    """Whether it is a block of the IMPALA-CNN, whose authors and those of Procgen's PPO draw weights as Glorot & Bengio 2010."""
    convolution = spec.kind in ("stem", "conv") and spec.activation == "none" and spec.kernel > 1
    return convolution or spec.kind == "residual" or (spec.kind == "head" and spec.activation == "relu")


@dataclass(frozen=True)
class CandidateOp:
    """A candidate operation of a choice point.

    Attributes:
        name: registry name.
        description: one line for ``cosearch list ops``.
        make_spec: (in_channels, height, width, out_channels, stride) -> the block, or None for the identity or the zero.
        keeps_channels: it cannot change the number of channels.
        zero: it stands for no connection at all; its block is None.
        takes: ``frames``: feature maps of any size; ``vectors``: height and width are 1, the stride too.
    """

    name: str
    description: str
    make_spec: Callable[[int, int, int, int, int], OpSpec | None]
    keeps_channels: bool = False
    zero: bool = False
    takes: str = "frames"


OPERATIONS: Registry[CandidateOp] = Registry("operation", entry_point_group="cosearch.operations", plural="ops")


def _register_chain_candidates() -> None:
    def conv(kernel: int) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: OpSpec("conv", c, h, w, o, kernel=kernel, stride=s, padding=kernel // 2)

    def mbconv(kernel: int, expansion: int) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: OpSpec(
            "mbconv", c, h, w, o, kernel=kernel, stride=s, padding=kernel // 2, expansion=expansion
        )

    def skip(c: int, h: int, w: int, o: int, s: int) -> OpSpec | None:
        return None if c == o and s == 1 else OpSpec("conv", c, h, w, o, kernel=1, stride=s)

    for kernel in (3, 5):
        OPERATIONS.register(CandidateOp(f"conv_k{kernel}", f"{kernel}x{kernel} convolution + ReLU", conv(kernel)))
    for kernel in (3, 5):
        for expansion in (1, 3, 5):
            text = f"inverted residual, {kernel}x{kernel} depthwise, expansion {expansion}"
            OPERATIONS.register(CandidateOp(f"mbconv_k{kernel}_e{expansion}", text, mbconv(kernel, expansion)))
    OPERATIONS.register(CandidateOp("skip", "identity; a 1x1 convolution with stride where the shape changes", skip))


def _register_mlp_candidates() -> None:
    def linear(activation: str) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: OpSpec("linear", c, h, w, o, activation=activation)

    def mlp(hidden: int, activation: str) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: OpSpec("mlp", c, h, w, o, hidden=hidden, activation=activation)

    def skip(c: int, h: int, w: int, o: int, s: int) -> OpSpec | None:
        return None if c == o else OpSpec("linear", c, h, w, o, activation="none")

    for name in ("relu", "tanh"):
        OPERATIONS.register(CandidateOp(f"linear_{name}", f"linear layer + {name}", linear(name), takes="vectors"))
    for hidden in (32, 64, 128):
        for name in ("relu", "tanh"):
            text = f"residual block: linear to {hidden}, {name}, linear back"
            OPERATIONS.register(CandidateOp(f"mlp_w{hidden}_{name}", text, mlp(hidden, name), takes="vectors"))
    OPERATIONS.register(CandidateOp("skip_layer", "identity; a linear layer where the width changes", skip, takes="vectors"))


def _register_memory_candidates() -> None:
    def cell(kind: str, hidden: int) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: (
            OpSpec(kind, c, h, w, o, hidden=hidden, activation="none")
            if c == o
            else OpSpec("linear", c, h, w, o, activation="tanh")
        )

    def stack(steps: int) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: (
            OpSpec("stack", c, h, w, o, groups=steps, activation="tanh")
            if c == o
            else OpSpec("linear", c, h, w, o, activation="tanh")
        )

    for kind, name in (("gru", "gated recurrent unit"), ("lstm", "long short-term memory")):
        for hidden in (16, 32, 64, 128):
            text = f"{name} of {hidden}, added to its input; a linear layer + tanh where the width changes"
            OPERATIONS.register(CandidateOp(f"{kind}_w{hidden}", text, cell(kind, hidden), takes="vectors"))
    for steps in (2, 4, 8):
        text = f"features of the last {steps} steps: linear + tanh, added to its input; linear + tanh where the width changes"
        OPERATIONS.register(CandidateOp(f"stack_k{steps}", text, stack(steps), takes="vectors"))


def _register_reversible_candidates() -> None:
    def on_vectors(hidden: int, activation: str) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: (
            OpSpec("revmlp", c, h, w, o, groups=2, hidden=hidden, activation=activation)
            if c == o > 1
            else OpSpec("linear", c, h, w, o, activation=activation)
        )

    def on_frames(kernel: int) -> Callable[..., OpSpec]:
        return lambda c, h, w, o, s: (
            OpSpec("revconv", c, h, w, o, kernel=kernel, padding=kernel // 2, groups=2, activation="none")
            if c == o > 1 and s == 1
            else OpSpec("conv", c, h, w, o, kernel=kernel, stride=s, padding=kernel // 2)
        )

    for hidden in (32, 64, 128):
        for name in ("relu", "tanh"):
            text = f"reversible block: halves, each changed by the other through {hidden} {name}; linear where the width changes"
            OPERATIONS.register(CandidateOp(f"rev_w{hidden}_{name}", text, on_vectors(hidden, name), takes="vectors"))
    for kernel in (3, 5):
        text = f"reversible block: halves, each changed by a {kernel}x{kernel} convolution of the other"
        OPERATIONS.register(CandidateOp(f"rev_conv_k{kernel}", text, on_frames(kernel)))


_register_memory_candidates()
_register_reversible_candidates()
_register_chain_candidates()
_register_mlp_candidates()
CHAIN_CANDIDATES = (
    "conv_k3",
    "conv_k5",
    "mbconv_k3_e1",
    "mbconv_k3_e3",
    "mbconv_k3_e5",
    "mbconv_k5_e1",
    "mbconv_k5_e3",
    "mbconv_k5_e5",
    "skip",
)
MLP_CANDIDATES = (
    "linear_relu",
    "linear_tanh",
    "mlp_w32_relu",
    "mlp_w32_tanh",
    "mlp_w64_relu",
    "mlp_w64_tanh",
    "mlp_w128_relu",
    "mlp_w128_tanh",
    "skip_layer",
)
