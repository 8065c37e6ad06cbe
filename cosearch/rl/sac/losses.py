"""What soft actor-critic learns from, as pure functions (Haarnoja et al. 2018, arXiv 1812.05905).

A policy is a Gaussian whose samples u go through a hyperbolic tangent, a = tanh(u), so that actions lie in (-1, 1). With the
change of variables (appendix C there)
    log pi(a|s) = log N(u; mean, std) - sum_i log(1 - tanh(u_i)^2),
    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)),
the last form being exact also where the tangent is 1 in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_STD_RANGE = (-20.0, 2.0)  # as in the authors' own implementation and in stable-baselines3
LEAST_SCALE = 1e-3


def spread_of(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``[batch, 2 size]`` of the network -> means and log standard deviations ``[batch, size]`` before the tangent."""
    mean, log_std = outputs.float().chunk(2, -1)
    return mean, log_std.clamp(*LOG_STD_RANGE)


def squashed(outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """An action for each row and the logarithm of its density, both differentiable in the outputs (reparameterised).

    Args:
        outputs: ``[batch, 2 size]``, see :func:`spread_of`.
        noise: ``[batch, size]``, standard normal.

    Returns:
        Actions ``[batch, size]`` in (-1, 1), and log-densities ``[batch]`` in nats.
    """
    mean, log_std = spread_of(outputs)
    before = mean + log_std.exp() * noise
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    shrunk = 2.0 * (math.log(2.0) - before - F.softplus(-2.0 * before))
    return before.tanh(), (gaussian - shrunk).sum(-1)


def soft_target(returns: Tensor, discounts: Tensor, later: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """R + discount (min_i Q_i(s', a') - temperature log pi(a'|s')), eq. 5 with the smaller of the two target critics.

    Args:
        returns, discounts: ``[batch]``, see ``Batch``; the discount is 0 behind a termination, not behind a time limit.
        later: ``[2, batch]``, the target critics at the next observation and an action drawn there.
        log_prob: ``[batch]``, of that action.
        temperature: above 0.

    Returns:
        ``[batch]``.
    """
    return returns + discounts * (later.min(0).values - temperature * log_prob)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Sum over both critics of E[1/2 (Q_i - y)^2], eq. 5.

    Args:
        q: ``[2, batch]``.
        target: ``[batch]``; no gradient reaches it.
    """
    return 0.5 * (q - target.detach()).square().mean(1).sum()


def actor_loss(q: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """E[temperature log pi(a|s) - min_i Q_i(s, a)] (eq. 7), divided by E|min Q| without a gradient through it.

    The division does not move the minimum. It makes the loss a number about 1 whatever the unit of the reward (as Fujimoto and Gu
    2021, arXiv 2106.06860, eq. 5), so that a teacher's term, a cost and an architecture's credit can be weighed against it.

    Args:
        q: ``[2, batch]``, the critics at actions drawn from the policy.
        log_prob: ``[batch]``, of these actions.
        temperature: above 0.
    """
    worst = q.min(0).values
    return (temperature * log_prob - worst).mean() / worst.detach().abs().mean().clamp(min=LEAST_SCALE)


def temperature_gradient(log_prob: Tensor, target_entropy: float) -> Tensor:
    """d/d(log temperature) of E[-log temperature (log pi + target entropy)] (eq. 18, in the form of its authors' code): ``[]``.

    Where the policy has less entropy than the target it is below 0, and the temperature rises.

    Args:
        log_prob: ``[batch]``.
        target_entropy: nats.
    """
    return -(log_prob.detach().mean() + target_entropy)


def blend(targets: list[Tensor], live: list[Tensor], share: float) -> None:
    """Move target weights the given share of the way to the live ones, in place (Polyak averaging)."""
    with torch.no_grad():
        torch._foreach_lerp_(targets, live, share)
