"""Exported agents with a memory: whole episodes in ONNX Runtime, the bundle's programs, and what the records say of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundle_run import episode_begins, make_run, network, observations, runner, spoil_array
from onnx import numpy_helper

from cosearch.api import load_agent
from cosearch.deploy.bundle.folder import BundleOptions, rewrite_bundle
from cosearch.deploy.export import check_parity, to_onnx
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.rl.memory import Carried, recurrent
from cosearch.space.network import AgentNetwork
from cosearch.testing.conformance import seeded
from latency_tables.errors import ParityError, RunFolderError, ShapeError
from latency_tables.opspec import OpSpec

BEGINS = episode_begins()
SEEN = observations("memory").reshape(30, 3, 3)
KINDS = {
    "gru": {"hidden": 6, "activation": "none"},
    "lstm": {"hidden": 5, "activation": "none"},
    "stack": {"groups": 3, "activation": "tanh"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose agent has a memory, with its bundle."""
    return make_run(tmp_path_factory.mktemp("memory") / "run", "memory")


def played(net):
    """Logits ``[30, 3, 4]`` and memories ``[30, 3, 10]`` of the network in torch, step by step."""
    memory, logits, memories = torch.zeros(3, net.memory_size), [], []
    with torch.no_grad():
        for frames, begins in zip(SEEN, BEGINS):
            memory = memory * torch.from_numpy(~begins[:, None])
            found, _, memory = net.unroll(torch.from_numpy(frames), memory)
            logits.append(found.numpy())
            memories.append(memory.numpy())
    return np.stack(logits), np.stack(memories)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["categorical", "gaussian"])
def test_the_file_is_the_network_over_whole_episodes(kind, policy):
    ops = [OpSpec("linear", 3, 1, 1, 8, activation="tanh"), OpSpec(kind, 8, 1, 1, 8, **KINDS[kind])]
    net = AgentNetwork([*ops, OpSpec("head", 8, 1, 1, 4, activation="none")], seeded(0), policy=policy).eval()
    net.ends.see(torch.randn(50, 3, generator=seeded(9)) * 2 + 1)
    model = to_onnx(net, (3,))
    record = check_parity(net, model, SEEN.reshape(90, 3), BEGINS)
    assert record.episodes == BEGINS.sum() > 5 and record.batch_sizes == (1, 2) and record.max_abs_difference < 1e-5
    types = [node.op_type for node in onnx.load_model_from_string(model).graph.node]
    assert types.count(kind.upper()) == (kind != "stack")  # one operator of the runtime's own


def test_a_file_that_forgets_or_never_forgets_does_not_pass():
    net = network("memory")
    model = onnx.load_model_from_string(to_onnx(net, (3,)))
    check_parity(net, model.SerializeToString(), SEEN.reshape(90, 3), BEGINS)
    forgets = onnx.ModelProto()
    forgets.CopyFrom(model)
    for node in forgets.graph.node:  # the cell starts from zeros at each call
        if node.op_type == "LSTM":
            node.input[5], node.input[6] = "", ""
    with pytest.raises(ParityError, match="differs from the network"):
        check_parity(net, forgets.SerializeToString(), SEEN.reshape(90, 3), BEGINS)
    stale = onnx.ModelProto()
    stale.CopyFrom(model)
    for weight in stale.graph.initializer:  # another recurrent weight shows from the second step of an episode on alone
        if list(weight.dims) == [1, 20, 5]:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
    check_parity(net, stale.SerializeToString(), SEEN[0], np.ones((1, 3), bool))
    with pytest.raises(ParityError, match="differs from the network"):
        check_parity(net, stale.SerializeToString(), SEEN.reshape(90, 3), BEGINS)


def test_the_record_names_the_memory_and_its_first_values(run):
    record = json.loads((run.path / "agent.json").read_text())
    assert record["memory"] == {"input": "memory", "output": "next_memory", "initial": [0.0] * 10}
    assert [entry["name"] for entry in record["inputs"]] == ["observations", "memory"]
    assert record["parity"]["episodes"] == BEGINS.sum()
    contract = json.loads((run.path / "agent" / "contract.json").read_text())
    assert (contract["memory_input"], contract["memory_output"]) == ("memory", "next_memory")
    assert contract["memory_initial"] == [0.0] * 10 and contract["stored_outputs"] == ["logits", "value", "next_memory"]


