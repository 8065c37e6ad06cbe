"""What differs between the learning algorithms at the level of stages: the training, the head, the learning rate, how to act.

On-policy (``ppo``, ``a2c``): ``OnPolicy``, the plain head, actions sampled from the logits. Off-policy (``dqn``): ``OffPolicy``,
a head for quantiles that is folded into the plain one before the export, and the best action; or (``sac``): ``SoftActorCritic``,
a head with a spread, folded into the plain one whose means go through a tangent between the bounds, and the mean.
"""

from __future__ import annotations

import copy
import os
from typing import TypeVar

import torch
from torch import Tensor, nn

from cosearch.compute import compute_device
from cosearch.config.run import Config
from cosearch.rl.learning.lanes import Lanes, lanes_for
from cosearch.rl.learning.learner import keeps_half
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.rl.teacher import Teacher
from cosearch.rl.validation import make_beside_validation, validation_streams
from cosearch.seeding import Streams
from cosearch.space.blocks.quantile_head import fold, widen
from cosearch.space.blocks.squashed_head import squash, unsquash
from cosearch.space.ends import LEAST_ALLOWED, Bounds
from cosearch.space.network import AgentNetwork
from cosearch.training.off_policy import OffPolicy
from cosearch.training.on_policy import OnPolicy
from cosearch.training.soft_actor_critic import SoftActorCritic
from cosearch.training.stage import Stage, Trainable, Training
from latency_tables.errors import ConfigError

EVALUATION_EPSILON = 0.001  # Machado et al. 2018: a greedy agent may be caught in a loop that no episode ends

Module = TypeVar("Module", bound=nn.Module)


def learning_rate(config: Config) -> float:
    """Adam's learning rate of the weights at the begin of a stage."""
    own = {"dqn": config.dqn.lr, "sac": config.sac.lr}
    return own.get(config.rl.algorithm, config.rl.lr)


def as_trained(network: Module, config: Config, streams: Streams) -> Module:
    """Give a new network or supernet the head that the algorithm learns with, in place."""
    if config.rl.algorithm == "dqn":
        widen(network, config.dqn.quantiles, config.dqn.dueling, streams.torch("weights"))
    if config.rl.algorithm == "sac":
        squash(network, streams.torch("weights"))
    return network


def as_deployed(network: AgentNetwork, config: Config) -> AgentNetwork:
    """The network that is exported, on the CPU: policy outputs and value, or action values and their mean over the actions."""
    network = copy.deepcopy(network).cpu()
    if config.rl.on_policy:
        return network
    plain = AgentNetwork(network.ops, torch.Generator().manual_seed(0), network.wiring, network.ends.policy, network.ends.parts)
    if config.rl.algorithm == "sac":
        return unsquash(network, plain, ranges_of(config))
    return fold(network, plain)


def within_bounds(network: AgentNetwork, config: Config) -> AgentNetwork:
    """A network with the weights of :func:`as_deployed` as what that returned: with SAC its means are between the bounds."""
    if config.rl.algorithm == "sac":
        network.ends.bounds = ranges_of(config)
    return network


def ranges_of(config: Config) -> Bounds:
    """The ranges of a task's actions, see ``Box.ranges``.

    Raises:
        ConfigError: they are no vectors with finite bounds.
    """
    env = make_task(config.env, 1, 0)
    env.close()
    if env.action_box is None or not env.action_box.is_finite:
        raise ConfigError(f"rl.algorithm=sac needs actions that are vectors with finite bounds, {config.env.name} has others")
    return env.action_box.ranges


def make_training(
    config: Config,
    subject: Trainable,
    streams: Streams,
    teacher: Teacher | None,
    *,
    total_steps: int,
    inherited: bool = False,
    span: tuple[float, float] = (0.0, 1.0),
    env_index: int = 0,
    lr: tuple[float, float] | None = None,
) -> Training:
    """The training of the configuration's algorithm.

    Args:
        config: the run's configuration.
        subject: what is trained.
        streams: the run's random streams.
        teacher: its labels are distilled; None for none.
        total_steps: environment steps of the stage; the learning rate falls over them.
        inherited: the weights have learned in an earlier stage, so the agent need not begin with random actions.
        span: the stage's begin and end in the run, as shares of the run's environment steps.
        env_index: makes the environment's seed differ between stages.
        lr: (begin, end) of the learning rate; None for the configuration's.
    """
    begin = learning_rate(config)
    end = begin * {"dqn": config.dqn.lr_end_fraction, "sac": 1.0}.get(config.rl.algorithm, config.rl.lr_end_fraction)
    lanes = lanes_of(config)
    two_level, seed = keeps_half(subject), streams.derive("env", env_index)
    if two_level is not None and two_level.held_out_levels:
        env = make_beside_validation(config.env, seed, validation_streams(config.seed).derive("env"))
    else:
        env = make_task(config.env, config.env.num_envs, seed)
    stage = Stage(config, subject, teacher, env, lanes, total_steps, span, (begin, end) if lr is None else lr)
    if config.rl.algorithm == "dqn":
        return Training(stage, OffPolicy(stage, streams, config.dqn.epsilon_inherited if inherited else None))
    if config.rl.algorithm == "sac":
        return Training(stage, SoftActorCritic(stage, streams, inherited=inherited))
    return Training(stage, OnPolicy(stage, streams))


def lanes_of(config: Config) -> Lanes:
    """The run's threads, first as lanes, then within the operations of each lane.

    Off-policy there is one lane: the minibatches of a replay come one after the other, each with fresh priorities.
    """
    threads = config.threads or os.cpu_count() or 1
    spread = config.rl.on_policy and compute_device(config.compute).type == "cpu"
    count = lanes_for(threads, config.rl.minibatch) if spread else 1
    torch.set_num_threads(max(1, threads // count))
    return Lanes(count)


def acting(config: Config, *, greedy: bool = False) -> dict[str, object]:
    """How the exported agent acts, for ``agent.json``: ``rule`` (``sample`` from the softmax, or ``argmax``) and outputs.

    Args:
        config: of the run.
        greedy: its teacher takes its best action.
    """
    if config.rl.algorithm == "dqn":
        return {
            "rule": "argmax",
            "logits": "action values",
            "value": "mean of the action values",
            "evaluation_epsilon": EVALUATION_EPSILON,
        }
    if config.rl.algorithm == "sac":
        return {"rule": "argmax", "value": "none: 0"}
    return {"rule": "argmax" if greedy else "sample", "logits": "unnormalised log-probabilities", "value": "state value"}


def as_policy(agent: Forward, config: Config) -> Forward:
    """The agent with logits that a sampler can take: of its policy, or of the best action with a little chance of any."""
    if config.rl.algorithm != "dqn":
        return agent

    def policy(frames: Tensor) -> tuple[Tensor, Tensor]:
        q, value = agent(frames)
        probabilities = torch.full_like(q, EVALUATION_EPSILON / q.shape[1])
        probabilities.scatter_(1, q.argmax(1, keepdim=True), 1.0 - EVALUATION_EPSILON * (1.0 - 1.0 / q.shape[1]))
        said = torch.where(q > LEAST_ALLOWED, probabilities.log(), q)  # a forbidden action stays forbidden, the sampler scales
        return torch.where(torch.isfinite(q).all(1, keepdim=True), said, q), value

    return policy
