"""Distributions over actions: what a network's policy outputs mean, for acting, learning, distillation and evaluation.

``Categorical`` for discrete actions: one logit an action. ``MultiCategorical`` for vectors of whole numbers: independent
categorical distributions, one a number. Where an environment allows some actions only, the network itself gives the others a
logit of -1e8, so that every function here is over the allowed ones: probability 0, no part in an entropy or divergence.
``Gaussian`` for continuous ones: a diagonal normal distribution with means from the network and a log standard deviation that
does not depend on the state; its actions are not bounded here, the environment clips them to its box, and the log-probability is
that of the unclipped action (Schulman et al. 2017, section 6.1). ``read`` turns raw outputs into the policy's parameters, and all
other functions take these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cosearch.rl.envs import Box, VectorEnv
from cosearch.rl.learning import losses
from cosearch.space.parts import Part
from latency_tables.errors import NonFiniteError

HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Policy(Protocol):
    """A family of distributions over the actions of one environment."""

    @property
    def name(self) -> str:
        """``categorical``, ``multi_categorical`` or ``gaussian``."""

    def read(self, outputs: Tensor) -> Tensor:
        """Policy outputs ``[batch, outputs]`` of a network -> parameters of the same shape, float32."""

    def empty_actions(self, *shape: int) -> Tensor:
        """An empty tensor for so many actions: ``shape`` for discrete ones, ``[*shape, size]`` for vectors."""

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """One action for each row of ``[batch, outputs]``, drawn with ``generator``."""

    def greedy(self, parameters: Tensor) -> Tensor:
        """The most likely action of each row of ``[batch, outputs]``."""

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """``[batch]``: log-probability, or log-density, of ``actions`` under ``[batch, outputs]``."""

    def entropy(self, parameters: Tensor) -> Tensor:
        """``[]``: mean entropy in nats of ``[batch, outputs]``."""

    def divergence(self, parameters: Tensor, teacher: Tensor) -> Tensor:
        """``[]``: mean KL(teacher || student) in nats; no gradient reaches the teacher.

        A teacher that gives its actions alone, ``[batch, 1]``, int64, or ``[batch, size]``, is imitated: cross-entropy to the
        action, or squared error to the vector.
        """

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """Parameters ``[batch, outputs]`` of the policy whose probabilities or densities are p^(1 / temperature), normalised.

        Args:
            parameters: ``[batch, outputs]`` of p; an action alone, ``[batch, size]`` of a vector, has no spread and stays.
            temperature: above 0; 1 changes nothing.
        """

    def agreement(self, parameters: Tensor, teacher: Tensor) -> Tensor | None:
        """``[]``: share of the rows with the same most likely action; None where actions are continuous."""


@dataclass(frozen=True)
class Categorical:
    """Discrete actions. Parameters: log-probabilities ``[batch, actions]``; actions ``[batch]``, int64."""

    name: str = "categorical"

    def read(self, outputs: Tensor) -> Tensor:
        """See :class:`Policy`: logits ``[batch, actions]`` to log-probabilities."""
        return F.log_softmax(outputs.float(), dim=-1)

    def empty_actions(self, *shape: int) -> Tensor:
        """See :class:`Policy`."""
        return torch.empty(shape, dtype=torch.int64)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        return torch.multinomial(parameters.exp(), 1, generator=generator)[:, 0]

    def greedy(self, parameters: Tensor) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        return parameters.argmax(-1)

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        return parameters.gather(-1, actions[..., None])[..., 0]

    def entropy(self, parameters: Tensor) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        return losses.entropy(parameters)

    def divergence(self, parameters: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        if not teacher.is_floating_point():
            return losses.action_imitation(parameters, teacher[..., 0])
        return losses.actor_distillation(parameters, teacher)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        return F.log_softmax(parameters / temperature, -1)

    def agreement(self, parameters: Tensor, teacher: Tensor) -> Tensor | None:
        """See :class:`Policy`; parameters ``[batch, actions]``."""
        best = teacher.argmax(-1) if teacher.is_floating_point() else teacher[..., 0]
        return (parameters.argmax(-1) == best).float().mean()


@dataclass(frozen=True)
class MultiCategorical:
    """Vectors of whole numbers, independent given the state. Parameters: log-probabilities ``[batch, sum of sizes]``, one factor
    after the other; actions ``[batch, factors]``, int64.

    Attributes:
        sizes: number of values of each factor.
    """

    sizes: tuple[int, ...]
    name: str = "multi_categorical"

    def _factors(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return tensor.split(list(self.sizes), -1)

    def read(self, outputs: Tensor) -> Tensor:
        """See :class:`Policy`: logits ``[batch, sum of sizes]`` to log-probabilities of each factor."""
        return torch.cat([F.log_softmax(part, -1) for part in self._factors(outputs.float())], -1)

    def empty_actions(self, *shape: int) -> Tensor:
        """See :class:`Policy`: ``[*shape, factors]``."""
        return torch.empty(*shape, len(self.sizes), dtype=torch.int64)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, sum of sizes]``."""
        drawn = [torch.multinomial(part.exp(), 1, generator=generator) for part in self._factors(parameters)]
        return torch.cat(drawn, -1)

    def greedy(self, parameters: Tensor) -> Tensor:
        """See :class:`Policy`: the most likely value of each factor, ``[batch, factors]``."""
        return torch.stack([part.argmax(-1) for part in self._factors(parameters)], -1)

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See :class:`Policy`: ``[batch]``, the sum over the factors."""
        parts = zip(self._factors(parameters), actions.unbind(-1))
        return torch.stack([part.gather(-1, chosen[..., None])[..., 0] for part, chosen in parts], -1).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """See :class:`Policy`: ``[]``, the sum over the factors."""
        return torch.stack([losses.entropy(part) for part in self._factors(parameters)]).sum()

    def divergence(self, parameters: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`Policy`: ``[]``, the sum over the factors."""
        pairs = zip(self._factors(parameters), self._factors(teacher))
        return torch.stack([losses.actor_distillation(part, theirs) for part, theirs in pairs]).sum()

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """See :class:`Policy`: each factor of ``[batch, sum of sizes]`` by itself."""
        return torch.cat([F.log_softmax(part / temperature, -1) for part in self._factors(parameters)], -1)

    def agreement(self, parameters: Tensor, teacher: Tensor) -> Tensor | None:
        """See :class:`Policy`: ``[]``, share of the rows ``[batch, sum of sizes]`` that agree in every factor."""
        return (self.greedy(parameters) == self.greedy(teacher)).all(-1).float().mean()


