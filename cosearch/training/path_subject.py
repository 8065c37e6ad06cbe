"""A supernet as the thing that is trained along paths that somebody else draws: no architecture is learned with its weights."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from cosearch.record.state import State, read, read_state
from cosearch.rl.learning.losses import MinibatchLosses
from cosearch.rl.learning.optimiser import WeightAdam
from cosearch.rl.learning.subject import clip_and_check, mixed_precision, mixed_precision_unroll, on_device
from cosearch.rl.memory import RecurrentActor
from cosearch.rl.rollout import Forward
from cosearch.space.space import Architecture
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.weight_sharing import OneShotStrategy


class PathSubject:
    """A supernet whose minibatches are learned along single paths.

    Args:
        supernet: the shared weights.
        strategy: draws the paths.
        paths: that step the environments of one rollout.
        fresh: a new path for each minibatch of the update; else the path that acted.
        lr: Adam learning rate of the weights.
        bf16: autocast to bfloat16.
        device: where to train.
    """

    def __init__(
        self,
        supernet: SuperNet,
        strategy: OneShotStrategy,
        *,
        paths: int,
        fresh: bool,
        lr: float,
        bf16: bool,
        device: torch.device,
    ) -> None:
        self.supernet = on_device(supernet, device)
        self.strategy, self.paths, self.fresh = strategy, paths, fresh
        self.optimiser = WeightAdam(supernet.parameters(), lr)
        self._forward = mixed_precision(self.supernet, device, bf16)
        self._unroll = mixed_precision_unroll(self.supernet.unroll, device, bf16)
        self._drawing = threading.Lock()
        self._drawn: Path | None = None  # the path of this minibatch, None until its first forward pass
        self._added = 0  # minibatches whose gradients wait for the step

    @property
    def network(self) -> SuperNet:
        """The module whose weights learn."""
        return self.supernet

    @property
    def minibatches_a_step(self) -> int:
        """Minibatches whose gradients are added up; 1 where the path that acted is the one that learns."""
        return self.strategy.paths_a_step if self.fresh else 1

    def set_lr(self, lr: float) -> None:
        """Learning rate of the weights."""
        self.optimiser.set_lr(lr)

    def set_eps(self, eps: float) -> None:
        """Adam's ``eps`` of the next steps."""
        self.optimiser.set_eps(eps)

    def forward_of(self, architecture: Architecture) -> Forward:
        """The forward function along one path."""
        path = single_path(architecture)
        return self._actor(lambda: path)

    def actors(self) -> list[Forward]:
        """See ``Subject``: one drawn path each. With gradients it is the minibatch's path."""

        def actor(path: Path) -> Forward:
            def now() -> Path:
                if not torch.is_grad_enabled() or not self.fresh:
                    return path
                with self._drawing:  # whichever lane comes first draws for all
                    if self._drawn is None:
                        self._drawn = single_path(self.strategy.learning_path())
                return self._drawn

            return self._actor(now)

        draw = self.strategy.playing_path if self.fresh else self.strategy.learning_path
        return [actor(single_path(draw())) for _ in range(self.paths)]

    def _actor(self, path: Callable[[], Path]) -> Forward:
        """The forward function along the path that holds at each call."""
        if not self.supernet.memory_size:
            return lambda frames: self._forward(frames, path())
        return RecurrentActor(
            self.supernet.memory_size, lambda frames, memory, begins: self._unroll(frames, memory, begins, path())
        )

    def extra_loss(self) -> Tensor | None:
        """See ``Subject``: none."""
        return None

    def zero_grad(self) -> None:
        """See ``Subject``: gradients that wait for a step stay."""
        self._drawn = None
        if self._added == 0:
            self.optimiser.zero_grad(set_to_none=True)

    def step(self, max_grad_norm: float, found: MinibatchLosses) -> float:
        """See ``Subject``: the norm is that of the sum so far."""
        self._added += 1
        due = self._added >= self.minibatches_a_step
        norm = clip_and_check(self.supernet.parameters(), max_grad_norm if due else float("inf"), found.lr)
        if due:
            self.optimiser.step()
            self._added = 0
        return norm

    def see(self, frames: Tensor) -> None:
        """See ``Trainable``: the statistics of vectors ``[time, envs, features]``, shared by all paths."""
        self.supernet.ends.see(frames)

    def metrics(self) -> dict[str, object]:
        """Nothing beyond the learner's."""
        return {}

    def state(self) -> State:
        """Weights, optimiser, and the gradients that wait for a step."""
        waiting = {name: p.grad for name, p in self.supernet.named_parameters() if self._added and p.grad is not None}
        weights = {"supernet": self.supernet.state_dict(), "optimiser": self.optimiser.state_dict(), "gradients": waiting}
        return {**copy.deepcopy(weights), "added": self._added}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.supernet.load_state_dict(read_state(state, "supernet"))
        self.optimiser.load_state_dict(copy.deepcopy(read_state(state, "optimiser")))  # it keeps the tensors that it is given
        self._added, waiting = read(state, "added", int), read_state(state, "gradients")
        for name, parameter in self.supernet.named_parameters():
            gradient = waiting.get(name)
            parameter.grad = gradient.to(parameter.device).clone() if isinstance(gradient, Tensor) else None


def single_path(architecture: Architecture) -> Path:
    """The path that computes an architecture alone."""
    return Path(tuple((choice,) for choice in architecture.choices))
