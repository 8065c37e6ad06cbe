"""The vocabulary of vectors in the tables: models against torch, rows in chains, the shipped work list, estimates."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as f

from cosearch.planning.builtins import load_builtins
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.network import reference_agents
from latency_tables.board.runners import OnnxRunner, op_histogram
from latency_tables.devices import find_table
from latency_tables.estimating.estimate import build_estimate
from latency_tables.estimating.specification import load_spec
from latency_tables.measuring.plan import make_plan
from latency_tables.onnx_models.blocks import build_block_model, build_network_model, keeps_shape
from latency_tables.onnx_models.quantise import quantise_model
from latency_tables.opspec import OpSpec
from latency_tables.worklists import load_worklist

load_builtins()
STEM = OpSpec("linear", 5, 1, 1, 8, activation="tanh")
MLP = OpSpec("mlp", 8, 1, 1, 8, hidden=12, activation="tanh")
DOWN = OpSpec("mlp", 8, 1, 1, 6, hidden=4, activation="relu")
HEAD = OpSpec("head", 6, 1, 1, 3, activation="none")
NETWORK = [STEM, MLP, DOWN, HEAD]
TASKS = {
    "CartPole-v1": (4, 2),
    "Acrobot-v1": (6, 3),
    "MountainCar-v0": (2, 3),
    "Pendulum-v1": (3, 1),
    "MountainCarContinuous-v0": (2, 1),
    "LunarLander-v3": (8, 4),
}


def weights_of(model):
    return [torch.from_numpy(np.array(numpy_helper.to_array(w))) for w in onnx.load_model_from_string(model).graph.initializer]


def test_a_network_of_vectors_computes_what_torch_computes():
    model = build_network_model(NETWORK, seed=3)
    seen = np.random.default_rng(1).normal(size=(1, 5)).astype(np.float32)
    outputs = OnnxRunner(model, {"frames": seen}).outputs()[0]
    it = iter(weights_of(model))
    x = torch.tanh(f.linear(torch.from_numpy(seen), next(it), next(it)))
    x = x + f.linear(torch.tanh(f.linear(x, next(it), next(it))), next(it), next(it))
    x = f.linear(f.relu(f.linear(x, next(it), next(it))), next(it), next(it))
    np.testing.assert_allclose(outputs, f.linear(x, next(it), next(it)).numpy(), atol=1e-5)


@pytest.mark.parametrize("op", [*NETWORK, OpSpec("head", 8, 1, 1, 3, hidden=4)], ids=lambda op: op.key)
def test_weights_are_the_counted_parameters_and_contexts_are_vectors(op):
    once, context = build_block_model(op), build_block_model(op, repeats=0)
    assert sum(w.numel() for w in weights_of(once)) - sum(w.numel() for w in weights_of(context)) == op.params
    assert not {"Conv", "Flatten", "MaxPool"} & set(op_histogram(once))
    assert OnnxRunner(context).outputs()[0].shape == (1, op.in_channels)
    if keeps_shape(op):
        five = sum(w.numel() for w in weights_of(build_block_model(op, repeats=5)))
        assert five == op.in_channels * (op.in_channels + 1) + 5 * op.params


def test_int8_and_larger_batches_run():
    assert OnnxRunner(quantise_model(build_network_model(NETWORK))).outputs()[0].shape == (1, 3)
    batch = [dataclasses.replace(op, batch=4) for op in NETWORK]
    assert OnnxRunner(build_network_model(batch)).outputs()[0].shape == (4, 3)


def test_the_shipped_work_list_covers_the_listed_tasks_and_their_reference():
    work = load_worklist("mlp")
    for features, actions in TASKS.values():
        space = mlp_space(MlpConfig(), (features,), actions)
        assert set(space.all_ops()) <= set(work.ops)
        assert set(reference_agents((features,), actions)["mlp-64x64"]) <= set(work.ops)
    assert len(work.networks) == 60 and len({tuple(network) for network in work.networks}) == 60


def test_its_rows_are_planned_once_each_and_every_model_is_built():
    work = load_worklist("mlp")
    plan = make_plan(work)
    assert sorted(row.op.key for row in plan.rows) == sorted(op.key for op in work.ops)
    assert {row.method for row in plan.rows} == {"chain", "tail", "head"}
    for name in {name for row in plan.rows for name in (row.more, row.less)}:
        assert len(plan.builders[name]()) > 100


def test_estimated_tables_hold_its_rows_as_kernels_of_the_roofline():
    work, spec = load_worklist("mlp"), load_spec("jetson")
    table = build_estimate(spec, work.ops)
    assert set(table.rows) == {op.key for op in work.ops}
    launch = spec.constants["launch_s"]["value"]
    assert table.rows[MLP64].latency_s == pytest.approx(2 * launch)  # two small kernels: bound by their launches
    assert find_table("jetson").predict(list(work.networks[0])).latency_s > 2 * launch


MLP64 = OpSpec("mlp", 64, 1, 1, 64, hidden=64, activation="tanh").key
