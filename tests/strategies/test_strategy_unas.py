"""UNAS: its estimator is unbiased over 1e5 draws with a smaller variance than the score function, for losses and for costs."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_space import small_space

from cosearch.strategies.gradient.unas import LinearCost, UnasOptions, UnasStrategy, corrected
from cosearch.strategies.minibatch import BlackBoxCost
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import ToyMinibatch, best_choices, optimise, toy_loss

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
LOGITS = [[0.4, -0.3, 0.1], [-0.6, 0.5, 0.2]]
TABLE = [[0.5, -1.0, 0.4], [-1.2, 0.6, 0.3]]
DRAWS = 100_000
TAU = 0.4


def made(**options):
    strategy = UnasStrategy(SPACE, UnasOptions(**options), seeded(0))
    with torch.no_grad():
        for alpha, row in zip(strategy.arch.alpha, LOGITS):
            alpha.copy_(torch.tensor(row))
    return strategy


def squared(rows):
    """A loss of mixtures ``[..., 2, 3]`` that is no sum over the points; with one-hot rows, of architectures."""
    return ((rows * torch.tensor(TABLE, dtype=rows.dtype)).sum((-1, -2)) - 0.7).square() + rows[..., 0, 1] * rows[..., 1, 2]


def exact(loss):
    """dE[loss(z)]/dalpha ``[2, 3]`` over the nine architectures, by numpy."""
    p = [np.exp(row) / np.exp(row).sum() for row in LOGITS]
    total = np.zeros((2, 3))
    for z in itertools.product(range(3), repeat=2):
        rows = np.array([np.eye(3)[k] for k in z])
        total += p[0][z[0]] * p[1][z[1]] * float(loss(torch.from_numpy(rows))) * (rows - np.array(p))
    return total


def estimates(loss, control, seed=0):
    """Of each draw the estimator with ``control`` at zeta, and the plain score function: two ``[draws, 2, 3]``."""
    alpha = torch.tensor(LOGITS, dtype=torch.float64).expand(DRAWS, 2, 3).clone().requires_grad_()
    uniform = torch.rand(alpha.shape, generator=seeded(seed), dtype=torch.float64)
    log_p = torch.log_softmax(alpha, -1)
    gumbel = -torch.log(-torch.log(uniform))
    zeta = corrected(log_p, gumbel, TAU)
    z = torch.eye(3, dtype=torch.float64)[(log_p + gumbel).argmax(-1)]
    log_q, values, soft = (log_p * z).sum((-1, -2)), loss(z), control(zeta)
    (ours,) = torch.autograd.grad((((values - soft).detach()) * log_q + soft).sum(), alpha, retain_graph=True)
    (score,) = torch.autograd.grad((values.detach() * log_q).sum(), alpha)
    return ours.numpy(), score.numpy()


def assert_unbiased(draws, wanted):
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    apart = np.abs(draws.mean(0) - wanted) / error
    assert apart.max() < 3.5, apart  # of six numbers


def test_the_estimator_is_unbiased_and_has_less_variance_than_the_score_function():
    ours, score = estimates(squared, squared)
    wanted = exact(squared)
    assert_unbiased(ours, wanted)
    assert_unbiased(score, wanted)
    assert ours.var(0).sum() < 0.75 * score.var(0).sum()  # 0.66 times


def test_without_the_correction_the_estimator_is_biased(monkeypatch):
    """The plain concrete gradient in its place: more than ten standard errors away."""
    import test_strategy_unas as here

    monkeypatch.setattr(here, "corrected", lambda log_p, gumbel, tau: torch.softmax((log_p + gumbel) / tau, -1))
    ours, _ = estimates(squared, squared)
    apart = np.abs(ours.mean(0) - exact(squared)) / (ours.std(0, ddof=1) / np.sqrt(DRAWS))
    assert apart.max() > 10.0


def test_a_cost_without_gradient_is_unbiased_with_the_linear_one_beside_it():
    rng = np.random.default_rng(0)
    costs = torch.from_numpy(rng.uniform(0.5, 1.5, (3, 3)))  # of each pair of choices: no sum over the points

    def penalty(relative):
        return 2.0 * torch.relu(relative - 0.9) + torch.relu(relative - 0.9).square()

    def black_box(rows):
        return penalty(torch.einsum("...i,...j,ij->...", rows[..., 0, :], rows[..., 1, :], costs))

    architectures = [SPACE.architecture(z) for z in itertools.product(range(3), repeat=2)]
    linear = LinearCost.fitted(architectures, torch.stack([costs[a.choices] for a in architectures])[:, None])

    def control(rows):
        return penalty(linear.base.double() + rows.flatten(-2) @ linear.slopes.double()[:, 0])

    ours, score = estimates(black_box, control)
    assert_unbiased(ours, exact(black_box))
    assert ours.var(0).sum() < score.var(0).sum()


def test_the_linear_cost_finds_costs_that_add_up():
    table, base = np.array([[0.1, 0.4, 0.2], [0.9, 0.3, 0.5]]), 0.25
    drawn = [SPACE.sample(seeded(n)) for n in range(400)]
    costs = torch.tensor([[base + sum(table[p, c] for p, c in enumerate(a.choices)), 1.0] for a in drawn])
    found = LinearCost.fitted(drawn, costs)
    for z in itertools.product(range(3), repeat=2):
        rows = [torch.eye(3)[c] for c in z]
        assert found(rows).tolist() == pytest.approx([base + table[0][z[0]] + table[1][z[1]], 1.0], abs=0.01)


class Two:
    """Losses of a mixture's rows on training and on held-out experience."""

    def __init__(self, strategy, seen, unseen):
        self.halves = [
            ToyMinibatch(strategy, lambda s, p, f=f: f(torch.stack(self.rows(p))[None])[0], None) for f in (seen, unseen)
        ]

    @staticmethod
    def rows(path):
        return [
            torch.eye(3)[list(active)].T @ (torch.ones(1) if path.weights is None else weights)
            for active, weights in zip(path.active, path.weights or (None, None))
        ]


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_one_step_is_the_estimator_of_the_loss_with_the_gap(gap):
    def unseen(rows):
        return squared(rows) + 0.3 * rows[..., 0, 0] - 0.1

    def general(rows):
        return squared(rows) + gap * (unseen(rows) - squared(rows)).abs()

    strategy = made(gap=gap)
    strategy.arch.step = lambda: None
    for seed in range(5):
        strategy.generator.manual_seed(seed)
        path = strategy.sample()
        strategy.generator.manual_seed(seed)
        strategy.step_architecture(*Two(strategy, squared, unseen).halves, [], list)
        alpha = torch.tensor(LOGITS, requires_grad=True)
        log_p = torch.log_softmax(alpha, -1)
        zeta = corrected(log_p, torch.stack(path.noise), TAU)
        z = torch.eye(3)[list(path.choices)]
        soft = general(zeta)
        ((general(z) - soft).detach() * (log_p * z).sum() + soft).backward()
        torch.testing.assert_close(torch.stack([a.grad for a in strategy.arch.alpha]), alpha.grad, rtol=1e-4, atol=1e-5)


