"""iDARTS against the exact implicit gradient of a quadratic problem: rate, steps, minibatches."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_space import small_space
from torch import nn

from cosearch.strategies.gradient.darts import DartsOptions, DartsStrategy
from cosearch.strategies.gradient.idarts import IdartsOptions, IdartsStrategy
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import optimise, toy_loss

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
ETA = 0.2
CURVATURES = np.array([0.5, 1.0, 2.5])  # eigenvalues of H: 1 - eta lambda = 0.9, 0.8 and 0.5


class Quadratics:
    """L_train = w.H w / 2 - w.B a and L_val = |w - c|^2 / 2 + d.a, in float64; minibatches that only count themselves."""

    def __init__(self, **options):
        self.strategy = IdartsStrategy(SPACE, IdartsOptions(weight_decay=0.0, **options), seeded(0))
        self.strategy.arch.alpha = [torch.randn(3, generator=seeded(5 + n), dtype=torch.float64).requires_grad_() for n in (0, 1)]
        turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
        self.h = turn @ np.diag(CURVATURES) @ turn.T
        rng = np.random.default_rng(2)
        self.b, self.c, self.d = rng.normal(size=(3, 6)), rng.normal(size=3), rng.normal(size=6)
        self.weights = [nn.Parameter(torch.from_numpy(rng.normal(size=n))) for n in (2, 1)]
        self.calls, self.drawn = [], 0

    def minibatch(self, name):
        h, b, c, d = (torch.from_numpy(v) for v in (self.h, self.b, self.c, self.d))

        class Drawn:
            def __call__(mine, path=None):
                self.calls.append(name)
                w, a = torch.cat(self.weights), torch.cat(self.strategy.arch.alpha)
                loss = (w - c).square().sum() / 2 + d @ a if name == "held out" else w @ h @ w / 2 - w @ b @ a
                loss.backward()
                return float(loss.detach())

            def another(mine):
                self.drawn += 1
                return self.minibatch(f"{name} {self.drawn}")

        return Drawn()

    def found(self):
        rows = self.strategy.hypergradient(
            self.minibatch("train"), self.minibatch("held out"), self.weights, lambda g: [-ETA * row for row in g]
        )
        return torch.cat(rows).numpy()

    def exact(self):
        """d - (w - c)' H^-1 (-B), by numpy."""
        w = torch.cat(self.weights).detach().numpy()
        return self.d + self.b.T @ np.linalg.solve(self.h, w - self.c)

    def rate(self, terms):
        """The error that theory gives with so many terms: what the series leaves out, eta sum_{k>K} (I - eta H)^k."""
        w, shrink = torch.cat(self.weights).detach().numpy(), np.eye(3) - ETA * self.h
        return self.b.T @ np.linalg.matrix_power(shrink, terms + 1) @ np.linalg.solve(self.h, w - self.c)


def test_the_error_to_the_exact_implicit_gradient_falls_with_the_terms_as_theory_says():
    errors = []
    for terms in (0, 1, 2, 5, 10, 40, 60):
        problem = Quadratics(terms=terms)
        error = problem.exact() - problem.found()
        np.testing.assert_allclose(error, problem.rate(terms), rtol=1e-5, atol=1e-9)
        errors.append(np.linalg.norm(error))
    assert all(later < earlier for earlier, later in itertools.pairwise(errors)) and errors[-1] < 0.01 * errors[0]
    assert errors[6] / errors[5] == pytest.approx(0.9**20, rel=0.01)  # the smallest curvature is what remains


def test_each_product_is_taken_on_another_minibatch_and_the_weights_are_put_back_exactly():
    problem = Quadratics(terms=3, inner_steps=1)
    before = [w.detach().clone() for w in problem.weights]
    problem.found()
    assert problem.calls == ["held out", "train", *(f"train {n}" for n in (1, 1, 2, 2, 3, 3)), "train", "train"]
    assert all(torch.equal(a, b) for a, b in zip(before, problem.weights))

    def fails():
        problem.calls.append("fails")
        raise ValueError("planted")

    broken = problem.minibatch("train")
    broken.another = lambda: fails
    with pytest.raises(ValueError, match="planted"):
        problem.strategy.step_architecture(
            broken, problem.minibatch("held out"), problem.weights, lambda g: [-ETA * r for r in g]
        )
    assert all(torch.equal(a, b) for a, b in zip(before, problem.weights))


def test_without_terms_it_is_second_order_darts_where_the_step_of_the_weights_vanishes():
    """At grad_w L_train = 0 the virtual step of DARTS goes nowhere."""
    problem = Quadratics(terms=0)
    alpha = torch.cat(problem.strategy.arch.alpha).detach().numpy()
    optimum = np.linalg.solve(problem.h, problem.b @ alpha)
    problem.weights = [nn.Parameter(part) for part in torch.from_numpy(optimum).split([2, 1])]
    darts = DartsStrategy(SPACE, DartsOptions(order=2, weight_decay=0.0), seeded(0))
    darts.arch.alpha, darts.arch.step = problem.strategy.arch.alpha, lambda: None
    darts.step_architecture(
        problem.minibatch("train"), problem.minibatch("held out"), problem.weights, lambda g: [-ETA * row for row in g]
    )
    np.testing.assert_allclose(torch.cat([a.grad for a in darts.arch.alpha]).numpy(), problem.found(), rtol=1e-6)


def test_a_step_comes_once_in_so_many_and_the_count_is_saved():
    def after(asked, **options):
        problem = Quadratics(**options)
        moves = []
        for _ in range(asked):
            problem.strategy.step_architecture(
                problem.minibatch("train"), problem.minibatch("held out"), problem.weights, lambda g: [-ETA * row for row in g]
            )
            moves.append(len(problem.calls))
        return moves, problem

    moves, problem = after(5, inner_steps=3, terms=1)
    assert moves == [0, 0, 6, 6, 6] and problem.strategy.waited == 2
    fresh = Quadratics(inner_steps=3, terms=1)
    fresh.strategy.restore(problem.strategy.state())
    assert fresh.strategy.waited == 2


@pytest.mark.parametrize("change", [{"inner_steps": 1}, {"weight_decay": 0.5}, {"lr": 0.1}], ids=str)
def test_options_change_the_search(change):
    def after(**options):
        strategy = IdartsStrategy(SPACE, IdartsOptions(**options), seeded(0))
        optimise(strategy, lambda s, p: toy_loss(p, [[0.5, -1.0, 0.4], [-1.2, 0.6, 0.3]]), 20)
        return torch.cat(strategy.arch.alpha).detach()

    assert {field.name for field in dataclasses.fields(IdartsOptions)} == {"lr", "terms", "inner_steps", "weight_decay"}
    assert not torch.allclose(after(), after(**change), atol=1e-6)
