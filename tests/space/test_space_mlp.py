"""The mlp space and what surrounds an agent that reads vectors: shared weights, statistics, costs, folding, Gaussian ends."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.space.derive import Limit, derive, discretise
from cosearch.space.ends import LEAST_VARIANCE, AgentEnds
from cosearch.space.mlp import MlpConfig, mlp_space
from cosearch.space.network import AgentNetwork, mlp, reference_agents
from cosearch.space.operations import MLP_CANDIDATES, OPERATIONS, build_block
from cosearch.space.space import SPACES, architecture_from_dict
from cosearch.space.supernet import Path, SuperNet
from cosearch.testing.conformance import check_derived, check_operation, check_space, seeded
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, MissingOpError, ShapeError
from latency_tables.opspec import OpSpec

load_builtins()
SMALL = MlpConfig(stem_width=8, stage_widths=(8, 6), stage_repeats=(2, 1))
SPACE = mlp_space(SMALL, (5,), 3)


@pytest.mark.parametrize("policy", ["categorical", "gaussian"])
@pytest.mark.parametrize("features", [4, 1])
def test_the_space_conforms(policy, features):
    values = json.loads(json.dumps(dataclasses.asdict(SMALL)))
    space = check_space(SPACES.get("mlp"), values, (features,), 3, policy=policy)
    assert space.policy == policy and space.size == 9**3


@pytest.mark.parametrize("name", MLP_CANDIDATES)
def test_its_operations_conform(name):
    check_operation(OPERATIONS.get(name))


def test_blocks_compute_what_they_say():
    x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    block = build_block(OpSpec("mlp", 5, 1, 1, 5, hidden=9, activation="tanh"), seeded(0))
    w = {name: value.detach().numpy() for name, value in block.named_parameters()}
    hidden = np.tanh(x @ w["hidden.weight"].T + w["hidden.bias"])
    wanted = x + hidden @ w["outputs.weight"].T + w["outputs.bias"]
    np.testing.assert_allclose(block(torch.from_numpy(x)).detach(), wanted, atol=1e-5)
    for activation, function in (("relu", lambda v: np.maximum(v, 0)), ("tanh", np.tanh), ("none", lambda v: v)):
        layer = build_block(OpSpec("linear", 5, 1, 1, 3, activation=activation), seeded(0))
        plain = x @ layer.linear.weight.detach().numpy().T + layer.linear.bias.detach().numpy()
        np.testing.assert_allclose(layer(torch.from_numpy(x)).detach(), function(plain), atol=1e-5)


def test_a_block_that_changes_the_width_adds_nothing_and_a_skip_becomes_a_layer():
    names, specs = SPACE.points[2].candidates, SPACE.points[2].specs
    assert {(s.in_channels, s.out_channels) for s in specs} == {(8, 6)} and not any(s.sums_input for s in specs)
    assert specs[names.index("skip_layer")] == OpSpec("linear", 8, 1, 1, 6, activation="none")
    assert SPACE.points[0].specs[names.index("skip_layer")] is None
    assert OpSpec("mlp", 8, 1, 1, 8, hidden=4).sums_input


def test_a_table_without_its_rows_says_how_to_measure_them():
    with pytest.raises(MissingOpError, match=r"linear-5x1x1-o8.*latency_tables measure"):
        TableCost(SPACE, find_table("x86-server"), "latency_s")


def test_targets_are_met_exactly():
    cost = TableCost(SPACE, find_table("jetson"), "latency_s")
    rows = cost.candidate_costs()
    bound = cost.base + 1.01 * sum(sorted(max(row) for row in rows)[:2])
    chosen = discretise(SPACE, [[float(-i) for i in range(len(row))] for row in rows], Limit(rows, cost.base, bound))
    assert cost.exact(chosen) <= bound < cost.base + sum(max(row) for row in rows)


def test_supernet_and_derived_network_share_statistics_and_spread():
    space = dataclasses.replace(SPACE, policy="gaussian")
    supernet, frames = SuperNet(space, seeded(0)), torch.randn(6, 5, generator=seeded(1)) * 4 + 2
    supernet.ends.see(torch.randn(100, 5, generator=seeded(2)) * 3 + 1)
    with torch.no_grad():
        supernet.ends.log_std.copy_(torch.tensor([-1.0, 0.5, 0.0]))
    architecture = space.architecture([1, 3, 6])
    check_derived(supernet, architecture, frames)
    outputs, _ = derive(architecture, seeded(9), supernet)(frames)
    assert outputs[:, 3:].tolist() == [[-1.0, 0.5, 0.0]] * 6
    fresh = SuperNet(space, seeded(0))
    assert not torch.equal(fresh(frames, Path(((1,), (3,), (6,))))[0], outputs)  # without statistics it is another function


def test_the_spread_learns_and_is_used_by_every_path():
    supernet = SuperNet(dataclasses.replace(SPACE, policy="gaussian"), seeded(0))
    for choices in ((0, 0, 0), (8, 8, 8)):
        assert any(p is supernet.ends.log_std for p in supernet.used_parameters(Path(tuple((c,) for c in choices))))
    supernet(torch.randn(4, 5), Path(((0,), (0,), (0,))))[0].sum().backward()
    assert supernet.ends.log_std.grad.tolist() == [4.0, 4.0, 4.0]


def ends(features=3, policy="categorical"):
    return AgentEnds(OpSpec("linear", features, 1, 1, 4), OpSpec("head", 4, 1, 1, 3), policy)


def test_statistics_are_those_of_all_observations_however_they_come_in_parts():
    data = np.random.default_rng(0).normal([1e3, -2, 0], [5, 0.1, 30], (1200, 3)).astype(np.float32)
    one, many = ends(), ends()
    one.see(torch.from_numpy(data))
    for part in np.split(data, [1, 7, 500]):
        many.see(torch.from_numpy(part).reshape(len(part), 1, 3))
    for found in (one, many):
        np.testing.assert_allclose(found.mean, data.astype(np.float64).mean(0), rtol=1e-5)
        np.testing.assert_allclose(found.enter(torch.from_numpy(data)).std(0, unbiased=False), 1.0, rtol=1e-4)
    np.testing.assert_allclose(one.variance, many.variance, rtol=1e-4)


def test_an_observation_that_hardly_moves_is_not_blown_up_and_images_are_left_alone():
    still = ends(1)
    still.see(torch.zeros(10**5, 1))
    assert float(still.enter(torch.ones(1, 1))) <= LEAST_VARIANCE**-0.5
    images = AgentEnds(OpSpec("stem", 3, 8, 8, 4), OpSpec("head", 4, 8, 8, 3, hidden=4), "categorical")
    frames = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images.see(frames)
    assert images.enter(frames) is frames and not images.state_dict()


def test_folding_keeps_the_function_and_leaves_no_statistics_in_use():
    network = AgentNetwork(SPACE.architecture([0, 4, 2]).ops(), seeded(0))
    network.ends.see(torch.randn(50, 5, generator=seeded(3)) * torch.tensor([10, 1, 0.1, 3, 1]) + torch.tensor([5, 0, 1, -3, 0]))
    frames = torch.randn(20, 5, generator=seeded(4)) * 3
    before = network(frames)
    network.fold()
    after = network(frames)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[1], before[1], rtol=1e-4, atol=1e-4)
    assert network.ends.enter(frames) is frames
    network.fold()  # again: nothing left to fold
    assert torch.equal(network(frames)[0], after[0])


def test_the_reference_agent_for_vectors_is_the_64_64_mlp():
    agents = reference_agents((4,), 2)
    assert list(agents) == ["mlp-64x64"] and agents["mlp-64x64"] == mlp((4,), 2)
    assert sum(op.params for op in agents["mlp-64x64"]) == 4 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3
    outputs, value = AgentNetwork(mlp((4,), 2), seeded(0))(torch.randn(3, 4))
    assert outputs.shape == (3, 2) and value.shape == (3,)


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"stage_widths": (8,)}, ConfigError, "one entry a stage"),
        ({"stage_repeats": (0, 1)}, ConfigError, "at least 1"),
        ({"candidates": ("conv_k3",)}, ConfigError, "takes images"),
        ({"stem_width": 0}, ShapeError, "out_channels"),
        ({"stem_activation": "gelu"}, ShapeError, "activation"),
    ],
)
def test_values_that_make_no_space_are_refused(change, error, text):
    with pytest.raises(error, match=text):
        mlp_space(dataclasses.replace(SMALL, **change), (5,), 3)


def test_a_space_refuses_observations_that_it_does_not_take():
    with pytest.raises(ConfigError, match=r"'chain' takes frames, the task gives vectors .* choose mlp"):
        SPACES.get("chain").build({}, (4,), 2, "categorical")
    with pytest.raises(ConfigError, match="'mlp' takes vectors"):
        SPACES.get("mlp").build({}, (64, 64, 3), 2, "categorical")
    with pytest.raises(ShapeError, match="policy must be"):
        ends(policy="beta")


def test_a_gaussian_chain_on_images_is_possible():
    values = {"stage_channels": [4], "stage_repeats": [1], "stage_strides": [1], "stem_channels": 4, "hidden": 8}
    check_space(SPACES.get("chain"), values, (16, 16, 3), 2, samples=2, policy="gaussian")


def test_files_remember_the_policy_and_older_ones_mean_categorical():
    values = dataclasses.replace(SPACE, policy="gaussian").architecture([0, 0, 0]).to_dict()
    assert architecture_from_dict(json.loads(json.dumps(values))).space.policy == "gaussian"
    values.pop("policy")
    assert architecture_from_dict(values).space.policy == "categorical"


@pytest.mark.parametrize(
    "fields, text",
    [
        (("linear", 4, 2, 1, 4), "reads a vector"),
        (("mlp", 4, 1, 1, 4), "hidden of an mlp"),
        (("conv", 4, 1, 1, 4), "only act, linear, mlp have the activation tanh"),
        (("head", 4, 3, 5, 4, 3), "the kernel of a head is 1 or the longer side"),
    ],
)
def test_shapes_that_are_no_vector_operation_are_refused(fields, text):
    with pytest.raises(ShapeError, match=text):
        OpSpec(*fields, activation="tanh" if fields[0] == "conv" else "relu")