def test_a_sample_is_concrete_and_its_first_candidates_are_the_argmax():
    strategy = made(temperature=0.7)
    for _ in range(20):
        path = strategy.sample()
        for noise, active, weights, logits in zip(path.noise, path.active, path.weights, LOGITS):
            y = np.array(logits) - np.log(np.exp(logits).sum()) + noise.numpy()
            wanted = np.exp(y / 0.7) / np.exp(y / 0.7).sum()
            np.testing.assert_allclose(weights, wanted[list(active)], rtol=1e-4, atol=1e-6)
            assert active[0] == y.argmax() and path.soft


def test_the_costs_of_whole_architectures_decide_where_the_task_does_not():
    strategy = made()
    asked = []

    def relative(architecture):
        asked.append(architecture.choices)
        return [1.0 + (architecture.choices != (2, 1))]

    strategy.set_cost(BlackBoxCost(relative, lambda costs: 5.0 * torch.relu(costs - 1.0).sum()))
    optimise(strategy, lambda s, p: 0.0 * toy_loss(p, TABLE), 300)
    assert best_choices(strategy, SPACE) == (2, 1) and len(asked) == 512 + 300
    again = made()
    again.restore(strategy.state())
    assert torch.equal(again.linear.slopes, strategy.linear.slopes)
    fresh = made()
    fresh.restore(made().state())
    assert fresh.linear is None


@pytest.mark.parametrize("change", [{"gap": 3.0}, {"temperature": 2.0}, {"lr": 0.1}], ids=str)
def test_each_option_changes_the_search(change):
    def unseen(rows):
        return squared(rows) + 0.3 * rows[..., 0, 0]

    def after(**options):
        strategy = made(**options)
        for _ in range(5):
            strategy.step_architecture(*Two(strategy, squared, unseen).halves, [], list)
        return torch.cat(strategy.arch.alpha).detach()

    assert len(dataclasses.fields(UnasOptions)) == 4  # what is held out has its test with the pipeline's
    assert not torch.allclose(after(), after(**change), atol=1e-6)
