"""Training with the rounding that int8 brings: weights and inputs of each layer are rounded on the way forward, not backward.

The scales are those of the int8 file: weights by the greatest of each channel in 254 steps, inputs in 255 steps over the range
that real observations gave, with zero in it. Gradients pass the rounding as if it were not there, and stop where a value was
clipped (Jacob et al. 2018, arXiv 1712.05877, section 3; straight-through: Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.space.network import AgentNetwork

Layer = nn.Conv2d | nn.Linear
Ranges = Mapping[str, tuple[float, float]]
OBSERVED_BATCH = 128
LEAST = 1e-12  # of a scale: a channel whose weights are all zero stays zero


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The layers of a network that int8 rounds, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


@torch.no_grad()
def observed_ranges(network: AgentNetwork, frames: np.ndarray) -> dict[str, tuple[float, float]]:
    """Least and greatest input of each layer over observations, with zero between them.

    Args:
        network: on the CPU, in float32.
        frames: ``[observations, ...]`` as the network takes them.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def look(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(low, float(inputs[0].min())), max(high, float(inputs[0].max())))

    hooks = [layer.register_forward_pre_hook(functools.partial(look, name)) for name, layer in layers_of(network).items()]
    try:
        for start in range(0, len(frames), OBSERVED_BATCH):
            network(torch.from_numpy(frames[start : start + OBSERVED_BATCH]))
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def round_from_now_on(network: AgentNetwork, ranges: Ranges) -> None:
    """Make every layer round its weights and its input, in place; names and values of the weights stay as they are.

    Args:
        network: of the layers that the ranges name.
        ranges: see :func:`observed_ranges`.
    """
    for name, layer in layers_of(network).items():
        layer.forward = functools.partial(_rounded, layer, *ranges[name])  # type: ignore[method-assign]  # of this one layer


def round_no_more(network: AgentNetwork) -> None:
    """Undo :func:`round_from_now_on`, in place."""
    for layer in layers_of(network).values():
        vars(layer).pop("forward", None)


def _rounded(layer: Layer, low: float, high: float, x: Tensor) -> Tensor:
    x, weight = rounded_input(x, low, high), rounded_weight(layer.weight)
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, layer.bias)
    return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def rounded_input(x: Tensor, low: float, high: float) -> Tensor:
    """Values rounded to 255 steps between ``low`` and ``high``, clipped to them.

    Args:
        x: ``[...]``, any shape.
        low, high: at most and at least zero.
    """
    scale = max((high - low) / 255, LEAST)
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, round(-low / scale), 0, 255)


def rounded_weight(weight: Tensor) -> Tensor:
    """Weights ``[out, ...]`` rounded to 254 steps between minus and plus the greatest of each output channel."""
    scales = (weight.detach().float().abs().flatten(1).amax(1) / 127).clamp(min=LEAST)
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, 0, -127, 127)
