"""DARTS-PRIME: its activation, its schedule by hand, the split of ADMM on a convex toy, its rounding and each of its options."""

import dataclasses

import numpy as np
import pytest
import torch
from graph_space import graph_space
from small_space import small_space

from cosearch.space.supernet import SuperNet
from cosearch.strategies.gradient.darts_prime import (
    FLOOR,
    RHO,
    ROUNDED_EVERY,
    Admm,
    DartsPrimeOptions,
    DartsPrimeStrategy,
    Schedule,
)
from cosearch.testing.conformance import example_input, seeded
from cosearch.testing.strategy_conformance import optimise, toy_loss

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
TABLE = [[0.5, -1.0, 0.4], [-1.2, 0.6, 0.3]]


def made(space=SPACE, **options):
    return DartsPrimeStrategy(space, DartsPrimeOptions(**options), seeded(0))


def set_alpha(strategy, rows):
    with torch.no_grad():
        for alpha, row in zip(strategy.arch.alpha, rows):
            alpha.copy_(torch.tensor(row))


class Constant:
    """A held-out loss whose gradient in the parameters is known."""

    def __init__(self, strategy, rows):
        self.strategy, self.rows, self.calls = strategy, torch.tensor(rows).flatten(), 0

    def __call__(self, path=None):
        self.calls += 1
        (self.rows @ torch.cat(self.strategy.arch.alpha)).backward()
        return 0.0


