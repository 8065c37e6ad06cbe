"""The largest network, and the sizes of candidates where points decide blocks together, against every architecture of a space."""

import itertools

import numpy as np
import pytest
from graph_space import graph_space

from cosearch.space.derivation.derive import Limit
from cosearch.space.derivation.largest import largest, mean_macs, size_of
from cosearch.space.derivation.pools import fronts
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.strategies.gradient.s3nas import S3nasOptions, S3nasStrategy
from cosearch.testing.conformance import seeded

MACRO = macro_space(
    MacroConfig(
        resolutions=(1,),
        stems=("k3s1", "k3s2"),
        stem_widths=(8, 16),
        stage_widths=((16, 32),),
        stage_strides=(2,),
        hidden=(0, 128),
    ),
    (10, 10, 4),
    3,
)
EVERY = [MACRO.architecture(choices) for choices in itertools.product(*(range(len(point.candidates)) for point in MACRO.points))]
WORK = [sum(op.macs for op in one.ops()) for one in EVERY]


def conditional(values):
    """For each point the mean over every architecture that has a candidate, for each candidate, less that of the first."""
    rows = []
    for p, point in enumerate(MACRO.points):
        means = [np.mean([v for v, one in zip(values, EVERY) if one.choices[p] == c]) for c in range(len(point.candidates))]
        rows.append([mean - means[0] for mean in means])
    return rows


def test_sizes_are_the_mean_over_what_the_other_points_may_choose():
    assert not any(any(row) for row in MACRO.macs())  # every block is decided by several points: alone they say nothing
    for found, expected in zip(mean_macs(MACRO), conditional(WORK), strict=True):
        assert [value - found[0] for value in found] == pytest.approx(expected)
    graph = graph_space()
    assert mean_macs(graph) == graph.macs()  # each point decides its own blocks


def test_gates_are_ordered_by_size_where_points_decide_blocks_together():
    strategy = S3nasStrategy(MACRO, S3nasOptions(warmup=0.0), seeded(0))
    for order, expected in zip(strategy.arch.order, conditional(WORK), strict=True):
        assert [expected[c] for c in order] == sorted(expected)
    chosen = MACRO.architecture(strategy.arch.chosen())
    assert sum(op.macs for op in chosen.ops()) > 0.9 * max(WORK)


def test_fronts_where_points_decide_blocks_together():
    weights = [float(sum(op.params for op in one.ops())) for one in EVERY]
    costs, sizes = conditional(weights), conditional(WORK)
    for kept, cost, size in zip(fronts(MACRO, costs), costs, sizes, strict=True):
        every = range(len(cost))
        beaten = {
            c
            for c in every
            for o in every
            if (cost[o] <= cost[c] and size[o] > size[c]) or (cost[o] < cost[c] and size[o] >= size[c])
        }
        assert set(kept) == set(every) - beaten
    assert all(
        len(kept) == len(point.candidates)
        for kept, point in zip(fronts(MACRO, sizes), MACRO.points)
        if point.name != "stage1.cells"
    )


def test_the_largest_within_a_limit():
    costs = [sum(op.macs for op in one.ops()) / 1e4 + sum(op.params for op in one.ops()) / 1e3 for one in EVERY]
    value = lambda op: op.macs / 1e4 + op.params / 1e3  # noqa: E731
    limit = Limit(MACRO.rows(value), sum(value(op) for op in MACRO.fixed()), float(np.median(costs)), MACRO.factors(value))
    inside = [one for one, cost in zip(EVERY, costs) if cost <= limit.target]
    for by, size in (("macs", lambda op: op.macs), ("weights", lambda op: op.params)):
        assert sum(map(size, largest(MACRO, limit, by=by).ops())) == max(sum(map(size, one.ops())) for one in inside)
    both = largest(MACRO, limit, by="both")
    assert limit.meets(both.choices) and size_of(both) >= 0.9 * max(map(size_of, inside))
    assert size_of(both) >= max(size_of(largest(MACRO, limit, by=by)) for by in ("macs", "weights"))
