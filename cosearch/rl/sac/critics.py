"""Twin critics Q(s, a) as one batch of matrices: two multilayer perceptrons of equal shape that share no weight.

They exist only while an agent learns: no part of the agent, of its cost or of its export. So they are not searched, and one pair
serves all paths of a supernet. Two layers of 256 with ReLU, as in the paper and in stable-baselines3; both pass through every
kernel together.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTH = 256


class TwinCritics(nn.Module):
    """Observations and actions -> the values of both critics.

    Weights and biases are drawn from U(-1/sqrt(inputs), 1/sqrt(inputs)), as torch's linear layers draw them by themselves.

    Args:
        features: length of an observation.
        actions: length of an action vector.
        generator: CPU generator of the first weights.
    """

    def __init__(self, features: int, actions: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (features + actions, WIDTH, WIDTH, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1.0 / math.sqrt(inputs)
            for layers, shape in ((self.weights, (2, inputs, outputs)), (self.biases, (2, 1, outputs))):
                layers.append(nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator)))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Normalised observations ``[batch, features]``, actions ``[batch, size]`` in (-1, 1) -> ``[2, batch]``."""
        x = torch.cat([observations, actions], -1).expand(2, -1, -1)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x, weight)
            x = x if layer == last else x.relu()
        return x[..., 0]
