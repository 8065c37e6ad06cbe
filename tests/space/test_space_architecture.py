"""Spaces and architectures: JSON, tampering, neighbours, distance, size; every registered kind of space conforms."""

import ast
import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import cosearch
from cosearch.planning.builtins import load_builtins
from cosearch.space.files import load_architecture
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.kinds.hand_made import HAND_MADE, hand_made_for
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.space.operations import CHAIN_CANDIDATES, OPERATIONS
from cosearch.space.parts import Part, frame_shape_of
from cosearch.space.space import SPACES, ChoicePoint, architecture_from_dict
from cosearch.testing.conformance import check_space, seeded
from latency_tables.errors import ConfigError, RequestError, ShapeError, UnknownNameError

load_builtins()

TINY = ChainConfig(
    stem_channels=4,
    stem_kernel=3,
    stem_stride=2,
    stage_channels=(4, 6),
    stage_repeats=(2, 1),
    stage_strides=(1, 2),
    candidates=("conv_k3", "mbconv_k3_e3", "skip"),
    hidden=8,
)
SMALL = {
    "chain": json.loads(json.dumps(TINY.__dict__)),
    "cell": {"depths": [4, 6], "normal_cells": 1, "operations": "darts", "scaffold": "standard", "hidden": 8},
    "macro": {"stem_widths": [4, 6], "stage_widths": [[3, 5], [5, 8]], "cells": ["none", "conv_k3", "mbconv_k3_e1+residual_k3"]},
}


def tiny():
    return chain_space(TINY, (12, 12, 3), 4)


@pytest.mark.parametrize("frame_shape", [(64, 64, 3), (13, 17, 2)], ids=str)
@pytest.mark.parametrize("entry", SPACES.entries(), ids=lambda entry: entry.name)
def test_every_registered_space_conforms(entry, frame_shape):
    if entry.name in HAND_MADE and entry.name not in hand_made_for(frame_shape):
        frame_shape = {"nature-cnn": (36, 40, 2), "minatar-cnn": (10, 12, 3)}[entry.name]
    parts = (Part("camera", "image", frame_shape), Part("state", "vector", frame_shape[:1])) if entry.takes == "parts" else ()
    shapes = {"frames": frame_shape, "vectors": frame_shape[:1], "parts": frame_shape_of(parts)}
    check_space(entry, SMALL.get(entry.name, {}), shapes[entry.takes], 5, parts=parts)


def test_all_three_kinds_of_space_are_registered():
    assert {entry.name for entry in SPACES.entries()} >= {"chain", "cell", "mlp"}


def test_two_stage_chain_has_the_shapes_of_its_configuration():
    values = {
        "stem_channels": 32,
        "stem_kernel": 8,
        "stem_stride": 4,
        "stage_channels": [32, 64],
        "stage_repeats": [3, 4],
        "stage_strides": [1, 2],
        "hidden": 32,
    }
    space = check_space(SPACES.get("chain"), values, (64, 64, 3), 15, samples=2)
    assert space.size == 9**7 == 4_782_969
    assert (space.stem.out_height, space.stem.out_width) == (16, 16)
    assert (space.head.in_channels, space.head.in_height, space.head.out_channels) == (64, 8, 16)
    assert [point.name for point in space.points][2:4] == ["stage1.cell3", "stage2.cell1"]
    assert space.points[0].specs[CHAIN_CANDIDATES.index("skip")] is None  # 32 -> 32, stride 1
    assert space.points[3].specs[CHAIN_CANDIDATES.index("skip")].kernel == 1  # 32 -> 64, stride 2


def test_default_chain_on_procgen_frames_conforms():
    assert check_space(SPACES.get("chain"), {}, (64, 64, 3), 15, samples=1).size >= 9**5


def test_size_and_all_ops_by_enumeration():
    space = tiny()
    every = list(itertools.product(*(range(len(point.candidates)) for point in space.points)))
    assert len(every) == space.size == 27
    used = {op for choices in every for op in space.architecture(choices).ops()}
    assert set(space.all_ops()) == used and len(space.all_ops()) == len(used)


