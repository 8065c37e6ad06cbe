"""The sections ``rl`` and ``distill`` of the configuration: how agents are trained."""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cosearch.config_accel import STRICT, Fraction, NonNegative, Positive, PositiveFloat


@dataclass(frozen=True, config=STRICT)
class RlConfig:
    """The reinforcement-learning update.

    Attributes:
        algorithm: ``ppo`` or ``a2c``.
        rollout_steps: steps of each environment in one rollout.
        epochs, minibatch: see ``LearnerOptions``.
        micro_batch: frames of one backward pass; a speed, not a result. 0: by the size of the frames, 128 for those of Procgen.
        lr: Adam learning rate of the weights at the start of a stage; it falls linearly to ``lr_end_fraction`` of that.
        lr_end_fraction: 0..1.
        gamma, lam: discount and GAE trace decay. Left at its default, the discount becomes the teacher's.
        clip, value_clip, value_weight, entropy_weight, max_grad_norm: see ``LearnerOptions``.
        bf16: bfloat16 autocast of the networks.
    """

    algorithm: Literal["ppo", "a2c"] = "ppo"
    rollout_steps: Positive = 64
    epochs: Positive = 3
    minibatch: Positive = 128
    micro_batch: Annotated[int, Field(ge=0)] = 0
    lr: PositiveFloat = 2e-3
    lr_end_fraction: Fraction = 0.02
    gamma: Fraction = 0.999
    lam: Fraction = 0.95
    clip: PositiveFloat = 0.2
    value_clip: bool = True
    value_weight: NonNegative = 0.1
    entropy_weight: NonNegative = 0.01
    max_grad_norm: PositiveFloat = 10.0
    bf16: bool = True


@dataclass(frozen=True, config=STRICT)
class DistillConfig:
    """Distillation from the teacher (A2D).

    Attributes:
        teacher: name of a shipped teacher, path of a teacher file or of an ONNX file, ``auto`` (the game's) or ``none``.
        gamma, reward_std: what the values of an ONNX teacher mean: its discount, and the divisor of its rewards (1: none);
            null: unknown, which needs ``distill.critic=0``.
        actor, critic: weights of the actor's KL divergence and of the critic's squared error.
        end_fraction: share of the weights that is left at the end of the retraining; linear in between.
    """

    teacher: str = "auto"
    gamma: Fraction | None = None
    reward_std: PositiveFloat | None = None
    actor: NonNegative = 30.0
    critic: NonNegative = 0.5
    end_fraction: Fraction = 1.0
