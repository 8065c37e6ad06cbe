"""The mlp space and what surrounds an agent that reads vectors: shared weights, statistics, costs, folding, Gaussian ends."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import Limit, derive, discretise
from cosearch.space.ends import LEAST_VARIANCE, AgentEnds
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.network import AgentNetwork, mlp, reference_agents
from cosearch.space.operations import MLP_CANDIDATES, OPERATIONS, build_block
from cosearch.space.space import SPACES, architecture_from_dict
from cosearch.space.supernet import Path, SuperNet
from cosearch.testing.conformance import check_derived, check_operation, check_space, seeded
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, MissingOpError, NonFiniteError, ShapeError
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


@given(
    st.lists(st.integers(-14, 15), min_size=3, max_size=3),
    st.sampled_from([0.0, 1.0, -30.0, 3e4]),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_the_unit_of_an_observation_does_not_matter(powers, offset, seed):
    """Times any power of two the same numbers come out, bit for bit; of ten to within rounding."""
    data = torch.randn(500, 3, generator=seeded(seed)) + offset
    plain, doubled, other = ends(), ends(), ends()
    plain.see(data)
    doubled.see(data * 2.0 ** torch.tensor(powers))
    assert torch.equal(doubled.enter(data * 2.0 ** torch.tensor(powers)), plain.enter(data))
    unit = 10.0 ** torch.tensor(powers, dtype=torch.float64)
    scaled = (data.double() * unit).float()
    other.see(scaled)
    torch.testing.assert_close(other.enter(scaled), plain.enter(data), rtol=1e-3, atol=1e-3 * max(1.0, abs(offset) / 10))


@given(st.floats(-1e15, 1e15))
@example(25.0)
@example(775.0)
@example(101325.0)
@example(0.0)
@example(0.1)
@settings(deadline=None)
def test_a_feature_that_stands_still_says_nothing_and_is_not_blown_up(value):
    still = ends(1)
    for count in (1, 7, 1000):
        still.see(torch.full((count, 1), value))
    assert float(still.scale()) == 0.0 and float(still.enter(torch.full((1, 1), value * 2 + 1))) == 0.0
    still.see(torch.full((9000, 1), float(np.float32(value) * np.float32(1.001)) + 1.0))  # and then it moves
    assert float(still.scale()) > 0.0


def test_networks_of_before_keep_the_floor_that_they_learned_with():
    new = ends(2)
    new.see(torch.tensor([[0.0, 25.0], [2e-3, 25.0]]))
    assert new.scale().tolist() == [pytest.approx(1e3), 0.0]
    saved = {key: value for key, value in new.state_dict().items() if key != "relative"}
    old = ends(2)
    old.load_state_dict(saved)
    assert old.scale().tolist() == [LEAST_VARIANCE**-0.5] * 2
    again = ends(2)
    again.load_state_dict(old.state_dict())
    assert again.scale().tolist() == old.scale().tolist()
    newer = ends(2)
    newer.load_state_dict(new.state_dict())
    assert newer.scale().tolist() == new.scale().tolist()


def test_observations_whose_squares_overflow_are_refused():
    with pytest.raises(NonFiniteError, match=r"squares do not fit into float32, the largest is 1e\+25"):
        ends(1).see(torch.tensor([[1e25], [-1e25]]))


def test_images_are_left_alone():
    images = AgentEnds(OpSpec("stem", 3, 8, 8, 4), OpSpec("head", 4, 8, 8, 3, hidden=4), "categorical")
    frames = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images.see(frames)
    assert images.enter(frames) is frames and not images.state_dict()


@given(st.floats(-1e6, 1e6), st.integers(-9, 9), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_folding_keeps_the_function_whatever_mean_and_unit_an_observation_has(offset, power, seed):
    """``offset``: the mean in standard deviations. One feature stands still."""
    network = AgentNetwork(SPACE.architecture([0, 4, 2]).ops(), seeded(seed))
    data = ((torch.randn(200, 5, generator=seeded(seed)).double() + offset) * 10.0**power).float()
    data[:, 4] = 25.0
    network.ends.see(data)
    network.requires_grad_(False)
    before = network(data)
    network.fold()
    for ours, theirs in zip(network(data), before):
        assert float((ours - theirs).abs().max()) <= 5e-5 * max(1.0, float(theirs.abs().max()))
    folded = abs(offset) < 200
    assert network.ends.takes_vectors is not folded or 200 <= abs(offset) <= 300


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
        (("conv", 4, 1, 1, 4), "only act, linear, mlp, revmlp, stack have the activation tanh"),
        (("head", 4, 3, 5, 4, 3), "the kernel of a head is 1 or the longer side"),
    ],
)
def test_shapes_that_are_no_vector_operation_are_refused(fields, text):
    with pytest.raises(ShapeError, match=text):
        OpSpec(*fields, activation="tanh" if fields[0] == "conv" else "relu")
