"""Counts of feasible architectures and of different networks, against enumeration that shares nothing with them."""

import itertools
import random

import pytest
from graph_space import graph_space
from small_space import small_space

from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.space.derivation.counting import FEW_NETWORKS, Counts, count_networks
from cosearch.space.derivation.derive import Limit
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.kinds.hand_made import HAND_MADE, HandMadeConfig, hand_made_space
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from latency_tables.devices import find_table
from latency_tables.errors import ShapeError

CHAIN = ("conv_k3", "conv_k5", "mbconv_k3_e1", "skip")


def every_architecture(space):
    for choices in itertools.product(*(range(len(point.candidates)) for point in space.points)):
        try:
            yield space.architecture(choices)
        except ShapeError:  # a group keeps another number of points
            continue


def by_enumeration(space, limits):
    fit = [
        found
        for found in every_architecture(space)
        if all(
            limit.base + sum(limit.costs[p][c] for p, c in enumerate(found.choices)) <= limit.target * (1 + 1e-12)
            for limit in limits
        )
    ]
    return len(fit), len({(tuple(found.ops()), found.wiring()) for found in fit})


def costs_by_block(space, seed):
    """Random costs that depend on the block alone, as a table's do."""
    draw, known = random.Random(seed), {None: 0.0}
    return [
        [
            sum(known.setdefault(node.specs[c], draw.uniform(0.1, 1.0)) for node in space.nodes if node.points == (p,))
            for c in range(len(point.candidates))
        ]
        for p, point in enumerate(space.points)
    ]


SPACES = {
    "one stage": small_space(*CHAIN, cells=4),
    "no identity": small_space("conv_k3", "conv_k5", cells=3),
    "stages": chain_space(
        ChainConfig(
            stem_channels=4,
            stem_kernel=3,
            stem_stride=1,
            stage_channels=(4, 8),
            stage_repeats=(2, 3),
            stage_strides=(1, 2),
            candidates=CHAIN,
        ),
        (12, 12, 3),
        4,
    ),
    "a narrow stage first": chain_space(
        ChainConfig(
            stem_channels=4,
            stem_kernel=3,
            stem_stride=1,
            stage_channels=(8, 8),
            stage_repeats=(1, 3),
            stage_strides=(1, 1),
            candidates=CHAIN,
        ),
        (12, 12, 3),
        4,
    ),
    "layers": mlp_space(MlpConfig(stage_repeats=(3,)), (5,), 2),
    "branches": graph_space(),
    "branches that keep one": graph_space(copies=1, keep=1),
    **{name: hand_made_space(made, HandMadeConfig(), (min(made.largest, 36),) * 2 + (3,), 4) for name, made in HAND_MADE.items()},
}


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 2.0])
def test_counts_equal_enumeration(name, share):
    space = SPACES[name]
    costs = costs_by_block(space, seed=len(name))
    most = sum(max(row) for row in costs)
    limits = [Limit(costs, 0.5, 0.5 + share * most)]  # a share of 2 bounds nothing
    counts = count_networks(space, limits)
    assert counts == Counts(space.size, *by_enumeration(space, limits))
    if share == 0.3:
        assert counts.feasible < space.size  # the limit binds


def test_two_limits_hold_together_and_none_is_no_limit():
    space = SPACES["stages"]
    one, two = costs_by_block(space, 1), costs_by_block(space, 2)
    limits = [Limit(one, 0.0, 2.2), Limit(two, 1.0, 3.4)]
    both = count_networks(space, limits)
    assert both == Counts(space.size, *by_enumeration(space, limits))
    assert 0 < both.feasible < min(count_networks(space, [limit]).feasible for limit in limits)
    assert count_networks(space) == Counts(space.size, *by_enumeration(space, []))


def test_an_architecture_on_the_very_edge_is_counted_as_the_derivation_counts_it():
    space = small_space("conv_k3", "conv_k5", cells=3)
    costs = [[0.1, 0.2]] * 3  # 0.1 + 0.2 is not 0.3 in floating point
    edge = count_networks(space, [Limit(costs, 0.0, 0.4)])
    assert edge.feasible == 1 + 3 and count_networks(space, [Limit(costs, 0.0, 0.4 * (1 - 1e-9))]).feasible == 1


def test_one_block_with_two_prices_is_no_network_count():
    space = small_space("conv_k3", "skip", cells=2)
    counts = count_networks(space, [Limit([[1.0, 0.0], [2.0, 0.0]], 0.0, 2.5)])
    assert counts == Counts(4, 3, None) and counts.few  # three architectures are at most three networks


def test_one_block_with_two_prices_is_counted_where_no_limit_looks_at_prices():
    space = small_space("conv_k3", "skip", cells=2)
    assert count_networks(space, [Limit([[1.0, 0.0], [2.0, 0.0]], 0.0, 9.0)]) == Counts(4, 4, 3)


def test_a_space_of_ten_to_the_twenty_is_counted_exactly():
    space = small_space(*CHAIN, cells=34)
    counts = count_networks(space, [Limit([[1.0, 1.0, 1.0, 0.0]] * 34, 0.0, 1000.0)])
    assert counts.feasible == space.size == 4**34
    assert counts.distinct == sum(3**length for length in range(35))  # a word of any length up to 34 of three blocks


