"""On-policy rounds: collect a rollout, label it, update from it, forget it (PPO, A2C)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cosearch.record.state import State, read, read_state
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions, micro_batch_for
from cosearch.rl.memory import cleared
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.seeding import Streams
from cosearch.training.stage import Metrics, Stage


class OnPolicy:
    """Rounds of one rollout and its update.

    Args:
        stage: what is trained.
        streams: the run's random streams.
    """

    def __init__(self, stage: Stage, streams: Streams) -> None:
        self.stage = stage
        self.teacher_memory: Tensor | None = None  # of a teacher that has one, between two rollouts
        config, rl = stage.config, stage.config.rl
        record = stage.teacher.record if stage.teacher else None
        reward_gamma = rl.discount if rl.reward_gamma is None else rl.reward_gamma
        scale = RewardScale(config.env.num_envs, reward_gamma, record.reward_std if record else None)
        self.collector = Collector(
            stage.env, rl.rollout_steps, gamma=rl.discount, lam=rl.lam, scale=scale, generator=streams.torch("actions")
        )
        self.learner = Learner(
            LearnerOptions(
                rl.algorithm,
                1 if rl.algorithm == "a2c" else rl.epochs,
                rl.minibatch,
                rl.micro_batch or micro_batch_for(stage.env.frame_shape),
                rl.clip,
                rl.value_clip,
                rl.value_weight,
                rl.entropy_weight,
                rl.max_grad_norm,
            ),
            streams.torch("minibatch"),
            stage.lanes,
        )

    def advance(self) -> Metrics:
        """One rollout and its update.

        Returns:
            See ``Rounds``.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
            EnvironmentFailedError: an environment failed.
        """
        stage, config, teacher = self.stage, self.stage.config, self.stage.teacher
        hold = config.rl.lr_hold_fraction
        falling = max(0.0, stage.progress - hold) / (1.0 - hold) if hold < 1.0 else 0.0
        lr = stage.lr[0] + (stage.lr[1] - stage.lr[0]) * falling
        stage.subject.set_lr(lr)
        actors = stage.subject.actors()
        labelling = teacher.labelling(stage.lanes) if teacher is not None and stage.lanes.count > 1 else None
        distillation, weight = None, stage.distill_weight
        rollout = self.collector.collect(actors, labelling.frames if labelling else None)
        stage.step += config.env.num_envs * config.rl.rollout_steps  # they are spent even where the update fails
        if teacher is not None and weight is not None:
            distillation = Distillation(weight * config.distill.actor, weight * config.distill.critic)
            self.teacher_memory = teacher.label(rollout, labelling, self.teacher_memory)
        terms = self.learner.update(stage.subject, actors, rollout, distillation)
        stage.subject.see(rollout.frames)
        terms.pop("loss_cost", None)
        return {"lr": lr, "distill_weight": weight, **terms}

    def state(self) -> State:
        """The environments and their episodes, and what the teacher remembers of them."""
        memory = {} if self.teacher_memory is None else {"teacher_memory": self.teacher_memory}
        return {"collector": self.collector.state(), **memory}

    def restore(self, state: State) -> Sequence[int]:
        """See ``Rounds``."""
        anew = self.collector.restore(read_state(state, "collector"))
        self.teacher_memory = cleared(read(state, "teacher_memory", Tensor), anew) if "teacher_memory" in state else None
        return anew
