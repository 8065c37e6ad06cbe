"""The sections ``rl``, ``dqn``, ``sac`` and ``distill`` of the configuration: how agents are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cosearch.config.ranges import KNOWN_KEYS_ONLY, Count, Fraction, NonNegative, Positive, PositiveFloat


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class RlConfig:
    """The reinforcement-learning update.

    Attributes:
        algorithm: ``ppo``; ``a2c``: one pass along the path that acted; a ``minibatch`` of a path's whole share of the rollout
            makes one step of it, as published, but for advantages normalised in each minibatch, GAE with ``lam`` in place of
            n-step returns, Adam in place of RMSProp and the clip of the value (``value_clip``); ``dqn`` and ``sac``: off-policy,
            with the options of the sections of these names; of this section only ``rollout_steps``, ``bf16`` and, with ``dqn``,
            ``max_grad_norm`` hold for them.
        rollout_steps: steps of each environment in one rollout; with ``dqn`` and ``sac`` those between two lines of the log.
        epochs, minibatch: see ``LearnerOptions``.
        micro_batch: frames of one backward pass; a speed, not a result. 0: by the size of the frames, 128 for those of Procgen.
        lr: Adam learning rate of the weights. A search keeps it; retraining lowers it linearly to ``lr_end_fraction`` of it.
        lr_end_fraction: 0..1.
        lr_hold_fraction: share of the retraining before it begins to fall, 0..1.
        gamma: discount; null: the teacher's, 0.999 without a teacher whose discount is known (``discount``).
        lam: GAE trace decay.
        reward_gamma: discount of the returns whose standard deviation divides the rewards; null: the discount. Without effect
            beside a teacher whose divisor is taken over.
        clip, value_clip, value_weight, entropy_weight, max_grad_norm: see ``LearnerOptions``.
        bf16: bfloat16 autocast of the networks.
    """

    algorithm: Literal["ppo", "a2c", "dqn", "sac"] = "ppo"
    rollout_steps: Positive = 64
    epochs: Positive = 3
    minibatch: Positive = 128
    micro_batch: Count = 0
    lr: PositiveFloat = 2e-3
    lr_end_fraction: Fraction = 0.02
    lr_hold_fraction: Fraction = 0.0
    gamma: Fraction | None = None
    lam: Fraction = 0.95
    reward_gamma: Fraction | None = None
    clip: PositiveFloat = 0.2
    value_clip: bool = True
    value_weight: NonNegative = 0.1
    entropy_weight: NonNegative = 0.01
    max_grad_norm: PositiveFloat = 10.0
    bf16: bool = True

    @property
    def discount(self) -> float:
        """``gamma``, or its default."""
        return 0.999 if self.gamma is None else self.gamma

    @property
    def on_policy(self) -> bool:
        """Whether it learns from rollouts, which the policy of now has played; else from a replay."""
        return self.algorithm in ("ppo", "a2c")


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class DqnConfig:
    """Off-policy learning, used with ``rl.algorithm=dqn``.

    Attributes:
        replay: frames that the replay memory holds; a frame of 64 x 64 x 3 takes 12 kB, of memory and of each checkpoint.
        learning_starts: environment steps of a stage before its first update.
        replay_ratio: transitions learned from for each environment step.
        minibatch, micro_batch: transitions of one optimiser step and of one backward pass.
        lr, lr_end_fraction: as in ``rl``.
        gamma: discount.
        n_step: steps of the returns.
        quantiles: of each action's return; 1 is DQN with the Huber loss.
        double, dueling: double Q-learning; value and advantages apart.
        priority_exponent: 0 draws all transitions alike.
        beta_start: exponent of the importance weights at the start of a stage; 1 at its end.
        target_interval: optimiser steps between two copies to the target network.
        epsilon_start, epsilon_end, epsilon_fraction: probability of a random action: linear over that share of a stage.
        epsilon_inherited: its start where a stage, or a candidate of the search, goes on with weights that have learned already.
        reward_clip: clip rewards to plus or minus this; null: no clipping.
        temperature: of softmax(Q / temperature), which the teacher's policy is distilled into; in units of clipped reward.
    """

    replay: Positive = 100_000
    learning_starts: Positive = 2_000
    replay_ratio: PositiveFloat = 4.0
    minibatch: Positive = 256
    micro_batch: Positive = 256
    lr: PositiveFloat = 1e-3
    lr_end_fraction: Fraction = 0.1
    gamma: Fraction = 0.99
    n_step: Positive = 3
    quantiles: Positive = 16
    double: bool = True
    dueling: bool = True
    priority_exponent: Fraction = 0.5
    beta_start: Fraction = 0.4
    target_interval: Positive = 50
    epsilon_start: Fraction = 1.0
    epsilon_end: Fraction = 0.02
    epsilon_fraction: Fraction = 0.2
    epsilon_inherited: Fraction = 0.1
    reward_clip: PositiveFloat | None = 1.0
    temperature: PositiveFloat = 0.1


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class SacConfig:
    """Off-policy learning of continuous actions between bounds, used with ``rl.algorithm=sac``; the defaults of
    stable-baselines3.

    Attributes:
        replay: observations that the replay memory holds, in memory and in each checkpoint.
        learning_starts: environment steps of a stage before its first update.
        updates_per_step: updates for each environment step.
        minibatch: transitions of one update.
        lr: Adam learning rate of actor, critics and temperature.
        gamma: discount.
        tau: share of the way that the target critics move to the critics at each update.
    """

    replay: Positive = 1_000_000
    learning_starts: Positive = 100
    updates_per_step: PositiveFloat = 1.0
    minibatch: Positive = 256
    lr: PositiveFloat = 3e-4
    gamma: Fraction = 0.99
    tau: Fraction = 0.005


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class DistillConfig:
    """Distillation from the teacher (A2D).

    Attributes:
        teacher: name of a shipped teacher, path of a teacher file or of an ONNX file, ``auto`` (the game's) or ``none``.
        gamma, reward_std: what the values of an ONNX teacher mean: its discount, and the divisor of its rewards (1: none);
            null: unknown, which needs ``distill.critic=0``.
        outputs: what the first output of an ONNX teacher holds, ``logits`` or ``probabilities`` (their logarithm is taken);
            null: logits, and outputs that look like probabilities are refused until one of the two is named.
        layout: order of an ONNX teacher's frames, ``channels_last`` or ``channels_first``; null: as the file's own shape or
            what it can run says; a file that fits both is refused until one of the two is named.
        actor, critic: weights of the actor's KL divergence and of the critic's squared error.
        temperature: of the teacher's policy p, which is distilled as p^(1 / temperature), normalised: below 1 the student learns
            a surer policy than the teacher plays, above 1 a less sure one; 0.01..100 (Rusu et al. 2016, arXiv 1511.06295, 3.2).
        fall: how the weights fall between two moments of the run: ``linear`` or ``geometric`` (one factor in equal times).
        fall_begin, fall_end: these moments, as shares of the environment steps of search and retraining together, 0..1.
        end_fraction: share of the weights that is left after the fall; above 0 where it is geometric.
    """

    teacher: str = "auto"
    gamma: Fraction | None = None
    reward_std: PositiveFloat | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    layout: Literal["channels_last", "channels_first"] | None = None
    actor: NonNegative = 30.0
    critic: NonNegative = 0.5
    temperature: Annotated[float, Field(ge=0.01, le=100.0)] = 1.0
    fall: Literal["linear", "geometric"] = "linear"
    fall_begin: Fraction = 0.0
    fall_end: Fraction = 1.0
    end_fraction: Fraction = 1.0

    def share_at(self, progress: float) -> float:
        """Share of the weights that holds at ``progress`` 0..1 of the run."""
        if progress >= self.fall_end:
            return self.end_fraction
        if progress <= self.fall_begin:
            return 1.0
        fallen = (progress - self.fall_begin) / (self.fall_end - self.fall_begin)
        return self.end_fraction**fallen if self.fall == "geometric" else 1.0 + (self.end_fraction - 1.0) * fallen
