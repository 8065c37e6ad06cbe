"""What the throughput benchmark and the learning curves train: three networks on two kinds of games, published hyper-parameters.

Every contestant gets the same network, environment, rollout, epochs, minibatches and losses. Sources: Procgen, Cobbe et al. 2020
(arXiv 1912.01588); MinAtar's network, Young & Tian 2019 (arXiv 1903.03176), its widths; 64 x 128 with 4 epochs of 8 minibatches
is the field's usual PPO on MinAtar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cosearch.space.network import impala_cnn, minatar_cnn, nature_cnn
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class Workload:
    """One task with its network and hyper-parameters.

    Attributes:
        name: for lists.
        env: ``FAMILY:GAME``.
        network: ``impala``, ``nature`` or ``small``.
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        rollout_steps, epochs, minibatches: of one update, with ``num_envs`` environments.
        lr, gamma: Adam learning rate, discount.
        num_envs, lam, clip, value_weight, entropy_weight, max_grad_norm: see ``LearnerOptions``.
    """

    name: str
    env: str
    network: str
    frame_shape: tuple[int, int, int]
    num_actions: int
    rollout_steps: int
    epochs: int
    minibatches: int
    lr: float
    gamma: float
    num_envs: int = 64
    lam: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    max_grad_norm: float = 0.5

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one rollout."""
        return self.num_envs * self.rollout_steps

    @property
    def minibatch(self) -> int:
        """Frames of one optimiser step."""
        return self.steps_per_update // self.minibatches

    def ops(self) -> list[OpSpec]:
        """The network as blocks."""
        make: dict[str, Callable[[tuple[int, ...], int], list[OpSpec]]] = {
            "impala": impala_cnn,
            "nature": nature_cnn,
            "small": minatar_cnn,
        }
        return make[self.network](self.frame_shape, self.num_actions)

    def flops_per_step(self) -> float:
        """Floating-point operations of one environment step: a forward pass to act, and for each epoch one more and a backward
        pass of twice its work."""
        return 2.0 * sum(op.macs for op in self.ops()) * (1 + 3 * self.epochs)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("impala-procgen", "procgen:starpilot", "impala", (64, 64, 3), 15, 256, 3, 8, 5e-4, 0.999),
        Workload("nature-procgen", "procgen:starpilot", "nature", (64, 64, 3), 15, 256, 3, 8, 5e-4, 0.999),
        Workload("small-minatar", "minatar:breakout", "small", (10, 10, 4), 3, 128, 4, 8, 1e-3, 0.99),
    )
}
