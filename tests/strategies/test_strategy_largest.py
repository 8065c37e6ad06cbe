"""The largest network that fits, against enumeration; its place in the configuration and among the controls."""

import itertools

import pytest
from graph_space import graph_space
from small_space import small_space

from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.space.derivation.derive import Limit
from cosearch.strategies.base import STRATEGIES, Evaluation, Feasible
from cosearch.strategies.proposal.largest import Largest, LargestOptions
from cosearch.testing.conformance import seeded
from latency_tables.errors import InfeasibleTargetError

SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=3)
COSTS = [[3.0, 7.0, 4.0, 0.0], [2.0, 2.5, 6.0, 0.0], [1.0, 9.0, 2.0, 0.0]]  # multiply-accumulates do not decide them


class Fixed:
    """A target with fixed costs."""

    def __init__(self, costs, target):
        self.limit = Limit(costs, 1.0, target)

    def met_by(self, architecture):
        return self.limit.meets(architecture.choices)


def strategy(*bounds, space=SPACE, seed=0, by="macs"):
    return Largest(space, LargestOptions(by), seeded(seed), Feasible(bounds))


def all_of(space):
    """Every architecture, in order, without the space's own counting."""
    for choices in itertools.product(*(range(len(point.candidates)) for point in space.points)):
        if all(sum(choices[p] != space.points[p].zero for p in group.points) == group.keep for group in space.groups):
            yield space.architecture(choices)


def macs(architecture):
    return sum(op.macs for op in architecture.ops())


@pytest.mark.parametrize("target", [1.0, 3.0, 5.5, 8.0, 9.5, 14.0, 30.0])
def test_it_is_the_most_multiply_accumulates_within_the_limits_by_enumeration(target):
    feasible = [a for a in all_of(SPACE) if 1.0 + sum(row[c] for row, c in zip(COSTS, a.choices)) <= target]
    proposed = strategy(Fixed(COSTS, target)).ask()
    assert proposed in feasible and macs(proposed) == max(map(macs, feasible))
    other = [[row[3 - k] for k in range(4)] for row in COSTS]  # a second limit, which the first one's best breaks at some targets
    both = [a for a in feasible if 1.0 + sum(row[c] for row, c in zip(other, a.choices)) <= 12.0]
    if both:
        assert macs(strategy(Fixed(COSTS, target), Fixed(other, 12.0)).ask()) == max(map(macs, both))


def weights(architecture):
    return sum(op.params for op in architecture.ops())


@pytest.mark.parametrize("target", [1.0, 5.5, 9.5, 30.0])
def test_by_weights_and_by_both_it_is_the_largest_of_the_enumerated(target):
    feasible = [a for a in all_of(SPACE) if 1.0 + sum(row[c] for row, c in zip(COSTS, a.choices)) <= target]
    assert weights(strategy(Fixed(COSTS, target), by="weights").ask()) == max(map(weights, feasible))
    m, w = max(map(macs, feasible)), max(map(weights, feasible))
    mixed = [max(feasible, key=lambda a, s=s: s * macs(a) / m + (1 - s) * weights(a) / w) for s in (i / 32 for i in range(33))]
    found = strategy(Fixed(COSTS, target), by="both").ask()
    assert macs(found) * weights(found) == max(macs(a) * weights(a) for a in mixed)


def test_the_three_sizes_name_three_networks():
    plan = make_plan(resolve_task(overrides=("env.name=procgen:starpilot", "device=x86-epyc", "space.name=macro")))
    names = {by: strategy(*plan.constraints, space=plan.space, by=by).ask().choice_names for by in ("macs", "weights", "both")}
    assert len(set(names.values())) == 3, names


def test_without_a_target_it_is_the_largest_of_all_and_on_a_graph_too():
    for space in (SPACE, graph_space()):
        assert macs(strategy(space=space).ask()) == max(map(macs, all_of(space)))


def test_it_proposes_the_same_whatever_the_seed_and_the_scores():
    one, other = strategy(Fixed(COSTS, 9.5)), strategy(Fixed(COSTS, 9.5), seed=5)
    first = one.ask()
    one.tell(Evaluation(first, -7.0, 1e-3))
    assert one.ask() == other.ask() == first and one.best() == 0
    other.restore(one.state())
    assert other.best() == 0 and other.results.all == one.results.all


def test_no_architecture_within_the_limits_is_an_error():
    with pytest.raises(InfeasibleTargetError, match="no architecture"):
        strategy(Fixed(COSTS, 0.5)).ask()


def test_the_present_limits_count():
    """On an accelerator the costs change between two candidates."""
    bound = Fixed(COSTS, 3.0)
    asked = strategy(bound)
    small = asked.ask()
    bound.limit = Limit(COSTS, 1.0, 30.0)
    assert macs(asked.ask()) > macs(small)


def test_feasible_is_the_check_of_every_target():
    feasible = Feasible((Fixed(COSTS, 9.5), Fixed(COSTS, 5.5)))
    for architecture in all_of(SPACE):
        assert feasible(architecture) == (1.0 + sum(row[c] for row, c in zip(COSTS, architecture.choices)) <= 5.5)
    assert all(map(Feasible(), all_of(SPACE))) and Feasible().limits == ()


def test_its_one_candidate_has_the_whole_budget_and_ignores_what_divides_it():
    load_builtins()
    info = STRATEGIES.get("largest")
    assert {"candidates", "candidate_init", "workers"} <= set(info.unused) and info.kind == "proposal"
