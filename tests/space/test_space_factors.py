"""Sums that several points decide together: against plain loops over every architecture of small macro spaces."""

import functools
import itertools

import numpy as np
import pytest
import torch

from cosearch.cost.table_cost import TableCost
from cosearch.space.derivation.counting import Counts, count_networks
from cosearch.space.derivation.derive import Limit, discretise
from cosearch.space.factors import Factor, MeanCosts, every_sum, merged
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.strategies.budgeted import tilt
from cosearch.strategies.proposal.largest import Largest, LargestOptions
from latency_tables.errors import InfeasibleTargetError, NonFiniteError, ShapeError
from latency_tables.schema import Row, TableFile
from latency_tables.table import Table

CONFIG = MacroConfig(
    resolutions=(1,),
    stems=("k3s1", "k3s2"),
    stem_widths=(2, 3),
    stage_strides=(2,),
    stage_widths=((3, 4, 6),),
    cells=("none", "conv_k3", "residual_k3+residual_k3"),
    heads=("pooled", "flat"),
    hidden=(0, 8),
)
SPACE = macro_space(CONFIG, (9, 8, 3), 4)
SIZES = [len(point.candidates) for point in SPACE.points]
EVERY = [SPACE.architecture(c) for c in itertools.product(*map(range, SIZES))]


@functools.cache
def cost():
    """Costs of a table whose rows are drawn."""
    draw = np.random.default_rng(7)
    header = {
        "schema": 1,
        "device": {"name": "toy", "description": "toy", "runtime": "torch", "dtype": "float32", "threads": 1},
        "provenance": "synthetic",
        "calibration": {"overhead_s": 3e-5, "scale": 1.25},
    }
    rows = {op.key: Row(op.key, draw.uniform(1e-6, 1e-4)) for op in SPACE.all_ops()}
    return TableCost(SPACE, Table(TableFile(header, rows, None)))


def exact(architecture):
    """From the list of blocks and the rows, by hand."""
    table = cost().table
    return table.overhead_s + table.scale * sum(table.rows[op.key].latency_s for op in architecture.ops())


def random_weights(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.softmax(2 * torch.randn(size, generator=generator, dtype=dtype), 0) for size in SIZES]


def probability(architecture, weights):
    return float(np.prod([float(row[c]) for row, c in zip(weights, architecture.choices)]))


def test_the_cost_of_every_architecture_is_the_sum_of_its_blocks():
    found, sums = cost(), every_sum(SIZES, cost().candidate_costs(), cost().joint_costs(), cost().base)
    limit = Limit(found.candidate_costs(), found.base, 1.0, found.joint_costs())
    assert len(SPACE.joint) == 5 and len(found.joint_costs()) < 5 and SPACE.nodes[0] in SPACE.joint
    for architecture in EVERY:
        wanted = exact(architecture)
        assert found.exact(architecture) == pytest.approx(wanted, rel=1e-12)
        assert float(found.expected(architecture.one_hot())) == pytest.approx(wanted, rel=1e-12)
        assert limit.total(architecture.choices) == pytest.approx(wanted, rel=1e-12)
        assert sums[architecture.choices] == pytest.approx(wanted, rel=1e-12)


def test_the_expected_cost_is_the_mean_over_all_architectures_also_of_many_distributions_at_once():
    several = [random_weights(seed) for seed in range(3)]
    wanted = [sum(probability(a, weights) * exact(a) for a in EVERY) for weights in several]
    assert [float(cost().expected(weights)) for weights in several] == pytest.approx(wanted, rel=1e-12)
    assert cost().expected([torch.stack(rows) for rows in zip(*several)]).tolist() == pytest.approx(wanted, rel=1e-12)


def test_the_gradient_of_the_expected_cost_is_the_mean_given_each_candidate():
    weights = [row.requires_grad_() for row in random_weights(1)]
    cost().expected(weights).backward()
    gradients = [row.grad for row in weights]
    means = MeanCosts(cost().candidate_costs(), cost().joint_costs())
    plain, weights = [row.detach().numpy() for row in weights], random_weights(1)
    for point, size in enumerate(SIZES):
        given = [
            sum(probability(a, weights) * exact(a) for a in EVERY if a.choices[point] == c) / float(weights[point][c])
            for c in range(size)
        ]
        differences = np.subtract(given, given[0])
        assert np.subtract(gradients[point], gradients[point][0]) == pytest.approx(differences, rel=1e-9, abs=1e-15)
        found = means.of(point, plain)
        assert found - found[0] == pytest.approx(differences, rel=1e-9, abs=1e-15)


def test_sums_of_whole_numbers_are_sums_of_numbers():
    assert every_sum([2, 2], [[0.5, 1.0], [0.0, 2.0]], (), 0).tolist() == [[0.5, 2.5], [1.0, 3.0]]


def test_merged_factors_have_the_same_sum():
    draw = np.random.default_rng(0)
    factors = [
        Factor(points, tuple(SIZES[p] for p in points), tuple(draw.uniform(size=np.prod([SIZES[p] for p in points])).tolist()))
        for points in ((3, 0), (0, 2, 3), (2,), (3, 2), (5, 4), (4, 5))
    ]
    few = merged(factors)
    assert len(few) == 2
    for architecture in EVERY[::7]:
        wanted = sum(factor.at(architecture.choices) for factor in factors)
        assert sum(factor.at(architecture.choices) for factor in few) == pytest.approx(wanted, rel=1e-12)


