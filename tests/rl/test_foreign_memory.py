"""Foreign policies with a memory: steps in order, cleared where episodes begin, taught from and played as they are."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from policy_files import FEATURES, Linear, saved

from cosearch.rl.envs import Box
from cosearch.rl.foreign.opening import network_of
from cosearch.rl.foreign.readers import read_policy
from cosearch.rl.foreign.remembering import RememberingNetwork
from cosearch.rl.foreign.understood import Said, TaskFacts
from cosearch.rl.memory import Carried, Segments
from cosearch.rl.policy import Gaussian
from cosearch.rl.rollout import Rollout
from cosearch.rl.teacher import Teacher, find_teacher
from latency_tables.errors import ConfigError

SIZE, HIDDEN = 2, 5
TASK = TaskFacts("arm", (FEATURES,), SIZE, Box((-1.0, -1.0), (1.0, 1.0)))
LAYERS = {"W": Linear(FEATURES, HIDDEN, 0).w, "U": Linear(HIDDEN, HIDDEN, 1).w, "V": Linear(HIDDEN, SIZE, 2).w}


def elman(rows, *, states=True):
    """h' = tanh(x W + h U), actions = h' V, in the layout of rsl_rl: ``obs``, ``h_in`` -> ``actions``, ``h_out``."""
    nodes = [
        helper.make_node("Squeeze", ["h_in", "axis"], ["h"]),
        helper.make_node("MatMul", ["obs", "W"], ["seen"]),
        helper.make_node("MatMul", ["h", "U"], ["kept"]),
        helper.make_node("Add", ["seen", "kept"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("MatMul", ["next", "V"], ["actions"]),
        helper.make_node("Unsqueeze", ["next", "axis"], ["h_out"]),
    ]
    taken = {"obs": [rows, FEATURES], "h_in": [1, rows, HIDDEN]}
    given = {"actions": [rows, SIZE], **({"h_out": [1, rows, HIDDEN]} if states else {})}
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in part.items()] for part in (taken, given)
    )
    constants = [numpy_helper.from_array(array, name) for name, array in {**LAYERS, "axis": np.array([0])}.items()]
    graph = helper.make_graph(nodes, "memory", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_hand(x, begins):
    """Actions ``[time, envs, size]`` and the last memory, from the definition."""
    h, found = np.zeros((x.shape[1], HIDDEN)), []
    for t in range(len(x)):
        h = np.where(begins[t][:, None], 0, h)
        h = np.tanh(x[t] @ LAYERS["W"] + h @ LAYERS["U"])
        found.append(h @ LAYERS["V"])
    return np.stack(found), h


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, "batch"])
def test_a_memory_goes_from_step_to_step_and_is_cleared_where_episodes_begin(tmp_path, rows):
    policy = read_policy(saved(tmp_path / "p.onnx", elman(rows)), TASK, Said())
    known = policy.understood
    assert [(s.taken, s.given) for s in known.states] == [("h_in", "h_out")] and known.batch == ("one" if rows == 1 else "free")
    network = network_of(tmp_path, policy.content, known)
    assert isinstance(network, RememberingNetwork) and network.memory_size == HIDDEN
    random = np.random.default_rng(0)
    x, begins = random.normal(0, 1, (6, 3, FEATURES)).astype(np.float32), random.random((6, 3)) < 0.3
    frames = torch.from_numpy(x).flatten(0, 1)
    actions, value, memory = network.unroll(frames, torch.zeros(3, HIDDEN), torch.from_numpy(begins))
    wanted, last = by_hand(x, begins)
    close(actions.view(6, 3, SIZE).numpy(), wanted)
    close(memory.numpy(), last)
    assert value.isnan().all()
    first, _, kept = network.unroll(frames[:9], torch.zeros(3, HIDDEN), torch.from_numpy(begins[:3]))  # in two pieces
    second = network.unroll(frames[9:], kept, torch.from_numpy(begins[3:]))[0]
    torch.testing.assert_close(torch.cat([first, second]), actions)


def test_a_memory_plays_and_teaches_without_values(tmp_path):
    policy = read_policy(saved(tmp_path / "p.onnx", elman(1)), TASK, Said())
    stored = tmp_path / "stored.onnx"
    stored.write_bytes(policy.stored())
    record = find_teacher(str(stored), "arm")
    teacher = Teacher(record, device=torch.device("cpu"), bf16=False, frame_shape=(FEATURES,), num_actions=SIZE)
    x = np.random.default_rng(1).normal(0, 1, (4, 2, FEATURES)).astype(np.float32)
    begins = np.zeros((5, 2), bool)
    begins[2, 1] = begins[4, 0] = True
    wanted, last = by_hand(x, begins)
    actor = Carried(teacher.plays, 2)
    for t in range(4):
        actor.forget(begins[t])
        close(actor(torch.from_numpy(x[t]))[0][:, :SIZE].numpy(), wanted[t])
    empty = torch.zeros(4, 2)
    segments = Segments(torch.from_numpy(begins), None)
    vectors = torch.zeros(4, 2, SIZE)
    rollout = Rollout(torch.from_numpy(x), vectors, empty, empty, empty, empty, policy=Gaussian(SIZE), segments=segments)
    assert teacher.labelling(None) is None
    memory = teacher.label(rollout)
    close(rollout.teacher_policy.numpy(), wanted)
    assert rollout.teacher_value is None and record.is_greedy
    close(memory.numpy(), np.where(begins[4][:, None], 0, last))


def test_a_memory_that_does_not_come_out_again_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected the next one among its outputs.*got none\. Export both"):
        read_policy(saved(tmp_path / "p.onnx", elman(1, states=False)), TASK, Said())
    onnx.checker.check_model(elman("batch"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_recurrent_exporter_of_rsl_rl(tmp_path, kind):
    models = pytest.importorskip("rsl_rl.models", reason="rsl-rl-lib is not installed")
    from tensordict import TensorDict

    torch.manual_seed(0)
    x = np.random.default_rng(2).normal(0, 1, (5, 1, FEATURES)).astype(np.float32)

    def seen(row):
        return TensorDict({"policy": torch.from_numpy(row)}, batch_size=[1])

    sizes = {"hidden_dims": [8], "rnn_type": kind, "rnn_hidden_dim": 6, "rnn_num_layers": 2}
    gaussian = {"class_name": "GaussianDistribution"}
    model = models.RNNModel(seen(x[0]), {"actor": ["policy"]}, "actor", SIZE, **sizes, distribution_cfg=gaussian).eval()
    made, path = model.as_onnx(verbose=False).eval(), tmp_path / "policy.onnx"
    names = {"input_names": made.input_names, "output_names": made.output_names}
    torch.onnx.export(made, made.get_dummy_inputs(), str(path), dynamo=False, opset_version=17, **names)
    with torch.no_grad():
        wanted = [model(seen(row), stochastic_output=False).numpy() for row in x]
    policy = read_policy(path, TASK, Said())
    network, parts = network_of(path, policy.content, policy.understood), 2 if kind == "lstm" else 1
    assert len(policy.understood.states) == parts and network.memory_size == 12 * parts
    found = network.unroll(torch.from_numpy(x).flatten(0, 1), torch.zeros(1, network.memory_size))[0]
    close(found.numpy(), np.concatenate(wanted))
