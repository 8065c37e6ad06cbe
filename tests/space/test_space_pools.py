"""Spaces with fewer candidates: the same networks, costs and targets as the whole space's, and fronts against a plain loop."""

import itertools

import numpy as np
import pytest
from graph_space import graph_space
from small_space import small_space

from cosearch.space.derivation.derive import Limit, discretise
from cosearch.space.derivation.pools import Pools, fronts
from cosearch.space.factors import Factor
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.testing.conformance import seeded
from latency_tables.errors import ShapeError

CHAIN = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=3)
MACRO = macro_space(
    MacroConfig((1,), ("k3s1", "k3s2"), (4, 6), (2,), ((4, 8),), ("none", "conv_k3", "residual_k3"), ("pooled", "flat"), (0, 8)),
    (12, 12, 3),
    4,
)
GRAPH = graph_space()
SPACES = {
    "chain": Pools(CHAIN, ((0, 2), (3,), (1, 2, 3))),
    "macro": Pools(MACRO, ((0, 1), (1,), (0, 1), (2, 0), (1,), (0, 1))),
    "graph": Pools(GRAPH, ((1, 2), (0, 3), (0, 1, 2), (0, 2))),
    "graph, held": Pools(GRAPH, ((0, 1, 2), (3,), (0,), (1,))),
}


def every(space):
    """All architectures, by trying all choices."""
    found = []
    for choices in itertools.product(*(range(len(point.candidates)) for point in space.points)):
        try:
            found.append(space.architecture(choices))
        except ShapeError:
            continue
    return found


@pytest.mark.parametrize("name", SPACES)
def test_its_architectures_are_those_of_the_whole_space_that_use_the_kept_candidates(name):
    pools = SPACES[name]
    found = every(pools.smaller)
    expected = [a for a in every(pools.space) if all(c in kept for c, kept in zip(a.choices, pools.kept))]
    assert {pools.whole(one).choices for one in found} == {one.choices for one in expected} and len(found) == len(expected) > 1
    assert pools.smaller.size == len(found)
    for one in found:
        assert one.ops() == pools.whole(one).ops() and one.wiring() == pools.whole(one).wiring()
        assert one.choice_names == pools.whole(one).choice_names
    drawn = {pools.smaller.sample(generator).choices for generator in [seeded(0)] for _ in range(300)}
    assert drawn <= {one.choices for one in found}


@pytest.mark.parametrize("name", SPACES)
def test_a_bound_is_the_same_bound(name):
    pools, rng = SPACES[name], np.random.default_rng(1)
    sizes = [len(point.candidates) for point in pools.space.points]
    costs = [rng.random(size).tolist() for size in sizes]
    together = Factor((0, len(sizes) - 1), (sizes[0], sizes[-1]), tuple(rng.random(sizes[0] * sizes[-1]).tolist()))
    limit = Limit(costs, 0.25, 2.0, (together,))
    for one in every(pools.smaller):
        assert pools.limit(limit).total(one.choices) == pytest.approx(limit.total(pools.whole(one).choices))
    assert pools.limit(limit).target == 2.0


def test_the_best_of_the_smaller_space_is_the_best_of_what_is_left():
    pools, rng = SPACES["chain"], np.random.default_rng(2)
    scores, costs = ([rng.random(4).tolist() for _ in range(3)] for _ in range(2))
    limit = Limit(costs, 0.0, 1.4)
    inside = [[row[c] for c in kept] for row, kept in zip(scores, pools.kept)]
    found = pools.whole(discretise(pools.smaller, inside, pools.limit(limit)))
    left = [a for a in every(CHAIN) if all(c in kept for c, kept in zip(a.choices, pools.kept)) and limit.meets(a.choices)]
    assert found == max(left, key=lambda a: sum(row[c] for row, c in zip(scores, a.choices)))


@pytest.mark.parametrize(
    "space, kept, text",
    [
        (CHAIN, ((0,), (1,)), "has 3 points, got pools for 2"),
        (CHAIN, ((0,), (), (1,)), "must name some of its 4 candidates"),
        (CHAIN, ((0,), (1, 1), (1,)), "must name some"),
        (CHAIN, ((0,), (4,), (1,)), "must name some"),
        (GRAPH, ((0,), (3,), (2,), (1,)), "exactly 2 of a group's points .* got 3"),
    ],
)
def test_what_is_no_smaller_space_is_refused(space, kept, text):
    with pytest.raises(ShapeError, match=text):
        _ = Pools(space, kept).smaller


def test_the_front_is_what_no_other_candidate_beats():
    macs = CHAIN.macs()
    rng = np.random.default_rng(4)
    for _ in range(20):
        costs = [rng.integers(0, 4, 4).astype(float).tolist() for _ in range(3)]
        for cost, size, kept in zip(costs, macs, fronts(CHAIN, costs), strict=True):
            beaten = {
                c
                for c in range(4)
                for o in range(4)
                if cost[o] <= cost[c] and size[o] >= size[c] and (cost[o] < cost[c] or size[o] > size[c])
            }
            assert set(kept) == set(range(4)) - beaten  # no two candidates have equal multiply-accumulates here
    assert len({tuple(row) for row in macs}) == 1 and len(set(macs[0])) == 4


def test_candidates_that_are_alike_leave_the_first_and_a_zero_stays():
    zeros = [[0.0] * len(point.candidates) for point in GRAPH.points]
    found = fronts(GRAPH, zeros)
    largest = [max(range(len(row)), key=row.__getitem__) for row in GRAPH.macs()]
    assert found == tuple(
        (c,) if point.zero is None else tuple(sorted({point.zero, c})) for point, c in zip(GRAPH.points, largest)
    )
    same = small_space("conv_k3", "conv_k5", cells=1)
    assert fronts(same, [[1.0, 1.0]]) == ((1,),)
