"""Off-policy rounds of soft actor-critic: play, remember, learn from the replay (SAC)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cosearch.record.state import State, read_state
from cosearch.rl.dqn.replay import Replay
from cosearch.rl.sac.critics import TwinCritics
from cosearch.rl.sac.play import SquashedPlayer
from cosearch.rl.sac.update import EPS, SacLearner, SacOptions
from cosearch.seeding import Streams
from cosearch.space.blocks.squashed_head import squashed_head
from cosearch.space.network import AgentNetwork
from cosearch.space.supernet import SuperNet
from cosearch.training.stage import Metrics, Stage
from latency_tables.errors import ConfigError


class SoftActorCritic:
    """Rounds of ``rl.rollout_steps`` steps of all environments with the same actors; updates come in between.

    After ``sac.learning_starts`` environment steps there are ``sac.updates_per_step`` of them for each step. Until then actions
    are uniform between the bounds, or, where weights were inherited, the agent's own; then the critics learn alone for as many
    updates.

    Args:
        stage: what is trained; the subject's network has a head for bounded actions.
        streams: the run's random streams.
        inherited: the weights have learned in an earlier stage.

    Raises:
        ConfigError: actions that are no vectors with finite bounds.
    """

    def __init__(self, stage: Stage, streams: Streams, *, inherited: bool) -> None:
        self.stage, self.inherited = stage, inherited
        sac, env, network = stage.config.sac, stage.env, stage.subject.network
        box = env.action_box
        if box is None or not box.is_finite or not isinstance(network, AgentNetwork | SuperNet):
            raise ConfigError("rl.algorithm=sac needs actions that are vectors with finite bounds")
        stage.subject.set_eps(EPS)
        self._half, self._middle = np.array(box.ranges, np.float32).T
        self.collector = SquashedPlayer(env, box, streams.torch("actions"))
        self.replay = Replay(
            sac.replay,
            env.num_envs,
            env.frame_shape,
            n_step=1,
            gamma=sac.gamma,
            exponent=0.0,
            labels=env.num_actions if stage.teacher else 0,
            dtype=np.float32,
            action_size=env.num_actions,
        )
        alone = sac.learning_starts if inherited else 0
        self.learner = SacLearner(
            SacOptions(sac.minibatch, sac.tau, alone),
            squashed_head(network),
            TwinCritics(env.frame_shape[0], env.num_actions, streams.torch("weights")),
            network.ends.enter,
            lr=sac.lr,
            rng=streams.numpy("minibatch"),
            generator=streams.torch("minibatch"),
        )

    def advance(self) -> Metrics:
        """The steps of one rollout and the updates that fall due.

        Returns:
            See ``Rounds``; means over the updates.

        Raises:
            NonFiniteError: an action, loss or gradient is not finite.
            EnvironmentFailedError: an environment failed.
        """
        stage, env, sac = self.stage, self.stage.env, self.stage.config.sac
        stage.subject.set_lr(sac.lr)
        weight = stage.distill_weight
        distillation = weight * stage.config.distill.actor if weight else 0.0
        actors = stage.subject.actors()
        sums: dict[str, list[float]] = {}
        frames = env.observe().copy()
        for _ in range(stage.config.rl.rollout_steps):
            begins = not self.inherited and stage.step < sac.learning_starts
            actions, step = self.collector.play(actors, frames, uniform=begins)
            self.replay.add(frames, actions, step, step.reward, self._labels(frames))
            stage.subject.see(torch.from_numpy(frames))
            frames = step.frames.copy()
            stage.step += env.num_envs
            while self._due():
                for key, value in self.learner.update(stage.subject, actors, self.replay, distillation).items():
                    sums.setdefault(key, []).append(value)
        return {
            "lr": sac.lr,
            "distill_weight": weight,
            "replay_frames": min(self.replay.written, self.replay.times) * env.num_envs,
            "updates": self.learner.updates,
            **{key: float(np.mean(values)) for key, values in sums.items()},
        }

    def _due(self) -> bool:
        """Whether an update is due: ``sac.updates_per_step`` for each step after the first ``sac.learning_starts``."""
        sac = self.stage.config.sac
        begin = max(sac.learning_starts, 2 * self.stage.env.num_envs)
        return (self.stage.step - begin) * sac.updates_per_step >= self.learner.updates + 1

    def _labels(self, frames: np.ndarray) -> np.ndarray | None:
        """The teacher's actions between -1 and 1 ``[num_envs, size]``: computed once an observation, kept in the replay."""
        if self.stage.teacher is None:
            return None
        with torch.inference_mode():
            means = self.stage.teacher.forward(torch.from_numpy(frames))[0].float().numpy()[:, : self.stage.env.num_actions]
        return np.clip((means - self._middle) / self._half, -1.0, 1.0)

    def state(self) -> State:
        """The environments, the replay (the largest part) and the critics."""
        return {"collector": self.collector.state(), "replay": self.replay.state(), "learner": self.learner.state()}

    def restore(self, state: State) -> Sequence[int]:
        """See ``Rounds``."""
        anew = self.collector.restore(read_state(state, "collector"))
        self.replay.restore(read_state(state, "replay"))
        self.replay.cut(anew)
        self.learner.restore(read_state(state, "learner"))
        return anew
