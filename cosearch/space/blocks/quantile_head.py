"""The head of an agent that learns return distributions: dueling quantiles in training, folded into the plain head to deploy.

QR-DQN (Dabney et al. 2018, arXiv 1710.10044) estimates N quantiles of the return of each action; dueling (Wang et al. 2016, arXiv
1511.06581) splits them into a value and advantages: theta_i(a) = V_i + A_i(a) - mean_a' A_i(a'). Acting needs only their mean
over i, and mean, dueling and the last linear layer are all linear: one matrix with actions + 1 rows does the same. So the device
runs the ordinary head and the tables hold its cost; the N times wider head exists only where the agent learns.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.space.operations import Head
from latency_tables.errors import ShapeError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class QuantileHead(nn.Module):
    """Features ``[batch, channels, height, width]`` -> quantiles ``[batch, actions + 1, quantiles]``.

    Row ``a`` holds the quantiles of action ``a``'s return; the last row their mean over the actions. The output layer computes in
    float32 also under autocast: action values differ by less than bfloat16 can tell.

    Args:
        head: its hidden layer is taken over, its output layer replaced.
        quantiles: N, of each action.
        dueling: value and advantages apart; else the actions' quantiles directly.
        generator: CPU generator of the output layer, whose first values are near 0.
    """

    def __init__(self, head: Head, quantiles: int, dueling: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.relu, self.pools, self.hidden = head.relu, head.pools, head.hidden
        self.actions, self.quantiles, self.dueling = head.outputs.out_features - 1, quantiles, dueling
        features = head.outputs.in_features
        self.outputs = nn.utils.skip_init(nn.Linear, features, (self.actions + 1) * quantiles)
        with torch.no_grad():
            self.outputs.weight.normal_(0.0, 0.01 / features**0.5, generator=generator)
            self.outputs.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, height, width]`` or ``[batch, channels]`` -> ``[batch, actions + 1, quantiles]``, float32."""
        x = F.relu(x) if self.relu else x
        x = x.mean((2, 3)) if self.pools else x.flatten(1)
        x = x if self.hidden is None else F.relu(self.hidden(x))
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self._combined()
            return F.linear(x.to(weight.dtype), weight, bias).view(-1, self.actions + 1, self.quantiles)

    def _combined(self) -> tuple[Tensor, Tensor]:
        """The output layer with dueling worked in: ``[(actions + 1) * quantiles, hidden]`` and its bias."""
        weight = self.outputs.weight.view(self.actions + 1, self.quantiles, -1)
        bias = self.outputs.bias.view(self.actions + 1, self.quantiles)
        return self._duel(weight).flatten(0, 1), self._duel(bias).flatten()

    def _duel(self, rows: Tensor) -> Tensor:
        """``[actions + 1, ...]``: advantages and value -> actions and their mean."""
        actions, value = rows[:-1], rows[-1:]
        if self.dueling:
            actions = value + actions - actions.mean(0, keepdim=True)
        return torch.cat([actions, actions.mean(0, keepdim=True)])

    def fold_into(self, head: Head) -> None:
        """Give a plain head the layers that make it output the means of the quantiles: action values, and their mean.

        Args:
            head: of the same sizes.

        Raises:
            ShapeError: only one of the two has a hidden layer.
        """
        hidden_into(self.hidden, head)
        weight, bias = self._combined()
        with torch.no_grad():
            head.outputs.weight.copy_(weight.view(self.actions + 1, self.quantiles, -1).mean(1))
            head.outputs.bias.copy_(bias.view(self.actions + 1, self.quantiles).mean(1))


def widen(network: nn.Module, quantiles: int, dueling: bool, generator: torch.Generator) -> None:
    """Replace the head of a network or supernet by a :class:`QuantileHead`, in place.

    Its outputs become quantiles of action values ``[batch, actions, quantiles]`` and of their mean ``[batch, quantiles]``.

    Args:
        network: with exactly one plain head.
        quantiles, dueling, generator: see :class:`QuantileHead`.

    Raises:
        ShapeError: it has no plain head, or several.
    """
    name, head = only(network, Head)
    network.set_submodule(name, QuantileHead(head, quantiles, dueling, generator))


def fold(network: nn.Module, plain: ModuleT) -> ModuleT:
    """The network to deploy: action values as logits ``[batch, actions]`` and their mean over the actions as value ``[batch]``.

    Args:
        network: a trained network with a :class:`QuantileHead`; not altered.
        plain: the same network with a plain head; its weights are overwritten.

    Returns:
        ``plain``, whose outputs are the means of the network's quantiles.

    Raises:
        ShapeError: one of them has another head.
    """
    wide, head = all_but_head(network, plain, QuantileHead)
    wide.fold_into(head)
    return plain


def head_like(network: nn.Module, other: nn.Module) -> None:
    """Where ``other`` learns quantiles, give ``network`` a head of the same form, so that weights can be copied; else nothing."""
    for module in other.modules():
        if isinstance(module, QuantileHead):
            widen(network, module.quantiles, module.dueling, torch.Generator().manual_seed(0))


def only(network: nn.Module, kind: type[ModuleT]) -> tuple[str, ModuleT]:
    """Name and module of a network's one head of a kind.

    Args:
        network: with exactly one.
        kind: of the head.

    Raises:
        ShapeError: it has none, or several.
    """
    heads = [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]
    if len(heads) != 1:
        raise ShapeError(f"expected a network with one {kind.__name__}, got {len(heads)}")
    return heads[0]


def all_but_head(network: nn.Module, plain: nn.Module, kind: type[ModuleT]) -> tuple[ModuleT, Head]:
    """Give a network with a plain head the weights of one with a head to train, except the head's.

    Args:
        network: with one head of ``kind``; not altered.
        plain: the same network with a plain head.
        kind: of the head that learns.

    Returns:
        Both heads.

    Raises:
        ShapeError: they are different networks, or have other heads.
    """
    (name, trained), (_, head) = only(network, kind), only(plain, Head)
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(f"{name}.")}
    missing = plain.load_state_dict(own, strict=False)
    if missing.unexpected_keys or any(not key.startswith(f"{name}.") for key in missing.missing_keys):
        raise ShapeError(f"the plain network is another one: {missing}")
    return trained, head


def hidden_into(hidden: nn.Linear | None, head: Head) -> None:
    """Give a plain head a hidden layer's weights.

    Args:
        hidden: the layer; None: there is none.
        head: of the same sizes.

    Raises:
        ShapeError: only one of the two has a hidden layer.
    """
    if (hidden is None) != (head.hidden is None):
        raise ShapeError("the plain head and the trained one must both have a hidden layer, or neither")
    if hidden is not None and head.hidden is not None:
        head.hidden.load_state_dict(hidden.state_dict())