def test_sampling_is_uniform_and_follows_its_generator():
    space, generator = tiny(), seeded(0)
    counts = np.zeros((3, 3))
    for _ in range(3000):
        counts[range(3), list(space.sample(generator).choices)] += 1
    assert ((counts - 1000) ** 2 / 1000).sum(1).max() < 16.3  # chi-square with 2 degrees: p = 0.0003 a point
    assert space.sample(seeded(4)) == space.sample(seeded(4))
    assert len({space.sample(seeded(n)).choices for n in range(20)}) > 5


def test_neighbours_and_distance_by_enumeration():
    space = tiny()
    here = space.architecture([0, 1, 2])
    near = {a.choices for a in here.neighbours()}
    everything = [space.architecture(c) for c in itertools.product(range(3), repeat=3)]
    assert near == {a.choices for a in everything if here.distance(a) == 1} and len(near) == len(here.neighbours()) == 6
    assert here.distance(here) == 0 and here.distance(space.architecture([1, 2, 0])) == 3
    with pytest.raises(ShapeError, match="no distance"):
        here.distance(chain_space(ChainConfig(), (64, 64, 3), 4).sample(seeded(0)))


def test_one_hot_marks_the_choice():
    hot = tiny().architecture([2, 0, 1]).one_hot()
    assert [h.tolist() for h in hot] == [[0, 0, 1], [1, 0, 0], [0, 1, 0]] and hot[0].dtype == torch.float64


def test_json_round_trip_through_a_file(tmp_path):
    wanted = tiny().architecture([1, 2, 0])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(wanted.to_dict()))
    found = load_architecture(path)
    assert found == wanted and found.ops() == wanted.ops() and found.choice_names == ("mbconv_k3_e3", "skip", "conv_k3")
    assert found.space.frame_shape == (12, 12, 3) and isinstance(found.space.frame_shape, tuple)


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda v: v["operations"][1].update(out_channels=7), "edited or damaged"),
        (lambda v: v["operations"].pop(), "edited or damaged"),
        (lambda v: v.update(choices=[0, 0, 0]), "edited or damaged"),
        (lambda v: v["space_config"].update(hidden=9), "edited or damaged"),
        (lambda v: v.update(choices=[0, 0, 3]), "candidates 0..2, got 3"),
        (lambda v: v.update(choices=[0, 0, -1]), "candidates 0..2, got -1"),
        (lambda v: v.update(choices=[0, 0]), "3 choice points, got 2"),
        (lambda v: v.update(choices=[1, 2, 0.4]), "whole numbers"),
        (lambda v: v.update(choices=None), "not a valid architecture"),
        (lambda v: v.update(space="chian"), "Did you mean 'chain'"),
        (lambda v: v.update(space=["chain"]), "not a valid architecture"),
        (lambda v: v.update(space_config=[]), "not a valid architecture"),
        (lambda v: v["space_config"].update(hiden=9), "did you mean 'hidden'"),
        (lambda v: v["space_config"].update(hidden="wide"), "space.values.hidden"),
        (lambda v: v["space_config"].update(candidates=["conv_k4"]), "conv_k"),
        (lambda v: v.update(frame_shape=[12, 12]), "not a valid architecture"),
        (lambda v: v.update(format="other"), "cosearch-architecture-1"),
        (lambda v: v.pop("num_actions"), "num_actions"),
    ],
)
def test_a_tampered_architecture_is_refused(change, text):
    values = copy.deepcopy(tiny().architecture([1, 2, 0]).to_dict())
    change(values)
    with pytest.raises(ConfigError, match=text):
        architecture_from_dict(values, "a.json")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_architecture_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.json"):
        load_architecture(path)
    with pytest.raises(ConfigError, match=r"none\.json"):
        load_architecture(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change, error",
    [
        ({"stage_strides": (1,)}, ConfigError),
        ({"stage_repeats": (2, 0)}, ConfigError),
        ({"stage_channels": (), "stage_repeats": (), "stage_strides": ()}, ConfigError),
        ({"candidates": ("conv_k3", "conv_k3")}, ShapeError),
        ({"candidates": ()}, ShapeError),
        ({"candidates": ("conv_k9",)}, UnknownNameError),
        ({"stem_kernel": 0}, ShapeError),
        ({"hidden": -1}, ShapeError),
    ],
)
def test_a_chain_that_cannot_be_built_is_refused(change, error):
    with pytest.raises(error):
        chain_space(ChainConfig(**{**TINY.__dict__, **change}), (12, 12, 3), 4)
    values = json.loads(json.dumps({**SMALL["chain"], **change}))
    with pytest.raises(RequestError):
        SPACES.get("chain").make(values, (12, 12, 3), 4)


