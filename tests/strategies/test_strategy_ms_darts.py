"""MS-DARTS: the mean shift against a calculation by hand and numpy, its sign, and what the weights learn at."""

import dataclasses

import numpy as np
import pytest
import torch
from small_space import small_space

from cosearch.strategies.gradient.darts import DartsOptions, DartsStrategy
from cosearch.strategies.gradient.ms_darts import MsDartsOptions, MsDartsStrategy, mean_shift, to_distributions
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import ToyMinibatch, optimise, toy_loss

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
TABLE = [[0.5, -1.0, 0.4], [-1.2, 0.6, 0.3]]


def made(**options):
    return MsDartsStrategy(SPACE, MsDartsOptions(**options), seeded(0))


def test_one_iteration_by_hand():
    """One point, two candidates at (1/2, 1/2); two points x = (0.7, 0.3) and (0.4, 0.6) with the losses ln 3 and 0, h = 0.1.

    softmax(-ln 3, 0) = (1/4, 3/4); the squares of the distances are 0.08 and 0.02, so K = (e^-4, e^-1); the shares are
    e^-4 / 4 = 0.0045789 and 3 e^-1 / 4 = 0.2759096 over their sum 0.2804885, that is 0.0163248 and 0.9836752.
    """
    noise = [[torch.tensor([0.2, -0.2])], [torch.tensor([-0.1, 0.1])]]
    losses = iter([np.log(3.0), 0.0])
    (found,) = mean_shift([torch.tensor([0.5, 0.5])], noise, lambda rows: next(losses), 0.1)
    np.testing.assert_allclose(found, [0.0163248 * 0.7 + 0.9836752 * 0.4, 0.0163248 * 0.3 + 0.9836752 * 0.6], rtol=1e-5)


@pytest.mark.parametrize("bandwidth", [1e-3, 0.05])
def test_a_narrow_kernel_moves_to_the_nearest_point_where_each_weight_is_0_as_a_float(bandwidth):
    """Squares of distances 0.08 and 0.02: even the larger K = exp(-0.01 / h^2) may have no float; only their ratio counts."""
    noise = [[torch.tensor([0.2, -0.2])] * 8, [torch.tensor([-0.1, 0.1])] * 8]
    found = mean_shift([torch.tensor([0.5, 0.5])] * 8, noise, lambda rows: 0.0, bandwidth)
    for row in found:
        torch.testing.assert_close(row, torch.tensor([0.4, 0.6]))


def test_points_are_brought_back_to_distributions_for_the_loss_and_the_kernel_but_not_for_the_mean():
    rows = [torch.tensor([0.5, 0.5]), torch.tensor([0.1, 0.9])]
    noise = [[torch.tensor([0.75, -0.75]), torch.tensor([-0.2, 0.4])]]
    seen = []
    found = mean_shift(rows, noise, lambda held: seen.append(held) or 0.0, 1.0)
    assert [row.tolist() for row in seen[0]] == [[1.0, 0.0], [0.0, 1.0]]
    torch.testing.assert_close(torch.cat(found), torch.tensor([1.25, -0.25, -0.1, 1.3]))
    assert to_distributions([torch.tensor([-0.3, -0.1])])[0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_shift_goes_to_the_lower_loss(sign):
    """With the sign of the released code, softmax(+L), it would go the other way."""
    slope, start = torch.tensor([1.0, -1.0, 0.0]), [torch.full((3,), 1 / 3)]
    generator, moved = seeded(0), []
    for _ in range(200):
        noise = [[0.2 * (2.0 * torch.rand(3, generator=generator) - 1.0)] for _ in range(3)]
        (found,) = mean_shift(start, noise, lambda rows: 10.0 * sign * float(slope @ rows[0]), 1.0)
        moved.append(float(slope @ (found - start[0])))
    assert sign * np.mean(moved) < -0.03


def test_weights_learn_at_the_shifted_mixture_and_the_logits_and_the_actors_do_not():
    strategy = made()
    strategy.arch.anneal(1.0)
    seen = []

    def loss(_, path):
        seen.append([w.detach().clone() for w in path.weights])
        return toy_loss(path, TABLE)

    minibatch = ToyMinibatch(strategy, loss, strategy.sample())
    strategy.step_architecture(minibatch, minibatch, [], list)
    assert len(seen) == 1 + 2 * 3 and torch.equal(seen[0][0], torch.full((3,), 1 / 3))  # one with gradients, six without
    now = torch.softmax(strategy.arch.alpha[0].detach(), 0)
    shifted = strategy.weighted(strategy.sample())
    assert torch.equal(strategy.sample().weights[0], now)
    assert not shifted.weights[0].requires_grad and 1e-4 < float((shifted.weights[0] - now).abs().max()) < 0.5
    strategy.step_architecture(minibatch, minibatch, [], list)
    assert torch.equal(seen[7][0], now)
    strategy.restore(strategy.state())
    assert strategy.weighted(strategy.sample()).weights[0].requires_grad


def test_the_radius_grows_linearly_from_a_tenth():
    strategy, found = made(radius=0.5), []
    for progress in (0.0, 0.5, 1.0):
        strategy.arch.anneal(progress)
        found.append(strategy.arch.temperature)
    assert found == pytest.approx([0.05, 0.275, 0.5])


def test_without_a_radius_it_is_first_order_darts():
    flat, darts = made(radius=0.0), DartsStrategy(SPACE, DartsOptions(), seeded(0))
    for strategy in (flat, darts):
        optimise(strategy, lambda s, p: toy_loss(p, TABLE), 20)
    assert all(torch.equal(a, b) for a, b in zip(flat.arch.alpha, darts.arch.alpha))
    assert torch.equal(flat.weighted(flat.sample()).weights[0], darts.sample().weights[0])


@pytest.mark.parametrize(
    "change", [{"samples": 1}, {"radius": 0.1}, {"bandwidth": 0.1}, {"weight_decay": 0.5}, {"lr": 0.1}], ids=str
)
def test_each_option_changes_what_the_weights_learn_at(change):
    def after(**options):
        strategy = made(**options)
        optimise(strategy, lambda s, p: toy_loss(p, TABLE), 20)
        return torch.cat(strategy.weighted(strategy.sample()).weights)

    assert len(dataclasses.fields(MsDartsOptions)) == 5
    assert not torch.allclose(after(), after(**change), atol=1e-6)
