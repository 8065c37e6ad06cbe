"""A stage that learns off-policy: play, remember, learn from the replay; subjects and interface are those of ``Training``."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cosearch.config.run import Config
from cosearch.rl.dqn.replay import Replay
from cosearch.rl.dqn.update import EpsilonGreedy, QLearner, QOptions
from cosearch.rl.lanes import Lanes
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.training.on_policy import Trainable, Training


class QTraining(Training):
    """One stage in progress with a DQN.

    One advance plays ``rl.rollout_steps`` steps of all environments with the same actors; updates come in between, as soon as
    ``dqn.replay_ratio`` has a minibatch due. The subject's network has a head for quantiles.

    Args:
        config, subject, streams, teacher: see ``Training``.
        lr: (begin, end) of the learning rate; None for the configuration's.
        epsilon_start: probability of a random action at the stage's begin; None for the configuration's.
        **options: further arguments of ``Training``.
    """

    def __init__(
        self,
        config: Config,
        subject: Trainable,
        streams: Streams,
        teacher: Teacher | None,
        *,
        lr: tuple[float, float] | None = None,
        epsilon_start: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(config, subject, streams, teacher, lr=lr, **options)
        dqn = config.dqn
        self.lr = lr if lr is not None else (dqn.lr, dqn.lr * dqn.lr_end_fraction)
        self.epsilon_start = dqn.epsilon_start if epsilon_start is None else epsilon_start

    def _prepare(self, streams: Streams) -> None:
        config, dqn = self.config, self.config.dqn
        self.collector = EpsilonGreedy(self.env, config.rl.rollout_steps, streams.numpy("actions"))
        self.replay = Replay(
            dqn.replay,
            self.env.num_envs,
            self.env.frame_shape,
            n_step=dqn.n_step,
            gamma=dqn.gamma,
            exponent=dqn.priority_exponent,
            labels=self.env.num_actions if self.teacher else 0,
            dtype=self.env.observe().dtype,
        )
        options = QOptions(
            dqn.minibatch,
            min(dqn.micro_batch, dqn.minibatch),
            dqn.double,
            dqn.target_interval,
            dqn.beta_start,
            dqn.temperature,
            config.rl.max_grad_norm,
        )
        self.learner = QLearner(options, self.subject.network, streams.numpy("minibatch"))

    def _lanes(self) -> Lanes:
        """One: the minibatches of a replay come one after the other, each with fresh priorities."""
        torch.set_num_threads(self.config.threads or os.cpu_count() or 1)
        return Lanes()

    @property
    def epsilon(self) -> float:
        """Probability of a random action: linear over the first ``dqn.epsilon_fraction`` of the stage, then constant."""
        dqn = self.config.dqn
        share = min(1.0, self.progress / dqn.epsilon_fraction) if dqn.epsilon_fraction else 1.0
        return self.epsilon_start + (dqn.epsilon_end - self.epsilon_start) * share

    def advance(self) -> dict[str, Any]:
        """The steps of one rollout and the updates that fall due.

        Returns:
            Declared metrics, means over the updates, ``step`` and ``steps_per_s`` included.

        Raises:
            NonFiniteError: an action value, loss or gradient is not finite.
            EnvironmentFailedError: an environment failed.
        """
        started, begun = time.perf_counter(), self.step
        lr = self.lr[0] + (self.lr[1] - self.lr[0]) * self.progress
        self.subject.set_lr(lr)
        weight = None
        if self.teacher is not None:
            weight = self.distill[0] + (self.distill[1] - self.distill[0]) * self.progress
        actors = self.subject.actors()
        sums: dict[str, float] = {}
        updates = self.learner.updates
        frames = self.env.observe().copy()
        for _ in range(self.config.rl.rollout_steps):
            actions, step = self.collector.play(actors, frames, self.epsilon)
            self.replay.add(frames, actions, step, self._clipped(step.reward), self._labels(frames))
            self.subject.see(torch.from_numpy(frames))
            frames = step.frames.copy()
            self.step += self.env.num_envs
            while self._due():
                terms = self.learner.update(
                    self.subject, actors, self.replay, self.progress, weight * self.config.distill.actor if weight else 0.0
                )
                terms.pop("loss_cost", None)
                for key, value in terms.items():
                    sums[key] = sums.get(key, 0.0) + value
        count = self.learner.updates - updates
        return {
            "step": self.step,
            "score_train": self.collector.score,
            "episodes": self.collector.episodes,
            "lr": lr,
            "distill_weight": weight,
            "epsilon": self.epsilon,
            "replay_frames": min(self.replay.written, self.replay.times) * self.env.num_envs,
            "updates": self.learner.updates,
            **{key: value / count for key, value in sums.items()},
            **self.subject.metrics(),
            "steps_per_s": (self.step - begun) / (time.perf_counter() - started),
        }

    def _due(self) -> bool:
        """Whether a minibatch is due: ``dqn.replay_ratio`` transitions for each step after the first ``dqn.learning_starts``."""
        dqn = self.config.dqn
        begin = max(dqn.learning_starts, (dqn.n_step + 1) * self.env.num_envs)
        return (self.step - begin) * dqn.replay_ratio >= (self.learner.updates + 1) * dqn.minibatch

    def _clipped(self, reward: np.ndarray) -> np.ndarray:
        limit = self.config.dqn.reward_clip
        return reward if limit is None else np.clip(reward, -limit, limit)

    def _labels(self, frames: np.ndarray) -> np.ndarray | None:
        """The teacher's log-probabilities ``[num_envs, actions]``: computed once a frame, kept in the replay."""
        if self.teacher is None:
            return None
        with torch.inference_mode():
            return F.log_softmax(self.teacher.forward(torch.from_numpy(frames))[0].float(), -1).numpy()

    def state(self) -> dict[str, Any]:
        """Everything but the random streams, which the run saves; the replay is the largest part."""
        return {**super().state(), "replay": self.replay.state(), "learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        super().restore(state)
        self.replay.restore(state["replay"])
        self.learner.restore(state["learner"])
