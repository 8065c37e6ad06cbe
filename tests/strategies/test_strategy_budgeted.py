"""The multiplier of a target at its limit: the plan accepts the cheapest network's own cost, and so does the search."""

import pytest

from cosearch.cost.constraint import Constraint
from cosearch.cost.table_cost import TableCost
from cosearch.space.derivation.derive import cheapest
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.strategies.budgeted import tilt
from latency_tables.devices import find_table
from latency_tables.errors import InfeasibleTargetError

SPACES = {
    "chain": chain_space(ChainConfig(), (64, 64, 3), 15),
    "macro": macro_space(MacroConfig(stems=("k8s4",), resolutions=(1,), cells=("none", "conv_k3")), (64, 64, 3), 15),
}


@pytest.mark.parametrize("device", ["jetson", "pixel-3", "raspberry-pi-4", "x86-epyc"])
@pytest.mark.parametrize("name", SPACES)
def test_a_target_that_only_the_cheapest_network_meets_is_searched(name, device):
    space, table = SPACES[name], find_table(device)
    cost = TableCost(space, table, "latency_s")
    least = cheapest(space, Constraint(cost, 1.0).limit)
    target = Constraint(cost, cost.exact(least))
    assert target.met_by(least)
    zeros = [[0.0] * len(point.candidates) for point in space.points]
    found = tilt(space, zeros, target.limit, target.bound)
    for point, row in enumerate(found.rows):
        assert row[least.choices[point]] == pytest.approx(min(row))
    with pytest.raises(InfeasibleTargetError):
        tilt(space, zeros, target.limit, target.bound * (1.0 - 1e-9))
