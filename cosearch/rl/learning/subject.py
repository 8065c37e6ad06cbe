"""A plain network as the thing that is trained: mixed precision, channels-last, Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from cosearch.record.state import State, read_state
from cosearch.rl.learning.losses import MinibatchLosses
from cosearch.rl.learning.optimiser import WeightAdam
from cosearch.rl.memory import RecurrentActor
from cosearch.rl.rollout import Forward
from cosearch.space.network import AgentNetwork
from latency_tables.errors import NonFiniteError

Network = TypeVar("Network", bound=nn.Module)


def mixed_precision(
    forward: Callable[..., tuple[Tensor, Tensor]], device: torch.device, bf16: bool
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Run a network under bfloat16 autocast on its device; the outputs come back on the CPU side as they are.

    Args:
        forward: frames ``[batch, height, width, channels]`` first, then anything.
        device: where the weights are.
        bf16: autocast on or off (off: float32).
    """

    def run(frames: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            logits, value = forward(frames.to(device, non_blocking=True), *rest)
        return logits.cpu(), value.cpu()

    return run


def mixed_precision_unroll(
    unroll: Callable[..., tuple[Tensor, Tensor, Tensor]], device: torch.device, bf16: bool
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """As :func:`mixed_precision`, of a network with a memory; what it carries stays on the CPU side between calls.

    Args:
        unroll: frames, memory and begins first, see ``AgentNetwork.unroll``, then anything.
        device: where the weights are.
        bf16: autocast on or off (off: float32).
    """

    def run(frames: Tensor, memory: Tensor, begins: Tensor | None = None, *rest: object) -> tuple[Tensor, Tensor, Tensor]:
        given = frames.to(device, non_blocking=True), memory.to(device), None if begins is None else begins.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            outputs, value, after = unroll(*given, *rest)
        return outputs.cpu(), value.cpu(), after.cpu()

    return run


def actor_of(network: AgentNetwork, device: torch.device, bf16: bool) -> Forward:
    """A network as an actor under :func:`mixed_precision`, with its memory where it has one.

    Args:
        network: on the device.
        device: where the weights are.
        bf16: autocast on or off (off: float32).
    """
    if network.memory_size:
        return RecurrentActor(network.memory_size, mixed_precision_unroll(network.unroll, device, bf16))
    return mixed_precision(network, device, bf16)


def on_device(network: Network, device: torch.device) -> Network:
    """A network moved to a device, its weights with the channels last; in place.

    Args:
        network: any module.
        device: where to.
    """
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def clip_and_check(parameters: Iterable[nn.Parameter], max_norm: float, lr: str = "rl.lr") -> float:
    """Clip gradients by their global norm.

    Args:
        parameters: those without gradient are passed over.
        max_norm: above 0.
        lr: the option of the learning rate, for the error.

    Returns:
        The norm before clipping.

    Raises:
        NonFiniteError: the norm is NaN or infinite.
    """
    norm = float(nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], max_norm))
    if not norm < float("inf"):
        raise NonFiniteError(f"the gradient norm is {norm}. The last checkpoint is intact; try a smaller {lr}")
    return norm


class NetworkSubject:
    """One network with one optimiser.

    Args:
        network: frames -> logits, value.
        lr: Adam learning rate.
        bf16: autocast to bfloat16.
        device: where to train.
    """

    def __init__(self, network: AgentNetwork, *, lr: float, bf16: bool, device: torch.device) -> None:
        self.network = on_device(network, device)
        self.optimiser = WeightAdam(network.parameters(), lr)
        self._forward = actor_of(self.network, device, bf16)

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps."""
        self.optimiser.set_lr(lr)

    def set_eps(self, eps: float) -> None:
        """Adam's ``eps`` of the next steps."""
        self.optimiser.set_eps(eps)

    def actors(self) -> list[Forward]:
        """See ``Subject``: the network itself."""
        return [self._forward]

    def extra_loss(self) -> Tensor | None:
        """See ``Subject``: none."""
        return None

    def zero_grad(self) -> None:
        """See ``Subject``."""
        self.optimiser.zero_grad(set_to_none=True)

    def step(self, max_grad_norm: float, found: MinibatchLosses) -> float:
        """See ``Subject``."""
        norm = clip_and_check(self.network.parameters(), max_grad_norm, found.lr)
        self.optimiser.step()
        return norm

    def see(self, frames: Tensor) -> None:
        """See ``Trainable``: statistics of vectors ``[time, envs, features]``; after the update, which uses those that acted."""
        self.network.ends.see(frames)

    def metrics(self) -> dict[str, object]:
        """Nothing beyond the learner's."""
        return {}

    def state(self) -> State:
        """Weights and optimiser."""
        return copy.deepcopy({"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()})

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.network.load_state_dict(read_state(state, "network"))
        self.optimiser.load_state_dict(copy.deepcopy(read_state(state, "optimiser")))  # it keeps the tensors that it is given
