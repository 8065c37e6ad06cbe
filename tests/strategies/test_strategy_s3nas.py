"""S3NAS: its gates by hand, which candidates are compared, its penalty, its warm-up, and the options that it refuses."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from graph_space import graph_space
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.gradient.s3nas import S3nasOptions, S3nasStrategy
from cosearch.testing.conformance import example_input, seeded
from cosearch.testing.strategy_conformance import optimise, toy_loss
from latency_tables.errors import ConfigError

SPACE = small_space("conv_k3", "skip", "conv_k5", "mbconv_k3_e1", cells=1)
ORDER = [1, 3, 0, 2]  # skip, mbconv, conv of 3, conv of 5: by multiply-accumulates


def made(over=None, space=SPACE, **options):
    strategy = S3nasStrategy(space, S3nasOptions(**{"warmup": 0.0, **options}), seeded(0))
    if over is not None:
        with torch.no_grad():
            strategy.arch.alpha[0].copy_(torch.tensor([0.0, *over]))
    return strategy


def test_candidates_are_ordered_by_size_and_the_largest_is_chosen_first():
    strategy = made()
    assert strategy.arch.order == [ORDER] and strategy.arch.chosen() == [2]
    assert made(space=graph_space()).arch.order[1][0] == 0  # the zero before the skip, which costs as little


@pytest.mark.parametrize(
    "over, chosen, compared",
    [
        ((0.5, 0.5, 0.5), 2, {1, 3, 0}),  # all are smaller
        ((0.5, -0.2, 0.5), 3, {1, 2}),  # the next gate would lead past the conv of 3
        ((0.5, -0.2, -0.5), 3, {1, 0}),
        ((-0.1, 0.3, 0.3), 1, {2}),
        ((-0.1, -0.3, 0.3), 1, {3}),
    ],
)
def test_gates_by_hand(over, chosen, compared):
    strategy = made(over)
    path = strategy.sample()
    assert path.choices == (chosen,) and set(path.active[0]) == {chosen, *compared} and len(path.active[0]) == 1 + len(compared)
    row = strategy.arch.weights()[0]
    assert row.tolist() == [float(k == chosen) for k in range(4)]
    slopes = [torch.autograd.grad(row[k], strategy.arch.alpha, retain_graph=True)[0] for k in range(4)]
    assert {k for k, slope in enumerate(slopes) if float(slope.abs().sum()) > 0.0} == {chosen, *compared}
    torch.testing.assert_close(sum(slopes), torch.zeros(4))
    weighted = strategy.weighted(path)
    assert weighted.weights[0].tolist() == [1.0] + [0.0] * len(compared) and not weighted.soft


def test_the_derivative_compares_the_choice_with_all_smaller_ones():
    """L = sum_k g_k c_k at all gates open: dL/da_i = (c_3 - c_i-1) sigma'(a_i), by hand."""
    over, costs = (0.3, 1.0, 0.1), [0.7, -0.4, 0.2, 0.9]
    strategy = made(over)
    toy_loss(strategy.weighted(strategy.sample()), [costs]).backward()
    by_size = [costs[k] for k in ORDER]
    sigma = 1.0 / (1.0 + np.exp(-np.array(over)))
    wanted = [(by_size[3] - by_size[i]) * sigma[i] * (1.0 - sigma[i]) for i in range(3)]
    np.testing.assert_allclose(strategy.arch.alpha[0].grad[1:], wanted, rtol=1e-5)


def test_a_score_is_how_far_gates_must_move():
    for over in itertools.product((-0.4, 0.3), (-0.2, 0.6), (-0.1, 0.5)):
        strategy = made(over)
        for place, candidate in enumerate(ORDER):
            opened = sum(max(0.0, -value) for value in over[:place])
            closed = max(0.0, over[place]) if place < 3 else 0.0
            assert strategy.scores()[0][candidate] == pytest.approx(-(opened + closed), abs=1e-6)
        assert max(strategy.scores()[0]) == pytest.approx(0.0, abs=1e-9)


def test_the_penalty_is_one_sided_and_logarithmic():
    strategy = made()
    assert float(strategy.penalty(torch.tensor(0.4))) == float(strategy.penalty(torch.tensor(1.0))) == 0.0
    assert float(strategy.penalty(torch.tensor(1.05))) == pytest.approx(15.0 * np.log(6.0), rel=1e-4)
    under = torch.tensor(0.9, requires_grad=True)
    strategy.penalty(under).backward()
    assert float(under.grad) == 0.0


