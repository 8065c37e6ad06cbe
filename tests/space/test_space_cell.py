"""The cell space: structure as published, size in closed form, costs by enumeration, export, and configuration faults."""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cosearch.cost.table_cost import TableCost
from cosearch.deploy.export import check_parity, to_onnx
from cosearch.space.cells.cell import CellConfig, cell_space
from cosearch.space.cells.operations import CLASSIC, DARTS, MICRO
from cosearch.space.derivation.derive import Limit, derive, discretise
from cosearch.space.groups import marginals
from cosearch.space.network import impala_cnn
from cosearch.space.space import SPACES, architecture_from_dict
from cosearch.space.supernet import SuperNet
from cosearch.testing.conformance import check_derived, check_space, example_input, seeded
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, UnknownNameError

SMALL = {"depths": (4, 6), "normal_cells": 1, "hidden": 8}


def cells(**values):
    return cell_space(CellConfig(**{**SMALL, **values}), (10, 9, 3), 4)


def size_by_hand(operations, nodes, keep):
    """Product over the nodes of (which edges stay) times (operations of each)."""
    return math.prod(math.comb(i, min(keep, i)) * (operations - 1) ** min(keep, i) for i in range(1, nodes + 1))


@pytest.mark.parametrize("operations, names", [("micro", MICRO), ("classic", CLASSIC), ("darts", DARTS)])
@pytest.mark.parametrize("nodes, keep", [(4, 2), (3, 1), (2, 2), (5, 3)])
def test_size_is_the_closed_form(operations, names, nodes, keep):
    assert cells(operations=operations, nodes=nodes, keep=keep).size == size_by_hand(len(names), nodes, keep)


def test_default_cells_are_those_of_rl_darts():
    space = cell_space(CellConfig(), (64, 64, 3), 15)
    assert len(space.points) == 10 and space.size == size_by_hand(5, 4, 2) == 294_912  # edges 1 + 2 + 3 + 4, all cells alike
    assert [(sorted(g.points), g.keep) for g in space.groups] == [([0], 1), ([1, 2], 2), ([3, 4, 5], 2), ([6, 7, 8, 9], 2)]
    hand_made, network = impala_cnn((64, 64, 3), 15), space.sample(seeded(0)).ops()
    frame = [
        op
        for op in network
        if op.kind in ("stem", "maxpool", "head")
        or (op.kind == "conv" and op.in_height in (32, 16) and op.activation == "none" and op.in_channels != op.out_channels)
    ]
    assert [op for op in hand_made if op.kind in ("stem", "maxpool", "head")] == [op for op in frame if op.kind != "conv"]
    assert sum(op.kind == "merge" for op in network) == 6 and sum(op.kind == "add" for op in network) == 6 * 3


@pytest.mark.parametrize("share, impala, standard", [("type", 1, 2), ("place", 2, 3), ("cell", 4, 6)])
def test_cells_share_their_choices_by_configuration(share, impala, standard):
    for scaffold, kinds in (("impala", impala), ("standard", standard)):
        space = cells(share=share, scaffold=scaffold, normal_cells=2, nodes=2)
        assert len(space.points) == 3 * kinds
        assert len({point.name for point in space.points}) == len(space.points)


def test_reduction_cells_halve_the_frame_once():
    space = cells(scaffold="standard", nodes=3)
    assert (space.head.in_height, space.head.in_width) == (3, 3)  # 10 x 9 -> 5 x 5 -> 3 x 3
    for n in range(20):
        check_derived(SuperNet(space, seeded(0)), space.sample(seeded(n)), example_input(space.stem, 2))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"operations": "darts", "scaffold": "standard", "share": "cell"},
        {"operations": "classic", "output": "sum"},
        {"nodes": 1, "keep": 1},
        {"operations": ["relu_conv3x3", "relu_conv5x5", "max_pool_3x3"], "nodes": 2},
    ],
    ids=str,
)
def test_every_form_conforms(values):
    check_space(SPACES.get("cell"), {**SMALL, **values}, (10, 9, 3), 4)