def test_the_default_tasks_have_the_counts_that_enumeration_gave():
    load_builtins()
    env = make_env("minatar:breakout", EnvOptions(1, 0))
    shape, actions = env.frame_shape, env.num_actions
    env.close()
    space = chain_space(
        ChainConfig(
            stem_channels=16,
            stem_kernel=3,
            stem_stride=1,
            stage_channels=(16, 32),
            stage_repeats=(2, 3),
            stage_strides=(1, 2),
            hidden=128,
        ),
        shape,
        actions,
    )
    cost = TableCost(space, find_table("jetson"))
    counts = count_networks(space, [Limit(cost.candidate_costs(), cost.base, 226.3e-6)])
    few = by_enumeration(space, [Limit(cost.candidate_costs(), cost.base, 226.3e-6)])
    assert (counts.feasible, counts.distinct) == few and counts.few == (few[1] < FEW_NETWORKS)


def test_what_costs_far_more_than_the_target_is_only_not_feasible():
    space = small_space("conv_k3", "conv_k5", "skip", cells=3)
    costs = [[0.3, 1e30, 0.0]] * 3
    limits = [Limit(costs, 0.25, 1.0)]
    assert count_networks(space, limits) == Counts(27, *by_enumeration(space, limits))


def test_costs_that_differ_by_less_than_the_rounding_are_one_block():
    """Sums of the same rows in another order differ in their last digit; that is no second price."""
    space = small_space("conv_k3", "skip", cells=2)
    assert count_networks(space, [Limit([[1.0, 0.0], [1.0 + 4e-16, 0.0]], 0.0, 1.5)]) == Counts(4, 3, 2)
    assert count_networks(space, [Limit([[1.0, 0.0], [1.0 + 1e-14, 0.0]], 0.0, 1.5)]) == Counts(4, 3, None)


def test_no_architecture_at_all_is_a_count_of_zero():
    for space in (SPACES["one stage"], SPACES["branches"]):
        limits = [Limit(costs_by_block(space, 3), 2.0, 1.0)]
        assert count_networks(space, limits) == Counts(space.size, 0, 0)


def test_too_many_sums_are_no_count(monkeypatch):
    """Three points of cost 1 or 2 with a bound of 5.5: at most three different sums at once; 7 of 8 architectures fit."""
    space, limits = small_space("conv_k3", "conv_k5", cells=3), [Limit([[1.0, 2.0]] * 3, 0.0, 5.5)]
    monkeypatch.setattr("cosearch.space.derivation.counting.MAX_SUMS", 3)
    assert count_networks(space, limits) == Counts(8, 7, 7)
    monkeypatch.setattr("cosearch.space.derivation.counting.MAX_SUMS", 2)
    assert count_networks(space, limits) == Counts(8, None, None)


def test_a_space_with_branches_is_enumerated_up_to_a_limit(monkeypatch):
    space = SPACES["branches that keep one"]
    limits = [Limit(costs_by_block(space, 5), 0.0, 1.2)]
    feasible, distinct = by_enumeration(space, limits)
    assert 0 < distinct < feasible < space.size
    monkeypatch.setattr("cosearch.space.derivation.counting.MAX_ENUMERATED", feasible)
    assert count_networks(space, limits) == Counts(space.size, feasible, distinct)
    monkeypatch.setattr("cosearch.space.derivation.counting.MAX_ENUMERATED", feasible - 1)
    assert count_networks(space, limits) == Counts(space.size, feasible, None)


def test_fewer_than_five_hundred_networks_are_few():
    assert Counts(9, 9, 499).few and not Counts(900, 900, 500).few
    assert Counts(9, 499, None).few and not Counts(900, 500, None).few and not Counts(9, None, None).few


def test_a_count_in_words():
    few = (
        ". WARNING: fewer than 500, so random search covers them and comparing searches tells little; "
        "a higher target or a larger space gives the search something to find"
    )
    assert Counts(123456, None, None).text() == "1.23e+05 architectures; those under the target were not counted"
    assert Counts(5000, 4000, 3000).text() == "5e+03 architectures, 4,000 under the target, 3,000 different networks"
    assert Counts(5000, 4000, None).text() == "5e+03 architectures, 4,000 under the target"
    assert Counts(9, 8, 7).text() == f"9 architectures, 8 under the target, 7 different networks{few}"
    assert Counts(9, 8, None).text() == f"9 architectures, 8 under the target{few}"


@pytest.mark.parametrize("name", ["branches", "branches that keep one"])
def test_branches_of_which_none_is_free_are_counted_as_enumeration_does(name):
    space, draw = SPACES[name], random.Random(2)
    costs = [[draw.uniform(0.5, 1.0) for _ in point.candidates] for point in space.points]
    totals = sorted(sum(row[c] for row, c in zip(costs, found.choices)) for found in every_architecture(space))
    for share in (0.2, 0.5, 0.8):
        limits = [Limit(costs, 0.1, 0.1 + totals[int(share * len(totals))])]
        counts = count_networks(space, limits)
        assert counts == Counts(space.size, *by_enumeration(space, limits)) and 0 < counts.feasible < space.size