def test_activations_are_clamped_do_not_compete_and_start_at_one_over_n():
    strategy = made()
    assert all(torch.allclose(row, torch.full((3,), 1 / 3), atol=1e-3) for row in strategy.arch.activations())
    set_alpha(strategy, [[0.2, 1.3, 0.6], [0.0, 0.5, 0.5]])
    rows = [row.tolist() for row in strategy.arch.activations()]
    np.testing.assert_allclose(rows, [[0.2, 1.0, 0.6], [0.0, 0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(strategy.arch.probabilities()[0].tolist(), np.array([0.2, 1.0, 0.6]) / 1.8, rtol=1e-5)
    path = strategy.weighted(strategy.sample())
    assert path.soft and path.weights[0].requires_grad and not strategy.sample().weights[0].requires_grad


def test_what_reaches_zero_leaves_for_good_and_the_last_one_stays():
    strategy = made(lr=0.2, regulariser="none", schedule="constant", weight_decay=0.0)
    set_alpha(strategy, [[0.1, 0.5, 0.9], [0.1, 0.1, 0.15]])
    down = Constant(strategy, [[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    for _ in range(10):
        strategy.step_architecture(down, down, [], list)
    assert strategy.sample().active == ((1, 2), (2,)) and strategy.arch.alpha[0][0] == 0.0
    assert float(strategy.arch.alpha[1][2].detach()) == pytest.approx(FLOOR)
    up = Constant(strategy, [[-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]])
    for _ in range(50):
        strategy.step_architecture(up, up, [], list)
    assert strategy.sample().active == ((1, 2), (2,)) and float(strategy.arch.alpha[1][2].detach()) > FLOOR
    assert [row[0] for row in strategy.scores()] == [0.0, 0.0]


def test_on_a_graph_zeros_of_edges_are_no_candidates_and_the_supernet_computes_what_is_left():
    space = graph_space()
    strategy = made(space)
    assert strategy.sample().active == ((0, 1, 2), (1, 2, 3), (1, 2, 3), (1, 2, 3))
    for probability in strategy.arch.probabilities()[1:]:
        assert float(probability[0].detach()) == pytest.approx(1 / 3, abs=1e-3)  # one of three edges is left out
    set_alpha(strategy, [[0.3, 0.0, 0.2], [0.0, 0.1, 0.2, 0.3], [0.0, 0.9, 0.1, 0.1], [0.0, 0.1, 0.1, 0.4]])
    assert [row.tolist() for row in strategy.rounded(strategy.arch.activations())] == [
        [1, 0, 0],
        [0, 0, 0, 0],  # the two edges with the best operations: b1 and b2; the zero is no candidate
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]
    outputs, _ = SuperNet(space, seeded(1))(example_input(space.stem, 2), strategy.weighted(strategy.sample()))
    outputs.sum().backward()
    assert all(alpha.grad is not None for alpha in strategy.arch.alpha)


def test_the_schedule_by_hand():
    schedule = Schedule()
    assert not schedule.is_due() and schedule.threshold == pytest.approx(1.05)  # nothing was seen yet
    schedule.saw(2.0)
    assert schedule.average == 4.0 and not schedule.is_due() and schedule.threshold == pytest.approx(1.05**2)
    schedule.saw(1.0)
    schedule.saw(0.0)
    assert schedule.average == pytest.approx(0.8 * (0.8 * 4.0 + 0.2 * 1.0))
    schedule.threshold = 3.0
    assert schedule.is_due() and schedule.threshold == pytest.approx(3.0 / 1.05**10)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 50.0])
def test_the_threshold_finds_the_size_of_the_gradients_and_then_a_step_comes_once_in_eleven(norm):
    schedule, due = Schedule(), []
    for _ in range(1200):
        schedule.saw(norm)
        due.append(schedule.is_due())
    assert np.mean(due[-550:]) == pytest.approx(1 / 11, rel=0.05)


def test_a_step_comes_where_the_gradients_are_small():
    strategy, rng, small, large = made(), np.random.default_rng(0), 0, 0
    held_out = Constant(strategy, [[0.0] * 3] * 2)
    for n in range(2000):
        norm = 1.0 if n % 100 < 50 else 3.0
        before = held_out.calls
        strategy.weights_learned(norm * rng.uniform(0.9, 1.1))
        strategy.step_architecture(held_out, held_out, [], list)
        took = held_out.calls - before
        small, large = small + took * (norm == 1.0), large + took * (norm == 3.0)
    assert small > 2 * large


def test_admm_closes_the_split_on_a_convex_toy_and_finds_the_projected_optimum():
    """min |x - t|^2 / 2 with x in a box and on a plane, by exact steps in x: the residuals of both kinds go to zero."""
    target = [torch.tensor([0.9, 1.7, -0.4]), torch.tensor([0.2, 0.3])]

    def project(rows):  # convex: the box 0..1
        return [row.clamp(0.0, 1.0) for row in rows]

    admm, primal, dual = Admm([torch.zeros(3), torch.zeros(2)]), [], []
    for _ in range(400):
        x = [(t + RHO * (z - u)) / (1.0 + RHO) for t, z, u in zip(target, admm.z, admm.u)]
        stationary = [
            (a - t) + g for a, t, g in zip(x, target, torch.autograd.grad(admm.penalty([r.requires_grad_() for r in x]), x))
        ]
        assert all(float(row.detach().abs().max()) < 1e-5 for row in stationary)
        before = [z.clone() for z in admm.z]
        admm.update(x, project)
        primal.append(admm.residual(x))
        dual.append(float(torch.cat([z - b for z, b in zip(admm.z, before)]).norm()) * RHO)
    assert primal[-1] < 1e-4 < 0.1 < primal[0] and dual[-1] < 1e-5
    torch.testing.assert_close(torch.cat(admm.z), torch.tensor([0.9, 1.0, 0.0, 0.2, 0.3]), atol=1e-3, rtol=0)


def test_the_split_of_a_search_closes_too():
    strategy = made(regulariser="admm", schedule="constant")
    optimise(strategy, lambda s, p: toy_loss(p, [[0.05 * v for v in row] for row in TABLE]), BETWEEN_STEPS * 400)
    assert strategy.admm.residual(strategy.arch.activations()) < 0.05
    assert [row.tolist() for row in strategy.admm.z] == [[0, 1, 0], [1, 0, 0]]


BETWEEN_STEPS = 10


def test_the_proximity_grows_with_the_progress_and_points_to_the_rounding():
    strategy = made()
    set_alpha(strategy, [[0.2, 0.6, 0.1], [0.5, 0.4, 0.3]])
    strategy.arch.anneal(0.5)
    apart = np.array([0.2, -0.4, 0.1, -0.5, 0.4, 0.3])
    distance = strategy.distance()
    assert float(distance.detach()) == pytest.approx(0.5 * RHO / 2 * np.linalg.norm(apart), rel=1e-5)
    distance.backward()
    found = torch.cat([alpha.grad for alpha in strategy.arch.alpha]).numpy()
    np.testing.assert_allclose(found, 0.5 * RHO / 2 * apart / np.linalg.norm(apart), rtol=1e-5)
    strategy.arch.anneal(0.0)
    assert float(strategy.distance().detach()) == 0.0


@pytest.mark.parametrize("regulariser", ["proximity", "admm"])
def test_zeros_that_are_no_candidates_are_at_no_distance(regulariser):
    """Of activations that are their own rounding; at 0.05 from it (rho / 2) v / ||v|| is a pull of 0.05 on that one alone."""
    strategy = made(graph_space(), regulariser=regulariser)
    set_alpha(strategy, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    rows = strategy.arch.activations()
    strategy.arch.anneal(1.0)
    strategy.admm.update(rows, strategy.rounded)
    assert float(strategy.distance().detach()) == 0.0 and strategy.admm.residual(rows) == 0.0
    set_alpha(strategy, [[0.95, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    distance = strategy.distance()
    distance.backward()
    pull = torch.cat([alpha.grad for alpha in strategy.arch.alpha])
    wanted = torch.zeros(15)
    wanted[0] = -0.05 if regulariser == "proximity" else -0.1 * 0.05
    torch.testing.assert_close(pull, wanted, rtol=1e-5, atol=1e-7)
    assert float(distance.detach()) == pytest.approx(0.05 * 0.05 if regulariser == "proximity" else 0.05 * 0.05**2, rel=1e-4)


def test_z_and_u_follow_every_tenth_step_and_the_state_has_them():
    strategy = made(regulariser="admm", schedule="constant")
    first = strategy.admm.z
    optimise(strategy, lambda s, p: toy_loss(p, TABLE), 10 * ROUNDED_EVERY - 1)
    assert strategy.admm.z is first
    optimise(strategy, lambda s, p: toy_loss(p, TABLE), 1)
    assert strategy.admm.z is not first
    again = made(regulariser="admm", schedule="constant")
    again.restore(strategy.state())
    assert all(torch.equal(a, b) for a, b in zip((*again.admm.z, *again.admm.u), (*strategy.admm.z, *strategy.admm.u)))
    assert again.asked == 100 and again.steps == 10


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "softmax"},
        {"schedule": "constant"},
        {"regulariser": "none"},
        {"regulariser": "admm"},
        {"weight_decay": 0.5},
        {"lr": 0.1},
    ],
    ids=str,
)
def test_each_option_changes_the_search(change):
    def after(**options):
        strategy = made(**options)
        optimise(strategy, lambda s, p: toy_loss(p, [[0.05 * v for v in row] for row in TABLE]), 180)
        return torch.cat(strategy.arch.alpha).detach()

    assert len(dataclasses.fields(DartsPrimeOptions)) == 5
    assert not torch.allclose(after(), after(**change), atol=1e-6)