def test_in_the_warm_up_every_candidate_is_as_likely_and_then_one_is_trained():
    strategy = made(warmup=0.3)
    strategy.arch.anneal(0.29)
    drawn = [strategy.sample() for _ in range(800)]
    counts = np.bincount([path.choices[0] for path in drawn], minlength=4)
    assert ((counts - 200.0) ** 2 / 200.0).sum() < 21.1 and all(len(path.active[0]) == 1 for path in drawn)
    strategy.arch.anneal(0.3)
    assert {strategy.sample().choices for _ in range(20)} == {(2,)}


def test_on_a_graph_the_path_is_legal_and_gradients_reach_the_gates():
    space = graph_space()
    strategy = made(space=space)
    path = strategy.sample()
    assert space.architecture(path.choices).choices == path.choices
    outputs, _ = SuperNet(space, seeded(1))(example_input(space.stem, 2), strategy.weighted(path))
    outputs.square().sum().backward()
    assert all(float(alpha.grad.abs().sum()) > 0.0 for alpha in strategy.arch.alpha)


def by_hand(places, sizes, phi):
    return [k + math.floor(phi * (n - 1 - k) + 0.5 + 1e-9) for k, n in zip(places, sizes)]


def test_scaling_raises_all_points_by_the_largest_coefficient_that_meets_the_target():
    """Two points of four sizes, each size costs one; by hand over a fine grid of coefficients."""
    space = small_space("conv_k3", "skip", "conv_k5", "mbconv_k3_e1", cells=2)
    for first, second in itertools.product(
        ((-0.1, 0.3, 0.3), (0.5, -0.2, 0.5)), ((-0.1, 0.3, 0.3), (0.5, 0.2, -0.5), (0.5, 0.2, 0.5))
    ):
        for bound in (0.5, 2.0, 3.0, 4.0, 5.0, 6.0):
            strategy = made(first, space=space, scale_from=0.5)
            with torch.no_grad():
                strategy.arch.alpha[1].copy_(torch.tensor([0.0, *second]))
            before = strategy.scores()
            strategy.set_relative_costs(lambda a, bound=bound: [sum(ORDER.index(c) for c in a.choices) / bound])
            places = [ORDER.index(c) for c in strategy.arch.chosen()]
            fits = [p / 1000 for p in range(1001) if sum(by_hand(places, (4, 4), p / 1000)) <= bound]
            scores = strategy.scores()
            if not fits:
                assert scores == before
                continue
            wanted = by_hand(places, (4, 4), max(fits))
            assert [ORDER.index(c) for c in space.best(scores).choices] == wanted
            assert [row[ORDER[place]] for row, place in zip(scores, wanted)] == [0.0, 0.0]
            assert sorted(scores[0]) == sorted(-abs(place - wanted[0]) for place in range(4))


def test_scaling_adds_no_edge_to_a_graph_and_the_search_keeps_its_share_of_the_target():
    space = graph_space()
    strategy = made(space=space, scale_from=0.5)
    strategy.set_relative_costs(lambda architecture: [0.0])
    found, scaled = strategy.arch.chosen(), space.best(strategy.scores()).choices
    assert [c == z for c, z in zip(found, space.zeros)] == [c == z for c, z in zip(scaled, space.zeros)]
    assert float(strategy.penalty(torch.tensor(0.5))) == 0.0
    assert float(strategy.penalty(torch.tensor(0.55))) == pytest.approx(15.0 * np.log(11.0), rel=1e-4)
    with pytest.raises(ConfigError, match=r"scale_from: Input should be greater than 0"):
        STRATEGIES.get("s3nas").options(StrategyConfig(name="s3nas", values={"scale_from": 0.0}))


@pytest.mark.parametrize("change", [{"warmup": 0.5}, {"lr": 0.1}], ids=str)
def test_each_option_changes_the_search(change):
    def after(**options):
        strategy = made(**options)
        optimise(strategy, lambda s, p: toy_loss(p, [[0.4, -1.0, 0.2, 0.3]]), 20)
        return strategy.arch.alpha[0].detach()

    assert len(dataclasses.fields(S3nasOptions)) == 3  # scaling has its own tests
    assert not torch.allclose(after(), after(**change), atol=1e-6)
