"""Small networks on one-hot choices, which learn what architectures score: two layers, drawn from a generator alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cosearch.record.state import State, read_state
from cosearch.space.space import SearchSpace


def one_hot(space: SearchSpace, choices: Sequence[Sequence[int]]) -> Tensor:
    """``[batch, candidates of all points]``: 1 at each choice.

    Args:
        space: the search space.
        choices: one candidate's index for each point, of each architecture.
    """
    columns = torch.tensor([list(one) for one in choices]).T
    return torch.cat([torch.eye(len(point.candidates))[column] for point, column in zip(space.points, columns, strict=True)], 1)


def two_layers(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Linear, ReLU, linear; weights uniform within 1 / sqrt(inputs of the layer), as torch has them.

    Args:
        inputs, hidden, outputs: widths.
        generator: CPU generator of the weights.
    """
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator: give it back untouched
        first, second = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    with torch.no_grad():
        for layer in (first, second):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
    return nn.Sequential(first, nn.ReLU(), second)


class Learned:
    """A module with its Adam.

    Args:
        module: what learns.
        lr: step of Adam.
    """

    def __init__(self, module: nn.Module, lr: float) -> None:
        self.module, self.optimiser = module, torch.optim.Adam(module.parameters(), lr)

    def learn(self, loss: Callable[[], Tensor], steps: int = 1) -> None:
        """Steps on a loss.

        Args:
            loss: gives it anew, ``[]``, differentiable.
            steps: how many.
        """
        for _ in range(steps):
            self.optimiser.zero_grad()
            loss().backward()
            self.optimiser.step()

    def state(self) -> State:
        """Weights and optimiser."""
        weights = {key: value.clone() for key, value in self.module.state_dict().items()}
        return {"weights": weights, "optimiser": copy.deepcopy(self.optimiser.state_dict())}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.module.load_state_dict(read_state(state, "weights"))
        self.optimiser.load_state_dict(read_state(state, "optimiser"))