def test_an_exported_agent_is_a_recurrent_actor(run):
    agent, wanted = OnnxAgent(run.path / "agent.onnx", 1), played(network("memory"))[0]
    assert recurrent(agent) is agent and agent.memory_size == 10
    player = Carried(agent, 3)
    for t in range(30):
        player.forget(BEGINS[t])
        np.testing.assert_allclose(player(torch.from_numpy(SEEN[t]))[0], wanted[t], atol=1e-4)
    with pytest.raises(ShapeError, match="one step at a time"):
        agent.unroll(torch.from_numpy(SEEN[0]), player.memory, torch.zeros(1, 3, dtype=torch.bool))


def test_a_loaded_agent_remembers_until_it_is_reset(run):
    agent, wanted = load_agent(run.path), played(network("memory"))[0]
    assert agent.has_memory
    for t in range(30):
        agent.reset(ended=BEGINS[t])
        np.testing.assert_allclose(agent.outputs(SEEN[t])["logits"], wanted[t], atol=1e-4)
    with pytest.raises(ShapeError, match="remembers 3 episodes, got 1 observations: call reset"):
        agent(SEEN[0, 0])
    with pytest.raises(ShapeError, match="ended has the shape"):
        agent.reset(ended=[True])
    agent.reset()
    first = agent.outputs(SEEN[0, :1])["logits"]
    assert "next_memory" not in agent.outputs(SEEN[0, :1])
    assert not np.allclose(agent.outputs(SEEN[0, :1])["logits"], first, atol=1e-4)
    agent.reset(0)
    np.testing.assert_array_equal(agent.outputs(SEEN[0, :1])["logits"], first)


def test_the_bundles_program_carries_and_clears_the_memory(run, tmp_path):
    folder = Path(shutil.copytree(run.path / "agent", tmp_path / "agent"))
    space, wanted = runner(folder), played(network("memory"))[0]
    agent = space["Agent"](str(folder))
    assert space["self_test"](agent).startswith("ok: 30 observations")
    assert np.load(folder / "self_test" / "begins.npy").tolist() == BEGINS[:, 0].tolist()
    agent.reset()
    for t in range(30):
        if BEGINS[t, 0]:
            agent.reset()
        np.testing.assert_allclose(agent.outputs(SEEN[t, :1])["logits"], wanted[t, :1], atol=1e-4)
        agent.warm_up()  # is not remembered
    with pytest.raises(space["AgentError"], match="remembers 1 episodes, got 2 observations: reset it"):
        agent.act(SEEN[0, :2])
    spoil_array(folder, "begins", lambda flags: flags * 0)  # episodes that are not begun: another memory
    with pytest.raises(space["AgentError"], match="differs by"):
        space["self_test"](space["Agent"](str(folder)))
    (folder / "self_test" / "begins.npy").unlink()
    with pytest.raises(space["AgentError"], match="cannot be read"):
        space["self_test"](space["Agent"](str(folder)))


def test_a_bundle_is_written_again_with_its_episodes_and_actions_inside(run, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "run")
    other = type(run).open(folder)
    rewrite_bundle(other, BundleOptions(actions="greedy"))
    space = runner(folder / "agent")
    agent = space["Agent"](str(folder / "agent"))
    assert space["self_test"](agent).startswith("ok: 30 observations")
    agent.reset()
    greedy = [int(agent.outputs(SEEN[t, :1])["action"][0]) for t in range(5) if agent.reset() is None]
    assert greedy == [
        int(network("memory").unroll(torch.from_numpy(SEEN[t, :1]), torch.zeros(1, 10))[0].argmax()) for t in range(5)
    ]
    assert not (folder / "agent" / "policy.onnx").exists()


def test_a_file_and_a_record_that_disagree_about_the_memory_are_refused(run, tmp_path):
    folder = Path(shutil.copytree(run.path, tmp_path / "run"))
    content = json.loads((folder / "agent.json").read_text())
    del content["memory"]
    (folder / "agent.json").write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"takes \['memory'\] beside the observations"):
        load_agent(folder)