def limits_of(share, energy_share=None):
    """The cost at a quantile of all, and one of its squares."""
    found = cost()
    first = Limit(found.candidate_costs(), found.base, float(np.quantile([exact(a) for a in EVERY], share)), found.joint_costs())
    if energy_share is None:
        return [first]
    rows = [[float((3 * c + p) % 4) for c in range(size)] for p, size in enumerate(SIZES)]
    factor = Factor((0, 3), (2, 3), (1.0, 4.0, 2.0, 5.0, 0.0, 3.0))
    totals = [sum(row[c] for row, c in zip(rows, a.choices)) + factor.at(a.choices) for a in EVERY]
    return [first, Limit(rows, 0.5, 0.5 + float(np.quantile(totals, energy_share)), (factor,))]


@pytest.mark.parametrize("share, energy_share", [(0.02, None), (0.3, None), (0.6, 0.4), (1.0, 0.2)])
def test_derivation_counts_and_largest_are_those_of_brute_force(share, energy_share):
    limits = limits_of(share, energy_share)
    fits = [a for a in EVERY if all(limit.meets(a.choices) for limit in limits)]
    assert 0 < len(fits) < len(EVERY) or share == 1.0
    counts = count_networks(SPACE, limits)
    assert counts == Counts(len(EVERY), len(fits), len({tuple(a.ops()) for a in fits}))
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        scores = [torch.randn(size, generator=generator, dtype=torch.float64).tolist() for size in SIZES]
        worth = {a.choices: sum(row[c] for row, c in zip(scores, a.choices)) for a in fits}
        assert discretise(SPACE, scores, *limits).choices == max(worth, key=worth.__getitem__)

    class Fits:
        def __init__(self):
            self.limits = limits

    found = Largest(SPACE, LargestOptions(), generator, Fits()).ask()
    assert found in fits and sum(op.macs for op in found.ops()) == max(sum(op.macs for op in a.ops()) for a in fits)


def test_a_space_whose_choices_make_one_network_twice_counts_it_once():
    config = MacroConfig((1,), ("k3s1",), (4,), (2,), ((4, 6),), ("conv_k3", "conv_k3+conv_k3"), ("pooled", "flat"), (8,))
    space = macro_space(config, (2, 2, 3), 4)  # the last map is one pixel: pooled and flat are one head
    assert count_networks(space) == Counts(8, 8, 4)


def test_what_cannot_be_derived_is_refused():
    scores, costs = [[0.0] * size for size in SIZES], [[1.0] * size for size in SIZES]
    with pytest.raises(InfeasibleTargetError, match=r"the cheapest, k3s1/2/3/none/pooled/0, costs 6\.5"):
        discretise(SPACE, scores, Limit(costs, 0.5, 6.0))
    one, two = (Factor((0, 1), (2, 2), values) for values in ((0.0, 1.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0)))
    none = [[0.0] * size for size in SIZES]
    with pytest.raises(InfeasibleTargetError, match="each of the 2 targets"):
        discretise(SPACE, scores, Limit(none, 0.0, 0.5, (one,)), Limit(none, 0.0, 0.5, (two,)))
    lost = Factor((0, 1), (2, 2), (0.0, float("nan"), 0.0, 0.0))
    with pytest.raises(NonFiniteError, match="costs of the architecture"):
        discretise(SPACE, scores, Limit(none, 0.0, 0.5, (lost,)))
    with pytest.raises(NonFiniteError, match="scores of the architecture"):
        discretise(SPACE, scores, joint=[lost])
    fixed = macro_space(MacroConfig((1,), ("k3s1",), (4,), (2,), ((4,),), ("none", "conv_k3"), ("flat",), (8,)), (8, 8, 3), 4)
    with pytest.raises(ShapeError, match="nothing has factors"):
        discretise(fixed, [[0.0, 0.0]], joint=[Factor((0,), (2,), (0.0, 1.0))])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 1.0])
def test_the_tilt_meets_the_target_in_expectation_and_is_stationary(seed, share):
    found, generator = cost(), torch.Generator().manual_seed(seed)
    utilities = [torch.log_softmax(2 * torch.randn(size, generator=generator, dtype=torch.float64), 0) for size in SIZES]
    limit = Limit(found.candidate_costs(), found.base, 1.0, found.joint_costs())
    least = min(map(exact, EVERY))
    free = sum(probability(a, [row.exp() for row in utilities]) * exact(a) for a in EVERY)
    target = least + share * (free - least) * (1.0 + 1e-6)
    held = tilt(SPACE, [row.tolist() for row in utilities], limit, target)
    sampled = [torch.softmax(row - torch.tensor(taken, dtype=torch.float64), 0) for row, taken in zip(utilities, held.rows)]
    mean = sum(probability(a, sampled) * exact(a) for a in EVERY)
    assert mean <= target * (1 + 1e-12)
    if share == 1.0:
        assert held.beta == 0.0 and all(value == 0.0 for row in held.rows for value in row)
        return
    # so near to the cheapest architecture the distribution may jump from one stationary point to another
    assert held.beta > 0.0 and (share < 0.1 or mean == pytest.approx(target, rel=1e-5))

    def objective(shares):
        gain = sum(float((p * u).sum() - torch.special.xlogy(p, p).sum()) for p, u in zip(shares, utilities))
        return gain - held.beta * float(found.expected(shares))

    best = objective(sampled)
    for point in range(len(SIZES)):  # no other row of one point is better, the others as they are
        for _ in range(20):
            other = torch.softmax(torch.randn(SIZES[point], generator=generator, dtype=torch.float64), 0)
            for step in (1.0, 1e-3):
                moved = [(1 - step) * p + step * other if n == point else p for n, p in enumerate(sampled)]
                assert objective(moved) <= best + 1e-9
    with pytest.raises(InfeasibleTargetError, match="cheapest"):
        tilt(SPACE, [row.tolist() for row in utilities], limit, least * 0.999)