@dataclass(frozen=True)
class Gaussian:
    """Action vectors. Parameters: means, then log standard deviations ``[batch, 2 size]``; actions ``[batch, size]``, float32.

    Attributes:
        size: length of an action vector.
    """

    size: int
    name: str = "gaussian"

    def read(self, outputs: Tensor) -> Tensor:
        """See :class:`Policy`: ``[batch, 2 size]`` as they are."""
        return outputs.float()

    def empty_actions(self, *shape: int) -> Tensor:
        """See :class:`Policy`."""
        return torch.empty(*shape, self.size)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """See :class:`Policy`; parameters ``[batch, 2 size]``."""
        mean, log_std = parameters.chunk(2, -1)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator)

    def greedy(self, parameters: Tensor) -> Tensor:
        """See :class:`Policy`: the mean ``[batch, size]``."""
        return parameters[..., : self.size]

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See :class:`Policy`: ``[batch]``, sum over the vector of -(a - mean)^2 / (2 std^2) - log std - log(2 pi) / 2."""
        mean, log_std = parameters.chunk(2, -1)
        return -(0.5 * ((actions - mean) * (-log_std).exp()).square() + log_std + HALF_LOG_TAU).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """See :class:`Policy`: ``[]``, sum over the vector of log std + (1 + log(2 pi)) / 2; negative where the std is small."""
        return (parameters[..., self.size :] + 0.5 + HALF_LOG_TAU).sum(-1).mean()

    def divergence(self, parameters: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`Policy`: ``[]``, sum over the vector of log(s / t) + (t^2 + (m_t - m_s)^2) / (2 s^2) - 1/2."""
        mean, log_std = parameters.chunk(2, -1)
        if teacher.shape[-1] == self.size:
            return losses.mean_imitation(mean, teacher)
        their_mean, their_log_std = teacher.detach().chunk(2, -1)
        ratio = (2.0 * (their_log_std - log_std)).exp()
        moved = ((their_mean - mean) * (-log_std).exp()).square()
        return (0.5 * (ratio + moved - 1.0) - (their_log_std - log_std)).sum(-1).mean()

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """See :class:`Policy`: the variance of ``[batch, 2 size]`` times the temperature, the same mean."""
        if parameters.shape[-1] == self.size:
            return parameters
        mean, log_std = parameters.chunk(2, -1)
        return torch.cat([mean, log_std + 0.5 * math.log(temperature)], -1)

    def agreement(self, parameters: Tensor, teacher: Tensor) -> Tensor | None:
        """See :class:`Policy`: not defined for ``[batch, 2 size]``."""
        return None


