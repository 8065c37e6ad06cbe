"""Local search: every proposal against the definition, on landscapes whose peaks are known."""

import numpy as np
import pytest
from small_space import small_space

from cosearch.strategies.base import Evaluation
from cosearch.strategies.proposal.local_search import LocalSearch
from cosearch.strategies.proposal.random_search import RandomOptions, RandomSearch
from cosearch.testing.conformance import seeded
from latency_tables.errors import RequestError

SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=5)  # 1024 architectures, 15 neighbours each
BEST = (1, 3, 0, 2, 1)


def smooth(architecture):
    """Points that agree with the best architecture: one peak."""
    return float(sum(a == b for a, b in zip(architecture.choices, BEST)))


def run(strategy, asks, score=smooth):
    for _ in range(asks):
        architecture = strategy.ask()
        strategy.tell(Evaluation(architecture, score(architecture), 1e-3))
    return [(result.choices, result.score) for result in strategy.results.all]


def local(seed=0, feasible=lambda a: True):
    return LocalSearch(SPACE, RandomOptions(), seeded(seed), feasible)


def test_proposals_are_new_neighbours_of_the_best_of_their_climb():
    found = run(local(), 80)
    begun, seen = 0, set()
    for index, (choices, _) in enumerate(found):
        if index > begun:
            centre = max(found[begun:index], key=lambda item: item[1])[0]
            near = {n.choices for n in SPACE.architecture(centre).neighbours()} - seen
            if near:
                assert choices in near, index
            else:
                begun = index  # every neighbour was tried: a new start
        seen.add(choices)
    assert begun > 0


def test_one_peak_is_climbed_in_no_more_than_all_neighbours_of_each_step():
    for seed in range(20):
        found = run(local(seed), 1 + 5 * 15)
        assert max(score for _, score in found) == 5.0


def test_it_beats_random_search_at_equal_evaluations():
    climbed = [max(score for _, score in run(local(seed), 40)) for seed in range(12)]
    drawn = [max(score for _, score in run(RandomSearch(SPACE, RandomOptions(), seeded(seed)), 40)) for seed in range(12)]
    assert np.mean(climbed) > np.mean(drawn) + 0.5


def test_only_what_meets_the_target_is_proposed_and_a_point_without_neighbours_starts_anew():
    corners = {(c,) * 5 for c in range(4)}  # no two of them are neighbours
    found = run(local(feasible=lambda a: a.choices in corners), 12)
    assert {choices for choices, _ in found} <= corners and len({choices for choices, _ in found}) > 1


def test_several_asked_for_at_once_are_starts_until_the_first_is_told():
    strategy = local()
    first = [strategy.ask() for _ in range(4)]
    for architecture in first:
        strategy.tell(Evaluation(architecture, smooth(architecture), 1e-3))
    assert strategy.begun == 0
    centre = max(first, key=smooth)
    assert strategy.ask().choices in {n.choices for n in centre.neighbours()}


def test_a_candidate_without_a_score_is_the_worst():
    strategy = local()
    with pytest.raises(RequestError, match="no result yet"):
        strategy.best()
    for score in (None, -3.0):
        strategy.tell(Evaluation(strategy.ask(), score, 1e-3))
    assert strategy.best() == 1
