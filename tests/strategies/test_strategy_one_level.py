"""A3C-S and A2D: sampling frequencies, the Gumbel-softmax formula in numpy, its gradient, annealing, price and resume."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from small_space import small_space

from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.cost.table_cost import TableCost
from cosearch.space.derivation.derive import Limit, discretise
from cosearch.strategies.base import STRATEGIES, mean_entropy
from cosearch.strategies.gradient.one_level import OneLevelOptions, OneLevelStrategy
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import best_choices, optimise, toy_loss
from latency_tables.devices import find_table

SPACE = small_space("conv_k3", "mbconv_k3_e5", "conv_k5", "skip")
LOGITS = [[0.0, 1.0, -1.0, 0.5], [2.0, 0.0, 0.0, -3.0]]


def make(seed=0, logits=LOGITS, **options):
    strategy = OneLevelStrategy(SPACE, OneLevelOptions(**options), seeded(seed))
    with torch.no_grad():
        for mine, row in zip(strategy.arch.alpha, logits):
            mine.copy_(torch.tensor(row))
    return strategy


def softmax(row):
    e = np.exp(np.asarray(row) - np.max(row))
    return e / e.sum()


@pytest.mark.parametrize("active_paths", [1, 2, 0])
def test_the_forward_path_is_drawn_from_softmax(active_paths):
    strategy, draws = make(active_paths=active_paths), 2000
    counts = np.zeros((2, 4))
    for _ in range(draws):
        counts[range(2), list(strategy.sample().choices)] += 1
    for row, logits in zip(counts, LOGITS):
        wanted = draws * softmax(logits)
        assert ((row - wanted) ** 2 / wanted).sum() < 21.1  # chi-square with 3 degrees: p = 0.0001


@pytest.mark.parametrize("active_paths, kept", [(1, 1), (2, 2), (3, 3), (0, 4), (9, 4)])
def test_active_candidates_are_the_largest_and_their_weights_the_gumbel_softmax(active_paths, kept):
    strategy = make(active_paths=active_paths, temperature_start=0.7)
    for _ in range(20):
        path = strategy.sample()
        weighted = strategy.weighted(path)
        for logits, noise, active, weights in zip(LOGITS, path.noise, path.active, weighted.weights):
            y = softmax((np.log(softmax(logits)) + noise.double().numpy()) / 0.7)
            assert list(active) == list(np.argsort(-y)[:kept])
            np.testing.assert_allclose(weights.detach().numpy(), y[list(active)], rtol=1e-4, atol=1e-7)
        assert weighted.active == path.active and path.weights is None


def test_the_noise_is_gumbel():
    strategy = make()
    noise = np.concatenate([torch.cat(strategy.sample().noise).numpy() for _ in range(1500)])
    assert noise.mean() == pytest.approx(0.5772, abs=0.05) and noise.var() == pytest.approx(np.pi**2 / 6, rel=0.06)
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("active_paths", [1, 2, 0])
def test_gradient_of_the_logits_is_that_of_the_formula_by_finite_differences(active_paths):
    strategy = make(active_paths=active_paths, temperature_start=1.3)
    path, table = strategy.sample(), [[0.3, -1.0, 2.0, 0.7], [1.0, 0.2, -0.4, 0.1]]
    strategy.arch.zero_grad()
    toy_loss(strategy.weighted(path), table).backward()
    for point, (logits, row) in enumerate(zip(LOGITS, table)):
        noise, active = path.noise[point].double().numpy(), list(path.active[point])

        def loss(values, noise=noise, active=active, row=row):
            y = softmax((np.log(softmax(values)) + noise) / 1.3)
            return float((y[active] * np.asarray(row)[active]).sum())

        for k in range(4):
            ends = [loss([v + s * 1e-5 * (i == k) for i, v in enumerate(logits)]) for s in (1, -1)]
            assert float(strategy.arch.alpha[point].grad[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-3, abs=2e-5)


def test_weights_of_a_kept_path_follow_the_logits():
    strategy = make()
    path = strategy.sample()
    before = float(strategy.weighted(path).weights[0][0].detach())
    with torch.no_grad():
        strategy.arch.alpha[0][path.active[0][0]] += 1.0
    assert float(strategy.weighted(path).weights[0][0].detach()) > before


@pytest.mark.parametrize("progress, wanted", [(0.0, 4.0), (0.5, 1.0), (1.0, 0.25), (0.25, 2.0), (-1.0, 4.0), (7.0, 0.25)])
def test_temperature_falls_geometrically(progress, wanted):
    strategy = make(temperature_start=4.0, temperature_end=0.25)
    strategy.arch.anneal(progress)
    assert strategy.arch.temperature == pytest.approx(wanted) and strategy.metrics()["temperature"] == pytest.approx(wanted)


def test_probabilities_scores_and_entropy():
    strategy = make()
    for found, score, row in zip(strategy.arch.probabilities(), strategy.scores(), LOGITS):
        np.testing.assert_allclose(found.detach().numpy(), softmax(row), rtol=1e-5)
        np.testing.assert_allclose(score, np.log(softmax(row)), rtol=1e-6)
    wanted = np.mean([-(softmax(row) * np.log(softmax(row))).sum() for row in LOGITS])
    assert strategy.metrics()["arch_entropy"] == pytest.approx(wanted, rel=1e-5)
    assert mean_entropy([torch.tensor([1.0, 0.0])]) == 0.0
    assert np.array(strategy.metrics()["arch_probabilities"]).sum(1) == pytest.approx([1.0, 1.0], abs=1e-5)


@pytest.mark.parametrize(
    "change", [{"active_paths": 1}, {"temperature_start": 1.0}, {"temperature_end": 2.0}, {"lr": 0.1}], ids=str
)
def test_each_option_changes_the_search(change):
    def after(**options):
        strategy = make(**options)
        optimise(strategy, lambda s, p: toy_loss(p, [[0.5, -1.0, 0.4, 0.1], [-1.2, 0.6, 0.3, 0.2]]), 20)
        return torch.cat(strategy.arch.alpha).detach()

    assert set(change) <= {f.name for f in dataclasses.fields(OneLevelOptions)} and len(dataclasses.fields(OneLevelOptions)) == 4
    assert not torch.allclose(after(), after(**change), atol=1e-6)


def test_a2d_takes_every_candidate_and_a3cs_its_own_number():
    a3cs, a2d = (STRATEGIES.get(name).make(SPACE, OneLevelOptions(active_paths=2), seeded(0)) for name in ("a3cs", "a2d"))
    assert [len(active) for active in a3cs.sample().active] == [2, 2] and [len(active) for active in a2d.sample().active] == [
        4,
        4,
    ]
    table = [[0.5, -1.0, 0.4, 0.1], [-1.2, 0.6, 0.3, 0.2]]
    for strategy in (a3cs, a2d):
        optimise(strategy, lambda s, p: toy_loss(p, table), 10)
    assert not torch.equal(a3cs.arch.alpha[0], a2d.arch.alpha[0])


@pytest.mark.parametrize("name", ["a3cs", "a2d"])
def test_a_high_price_picks_the_cheapest_and_a_price_of_zero_does_not(name):
    cost = TableCost(SPACE, find_table("jetson"))
    cheapest = tuple(int(np.argmin(row)) for row in cost.candidate_costs())
    table = [[0.0 if k == c else -1.0 + 0.1 * k for k in range(4)] for c in cheapest]  # the task dislikes the cheapest most

    def search(price):
        penalty = DualPenalty(Constraint(cost, cost.base / 2), dual_lr=0.0, quadratic=0.0)  # no architecture is under it
        penalty.multiplier = price
        strategy = STRATEGIES.get(name).make(SPACE, OneLevelOptions(lr=0.05), seeded(0))
        optimise(strategy, lambda s, p: toy_loss(p, table) + penalty.loss(cost.expected(s.arch.probabilities())), 200)
        return best_choices(strategy, SPACE)

    assert search(1e6) == cheapest
    assert all(found != c for found, c in zip(search(0.0), cheapest))


def test_the_expected_cost_settles_at_the_target_and_the_discretised_one_meets_it():
    cost = TableCost(SPACE, find_table("jetson"))
    rows = cost.candidate_costs()
    low, high = (cost.base + sum(pick(row) for row in rows) for pick in (min, max))
    target = (low + high) / 2
    table = [[-cost_s / max(row) for cost_s in row] for row in rows]  # the task likes what is slow

    def search(dual_lr):
        penalty = DualPenalty(Constraint(cost, target), dual_lr=dual_lr, quadratic=dual_lr)
        strategy = OneLevelStrategy(SPACE, OneLevelOptions(active_paths=0, lr=0.02), seeded(0))

        def loss(s, path):
            expected = cost.expected(s.arch.probabilities())
            penalty.update(float(expected.detach()))
            return toy_loss(path, table) + penalty.loss(expected)

        optimise(strategy, loss, 200)
        with torch.no_grad():
            return strategy, float(cost.expected(strategy.arch.probabilities()))

    free, priced = search(0.0), search(1.0)
    assert free[1] > low + 0.9 * (high - low)
    assert priced[1] == pytest.approx(target, rel=0.06)
    for strategy, _ in (free, priced):
        found = discretise(SPACE, strategy.scores(), Limit(rows, cost.base, target))
        assert cost.exact(found) <= target


def test_a_state_is_a_copy_that_can_be_restored_twice():
    strategy, table = make(), [[0.5, -1.0, 0.4, 0.1], [-1.2, 0.6, 0.3, 0.2]]

    def run(n):
        optimise(strategy, lambda s, p: toy_loss(p, table), n)

    run(5)
    state, noise = strategy.state(), strategy.generator.get_state()
    kept, results = copy.deepcopy(state), []
    run(3)  # must not move the state
    for _ in range(3):
        strategy.restore(state)
        strategy.generator.set_state(noise)
        run(5)
        results.append(torch.cat(strategy.arch.alpha).detach().clone())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert all(torch.equal(a, b) for a, b in zip(kept["logits"], state["logits"]))
    assert torch.equal(kept["optimiser"]["state"][0]["exp_avg"], state["optimiser"]["state"][0]["exp_avg"])
