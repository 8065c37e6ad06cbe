"""Scores of architectures with the weights of a supernet on validation levels: returns, or losses on held-out frames.

Every architecture meets the same games, drawn actions included, and the same weights, so that scores differ by the architectures
alone, and a score that is computed again is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from cosearch.compute import compute_device
from cosearch.config.run import Config
from cosearch.record.state import State, read, read_state
from cosearch.rl.evaluate import score_within
from cosearch.rl.learning import losses
from cosearch.rl.learning.subject import mixed_precision, on_device
from cosearch.rl.policy import policy_named
from cosearch.rl.rollout import Collector, Forward, RewardScale, Rollout
from cosearch.rl.teacher import Teacher
from cosearch.rl.validation import make_validation, validation_streams
from cosearch.space.derivation.derive import derive
from cosearch.space.space import Architecture
from cosearch.training.algorithms import as_deployed, as_policy
from cosearch.training.path_subject import PathSubject
from latency_tables.errors import NonFiniteError

ENVS = 8  # of a score at most, of the run's number a divisor: the fewer there are, the longer its episodes may last
FRAMES = 4096  # held-out frames that are kept, drawn uniformly from those that were played


class SharedScores(Protocol):
    """One way to score architectures with shared weights."""

    def score(self, architecture: Architecture, steps: int) -> float:
        """The score, higher is better.

        Args:
            architecture: of the supernet's space.
            steps: environment steps that it takes.

        Raises:
            NonFiniteError: its outputs are not finite.
        """


class EpisodeScores:
    """Returns on validation levels within the steps of each score.

    Args:
        config: of the run.
        subject: the supernet.
    """

    def __init__(self, config: Config, subject: PathSubject) -> None:
        self.config, self.subject, self.streams = config, subject, validation_streams(config.seed)

    def score(self, architecture: Architecture, steps: int) -> float:
        """See :class:`SharedScores`: mean return, see ``score_within``.

        Raises:
            NonFiniteError: the network returned NaN or infinity.
            EnvironmentFailedError: an environment failed.
        """
        config = self.config
        count = math.gcd(config.env.num_envs, ENVS)
        env = make_validation(config.env, count, self.streams.derive("env"))
        try:
            generator = torch.Generator().manual_seed(self.streams.derive("actions"))
            return score_within(self._policy(architecture), env, steps // count, generator)
        finally:
            env.close()

    def _policy(self, architecture: Architecture) -> Forward:
        if self.config.rl.on_policy:
            return self.subject.forward_of(architecture)
        network = as_deployed(derive(architecture, torch.Generator().manual_seed(0), self.subject.supernet), self.config)
        device = compute_device(self.config.compute)
        return as_policy(mixed_precision(on_device(network, device), device, self.config.rl.bf16), self.config)


class FrameScores:
    """Minus the loss that a path is credited with, on frames of validation levels that paths of the supernet played.

    Args:
        config: of the run; its algorithm is on-policy.
        subject: the supernet, whose strategy draws the paths that play.
        teacher: labels the frames; None for none.
    """

    def __init__(self, config: Config, subject: PathSubject, teacher: Teacher | None) -> None:
        self.config, self.subject, self.teacher, self.streams = config, subject, teacher, validation_streams(config.seed)
        self.frames: Rollout | None = None  # ``[1, frames]``
        self.weight = 0.0
        self._teacher_memory: Tensor | None = None  # of a teacher that has one, between two rollouts of a play

    def play(self, steps: int, distill_weight: float | None) -> None:
        """Play what the scores of a round are made on, and keep ``FRAMES`` of its frames at most.

        Args:
            steps: environment steps of all scores of the round together: whole rollouts.
            distill_weight: share of the distillation's weights that holds now; None without a teacher.

        Raises:
            NonFiniteError: a path returned NaN.
            EnvironmentFailedError: an environment failed.
        """
        config, rl = self.config, self.config.rl
        env = make_validation(config.env, config.env.num_envs, self.streams.derive("env"))
        record = None if self.teacher is None else self.teacher.record
        scale = RewardScale(
            config.env.num_envs,
            rl.discount if rl.reward_gamma is None else rl.reward_gamma,
            record.reward_std if record else None,
        )
        generator = torch.Generator().manual_seed(self.streams.derive("actions"))
        collector = Collector(env, rl.rollout_steps, gamma=rl.discount, lam=rl.lam, scale=scale, generator=generator)
        rollouts = steps // (config.env.num_envs * rl.rollout_steps)
        kept = max(1, FRAMES // rollouts)
        try:
            self._teacher_memory = None
            self.frames = _together([self._played(collector, kept, generator) for _ in range(rollouts)])
        finally:
            env.close()
        self.weight = distill_weight or 0.0
        advantage = losses.normalise_advantage(self.frames.advantage.flatten())
        self.frames = replace(self.frames, advantage=advantage[None])

    def _played(self, collector: Collector, kept: int, generator: torch.Generator) -> Rollout:
        rollout = collector.collect(self.subject.actors())
        if self.teacher is not None:
            self._teacher_memory = self.teacher.label(rollout, memory=self._teacher_memory)
        index = torch.randperm(rollout.value.numel(), generator=generator)[:kept]
        return _each(rollout, lambda tensor: tensor.flatten(0, 1)[index][None].clone())

    def score(self, architecture: Architecture, steps: int) -> float:
        """See :class:`SharedScores`; ``steps`` were played before."""
        frames, distill = self.frames, self.config.distill
        if frames is None:
            raise RuntimeError("held-out frames are scored before they were played: call play first")
        forward, policy, count = self.subject.forward_of(architecture), frames.policy, frames.value.numel()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.inference_mode():
            for start in range(0, count, self.config.rl.minibatch):
                part = _each(frames, partial(_between, start=start, end=start + self.config.rl.minibatch))
                outputs, value = forward(part.frames)
                parameters = policy.read(outputs)
                ratio = (policy.log_prob(parameters, part.actions) - part.log_prob).exp()
                imitation = torch.zeros(())
                if part.teacher_policy is not None:
                    imitation = distill.actor * policy.divergence(parameters, part.teacher_policy)
                    if part.teacher_value is not None:
                        imitation = imitation + distill.critic * losses.critic_distillation(value.float(), part.teacher_value)
                terms = torch.stack([ratio.mean(), (ratio * part.advantage).mean(), self.weight * imitation])
                sums += terms.double() * len(part.value) / count
        ratio_mean, gained, imitation_mean = sums.tolist()
        found = -(imitation_mean + losses.path_loss(ratio_mean, gained))
        if not math.isfinite(found):
            raise NonFiniteError(f"the loss on held-out frames is {-found}")
        return found

    def state(self) -> State:
        """The frames with all that belongs to them."""
        if self.frames is None:
            return {}
        return {"weight": self.weight, "frames": dict(_tensors(self.frames))}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        if not state:
            return
        self.weight = read(state, "weight", float)
        saved = read_state(state, "frames")
        tensors = {key: read(saved, key, Tensor) for key in saved}
        space = self.subject.supernet.space
        policy = policy_named(space.policy, space.num_actions, space.action_sizes)
        self.frames = Rollout(**tensors, policy=policy, segments=None)


def _between(tensor: Tensor, start: int, end: int) -> Tensor:
    return tensor[0, start:end]


def _tensors(rollout: Rollout) -> dict[str, Tensor]:
    values: dict[str, object] = {field.name: getattr(rollout, field.name) for field in fields(Rollout)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _each(rollout: Rollout, change: Callable[[Tensor], Tensor]) -> Rollout:
    """The rollout with each of its tensors changed."""
    return Rollout(**{name: change(tensor) for name, tensor in _tensors(rollout).items()}, policy=rollout.policy, segments=None)


def _together(parts: list[Rollout]) -> Rollout:
    """The frames of several rollouts ``[1, frames]`` one after the other."""
    every = [_tensors(part) for part in parts]
    return Rollout(
        **{name: torch.cat([tensors[name] for tensors in every], 1) for name in every[0]}, policy=parts[0].policy, segments=None
    )
