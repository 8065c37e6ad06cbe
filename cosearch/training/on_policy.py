"""The training loop of every stage: collect, label, update, log; its whole state can be saved between two updates.

The search of a supernet, the training of one candidate, the retraining of the derived network and the training of a teacher
are this loop with another subject.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from cosearch.compute import compute_device
from cosearch.config.run import Config
from cosearch.rl.envs import EnvOptions, VectorEnv, make_env
from cosearch.rl.lanes import Lanes, lanes_for
from cosearch.rl.learner import Distillation, Learner, LearnerOptions, Subject, micro_batch_for
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams


class Trainable(Subject, Protocol):
    """A subject whose learning rate can be set, that logs, saves and restores itself."""

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next steps."""

    def see(self, frames: Tensor) -> None:
        """Learn what does not come from gradients from observations ``[time, envs, *frame_shape]``; after each update."""

    def metrics(self) -> dict[str, Any]:
        """Declared metrics beyond the learner's."""

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""


class Training:
    """One stage in progress.

    Args:
        config: the run's configuration.
        subject: what is trained.
        streams: the run's random streams.
        teacher: its labels are distilled; None for none.
        total_steps: environment steps of the stage; the learning rate falls over them.
        distill_from, distill_to: weight of the distillation at the stage's begin and end, 0..1.
        env_index: makes the environment's seed differ between stages.
        lr: (begin, end) of the learning rate; None for the configuration's.
    """

    def __init__(
        self,
        config: Config,
        subject: Trainable,
        streams: Streams,
        teacher: Teacher | None,
        *,
        total_steps: int,
        distill_from: float = 1.0,
        distill_to: float = 1.0,
        env_index: int = 0,
        lr: tuple[float, float] | None = None,
    ) -> None:
        rl = config.rl
        self.config, self.subject, self.teacher, self.total_steps = config, subject, teacher, total_steps
        self.distill = (distill_from, distill_to)
        self.lr = lr if lr is not None else (rl.lr, rl.lr * rl.lr_end_fraction)
        self.lanes = self._lanes()
        options = EnvOptions(config.env.num_envs, streams.derive("env", env_index), train_levels=config.env.train_levels)
        self.env: VectorEnv = make_env(config.env.name, options)
        self._prepare(streams)
        self.step = 0

    def _prepare(self, streams: Streams) -> None:
        """What collects and what learns."""
        config, rl = self.config, self.config.rl
        record = self.teacher.record if self.teacher else None
        reward_gamma = rl.discount if rl.reward_gamma is None else rl.reward_gamma
        scale = RewardScale(config.env.num_envs, reward_gamma, record.reward_std if record else None)
        self.collector = Collector(
            self.env, rl.rollout_steps, gamma=rl.discount, lam=rl.lam, scale=scale, generator=streams.torch("actions")
        )
        self.learner = Learner(
            LearnerOptions(
                rl.algorithm,
                1 if rl.algorithm == "a2c" else rl.epochs,
                rl.minibatch,
                rl.micro_batch or micro_batch_for(self.env.frame_shape),
                rl.clip,
                rl.value_clip,
                rl.value_weight,
                rl.entropy_weight,
                rl.max_grad_norm,
            ),
            streams.torch("minibatch"),
            self.lanes,
        )

    def _lanes(self) -> Lanes:
        """The run's threads, first as lanes, then within the operations of each lane."""
        threads = self.config.threads or os.cpu_count() or 1
        count = lanes_for(threads, self.config.rl.minibatch) if compute_device(self.config.compute).type == "cpu" else 1
        torch.set_num_threads(max(1, threads // count))
        return Lanes(count)

    @property
    def steps_per_update(self) -> int:
        """Environment steps of one rollout."""
        return self.config.env.num_envs * self.config.rl.rollout_steps

    @property
    def finished(self) -> bool:
        """Whether the stage's steps are done."""
        return self.step >= self.total_steps

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0..1."""
        return min(1.0, self.step / self.total_steps)

    def advance(self) -> dict[str, Any]:
        """One rollout and its update.

        Returns:
            Declared metrics of the update, ``step`` and ``steps_per_s`` included.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
            EnvironmentFailedError: an environment failed.
        """
        started = time.perf_counter()
        hold = self.config.rl.lr_hold_fraction
        falling = max(0.0, self.progress - hold) / (1.0 - hold) if hold < 1.0 else 0.0
        lr = self.lr[0] + (self.lr[1] - self.lr[0]) * falling
        self.subject.set_lr(lr)
        actors = self.subject.actors()
        labelling = self.teacher.labelling(self.lanes) if self.teacher is not None and self.lanes.count > 1 else None
        rollout = self.collector.collect(actors, labelling.frames if labelling else None)
        distillation, weight = None, None
        if self.teacher is not None:
            weight = self.distill[0] + (self.distill[1] - self.distill[0]) * self.progress
            distillation = Distillation(weight * self.config.distill.actor, weight * self.config.distill.critic)
            self.teacher.label(rollout, labelling)
        terms = self.learner.update(self.subject, actors, rollout, distillation)
        self.subject.see(rollout.frames)
        self.step += self.steps_per_update
        terms.pop("loss_cost", None)
        return {
            "step": self.step,
            "score_train": self.collector.score,
            "episodes": self.collector.episodes,
            "lr": lr,
            "distill_weight": weight,
            **terms,
            **self.subject.metrics(),
            "steps_per_s": self.steps_per_update / (time.perf_counter() - started),
        }

    def run(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Advance to the end; ``report`` gets each update's metrics, may save :meth:`state`, and may raise to interrupt."""
        while not self.finished:
            report(self.advance())

    def state(self) -> dict[str, Any]:
        """Everything but the random streams, which the run saves."""
        return {"step": self.step, "subject": self.subject.state(), "collector": self.collector.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.step = state["step"]
        self.subject.restore(state["subject"])
        self.collector.restore(state["collector"])

    def close(self) -> None:
        """Release the environments and the threads."""
        self.env.close()
        self.lanes.close()