@pytest.mark.parametrize(
    "values",
    [
        {"stage_strides": [1]},
        {"stage_repeats": [2, 0]},
        {"candidates": ["mlp_w32_relu"]},
        {"stem_chanels": 3},
    ],
)
def test_a_wrong_value_of_the_chain_is_named_as_it_is_typed(values):
    with pytest.raises(ConfigError) as caught:
        SPACES.get("chain").make({**SMALL["chain"], **values}, (12, 12, 3), 4)
    assert {word.rstrip(",:") for word in str(caught.value).split() if word.startswith("space.")} <= {
        f"space.values.{key}" for key in {**SMALL["chain"], **values}
    }


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_the_padding_of_a_stem_keeps_side_over_stride_where_it_is_whole_but_for_an_even_kernel_with_stride_1(kernel, stride):
    frame = torch.zeros(1, 3, 24, 36)
    chain = chain_space(ChainConfig(stem_kernel=kernel, stem_stride=stride), (24, 36, 3), 4).stem
    macro = macro_space(MacroConfig(resolutions=(1,), stems=(f"k{kernel}s{stride}",)), (24, 36, 3), 4).stem
    more = int(kernel % 2 == 0 and stride == 1)
    for stem in (chain, macro):
        assert (stem.kernel, stem.stride) == (kernel, stride)
        image = torch.nn.functional.conv2d(frame, torch.zeros(1, 3, kernel, kernel), stride=stride, padding=stem.padding)
        assert tuple(image.shape[2:]) == (stem.out_height, stem.out_width) == (24 // stride + more, 36 // stride + more)


@pytest.mark.parametrize(
    "field, value",
    [
        ("stem_channels", 5),
        ("stem_kernel", 5),
        ("stem_stride", 1),
        ("stage_channels", (5, 6)),
        ("stage_repeats", (1, 1)),
        ("stage_strides", (2, 2)),
        ("candidates", ("conv_k3", "skip")),
        ("hidden", 9),
    ],
)
def test_each_field_of_the_chain_changes_the_blocks(field, value):
    changed = chain_space(ChainConfig(**{**TINY.__dict__, field: value}), (12, 12, 3), 4)
    blocks, before = ([space.stem, *(spec for p in space.points for spec in p.specs), space.head] for space in (changed, tiny()))
    assert blocks != before


def test_a_choice_point_needs_a_block_for_each_name():
    spec = tiny().points[0].specs[0]
    for names, specs in ((("a", "a"), (spec, spec)), (("a",), (spec, spec)), ((), ())):
        with pytest.raises(ShapeError):
            ChoicePoint("p", names, specs)
    assert set(CHAIN_CANDIDATES) <= set(OPERATIONS.names()) and len(CHAIN_CANDIDATES) == 9


def names_of_spaces_in(source):
    """Lines with a string that is a registered space's name; hand-made networks are teachers, too, of the same names."""
    names = {entry.name for entry in SPACES.entries()} - set(HAND_MADE)
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and node.value in names]


def test_no_file_outside_its_folder_knows_a_space_by_name():
    package = Path(cosearch.__file__).parent
    assert names_of_spaces_in('if space.name == "cell":\n    pass') == [1]
    for path in package.rglob("*.py"):
        if package / "space" not in path.parents and path != package / "config" / "presets.py":  # values, as a user types them
            assert not names_of_spaces_in(path.read_text(encoding="utf-8")), path
