"""The macro space: 540 networks for small frames, whose blocks fit, and that stay what they are."""

import hashlib
import itertools

import pytest

from cosearch.space.cells.graph import chain_wiring, check_wiring
from cosearch.space.macro import SMALL_FRAMES, MacroConfig, macro_space
from cosearch.space.values import read_values
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

SMALL = macro_space(read_values("macro", MacroConfig, SMALL_FRAMES), (10, 10, 4), 6)


def every(space):
    return [space.architecture(c) for c in itertools.product(*(range(len(p.candidates)) for p in space.points))]


def test_small_frames_have_540_different_networks_that_stay_the_same():
    networks = [tuple(op.key for op in found.ops()) for found in every(SMALL)]
    assert SMALL.size == len(networks) == len(set(networks)) == 540
    for found in every(SMALL):
        check_wiring(found.ops(), chain_wiring(len(found.ops())))
    text = "\n".join(" ".join(keys) for keys in networks)
    # a shipped benchmark holds a score for each of them
    assert hashlib.sha256(text.encode()).hexdigest() == "80414f680a27235ceda1ea792fb033117787f7902ee1cd8b5cc67281c014c436"


def test_a_network_of_the_space_written_by_hand():
    choices = {"stem": 1, "stem_width": 2, "stage1.width": 0, "stage1.cells": 4, "head": 0, "hidden": 1}
    found = SMALL.architecture([choices[point.name] for point in SMALL.points])
    assert found.choice_names == ("k3s2", "16", "8", "mbconv_k3_e3", "pooled", "32")
    assert found.ops() == [
        OpSpec("stem", 4, 10, 10, 16, kernel=3, stride=2, padding=1),
        OpSpec("conv", 16, 5, 5, 8, kernel=3, stride=2, padding=1),
        OpSpec("mbconv", 8, 3, 3, 8, kernel=3, padding=1, expansion=3),
        OpSpec("head", 8, 3, 3, 7, kernel=3, hidden=32),
    ]


def test_what_has_one_candidate_is_no_choice():
    space = macro_space(MacroConfig(stems=("k8s4",), stem_widths=(16,), heads=("flat",)), (64, 64, 3), 15)
    assert [point.name for point in space.points] == ["stage1.width", "stage1.cells", "stage2.width", "stage2.cells", "hidden"]
    assert space.fixed() == [OpSpec("stem", 3, 64, 64, 16, kernel=8, stride=4, padding=2)] and space.nodes[1].points == (0,)
    assert space.nodes[-1].points == (2, 4) and len(space.nodes[-1].specs) == 9


@pytest.mark.parametrize(
    "values, text",
    [
        ({"stems": ["5x5"]}, "expected kernel and stride as k3s1, got '5x5'"),
        ({"stem_widths": []}, "stem_width needs at least one candidate and each once"),
        ({"hidden": [8, 8]}, "hidden needs at least one candidate and each once"),
        ({"stage_strides": [2]}, "one entry a stage"),
        ({"cells": ["skip"]}, "skip of 'skip' is no block on images"),
        ({"cells": ["conv_k3+none"]}, "none of 'conv_k3\\+none' is no block on images"),
        ({"stem_widths": list(range(1, 100)), "stage_widths": [list(range(1, 100))] * 2}, "at most 10,000,000"),
        ({"stage_widths": [[8], [10**7]]}, "must be at most 1000000 each"),
    ],
)
def test_what_makes_no_space_is_refused(values, text):
    with pytest.raises(ConfigError, match=text):
        macro_space(read_values("macro", MacroConfig, values), (64, 64, 3), 15)