def act(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]],
    frames: np.ndarray,
    policy: Policy,
    generator: torch.Generator,
    *,
    greedy: bool = False,
) -> np.ndarray:
    """The actions of an agent that only plays.

    Args:
        forward: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``.
        frames: ``[batch, *frame_shape]``.
        policy: what the outputs mean.
        generator: CPU generator of the actions.
        greedy: the most likely action instead of a sampled one.

    Returns:
        What ``VectorEnv.send`` takes.

    Raises:
        NonFiniteError: the network returned NaN or infinity.
    """
    with torch.inference_mode():
        parameters = policy.read(forward(torch.from_numpy(np.ascontiguousarray(frames)))[0])
        if not torch.isfinite(parameters).all():
            raise NonFiniteError("the policy returned NaN or infinite outputs while it was played")
        return (policy.greedy(parameters) if greedy else policy.sample(parameters, generator)).numpy()


def how_to_act(env: VectorEnv) -> dict[str, object]:
    """How to act on the outputs of an exported agent, as plain JSON; a bound that does not exist is None.

    Args:
        env: the task.
    """
    box: Box | None = getattr(env, "action_box", None)
    names = getattr(env, "action_names", ())
    named: dict[str, object] = {"action_names": list(names)} if names else {}
    parts: tuple[Part, ...] = getattr(env, "parts", ())
    named |= {"parts": [part.to_dict() for part in parts]} if parts else {}
    if box is None:
        how: dict[str, object] = {"policy": "categorical", "greedy": "argmax(logits)", "sampled": "draw from softmax(logits)"}
        first, sizes = getattr(env, "first_action", 0), getattr(env, "action_sizes", ())
        if sizes:
            each = "of the logits of each factor in turn, action_sizes of them"
            how = {"policy": "multi_categorical", "greedy": f"argmax {each}", "sampled": f"draw from softmax {each}"}
            return how | {"action_sizes": list(sizes)} | named
        return how | ({"first_action": first} if first else {}) | named
    low, high = ([value if math.isfinite(value) else None for value in bound.tolist()] for bound in box.within)
    scale, shift = ("scale * (", ") + shift") if box.is_scaled else ("", "")
    how = {
        "policy": "gaussian",
        "greedy": "clip(scale * mean + shift)" if box.is_scaled else "clip(mean)",
        "sampled": f"clip({scale}mean + exp(log_std) * standard normal{shift})",
        "clip_low": low,
        "clip_high": high,
    }
    if box.is_scaled:
        how |= {"scale": [pair[0] for pair in box.scaling], "shift": [pair[1] for pair in box.scaling]}
    return how | named


def policy_of(env: VectorEnv) -> Policy:
    """The policy for an environment's actions: Gaussian where they are vectors in a box, of factors where they have sizes.

    Args:
        env: the task.
    """
    sizes: tuple[int, ...] = getattr(env, "action_sizes", ())
    name = "categorical" if getattr(env, "action_box", None) is None else "gaussian"
    return policy_named("multi_categorical" if sizes else name, env.num_actions, sizes)


def policy_named(name: str, num_actions: int, sizes: tuple[int, ...]) -> Policy:
    """The policy of a space.

    Args:
        name: ``categorical``, ``multi_categorical`` or ``gaussian``.
        num_actions: length of an action vector of a Gaussian.
        sizes: number of values of each factor.
    """
    if name == "multi_categorical":
        return MultiCategorical(sizes)
    return Categorical() if name == "categorical" else Gaussian(num_actions)