def test_expected_cost_over_a_whole_small_space_is_the_mean_and_discretisation_the_best():
    space, table = cells(nodes=2, keep=1, operations=("none", "conv3x3", "skip_connect")), find_table("jetson")
    cost, generator = TableCost(space, table), seeded(4)
    every = []
    every = [
        space.architecture(choices)
        for choices in itertools.product(range(3), repeat=3)
        if choices[0] and (choices[1] == 0) != (choices[2] == 0)
    ]
    assert len(every) == space.size == 8
    logits = [torch.randn(3, generator=generator, dtype=torch.float64) for _ in space.points]
    weight = [math.exp(sum(float(row[c]) for row, c in zip(logits, a.choices))) for a in every]
    exact = [table.predict(a.ops()).latency_s for a in every]
    assert [cost.exact(a) for a in every] == pytest.approx(exact, rel=1e-12)
    mean = sum(w * e for w, e in zip(weight, exact)) / sum(weight)
    assert float(cost.expected(marginals(logits, space.groups, space.zeros))) == pytest.approx(mean, rel=1e-12)
    rows, bound = [row.tolist() for row in logits], sorted(exact)[3]
    found = discretise(space, rows, Limit(cost.candidate_costs(), cost.base, bound))
    allowed = [a for a, e in zip(every, exact) if e <= bound * (1 + 1e-12)]
    assert found == max(allowed, key=lambda a: sum(row[c] for row, c in zip(rows, a.choices)))


@pytest.mark.parametrize("operations", ["micro", "classic", "darts"])
def test_derived_networks_export_with_parity(operations):
    space = cells(operations=operations)
    network = derive(space.sample(seeded(2)), seeded(0)).eval()
    frames = np.random.default_rng(0).integers(0, 256, (8, *space.frame_shape), np.uint8)
    check_parity(network, to_onnx(network, space.frame_shape), frames)


def test_files_hold_the_wiring_and_a_changed_one_is_refused():
    architecture = cells().sample(seeded(1))
    values = json.loads(json.dumps(architecture.to_dict()))
    assert len(values["wiring"]) == len(values["operations"]) and architecture_from_dict(values) == architecture
    values["wiring"][5], values["wiring"][6] = [0], [0]
    with pytest.raises(ConfigError, match="edited or damaged"):
        architecture_from_dict(values)


@pytest.mark.parametrize(
    "values, error, text",
    [
        ({"nodes": 0}, ConfigError, "at least 1"),
        ({"keep": 0}, ConfigError, "at least 1"),
        ({"depths": []}, ConfigError, "an entry"),
        ({"operations": "mikro"}, ConfigError, "micro, classic, darts"),
        ({"operations": ["relu3"]}, UnknownNameError, "relu3"),
        ({"nods": 3}, ConfigError, "did you mean 'nodes'"),
        ({"share": "all"}, ConfigError, "share"),
        ({"scaffold": "impala", "normal_cells": 0}, ConfigError, "at least 1"),
    ],
)
def test_faults_of_the_configuration_are_named(values, error, text):
    with pytest.raises(error, match=text):
        SPACES.get("cell").make(values, (10, 10, 4), 6)


@pytest.mark.parametrize(
    "values",
    [
        {"scaffold": "standard"},
        {"depths": (4, 8)},
        {"normal_cells": 2},
        {"nodes": 3},
        {"keep": 1},
        {"operations": "classic"},
        {"share": "cell"},
        {"output": "sum"},
        {"hidden": 9},
    ],
    ids=str,
)
def test_each_field_changes_the_space(values):
    changed, plain = cells(**values), cells()
    assert (changed.body, changed.points, changed.head) != (plain.body, plain.points, plain.head)


@pytest.mark.parametrize("frame_shape, actions", [((64, 64, 3), 15), ((10, 10, 4), 6)])
def test_the_guide_says_what_the_cheapest_default_cells_cost(frame_shape, actions):
    """Each node of a cell by enumeration of the edges that it keeps; nodes do not depend on each other."""
    space, table = SPACES.get("cell").build({}, frame_shape, actions, "categorical"), find_table("jetson")
    cost, impala = TableCost(space, table), impala_cnn(frame_shape, actions)

    def cheapest(rows):
        total = 0.0
        for group in space.groups:
            ways = itertools.product(*(zip(space.points[p].candidates, rows[p], strict=True) for p in group.points))
            kept = [way for way in ways if sum(name != "none" for name, _ in way) == group.keep]
            total += min(sum(cost for _, cost in way) for way in kept)
        return total

    latency = (cost.base + cheapest(cost.candidate_costs())) / table.predict(impala).latency_s
    macs = (sum(op.macs for op in space.fixed()) + cheapest(space.macs())) / sum(op.macs for op in impala)
    guide = (Path(__file__).parents[2] / "docs/guide/spaces.md").read_text(encoding="utf-8")
    said = re.search(r"the cheapest takes (\S+) of .*?with (\S+) of .*?frames\s(\S+) with (\S+)\. ", guide, re.DOTALL)
    assert said is not None, "the sentence is gone"
    shares = said.groups()[:2] if frame_shape[0] == 64 else said.groups()[2:]
    assert shares == (f"{latency:.2f}", f"{macs:.2f}")
