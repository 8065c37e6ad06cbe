"""The regression of losses on choices: against scikit-learn, and a truth that is known."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.regression import DrawnPaths, fit_scores, standardised
from latency_tables.errors import NonFiniteError

SIZES = (3, 4, 2, 5)


def drawn_paths(count, seed=0, *, noise=0.5, fall=0.0, most=32_768, draw=None):
    """Paths of an additive truth ``[candidates]`` for each point, with noise, and a loss and spread that fall with progress."""
    random = np.random.default_rng(seed)
    truth = [random.normal(size=size) for size in SIZES]
    drawn = DrawnPaths(len(SIZES), most)
    for i in range(count):
        progress = i / count
        choices = [int(random.integers(size)) for size in SIZES] if draw is None else draw(random)
        level, spread = 50.0 * fall * np.exp(-4 * progress), 1.0 + 9.0 * fall * np.exp(-4 * progress)
        value = sum(row[c] for row, c in zip(truth, choices)) + noise * random.normal()
        drawn.add(choices, level + spread * value, progress)
    return truth, drawn


def one_hot(drawn):
    return np.concatenate([np.eye(size)[drawn.choices[:, point]] for point, size in enumerate(SIZES)], 1)


def hats(drawn):
    """The trend of 400 pairs with equal steps of progress: hat functions at nine knots, written out."""
    knots = np.quantile(drawn.progress, np.arange(9) / 8)
    width = knots[1] - knots[0]
    return np.maximum(0.0, 1.0 - np.abs(drawn.progress[:, None] - knots) / width)


def test_coefficients_and_penalty_are_those_of_scikit_learn():
    _, drawn = drawn_paths(400, fall=1.0)
    trend, x = hats(drawn), one_hot(drawn)
    y = standardised(drawn.losses, trend)
    fit = fit_scores(SIZES, drawn)

    def apart(values):
        return values - LinearRegression(fit_intercept=False).fit(trend, values).predict(trend)

    ridge = Ridge(fit.penalty, fit_intercept=False).fit(apart(x), apart(y))
    assert -np.concatenate(fit.scores) == pytest.approx(ridge.coef_, abs=1e-9)
    assert fit.r2 == pytest.approx(ridge.score(apart(x), apart(y)), abs=1e-3) and fit.pairs == 400
    near = RidgeCV(np.logspace(-2, 4, 25), fit_intercept=False).fit(apart(x), apart(y)).alpha_
    assert 0.4 < fit.penalty / near < 2.5  # leave-one-out itself, of which cross-validation is the generalised form


def test_losses_are_standardised_by_a_mean_and_spread_that_fall():
    _, drawn = drawn_paths(4_000, fall=1.0)
    y = standardised(drawn.losses, hats(drawn))
    parts = y.reshape(8, 500)
    assert np.abs(parts.mean(1)).max() < 0.15 and parts.std(1).min() > 0.85 and parts.std(1).max() < 1.15
    assert drawn.losses[:500].std() > 3 * drawn.losses[-500:].std()
    assert np.abs(y).max() <= 4.0
    assert standardised(np.full(20, 3.0), np.ones((20, 1))).tolist() == [0.0] * 20


@pytest.mark.parametrize("fall", [0.0, 1.0])
def test_it_finds_the_truth_whether_or_not_the_loss_falls(fall):
    truth, drawn = drawn_paths(600, fall=fall)
    fit = fit_scores(SIZES, drawn)
    for scores, row in zip(fit.scores, truth):
        assert spearmanr(scores, -row).statistic > 0.99  # low losses are high scores
    assert 0.7 < fit.r2 < 1.0 and 0.8 < fit.rank_correlation < 1.0


def test_a_loss_that_choices_do_not_move_is_said_to_be_one():
    found = []
    for seed in range(6):
        random = np.random.default_rng(seed)
        drawn = DrawnPaths(len(SIZES))
        for i in range(120):
            drawn.add([int(random.integers(size)) for size in SIZES], float(random.normal()), i / 120)
        found.append(fit_scores(SIZES, drawn))
    assert np.mean([fit.rank_correlation for fit in found]) < 0.1  # on the pairs that it was fitted to it would be 0.3
    assert np.median([np.abs(np.concatenate(fit.scores)).max() for fit in found]) < 0.2


def test_a_candidate_that_was_hardly_drawn_is_the_mean_and_not_the_best():
    def draw(random):
        return [0 if random.random() < 0.99 else 1, *(int(random.integers(size)) for size in SIZES[1:])]

    _, drawn = drawn_paths(300, draw=draw, noise=3.0)
    rare = fit_scores(SIZES, drawn).scores[0]
    assert rare[2] == 0.0  # never drawn
    assert abs(rare[1]) < 0.6  # three draws under noise three times its effect


def test_nothing_to_fit_is_none():
    assert fit_scores(SIZES, DrawnPaths(4)) is None
    drawn = DrawnPaths(4)
    drawn.add([0, 0, 0, 0], 1.0, 0.0)
    assert fit_scores(SIZES, drawn) is None
    for i in range(20):
        drawn.add([i % 2, 0, 0, 0], 1.0, i / 20)
    assert fit_scores(SIZES, drawn) is None
    drawn.add([1, 0, 0, 0], float("nan"), 1.0)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        fit_scores(SIZES, drawn)


def test_more_pairs_than_it_holds_are_thinned_evenly_and_resumed_alike(tmp_path):
    kept = DrawnPaths(2, most=8)
    for i in range(100):
        kept.add([i % 3, i % 2], float(i), i / 100)
        torch.save(kept.state(), tmp_path / "state")
        other = DrawnPaths(2, most=8)
        other.restore(torch.load(tmp_path / "state", weights_only=True))
        assert other.losses.tolist() == kept.losses.tolist() and other.choices.tolist() == kept.choices.tolist()
        kept = other
        assert kept.count <= 8
        steps = set(np.diff(kept.losses).tolist())
        assert len(steps) <= 1 and kept.losses[0] == 0.0
    assert kept.losses.tolist() == [0.0, 16.0, 32.0, 48.0, 64.0, 80.0, 96.0]
    assert kept.choices.tolist() == [[i % 3, i % 2] for i in range(0, 100, 16)]
    assert kept.progress.tolist() == [i / 100 for i in range(0, 100, 16)]


@pytest.mark.parametrize(
    "name, said, taken",
    [
        ("reinforce", None, "regression"),
        ("reinforce", "scores", "scores"),
        ("a3cs", None, "scores"),
        ("a3cs", "regression", "regression"),
        ("snas", None, "scores"),
    ],
)
def test_what_a_strategy_is_derived_from(name, said, taken):
    load_builtins()
    assert STRATEGIES.get(name).derived_by(StrategyConfig(derive_by=said)) == taken
