"""One update from one rollout: PPO or A2C plus the distillation terms, in minibatches made of cache-sized micro-batches.

Gradients of micro-batches are accumulated, so the result is that of the whole minibatch while the activations of 128-256
frames stay in the processor's cache (measured: 1.5 to 2 times faster than 2,048 frames at once). Several lanes compute the
micro-batches side by side; each lane adds its own gradients up, then the lanes are added in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cosearch.rl.learning import losses
from cosearch.rl.learning.lanes import Lanes
from cosearch.rl.learning.minibatches import cut
from cosearch.rl.memory import Segments, recurrent
from cosearch.rl.policy import Categorical, Policy
from cosearch.rl.rollout import Forward, Rollout
from latency_tables.errors import ConfigError, NonFiniteError, ShapeError

ALGORITHMS = ("ppo", "a2c")


@dataclass(frozen=True)
class LearnerOptions:
    """Hyper-parameters of the update.

    Attributes:
        algorithm: ``ppo`` or ``a2c``.
        epochs: passes over the rollout (1 for ``a2c``).
        minibatch: most frames of one optimiser step: a path's share of the rollout is cut into the fewest minibatches, as equal
            as they can be.
        micro_batch: frames of one backward pass.
        clip: PPO clip range.
        value_clip: hold value changes within ``clip``.
        value_weight, entropy_weight: loss weights.
        max_grad_norm: gradient clipping by global norm.
    """

    algorithm: str = "ppo"
    epochs: int = 3
    minibatch: int = 2048
    micro_batch: int = 128
    clip: float = 0.2
    value_clip: bool = True
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigError(f"unknown algorithm {self.algorithm!r}: expected one of {', '.join(ALGORITHMS)}")


def micro_batch_for(frame_shape: Sequence[int]) -> int:
    """Fastest micro-batch measured, in frames: 128 for 64x64 frames, more for smaller ones.

    Args:
        frame_shape: ``(height, width, channels)``.
    """
    return max(128, min(1024, 128 * 64 * 64 // math.prod(frame_shape[:2])))


class Subject(Protocol):
    """What is trained: a plain network, or a supernet with its strategy."""

    def actors(self) -> list[Forward]:
        """Forward functions that share the environments of the next rollout; called once a rollout."""

    def extra_loss(self) -> Tensor | None:
        """A loss that does not depend on frames (the hardware cost), once a minibatch."""

    def zero_grad(self) -> None:
        """Clear all gradients."""

    def step(self, max_grad_norm: float, found: losses.MinibatchLosses) -> float:
        """``found`` is of the minibatch. Clip, step all optimisers, return the gradient norm before clipping."""


@dataclass(frozen=True)
class HalfLoss:
    """The loss on a minibatch of one half of the experience: called, it adds its gradients; returns the loss.

    Attributes:
        compute: (whether gradients are added) -> the loss.
        another: -> the loss on another minibatch of the same half, drawn at this call.
    """

    compute: Callable[[bool], float]
    another: Callable[[], HalfLoss]

    def __call__(self) -> float:
        """Add the gradients of the loss; returns it."""
        return self.compute(True)

    def value(self) -> float:
        """The loss; nothing gets a gradient."""
        return self.compute(False)


@runtime_checkable
class HeldOutSubject(Protocol):
    """A subject that may learn an architecture from frames that are kept from its weights."""

    @property
    def held_out(self) -> bool:
        """Whether half of a rollout's frames are kept from the weights, for :meth:`step_architecture` before each step."""

    @property
    def held_out_levels(self) -> bool:
        """Whether these are of every other environment, from the second: those on validation levels. Else any half is drawn."""

    def step_architecture(self, train: HalfLoss, held_out: HalfLoss, max_grad_norm: float) -> None:
        """Called where ``held_out``, with a minibatch of each half.

        ``max_grad_norm`` is what the gradients of the weights are clipped to in the step that follows.
        """


def keeps_half(subject: Subject) -> HeldOutSubject | None:
    """The subject where it has frames kept from its weights; else None."""
    return subject if isinstance(subject, HeldOutSubject) and subject.held_out else None


