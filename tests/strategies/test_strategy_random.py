"""Random search: uniform among what meets the target, the best of what it was told, and its state."""

import itertools

import numpy as np
import pytest
from small_space import small_space

from cosearch.strategies.base import Evaluation
from cosearch.strategies.proposal.random_search import RandomOptions, RandomSearch
from cosearch.strategies.proposals import Result
from cosearch.testing.conformance import seeded
from latency_tables.errors import InfeasibleTargetError, RequestError, RunFolderError

SPACE = small_space("conv_k3", "conv_k5", "skip", cells=3)


def search(seed=0, **options):
    return RandomSearch(SPACE, RandomOptions(**options), seeded(seed))


def test_proposals_are_uniform_among_those_that_meet_the_target():
    strategy = search()
    strategy.uniform.is_feasible = lambda a: sum(a.choices) <= 2
    feasible = [c for c in itertools.product(range(3), repeat=3) if sum(c) <= 2]
    counts = dict.fromkeys(feasible, 0)
    for _ in range(200 * len(feasible)):
        counts[strategy.ask().choices] += 1  # a KeyError is an architecture over the target
    assert len(counts) == 10
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 33.7  # chi-square with 9 degrees: p = 0.0001


def test_without_a_target_every_architecture_comes():
    strategy = search()
    assert len({strategy.ask().choices for _ in range(400)}) == SPACE.size == 27


def test_it_gives_up_after_its_draws_and_not_before():
    strategy, asked = search(draws=50), []
    strategy.uniform.is_feasible = lambda a: asked.append(a) is not None
    with pytest.raises(InfeasibleTargetError, match="50 random architectures"):
        strategy.ask()
    assert len(asked) == 50
    patient = search(draws=5000)
    patient.uniform.is_feasible = lambda a: a.choices == (2, 1, 0)
    assert patient.ask().choices == (2, 1, 0)


def tell(strategy, scores):
    for n, score in enumerate(scores):
        strategy.tell(Evaluation(SPACE.architecture(np.unravel_index(n, (3, 3, 3))), score, 1e-3))


@pytest.mark.parametrize(
    "scores, best",
    [([1.0, 3.0, 2.0], 1), ([None, -5.0], 1), ([-5.0, None], 0), ([2.0, 2.0], 0), ([None, None], 0), ([0.0, -1.0, None], 0)],
)
def test_best_is_the_highest_score_and_no_score_is_the_worst(scores, best):
    strategy = search()
    tell(strategy, scores)
    assert strategy.best() == best


def test_best_of_nothing_is_an_error():
    with pytest.raises(RequestError, match="no result"):
        search().best()


def test_state_holds_the_results():
    one, two = search(), search(9)
    tell(one, [1.0, None, 7.0])
    two.restore(one.state())
    assert two.results.all == one.results.all and two.best() == 2
    two.tell(Evaluation(SPACE.architecture([2, 2, 2]), 9.0, 2e-3))
    assert len(one.results) == 3 and two.results[3] == Result((2, 2, 2), 9.0, 2e-3)


def test_the_seed_fixes_the_proposals():
    one, same, other = search(1), search(1), search(2)
    drawn = [[strategy.ask().choices for _ in range(10)] for strategy in (one, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_failed_candidate_is_never_the_best_and_is_remembered():
    one, two = search(), search(1)
    for n, (score, failed) in enumerate([(None, True), (None, False), (-3.0, False), (None, True)]):
        one.tell(Evaluation(SPACE.architecture([n % 3] * 3), score, 1e-3, failed=failed))
    two.restore(one.state())
    assert one.best() == two.best() == 2 and two.results.trained() == [1, 2]
    for strategy in (one, two):
        assert [strategy.results[n].failed for n in range(4)] == [True, False, False, True]
    old = {"results": [[[0, 0, 0], 1.0, 1e-3]]}  # saved before failures were recorded
    two.restore(old)
    assert two.best() == 0


def test_of_failures_alone_there_is_no_best():
    strategy = search()
    strategy.tell(Evaluation(SPACE.architecture([0, 0, 0]), None, 1e-3, failed=True))
    with pytest.raises(RequestError, match="no result yet of a candidate that could be trained"):
        strategy.best()


@pytest.mark.parametrize("row", [[[0, 0, 0], "high", 1e-3], [["conv_k3"], 1.0, 1e-3]])
def test_a_saved_result_of_another_form_is_refused(row):
    with pytest.raises(RunFolderError, match="the saved state"):
        search().restore({"results": [row]})
