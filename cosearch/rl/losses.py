"""Loss terms of PPO and A2C as pure functions, and generalised advantage estimation.

PPO: Schulman et al. 2017 (arXiv 1707.06347), eq. 7 and 9. A2C: Mnih et al. 2016 (arXiv 1602.01783), section 4.
GAE: Schulman et al. 2016 (arXiv 1506.02438), eq. 16.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latency_tables.errors import ShapeError


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


def critic_distillation(value: Tensor, teacher_value: Tensor) -> Tensor:
    """E[1/2 (V - V_teacher)^2], both ``[batch]``, in the same normalised units."""
    return 0.5 * (value - teacher_value.detach()).square().mean()
