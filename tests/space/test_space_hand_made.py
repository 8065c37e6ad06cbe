"""Hand-made networks by width: the published ones are among them, and `largest` takes the widest that fits."""

import pytest
import torch

from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import Limit, derive, discretise
from cosearch.space.kinds.hand_made import HAND_MADE, hand_made_for
from cosearch.space.space import SPACES, architecture_from_dict
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError

load_builtins()
PROCGEN, MINATAR = (64, 64, 3), (10, 10, 4)


def space_of(name, frame_shape, actions, **values):
    return SPACES.get(name).build(values, frame_shape, actions, "categorical")


@pytest.mark.parametrize(
    "name, frame_shape, actions, params",
    [
        # weights and biases counted by hand from the papers' layers; 626,256 is what the published runs print
        ("impala-cnn", PROCGEN, 15, 626_256),
        ("impoola-cnn", PROCGEN, 15, 626_256 - (2048 - 32) * 256),
        ("nature-cnn", PROCGEN, 15, (8 * 8 * 3 + 1) * 32 + (16 * 32 + 1) * 64 + (9 * 64 + 1) * 64 + 1025 * 512 + 513 * 16),
        ("minatar-cnn", MINATAR, 3, (9 * 4 + 1) * 16 + (8 * 8 * 16 + 1) * 128 + 129 * 4),
    ],
)
def test_sixteen_sixteenths_are_the_published_network(name, frame_shape, actions, params):
    space = space_of(name, frame_shape, actions)
    published = space.architecture([space.points[0].candidates.index("16/16")])
    assert sum(op.params for op in published.ops()) == params
    network = derive(published, torch.Generator().manual_seed(0))
    assert sum(weights.numel() for weights in network.parameters()) == params
    logits, value = network(torch.zeros((2, *frame_shape), dtype=torch.uint8))
    assert logits.shape == (2, actions) and value.shape == (2,)
    assert architecture_from_dict(published.to_dict()).ops() == published.ops()


@pytest.mark.parametrize("name", sorted(HAND_MADE))
def test_the_widest_within_the_target_is_found(name):
    frame_shape = MINATAR if name == "minatar-cnn" else PROCGEN
    space, table = space_of(name, frame_shape, 6), find_table("jetson")
    cost = TableCost(space, table)
    by_hand = [table.predict(space.architecture([k]).ops()).latency_s for k in range(space.size)]
    assert by_hand == sorted(by_hand) and by_hand[0] < by_hand[-1]
    target = (by_hand[5] + by_hand[6]) / 2
    widest = max(k for k, latency_s in enumerate(by_hand) if latency_s <= target)
    limit = Limit(cost.candidate_costs(), cost.base, target)
    assert discretise(space, space.macs(), limit).choices == (widest,)
    assert cost.exact(space.architecture([widest])) == pytest.approx(by_hand[widest], rel=1e-12)


def test_each_is_for_its_frames():
    assert hand_made_for(PROCGEN) == ["nature-cnn", "impala-cnn", "impoola-cnn"]
    assert hand_made_for(MINATAR) == ["impala-cnn", "impoola-cnn", "minatar-cnn"]
    assert hand_made_for((4,)) == []
    with pytest.raises(ConfigError, match=r"'nature-cnn' is made for .* made for these: impala-cnn, impoola-cnn, minatar-cnn"):
        space_of("nature-cnn", MINATAR, 3)


@pytest.mark.parametrize("widths", [[], [4, 4], [0, 2]])
def test_widths_that_are_none_are_refused(widths):
    with pytest.raises(ConfigError, match="sixteenths"):
        space_of("impala-cnn", PROCGEN, 15, sixteenths=widths)
