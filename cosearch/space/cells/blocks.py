"""Torch modules of the blocks that only cells have; see ``latency_tables.kinds.cells`` for what each computes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.space.blocks.depthwise import DepthwiseConv
from cosearch.space.cells.layout import flatten
from latency_tables.opspec import OpSpec


class Activation(nn.Module):
    """``act``: ReLU or tanh, behind a 3x3 average pool where it has a stride."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.pool = average_pool(spec) if spec.stride > 1 else None
        self.tanh = spec.activation == "tanh"

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` -> ``[batch, channels, height', width']``."""
        x = x if self.pool is None else self.pool(x)
        return torch.tanh(x) if self.tanh else F.relu(x)


class ReluConv(nn.Module):
    """``reluconv``: ReLU first, then the convolution."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in, height, width]`` -> ``[batch, out, height', width']``."""
        return self.conv(F.relu(x))


class DilatedConv(nn.Module):
    """``dilconv``: convolution with dilation 2, bias, optional ReLU."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding, dilation=2)
        self.relu = spec.activation == "relu"

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in, height, width]`` -> ``[batch, out, height', width']``."""
        x = self.conv(x)
        return F.relu(x) if self.relu else x


class SeparableConv(nn.Module):
    """``sepconv``: twice ReLU, depthwise, 1x1; the first depthwise carries the stride, the last 1x1 the output channels."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        c = spec.in_channels
        self.depthwise1 = DepthwiseConv(c, spec.kernel, spec.stride, spec.padding)
        self.pointwise1 = nn.Conv2d(c, c, 1)
        self.depthwise2 = DepthwiseConv(c, spec.kernel, 1, spec.kernel // 2)
        self.pointwise2 = nn.Conv2d(c, spec.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, in, height, width]`` -> ``[batch, out, height', width']``."""
        x = self.pointwise1(self.depthwise1(F.relu(x)))
        return self.pointwise2(self.depthwise2(F.relu(x)))


class Sum(nn.Module):
    """``add``: the element-wise sum."""

    def forward(self, *parts: Tensor) -> Tensor:
        """So many ``[batch, channels, height, width]`` -> one."""
        return sum(parts[1:], parts[0])


class Merge(nn.Module):
    """``merge``: concatenation along the channels, 1x1 convolution."""

    def __init__(self, spec: OpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(spec.in_channels, spec.out_channels, 1)

    def forward(self, *parts: Tensor) -> Tensor:
        """So many ``[batch, in / groups, height, width]`` -> ``[batch, out, height, width]``."""
        return self.conv(torch.cat(parts, 1))


class Join(nn.Module):
    """``join``: flattened features of several encoders, one after the other."""

    def forward(self, *parts: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` or ``[batch, features]`` each -> ``[batch, all features]``."""
        return torch.cat([flatten(part) if part.dim() > 2 else part for part in parts], 1)


def average_pool(spec: OpSpec) -> nn.AvgPool2d:
    """Average of the pixels under the window; padding does not count."""
    return nn.AvgPool2d(spec.kernel, spec.stride, spec.padding, count_include_pad=False)


CELL_BUILDERS: dict[str, Callable[[OpSpec], nn.Module]] = {
    "act": Activation,
    "avgpool": average_pool,
    "reluconv": ReluConv,
    "dilconv": DilatedConv,
    "sepconv": SeparableConv,
    "add": lambda spec: Sum(),
    "merge": Merge,
    "join": lambda spec: Join(),
}
