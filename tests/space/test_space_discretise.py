"""Constrained discretisation against brute force: optimal, never over its target, and clear where nothing fits."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from graph_space import graph_space
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosearch.space.derivation.derive import Limit, discretise, within
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.space import ChoicePoint, SearchSpace
from latency_tables.errors import InfeasibleTargetError, NonFiniteError, ShapeError
from latency_tables.opspec import OpSpec

ROUNDING = 1e-12  # of a target: what a sum may be above it by rounding, see ``within``


def plain_space(sizes):
    """A space with that many candidates a point; its blocks do not matter here."""
    block = OpSpec("conv", 2, 3, 3, 2, kernel=1)
    points = tuple(ChoicePoint(f"p{i}", tuple(f"c{k}" for k in range(n)), (block,) * n) for i, n in enumerate(sizes))
    return SearchSpace("plain", {}, (3, 3, 2), 2, OpSpec("stem", 2, 3, 3, 2), points, OpSpec("head", 2, 3, 3, 3, hidden=4))


def enumerate_best(scores, costs, base, target):
    """Highest score among all architectures that meet the target, or None."""
    feasible = [
        sum(row[c] for row, c in zip(scores, choices))
        for choices in itertools.product(*(range(len(row)) for row in scores))
        if base + sum(row[c] for row, c in zip(costs, choices)) <= target * (1.0 + ROUNDING)
    ]
    return max(feasible, default=None)


@st.composite
def problems(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    scale = draw(st.sampled_from([1e-9, 1e-6, 1e-3, 1.0, 1e6]))  # nanoseconds to minutes: nothing may depend on the unit
    number = st.one_of(st.integers(0, 9).map(float), st.floats(0.0, 10.0, allow_subnormal=False))
    score = st.one_of(st.integers(-5, 5).map(float), st.floats(-50.0, 5.0, allow_subnormal=False))
    scores = [[draw(score) for _ in range(n)] for n in sizes]
    costs = [[scale * draw(number) for _ in range(n)] for n in sizes]
    base = scale * draw(number)
    choices = [draw(st.integers(0, n - 1)) for n in sizes]  # a target that this one meets exactly is the hardest
    exact = base + sum(row[c] for row, c in zip(costs, choices))
    target = draw(st.sampled_from([exact, exact * 1.1, exact * 0.9, base]))
    return sizes, scores, costs, base, target


@settings(max_examples=120, deadline=None)
@example(([1], [[0.0]], [[1e-21]], 1e-09, 1e-09))  # above the target by less than rounding: it is met
@example(([1, 2], [[0.0], [0.0, 1.0]], [[0.0], [0.0, 2.7e-152]], 1e-09, 1e-09))  # the same, beside one that is on the target
@given(problems())
def test_equals_enumeration(problem):
    sizes, scores, costs, base, target = problem
    space, wanted = plain_space(sizes), enumerate_best(scores, costs, base, target)
    if wanted is None:
        with pytest.raises(InfeasibleTargetError):
            discretise(space, scores, Limit(costs, base, target))
        return
    found = discretise(space, scores, Limit(costs, base, target))
    assert base + sum(row[c] for row, c in zip(costs, found.choices)) <= target * (1.0 + ROUNDING)
    spread = max(max(row) - min(row) for row in scores)
    assert sum(row[c] for row, c in zip(scores, found.choices)) >= wanted - 2e-6 * spread  # the solver's gap is 1e-6 of the range


def test_without_a_target_it_is_the_argmax_and_the_target_matters():
    space = plain_space([3, 3])
    scores, costs = [[0.0, 5.0, 1.0], [0.0, 5.0, 1.0]], [[1.0, 9.0, 2.0], [1.0, 9.0, 2.0]]
    assert discretise(space, scores).choices == (1, 1)
    assert discretise(space, scores, Limit(costs, 0.0, 18.0)).choices == (1, 1)
    assert discretise(space, scores, Limit(costs, 0.0, 17.0)).choices in {(1, 2), (2, 1)}
    assert discretise(space, scores, Limit(costs, 0.0, 10.0)).choices in {(1, 0), (0, 1)}
    assert discretise(space, scores, Limit(costs, 8.0, 10.0)).choices == (0, 0)


@settings(max_examples=60, deadline=None)
@given(problems(), st.data())
def test_two_limits_at_once_equal_enumeration(problem, data):
    sizes, scores, costs, base, target = problem
    other = [[data.draw(st.integers(0, 9).map(float)) for _ in range(n)] for n in sizes]
    bound = float(data.draw(st.integers(0, 9 * len(sizes))))
    both = [
        sum(row[c] for row, c in zip(scores, choices))
        for choices in itertools.product(*(range(n) for n in sizes))
        if base + sum(row[c] for row, c in zip(costs, choices)) <= target * (1.0 + ROUNDING)
        and sum(row[c] for row, c in zip(other, choices)) <= bound
    ]
    limits = Limit(costs, base, target), Limit(other, 0.0, bound)
    if not both:
        with pytest.raises(InfeasibleTargetError):
            discretise(plain_space(sizes), scores, *limits)
        return
    found = discretise(plain_space(sizes), scores, *limits)
    assert all(limit.total(found.choices) <= limit.target for limit in limits)
    spread = max(max(row) - min(row) for row in scores)
    assert sum(row[c] for row, c in zip(scores, found.choices)) >= max(both) - 2e-6 * spread


def test_a_cost_that_is_next_to_nothing_hides_no_better_architecture():
    scores = [[0.0], [0.0] * 3, [0.0, -1.0, 0.0, 0.0], [0.0] * 4]
    costs = [[0.0], [0.0, 5.960464477539063e-17, 0.0], [1e-9, 0.0, 2e-9, 2e-9], [0.0, 0.0, 5e-10, 0.0]]
    other = [[0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    found = discretise(plain_space([1, 3, 4, 4]), scores, Limit(costs, 0.0, 1e-9), Limit(other, 0.0, 1.0))
    assert found.choices[2] == 0 and found.choices[1] == 0


def test_limits_that_are_met_one_by_one_but_not_together_are_refused_clearly():
    apart = Limit([[0.0, 1.0]], 0.0, 0.5), Limit([[1.0, 0.0]], 0.0, 0.5)
    with pytest.raises(InfeasibleTargetError, match="together"):
        discretise(plain_space([2]), [[0.0, 0.0]], *apart)


def test_greedy_would_fail_here():
    # the most valuable single replacement spends the room that two others would use better
    scores, costs = [[0.0, 6.0], [0.0, 5.0], [0.0, 5.0]], [[0.0, 6.0], [0.0, 5.0], [0.0, 5.0]]
    assert discretise(plain_space([2, 2, 2]), scores, Limit(costs, 0.0, 10.0)).choices == (0, 1, 1)


def test_ties_and_all_equal_scores_meet_the_target():
    space = plain_space([3, 3])
    for scores in ([[0.0] * 3] * 2, [[-7.5] * 3] * 2):
        found = discretise(space, scores, Limit([[3.0, 1.0, 2.0]] * 2, 0.0, 3.0))
        assert sum((3.0, 1.0, 2.0)[c] for c in found.choices) <= 3.0


def test_log_probabilities_that_differ_by_little_still_decide():
    scores = [[-1.0, -1.0 + 1e-7], [-1.0, -1.0 - 1e-7]]  # smaller than the solver's absolute gap
    assert discretise(plain_space([2, 2]), scores, Limit([[1.0, 1.0]] * 2, 0.0, 2.0)).choices == (1, 0)


def test_large_space_is_solved_exactly():
    stream = np.random.default_rng(0)
    sizes = [9] * 12
    scores, costs = ([list(row) for row in stream.random((12, 9))] for _ in range(2))
    found = discretise(plain_space(sizes), scores, Limit(costs, 0.0, 3.0))
    # Lagrangian bound: for any price, the relaxed optimum is at least the constrained one
    bound = min(
        price * 3.0 + sum(max(s - price * c for s, c in zip(*rows)) for rows in zip(scores, costs))
        for price in np.linspace(0.0, 20.0, 2001)
    )
    value = sum(row[c] for row, c in zip(scores, found.choices))
    assert sum(row[c] for row, c in zip(costs, found.choices)) <= 3.0
    assert bound - 0.35 < value <= bound + 1e-9  # the gap is less than one replacement


def test_an_impossible_target_names_the_cheapest_and_a_figure_that_works():
    space = plain_space([2, 2])
    costs = [[3.123456789, 4.0], [2.0, 1.987654321]]
    with pytest.raises(InfeasibleTargetError, match="c0/c1") as caught:
        discretise(space, [[0.0, 1.0]] * 2, Limit(costs, 0.5, 1.0))
    figure = float(str(caught.value).split("Ask for ")[1].split()[0])
    assert 5.611111 <= figure < 5.62
    assert discretise(space, [[0.0, 1.0]] * 2, Limit(costs, 0.5, figure)).choices == (0, 1)


@pytest.mark.parametrize(
    "scores, costs, error",
    [
        ([[0.0, float("nan")], [0.0, 0.0]], [[1.0, 1.0]] * 2, NonFiniteError),
        ([[0.0, 0.0]] * 2, [[1.0, float("inf")]] * 2, NonFiniteError),
        ([[0.0, 0.0]], [[1.0, 1.0]] * 2, ShapeError),
        ([[0.0, 0.0]] * 2, [[1.0]] * 2, ShapeError),
    ],
)
def test_bad_numbers_are_refused(scores, costs, error):
    with pytest.raises(error):
        discretise(plain_space([2, 2]), scores, Limit(costs, 0.0, 10.0))


def test_a_solver_that_gives_up_is_an_error_and_never_the_cheapest(monkeypatch):
    space = chain_space(ChainConfig(stage_channels=(16,), stage_repeats=(2,), stage_strides=(1,)), (64, 64, 3), 4)
    rows = [[float(k) for k in range(len(point.candidates))] for point in space.points]
    assert discretise(space, rows, Limit(rows, 0.0, 4.0)) is not None
    monkeypatch.setattr("cosearch.space.derivation.derive.MAX_CUTS", 0)
    with pytest.raises(InfeasibleTargetError, match="attempts"):
        discretise(space, rows, Limit(rows, 0.0, 4.0))


def test_messages_say_what_was_asked_what_is_there_and_what_to_ask_for(monkeypatch):
    space, costs = plain_space([2, 2]), [[3.0, 4.0], [2.0, 1.5]]
    name = repr(space.name)

    def message(scores, *limits, error=InfeasibleTargetError):
        with pytest.raises(error) as caught:
            discretise(space, scores, *limits)
        return str(caught.value)

    zeros = [[0.0, 0.0]] * 2
    assert message(zeros, Limit(costs, 0.5, 1.0)) == (
        f"no architecture of space {name} meets the target 1: the cheapest, c0/c1, costs 5. "
        "Ask for 5.00005 or more, or for a smaller space"
    )
    assert message(zeros, Limit([[0.0, 1.0], [0.0, 0.0]], 0.0, 0.5), Limit([[1.0, 0.0], [0.0, 0.0]], 0.0, 0.5)) == (
        f"each of the 2 targets is met by some architecture of space {name}, but none was found that meets them together; "
        "ask for more of one of them"
    )
    assert message([[0.0, 0.0]], error=ShapeError) == "scores need one entry a candidate of each of the 2 points, got [2]"
    short = Limit([[0.0], [0.0, 0.0]], 0.0, 1.0)
    assert message(zeros, short, error=ShapeError) == "costs need one entry a candidate of each of the 2 points, got [1, 2]"
    lost = float("nan")
    assert message([[0.0, lost], [0.0, 0.0]], error=NonFiniteError) == "scores of the architecture hold NaN or infinity"
    unknown = Limit([[0.0, lost], [0.0, 0.0]], 0.0, 1.0)
    assert message(zeros, unknown, error=NonFiniteError) == "costs of the architecture hold NaN or infinity"
    monkeypatch.setattr("cosearch.space.derivation.derive.MAX_CUTS", 0)
    assert message(zeros, Limit(costs, 0.5, 6.0)) == (
        f"the solver found no architecture of space {name} within the target 6 in 0 attempts, although c0/c1 meets it with 5: "
        "too many lie a rounding above it. Ask for a slightly different target"
    )


def test_a_cost_is_within_its_bound_up_to_the_rounding_of_its_sum():
    assert within(0.0, 0.0) and within(2.0, 2.0) and within(2.0 * (1 + 5e-13), 2.0)
    assert not within(2.0 * (1 + 3e-12), 2.0)


@pytest.mark.parametrize("keep", [1, 2])
def test_groups_keep_their_number_of_points_as_enumeration_does(keep):
    space, stream = graph_space(copies=1, keep=keep), np.random.default_rng(keep)
    sizes = [len(point.candidates) for point in space.points]
    for share in (0.4, 0.7, 1.0):
        scores, costs = ([list(stream.random(size)) for size in sizes] for _ in range(2))
        legal = [
            choices
            for choices in itertools.product(*map(range, sizes))
            if sum(c != 0 for c in choices[1:]) == keep  # the zero of each of the three points of the group is its first
        ]
        cost = {choices: 0.25 + sum(row[c] for row, c in zip(costs, choices)) for choices in legal}
        target = min(cost.values()) + share * (max(cost.values()) - min(cost.values()))
        best = max((c for c in legal if cost[c] <= target), key=lambda c: sum(row[k] for row, k in zip(scores, c)))
        assert discretise(space, scores, Limit(costs, 0.25, target)).choices == best


def test_scores_and_costs_have_no_unit():
    """The same problem in units from far below to far above 1 has the same solution."""
    scores, costs = [[0.0, 6.0], [0.0, 5.0], [0.0, 5.0]], [[0.0, 6.0], [0.0, 5.0], [0.0, 5.0]]
    for unit in (1e-12, 1e-6, 1e6, 1e12):
        scaled = [[unit * value for value in row] for row in costs]
        for points in (scores, [[unit * value - unit for value in row] for row in scores]):
            assert discretise(plain_space([2, 2, 2]), points, Limit(scaled, unit, 11.0 * unit)).choices == (0, 1, 1)


def solver_that_overshoots(monkeypatch, best_first):
    """A solver that proposes these solutions in turn whatever it is asked; returns the rows that it was given each time."""
    seen = []

    def milp(goal, *, constraints, **options):
        seen.append(constraints[1:])
        choices = best_first[len(seen) - 1]
        return SimpleNamespace(x=None if choices is None else np.concatenate([np.eye(2)[c] for c in choices]))

    monkeypatch.setattr("cosearch.space.derivation.derive.milp", milp)
    return seen


def test_a_solution_above_the_target_is_excluded_and_the_next_one_taken(monkeypatch):
    space, limit = plain_space([2, 2]), Limit([[1.0, 2.0]] * 2, 0.0, 3.0)
    seen = solver_that_overshoots(monkeypatch, [(1, 1), (0, 1)])
    assert discretise(space, [[0.0, 1.0]] * 2, limit).choices == (0, 1)
    (_, cut) = seen[1]
    for choices in itertools.product((0, 1), repeat=2):
        value = float((cut.A @ np.concatenate([np.eye(2)[c] for c in choices])).item())
        assert (cut.lb.item() <= value <= cut.ub.item()) == (choices != (1, 1))
    solver_that_overshoots(monkeypatch, [None])
    with pytest.raises(InfeasibleTargetError, match="in 100 attempts"):
        discretise(space, [[0.0, 1.0]] * 2, limit)
    seen = solver_that_overshoots(monkeypatch, [(1, 1)] * 101)
    with pytest.raises(InfeasibleTargetError, match="in 100 attempts"):
        discretise(space, [[0.0, 1.0]] * 2, limit)
    assert len(seen) == 100
