"""What differs between the learning algorithms at the level of stages: the training, the head, the learning rate, how to act.

On-policy (``ppo``, ``a2c``): ``Training``, the plain head, actions sampled from the logits. Off-policy (``dqn``): ``QTraining``,
a head for quantiles that is folded into the plain one before the export, and the best action.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cosearch.config.run import Config
from cosearch.rl.rollout import Forward
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.space.quantile_head import fold, widen
from cosearch.training.off_policy import QTraining
from cosearch.training.on_policy import Trainable, Training

EVALUATION_EPSILON = 0.001  # Machado et al. 2018: a greedy agent may be caught in a loop that no episode ends


def learning_rate(config: Config) -> float:
    """Adam's learning rate of the weights at the begin of a stage."""
    return config.dqn.lr if config.rl.algorithm == "dqn" else config.rl.lr


def as_trained(network: nn.Module, config: Config, streams: Streams) -> nn.Module:
    """Give a new network or supernet the head that the algorithm learns with, in place."""
    if config.rl.algorithm == "dqn":
        widen(network, config.dqn.quantiles, config.dqn.dueling, streams.torch("weights"))
    return network


def as_deployed(network: AgentNetwork, config: Config) -> AgentNetwork:
    """The network that is exported, on the CPU: logits and value, or action values and their mean over the actions."""
    network = copy.deepcopy(network).cpu()
    if config.rl.algorithm != "dqn":
        return network
    return fold(network, AgentNetwork(network.ops, torch.Generator().manual_seed(0), network.wiring))


def make_training(
    config: Config, subject: Trainable, streams: Streams, teacher: Teacher | None, *, inherited: bool = False, **options: Any
) -> Training:
    """The training of the configuration's algorithm.

    Args:
        config, subject, streams, teacher: see ``Training``.
        inherited: the weights have learned in an earlier stage, so the agent need not begin with random actions.
        **options: further arguments of ``Training``.
    """
    if config.rl.algorithm != "dqn":
        return Training(config, subject, streams, teacher, **options)
    epsilon = config.dqn.epsilon_inherited if inherited else None
    return QTraining(config, subject, streams, teacher, epsilon_start=epsilon, **options)


def acting(config: Config) -> dict[str, Any]:
    """How the exported agent acts, for ``agent.json``: ``rule`` (``sample`` from the softmax, or ``argmax``) and outputs."""
    if config.rl.algorithm == "dqn":
        return {
            "rule": "argmax",
            "logits": "action values",
            "value": "mean of the action values",
            "evaluation_epsilon": EVALUATION_EPSILON,
        }
    return {"rule": "sample", "logits": "unnormalised log-probabilities", "value": "state value"}


def as_policy(agent: Forward, config: Config) -> Forward:
    """The agent with logits that a sampler can take: of its policy, or of the best action with a little chance of any."""
    if config.rl.algorithm != "dqn":
        return agent

    def policy(frames: Tensor) -> tuple[Tensor, Tensor]:
        q, value = agent(frames)
        probabilities = torch.full_like(q, EVALUATION_EPSILON / q.shape[1])
        probabilities.scatter_(1, q.argmax(1, keepdim=True), 1.0 - EVALUATION_EPSILON * (1.0 - 1.0 / q.shape[1]))
        return torch.where(torch.isfinite(q).all(1, keepdim=True), probabilities.log(), q), value

    return policy
