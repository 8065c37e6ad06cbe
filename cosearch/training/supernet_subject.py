"""The supernet with its strategy and its cost, as the thing that is trained: one or two levels, two optimisers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from cosearch.cost.objective import DualPenalty
from cosearch.record.state import State, read, read_list, read_state
from cosearch.rl.learning.learner import HalfLoss
from cosearch.rl.learning.losses import MinibatchLosses
from cosearch.rl.learning.optimiser import WeightAdam
from cosearch.rl.learning.subject import clip_and_check, mixed_precision, mixed_precision_unroll, on_device
from cosearch.rl.memory import RecurrentActor
from cosearch.rl.rollout import Forward
from cosearch.space.derivation.derive import discretise
from cosearch.space.space import Architecture
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.base import BilevelStrategy, GradientStrategy
from cosearch.strategies.budgeted import tilt
from cosearch.strategies.minibatch import AsksForCosts, BlackBoxCost, ChoosesHeldOut, HasPenalty, SeesCosts, WatchesGradients
from cosearch.strategies.regression import DrawnPaths

EXPECTED = {
    "energy_j": "energy_expected_j",
    "file_bytes": "file_expected_bytes",
    "memory_bytes": "memory_expected_bytes",
}  # metric of a cost: of the log


class SuperNetSubject:
    """A supernet that learns its weights and its architecture from the same rollouts.

    Args:
        supernet: the shared weights.
        strategy: the architecture logits.
        penalties: one for each constraint, the latency's first.
        paths: paths of one rollout.
        fresh: a new path for each minibatch of the update; else the path that acted.
        lr: Adam learning rate of the weights.
        bf16: autocast to bfloat16.
        device: where to train.
        warmup: progress below which only weights learn, 0..1.
        warmup_factor: the first target bounds the sampled distribution, exactly whenever the progress is set, this many times
            looser during the warm-up; None: it is a penalty in the loss instead.
        others: penalties of further agents that are made from this search, each agent's latency first; see :meth:`take_turn`.
    """

    def __init__(
        self,
        supernet: SuperNet,
        strategy: GradientStrategy | BilevelStrategy,
        penalties: list[DualPenalty],
        *,
        paths: int,
        fresh: bool,
        lr: float,
        bf16: bool,
        device: torch.device,
        warmup: float,
        warmup_factor: float | None = None,
        others: Sequence[list[DualPenalty]] = (),
    ) -> None:
        self.supernet = on_device(supernet, device)
        self.strategy, self.penalties, self.paths, self.fresh, self.warmup = strategy, penalties, paths, fresh, warmup
        self._of_agents, self.turn = [penalties, *others], 0
        self._drawing = threading.Lock()
        self._drawn: Path | None = None  # the path of this minibatch, None until its first forward pass
        self._given: Path | None = None  # a path that is evaluated as it is, None but in an evaluation
        self.optimiser = WeightAdam(supernet.parameters(), lr)
        self.bilevel = strategy if isinstance(strategy, BilevelStrategy) else None
        self.one_level = None if isinstance(strategy, BilevelStrategy) else strategy
        self.shaper = strategy if isinstance(strategy, HasPenalty) else None
        self.watcher = strategy if isinstance(strategy, WatchesGradients) else None
        self.held_out, self._stepped = self.bilevel is not None, False
        self.held_out_levels = isinstance(strategy, ChoosesHeldOut) and strategy.held_out == "levels"
        self._asked: list[float] | None = None  # relative costs that the strategy asked for last, None where it does not ask
        if penalties and isinstance(strategy, AsksForCosts):
            self._asked = []
            strategy.set_cost(BlackBoxCost(self._relative_costs, self._penalty_of))
        if penalties and isinstance(strategy, SeesCosts):
            strategy.set_relative_costs(self._relative_costs)
        self._fast, self._precise = (
            (mixed_precision(self.supernet, device, low), mixed_precision_unroll(self.supernet.unroll, device, low))
            for low in (bf16, False)
        )
        self._run, self._unroll = self._fast
        self._learns_architecture = warmup == 0.0
        self.warmup_factor, self.beta = warmup_factor, 0.0
        self.drawn, self._progress = DrawnPaths(len(supernet.space.points)), 0.0

    @property
    def network(self) -> SuperNet:
        """The module whose weights learn."""
        return self.supernet

    def set_lr(self, lr: float) -> None:
        """Learning rate of the weights."""
        self.optimiser.set_lr(lr)

    def set_eps(self, eps: float) -> None:
        """Adam's ``eps`` of the next steps."""
        self.optimiser.set_eps(eps)

    def take_turn(self, count: int) -> None:
        """Go by the targets of one agent until the next call; the following :meth:`set_progress` holds its target.

        Args:
            count: rollouts before this one: each agent has its turn.
        """
        self.turn = count % len(self._of_agents)
        self.penalties = self._of_agents[self.turn]

    def set_progress(self, progress: float) -> None:
        """Temperature and warm-up follow the progress 0..1 of the search."""
        self.strategy.arch.anneal(progress)
        self._progress = progress
        self._learns_architecture = progress >= self.warmup
        if self.warmup_factor is not None and self.penalties:
            self._hold_target(1.0 if self._learns_architecture else self.warmup_factor)

    def _hold_target(self, factor: float) -> None:
        constraint = self.penalties[0].constraint
        held = tilt(self.supernet.space, self.strategy.scores(), constraint.limit, factor * constraint.bound)
        self.beta = held.beta
        self.strategy.arch.set_tilt(held.rows)

    @property
    def _in_loss(self) -> list[DualPenalty]:
        return self.penalties if self.warmup_factor is None else self.penalties[1:]

    def actors(self) -> list[Forward]:
        """See ``Subject``: one sampled path each. With gradients it is the minibatch's path, its weights computed anew."""

        def actor(path: Path) -> Forward:
            def now() -> Path:
                if not torch.is_grad_enabled():
                    return path
                if self._given is not None:
                    return self._given
                with self._drawing:  # whichever lane comes first draws for all
                    if self._drawn is None:
                        self._drawn = self.strategy.sample() if self.fresh else path
                return self.strategy.weighted(self._drawn) if self._learns_architecture else self._drawn

            if self.supernet.memory_size:
                return RecurrentActor(self.supernet.memory_size, lambda f, memory, begins: self._unroll(f, memory, begins, now()))
            return lambda frames: self._run(frames, now())

        return [actor(self.strategy.sample()) for _ in range(self.paths)]

    def extra_loss(self) -> Tensor | None:
        """See ``Subject``: the penalties of the expected costs, unless they stand on the held-out loss."""
        return None if self.held_out else self._penalty()

    def _penalty(self) -> Tensor | None:
        if not self._in_loss or not self._learns_architecture or self._asked is not None:
            return None
        probabilities = self.strategy.arch.probabilities()
        expected = [penalty.constraint.cost.expected(probabilities) for penalty in self._in_loss]
        if self.shaper is not None:
            bounds = [penalty.constraint.bound for penalty in self._in_loss]
            return torch.stack([self.shaper.penalty(cost / bound) for cost, bound in zip(expected, bounds)]).sum()
        return torch.stack([penalty.loss(cost) for penalty, cost in zip(self._in_loss, expected)]).sum()

    def step_architecture(self, train: HalfLoss, held_out: HalfLoss, max_grad_norm: float) -> None:
        """See ``Subject``: the logits of a two-level strategy, in float32, then the dual variables where it took a step."""
        if self.bilevel is None or not self._learns_architecture:
            return
        (self._run, self._unroll), self._drawn, self._stepped = self._precise, None, False
        try:
            self.bilevel.step_architecture(
                PathLosses(self, train, penalised=False),
                PathLosses(self, held_out, penalised=True),
                list(self.supernet.parameters()),
                lambda gradients: self.optimiser.changes(gradients, max_grad_norm),
            )
        finally:
            self._run, self._unroll = self._fast
        if self._stepped:
            self._raise_duals()

    def gradients_along(self, path: Path | None, half: HalfLoss, penalised: bool) -> float:
        """See ``cosearch.strategies.minibatch.Minibatch``."""
        self._drawn = self._drawn if path is None else path
        loss = half()
        if penalised:
            self._stepped, penalty = True, self._penalty()
            if penalty is not None:
                penalty.backward()
                loss += float(penalty.detach())
        return loss

    def loss_along(self, path: Path, half: HalfLoss) -> float:
        """See ``cosearch.strategies.minibatch.Minibatch``."""
        self._given = path
        try:
            return half.value()
        finally:
            self._given = None

    def _relative_costs(self, architecture: Architecture) -> list[float]:
        costs = [penalty.constraint.cost.exact(architecture) / penalty.constraint.bound for penalty in self._in_loss]
        if self._asked is not None:
            self._asked = costs
        return costs

    def _penalty_of(self, relative: Tensor) -> Tensor:
        pairs = zip(self._in_loss, relative)
        return torch.stack([penalty.loss(cost * penalty.constraint.bound) for penalty, cost in pairs]).sum()

    def _raise_duals(self) -> None:
        if self.shaper is not None:
            return
        if self._asked is not None:  # in place of the expected costs those of an architecture that was drawn
            for penalty, cost in zip(self._in_loss, self._asked):
                penalty.update(cost * penalty.constraint.bound)
            return
        with torch.no_grad():
            probabilities = self.strategy.arch.probabilities()
            for penalty in self._in_loss:
                penalty.update(float(penalty.constraint.cost.expected(probabilities)))

    def zero_grad(self) -> None:
        """See ``Subject``."""
        self.optimiser.zero_grad(set_to_none=True)
        self.strategy.arch.zero_grad()
        self._drawn = None

    def step(self, max_grad_norm: float, found: MinibatchLosses) -> float:
        """See ``Subject``: both optimisers, then the dual variables."""
        norm = clip_and_check(self.supernet.parameters(), max_grad_norm, found.lr)
        self.optimiser.step()
        if self.watcher is not None:
            self.watcher.weights_learned(norm)
        if self._learns_architecture and self.one_level is not None and self._drawn is not None:
            credit = found.fresh_path if self.fresh else found.acting_path
            self.one_level.step(self._drawn, credit)
            if not self._drawn.soft:
                self.drawn.add(self._drawn.choices, credit, self._progress)
            self._raise_duals()
        return norm

    def see(self, frames: Tensor) -> None:
        """See ``Trainable``: the statistics of vectors ``[time, envs, features]``, shared by all paths."""
        self.supernet.ends.see(frames)

    def metrics(self) -> dict[str, object]:
        """The strategy's, and expected and most-likely cost."""
        values = self.strategy.metrics()
        with torch.no_grad():
            probabilities = self.strategy.arch.probabilities()
            best = discretise(self.supernet.space, [p.tolist() for p in probabilities])
            for penalty in self.penalties:
                cost = penalty.constraint.cost
                if cost.metric == "latency_s":
                    values |= {
                        "latency_expected_s": float(cost.expected(probabilities)),
                        "latency_argmax_s": cost.exact(best),
                        "cost_multiplier": penalty.multiplier
                        if self.warmup_factor is None
                        else self.beta * penalty.constraint.bound,
                    }
                else:
                    values[EXPECTED[cost.metric]] = float(cost.expected(probabilities))
        return values

    def state(self) -> State:
        """Weights, optimiser, strategy, dual variables, and the drawn paths with their losses."""
        weights = copy.deepcopy({"supernet": self.supernet.state_dict(), "optimiser": self.optimiser.state_dict()})
        return {
            **weights,
            "strategy": self.strategy.state(),
            "multipliers": [penalty.multiplier for penalties in self._of_agents for penalty in penalties],
            "learns": self._learns_architecture,
            "beta": self.beta,
            "drawn": self.drawn.state(),
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.supernet.load_state_dict(read_state(state, "supernet"))
        self.optimiser.load_state_dict(copy.deepcopy(read_state(state, "optimiser")))  # it keeps the tensors that it is given
        self.strategy.restore(read_state(state, "strategy"))
        every = [penalty for penalties in self._of_agents for penalty in penalties]
        for penalty, weight in zip(every, read_list(state, "multipliers", float)):
            penalty.multiplier = weight
        self._learns_architecture, self.beta = read(state, "learns", bool), read(state, "beta", float)
        if "drawn" in state:  # not in the checkpoints of earlier versions
            self.drawn.restore(read_state(state, "drawn"))


class PathLosses:
    """A minibatch of one half as a two-level strategy sees it: its loss along any path of the supernet.

    Args:
        subject: the supernet with its strategy.
        half: the loss on the frames.
        penalised: gradients of the targets' penalties come with those of the loss.
    """

    def __init__(self, subject: SuperNetSubject, half: HalfLoss, *, penalised: bool) -> None:
        self._subject, self._half, self._penalised = subject, half, penalised

    def __call__(self, path: Path | None = None) -> float:
        """Add the gradients of the loss along a path, None for the one that was drawn; returns the loss."""
        return self._subject.gradients_along(path, self._half, self._penalised)

    def loss(self, path: Path) -> float:
        """The loss along a path as it is."""
        return self._subject.loss_along(path, self._half)

    def another(self) -> PathLosses:
        """Another minibatch of the same half."""
        return PathLosses(self._subject, self._half.another(), penalised=self._penalised)
