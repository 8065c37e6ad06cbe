"""Off-policy rounds: play, remember, learn from the replay (DQN)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cosearch.record.state import State, read_state
from cosearch.rl.dqn.replay import Replay
from cosearch.rl.dqn.update import EpsilonGreedy, QLearner, QOptions
from cosearch.seeding import Streams
from cosearch.training.stage import Metrics, Stage


class OffPolicy:
    """Rounds of ``rl.rollout_steps`` steps of all environments with the same actors; updates come in between.

    One is made as soon as ``dqn.replay_ratio`` has a minibatch due. The subject's network has a head for quantiles.

    Args:
        stage: what is trained.
        streams: the run's random streams.
        epsilon_start: probability of a random action at the stage's begin; None for the configuration's.
    """

    def __init__(self, stage: Stage, streams: Streams, epsilon_start: float | None = None) -> None:
        self.stage = stage
        config, dqn, env = stage.config, stage.config.dqn, stage.env
        self.epsilon_start = dqn.epsilon_start if epsilon_start is None else epsilon_start
        self.collector = EpsilonGreedy(env, streams.numpy("actions"))
        self.replay = Replay(
            dqn.replay,
            env.num_envs,
            env.frame_shape,
            n_step=dqn.n_step,
            gamma=dqn.gamma,
            exponent=dqn.priority_exponent,
            labels=env.num_actions if stage.teacher else 0,
            dtype=env.observe().dtype,
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
        self.learner = QLearner(options, stage.subject.network, streams.numpy("minibatch"))

    @property
    def epsilon(self) -> float:
        """Probability of a random action: linear over the first ``dqn.epsilon_fraction`` of the stage, then constant."""
        dqn = self.stage.config.dqn
        share = min(1.0, self.stage.progress / dqn.epsilon_fraction) if dqn.epsilon_fraction else 1.0
        return self.epsilon_start + (dqn.epsilon_end - self.epsilon_start) * share

    def advance(self) -> Metrics:
        """The steps of one rollout and the updates that fall due.

        Returns:
            See ``Rounds``; means over the updates.

        Raises:
            NonFiniteError: an action value, loss or gradient is not finite.
            EnvironmentFailedError: an environment failed.
        """
        stage, env = self.stage, self.stage.env
        lr = stage.lr[0] + (stage.lr[1] - stage.lr[0]) * stage.progress
        stage.subject.set_lr(lr)
        weight = stage.distill_weight
        distillation = weight * stage.config.distill.actor if weight else 0.0
        actors = stage.subject.actors()
        sums: dict[str, float] = {}
        updates = self.learner.updates
        frames = env.observe().copy()
        for _ in range(stage.config.rl.rollout_steps):
            actions, step = self.collector.play(actors, frames, self.epsilon)
            self.replay.add(frames, actions, step, self._clipped(step.reward), self._labels(frames))
            stage.subject.see(torch.from_numpy(frames))
            frames = step.frames.copy()
            stage.step += env.num_envs
            while self._due():
                terms = self.learner.update(stage.subject, actors, self.replay, stage.progress, distillation)
                terms.pop("loss_cost", None)
                for key, value in terms.items():
                    sums[key] = sums.get(key, 0.0) + value
        count = self.learner.updates - updates
        return {
            "lr": lr,
            "distill_weight": weight,
            "epsilon": self.epsilon,
            "replay_frames": min(self.replay.written, self.replay.times) * env.num_envs,
            "updates": self.learner.updates,
            **{key: value / count for key, value in sums.items()},
        }

    def _due(self) -> bool:
        """Whether a minibatch is due: ``dqn.replay_ratio`` transitions for each step after the first ``dqn.learning_starts``."""
        dqn = self.stage.config.dqn
        begin = max(dqn.learning_starts, (dqn.n_step + 1) * self.stage.env.num_envs)
        return (self.stage.step - begin) * dqn.replay_ratio >= (self.learner.updates + 1) * dqn.minibatch

    def _clipped(self, reward: np.ndarray) -> np.ndarray:
        limit = self.stage.config.dqn.reward_clip
        return reward if limit is None else np.clip(reward, -limit, limit)

    def _labels(self, frames: np.ndarray) -> np.ndarray | None:
        """The teacher's log-probabilities ``[num_envs, actions]``: computed once a frame, kept in the replay."""
        if self.stage.teacher is None:
            return None
        with torch.inference_mode():
            return self.stage.teacher.log_probs(torch.from_numpy(frames)).numpy()

    def state(self) -> State:
        """The environments, the replay (the largest part) and the target network."""
        return {"collector": self.collector.state(), "replay": self.replay.state(), "learner": self.learner.state()}

    def restore(self, state: State) -> Sequence[int]:
        """See ``Rounds``."""
        anew = self.collector.restore(read_state(state, "collector"))
        self.replay.restore(read_state(state, "replay"))
        self.replay.cut(anew)
        self.learner.restore(read_state(state, "learner"))
        return anew
