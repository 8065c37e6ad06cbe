"""Agents that read vectors, and Gaussian ones, as files: raw observations in, the same outputs as the network, and how to act."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from cosearch.deploy.export import check_parity, export_agent, to_onnx
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.planning.builtins import load_builtins
from cosearch.record.results.agent import TensorRecord
from cosearch.rl.envs import Box, EnvOptions, make_env
from cosearch.rl.evaluate import evaluate
from cosearch.rl.policy import how_to_act
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.network import AgentNetwork, mlp
from cosearch.testing.conformance import seeded
from latency_tables.board.runners import OnnxRunner, op_histogram
from latency_tables.errors import ParityError, ShapeError

load_builtins()
SPACE = mlp_space(MlpConfig(stem_width=16, stage_widths=(16,), stage_repeats=(3,)), (3,), 1)


def network(policy="gaussian", choices=(1, 3, 4)):
    net = AgentNetwork(SPACE.architecture(choices).ops(), seeded(0), policy=policy)
    net.ends.see(torch.randn(200, 3, generator=seeded(1)) * torch.tensor([9.0, 0.2, 1.0]) + torch.tensor([4.0, 0.0, -1.0]))
    if policy == "gaussian":
        with torch.no_grad():
            net.ends.log_std.fill_(-0.7)
    with torch.no_grad():
        net.blocks[-1].outputs.weight.mul_(30)  # actions that differ visibly between observations
    return net


def observations(count=90, seed=2):
    return (torch.randn(count, 3, generator=seeded(seed)) * torch.tensor([9.0, 0.2, 1.0])).numpy()


@pytest.mark.parametrize("policy", ["categorical", "gaussian"])
def test_the_file_takes_raw_observations_and_gives_the_networks_outputs(tmp_path, policy):
    net, seen = network(policy), observations()
    exported = export_agent(net, tmp_path, seen)
    agent = OnnxAgent(tmp_path / "agent.onnx", threads=1)
    for batch in (1, 5, 90):
        mine, value = agent(torch.from_numpy(seen[:batch]))
        with torch.no_grad():
            wanted, wanted_value = net(torch.from_numpy(seen[:batch]))
        assert mine.shape == wanted.shape == (batch, 1 if policy == "categorical" else 2)
        torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(value, wanted_value, atol=1e-4, rtol=1e-4)
    outputs = ["mean", "log_std", "value"] if policy == "gaussian" else ["logits", "value"]
    assert [entry.name for entry in exported.outputs] == outputs
    assert exported.inputs == (TensorRecord(name="observations", dtype="float32", shape=("batch", 3)),)
    parity = exported.parity
    assert "folded" in exported.preprocessing and parity.greedy_agreement == 1.0 and 0 < parity.max_abs_difference < 1e-4


def test_the_statistics_cost_no_node():
    # one matrix product a linear layer and nothing for the normalisation: stem, layer, two of the block, two of the next, head
    found = op_histogram(to_onnx(network(), (3,)))
    assert found["Gemm"] == 7 and not {"Sub", "Div", "Mul", "Concat", "Expand", "Slice"} & (set(found) - {"Slice"})
    same = OnnxRunner(to_onnx(network("categorical"), (3,)))
    assert same.graph.get("Gemm", 0) + same.graph.get("FusedGemm", 0) == 7


def test_the_export_leaves_the_network_as_it_is():
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    to_onnx(net, (3,))
    assert net.ends.takes_vectors and all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("change", ["mean", "log_std", "statistics"])
def test_the_gate_sees_each_part_that_differs(change):
    net, other = network(), network()
    with torch.no_grad():
        if change == "mean":
            other.blocks[-1].outputs.bias[0] += 1e-3
        elif change == "log_std":
            other.ends.log_std += 1e-3
        else:
            other.ends.mean += 0.05
    check_parity(net, to_onnx(net, (3,)), observations())
    with pytest.raises(ParityError, match="differs from the network"):
        check_parity(net, to_onnx(other, (3,)), observations())


def test_a_gaussian_without_finite_means_is_not_exported():
    net = network()
    with torch.no_grad():
        net.blocks[-1].outputs.bias[0] = torch.nan
    with pytest.raises(ParityError, match="means are NaN or infinite on 90 of 90"):
        check_parity(net, to_onnx(network(), (3,)), observations())


@pytest.mark.parametrize("bad", [np.zeros((4, 3)), np.zeros((4, 3), np.uint8), np.zeros((0, 3), np.float32)])
def test_what_are_no_observations_is_refused(tmp_path, bad):
    with pytest.raises(ShapeError, match="features"):
        export_agent(network(), tmp_path, bad)


def test_file_and_network_play_the_same_episodes(tmp_path):
    net = network()
    (tmp_path / "agent.onnx").write_bytes(to_onnx(net, (3,)))
    agent = OnnxAgent(tmp_path / "agent.onnx", threads=1)
    scores = [
        evaluate(forward, make_env("gym:Pendulum-v1", EnvOptions(2, 3)), 2, seeded(7), greedy=greedy)
        for forward in (net, agent)
        for greedy in (False, True)
    ]
    assert scores[0].returns == pytest.approx(scores[2].returns, rel=0.02)  # chaotic: rounding grows over 200 steps
    assert scores[1].returns == pytest.approx(scores[3].returns, rel=0.02)
    assert scores[0].returns != scores[1].returns


def test_the_record_says_how_to_act():
    class Open:
        num_actions, action_box = 2, Box((-1.0, -np.inf), (1.0, np.inf))

    pendulum = how_to_act(make_env("gym:Pendulum-v1", EnvOptions(1, 0)))
    assert pendulum["policy"] == "gaussian" and pendulum["clip_low"] == [-2.0] and pendulum["clip_high"] == [2.0]
    assert how_to_act(Open())["clip_low"] == [-1.0, None] and how_to_act(Open())["clip_high"] == [1.0, None]
    assert how_to_act(make_env("gym:CartPole-v1", EnvOptions(1, 0)))["greedy"] == "argmax(logits)"


def two_actions(outputs_apart):
    """Two discrete actions of two and three values from three features, whose logits are that far apart."""
    net = AgentNetwork(mlp((3,), 5, (8,)), seeded(0), policy="multi_categorical").eval()
    with torch.no_grad():
        head = net.blocks[-1].outputs
        head.weight[:5] *= outputs_apart
        head.bias[:5] = 0
    return net


def turned(model):
    """The model with the signs of its logits turned: each action takes its worst value."""
    proto = onnx.load_model_from_string(model)
    for entry in proto.graph.initializer:
        values = numpy_helper.to_array(entry)
        if values.shape in ((6, 8), (8, 6)):
            rows = values.copy() if values.shape == (6, 8) else values.T.copy()
            rows[:5] *= -1
            entry.CopyFrom(numpy_helper.from_array(rows if values.shape == (6, 8) else np.ascontiguousarray(rows.T), entry.name))
    return proto.SerializeToString()


def test_each_of_several_discrete_actions_is_compared():
    net, frames = two_actions(1e-5), np.random.default_rng(0).normal(0, 1, (200, 3)).astype(np.float32)
    model = to_onnx(net, (3,))
    assert check_parity(net, model, frames, action_sizes=(2, 3)).greedy_agreement == 1.0
    with pytest.raises(ParityError, match=r"takes another greedy action than the network on \d+ of 200 observations"):
        check_parity(net, turned(model), frames, action_sizes=(2, 3))  # each logit is within the tolerance
    still = two_actions(0.0)  # all logits are equal
    assert check_parity(still, turned(to_onnx(still, (3,))), frames, action_sizes=(2, 3)).greedy_agreement == 1.0
    for sizes in ((), (2, 2), (5, 5)):
        with pytest.raises(ShapeError, match="action_sizes must add up to the 5 logits of several discrete actions"):
            check_parity(net, model, frames, action_sizes=sizes)
