"""Off-policy learning: a Rainbow-style DQN on quantiles; double, dueling, n-step, prioritised, any ``Subject``.

Parts (Hessel et al. 2018, arXiv 1710.02298): double Q-learning, dueling (in the head), n-step returns and prioritised replay,
and QR-DQN as the distribution (see ``quantiles`` for why not C51). Noisy networks are left out, as in RL-DARTS: exploration is
epsilon-greedy. A supernet learns along sampled paths exactly as with PPO; the targets of a minibatch come from one of the paths
that act at present, with the target network's weights: so the losses of different paths are errors against the same targets,
and a strategy may compare them. A two-level strategy gets a second minibatch as its held-out one: drawn on its own, so that
unlike the halves of a rollout the two may share a transition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cosearch.record.state import State, read, read_list
from cosearch.rl.dqn.quantiles import bellman_target, q_distillation, quantile_huber
from cosearch.rl.dqn.replay import Batch, Replay
from cosearch.rl.envs import Step, VectorEnv
from cosearch.rl.learning.learner import HalfLoss, Subject, keeps_half
from cosearch.rl.learning.losses import MinibatchLosses
from cosearch.rl.rollout import Episodes, Forward, RewardScale, restore_played
from cosearch.space.ends import LEAST_ALLOWED
from latency_tables.errors import NonFiniteError, ShapeError


@dataclass(frozen=True)
class QOptions:
    """Hyper-parameters of the update.

    Attributes:
        minibatch, micro_batch: transitions of one optimiser step and of one backward pass.
        double: choose the next action with the learning network.
        target_interval: optimiser steps between two copies of the weights to the target network.
        beta_start: exponent of the importance weights at the start of a stage; 1 at its end.
        temperature: see ``q_distillation``.
        max_grad_norm: gradient clipping by global norm.
    """

    minibatch: int = 128
    micro_batch: int = 128
    double: bool = True
    target_interval: int = 250
    beta_start: float = 0.4
    temperature: float = 0.1
    max_grad_norm: float = 10.0


class TargetWeights:
    """An older copy of a network's weights, which can take their place for a forward pass.

    So every subject has a target network, whatever its forward pass looks like.

    Args:
        network: whose weights.
    """

    def __init__(self, network: nn.Module) -> None:
        self._live = list(network.parameters())
        self._old = [parameter.detach().clone() for parameter in self._live]

    def copy(self) -> None:
        """Make the target network equal to the network of now."""
        with torch.no_grad():
            for old, live in zip(self._old, self._live):
                old.copy_(live)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the ``with`` block the network computes with the older weights; nothing may learn there."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self._live):
            self._old[i], parameter.data = parameter.data, self._old[i]

    def state(self) -> list[Tensor]:
        """Copies of the older weights."""
        return [old.clone() for old in self._old]

    def restore(self, state: Sequence[Tensor]) -> None:
        """Go back to a :meth:`state`."""
        for old, saved in zip(self._old, state, strict=True):
            old.copy_(saved)


class EpsilonGreedy:
    """Steps the environments epsilon-greedily and counts their episodes.

    Args:
        env: the vector environment.
        rng: of the exploration.
    """

    def __init__(self, env: VectorEnv, rng: np.random.Generator) -> None:
        self.env, self.rng, self.counted = env, rng, Episodes(env.num_envs)
        self.masked = any(part.kind == "mask" for part in getattr(env, "parts", ()))
        self.scale = RewardScale(env.num_envs, 1.0, 1.0)  # rewards stay as they are; saved like any collector's

    def play(self, actors: Sequence[Forward], frames: np.ndarray, epsilon: float) -> tuple[np.ndarray, Step]:
        """One step of all environments, which the actors share evenly, in order.

        Args:
            actors: frames ``[batch, height, width, channels]`` -> quantiles ``[batch, actions, quantiles]`` and their mean.
            frames: ``[num_envs, height, width, channels]``, the present ones.
            epsilon: 0..1.

        Returns:
            The actions ``[num_envs]`` and what followed.

        Raises:
            NonFiniteError: an actor returned NaN.
            EnvironmentFailedError: an environment failed.
        """
        n, share = self.env.num_envs, self.env.num_envs // len(actors)
        shares = [torch.from_numpy(frames[i * share : (i + 1) * share]) for i in range(len(actors))]
        with torch.no_grad():
            q = torch.cat([actor(part)[0].mean(2) for actor, part in zip(actors, shares)])
        if not torch.isfinite(q).all():
            raise NonFiniteError("the action values are NaN or infinite while playing")
        explore, other = self.rng.random(n) < epsilon, self._any(q.numpy())
        actions = np.where(explore, other, q.argmax(1).numpy())
        self.env.send(actions)
        step = self.env.receive()
        self.counted.count(step.reward, step.terminated | step.truncated)
        return actions, step

    def _any(self, q: np.ndarray) -> np.ndarray:
        """One action of each environment, drawn alike from those that its mask allows: ``[num_envs]``."""
        if not self.masked:
            return self.rng.integers(0, self.env.num_actions, len(q))
        return np.where(q > LEAST_ALLOWED, self.rng.random(q.shape), -1.0).argmax(1)

    @property
    def episodes(self) -> int:
        """Episodes that have ended."""
        return self.counted.ended

    @property
    def score(self) -> float | None:
        """Mean return of the last episodes; None before the first one has ended."""
        return self.counted.score

    def state(self) -> State:
        """Plain values and tensors, the environment's state included."""
        return {"env": self.env.state(), "scale": self.scale.state(), **self.counted.state()}

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`; returns the environments whose episode begins anew, see ``VectorEnv.restore``."""
        return restore_played(self.env, self.scale, self.counted, state)


class QLearner:
    """Turns minibatches of the replay into updates.

    Args:
        options: hyper-parameters.
        network: the module that is trained, for its target network.
        rng: of the draws from the replay.
    """

    def __init__(self, options: QOptions, network: nn.Module, rng: np.random.Generator) -> None:
        self.options, self.rng, self.target, self.updates = options, rng, TargetWeights(network), 0

    def update(
        self, subject: Subject, actors: Sequence[Forward], replay: Replay, progress: float, distillation: float
    ) -> dict[str, float]:
        """One optimiser step on one minibatch.

        Args:
            subject: what is trained.
            actors: the forward functions that act at present; one of them, in turns, gives the targets.
            replay: where transitions are drawn from; their priorities become their errors.
            progress: of the stage, 0..1.
            distillation: weight of the teacher's term; 0 for none.

        Returns:
            The logged quantities.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; no weight has been changed.
        """
        o = self.options
        if self.updates % o.target_interval == 0:
            self.target.copy()
        beta = o.beta_start + (1.0 - o.beta_start) * progress
        batch = replay.draw(o.minibatch, beta, self.rng)
        actor = actors[self.updates % len(actors)]
        two_level = keeps_half(subject)
        if two_level is not None:
            other = replay.draw(o.minibatch, beta, self.rng)
            train, held = (
                self._half_loss(actor, drawn, lambda: replay.draw(o.minibatch, beta, self.rng), distillation)
                for drawn in (batch, other)
            )
            two_level.step_architecture(train, held, o.max_grad_norm)
        subject.zero_grad()
        sums, errors = self._gradients(actor, batch, distillation)
        extra = subject.extra_loss()
        if extra is not None:
            extra.backward()
            sums["loss_cost"] = extra.detach()
        report = _checked(sums)
        loss = report.pop("loss")  # off-policy, a path is credited with the whole of it
        report["grad_norm"] = subject.step(o.max_grad_norm, MinibatchLosses(loss, loss, loss, "dqn.lr"))
        replay.learned(batch.positions, errors)
        self.updates += 1
        return report

    def _half_loss(self, actor: Forward, batch: Batch, draw: Callable[[], Batch], distillation: float) -> HalfLoss:
        """The loss on a minibatch; ``draw`` draws another one."""

        def compute(backward: bool) -> float:
            return _checked(self._gradients(actor, batch, distillation, backward)[0])["loss"]

        return HalfLoss(compute, lambda: self._half_loss(actor, draw(), draw, distillation))

    def _gradients(
        self, actor: Forward, batch: Batch, distillation: float, backward: bool = True
    ) -> tuple[dict[str, Tensor], np.ndarray]:
        """Add the gradients of the loss on a minibatch, or not; loss and terms, each ``[]``, and the errors ``[batch]``."""
        o = self.options
        sums: dict[str, Tensor] = {}
        errors = []
        for start in range(0, o.minibatch, o.micro_batch):
            part = slice(start, min(start + o.micro_batch, o.minibatch))
            loss, error, terms = self._loss(actor, batch, part, distillation)
            weight = (part.stop - part.start) / o.minibatch
            if backward:
                (loss * weight).backward()
            errors.append(error)
            for key, value in {**terms, "loss": loss}.items():
                sums[key] = sums.get(key, 0.0) + weight * value.detach()
        return sums, torch.cat(errors).numpy()

    def targets(self, actor: Forward, batch: Batch, part: slice) -> Tensor:
        """Samples of the target distribution ``[part, quantiles]``, see ``bellman_target``."""
        following = batch.next_frames[part]
        with torch.no_grad():
            with self.target.in_place():
                later = actor(following)[0]
            choosing = actor(following)[0] if self.options.double else later
            return bellman_target(batch.returns[part], batch.discounts[part], later, choosing)

    def _loss(self, actor: Forward, batch: Batch, part: slice, distillation: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        target = self.targets(actor, batch, part)
        quantiles = actor(batch.frames[part])[0].float()
        taken = quantiles[torch.arange(len(target)), batch.actions[part]]
        bellman = (batch.weights[part] * quantile_huber(taken, target)).mean()
        q = quantiles.mean(2)
        loss, terms = bellman, {"loss_value": bellman, "q_mean": q.max(1).values.mean()}
        if distillation and batch.teacher_policy is None:
            raise ShapeError("distillation needs a replay that keeps the teacher's labels")
        if batch.teacher_policy is not None:  # said also where it has no weight: candidates may be compared by it
            teacher = batch.teacher_policy[part]
            actor_kl = q_distillation(q if distillation else q.detach(), teacher, self.options.temperature)
            if distillation:
                loss = loss + distillation * actor_kl
            terms |= {"distill_actor": actor_kl, "teacher_agreement": (q.argmax(1) == teacher.argmax(1)).float().mean()}
        return loss, (target.mean(1) - taken.detach().mean(1)).abs(), terms

    def state(self) -> State:
        """Target weights and the number of updates."""
        return {"target": self.target.state(), "updates": self.updates}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.target.restore(read_list(state, "target", Tensor))
        self.updates = read(state, "updates", int)


def _checked(sums: dict[str, Tensor]) -> dict[str, float]:
    report = {key: float(value) for key, value in sums.items()}
    if not all(math.isfinite(value) for value in report.values()):
        raise NonFiniteError(f"a loss is not finite: {report}. The last checkpoint is intact; try a smaller dqn.lr")
    return report
