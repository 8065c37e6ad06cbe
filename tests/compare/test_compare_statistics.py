"""The statistics of a comparison against direct computation, enumeration, Monte Carlo and known distributions."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_ind

from cosearch.benchmarks.searches import co_search, default_run
from cosearch.benchmarks.speed import throughput
from cosearch.rl.evaluate import Score
from cosearch.statistics import (
    band,
    estimate_text,
    improvement,
    improvement_estimate,
    improvement_interval,
    interval_text,
    iqm,
    iqm_estimate,
    mean_interval,
    mean_text,
    percentile_interval,
    student_interval,
    two_level_estimate,
    welch_interval,
    wilson_interval,
)

ROOT = Path(__file__).resolve().parents[2]

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (4,), (5,), (8,), (11,), (5, 5), (3, 7, 2)])
def test_the_iqm_is_the_mean_of_the_middle_half(sizes):
    scores = [RNG.normal(size=n).tolist() for n in sizes]
    ordered = sorted(x for task in scores for x in task)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    assert iqm(scores) == pytest.approx(sum(middle) / len(middle), rel=1e-12)
    assert iqm_estimate(scores).value == pytest.approx(iqm(scores), rel=1e-12)


def test_an_outlier_moves_the_mean_and_not_the_iqm():
    assert iqm([[1, 2, 3, 4]]) == iqm([[1, 2, 3, 4000]]) == 2.5


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ([[1.0, 2.0, 3.0]], [[0.0, 2.0, 5.0]]),
        ([[3.0]], [[1.0, 2.0]]),
        ([[1.0, 1.0]], [[1.0]]),
        ([[1.0, 4.0], [0.0, 0.0, 9.0]], [[2.0, 3.0, 4.0], [0.0, 5.0]]),
    ],
)
def test_the_probability_of_improvement_by_enumeration(ours, theirs):
    each = []
    for x, y in zip(ours, theirs):
        pairs = list(itertools.product(x, y))
        each.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    assert improvement(ours, theirs) == pytest.approx(sum(each) / len(each), rel=1e-12)
    assert improvement(theirs, ours) == pytest.approx(1.0 - improvement(ours, theirs), rel=1e-12)
    assert improvement_estimate(ours, theirs).value == pytest.approx(improvement(ours, theirs), rel=1e-12)


def test_the_bootstrap_of_the_iqm_by_enumeration_of_all_resamples():
    """Four runs: the quantiles of the exact distribution over all 4^4 resamples."""
    scores = [1.0, 2.0, 4.0, 8.0]
    every = [sum(sorted(draw)[1:3]) / 2 for draw in itertools.product(scores, repeat=4)]
    found = iqm_estimate([scores])
    assert found.ci95 == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=0.26)


def test_resampling_stays_within_the_tasks():
    """Two tasks, each constant: every stratified resample is the same; a pooled one would not be."""
    found = iqm_estimate([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
    assert (found.value, found.ci95) == (3.0, (3.0, 3.0))


def test_the_interval_covers_the_known_centre_about_as_often_as_it_says():
    """Normal scores: the inter-quartile mean estimates 0. With 4,000 samples of each size, by direct computation: the intervals
    of 3 runs hold it in 75 % of the cases, those of 5 in 90 %, those of 30 in 94 %: too narrow for few runs, as documented."""
    draws = np.random.default_rng(11)
    held = {
        n: np.mean([low <= 0.0 <= high for low, high in (iqm_estimate([draws.normal(size=n)]).ci95 for _ in range(300))])
        for n in (3, 5, 30)
    }
    assert 0.68 <= held[3] <= 0.82 and 0.84 <= held[5] <= 0.95 and 0.91 <= held[30] <= 0.98, held


def newcombe_by_search(value, ours, theirs, grid=200_001):
    """All P with (value - P)^2 <= z^2 V(P) on a fine grid, with the variance as Hanley and McNeil write it."""
    p = np.linspace(0.0, 1.0, grid)
    q1, q2, mean = p / (2 - p), 2 * p**2 / (1 + p), (ours + theirs) / 2
    variance = (p * (1 - p) + (mean - 1) * (q1 - p**2) + (mean - 1) * (q2 - p**2)) / (ours * theirs)
    inside = p[((value - p) ** 2 <= 1.959964**2 * variance)]
    inside = inside[(inside > 0) & (inside < 1)]  # where the variance is 0 the estimate itself would be in
    return inside.min(), inside.max()


@pytest.mark.parametrize("ours, theirs", [(5, 5), (2, 9), (10, 3)])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.76, 0.96, 1.0])
def test_the_interval_of_improvement_is_newcombes_by_search(value, ours, theirs):
    low, high = improvement_interval(value, ours, theirs)
    assert (low, high) == pytest.approx(newcombe_by_search(value, ours, theirs), abs=1e-4)
    assert improvement_interval(1 - value, ours, theirs) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def drawn_improvements(true, spread, count, runs=5):
    """Scores of many comparisons ``[count, runs]`` of two normal methods whose probability of improvement is ``true``."""
    draws = np.random.default_rng(round(1000 * true))
    gap = norm.ppf(true) * np.sqrt(1 + spread**2)
    return draws.normal(gap, 1.0, (count, runs)), draws.normal(0.0, spread, (count, runs))


TRUE = (0.5, 0.6, 0.7, 0.76, 0.8, 0.85, 0.9, 0.95, 0.97)


def test_newcombes_interval_covers_from_one_half_to_097_with_five_runs():
    intervals = np.array([improvement_interval(twice / 50, 5, 5) for twice in range(51)])
    for spread, least in ((1.0, 0.935), (10.0, 0.85)):
        held = {}
        for true in TRUE:
            x, y = drawn_improvements(true, spread, 20_000)
            low, high = intervals[(2 * (x[:, :, None] > y[:, None, :]).sum(axis=(1, 2)))].T
            held[true] = float(((low <= true) & (true <= high)).mean())
        assert least <= min(held.values()) and max(held.values()) <= 0.985, (spread, held)


def test_the_bootstrap_that_it_replaces_did_not():
    """Runs of both resampled, percentiles: with five runs each it held a true 0.97 in a third of the cases."""
    draws = np.random.default_rng(1)
    held = {}
    for true in (0.76, 0.97):
        x, y = drawn_improvements(true, 1.0, 400)
        better = (x[:, :, None] > y[:, None, :]).astype(float)
        ours, theirs = (draws.multinomial(5, [0.2] * 5, 500) / 5 for _ in range(2))  # how often each run is drawn
        low, high = np.percentile(np.einsum("ri,rj,cij->cr", ours, theirs, better, optimize=True), [2.5, 97.5], axis=1)
        held[true] = float(((low <= true) & (true <= high)).mean())
    assert held[0.97] < 0.45 and held[0.76] < 0.93, held


def test_over_tasks_the_intervals_of_improvement_are_joined():
    one, other = improvement_interval(0.75, 2, 2), improvement_interval(1.0, 2, 2)
    found = improvement_estimate([[1.0, 3.0], [5.0, 6.0]], [[0.0, 2.0], [1.0, 2.0]])
    below = np.hypot(0.75 - one[0], 1.0 - other[0]) / 2
    above = np.hypot(one[1] - 0.75, 0.0) / 2
    assert found.value == 0.875 and found.ci95 == pytest.approx((0.875 - below, 0.875 + above))
    same = improvement_estimate([[1.0, 3.0]] * 4, [[0.0, 2.0]] * 4)  # four equal tasks: half as wide as one
    assert 0.75 - same.ci95[0] == pytest.approx((0.75 - one[0]) / 2)


@pytest.mark.parametrize("wins, runs", [(0, 20), (1, 20), (10, 20), (19, 20), (20, 20), (3, 5), (1, 1)])
def test_wilsons_interval_is_scipys(wins, runs):
    low, high = binomtest(wins, runs).proportion_ci(method="wilson")
    assert wilson_interval(wins / runs, runs) == pytest.approx((low, high), abs=1e-12)


def test_wilsons_interval_of_a_draw_lies_between_those_of_whole_wins():
    less, half, more = (wilson_interval(wins / 20, 20) for wins in (19, 19.5, 20))
    assert less[0] < half[0] < more[0] and less[1] < half[1] <= more[1]


def test_welchs_interval_is_scipys():
    ours, theirs = [9.0, 11.5, 12.25], [7.0, 7.5, 9.0, 4.0]
    found = ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert welch_interval(ours, theirs) == pytest.approx((found.low, found.high))
    assert welch_interval([2.0, 2.0], [1.0, 1.0]) == (1.0, 1.0)


def seed_mean(returns):
    return float(np.mean([episodes.mean() for episodes in returns]))


def test_two_levels_by_enumeration_of_all_resamples():
    """Two seeds of two episodes: seeds drawn in four ways, the episodes of each drawn one in four."""
    returns = [np.array([0.0, 4.0]), np.array([10.0, 30.0])]
    means = [[np.mean(pair) for pair in itertools.product(episodes, repeat=2)] for episodes in returns]
    every = [(a + b) / 2 for i, j in itertools.product(range(2), repeat=2) for a in means[i] for b in means[j]]
    found = two_level_estimate(seed_mean, returns)
    assert found.value == 11.0 and found.ci95 == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=1.0)
    apart = two_level_estimate(lambda one, other: seed_mean(one) - seed_mean(other), returns, [np.ones(3), np.ones(2)])
    assert apart.value == 10.0 and apart.ci95 == pytest.approx((found.ci95[0] - 1, found.ci95[1] - 1), abs=1.0)


@pytest.mark.slow
def test_resampled_seeds_cover_where_resampled_episodes_do_not(monkeypatch):
    """Five seeds whose scores differ three times as much as their episodes explain: the true mean is 0."""
    monkeypatch.setattr("cosearch.statistics.TWO_LEVEL_RESAMPLES", 100)
    draws, count = np.random.default_rng(3), 100
    held = {"two levels": 0, "episodes": 0, "student": 0}
    for _ in range(count):
        returns = [draws.normal(draws.normal(), 0.3 * 20**0.5, 20) for _ in range(5)]
        within = [seed_mean([draws.choice(episodes, 20) for episodes in returns]) for _ in range(100)]
        for name, (low, high) in {
            "two levels": two_level_estimate(seed_mean, returns).ci95,
            "episodes": np.percentile(within, [2.5, 97.5]),
            "student": student_interval([episodes.mean() for episodes in returns]),
        }.items():
            held[name] += low <= 0.0 <= high
    assert held["episodes"] < 0.55 * count and held["two levels"] > 0.75 * count and held["student"] > 0.88 * count, held


INTERVALS = {  # every function that makes an interval: (samples of one sample's size) -> the interval
    "mean_interval": mean_interval,
    "student_interval": student_interval,
    "welch_interval": lambda values: welch_interval(values, [1.0, 2.5]),
    "two_level_estimate": lambda values: two_level_estimate(seed_mean, [np.array([value]) for value in values]).ci95,
    "percentile_interval": lambda values: percentile_interval(values, [len(values)]),
    "percentile_interval, one of two samples": lambda values: percentile_interval(values, [9, len(values)]),
    "iqm_estimate": lambda values: iqm_estimate([values]).ci95,
    "iqm_estimate, one of two tasks": lambda values: iqm_estimate([[1.0, 2.0, 3.0], values]).ci95,
    "improvement_estimate": lambda values: improvement_estimate([values], [[0.0, 2.0]]).ci95,
    "improvement_estimate, the control": lambda values: improvement_estimate([[0.0, 2.0]], [values]).ci95,
    "band": lambda values: band(np.array(values)[:, None]),
    "Score": lambda values: Score(tuple(values)).ci95,
    "benchmarks.co_search": lambda values: co_search.bootstrap(np.array(values)),
    "benchmarks.default_run": lambda values: default_run.statistics([np.array([value, value]) for value in values])["mean_ci95"],
    "benchmarks.default_run, difference": lambda values: default_run.difference(
        [np.array([value]) for value in values], [np.arange(4.0), np.zeros(4)]
    )["ci95"],
    "benchmarks.throughput": lambda values: throughput.ratio(values, [1.0] * len(values))["ci95"],
}


@pytest.mark.parametrize("name", INTERVALS)
def test_one_value_gives_no_interval_and_two_give_one(name):
    assert INTERVALS[name]([3.0]) is None
    low, high = INTERVALS[name]([1.0, 5.0])
    assert low < high and (name.startswith(("improvement", "welch")) or low <= 3.0 <= high)


def test_every_place_that_draws_resamples_is_tried_above():
    """A function with an interval of its own belongs into the table, and its arithmetic into ``cosearch.statistics``."""
    arithmetic = re.compile(r"np\.percentile\(|scipy\.stats import [^\n]*bootstrap|\bt\.ppf\(")
    files = [path for path in (ROOT / "cosearch").rglob("*.py") if arithmetic.search(path.read_text(encoding="utf-8"))]
    runner = "cosearch/deploy/bundle/files/run_agent.py"  # the median and p99 of the times that it measures: no interval
    assert {path.relative_to(ROOT).as_posix() for path in files} == {"cosearch/statistics.py", runner}


def test_a_missing_interval_is_said_in_words():
    assert interval_text((1.0, 2.5), "run") == "[1.00, 2.50]" and interval_text(None, "run") == "no interval (1 run)"
    assert estimate_text(-1.0, [-2.0, 3.0], "seed", "+.1f") == "-1.0 [-2.0, +3.0]"
    assert mean_text(4.0, None, 1) == "4.00, no interval (1 episode)"
    assert mean_text(4.0, (3.0, 5.0), 20) == "4.00 [3.00, 5.00] over 20 episodes"
    assert mean_text(4.0, (3.0, 5.0), 3, "seed") == "4.00 [3.00, 5.00] over 3 seeds"
    assert iqm_estimate([[3.0]]).to_dict() == {"value": 3.0, "ci95": None}


def test_the_same_runs_give_the_same_interval():
    scores = [RNG.normal(size=9), RNG.normal(size=8)]
    assert iqm_estimate(scores) == iqm_estimate(scores) != iqm_estimate(scores, seed=1)


def test_the_band_is_the_percentile_interval_of_the_mean_at_each_point():
    curves = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 7.0]])
    low, high = band(curves)
    assert low.tolist() == [0.0, 1.0, 5.0] and high.tolist() == [2.0, 1.0, 7.0]


def quantile(values, share):
    """Linear between the sorted values."""
    values, place = sorted(values), share * (len(values) - 1)
    low = int(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def middle_mean(values):
    values = sorted(values)
    cut = len(values) // 4
    return sum(values[cut : len(values) - cut]) / (len(values) - 2 * cut)


def redrawn(samples, statistic, *, resamples, batch, seed):
    """The bootstrap as a loop: all resamples of one sample before those of the next one, batch by batch."""
    stream, found = np.random.default_rng(seed), []
    for _ in range(resamples // batch):
        draws = [stream.integers(0, len(sample), (batch, len(sample))) for sample in samples]
        found += [statistic(*(np.asarray(s)[d[n]].tolist() for s, d in zip(samples, draws))) for n in range(batch)]
    return quantile(found, 0.025), quantile(found, 0.975)


def test_intervals_are_those_of_a_loop_over_the_same_draws():
    """The same seed gives the same interval for ever: 0 where none is given."""
    draws = np.random.default_rng(4)
    scores = [draws.normal(size=n).tolist() for n in (9, 7)]
    wanted = redrawn(scores[:1], lambda x: sum(x) / len(x), resamples=2000, batch=2000, seed=0)
    assert mean_interval(scores[0]) == pytest.approx(wanted, rel=1e-12)
    for seed, found in ((0, iqm_estimate(scores)), (3, iqm_estimate(scores, seed=3))):
        wanted = redrawn(scores, lambda *tasks: middle_mean(itertools.chain(*tasks)), resamples=5000, batch=1000, seed=seed)
        assert found.ci95 == pytest.approx(wanted, rel=1e-12)


def test_the_band_of_many_curves_is_that_of_a_loop_over_the_same_draws():
    curves = np.random.default_rng(4).normal(size=(7, 2))
    for seed, found in ((0, band(curves)), (5, band(curves, seed=5))):
        draws = np.random.default_rng(seed).integers(0, 7, (1000, 7))
        for point in range(2):
            means = [sum(curves[i, point] for i in draw) / 7 for draw in draws]
            assert [side[point] for side in found] == pytest.approx([quantile(means, 0.025), quantile(means, 0.975)], rel=1e-12)


def test_intervals_by_hand():
    assert percentile_interval(list(range(1001)), [5]) == (25.0, 975.0)
    # the mean is 3, the deviation sqrt(2.5), and Student's t for 4 degrees of freedom 2.776445
    half = 2.776445 * (2.5 / 5) ** 0.5
    assert student_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3 - half, 3 + half), rel=1e-6)
    assert mean_interval([2.5, 2.5, 2.5]) == (2.5, 2.5)
    assert mean_text(4.0, (3.0, 5.0), 1) == "4.00 [3.00, 5.00] over 1 episodes"
    assert iqm_estimate([[1.0, 1.0]]).to_dict() == {"value": 1.0, "ci95": [1.0, 1.0]}


def test_a_strategy_is_compared_on_the_tasks_of_both_only():
    with pytest.raises(ValueError, match="shorter"):
        improvement([[1.0], [2.0]], [[1.0]])


def test_single_precision_is_computed_in_double():
    values = [[0.1, 0.7, 0.2, 0.4], [0.3, 0.6, 0.5]]
    single = [np.array(task, np.float32) for task in values]
    double = [task.astype(float).tolist() for task in single]
    assert mean_interval(single[0]) == mean_interval(double[0]) and iqm(single) == iqm(double)
    assert mean_interval(np.full(3, np.float32(0.1))) == (float(np.float32(0.1)),) * 2
    assert iqm_estimate(single) == iqm_estimate(double)
