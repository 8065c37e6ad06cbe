"""The train seeds of one network trained together: the project's PPO with distillation, one program for all seeds.

Each seed has its own weights, environments, random streams and gradient norm, drawn from as a training of that seed alone draws,
so its curve is that training's up to rounding (a test holds both together). What is shared are the calls: one forward pass acts
for all seeds, and one optimiser step learns from a minibatch of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosearch.bench.stacked import StackedAdam, StackedNetwork
from cosearch.config.run import Config
from cosearch.rl.envs import EnvOptions, Step, VectorEnv, make_env
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions, micro_batch_for
from cosearch.rl.learning.losses import gae, normalise_advantage
from cosearch.rl.policy import Categorical
from cosearch.rl.rollout import Episodes, RewardScale, Rollout
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from latency_tables.errors import ConfigError, NonFiniteError
from latency_tables.opspec import OpSpec

ENV_INDEX = 1  # of the environments of a retraining, whose draws these are


@dataclass(frozen=True)
class Trained:
    """What the training of one seed gave.

    Attributes:
        curve: mean return of the last 100 training episodes after each rollout; None before the first has ended.
        returns: of the final evaluation's episodes, actions sampled.
    """

    curve: tuple[float | None, ...]
    returns: tuple[float, ...]


class Seed:
    """What belongs to one train seed alone: its random streams, environments, reward scale and episodes.

    Args:
        seed: of all its streams.
        config: of the training.
        reward_std: divisor of the rewards; None: estimated.
    """

    def __init__(self, seed: int, config: Config, reward_std: float | None) -> None:
        self.streams = Streams(seed)
        self.config = config
        self.env = make_env(config.env.name, EnvOptions(config.env.num_envs, self.streams.derive("env", ENV_INDEX)))
        gamma = config.rl.discount if config.rl.reward_gamma is None else config.rl.reward_gamma
        self.scale = RewardScale(config.env.num_envs, gamma, reward_std)
        self.episodes = Episodes(config.env.num_envs)

    def minibatches(self, size: int) -> Tensor:
        """Frames of each minibatch of one epoch, ``[minibatches, frames]``: drawn as ``Learner.update`` draws them."""
        generator = self.streams.torch("minibatch")
        frames = self.config.rl.rollout_steps * self.config.env.num_envs
        parts = torch.randperm(frames, generator=generator).view(-1, size)
        return parts[torch.randperm(len(parts), generator=generator)]


class TogetherTraining:
    """The trainings of one network from several seeds.

    Args:
        config: of each training; ``rl.algorithm`` must be ``ppo``.
        ops: the blocks of the network, a chain.
        seeds: one a training.
        teacher: its labels are distilled; None for none.
        total_steps: environment steps of each training; the learning rate falls over them.

    Raises:
        ConfigError: another algorithm, or minibatches that do not divide a rollout.
    """

    def __init__(
        self, config: Config, ops: Sequence[OpSpec], seeds: Sequence[int], teacher: Teacher | None, total_steps: int
    ) -> None:
        if config.rl.algorithm != "ppo":
            raise ConfigError(f"seeds are trained together by rl.algorithm=ppo alone, got {config.rl.algorithm}")
        self.config, self.teacher, self.total_steps, self.step = config, teacher, total_steps, 0
        rl = config.rl
        self.rollout_frames = config.env.num_envs * rl.rollout_steps
        self.minibatch = min(rl.minibatch, self.rollout_frames)
        if self.rollout_frames % self.minibatch:
            raise ConfigError(
                f"seeds that are trained together need minibatches of one size, and rl.minibatch={rl.minibatch} does not divide "
                f"the {self.rollout_frames} frames of a rollout: set another"
            )
        std = teacher.record.reward_std if teacher is not None else None
        self.seeds = [Seed(seed, config, std) for seed in seeds]
        self.network = StackedNetwork([AgentNetwork(ops, seed.streams.torch("weights")) for seed in self.seeds])
        self.optimiser = StackedAdam(self.network, rl.lr)
        options = LearnerOptions(
            rl.algorithm,
            rl.epochs,
            rl.minibatch,
            rl.micro_batch or micro_batch_for(self.seeds[0].env.frame_shape),
            rl.clip,
            rl.value_clip,
            rl.value_weight,
            rl.entropy_weight,
            rl.max_grad_norm,
        )
        self.learner = Learner(options, torch.Generator())  # for its loss; minibatches are drawn from each seed's own stream
        self.policy = Categorical()

    @property
    def finished(self) -> bool:
        """Whether the steps are done."""
        return self.step >= self.total_steps

    def scores(self) -> list[float | None]:
        """Mean return of the last training episodes of each seed; None before the first one has ended."""
        return [seed.episodes.score for seed in self.seeds]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[seeds * batch, height, width, channels]``, seed by seed -> logits ``[seeds * batch, actions]``, values."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.rl.bf16, cache_enabled=False):
            outputs = self.network(frames.unflatten(0, (len(self.seeds), -1))).flatten(0, 1)
        return outputs[:, :-1], outputs[:, -1]

    def advance(self) -> None:
        """One rollout of each seed, and its update.

        Raises:
            NonFiniteError: an action value or gradient of any seed is not finite.
            EnvironmentFailedError: an environment failed.
        """
        rl, progress = self.config.rl, min(1.0, self.step / self.total_steps)
        hold = rl.lr_hold_fraction
        falling = max(0.0, progress - hold) / (1.0 - hold) if hold < 1.0 else 0.0
        self.optimiser.set_lr(rl.lr * (1.0 + (rl.lr_end_fraction - 1.0) * falling))
        rollout = self.collect()
        self.step += self.rollout_frames
        distillation = None
        if self.teacher is not None:
            weight = self.config.distill.share_at(progress)
            distillation = Distillation(weight * self.config.distill.actor, weight * self.config.distill.critic)
            self.teacher.label(rollout)
        self.update(rollout, distillation)

    def collect(self) -> Rollout:
        """The experience of all seeds, ``[time, seeds * envs]``, the first seed's environments first."""
        config, count = self.config, len(self.seeds)
        steps, n = config.rl.rollout_steps, count * config.env.num_envs
        now = self._joined([seed.env.observe() for seed in self.seeds])
        frames = np.empty((steps, *now.shape), dtype=now.dtype)
        actions, log_prob = torch.empty(steps, n, dtype=torch.int64), torch.empty(steps, n)
        value = np.empty((steps + 1, n), dtype=np.float32)
        reward, done = np.empty((steps, n), dtype=np.float32), np.empty((steps, n), dtype=np.bool_)
        names = ["actions"] * count
        for t in range(steps):
            frames[t] = now
            parameters, value[t] = self._policy(now)
            actions[t] = self._sample(parameters, names)
            log_prob[t] = self.policy.log_prob(parameters, actions[t])
            taken = self._step([seed.env for seed in self.seeds], actions[t])
            now, done[t] = self._joined([step.frames for step in taken]), self._joined([step.terminated for step in taken])
            reward[t] = self._joined([seed.scale(step.reward, step.terminated) for seed, step in zip(self.seeds, taken)])
            for seed, step in zip(self.seeds, taken):
                seed.episodes.count(step.reward, step.terminated)
        _, value[steps] = self._policy(now)
        advantage = gae(reward, value, done, gamma=config.rl.discount, lam=config.rl.lam)
        return Rollout(
            torch.from_numpy(frames),
            actions,
            log_prob,
            torch.from_numpy(value[:-1].copy()),
            torch.from_numpy(advantage),
            torch.from_numpy(advantage + value[:-1]),
        )

    def update(self, rollout: Rollout, distillation: Distillation | None) -> None:
        """All epochs over one rollout of each seed; see ``Learner.update``, which does the same for one."""
        count, frames = len(self.seeds), self.rollout_frames
        whole = {key: getattr(rollout, key) for key in Rollout.__dataclass_fields__}
        flat = {  # [seeds * time * envs, ...]
            key: value.unflatten(1, (count, -1)).transpose(0, 1).flatten(0, 2)
            for key, value in whole.items()
            if isinstance(value, Tensor)
        }
        starts = frames * torch.arange(count)[:, None]
        for _ in range(self.config.rl.epochs):
            for own in torch.stack([seed.minibatches(self.minibatch) for seed in self.seeds], 1):  # [seeds, minibatch]
                index = (own + starts).flatten()
                data = {key: value.index_select(0, index) for key, value in flat.items()}
                advantage = torch.cat([normalise_advantage(part) for part in data["advantage"].chunk(count)])
                loss, _ = self.learner.loss(self.forward, data, advantage, distillation)
                (count * loss).backward()  # the mean over all seeds' frames: times their number, the sum of the seeds' losses
                self.optimiser.step(self.config.rl.max_grad_norm)

    def evaluate(self, episodes: int) -> list[tuple[float, ...]]:
        """Returns of at least so many whole episodes of each seed, an equal number in each of its environments.

        Args:
            episodes: of each seed, rounded up to a multiple of its environments.
        """
        num_envs = self.config.env.num_envs
        quota, n = -(-episodes // num_envs), num_envs * len(self.seeds)
        envs = [make_env(self.config.env.name, EnvOptions(num_envs, seed.streams.derive("eval"))) for seed in self.seeds]
        now, running, names = self._joined([env.observe() for env in envs]), np.zeros(n), ["eval"] * len(self.seeds)
        ended: list[list[float]] = [[] for _ in range(n)]
        while min(len(own) for own in ended) < quota:
            parameters, _ = self._policy(now)
            taken = self._step(envs, self._sample(parameters, names))
            now = self._joined([step.frames for step in taken])
            running += self._joined([step.reward for step in taken])
            for i in np.flatnonzero(self._joined([step.terminated for step in taken])):
                if len(ended[i]) < quota:
                    ended[i].append(float(running[i]))
                running[i] = 0.0
        for env in envs:
            env.close()
        parts = [ended[k * num_envs : (k + 1) * num_envs] for k in range(len(self.seeds))]
        return [tuple(value for own in part for value in own) for part in parts]

    def close(self) -> None:
        """Release the environments."""
        for seed in self.seeds:
            seed.env.close()

    def _policy(self, frames: np.ndarray) -> tuple[Tensor, np.ndarray]:
        with torch.inference_mode():
            logits, value = self.forward(torch.from_numpy(frames))
            parameters = self.policy.read(logits)
            if not torch.isfinite(parameters).all():
                raise NonFiniteError("a policy returned NaN or infinite action probabilities")
            return parameters, value.numpy()

    def _sample(self, parameters: Tensor, streams: Sequence[str]) -> Tensor:
        parts = zip(self.seeds, streams, parameters.chunk(len(self.seeds)))
        return torch.cat([self.policy.sample(part, seed.streams.torch(name)) for seed, name, part in parts])

    def _step(self, envs: Sequence[VectorEnv], actions: Tensor) -> list[Step]:
        for env, own in zip(envs, actions.numpy().reshape(len(envs), -1)):
            env.send(own)
        taken = [env.receive() for env in envs]
        if any(step.truncated.any() for step in taken):
            raise ConfigError(f"{self.config.env.name} has a time limit; seeds are trained together on games without one")
        return taken

    @staticmethod
    def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)


def train_together(
    config: Config, ops: Sequence[OpSpec], seeds: Sequence[int], teacher: Teacher | None, *, total_steps: int, episodes: int
) -> list[Trained]:
    """Train one network from several seeds, and evaluate each.

    Args:
        config, ops, seeds, teacher, total_steps: see :class:`TogetherTraining`.
        episodes: of each final evaluation, at least.

    Returns:
        One a seed.
    """
    training = TogetherTraining(config, ops, seeds, teacher, total_steps)
    curves: list[list[float | None]] = []
    while not training.finished:
        training.advance()
        curves.append(training.scores())
    returns = training.evaluate(episodes)
    training.close()
    return [Trained(tuple(curve), own) for curve, own in zip(zip(*curves), returns)]
