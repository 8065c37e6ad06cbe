"""Operations whose library versions are slow on a CPU for channels-last tensors; 1 to 3 give the same numbers, bit for bit.

1. The gradient of a flattened tensor comes back in another memory order than the tensor's, and every operation before it then
   walks through two orders at once. Here it is brought into the tensor's order once.
2. Maximum pooling writes the index of each maximum, as a 64-bit number, also where no gradient is wanted (measured on 16
   channels: 1.4 times the time of the maxima alone).
3. Bytes become floating-point numbers, are scaled and become bfloat16 in three passes through memory. Here a few frames at a
   time make all three while they lie in the cache (measured on 128 of Procgen's: 0.7 ms instead of 2.0 ms).
4. A linear layer on features flattens them into its weights' order, which moves all of a large batch. Here a layer with fewer
   outputs than the batch has rows moves its weights instead (512 x 1,024 features, 128 outputs: a fifth less time).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IN_CACHE = 1 << 16  # numbers that are scaled at once: a quarter of a megabyte of float32


class _Kept(Protocol):
    """What the forward pass keeps for the backward pass."""

    shape: torch.Size


class _Flatten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Kept, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: _Kept, grad: Tensor) -> Tensor:
        return grad.view(ctx.shape).contiguous(memory_format=torch.channels_last)


def flatten(x: Tensor) -> Tensor:
    """``[batch, channels, height, width]`` -> ``[batch, channels * height * width]``."""
    if x.requires_grad and torch.is_grad_enabled() and x.is_contiguous(memory_format=torch.channels_last):
        return _Flatten.apply(x)
    return x.flatten(1)


def scaled(frames: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes -> 0..1, shape kept.

    Args:
        frames: ``[batch, height, width, channels]``, uint8.
        dtype: of the result; under autocast on a CPU what autocast would make of it.
    """
    autocast = frames.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.jit.is_tracing()
    if not autocast or frames.dtype != torch.uint8 or dtype != torch.float32:
        return frames.to(dtype) * (1.0 / 255.0)
    made = torch.empty(frames.shape, dtype=torch.get_autocast_dtype("cpu"))
    several = max(1, IN_CACHE // max(1, frames[0].numel())) if len(frames) else 1
    for part, target in zip(frames.split(several), made.split(several)):
        target.copy_(part.to(dtype).mul_(1.0 / 255.0))
    return made


def flat_linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer`` on flattened features: ``[batch, channels, height, width]`` -> ``[batch, outputs]``.

    Where a gradient is wanted and the batch has more rows than the layer, its weights are brought into the features' memory
    order instead of the features into that of the weights, which is less to move; the sums are the same in another order.
    """
    last = x.is_contiguous(memory_format=torch.channels_last) and torch.is_grad_enabled() and not torch.jit.is_tracing()
    if not last or len(x) <= layer.out_features:
        return layer(flatten(x))
    weight = layer.weight.unflatten(1, x.shape[1:]).permute(0, 2, 3, 1).flatten(1)
    return F.linear(x.permute(0, 2, 3, 1).flatten(1), weight, layer.bias)


class MaxPool(nn.MaxPool2d):
    """A maximum pooling with square window, stride and padding."""

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` -> ``[batch, channels, height', width']``."""
        if torch.jit.is_tracing() or torch.is_grad_enabled() or x.device.type != "cpu" or not self._halves(x):
            return super().forward(x)
        return _maxima(_maxima(x, 2), 3)

    def _halves(self, x: Tensor) -> bool:
        return (self.kernel_size, self.stride, self.padding) == (3, 2, 1) and x.shape[2] % 2 == x.shape[3] % 2 == 0


def _maxima(x: Tensor, dim: int) -> Tensor:
    """Maxima of windows of 3 with stride 2 and padding 1 along ``dim``, whose size is even."""
    even, odd = (x[:, :, start::2] if dim == 2 else x[:, :, :, start::2] for start in (0, 1))
    maxima = torch.maximum(even, odd)
    inner = maxima.narrow(dim, 1, maxima.shape[dim] - 1)
    torch.maximum(inner, odd.narrow(dim, 0, odd.shape[dim] - 1), out=inner)
    return maxima
