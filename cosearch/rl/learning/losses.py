"""Loss terms of PPO and A2C as pure functions, and generalised advantage estimation.

PPO: Schulman et al. 2017 (arXiv 1707.06347), eq. 7 and 9. A2C: Mnih et al. 2016 (arXiv 1602.01783), section 4.
GAE: Schulman et al. 2016 (arXiv 1506.02438), eq. 16.
A2C here differs from that paper in: advantages are normalised in each minibatch and are those of GAE (lambda 0.95 by default; 1
gives its n-step returns); the value is clipped as PPO's (``rl.value_clip``); Adam in place of RMSProp; a rollout makes one step
only where the minibatch holds a path's whole share of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latency_tables.errors import ShapeError


@dataclass(frozen=True)
class MinibatchLosses:
    """What a minibatch tells: to the weights that were trained on it, and about the path that it was learned along.

    The surrogate that PPO trains on tells nothing about a path: it is clipped where the policy differs from the one that acted,
    so it is small for whatever resembles that one. The other two numbers are estimates of minus the path's return, in standard
    deviations, and hold the teacher's terms where one is distilled.

    Attributes:
        loss: what the weights learn from.
        fresh_path: of a path that did not act: the importance-weighted advantage, see :func:`path_loss`.
        acting_path: of the path that acted: the returns of its own share of the environments. Its advantage is zero on average
            whatever it is worth, because its own critic was subtracted.
        lr: the option of the weights' learning rate, for the error where a gradient is not finite.
    """

    loss: float
    fresh_path: float
    acting_path: float
    lr: str = "rl.lr"


def gae(reward: np.ndarray, value: np.ndarray, done: np.ndarray, *, gamma: float, lam: float) -> np.ndarray:
    """Advantages A_t = sum_l (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t, cut at episode ends.

    A truncated step must carry ``gamma * V(last frame)`` in its reward already: then cutting it here is the bootstrap.

    Args:
        reward: ``[time, envs]``.
        value: ``[time + 1, envs]``, the last row for bootstrapping.
        done: ``[time, envs]``, bool: the episode ended with this step.
        gamma: discount, 0..1.
        lam: trace decay, 0..1.

    Returns:
        ``[time, envs]``, float32.
    """
    advantage = np.zeros_like(reward, dtype=np.float32)
    trace = np.zeros(reward.shape[1], dtype=np.float32)
    alive = 1.0 - done.astype(np.float32)
    for t in range(len(reward) - 1, -1, -1):
        delta = reward[t] + gamma * value[t + 1] * alive[t] - value[t]
        trace = delta + gamma * lam * alive[t] * trace
        advantage[t] = trace
    return advantage


def normalise_advantage(advantage: Tensor) -> Tensor:
    """``[batch]`` -> zero mean, unit standard deviation."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def ppo_policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-E[min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)] (PPO eq. 7).

    Args:
        log_prob: ``[batch]`` of the taken actions, now.
        old_log_prob: ``[batch]`` when they were taken.
        advantage: ``[batch]``.
        clip: half width of the trust interval, above 0.
    """
    ratio = (log_prob - old_log_prob).exp()
    return -torch.min(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()


def path_loss(ratio: float, weighted_advantage: float) -> float:
    """-sum(r A) / sum(r): minus how much better than the policy that acted another one would have done, to first order.

    r = pi(a|s) / pi_acting(a|s), not clipped; the states are those of the policy that acted (Kakade and Langford 2002). The
    ratios are self-normalised (Hesterberg 1995): exploding ones cannot give more than the largest advantage of the minibatch.

    Args:
        ratio: mean of r, at least 0.
        weighted_advantage: mean of r A.

    Returns:
        Minus the advantage; 0 where every ratio is 0.
    """
    return -weighted_advantage / ratio if ratio > 0.0 else 0.0


def a2c_policy_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """-E[log pi(a|s) A], both ``[batch]``."""
    return -(log_prob * advantage).mean()


def value_loss(value: Tensor, target: Tensor, old_value: Tensor | None = None, clip: float | None = None) -> Tensor:
    """E[1/2 (V - R)^2]; with ``clip`` the larger of that and of the value held within ``clip`` of the old one.

    Args:
        value: ``[batch]``, now.
        target: ``[batch]``, returns.
        old_value: ``[batch]``, when the data was collected; needed with ``clip``.
        clip: largest change of the value, above 0.

    Raises:
        ShapeError: ``clip`` without ``old_value``.
    """
    error = (value - target).square()
    if clip is not None:
        if old_value is None:
            raise ShapeError("a value held within `clip` of the old one needs the old one")
        held = old_value + (value - old_value).clamp(-clip, clip)
        error = torch.max(error, (held - target).square())
    return 0.5 * error.mean()


def entropy(log_probs: Tensor) -> Tensor:
    """Mean entropy in nats of ``log_probs`` ``[batch, actions]``."""
    return -(log_probs.exp() * log_probs).sum(-1).mean()


def actor_distillation(log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """E[KL(teacher || student)] in nats (A3C-S section 1.5 of the methods; forward KL covers the teacher's modes).

    Args:
        log_probs: ``[batch, actions]`` of the student.
        teacher_log_probs: ``[batch, actions]``; no gradient reaches it.
    """
    return F.kl_div(log_probs, teacher_log_probs.detach(), reduction="batchmean", log_target=True)


def action_imitation(log_probs: Tensor, actions: Tensor) -> Tensor:
    """E[-log pi(a)] in nats: cross-entropy to the actions of a teacher that tells no more (Rusu et al. 2016, eq. 1).

    Args:
        log_probs: ``[batch, actions]`` of the student.
        actions: ``[batch]``, int64, of the teacher in the student's states.
    """
    return F.nll_loss(log_probs, actions)


def mean_imitation(mean: Tensor, teacher_mean: Tensor) -> Tensor:
    """E[1/2 sum (m - m_teacher)^2]: squared error to the actions of a teacher that gives vectors and no spread.

    The KL divergence of two Gaussians of standard deviation 1 (imitation in the student's own states: Ross et al. 2011, arXiv
    1011.0686, section 3).

    Args:
        mean: ``[batch, size]`` of the student.
        teacher_mean: ``[batch, size]``; no gradient reaches it.
    """
    return 0.5 * (mean - teacher_mean.detach()).square().sum(-1).mean()


def critic_distillation(value: Tensor, teacher_value: Tensor) -> Tensor:
    """E[1/2 (V - V_teacher)^2], both ``[batch]``, in the same normalised units."""
    return 0.5 * (value - teacher_value.detach()).square().mean()