@dataclass(frozen=True)
class Distillation:
    """Weights of the distillation terms in one update: actor KL and critic MSE."""

    actor: float
    critic: float


class Learner:
    """Turns rollouts into updates.

    Args:
        options: hyper-parameters.
        generator: CPU generator of the minibatch order.
        lanes: threads that share each minibatch.
    """

    def __init__(self, options: LearnerOptions, generator: torch.Generator, lanes: Lanes | None = None) -> None:
        self.options, self.generator, self.lanes = options, generator, lanes or Lanes()
        self._policy: Policy = Categorical()  # of the rollout that is learned from
        self._returns = (0.0, 0.0)  # mean and standard deviation of its returns
        self._segment = 1  # steps of what is drawn: of a policy with a memory all steps of an environment

    def update(
        self, subject: Subject, actors: Sequence[Forward], rollout: Rollout, distillation: Distillation | None
    ) -> dict[str, float]:
        """All epochs over one rollout.

        Args:
            subject: what is trained.
            actors: the forward functions that collected the rollout, in order.
            rollout: the experience; with teacher labels where ``distillation`` is given.
            distillation: weights of the teacher's terms, or None.

        Returns:
            Means of the logged quantities over the update, see the metrics table.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; no weight has been changed by that minibatch.
            ShapeError: the environments of a path cannot be halved, where validation levels or a memory need that.
            ConfigError: a minibatch would hold one frame.
        """
        steps, n = rollout.value.shape
        self._policy = rollout.policy
        self._returns = float(rollout.target.mean()), float(rollout.target.std(unbiased=False))
        share = n // len(actors)
        sums: dict[str, float] = {}
        count = 0
        segments = rollout.segments if rollout.segments is not None and rollout.segments.memory is not None else None
        flat = _flatten(rollout) if segments is None else _by_environment(rollout, segments)
        frames = torch.arange(steps * n).view(steps, n)
        self._segment = 1
        if segments is not None:  # what is drawn are environments, each with all its steps
            self._segment, frames = steps, torch.arange(n)[None]
        size = max(1, self.options.minibatch // self._segment)
        groups = [frames[:, group * share : (group + 1) * share].reshape(-1) for group in range(len(actors))]
        halves: list[tuple[Tensor, ...]] | None = None
        two_level = keeps_half(subject)
        if two_level is not None:
            if (segments is not None and share < 2) or (two_level.held_out_levels and share % 2):
                raise ShapeError(
                    f"half of the environments of each path are kept from the weights: {n} environments for {len(actors)} paths "
                    "cannot be halved; set env.num_envs to a multiple of twice strategy.paths_per_rollout"
                )
            if two_level.held_out_levels:
                own = [frames[:, group * share : (group + 1) * share] for group in range(len(actors))]
                halves = [(each[:, ::2].reshape(-1), each[:, 1::2].reshape(-1)) for each in own]
            else:
                halves = [self._shuffled(index).chunk(2) for index in groups]
        for _ in range(self.options.epochs):
            batches = []
            for group in range(len(actors)):
                order = self._shuffled(groups[group] if halves is None else halves[group][0])
                parts = cut(order, size, self._segment)
                held_out = [None] if halves is None else cut(self._shuffled(halves[group][1]), size, self._segment)
                batches += [(group, part, other) for part, other in zip(parts, cycle(held_out))]
            for b in torch.randperm(len(batches), generator=self.generator).tolist():
                group, index, other = batches[b]
                if other is not None and two_level is not None and halves is not None:
                    train, held = (
                        self._half_loss(actors[group], flat, drawn, half, distillation)
                        for drawn, half in zip((index, other), halves[group])
                    )
                    two_level.step_architecture(train, held, self.options.max_grad_norm)
                terms = self._minibatch(subject, actors[group], flat, index, distillation)
                count += 1
                for key, value in terms.items():
                    sums[key] = sums.get(key, 0.0) + value
        means = {key: value / count for key, value in sums.items()}
        variance = float(rollout.target.var())
        if variance > 0:  # returns that are all equal have nothing to explain: then it is left out
            means["explained_variance"] = 1.0 - float((rollout.target - rollout.value).var()) / variance
        return means

    def _shuffled(self, index: Tensor) -> Tensor:
        return index[torch.randperm(len(index), generator=self.generator)]

    def _half_loss(
        self, forward: Forward, flat: dict[str, Tensor], index: Tensor, half: Tensor, distillation: Distillation | None
    ) -> HalfLoss:
        """The loss on the frames ``index`` of a ``half``."""

        def compute(backward: bool) -> float:
            return _checked(self._gradients(forward, flat, index, distillation, backward))["loss"]

        def another() -> HalfLoss:
            return self._half_loss(forward, flat, self._shuffled(half)[: len(index)], half, distillation)

        return HalfLoss(compute, another)

    def _minibatch(
        self, subject: Subject, forward: Forward, flat: dict[str, Tensor], index: Tensor, distillation: Distillation | None
    ) -> dict[str, float]:
        subject.zero_grad()
        sums = self._gradients(forward, flat, index, distillation)
        extra = subject.extra_loss()
        if extra is not None:
            extra.backward()
            sums["loss_cost"] = extra.detach()
        report = _checked(sums)
        fresh = losses.path_loss(report.pop("ratio"), report.pop("ratio_advantage"))
        imitation, (mean, deviation) = report.pop("imitation"), self._returns
        acting = (mean - float(flat["target"][index].mean())) / deviation if deviation > 0.0 else 0.0
        found = losses.MinibatchLosses(report.pop("loss"), imitation + fresh, imitation + acting)
        report["grad_norm"] = subject.step(self.options.max_grad_norm, found)
        return report

    def _gradients(
        self, forward: Forward, flat: dict[str, Tensor], index: Tensor, distillation: Distillation | None, backward: bool = True
    ) -> dict[str, Tensor]:
        """Add the gradients of the loss on these frames, or not; returns the loss and its terms, each ``[]``."""
        advantage = losses.normalise_advantage(flat["advantage"][index])
        sums: dict[str, Tensor] = {}
        size = min(max(1, self.options.micro_batch // self._segment), -(-len(index) // self.lanes.count))

        def lane(starts: Sequence[int]) -> tuple[list[dict[str, Tensor]], dict[Tensor, Tensor]]:
            reports: list[dict[str, Tensor]] = []
            gradients: dict[Tensor, Tensor] = {}
            for start in starts:
                part = index[start : start + size]
                weight = len(part) / len(index)
                data = {key: value.index_select(0, part) for key, value in flat.items()}
                mine = advantage[start : start + size]
                if "memory" in data:
                    data, mine = _in_time({**data, "advantage": mine})
                loss, terms = self.loss(forward, data, mine, distillation)
                if backward and self.lanes.count == 1:
                    (loss * weight).backward()
                elif backward:
                    leaves = _leaves(loss)
                    for leaf, gradient in zip(leaves, torch.autograd.grad(loss * weight, leaves)):
                        gradients[leaf] = gradients[leaf] + gradient if leaf in gradients else gradient
                reports.append({key: weight * value.detach() for key, value in {**terms, "loss": loss}.items()})
            return reports, gradients

        starts = range(0, len(index), size)
        done = self.lanes.run(lane, [starts[k :: self.lanes.count] for k in range(min(self.lanes.count, len(starts)))])
        for terms in (terms for reports, _ in done for terms in reports):
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + value
        for leaf, gradient in ((leaf, gradient) for _, gradients in done for leaf, gradient in gradients.items()):
            leaf.grad = gradient.clone() if leaf.grad is None else leaf.grad + gradient
        return sums

    def loss(
        self, forward: Forward, data: dict[str, Tensor], advantage: Tensor, distillation: Distillation | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on some frames, and its terms for the log, each ``[]``.

        Args:
            forward: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``, or recurrent.
            data: the rollout's tensors, ``[batch, ...]``; of a recurrent policy ``[time * envs, ...]`` in the order of time, with
                ``memory`` ``[envs, memory_size]`` and ``begins`` ``[time, envs]``.
            advantage: ``[batch]``, normalised.
            distillation: weights of the teacher's terms, or None.
        """
        o, policy = self.options, self._policy
        actor_with_memory = recurrent(forward)
        if actor_with_memory is not None:
            outputs, value, _ = actor_with_memory.unroll(data["frames"], data["memory"], data["begins"])
        else:
            outputs, value = forward(data["frames"])
        parameters, value = policy.read(outputs), value.float()
        log_prob = policy.log_prob(parameters, data["actions"])
        log_ratio = log_prob - data["log_prob"]
        if o.algorithm == "ppo":
            actor = losses.ppo_policy_loss(log_prob, data["log_prob"], advantage, o.clip)
        else:
            actor = losses.a2c_policy_loss(log_prob, advantage)
        critic = losses.value_loss(value, data["target"], data["value"], o.clip if o.value_clip else None)
        entropy = policy.entropy(parameters)
        loss = actor + o.value_weight * critic - o.entropy_weight * entropy
        ratio = log_ratio.exp()
        terms = {
            "ratio": ratio.mean(),
            "ratio_advantage": (ratio * advantage).mean(),
            "imitation": torch.zeros(()),
            "loss_policy": actor,
            "loss_value": critic,
            "entropy": entropy,
            "kl_policy": (ratio - 1.0 - log_ratio).mean(),
            "clip_fraction": ((ratio - 1.0).abs() > o.clip).float().mean(),
        }
        if distillation is not None:
            teacher_actor = policy.divergence(parameters, data["teacher_policy"])
            loss = loss + distillation.actor * teacher_actor
            terms |= {"imitation": distillation.actor * teacher_actor, "distill_actor": teacher_actor}
            if "teacher_value" in data:  # some teachers give none
                teacher_critic = losses.critic_distillation(value, data["teacher_value"])
                loss = loss + distillation.critic * teacher_critic
                terms["imitation"] = terms["imitation"] + distillation.critic * teacher_critic
                terms["distill_critic"] = teacher_critic
            agree = policy.agreement(parameters, data["teacher_policy"])
            terms |= {} if agree is None else {"teacher_agreement": agree}
        return loss, terms


def _checked(terms: dict[str, Tensor]) -> dict[str, float]:
    report = {key: float(value) for key, value in terms.items()}
    if not all(math.isfinite(value) for value in report.values()):
        raise NonFiniteError(f"a loss is not finite: {report}. The last checkpoint is intact; try a smaller rl.lr")
    return report


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors that a loss is differentiable in, in the order of a walk through its graph."""
    nodes = [] if loss.grad_fn is None else [loss.grad_fn]
    seen, leaves = set(nodes), []
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)  # of a node that accumulates into a leaf
        if isinstance(leaf, Tensor):
            leaves.append(leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return leaves


def _flatten(rollout: Rollout) -> dict[str, Tensor]:
    """The rollout's tensors by frames, ``[time * envs, ...]``."""
    return {key: value.flatten(0, 1) for key, value in _tensors(rollout).items()}


def _by_environment(rollout: Rollout, segments: Segments) -> dict[str, Tensor]:
    """The rollout's tensors by environments, ``[envs, time, ...]``; and the memory ``[envs, memory_size]``."""
    memory = {} if segments.memory is None else {"memory": segments.memory}
    ordered = {**_tensors(rollout), "begins": segments.begins[:-1]}
    return {**{key: value.transpose(0, 1) for key, value in ordered.items()}, **memory}


def _tensors(rollout: Rollout) -> dict[str, Tensor]:
    values: dict[str, object] = {key: getattr(rollout, key) for key in Rollout.__dataclass_fields__}
    return {key: value for key, value in values.items() if isinstance(value, Tensor)}


def _in_time(data: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Segments ``[envs, time, ...]`` in the order of time, ``[time * envs, ...]``; and their advantages ``[time * envs]``."""
    kept = {"memory": data["memory"], "begins": data["begins"].transpose(0, 1)}
    flat = {key: value.transpose(0, 1).flatten(0, 1) for key, value in data.items() if key not in kept}
    return {**flat, **kept}, flat["advantage"]
