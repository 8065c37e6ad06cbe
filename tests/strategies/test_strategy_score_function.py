"""The score-function strategy: its gradient against finite differences of the enumerated expectation, its baseline in numpy."""

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_space import small_space

from cosearch.cost.table_cost import TableCost
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.supernet import Path
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.budgeted import multiplier
from cosearch.strategies.gradient import score_function
from cosearch.strategies.gradient.one_level import OneLevelOptions
from cosearch.strategies.gradient.score_function import CLIP, DECAY, ENTROPY, ScoreFunctionOptions, ScoreFunctionStrategy
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import best_choices, optimise
from latency_tables.devices import find_table

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
LOGITS = [[0.3, -0.2, 0.5], [1.0, 0.1, -0.4]]
TILT = [[0.4, 0.0, -0.3], [0.0, 0.6, 0.2]]
PATHS = list(itertools.product(range(3), range(3)))
LOSSES = {choices: float(loss) for choices, loss in zip(PATHS, np.random.default_rng(0).normal(2.0, 0.3, len(PATHS)))}
STATISTICS = {"count": 10_000, "mean": 2.1, "variance": 0.25}  # so many that the bias correction is 1


def make(**options):
    strategy = ScoreFunctionStrategy(SPACE, ScoreFunctionOptions(**options), seeded(0))
    with torch.no_grad():
        for mine, row in zip(strategy.arch.alpha, LOGITS):
            mine.copy_(torch.tensor(row))
    strategy.arch.set_tilt(TILT)
    return strategy


def probabilities(logits):
    rows = [np.exp(np.asarray(row) - np.asarray(tilt)) for row, tilt in zip(logits, TILT)]
    return [row / row.sum() for row in rows]


def expected_loss(logits):
    p = probabilities(logits)
    return sum(p[0][i] * p[1][j] * LOSSES[i, j] for i, j in PATHS)


def objective(logits):
    """E[L] / s + h KL(p || q) by enumeration of the paths; q is p with logits of zero."""
    p, q = probabilities(logits), probabilities(np.zeros((2, 3)))
    divergence = sum(p[0][i] * p[1][j] * np.log(p[0][i] * p[1][j] / (q[0][i] * q[1][j])) for i, j in PATHS)
    return expected_loss(logits) / STATISTICS["variance"] ** 0.5 + ENTROPY * divergence


def gradient_of(choices, loss):
    """What one step hands to the optimiser."""
    strategy = make()
    strategy.restore({**strategy.state(), **STATISTICS})
    strategy.arch.zero_grad()
    strategy.step(Path(tuple((c,) for c in choices)), loss)
    return np.stack([logits.grad.numpy() for logits in strategy.arch.alpha])


@pytest.mark.parametrize("baseline", [2.1, 1.7])
def test_the_gradient_is_unbiased_whatever_the_baseline(baseline, monkeypatch):
    monkeypatch.setitem(STATISTICS, "mean", baseline)
    p = probabilities(LOGITS)
    mean = sum(p[0][i] * p[1][j] * gradient_of((i, j), LOSSES[i, j]) for i, j in PATHS)
    step, wanted = 1e-5, np.zeros((2, 3))
    for point, candidate in np.ndindex(2, 3):
        up, down = (np.array(LOGITS) for _ in range(2))
        up[point, candidate] += step
        down[point, candidate] -= step
        wanted[point, candidate] = (objective(up) - objective(down)) / (2 * step)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(mean, wanted, atol=2e-6)


def test_the_advantage_is_measured_against_earlier_losses_only():
    strategy, losses = make(), np.random.default_rng(1).normal(3.0, 0.5, 40)
    found = [strategy.advantage(float(loss)) for loss in losses]
    assert found[:2] == [0.0, 0.0]
    weights = [DECAY ** np.arange(n)[::-1] for n in range(41)]
    means = [float(weights[n] @ losses[:n] / weights[n].sum()) if n else 0.0 for n in range(41)]
    squares = np.array([0.0] + [(losses[n] - means[n]) ** 2 for n in range(1, 40)])
    for n in range(2, 40):
        spread = (float(weights[n] @ squares[:n]) / weights[n].sum()) ** 0.5
        assert found[n] == pytest.approx(np.clip((losses[n] - means[n]) / spread, -CLIP, CLIP), rel=1e-9)


def test_one_odd_minibatch_is_held_within_the_clip():
    strategy = make()
    strategy.restore({**strategy.state(), **STATISTICS})
    assert strategy.advantage(1e6) == CLIP
    strategy.restore({**strategy.state(), **STATISTICS})
    assert strategy.advantage(-1e6) == -CLIP
    assert np.abs(gradient_of((0, 0), 1e6)).max() <= CLIP + ENTROPY * np.abs(LOGITS).max()


