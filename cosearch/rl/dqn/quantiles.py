"""The distributional loss of QR-DQN, and the target of its double, n-step form.

Dabney et al. 2018, arXiv 1710.10044, equations 9 and 10: with N quantiles theta_i at the midpoints tau_i = (i + 1/2) / N and
samples y_j of the target distribution, u_ij = y_j - theta_i,
    L = sum_i mean_j |tau_i - 1{u_ij < 0}| H_kappa(u_ij) / kappa,
    H_kappa(u) = u^2 / 2 within kappa, else kappa (|u| - kappa / 2).
Its minimiser is the quantile function of the target (for small kappa). With N = 1 it is half of DQN's Huber loss.
C51 was not chosen: it needs bounds of the return in advance, and its softmax cannot be folded into the last layer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def midpoints(count: int) -> Tensor:
    """tau_i ``[count]``: (i + 1/2) / count."""
    return (torch.arange(count, dtype=torch.float32) + 0.5) / count


def quantile_huber(quantiles: Tensor, target: Tensor, kappa: float = 1.0) -> Tensor:
    """The loss of each transition.

    Args:
        quantiles: ``[batch, quantiles]``, of the action that was taken.
        target: ``[batch, samples]`` of the target distribution; no gradient reaches it.
        kappa: where the loss becomes linear, above 0.

    Returns:
        ``[batch]``.
    """
    error = target.detach()[:, None, :] - quantiles[:, :, None]
    tau = midpoints(quantiles.shape[1]).to(quantiles)[None, :, None]
    weight = (tau - (error.detach() < 0).to(quantiles)).abs()
    huber = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=kappa)
    return (weight * huber / kappa).mean(2).sum(1)


def bellman_target(returns: Tensor, discounts: Tensor, next_quantiles: Tensor, choosing: Tensor) -> Tensor:
    """Samples of the target distribution: R + discount * theta(s', a*), a* = argmax_a mean_i of ``choosing``.

    Double Q-learning (van Hasselt et al. 2016, arXiv 1509.06461) chooses with the learning network and takes the target
    network's quantiles; plain Q-learning chooses with the target network, too.

    Args:
        returns, discounts: ``[batch]``, see ``Batch``.
        next_quantiles: ``[batch, actions, quantiles]`` of the target network at the frames after the return.
        choosing: ``[batch, actions, quantiles]`` of the network that chooses the action.

    Returns:
        ``[batch, quantiles]``.
    """
    best = choosing.mean(2).argmax(1)
    chosen = next_quantiles[torch.arange(len(best)), best]
    return returns[:, None] + discounts[:, None] * chosen


def q_distillation(q: Tensor, teacher_log_probs: Tensor, temperature: float) -> Tensor:
    """E[KL(teacher || softmax(Q / temperature))] in nats: policy distillation (Rusu et al. 2016, arXiv 1511.06295).

    Args:
        q: ``[batch, actions]``.
        teacher_log_probs: ``[batch, actions]``; no gradient reaches it.
        temperature: difference of two action values that is worth a factor e in probability, above 0.
    """
    return F.kl_div(F.log_softmax(q / temperature, 1), teacher_log_probs.detach(), reduction="batchmean", log_target=True)
