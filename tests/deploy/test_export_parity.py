"""Export: the file is the network. The oracle is torch; each fault that the gate is for is planted and must be found."""

import copy
import hashlib
import os
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from cosearch.deploy import export
from cosearch.deploy.export import TOLERANCE, check_parity, export_agent, to_onnx
from cosearch.record.results.agent import TensorRecord
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.network import AgentNetwork, impala_cnn, nature_cnn
from latency_tables.errors import ParityError, RunFailedError, ShapeError

SHAPE, ACTIONS = (16, 16, 3), 5
CONFIG = ChainConfig(stem_channels=8, stage_channels=(8, 12), stage_repeats=(2, 1), stage_strides=(1, 2), hidden=16)
SPACE = chain_space(CONFIG, SHAPE, ACTIONS)
FRAMES = np.random.default_rng(0).integers(0, 256, (90, *SHAPE), np.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(choices=(2, 8, 0), seed=0):
    return AgentNetwork(SPACE.architecture(choices).ops(), generator(seed))


def each_architecture():
    yield "all-skip", SPACE.architecture([8, 8, 8]).ops(), SHAPE
    for seed in range(3):
        yield f"random-{seed}", SPACE.sample(generator(seed)).ops(), SHAPE
    yield "impala", impala_cnn(SHAPE, ACTIONS), SHAPE
    yield "nature", nature_cnn((36, 36, 4), ACTIONS), (36, 36, 4)


@pytest.mark.parametrize("name, ops, shape", list(each_architecture()), ids=lambda value: value if isinstance(value, str) else "")
def test_the_file_equals_the_network_at_every_batch_size(tmp_path, name, ops, shape):
    net = AgentNetwork(ops, generator(7))
    frames = np.random.default_rng(1).integers(0, 256, (80, *shape), np.uint8)
    parity = export_agent(net, tmp_path, frames).parity
    session = onnxruntime.InferenceSession(str(tmp_path / "agent.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 3, 80):  # not the sizes that the gate itself uses
        logits, value = session.run(["logits", "value"], {"frames": frames[:batch]})
        with torch.no_grad():
            expected_logits, expected_value = net(torch.from_numpy(frames[:batch]))
        assert logits.shape == (batch, ACTIONS) and value.shape == (batch,)
        np.testing.assert_allclose(logits, expected_logits.numpy(), atol=1e-5)
        np.testing.assert_allclose(value, expected_value.numpy(), atol=1e-4)
    assert parity.max_abs_difference <= TOLERANCE == parity.tolerance
    assert parity.greedy_agreement == 1.0 and parity.observations == 80 and parity.rounding_ties == 0
    assert {1, 2, 7, 64} <= set(parity.batch_sizes)


def test_the_record_says_what_the_file_is(tmp_path):
    (tmp_path / "agent.json").write_text("{}")  # of an older agent
    exported = export_agent(network(), tmp_path, FRAMES)
    data = (tmp_path / "agent.onnx").read_bytes()
    assert exported.parity.bytes == len(data) and exported.parity.sha256 == hashlib.sha256(data).hexdigest()
    assert exported.inputs == (TensorRecord(name="frames", dtype="uint8", shape=("batch", *SHAPE)),)
    assert exported.outputs == (
        TensorRecord(name="logits", dtype="float32", shape=("batch", ACTIONS)),
        TensorRecord(name="value", dtype="float32", shape=("batch",)),
    )
    proto = onnx.load_model_from_string(data)
    assert exported.parity.opset == 17 == proto.opset_import[0].version and proto.ir_version <= 10
    assert exported.preprocessing == "inside the graph: uint8 NHWC frames, scaled by 1/255"
    assert [path.name for path in tmp_path.iterdir()] == ["agent.onnx"]  # one file, no temporary one
    assert os.path.dirname(torch.__file__).encode() not in data and str(tmp_path).encode() not in data


def test_the_callers_network_is_not_altered(tmp_path):
    net = network().to(memory_format=torch.channels_last).train()
    before = copy.deepcopy(net.state_dict())
    strides = [p.stride() for p in net.parameters()]
    random_state = torch.get_rng_state()
    net(torch.from_numpy(FRAMES[:2]))[0].sum().backward()
    gradients = [p.grad for p in net.parameters()]
    export_agent(net, tmp_path, FRAMES)
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert [p.stride() for p in net.parameters()] == strides and strides != [p.contiguous().stride() for p in net.parameters()]
    assert all(a is p.grad for a, p in zip(gradients, net.parameters()))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_memory_format_and_dtype_do_not_change_the_file():
    plain = network()
    assert to_onnx(copy.deepcopy(plain).to(memory_format=torch.channels_last), SHAPE) == to_onnx(plain, SHAPE)
    assert to_onnx(copy.deepcopy(plain).double(), SHAPE) == to_onnx(plain, SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert check_parity(plain, to_onnx(plain, SHAPE), FRAMES).max_abs_difference < 1e-5


def alter(net, how):
    """The exporter, but of a network that was altered."""
    changed = copy.deepcopy(net)
    with torch.no_grad():
        how(changed)
    return lambda *args: to_onnx(changed, SHAPE)


def swap_two_actions(net):
    rows = net.blocks[-1].outputs.weight
    rows[[0, 1]] = rows[[1, 0]].clone()


@pytest.mark.parametrize(
    "how",
    [
        lambda net: net.blocks[-1].outputs.bias[2:3].add_(3e-4),  # one logit, just above the tolerance
        lambda net: net.blocks[-1].outputs.bias[-1:].add_(1e-3),  # the value alone
        lambda net: net.blocks[0].conv.weight.mul_(1.01),
        swap_two_actions,
    ],
    ids=["logit", "value", "stem", "swapped-actions"],
)
def test_another_network_fails_the_gate_and_leaves_no_file(tmp_path, monkeypatch, how):
    net = network()
    export_agent(net, tmp_path, FRAMES)  # an older agent lies there: it must go as well
    monkeypatch.setattr(export, "to_onnx", alter(net, how))
    with pytest.raises(ParityError, match="differs from the network"):
        export_agent(net, tmp_path, FRAMES)
    assert list(tmp_path.iterdir()) == []


def set_outputs(net, logits):
    """Outputs that do not depend on the frames."""
    with torch.no_grad():
        net.blocks[-1].outputs.weight.zero_()
        net.blocks[-1].outputs.bias[:-1] = torch.tensor(logits)
    return net


def test_another_greedy_action_fails_although_the_numbers_agree():
    ours = set_outputs(network(), [0.0, 0.5, 0.5 - 4e-5, 0.0, 0.0])
    theirs = set_outputs(network(), [0.0, 0.5, 0.5 + 4e-5, 0.0, 0.0])
    with pytest.raises(ParityError, match="another greedy action than the network on 90 of 90 observations, first on number 0"):
        check_parity(ours, to_onnx(theirs, SHAPE), FRAMES)


def test_a_tie_that_float32_cannot_decide_is_counted_and_not_fatal():
    # the network's two best logits are equal; in the file the second one is one float32 step above the first
    net = set_outputs(network(), [0.0, 0.25, 0.25, 0.0, 0.0])
    proto = onnx.load_model_from_string(to_onnx(net, SHAPE))
    bias = next(t for t in proto.graph.initializer if t.name == "blocks.3.outputs.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[2] = np.nextafter(np.float32(0.25), np.float32(1))
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    found = check_parity(net, proto.SerializeToString(), FRAMES)
    assert found.rounding_ties == len(FRAMES) and found.greedy_agreement == 0.0 and found.max_abs_difference < 1e-7


@pytest.mark.parametrize("gap, rounding", [(1.9e-7, True), (2.1e-7, False), (0.0, True)])
def test_a_gap_is_rounding_up_to_twice_the_networks_own_error(gap, rounding):
    exact = np.array([0.0, 0.5, 0.5 - gap])
    ours, theirs = exact + np.array([1e-7, 0.0, 0.0]), np.array([0.0, 0.5, 0.6])  # of float32 the first logit is off by 1e-7
    assert export._is_rounding(exact, ours, theirs) is rounding


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, -1], ids=["logit", "value"])
def test_a_network_that_is_not_finite_is_refused(tmp_path, bad, place):
    net = network()
    with torch.no_grad():
        net.blocks[-1].outputs.bias[place] = bad
    with pytest.raises(ParityError, match=f"{'value' if place else 'logits'} are NaN or infinite on 90 of 90"):
        export_agent(net, tmp_path, FRAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_finite_fails():
    broken = network()
    with torch.no_grad():
        broken.blocks[-1].outputs.bias[0] = float("nan")
    with pytest.raises(ParityError, match="differs from the network by nan"):
        check_parity(network(), to_onnx(broken, SHAPE), FRAMES)


class FixedBatch(nn.Module):
    """Its batch size becomes a constant of the trace."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(SHAPE[0] * SHAPE[1] * SHAPE[2], ACTIONS)

    def forward(self, frames):
        count = int(frames.shape[0])
        x = self.linear(frames.float().reshape(count, -1) / 255)
        return x, x.sum(1)


class WrongShape(FixedBatch):
    def forward(self, frames):
        x = self.linear(frames.float().flatten(1) / 255)
        return x, x.sum(1, keepdim=torch.onnx.is_in_onnx_export())


def test_a_batch_size_that_became_a_constant_fails():
    with pytest.raises(ParityError, match="cannot run a batch of 1 frames"):
        check_parity(FixedBatch(), to_onnx(FixedBatch(), SHAPE), FRAMES)


def test_a_value_of_another_shape_fails():
    net = WrongShape()
    with pytest.raises(ParityError, match=r"value \[90, 1\], the network \[90, 5\] and \[90\]"):
        check_parity(net, to_onnx(net, SHAPE), FRAMES)


class Unknown(nn.Module):
    def forward(self, frames):
        return torch.special.erfinv(frames.float().mean((1, 2))), frames.float().mean((1, 2, 3))


def test_a_network_that_cannot_be_exported_is_a_failed_run_and_leaves_nothing(tmp_path):
    with pytest.raises(RunFailedError, match="cannot be exported as ONNX"):
        export_agent(Unknown(), tmp_path, FRAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "frames, got",
    [
        (FRAMES.astype(np.float32), r"float32 \[90, 16, 16, 3\]"),
        (FRAMES[0], r"uint8 \[16, 16, 3\]"),
        (FRAMES[:0], r"uint8 \[0"),
        ([1], "list"),
    ],
)
def test_other_observations_are_refused_and_an_older_agent_stays(tmp_path, frames, got):
    export_agent(network(), tmp_path, FRAMES[:3])
    with pytest.raises(ShapeError, match=got):
        export_agent(network(), tmp_path, frames)
    assert (tmp_path / "agent.onnx").exists()


def test_frames_may_lie_anyhow_in_memory():
    strided = np.ascontiguousarray(FRAMES.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    net = network()
    model = to_onnx(net, SHAPE)
    assert check_parity(net, model, strided) == check_parity(net, model, FRAMES)


def test_nothing_is_said_while_exporting(capfd, caplog):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        to_onnx(network(), SHAPE)
    assert [str(w.message) for w in seen] == [] and capfd.readouterr() == ("", "") and caplog.records == []


def test_export_leaves_nothing_in_the_home_folder(tmp_path):
    code = (
        "import numpy as np, torch, pathlib\n"
        "from cosearch.deploy.export import export_agent\nfrom cosearch.space.network import AgentNetwork, impala_cnn\n"
        "net = AgentNetwork(impala_cnn((8, 8, 3), 2, (4,)), torch.Generator().manual_seed(0))\n"
        "export_agent(net, pathlib.Path('out'), np.zeros((2, 8, 8, 3), np.uint8))\n"
    )
    home = tmp_path / "home"
    for folder in (home, tmp_path / "out"):
        folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    environment.update(HOME=str(home), PYTHONPATH=os.pathsep.join(sys.path), PYTHONDONTWRITEBYTECODE="1")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()] == []
    assert (tmp_path / "out/agent.onnx").is_file()
