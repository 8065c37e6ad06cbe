"""The head of an agent that learns bounded actions: means and log standard deviations in training, the plain head to deploy.

Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) needs a spread that depends on the state, but only while it learns: the
agent that is deployed takes the mean, through the tangent. So the rows of the log standard deviations exist only in training; the
device runs the ordinary head, whose cost every latency table holds, and the tangent of its few outputs (``AgentEnds.bounds``),
which no table holds. The value row is 0: what actions are worth is said by critics that stay behind.
The temperature travels with the weights, so that a network that goes on learning does not begin by forgetting.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.space.blocks.quantile_head import all_but_head, hidden_into, only
from cosearch.space.ends import Bounds
from cosearch.space.network import AgentNetwork
from cosearch.space.operations import Head

LEAST_DEVIATION = 1e-3  # of an action in (-1, 1): below it nobody acts otherwise than by the mean


class SquashedHead(nn.Module):
    """Features ``[batch, channels]`` -> means, log standard deviations, and 0 for the value: ``[batch, 2 size + 1]``.

    The output layer computes in float32 also under autocast.

    Args:
        head: its hidden layer and the rows of its means are taken over.
        generator: CPU generator of the new rows, whose first values are near 0: standard deviations near 1.
    """

    log_temperature: Tensor
    deviation: Tensor

    def __init__(self, head: Head, generator: torch.Generator) -> None:
        super().__init__()
        self.relu, self.pools, self.hidden = head.relu, head.pools, head.hidden
        self.size, features = head.outputs.out_features - 1, head.outputs.in_features
        self.outputs = nn.utils.skip_init(nn.Linear, features, 2 * self.size)
        with torch.no_grad():
            self.outputs.weight[: self.size] = head.outputs.weight[:-1]
            self.outputs.weight[self.size :].normal_(0.0, 0.01 / features**0.5, generator=generator)
            self.outputs.bias.zero_()
        self.register_buffer("log_temperature", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(self.size))  # root mean square of what sampling adds, in (-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` or ``[batch, channels]`` -> ``[batch, 2 size + 1]``, float32."""
        x = F.relu(x) if self.relu else x
        x = x.mean((2, 3)) if self.pools else x.flatten(1)
        x = x if self.hidden is None else F.relu(self.hidden(x))
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(self.outputs(x.to(self.outputs.weight.dtype)), (0, 1))

    def fold_into(self, head: Head) -> None:
        """Give a plain head the hidden layer and the rows of the means; its value is 0.

        Args:
            head: of the same sizes.

        Raises:
            ShapeError: only one of the two has a hidden layer.
        """
        hidden_into(self.hidden, head)
        with torch.no_grad():
            head.outputs.weight.copy_(F.pad(self.outputs.weight[: self.size], (0, 0, 0, 1)))
            head.outputs.bias.copy_(F.pad(self.outputs.bias[: self.size], (0, 1)))


def squash(network: nn.Module, generator: torch.Generator) -> None:
    """Replace the head of a network or supernet of a Gaussian policy by a :class:`SquashedHead`, in place.

    Args:
        network: with exactly one plain head.
        generator: see :class:`SquashedHead`.

    Raises:
        ShapeError: it has no plain head, or several.
    """
    name, head = only(network, Head)
    network.set_submodule(name, SquashedHead(head, generator))


def squashed_head(network: nn.Module) -> SquashedHead:
    """The head of a network or supernet that learns bounded actions.

    Raises:
        ShapeError: it has another one.
    """
    return only(network, SquashedHead)[1]


def unsquash(network: nn.Module, plain: AgentNetwork, bounds: Bounds) -> AgentNetwork:
    """The network to deploy: tangents of the means between the bounds, and 0 as value.

    Args:
        network: a trained network with a :class:`SquashedHead`; not altered.
        plain: the same network with a plain head; its weights are overwritten.
        bounds: of the actions.

    Returns:
        ``plain``. Its log standard deviations, the same in all states, are those that the actions had when it learned.

    Raises:
        ShapeError: one of them has another head.
    """
    wide, head = all_but_head(network, plain, SquashedHead)
    wide.fold_into(head)
    plain.ends.bounds = bounds
    half = torch.tensor([half for half, _ in bounds])
    with torch.no_grad():
        plain.ends.log_std.copy_((wide.deviation.clamp(min=LEAST_DEVIATION) * half).log())
    return plain


def squashed_like(network: nn.Module, other: nn.Module) -> None:
    """Where ``other`` learns bounded actions, give ``network`` such a head, so that weights can be copied; else nothing."""
    if any(isinstance(module, SquashedHead) for module in other.modules()):
        squash(network, torch.Generator().manual_seed(0))
