"""Several networks of one architecture computed as one: the train seeds of a network, trained together.

Channels of the networks lie side by side, ``[batch, networks * channels, height, width]``: each convolution is one grouped
convolution with a group (or its channels' groups) for each network, each linear layer one batched matrix product. Networks of
small agents are bound by the number of calls, not by their arithmetic, so three cost far less than three times one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.rl.learning.optimiser import WeightAdam
from cosearch.rl.learning.subject import on_device
from cosearch.space.network import AgentNetwork
from cosearch.space.operations import Head
from latency_tables.errors import NonFiniteError, ShapeError
from latency_tables.opspec import OpSpec

CHAIN_KINDS = ("stem", "conv", "mbconv", "residual", "maxpool", "head")  # whose modules this file knows how to stack


class StackedHead(nn.Module):
    """The heads of several networks.

    Features are flattened with the channels last, as they lie in memory, and the first layer's weights stand in that order.

    Args:
        heads: one a network, of one shape.
        spec: their block.
    """

    def __init__(self, heads: Sequence[Head], spec: OpSpec) -> None:
        super().__init__()
        self.count, self.relu, self.pools = len(heads), heads[0].relu, spec.pools
        layers = [[layer for layer in (head.hidden, head.outputs) if layer is not None] for head in heads]
        weights = [[layer.weight.detach() for layer in same] for same in zip(*layers)]
        if not self.pools:
            image = (spec.in_channels, spec.in_height, spec.in_width)
            weights[0] = [own.unflatten(1, image).permute(0, 2, 3, 1).flatten(1) for own in weights[0]]
        self.weights = nn.ParameterList([torch.stack([own.T for own in same]) for same in weights])
        self.biases = nn.ParameterList([torch.stack([layer.bias.detach()[None] for layer in same]) for same in zip(*layers)])

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, networks * channels, height, width]`` -> ``[networks, batch, actions + 1]``."""
        if x.requires_grad:  # else the gradient walks through every block before in another order than the features
            x.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        x = F.relu(x) if self.relu else x
        if self.pools:
            x = x.mean((2, 3)).unflatten(1, (self.count, -1)).transpose(0, 1)
        else:
            x = x.permute(0, 2, 3, 1).unflatten(3, (self.count, -1)).permute(3, 0, 1, 2, 4).flatten(2)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            x = F.relu(torch.baddbmm(bias, x, weight))
        with torch.autocast(x.device.type, enabled=False):  # as ``Head``: bfloat16 would round log-probabilities and values
            return torch.baddbmm(self.biases[-1], x.float(), self.weights[-1])


class StackedNetwork(nn.Module):
    """Networks of one chain of blocks as one module; its weights begin as copies of theirs.

    Args:
        networks: at least one; all of the same blocks.

    Raises:
        ShapeError: the networks differ, are no chains of image blocks, or have another policy than ``categorical``.
    """

    def __init__(self, networks: Sequence[AgentNetwork]) -> None:
        super().__init__()
        first = networks[0]
        chain = tuple(() if i == 0 else (i - 1,) for i in range(len(first.ops)))
        if any(network.ops != first.ops or tuple(network.wiring) != chain for network in networks):
            raise ShapeError("only networks of the same chain of blocks can be computed as one")
        kinds = {op.kind for op in first.ops} - set(CHAIN_KINDS)
        if kinds or first.ends.policy != "categorical":
            raise ShapeError(f"blocks {sorted(kinds)} with a {first.ends.policy} policy cannot be computed as one")
        self.count = len(networks)
        body = [_side_by_side([network.blocks[i] for network in networks]) for i in range(len(first.ops) - 1)]
        self.body = on_device(nn.Sequential(*body), torch.device("cpu"))
        heads = [head for network in networks if isinstance(head := network.blocks[-1], Head)]
        self.head = StackedHead(heads, first.ops[-1])

    def forward(self, frames: Tensor) -> Tensor:
        """Logits and value of each network for frames of its own.

        Args:
            frames: ``[networks, batch, height, width, channels]``, uint8.

        Returns:
            ``[networks, batch, actions + 1]``.
        """
        return self.head(self.body(frames.permute(1, 2, 3, 0, 4).flatten(3)))


def _side_by_side(blocks: Sequence[nn.Module]) -> nn.Module:
    """One block that computes several of the same kind on channels that lie side by side."""
    stacked = copy.deepcopy(blocks[0])
    for name, module in stacked.named_modules():
        if isinstance(module, nn.Conv2d):
            own = [block.get_submodule(name) for block in blocks]
            module.in_channels, module.out_channels = len(own) * module.in_channels, len(own) * module.out_channels
            module.groups = len(own) * module.groups
            for key in ("weight", "bias"):
                joined = torch.cat([conv.get_parameter(key).detach() for conv in own])
                setattr(module, key, nn.Parameter(joined))
    return stacked


class StackedAdam:
    """Adam on stacked networks, the gradient of each network clipped by its own norm.

    Args:
        network: what is trained.
        lr: learning rate, above 0.
    """

    def __init__(self, network: StackedNetwork, lr: float) -> None:
        self.network = network
        self.adam = WeightAdam(network.parameters(), lr)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps."""
        self.adam.set_lr(lr)

    def set_eps(self, eps: float) -> None:
        """Adam's ``eps`` of the next steps."""
        self.adam.set_eps(eps)

    def step(self, max_grad_norm: float) -> None:
        """Clip, step, and clear the gradients.

        Args:
            max_grad_norm: largest norm of the gradient of one network.

        Raises:
            NonFiniteError: a norm is NaN or infinite; no weight was changed.
        """
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        per_network = [gradient.reshape(self.network.count, -1) for gradient in gradients]
        norms = torch.stack([part.square().sum(1) for part in per_network]).sum(0).sqrt()  # [networks]
        if not bool(norms.isfinite().all()):
            raise NonFiniteError(f"the gradient norms of the networks are {norms.tolist()}")
        scale = (max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.repeat_interleave(len(gradient) // self.network.count).view(-1, *[1] * (gradient.dim() - 1)))
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
