"""The macro space: 540 networks for small frames, whose blocks fit, and that stay what they are."""

import hashlib
import itertools

import numpy as np
import pytest

from cosearch.deploy.export import check_parity, to_onnx
from cosearch.space.cells.graph import chain_wiring, check_wiring
from cosearch.space.derivation.derive import derive, discretise
from cosearch.space.factors import every_sum
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.space.kinds.values import read_values
from cosearch.space.network import impala_cnn, nature_cnn
from cosearch.space.space import SPACES, architecture_from_dict
from cosearch.space.supernet import SuperNet
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

SMALL = SPACES.get("macro").build(SPACES.get("macro").suited((10, 10, 4)), (10, 10, 4), 6, "categorical")


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
    assert architecture_from_dict(found.to_dict()) == found
    assert found.ops() == [
        OpSpec("stem", 4, 10, 10, 16, kernel=3, stride=2, padding=1),
        OpSpec("conv", 16, 5, 5, 8, kernel=3, stride=2, padding=1),
        OpSpec("mbconv", 8, 3, 3, 8, kernel=3, padding=1, expansion=3),
        OpSpec("head", 8, 3, 3, 7, kernel=3, hidden=32),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_an_exported_network_computes_what_it_did(seed):
    config = MacroConfig(
        (1, 2), ("k3s1", "k3s2"), (4, 6), (2,), ((4, 6),), ("none", "residual_k3+mbconv_k3_e3"), ("pooled", "flat"), (0, 8)
    )
    space = macro_space(config, (16, 16, 3), 4)
    supernet, architecture = SuperNet(space, seeded(seed)), space.sample(seeded(seed))
    network = derive(architecture, seeded(1), supernet)
    model = to_onnx(network, space.frame_shape)
    frames = np.random.default_rng(seed).integers(0, 255, (32, 16, 16, 3)).astype(np.uint8)
    assert check_parity(network, model, frames).max_abs_difference < 1e-4


def test_the_procgen_space_has_a_fast_corner_and_impala_like_networks():
    space = macro_space(MacroConfig(), (64, 64, 3), 15)
    sums = every_sum([len(p.candidates) for p in space.points], space.macs(), space.joint_macs())
    nature = sum(op.macs for op in nature_cnn((64, 64, 3), 15))
    impala = sum(op.macs for op in impala_cnn((64, 64, 3), 15, (8, 16, 32)))
    assert 10_000 < space.size == sums.size < 5_000_000
    assert sums.min() < nature / 50 and impala < sums.max() and (sums < nature / 10).mean() > 0.05


def test_what_has_one_candidate_is_no_choice():
    space = macro_space(MacroConfig(resolutions=(1,), stems=("k8s4",), stem_widths=(16,), heads=("flat",)), (64, 64, 3), 15)
    assert [point.name for point in space.points] == ["stage1.width", "stage1.cells", "stage2.width", "stage2.cells", "hidden"]
    assert space.fixed() == [OpSpec("stem", 3, 64, 64, 16, kernel=8, stride=4, padding=2)] and space.nodes[1].points == (0,)
    assert space.nodes[-1].points == (2, 4) and len(space.nodes[-1].specs) == 9


def test_a_fixed_network_is_a_space_of_one_choice():
    config = MacroConfig((1,), ("k8s4",), (32,), (2, 2), ((48,), (96,)), ("conv_k3",), ("flat",), (0,))
    space = macro_space(config, (64, 64, 3), 15)
    assert [point.candidates for point in space.points] == [("1",)] and space.size == 1
    found = discretise(space, [[0.0]])
    assert [op.kind for op in found.ops()] == ["stem", "conv", "conv", "conv", "conv", "head"]
    assert derive(found, seeded(0), SuperNet(space, seeded(0))).blocks


@pytest.mark.parametrize(
    "values, text",
    [
        ({"stems": ["5x5"]}, "expected kernel and stride as k3s1, got '5x5'"),
        ({"resolutions": [1, 1]}, r"space\.values\.resolutions needs at least one candidate and each once, got \[1, 1\]"),
        ({"stems": []}, r"space\.values\.stems needs at least one candidate and each once"),
        ({"stem_widths": []}, r"space\.values\.stem_widths needs at least one candidate and each once"),
        ({"stage_widths": [[8], []]}, r"space\.values\.stage_widths needs at least one candidate and each once, got \[\]"),
        ({"stage_widths": [[8, 8], [8]]}, r"space\.values\.stage_widths needs .*got \[8, 8\]"),
        ({"cells": ["none", "none"]}, r"space\.values\.cells needs at least one candidate and each once"),
        ({"heads": []}, r"space\.values\.heads needs at least one candidate and each once"),
        ({"hidden": [8, 8]}, r"space\.values\.hidden needs at least one candidate and each once"),
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
