"""Evolution and NSGA-II: against their definitions by brute force, on a toy whose best is known, and option by option."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.strategies.base import STRATEGIES, Evaluation
from cosearch.strategies.proposal.evolution import Evolution, EvolutionOptions, evolution_options
from cosearch.strategies.proposal.nsga2 import Nsga2, Nsga2Options, crowding, fronts, nsga2_options, ranked
from cosearch.strategies.proposal.random_search import RandomOptions, RandomSearch
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError, UnknownNameError

SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=5)  # 1024 architectures
BEST = (1, 3, 0, 2, 1)


def value(architecture):
    """Points that agree with the best architecture."""
    return float(sum(a == b for a, b in zip(architecture.choices, BEST)))


def run(strategy, asks, score=value, cost=lambda a: 1e-3):
    for _ in range(asks):
        architecture = strategy.ask()
        strategy.tell(Evaluation(architecture, score(architecture), cost(architecture)))
    return [(result.choices, result.score, result.cost_s) for result in strategy.results.all]


def evolution(seed=0, *, feasible=lambda a: True, **options):
    return Evolution(SPACE, EvolutionOptions(**{"population": 8, "tournament": 3, **options}), seeded(seed), feasible)


def nsga2(seed=0, *, feasible=lambda a: True, **options):
    return Nsga2(SPACE, Nsga2Options(**{"population": 8, **options}), seeded(seed), feasible)


@pytest.mark.parametrize("make", [evolution, nsga2])
def test_both_beat_random_search_at_equal_evaluations(make):
    found = [max(score for _, score, _ in run(make(seed), 60)) for seed in range(12)]
    drawn = [max(score for _, score, _ in run(RandomSearch(SPACE, RandomOptions(), seeded(seed)), 60)) for seed in range(12)]
    assert np.mean(found) > np.mean(drawn) + 0.5, (found, drawn)


def test_a_child_differs_from_a_living_member_in_one_choice_and_the_oldest_are_no_parents():
    strategy = evolution(population=4, tournament=2)
    results = run(strategy, 40)
    for index in range(4, 40):
        living = [choices for choices, _, _ in results[index - 4 : index]]
        assert 1 in [sum(a != b for a, b in zip(results[index][0], other)) for other in living]
    assert len({choices for choices, _, _ in results[:4]}) > 1  # the first ones are drawn, not bred


def test_parents_are_the_best_of_a_tournament_with_replacement():
    """P(the member of rank r of P wins) = ((P - r) ^ S - (P - r - 1) ^ S) / P ^ S, r = 0 the best."""
    strategy = evolution(population=4, tournament=3)
    for n, score in enumerate([9.0, 2.0, None, 5.0, 3.0]):  # the first one is best, and dead
        strategy.tell(Evaluation(SPACE.architecture([n % 4] * 5), score, 1e-3))
    ranks = [3, 4, 1, 2]  # indices from the best to the worst living one
    counts = Counter(strategy.parent() for _ in range(6400))
    wanted = [6400 * ((4 - r) ** 3 - (3 - r) ** 3) / 4**3 for r in range(4)]
    assert sum((counts[i] - n) ** 2 / n for i, n in zip(ranks, wanted)) < 21.1  # chi-square, 3 degrees: p = 0.0001


def test_mutations_are_uniform_among_the_neighbours_that_meet_the_target():
    strategy = evolution(feasible=lambda a: a.choices[0] == 1)
    counts = Counter(strategy.child_of(SPACE.architecture(BEST)).choices for _ in range(2400))
    assert len(counts) == 12 and all(choices[0] == 1 for choices in counts)
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 37.4  # 11 degrees: p = 0.0001


def test_a_parent_without_feasible_neighbours_is_replaced_by_a_draw():
    corners = [SPACE.architecture([c] * 5) for c in range(4)]  # no two of them are neighbours
    strategy = evolution(feasible=lambda a: a in corners)
    assert {strategy.child_of(corners[0]).choices for _ in range(40)} == {a.choices for a in corners}


def test_sizes_follow_the_number_of_candidates_unless_they_are_given():
    sizes = [(n, evolution_options(StrategyConfig(candidates=n))) for n in (1, 2, 4, 7, 12, 100)]
    assert [(n, o.population, o.tournament) for n, o in sizes] == [
        (1, 1, 2),
        (2, 1, 2),
        (4, 2, 2),
        (7, 4, 2),
        (12, 6, 2),
        (100, 8, 2),
    ]
    given = evolution_options(StrategyConfig(candidates=21, values={"population": 20, "tournament": 5, "draws": 9}))
    assert (given.population, given.tournament, given.draws) == (20, 5, 9)
    assert evolution_options(StrategyConfig(values={"population": 12})).tournament == 3
    assert nsga2_options(StrategyConfig(candidates=12)).population == 6
    assert nsga2_options(StrategyConfig(values={"population": 3, "crossover": 0.5})) == Nsga2Options(population=3, crossover=0.5)


@pytest.mark.parametrize(
    "values, error, text",
    [
        ({"populaton": 3}, UnknownNameError, "strategy.values.populaton'. Did you mean 'strategy.values.population'"),
        ({"population": -1}, ConfigError, "strategy.values.population: .*greater than or equal to 0, got -1"),
        ({"tournament": "many"}, ConfigError, "strategy.values.tournament"),
    ],
)
def test_a_wrong_option_of_its_own_says_what_would_be_right(values, error, text):
    with pytest.raises(error, match=text):
        evolution_options(StrategyConfig(name="evolution", values=values))


@pytest.mark.parametrize("key, other", [("population", 2), ("tournament", 1)])
def test_each_option_of_the_evolution_changes_the_search(key, other):
    assert run(evolution(), 20) != run(evolution(**{key: other}), 20)


@pytest.mark.parametrize("key, other", [("population", 3), ("crossover", 0.0)])
def test_each_option_of_nsga2_changes_the_search(key, other):
    assert run(nsga2(), 30) != run(nsga2(**{key: other}), 30)


def clouds():
    rng = np.random.default_rng(0)
    yield [(0.0, 0.0)]
    yield [(1.0, 1.0)] * 4
    for n in (2, 5, 12, 30):
        yield [tuple(row) for row in rng.normal(size=(n, 2))]
        yield [tuple(row) for row in rng.integers(0, 4, size=(n, 2)).astype(float)]  # many ties
        yield [tuple(row) for row in rng.integers(0, 3, size=(n, 3)).astype(float)]


@pytest.mark.parametrize("points", list(clouds()), ids=len)
def test_fronts_are_what_is_left_when_the_ones_before_are_peeled_off(points):
    left, peeled = set(range(len(points))), []
    while left:
        best = {
            i
            for i in left
            if not any(
                all(x <= y for x, y in zip(points[j], points[i])) and any(x < y for x, y in zip(points[j], points[i]))
                for j in left
            )
        }
        peeled.append(sorted(best))
        left -= best
    assert fronts(points) == peeled


def test_crowding_of_a_hand_made_front():
    # sorted by the first objective: 0, 1, 4, 10; the second falls 8, 5, 1, 0
    points = [(4.0, 1.0), (0.0, 8.0), (10.0, 0.0), (1.0, 5.0)]
    inf = float("inf")
    assert crowding(points) == pytest.approx([(10 - 1) / 10 + (5 - 0) / 8, inf, inf, (4 - 0) / 10 + (8 - 1) / 8])
    assert crowding([(1.0, 2.0)]) == [0.0] and crowding([(1.0, 2.0), (1.0, 3.0)]) == [inf, inf]


@pytest.mark.parametrize("points", [p for p in clouds() if len(p[0]) == 2], ids=len)
def test_crowding_by_brute_force(points):
    """For distinct values: the gap between the nearest values on both sides, over the range."""
    points = [(x + 1e-6 * i, y - 1e-6 * i * i) for i, (x, y) in enumerate(points)]
    for point, distance in zip(points, crowding(points)):
        expected = 0.0
        for m in range(2 if len(points) > 1 else 0):
            values = [p[m] for p in points]
            above, below = [v for v in values if v > point[m]], [v for v in values if v < point[m]]
            expected += (min(above) - max(below)) / (max(values) - min(values)) if above and below else float("inf")
        assert distance == pytest.approx(expected)


def test_the_order_is_by_front_then_by_distance():
    points = [(0.0, 4.0), (2.0, 2.1), (1.9, 2.2), (4.0, 0.0), (5.0, 5.0)]
    assert ranked(points)[:2] == [0, 3] and ranked(points)[-1] == 4


def latency(architecture):
    """Costly where it agrees with the best: a trade-off on which every number of agreements is Pareto-optimal."""
    return 1e-3 * (1 + value(architecture)) + 1e-5 * sum(a == 0 for a in architecture.choices)


def test_nsga2_keeps_the_trade_off_where_evolution_keeps_the_best_score():
    strategy, other = nsga2(3), evolution(3)
    results = run(strategy, 96, cost=latency)
    kept = {results[i][1] for i in strategy.parents}
    living = {score for _, score, _ in run(other, 96, cost=latency)[-8:]}
    assert len(kept) >= 5 and min(kept) == 0.0, kept  # nearly all of the six numbers of agreements, the fastest among them
    assert len(living) <= 3 and min(living) >= 2.0, living


def test_the_best_are_never_lost():
    strategy, seen = nsga2(1), []
    for _ in range(10):
        run(strategy, 8, cost=latency)
        seen.append(max(strategy.results[i].score for i in strategy.parents))
    assert seen == sorted(seen) and seen[-1] == max(result.score for result in strategy.results.all)


def test_a_candidate_without_a_score_is_dominated_where_it_is_no_faster():
    strategy = nsga2(population=3)
    for choices, score, cost in (([0] * 5, None, 1e-3), ([1] * 5, -4.0, 1e-3), ([2] * 5, 3.0, 2e-3)):
        strategy.tell(Evaluation(SPACE.architecture(choices), score, cost))
    assert strategy.parents[-1] == 0
    assert fronts(strategy.objectives([0, 1, 2])) == [[1, 2], [0]]


def test_no_proposal_comes_twice_while_there_are_others():
    results = run(nsga2(), 200, cost=latency)
    assert len({choices for choices, _, _ in results}) >= 195  # the first generation is drawn with replacement
    small = small_space("conv_k3", "skip", cells=2)
    strategy = Nsga2(small, Nsga2Options(population=2), seeded(0))
    assert {choices for choices, _, _ in run(strategy, 12, score=lambda a: 0.0)} == set(itertools.product(range(2), repeat=2))


def test_a_failed_candidate_is_no_parent_of_nsga2_however_fast_it_is():
    strategy = nsga2(population=3)
    for choices, score, cost, failed in (([0] * 5, None, 1e-9, True), ([1] * 5, -4.0, 1e-3, False), ([2] * 5, 3.0, 2e-3, False)):
        strategy.tell(Evaluation(SPACE.architecture(choices), score, cost, failed=failed))
    assert sorted(strategy.parents) == [1, 2]


def test_of_a_tournament_without_scores_one_that_did_not_fail_is_the_parent():
    strategy = evolution(population=2, tournament=2)
    for failed, architecture in ((True, strategy.ask()), (False, strategy.ask())):
        strategy.tell(Evaluation(architecture, None, 1e-3, failed=failed))
    parents = [strategy.parent() for _ in range(200)]
    assert 20 < parents.count(0) < 80  # 50 of 200: both members of the tournament are the one that failed


@pytest.mark.parametrize(
    "name, candidates, values, text",
    [
        ("evolution", 6, {"population": 6, "tournament": 2}, "tournament=2 has no effect with strategy.candidates=6"),
        ("nsga2", 6, {"population": 6, "crossover": 0.5}, "crossover=0.5 has no effect with strategy.candidates=6"),
        ("predictor", 6, {"initial": 6, "pool": 9}, "pool=9 has no effect with strategy.candidates=6"),
        ("predictor", 2, {"pool": 9}, "pool=9 has no effect with strategy.candidates=2"),
        ("deephyper", 7, {"mode": "a2c"}, "mode=a2c has no effect with strategy.candidates=7"),
        ("catch", 4, {"meta_steps": 0, "tasks": "mine.json"}, "tasks=mine.json has no effect with strategy.values.meta_steps=0"),
        ("ms-darts", 4, {"radius": 0, "bandwidth": 2.0}, "bandwidth=2.0 has no effect with strategy.values.radius=0"),
        ("radars", 4, {"memory_share": 1.0, "agent_lr": 5.0}, "agent_lr=5.0 has no effect with strategy.values.memory_share=1"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(name, candidates, values, text):
    load_builtins()
    make = STRATEGIES.get(name).options
    with pytest.raises(ConfigError, match=re.escape(text)):
        make(StrategyConfig(name=name, candidates=candidates, values=values))
    beside = ("radius", "memory_share", "meta_steps")
    make(StrategyConfig(name=name, candidates=21, values={key: value for key, value in values.items() if key not in beside}))


def test_of_few_candidates_the_regression_has_a_say():
    load_builtins()
    make = STRATEGIES.get("predictor").options
    found = [make(StrategyConfig(name="predictor", candidates=n)).initial for n in (2, 4, 7, 8, 20)]
    assert found == [2, 2, 3, 4, 4]
    assert make(StrategyConfig(name="predictor", candidates=4, values={"initial": 4})).initial == 4
