"""How many paths backward: utilities of A3C-S beside the enumerated truth, on a regression whose losses are known exactly."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import optimise

load_builtins()
POINTS, FEATURES = 3, 4
SPACE = small_space("conv_k3", "mbconv_k3_e1", "conv_k5", "skip", cells=POINTS)


class Regression:
    """A sum over the points of y = c . x with independent features; candidates see the first 2, 3 and all of a point's four.

    Their weights are at their optimum, as after a long training: c on what they see. The fourth, the skip, has no weights:
    a quarter of each feature. With independent features every loss is a squared distance of coefficients, without samples.
    """

    def __init__(self, seed):
        self.wanted = 0.8 + 0.4 * torch.rand(POINTS, FEATURES, generator=seeded(seed))
        self.learned = torch.stack([self.wanted * (torch.arange(FEATURES) < width) for width in (2, 3, 4)], 1)
        self.learned = torch.cat([self.learned, torch.full((POINTS, 1, FEATURES), 0.25)], 1)  # [points, candidates, features]

    def truth(self):
        """Loss of each architecture alone, by enumeration in numpy."""
        error = ((self.wanted[:, None] - self.learned).numpy() ** 2).sum(-1)
        return {c: float(sum(error[p, k] for p, k in enumerate(c))) for c in itertools.product(range(4), repeat=POINTS)}

    def loss(self, _: object, path: Path):
        """The value of the first candidates, gradients at the weights of all: what a supernet does with gates."""
        total = torch.zeros(())
        for p, (active, weights) in enumerate(zip(path.active, path.weights)):
            gates = weights - weights.detach() + torch.eye(len(active))[0]
            total = total + (self.wanted[p] - gates @ self.learned[p, list(active)]).square().sum()
        return total


def correlation(name, seed, **config):
    """Spearman's of the summed utilities with the truth over all 64 architectures: 1 is the right order."""
    info, problem = STRATEGIES.get(name), Regression(seed)
    strategy = info.make(SPACE, info.options(StrategyConfig(name=name, **config)), seeded(seed))
    optimise(strategy, problem.loss, 150)
    truth = problem.truth()
    summed = [sum(row[c] for row, c in zip(strategy.scores(), choices)) for choices in truth]
    return float(spearmanr(summed, [-loss for loss in truth.values()]).statistic)


@pytest.mark.parametrize("seed", range(3))
def test_one_path_backward_ranks_by_what_is_too_small_and_more_by_what_is_right(seed):
    """With K = 1 a converged candidate gets no credit (the gradient at its own gate is zero) and the skip all of it."""
    assert correlation("a3cs", seed, active_paths=1) < -0.3
    for k in (2, 3):
        assert correlation("a3cs", seed, active_paths=k) > 0.8
    assert correlation("a2d", seed) > 0.8


def test_the_default_is_the_published_number_of_paths():
    """Two: ``act_num`` in the configuration of Auto-NBA, the released code of the authors of A3C-S."""
    assert StrategyConfig().active_paths == 2
    assert correlation("a3cs", 5) == correlation("a3cs", 5, active_paths=2) > 0.8


def test_credit_of_a_second_path_is_what_the_loss_would_lose_by_it():
    """Closed form: with u the first candidate's coefficients and v the second's, dL/dgate = -2 (c - u) . v."""
    problem, path = Regression(0), Path(((2, 0), (3, 2), (0, 3)))
    weights = tuple(torch.tensor([0.7, 0.3], requires_grad=True) for _ in range(POINTS))
    problem.loss(None, Path(path.active, weights)).backward()
    for p, (first, second) in enumerate(path.active):
        missing = (problem.wanted[p] - problem.learned[p, first]).numpy()
        wanted = [-2 * np.dot(missing, problem.learned[p, k].numpy()) for k in (first, second)]
        np.testing.assert_allclose(weights[p].grad.numpy(), wanted, rtol=1e-5, atol=1e-6)
