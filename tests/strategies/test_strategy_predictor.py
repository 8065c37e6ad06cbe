"""Predictor-guided search: on sums over the choices a regression by least squares, written here, names the next proposal."""

import numpy as np
import pytest
from additive_task import SPACE, TRUTH, run

from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.strategies.base import Evaluation, Feasible
from cosearch.strategies.proposal.largest import Largest, LargestOptions
from cosearch.strategies.proposal.predictor import PredictorOptions, PredictorSearch
from cosearch.strategies.proposal.random_search import RandomOptions, RandomSearch
from cosearch.testing.conformance import seeded
from latency_tables.errors import InfeasibleTargetError, RequestError


def predictor(seed=0, feasible=lambda a: True, **options):
    return PredictorSearch(SPACE, PredictorOptions(**options), seeded(seed), feasible)


def test_with_all_of_the_space_in_its_pool_it_proposes_the_best_of_an_independent_fit():
    strategy = predictor(initial=60, pool=12_000)  # 12,000 draws leave out one of 1,024 with a probability below 1 %
    asked = run(strategy, 60)
    x = np.array([np.eye(4)[list(choices)].ravel() for choices in asked])
    theta = np.linalg.lstsq(np.hstack([x, np.ones((60, 1))]), [TRUTH[choices] for choices in asked], rcond=None)[0]
    sums = {choices: float(np.eye(4)[list(choices)].ravel() @ theta[:-1]) for choices in TRUTH if choices not in set(asked)}
    assert strategy.ask().choices == max(sums, key=lambda choices: sums[choices])


def test_the_first_are_drawn_as_random_search_draws_and_nothing_is_proposed_twice_after_them():
    asked = run(predictor(initial=7), 40)
    assert asked[:7] == run(RandomSearch(SPACE, RandomOptions(), seeded(0)), 7)
    assert len(set(asked)) >= 40 - 1


def test_the_first_may_each_be_the_largest_of_some_draws():
    drawn = run(RandomSearch(SPACE, RandomOptions(), seeded(0)), 12)
    ops = {choices: SPACE.architecture(choices).ops() for choices in drawn}
    size = {choices: sum(op.macs for op in built) * sum(op.params for op in built) for choices, built in ops.items()}
    expected = [max(drawn[begin : begin + 3], key=size.__getitem__) for begin in range(0, 12, 3)]
    assert run(predictor(initial=4, largest_of=3), 4) == expected != run(predictor(initial=4), 4)
    flat = run(predictor(initial=2, largest_of=3), 4, score=lambda a: 1.0)  # scores that tell nothing: uniform draws after them
    assert flat == [*expected[:2], *drawn[6:8]]


def test_the_networks_of_two_free_rules_may_come_first():
    plan = make_plan(resolve_task(overrides=("env.name=procgen:starpilot", "device=x86-epyc", "space.name=macro")))
    space, feasible = plan.space, Feasible(tuple(plan.constraints))

    def first(**options):
        strategy = PredictorSearch(space, PredictorOptions(initial=4, **options), seeded(0), feasible)
        return [strategy.ask().choices for _ in range(4)]

    rules = [Largest(space, LargestOptions(by), seeded(0), feasible).ask().choices for by in ("macs", "both")]
    drawn = first()
    assert rules[0] != rules[1] and first(rules=True) == [*rules, *drawn[:2]]


def test_where_both_rules_name_one_network_it_is_proposed_once():
    drawn = run(predictor(initial=4), 4)
    (rule,) = {Largest(SPACE, LargestOptions(by), seeded(0), Feasible()).ask().choices for by in ("macs", "both")}
    assert run(predictor(feasible=Feasible(), initial=4, rules=True), 4) == [rule, *drawn[:3]]


def test_it_beats_random_search_at_equal_evaluations():
    ours = [max(TRUTH[c] for c in run(predictor(seed), 30)) for seed in range(10)]
    drawn = [max(TRUTH[c] for c in run(RandomSearch(SPACE, RandomOptions(), seeded(seed)), 30)) for seed in range(10)]
    best = max(TRUTH.values())
    assert best - np.mean(ours) < 0.3 * (best - np.mean(drawn))


def test_neighbours_of_the_best_are_in_the_pool():
    with_neighbours = run(predictor(pool=1, initial=4), 30)
    assert max(TRUTH[c] for c in with_neighbours) > np.quantile(list(TRUTH.values()), 0.99)


def test_only_what_meets_the_target_is_proposed():
    asked = run(predictor(feasible=lambda a: a.choices[0] == 2), 30)
    assert {choices[0] for choices in asked} == {2}
    with pytest.raises(InfeasibleTargetError):
        predictor(feasible=lambda a: False, draws=10).ask()


def test_scores_that_are_equal_or_missing_leave_uniform_draws():
    flat = predictor()
    assert len(run(flat, 12, score=lambda a: 1.0)) == 12
    none = predictor()
    for _ in range(8):
        none.tell(Evaluation(none.ask(), None, 1e-3))
    assert none.best() == 0


def test_an_exhausted_pool_is_drawn_uniformly():
    strategy = predictor(feasible=lambda a: sum(a.choices) == 0, pool=3)
    assert set(run(strategy, 8)) == {(0, 0, 0, 0, 0)}


@pytest.mark.parametrize("values", [{"initial": 1}, {"pool": 0}, {"largest_of": 0}, {"kernel": 1}])
def test_wrong_options_are_refused(values):
    from cosearch.config.search import StrategyConfig
    from cosearch.strategies.base import STRATEGIES

    with pytest.raises(RequestError):
        STRATEGIES.get("predictor").options(StrategyConfig(name="predictor", values=values))
