"""Hypervolume, regret and rank against Monte Carlo, closed forms and ordering."""

import numpy as np
import pytest
from scipy.stats import rankdata

from cosearch.quality import hypervolume, mean_hypervolume, rank, regret
from latency_tables.errors import RequestError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_the_hypervolume_by_monte_carlo(count):
    points = RNG.uniform(size=(count, 2)) * [2.0, 10.0]
    reference = (1.5, 2.0)
    drawn = RNG.uniform(size=(200_000, 2)) * [1.5, 8.0] + [0.0, 2.0]
    hit = np.zeros(len(drawn), dtype=bool)
    for latency, score in points:
        hit |= (drawn[:, 0] >= latency) & (drawn[:, 1] <= score)
    assert hypervolume([tuple(p) for p in points], reference) == pytest.approx(1.5 * 8.0 * hit.mean(), abs=0.06)


def test_what_lies_beyond_the_reference_adds_nothing():
    assert hypervolume([(2.0, 9.0), (1.0, 1.0)], (1.5, 2.0)) == 0.0 == hypervolume([], (1.0, 1.0))
    assert hypervolume([(1.0, 3.0)], (1.5, 2.0)) == hypervolume([(1.0, 3.0), (1.2, 2.5), (1.0, 3.0)], (1.5, 2.0)) == 0.5


def test_the_hypervolume_by_hand():
    """Two points that add their steps, one behind both, one at the reference."""
    points = [(1.0, 3.0), (0.5, 2.5), (1.2, 2.75), (1.5, 9.0), (0.1, 2.0)]
    assert hypervolume(points, (1.5, 2.0)) == pytest.approx(1.0 * 0.5 + 0.5 * 0.5)


def test_the_mean_hypervolume_does_not_grow_with_the_number_of_runs():
    """Latency and score uniform in the unit square, reference its corner: a run alone dominates a quarter, of any number."""
    runs = [RNG.uniform(size=(4000 // count, count, 2)) for count in (1, 3, 10)]
    mean, union = (
        [float(np.mean([area([tuple(point) for point in points], (1.0, 0.0)) for points in each])) for each in runs]
        for area in (mean_hypervolume, hypervolume)
    )
    assert mean == pytest.approx([0.25] * 3, abs=0.02)
    assert union[0] == pytest.approx(0.25, abs=0.02) and union[2] > union[1] + 0.1 > union[0] + 0.2  # what grew


def test_regret_is_the_distance_to_the_best():
    assert regret(7.0, [1.0, 9.5, 7.0]) == 2.5 and regret(9.5, [1.0, 9.5, 7.0]) == 0.0


@pytest.mark.parametrize("ties", [1, 3, 10])
def test_the_rank_is_the_place_from_the_top_and_equal_scores_share_it(ties):
    scores = np.repeat(RNG.permutation(12), ties).astype(float)
    expected = rankdata(-scores)
    assert [rank(score, scores) for score in scores] == expected.tolist()
    assert rank(max(scores), scores) == (ties + 1) / 2


def test_a_score_that_is_none_of_them_has_no_rank():
    with pytest.raises(RequestError, match=r"the score 2\.5 is none of the 2 scores"):
        rank(2.5, [2.0, 3.0])
