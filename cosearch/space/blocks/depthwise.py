"""Depthwise convolution whose gradients are fast on a CPU.

Two of the library's bfloat16 gradients of a depthwise convolution are reference loops, 10 to 60 times slower than the forward
pass (measured with torch 2.13): the weight gradient of windows above 3x3, and the input gradient with a stride. Both are written
here as other convolutions, which the library has fast kernels for, with the same sums:
1. taps are independent, so the weight gradient of a k x k window is put together from 3x3 windows of the shifted input;
2. the input gradient is the forward convolution of the gradient, with zeros between its pixels, by the turned window.
On a GPU, and without gradients, it is the library's own convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 3


class _Kept(Protocol):
    """What the forward pass keeps for the backward pass: a ``torch.autograd.function.FunctionCtx`` with these."""

    stride: int
    padding: int
    saved_tensors: tuple[Tensor, Tensor]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors."""


class _Depthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: _Kept, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: _Kept, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = input_gradient(grad, x.shape[2:], weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        grad_weight = weight_gradient(grad, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad.float().sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None, None


def input_gradient(grad: Tensor, size: Sequence[int], weight: Tensor, stride: int, padding: int) -> Tensor:
    """dL/dx of a depthwise convolution.

    Args:
        grad: ``[batch, channels, out_height, out_width]``, dL/doutput.
        size: height and width of the input.
        weight: ``[channels, 1, kernel, kernel]``.
        stride, padding: of the convolution; padding below the kernel.

    Returns:
        ``[batch, channels, height, width]``.
    """
    kernel = weight.shape[-1]
    if stride > 1:
        spread = [side + 2 * padding - kernel + 1 for side in size]  # rows that no window began at stay zero
        wide = grad.new_zeros((*grad.shape[:2], *spread)).contiguous(memory_format=torch.channels_last)
        wide[:, :, ::stride, ::stride][:, :, : grad.shape[2], : grad.shape[3]] = grad
        grad = wide
    return F.conv2d(grad, weight.flip(2, 3), padding=kernel - 1 - padding, groups=grad.shape[1])


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """dL/dweight of a depthwise convolution.

    Args:
        grad: ``[batch, channels, out_height, out_width]``, dL/doutput.
        x: ``[batch, channels, height, width]``.
        weight: ``[channels, 1, kernel, kernel]``, for its shape only; kernel odd.
        stride, padding: of the convolution.

    Returns:
        ``[channels, 1, kernel, kernel]``.
    """
    kernel = weight.shape[-1]
    if kernel <= WINDOW:
        return _window_gradient(grad, x, weight, stride, padding)
    padded = F.pad(x, (padding,) * 4).contiguous(memory_format=torch.channels_last)
    spans = [stride * (size - 1) + WINDOW for size in grad.shape[2:]]
    window, total = weight[:, :, :WINDOW, :WINDOW].contiguous(), torch.empty_like(weight)
    starts = sorted({min(start, kernel - WINDOW) for start in range(0, kernel, WINDOW)})
    for row in starts:
        for column in starts:
            part = padded[:, :, row : row + spans[0], column : column + spans[1]]
            total[:, :, row : row + WINDOW, column : column + WINDOW] = _window_gradient(grad, part, window, stride, 0)
    return total


def _window_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], x.shape[1], [False, True, False]
    )[1]


class DepthwiseConv(nn.Conv2d):
    """A depthwise ``nn.Conv2d`` with bias, square odd kernel, square stride and padding.

    Args:
        channels: in and out.
        kernel, stride, padding: of the window.
    """

    def __init__(self, channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` -> ``[batch, channels, height', width']``."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        return _Depthwise.apply(x, self.weight, self.bias, self.stride[0], self.padding[0])
