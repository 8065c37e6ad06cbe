"""ONNX models of cells: networks against torch with the same weights, every block in its context, work lists with branches."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from graph_space import graph_space
from onnx import numpy_helper

from cosearch.deploy.sampling import write_worklist
from cosearch.planning.builtins import load_builtins
from cosearch.space.cells.cell import CellConfig, cell_space
from cosearch.space.network import AgentNetwork
from cosearch.testing.conformance import seeded
from latency_tables.board.compilers import TorchRunner
from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import ShapeError, TableError
from latency_tables.kinds.cells import CELL_KINDS
from latency_tables.measuring.plan import make_plan, network_id
from latency_tables.onnx_models.blocks import build_block_model, build_network_model, check_chain, keeps_shape
from latency_tables.onnx_models.layers import build_layer_model
from latency_tables.opspec import OpSpec
from latency_tables.worklists import Network, load_worklist, make_worklist

load_builtins()
SIZES = {"depths": (4, 6), "normal_cells": 1, "hidden": 8}
BLOCKS = [
    OpSpec("act", 4, 6, 5, 4, activation="tanh"),
    OpSpec("act", 4, 6, 5, 4, 3, 2, 1, activation="relu"),
    OpSpec("avgpool", 4, 6, 5, 4, 3, 1, 1, activation="none"),
    OpSpec("reluconv", 4, 6, 5, 6, 3, 2, 1, activation="none"),
    OpSpec("dilconv", 4, 6, 5, 4, 5, 1, 4),
    OpSpec("sepconv", 4, 6, 5, 8, 3, 2, 1, activation="none"),
    OpSpec("add", 4, 6, 5, 4, groups=3, activation="none"),
    OpSpec("merge", 12, 6, 5, 4, groups=3, activation="none"),
]


def weights_of(model):
    return [torch.from_numpy(np.array(numpy_helper.to_array(w))) for w in onnx.load_model_from_string(model).graph.initializer]


@pytest.mark.parametrize("operations", ["micro", "classic", "darts"])
@pytest.mark.parametrize("scaffold", ["impala", "standard"])
def test_networks_compute_what_the_agents_compute(operations, scaffold):
    space = cell_space(CellConfig(scaffold=scaffold, operations=operations, **SIZES), (9, 10, 3), 4)
    for seed in range(3):
        architecture = space.sample(seeded(seed))
        model = build_network_model(architecture.ops(), seed=seed, wiring=architecture.network().wiring)
        frames = np.random.default_rng(seed).integers(0, 255, (1, 9, 10, 3)).astype(np.uint8)
        network = AgentNetwork(architecture.ops(), seeded(0), architecture.wiring())
        stored = weights_of(model)[1:]  # behind the scale of the frames
        with torch.no_grad():
            for mine, theirs in zip(network.parameters(), stored, strict=True):
                mine.copy_(theirs)
            logits, value = network(torch.from_numpy(frames))
        wanted = torch.cat([logits, value[:, None]], 1).numpy()
        outputs = OnnxRunner(model, {"frames": frames}).outputs()[0]
        assert np.abs(outputs - wanted).max() < 1e-4 * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("op", BLOCKS, ids=lambda op: op.key)
def test_a_block_in_its_context_adds_its_parameters_and_runs(op):
    once, none = build_block_model(op), build_block_model(op, repeats=0)
    assert sum(w.numel() for w in weights_of(once)) - sum(w.numel() for w in weights_of(none)) == op.params
    assert np.isfinite(OnnxRunner(once).outputs()[0]).all() and np.isfinite(OnnxRunner(none).outputs()[0]).all()
    if keeps_shape(op):
        five = build_block_model(op, repeats=5)
        assert sum(w.numel() for w in weights_of(five)) - sum(w.numel() for w in weights_of(once)) == 4 * op.params
    for layer in op.layers():
        assert OnnxRunner(build_layer_model(layer)).outputs()[0].size == layer.elements_out
    eager = TorchRunner(once, threads=1)
    feed = {eager._input: eager._values[eager._input].numpy()}
    assert np.allclose(eager().numpy(), OnnxRunner(once, feed).outputs()[0], atol=1e-4)
    assert OpSpec.from_key(op.key) == op


def test_every_kind_is_covered():
    assert {op.kind for op in BLOCKS} == set(CELL_KINDS)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "act", "activation": "none"},
        {"kind": "act", "kernel": 3, "padding": 1, "activation": "relu"},
        {"kind": "avgpool", "out_channels": 5, "kernel": 3, "padding": 1, "activation": "none"},
        {"kind": "conv", "activation": "tanh"},
        {"kind": "sepconv"},
        {"kind": "add", "activation": "none"},
        {"kind": "merge", "groups": 3, "activation": "none"},
        {"kind": "dilconv", "kernel": 2},
        {"kind": "dilconv", "groups": 2},
    ],
    ids=str,
)
def test_blocks_that_mean_nothing_are_refused(change):
    with pytest.raises(ShapeError):
        OpSpec(**{"in_channels": 4, "in_height": 6, "in_width": 5, "out_channels": 4, **change})


def test_work_lists_hold_networks_with_branches(tmp_path):
    space = cell_space(CellConfig(operations="micro", **SIZES), (9, 10, 3), 4)
    write_worklist(space, tmp_path / "cell.json", networks=6, uniform=2)
    work = load_worklist(tmp_path / "cell.json")
    assert len(work.networks) == 6 and all(network.wiring for network in (*work.networks, *work.uniform))
    (tmp_path / "again.json").write_text(json.dumps(work.to_dict()))
    again = load_worklist(tmp_path / "again.json")
    assert [(tuple(n), n.wiring) for n in again.networks] == [(tuple(n), n.wiring) for n in work.networks]
    plan = make_plan(work.cast(dtype="float32"))
    assert len(plan.networks) == 8 and {op.key for op in space.all_ops()} == {row.op.key for row in plan.rows}
    name = plan.calibration[0][0]
    assert np.isfinite(OnnxRunner(plan.builders[name]()).outputs()[0]).all()
    broken = json.loads((tmp_path / "cell.json").read_text())
    del broken["networks"][0]["wiring"]
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(TableError, match="wiring"):
        load_worklist(tmp_path / "broken.json")


def test_networks_of_the_same_blocks_with_another_wiring_are_different_models():
    space = graph_space()
    first, second = (space.architecture(choices).network() for choices in ((1, 1, 2, 0), (1, 1, 0, 2)))  # b1(A) or b2(A)
    third = space.architecture((1, 2, 1, 0)).network()
    assert network_id(first) == network_id(second)  # both read A: the same network
    assert tuple(first) == tuple(third) and first.wiring != third.wiring and network_id(first) != network_id(third)
    chain = Network.of(first[:1])
    assert chain.wiring is None and network_id(chain) == network_id(list(chain))


def test_wirings_that_do_not_fit_are_refused():
    stem, conv = OpSpec("stem", 3, 6, 5, 4, 3, 1, 1), OpSpec("conv", 4, 6, 5, 4)
    add = OpSpec("add", 4, 6, 5, 4, groups=2, activation="none")
    check_chain([stem, conv, add], [[], [0], [0, 1]])
    for wiring in ([[], [0], [1]], [[], [0], [0, 2]], [[], [0]], [[0], [0], [0, 1]]):
        with pytest.raises(ShapeError):
            check_chain([stem, conv, add], wiring)
    wide = dataclasses.replace(conv, out_channels=5)
    with pytest.raises(ShapeError, match="cannot follow"):
        check_chain([stem, wide, add], [[], [0], [0, 1]])


def test_the_shipped_list_of_cells_is_that_of_the_default_space():
    space = cell_space(CellConfig(), (64, 64, 3), 15)
    work = load_worklist("cell")
    assert set(work.ops) == set(space.all_ops()) and len(work.networks) == 16
    used = sorted({op for network in work.networks for op in network}, key=lambda op: op.key)
    assert make_worklist("x", [], work.networks).ops == tuple(used)
