"""Soft actor-critic (SAC) with twin critics and an automatic temperature, for any ``Subject`` with bounded continuous actions.

Haarnoja et al. 2018 (arXiv 1812.05905), with the values of stable-baselines3: two critics and the smaller of their targets, a
Gaussian squashed by a hyperbolic tangent, target critics that follow by Polyak averaging, and a temperature that holds the
entropy at minus the number of action components. The actor is what is searched, retrained and deployed; the critics are fixed
multilayer perceptrons (``critics``) that learn beside it from the same minibatches.

A supernet learns along sampled paths: paths act, and one of them in turns draws the next actions of the critics' targets, so that
there is one pair of critics, of the policies that act. The actor's loss is along a new path for each minibatch
(``strategy.update_path``): what these critics think of its actions. So the losses of different paths are errors against the same
critics, which a strategy may compare. A two-level strategy gets a second minibatch as its held-out one.

What differs from the paper: the actor's loss is divided by the mean size of the values (``losses.actor_loss``); observations are
normalised by running statistics, for the critics as for the actor, and the exported graph has them inside; where weights are
inherited the critics learn alone at first. A teacher is imitated: the squared error of the greedy action to its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosearch.record.state import State, read, read_state
from cosearch.rl.dqn.replay import Batch, Replay
from cosearch.rl.learning.learner import HalfLoss, Subject, keeps_half
from cosearch.rl.learning.losses import MinibatchLosses, mean_imitation
from cosearch.rl.learning.optimiser import WeightAdam
from cosearch.rl.rollout import Forward
from cosearch.rl.sac import losses
from cosearch.rl.sac.critics import TwinCritics
from cosearch.space.blocks.squashed_head import SquashedHead
from latency_tables.errors import NonFiniteError, ShapeError

EPS = 1e-8  # of Adam: the actor's gradients are so small that PPO's 1e-5 would halve its steps
REMEMBERED = 0.01  # share of the newest minibatch in the running deviation of the actions


@dataclass(frozen=True)
class SacOptions:
    """Hyper-parameters of the update.

    Attributes:
        minibatch: transitions of one step of the actor and of the critics.
        tau: share of the way that the target critics move to the critics at each step.
        critics_alone: first updates in which the actor stays as it is.
    """

    minibatch: int = 256
    tau: float = 0.005
    critics_alone: int = 0


@dataclass(frozen=True)
class ActorLoss:
    """The loss of the actor on a minibatch.

    Attributes:
        loss: ``[]``.
        log_prob: ``[batch]``, of the actions that were drawn.
        moved: ``[batch, size]``, these actions minus the greedy ones.
        terms: for the log, each ``[]``.
    """

    loss: Tensor
    log_prob: Tensor
    moved: Tensor
    terms: dict[str, Tensor]


class SacLearner:
    """Turns minibatches of the replay into updates of the actor, the critics and the temperature.

    Args:
        options: hyper-parameters.
        head: of the subject's network; holds the temperature.
        critics: new ones.
        normalise: observations ``[batch, features]`` as the network's first layer sees them.
        lr: Adam's learning rate of critics and temperature.
        rng: of the draws from the replay.
        generator: CPU generator of the actions in the losses.
    """

    def __init__(
        self,
        options: SacOptions,
        head: SquashedHead,
        critics: TwinCritics,
        normalise: Callable[[Tensor], Tensor],
        *,
        lr: float,
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> None:
        self.options, self.head, self.normalise, self.rng, self.generator = options, head, normalise, rng, generator
        self._device = head.log_temperature.device
        self.critics = critics.to(self._device)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self._adam = WeightAdam(self.critics.parameters(), lr, EPS)
        self._temperature_adam = torch.optim.Adam([head.log_temperature], lr=lr)
        self.updates = 0

    @property
    def temperature(self) -> float:
        """Weight of the entropy in the return."""
        return math.exp(float(self.head.log_temperature))

    def update(self, subject: Subject, actors: Sequence[Forward], replay: Replay, distillation: float) -> dict[str, float]:
        """One step of the critics, then one of the actor and of the temperature, from one minibatch.

        Args:
            subject: what is trained.
            actors: the forward functions that act at present; one of them, in turns, draws the actions of the targets.
            replay: where transitions are drawn from.
            distillation: weight of the teacher's term; 0 for none.

        Returns:
            The logged quantities.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; what it is of has not been changed.
        """
        o = self.options
        batch = replay.draw(o.minibatch, 1.0, self.rng)
        actor = actors[self.updates % len(actors)]
        report = self._learn_critics(actor, batch)
        if self.updates >= o.critics_alone:
            report |= self._learn_actor(subject, actor, batch, replay, distillation)
        elif batch.teacher_policy is not None:
            with torch.no_grad():
                best = losses.spread_of(actor(batch.frames)[0])[0].tanh()
                report |= _checked({"distill_actor": mean_imitation(best, batch.teacher_policy)})
        losses.blend(list(self.targets.parameters()), list(self.critics.parameters()), o.tau)
        self.updates += 1
        return report

    def _noise(self, batch: Batch) -> Tensor:
        return torch.randn(batch.actions.shape, generator=self.generator)

    def _values(self, critics: TwinCritics, frames: Tensor, actions: Tensor) -> Tensor:
        with torch.no_grad():
            seen = self.normalise(frames.to(self._device))
        values: Tensor = critics(seen, actions.to(self._device))
        return values.cpu()

    def _learn_critics(self, actor: Forward, batch: Batch) -> dict[str, float]:
        with torch.no_grad():
            later, log_prob = losses.squashed(actor(batch.next_frames)[0], self._noise(batch))
            following = self._values(self.targets, batch.next_frames, later)
            target = losses.soft_target(batch.returns, batch.discounts, following, log_prob, self.temperature)
        q = self._values(self.critics, batch.frames, batch.actions)
        loss = losses.critic_loss(q, target)
        report = _checked({"loss_value": loss.detach(), "q_mean": q.detach().min(0).values.mean()})
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        self._adam.step()
        return report

    def _learn_actor(
        self, subject: Subject, actor: Forward, batch: Batch, replay: Replay, distillation: float
    ) -> dict[str, float]:
        self.critics.requires_grad_(False)
        try:
            two_level = keeps_half(subject)
            if two_level is not None:
                other = replay.draw(self.options.minibatch, 1.0, self.rng)
                train, held = (self._half_loss(actor, drawn, replay, distillation) for drawn in (batch, other))
                two_level.step_architecture(train, held, math.inf)
            subject.zero_grad()
            own = self.loss(actor, batch, self._noise(batch), distillation)
            own.loss.backward()
            extra = subject.extra_loss()
            if extra is not None:
                extra.backward()
            report = _checked({**own.terms, "loss_policy": own.loss.detach()})
            found = report["loss_policy"]  # off-policy, a path is credited with the whole of it
            report["grad_norm"] = subject.step(math.inf, MinibatchLosses(found, found, found, "sac.lr"))
        finally:
            self.critics.requires_grad_(True)
        self.head.deviation.lerp_(own.moved.square().mean(0).sqrt().to(self._device), REMEMBERED)
        weight = self.head.log_temperature
        report["entropy_weight"] = self.temperature
        weight.grad = losses.temperature_gradient(own.log_prob, -float(batch.actions.shape[1])).to(weight)
        self._temperature_adam.step()
        weight.grad = None
        return report

    def loss(self, actor: Forward, batch: Batch, noise: Tensor, distillation: float) -> ActorLoss:
        """The loss of the actor on a minibatch.

        Args:
            actor: observations ``[batch, features]`` -> outputs ``[batch, 2 size]``, and anything.
            batch: transitions.
            noise: ``[batch, size]``, standard normal, of the actions.
            distillation: weight of the teacher's term; 0 for none.

        Raises:
            ShapeError: a weight for the teacher's term, and a replay without its labels.
        """
        outputs = actor(batch.frames)[0]
        actions, log_prob = losses.squashed(outputs, noise)
        loss = losses.actor_loss(self._values(self.critics, batch.frames, actions), log_prob, self.temperature)
        best = losses.spread_of(outputs)[0].tanh()
        terms = {"entropy": -log_prob.detach().mean()}
        if distillation and batch.teacher_policy is None:
            raise ShapeError("distillation needs a replay that keeps the teacher's labels")
        if batch.teacher_policy is not None:  # said also where it has no weight: candidates may be compared by it
            imitation = mean_imitation(best if distillation else best.detach(), batch.teacher_policy)
            if distillation:
                loss = loss + distillation * imitation
            terms["distill_actor"] = imitation.detach()
        return ActorLoss(loss, log_prob, (actions - best).detach(), terms)

    def _half_loss(self, actor: Forward, batch: Batch, replay: Replay, distillation: float) -> HalfLoss:
        """The loss on a minibatch, with one noise for all its calls."""
        noise = self._noise(batch)

        def compute(backward: bool) -> float:
            loss = self.loss(actor, batch, noise, distillation).loss
            if backward:
                loss.backward()
            return _checked({"loss": loss.detach()})["loss"]

        def another() -> HalfLoss:
            return self._half_loss(actor, replay.draw(self.options.minibatch, 1.0, self.rng), replay, distillation)

        return HalfLoss(compute, another)

    def state(self) -> State:
        """Critics, target critics, their optimisers and the number of updates; the temperature is with the network."""
        parts = {
            "critics": self.critics.state_dict(),
            "targets": self.targets.state_dict(),
            "optimiser": self._adam.state_dict(),
            "temperature_optimiser": self._temperature_adam.state_dict(),
        }
        return {**copy.deepcopy(parts), "updates": self.updates}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.critics.load_state_dict(read_state(state, "critics"))
        self.targets.load_state_dict(read_state(state, "targets"))
        self._adam.load_state_dict(copy.deepcopy(read_state(state, "optimiser")))
        self._temperature_adam.load_state_dict(copy.deepcopy(read_state(state, "temperature_optimiser")))
        self.updates = read(state, "updates", int)


def _checked(terms: dict[str, Tensor]) -> dict[str, float]:
    report = {key: float(value) for key, value in terms.items()}
    if not all(math.isfinite(value) for value in report.values()):
        raise NonFiniteError(f"a loss is not finite: {report}. The last checkpoint is intact; try a smaller sac.lr")
    return report