def test_one_path_without_gates_is_drawn_whatever_k_is():
    strategy = make()
    path = strategy.sample()
    assert [len(active) for active in path.active] == [1, 1] and strategy.weighted(path) is path and path.weights is None
    assert "temperature" not in strategy.metrics() and "arch_entropy" in strategy.metrics()


def test_it_learns_what_gates_cannot_see():
    """A loss that is known for whole paths only, without any gradient at the gates, and not a sum over the points."""
    table = {(i, j): 1.0 + 0.5 * (i != j) + 0.3 * (i != 2) for i, j in PATHS}

    def loss(_, path):
        return torch.tensor(table[path.choices])

    strategy = STRATEGIES.get("reinforce").make(SPACE, ScoreFunctionOptions(lr=0.05), seeded(1))
    optimise(strategy, loss, 400)
    assert best_choices(strategy, SPACE) == (2, 2)
    gates = STRATEGIES.get("a3cs").make(SPACE, OneLevelOptions(lr=0.05), seeded(1))
    before = copy.deepcopy(gates.scores())
    optimise(gates, loss, 50)
    assert gates.scores() == before


def test_the_fixed_point_is_the_negative_loss_of_each_candidate():
    """Where the loss is a sum over the points, alpha = -L / (h s) has no expected gradient, whatever the tilt."""
    table = np.random.default_rng(3).normal(size=(2, 3)) * 0.2
    scale = ENTROPY * STATISTICS["variance"] ** 0.5
    total = np.zeros((2, 3))
    p = probabilities(-table / scale)
    for i, j in PATHS:
        strategy = make()
        strategy.restore({**strategy.state(), **STATISTICS})
        with torch.no_grad():
            for mine, row in zip(strategy.arch.alpha, -table / scale):
                mine.copy_(torch.tensor(row))
        strategy.arch.zero_grad()
        strategy.step(Path(((i,), (j,))), STATISTICS["mean"] + float(table[0, i] + table[1, j]))
        total += p[0][i] * p[1][j] * np.stack([logits.grad.numpy() for logits in strategy.arch.alpha])
    np.testing.assert_allclose(total, 0.0, atol=1e-6)


COST = TableCost(chain_space(ChainConfig(), (64, 64, 3), 15), find_table("jetson"))  # the costs of the default task


def ranks(steps, seed=0):
    """Spearman's correlation of utilities with the truth over random feasible architectures, after so many paths.

    A path's loss is a sum of random numbers, in which expensive candidates are better, plus as much noise.
    """
    space, rows, rng = COST.space, COST.candidate_costs(), np.random.default_rng(seed)
    costs, target = np.array(rows), 431e-6  # a fifth of the IMPALA-CNN's latency, the default
    spread = (costs - costs.mean(1, keepdims=True)) / costs.std(1, keepdims=True)
    table = rng.normal(size=costs.shape) - 0.5 * spread
    even = np.exp(-multiplier(np.zeros(costs.shape).tolist(), rows, COST.base, target) * costs)
    drawn = {tuple(int(rng.choice(9, p=row / row.sum())) for row in even) for _ in range(600)}
    feasible = sorted(c for c in drawn if COST.base + sum(row[k] for row, k in zip(rows, c)) <= target)
    truth = [sum(row[k] for row, k in zip(table, c)) for c in feasible]
    strategy = ScoreFunctionStrategy(space, ScoreFunctionOptions(lr=0.02), seeded(seed))
    for n in range(steps):
        if n % 10 == 0:
            beta = multiplier(strategy.scores(), rows, COST.base, target)
            strategy.arch.set_tilt((beta * costs).tolist())
        path = strategy.sample()
        loss = sum(row[k] for row, k in zip(table, path.choices)) + np.std(truth) * rng.normal()
        strategy.arch.zero_grad()
        strategy.step(path, float(loss))
    assert len(feasible) > 100
    return float(spearmanr([sum(row[k] for row, k in zip(strategy.scores(), c)) for c in feasible], np.negative(truth)).statistic)


@pytest.mark.slow  # long searches
def test_more_steps_do_not_make_the_ranking_worse_and_without_the_divergence_they_do(monkeypatch):
    few, many = ranks(400, seed=1), ranks(1500, seed=1)
    assert many > 0.88 and many > few
    monkeypatch.setattr(score_function, "ENTROPY", 0.0)
    assert ranks(1500, seed=1) < ranks(400, seed=1) - 0.05
