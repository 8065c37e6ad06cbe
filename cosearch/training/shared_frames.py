"""Several networks that learn side by side from the same frames: each plays a share of the environments, all learn from all.

Papers: states that learners visit, labelled by an expert: Ross, Gordon and Bagnell, DAgger, AISTATS 2011, arXiv 1011.0686;
experience shared by all members of a population: Franke et al., SEARL, ICLR 2021, arXiv 2009.01555.
The loss of network k, over all frames whoever played them, with the weights of ``distill``:
  actor KL(teacher || k)  +  critic 1/2 (V_k - V_teacher)^2
Differs from the papers in:
1. Nobody learns from rewards: a frame that another network played tells a policy gradient little, and nothing without ratios.
   What is found learns from them in its retraining.
2. The members are networks to be compared and nothing else differs between them; SEARL's change their settings and are copied.
3. Frames are learned from in the rollout in which they were played and then forgotten; DAgger keeps all, SEARL a replay.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import torch
from torch import Tensor

from cosearch.config.run import Config
from cosearch.record.state import State, read, read_list, read_state
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions, micro_batch_for
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.memory import cleared
from cosearch.rl.rollout import Collector, Forward, RewardScale, Rollout
from cosearch.rl.task import make_task
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import lanes_of, learning_rate
from cosearch.training.stage import Metrics
from latency_tables.errors import NonFiniteError

LOGGED = ("distill_actor", "distill_critic", "teacher_agreement", "grad_norm")


@dataclass
class Member:
    """One of the networks.

    Attributes:
        subject: the network and its optimiser.
        divergences: mean divergence from the teacher in each round so far, nats.
        failure: why it learns no further; None: it does.
    """

    subject: NetworkSubject
    divergences: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def divergence(self) -> float | None:
        """Mean over the last half of the rounds, as ``Training.divergence``; None before the first."""
        last = self.divergences[len(self.divergences) // 2 :]
        return fmean(last) if last else None

    def state(self) -> State:
        """Everything."""
        return {"subject": self.subject.state(), "divergences": list(self.divergences), "failure": self.failure}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.subject.restore(read_state(state, "subject"))
        self.divergences, failure = read_list(state, "divergences", float), state["failure"]
        self.failure = None if failure is None else str(failure)


class SharedFrames:
    """The training of several networks on the frames that they play together, at a constant learning rate.

    Args:
        config: of the run.
        networks: by the index of their candidate; without a memory.
        streams: of the training; saved by the caller.
        teacher: what they learn.
        total_steps: environment steps until the last of them ends; the distillation's share goes by these.
        share: of the run's environment steps that these are, 0..1.
        device: where to train.

    Attributes:
        latest: of each member that learned in the last round its declared metrics.
    """

    def __init__(
        self,
        config: Config,
        networks: Mapping[int, AgentNetwork],
        streams: Streams,
        teacher: Teacher,
        *,
        total_steps: int,
        share: float,
        device: torch.device,
    ) -> None:
        rl, lr = config.rl, learning_rate(config)
        self.config, self.teacher, self.total_steps, self.share, self.lr = config, teacher, total_steps, share, lr
        self.members = {
            index: Member(NetworkSubject(network, lr=lr, bf16=rl.bf16, device=device)) for index, network in networks.items()
        }
        self.lanes = lanes_of(config)
        self.env = make_task(config.env, config.env.num_envs, streams.derive("env", 0))
        scale = RewardScale(config.env.num_envs, rl.discount, teacher.record.reward_std)
        self.collector = Collector(
            self.env, rl.rollout_steps, gamma=rl.discount, lam=rl.lam, scale=scale, generator=streams.torch("actions")
        )
        self.learner = Learner(
            LearnerOptions(
                "a2c",
                1 if rl.algorithm == "a2c" else rl.epochs,
                rl.minibatch,
                rl.micro_batch or micro_batch_for(self.env.frame_shape),
                value_clip=False,
                value_weight=0.0,
                entropy_weight=0.0,
                max_grad_norm=rl.max_grad_norm,
            ),
            streams.torch("minibatch"),
            self.lanes,
        )
        self.step, self.rounds = 0, 0  # environment steps and rollouts that are done
        self.latest: dict[int, dict[str, float]] = {}
        self.teacher_memory: Tensor | None = None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.total_steps

    @property
    def learning(self) -> dict[int, Member]:
        """The members that have not failed."""
        return {index: member for index, member in self.members.items() if member.failure is None}

    def advance(self) -> Metrics:
        """One rollout, from which every member that has not failed learns.

        Returns:
            Declared metrics: of all, and those of the :attr:`leader`.

        Raises:
            NonFiniteError: no member is left, or one that plays gave no finite policy.
            EnvironmentFailedError: an environment failed.
        """
        started, begun, config = time.perf_counter(), self.step, self.config
        weight = config.distill.share_at(self.share * min(1.0, self.step / self.total_steps))
        labelling = self.teacher.labelling(self.lanes) if self.lanes.count > 1 else None
        rollout = self.collector.collect(self._players(), labelling.frames if labelling else None)
        self.step, self.rounds = self.step + config.env.num_envs * config.rl.rollout_steps, self.rounds + 1
        self.teacher_memory = self.teacher.label(rollout, labelling, self.teacher_memory)
        distillation = Distillation(weight * config.distill.actor, weight * config.distill.critic)
        self.latest = self._learn(replace(rollout, advantage=torch.zeros_like(rollout.advantage)), distillation)
        return {
            "step": self.step,
            "score_train": self.collector.score,
            "episodes": self.collector.episodes,
            "lr": self.lr,
            "distill_weight": weight,
            **self.latest[self.leader],
            "steps_per_s": (self.step - begun) / (time.perf_counter() - started),
        }

    @property
    def leader(self) -> int:
        """Whose policy was nearest to the teacher's in the last round."""
        return min(self.latest, key=lambda index: self.latest[index]["distill_actor"])

    def _learn(self, rollout: Rollout, distillation: Distillation) -> dict[int, dict[str, float]]:
        """Let every member learn from a rollout; the logged terms of those that could."""
        found = {}
        for index, member in self.learning.items():
            try:
                terms = self.learner.update(member.subject, member.subject.actors(), rollout, distillation)
            except NonFiniteError as error:
                member.failure = str(error)
                if not self.learning:
                    raise
                continue
            member.subject.see(rollout.frames)
            member.divergences.append(terms["distill_actor"])
            found[index] = {key: terms[key] for key in LOGGED if key in terms}
        return found

    def _players(self) -> list[Forward]:
        """Who plays the next rollout: as many members as share the environments evenly, in turn."""
        members = list(self.learning.values())
        count = max(each for each in range(1, len(members) + 1) if self.config.env.num_envs % each == 0)
        turn = self.rounds * count
        return [members[(turn + i) % len(members)].subject.actors()[0] for i in range(count)]

    def state(self) -> State:
        """Everything but the random streams."""
        memory = {} if self.teacher_memory is None else {"teacher_memory": self.teacher_memory}
        members = {str(index): member.state() for index, member in self.members.items()}
        return {"step": self.step, "rounds": self.rounds, "collector": self.collector.state(), "members": members, **memory}

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`, of these members and maybe of others that learn no further.

        Returns:
            The environments whose episode begins anew, see ``VectorEnv.restore``.
        """
        self.step, self.rounds = read(state, "step", int), read(state, "rounds", int)
        members = read_state(state, "members")
        for index, member in self.members.items():
            member.restore(read_state(members, str(index)))
        anew = self.collector.restore(read_state(state, "collector"))
        self.teacher_memory = cleared(read(state, "teacher_memory", Tensor), anew) if "teacher_memory" in state else None
        return anew

    def close(self) -> None:
        """Release the environments and the threads."""
        try:
            self.env.close()
        finally:
            self.lanes.close()
