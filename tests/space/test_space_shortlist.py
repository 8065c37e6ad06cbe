"""The shortlist against all architectures of a small space, sorted by their score."""

import itertools

import pytest
import torch
from graph_space import graph_space

from cosearch.space.derivation.derive import Limit
from cosearch.space.derivation.largest import largest
from cosearch.space.derivation.shortlist import shortlist
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.testing.conformance import seeded
from latency_tables.errors import ShapeError

CHAIN = chain_space(
    ChainConfig(stage_channels=(8, 8), stage_repeats=(2, 1), stage_strides=(1, 1), candidates=("conv_k3", "conv_k5", "skip")),
    (10, 10, 4),
    3,
)


def problem(space, seed=0):
    """Scores and a limit that about half of the architectures meet."""
    generator = seeded(seed)
    scores = [torch.rand(len(point.candidates), generator=generator).tolist() for point in space.points]
    costs = [torch.rand(len(point.candidates), generator=generator).tolist() for point in space.points]
    return scores, Limit(costs, 1.0, 1.0 + 0.5 * len(costs))


def best_networks(space, scores, limit):
    """(score, architecture) of the best architecture of each feasible network, the best first."""
    best = {}
    for choices in itertools.product(*(range(len(row)) for row in scores)):
        try:
            architecture = space.architecture(choices)
        except ShapeError:  # a group keeps too many or too few
            continue
        if limit.meets(choices):
            score = sum(row[c] for row, c in zip(scores, choices))
            key = (tuple(architecture.ops()), architecture.wiring())
            best[key] = max(best.get(key, (-1.0, None)), (score, architecture), key=lambda pair: pair[0])
    return sorted(best.values(), key=lambda pair: -pair[0])


@pytest.mark.parametrize("space", [CHAIN, graph_space()], ids=["chain", "graph"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_different_networks_and_the_largest(space, seed):
    scores, limit = problem(space, seed)
    ranked = best_networks(space, scores, limit)
    found = shortlist(space, scores, limit, count=4)
    built = [(tuple(a.ops()), a.wiring()) for a in found]
    assert len(set(built)) == len(found) == min(4, len(ranked))
    assert all(limit.meets(a.choices) for a in found)
    macs = [sum(op.macs for op in a.ops()) for _, a in ranked]
    assert max(macs) in [sum(op.macs for op in a.ops()) for a in found]
    weights = [sum(op.params for op in a.ops()) for _, a in ranked]
    mixed = [m / max(macs) + w / max(weights) for m, w in zip(macs, weights)]
    size = max(m * w for m, w, value in zip(macs, weights, mixed) if value == max(mixed))
    assert max(sum(op.macs for op in a.ops()) * sum(op.params for op in a.ops()) for a in found) >= size
    total = [sum(row[c] for row, c in zip(scores, a.choices)) for a in found]
    assert total[:2] == pytest.approx([score for score, _ in ranked[:2]], abs=1e-5)  # the solver's gap
    two = shortlist(space, scores, limit, count=2)
    assert two[0] == found[0] and max(macs) in [sum(op.macs for op in a.ops()) for a in two]
    assert shortlist(space, scores, limit, count=1) == found[:1]


def test_where_the_free_rules_differ_both_are_in_the_last_places():
    space = macro_space(MacroConfig(), (10, 10, 4), 3)
    scores, _ = problem(space)
    small = Limit(space.rows(lambda op: 1.0 + op.macs / 1e4), 0.0, 40.0, space.factors(lambda op: 1.0 + op.macs / 1e4))
    macs, both = (largest(space, small, by=by) for by in ("macs", "both"))
    assert macs.ops() != both.ops()
    assert shortlist(space, scores, small, count=5)[3:] == [macs, both]
    assert shortlist(space, scores, small, count=2)[1:] == [macs]
    rule = [[float(c == chosen) for c in range(len(row))] for row, chosen in zip(scores, both.choices)]
    found = shortlist(space, rule, small, count=4)
    assert found[0] == both and found[3] == macs and len({tuple(a.ops()) for a in found}) == 4


def test_a_list_is_no_longer_than_there_are_networks():
    scores, _ = problem(CHAIN)
    one = Limit([[0.0 if c == 2 else 1.0 for c in range(3)]] * 3, 0.0, 1.0)  # at most one block that is not skip
    found = shortlist(CHAIN, scores, one, count=8)
    assert len(found) == len(best_networks(CHAIN, scores, one)) < 8


def test_without_a_limit_and_where_points_decide_together():
    space = macro_space(MacroConfig(), (10, 10, 4), 3)
    scores, _ = problem(space)
    found = shortlist(space, scores, count=3)
    assert len({tuple(a.ops()) for a in found}) == 3
    assert found[0].choices == tuple(max(range(len(row)), key=row.__getitem__) for row in scores)
    assert len(shortlist(CHAIN, problem(CHAIN)[0], count=3)) == 3
