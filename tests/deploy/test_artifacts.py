"""The forms of an exported agent: int8 scales by hand, layers restored by loss, agreement in closed form, libraries of TVM."""

import shutil
import struct
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from cosearch.deploy.artifacts.agreement import compare_outputs, outputs_of
from cosearch.deploy.artifacts.compiled import check_library, compile_agent, described, with_batch
from cosearch.deploy.artifacts.quantised import KL_TOLERANCE, Quantiser, digest_of
from cosearch.deploy.export import to_onnx
from cosearch.space.network import AgentNetwork
from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import MeasurementError, ParityError
from latency_tables.opspec import OpSpec

SIDE = 12
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (96, SIDE, SIDE, 3), np.uint8)


def network(channels=6):
    ops = [
        OpSpec("stem", 3, SIDE, SIDE, channels, 3, 1, 1),
        OpSpec("conv", channels, SIDE, SIDE, channels, 3, 1, 1, activation="none"),
        OpSpec("head", channels, SIDE, SIDE, 4, hidden=8),
    ]
    net = AgentNetwork(ops, torch.Generator().manual_seed(0)).eval()
    net.blocks[2].outputs.weight.data.mul_(30)  # a new agent has hardly a preference; a trained one has
    return net


def quantiser(model, greedy=False):
    return Quantiser(model, FRAMES[:64], FRAMES[64:], greedy=greedy)


def test_weights_and_activations_have_the_scales_that_their_ranges_ask_for():
    """Weights: 254 steps between minus and plus the greatest of a channel. Activations: 255 steps over range and zero."""
    net = network()
    form = quantiser(to_onnx(net, (SIDE, SIDE, 3))).make()
    graph = onnx.load_model_from_string(form.model).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    convolution = next(node for node in graph.node if node.op_type == "Conv" and "blocks.1" in node.name)
    weight = makers[convolution.input[1]]
    expected = net.blocks[1].conv.weight.detach().numpy()
    scales = np.abs(expected).reshape(len(expected), -1).max(axis=1) * 2 / 254
    assert constants[weight.input[1]] == pytest.approx(scales, rel=1e-5)
    rounded = np.clip(np.round(expected / scales[:, None, None, None]), -127, 127)
    assert np.abs(constants[weight.input[0]].astype(int) - rounded).max() <= 1
    read = makers[convolution.input[0]]
    with torch.no_grad():
        seen = net.blocks[0](torch.from_numpy(FRAMES[:64])).numpy()
    assert constants[read.input[1]] == pytest.approx((seen.max() - min(0.0, seen.min())) / 255, rel=1e-4)
    assert constants[read.input[2]] == 0 and constants[read.input[2]].dtype == np.uint8


def test_observations_and_outputs_stay_as_they_are_for_any_batch():
    model = to_onnx(network(), (SIDE, SIDE, 3))
    form = quantiser(model).make()
    ours, theirs = outputs_of(model, FRAMES), outputs_of(form.model, FRAMES)
    assert {name: value.shape for name, value in theirs.items()} == {"logits": (96, 3), "value": (96,)}
    assert all(value.dtype == np.float32 for value in theirs.values())
    assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < 0.1 * np.abs(ours["logits"]).max()
    assert form.agreement.kl < 0.005 and "QLinearConv" in OnnxRunner(form.model, batch=5).graph
    assert len(np.unique(theirs["logits"])) > 200  # never rounded to the scale of the value, which leaves the head beside them
    assert {entry.domain for entry in onnx.load_model_from_string(form.model).opset_import} <= {"", "ai.onnx"}


def test_layers_go_back_to_float32_until_the_loss_is_within_the_tolerance(monkeypatch):
    model = to_onnx(network(), (SIDE, SIDE, 3))
    made = quantiser(model)
    assert len(made.layers) == 4
    whole = made.make()
    monkeypatch.setattr("cosearch.deploy.artifacts.quantised.KL_TOLERANCE", whole.loss * 2)
    assert made.within_tolerance()[0].float_layers == () and made.within_tolerance()[1] == []
    monkeypatch.setattr("cosearch.deploy.artifacts.quantised.KL_TOLERANCE", 0.0)
    form, order = made.within_tolerance()
    assert [loss for _, loss in order] == sorted(loss for _, loss in order) and len(order) == 4
    assert form.float_layers == tuple(name for name, _ in order) and form.loss == 0.0 and form.model == model
    alone = made.make((order[0][0],))
    assert alone.loss == order[0][1] and order[0][0] in alone.float_layers
    between = made.make(tuple(name for name, _ in order[:3]))
    kept = [node.name for node in onnx.load_model_from_string(between.model).graph.node if node.op_type in ("Conv", "Gemm")]
    assert set(kept) == set(made.layers)


def test_a_greedy_agent_is_held_to_its_actions_and_a_sampling_one_to_its_policy():
    model = to_onnx(network(), (SIDE, SIDE, 3))
    sampling, greedy = quantiser(model), quantiser(model, greedy=True)
    form = sampling.make(), greedy.make()
    assert form[0].loss == form[0].agreement.kl and sampling.tolerance == KL_TOLERANCE
    assert form[1].loss == 1 - form[1].agreement.greedy and greedy.tolerance == 0.02
    assert digest_of(FRAMES) != digest_of(FRAMES[::-1]) and digest_of(FRAMES) == digest_of(FRAMES.copy(order="F"))


def test_agreement_in_closed_form():
    ours = {"logits": np.log(np.array([[0.5, 0.5], [0.9, 0.1]])), "value": np.array([0.0, 1.0])}
    theirs = {"logits": np.log(np.array([[0.25, 0.75], [0.9, 0.1]])), "value": np.array([0.5, 1.0])}
    found = compare_outputs(ours, theirs)
    assert found.kl == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2) and found.greedy == 0.5
    assert (found.value_error, found.observations) == (0.25, 2)
    two = {"logits": np.array([[8.0, 0.0, 3.0, 0.0]]), "value": np.zeros(1)}  # two actions of two
    flipped = compare_outputs(two, {**two, "logits": np.array([[8.0, 0.0, 0.0, 3.0]])}, (2, 2))
    assert flipped.greedy == 0.0 and flipped.kl == pytest.approx(3.0 * (1 - 2 / (1 + np.exp(3.0))))
    shifted = compare_outputs(two, {**two, "logits": np.array([[8.0, 0.0, 11.0, 8.0]])}, (2, 2))
    assert shifted.greedy == 1.0 and shifted.kl == pytest.approx(0.0, abs=1e-9)
    spread = np.log(np.array([2.0, 1.0]))
    means = {"mean": np.array([[1.0, 0.0]]), "log_std": spread, "value": np.zeros(1)}
    moved = {"mean": np.array([[3.0, 1.0]]), "log_std": spread, "value": np.zeros(1)}
    found = compare_outputs(means, moved)  # (2/2)^2/2 + (1/1)^2/2
    assert (found.kl, found.greedy, found.max_abs_difference) == (pytest.approx(1.0), 1.0, 2.0)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    pytest.importorskip("tvm", reason="the extra cosearch[tvm] is not installed")
    model, folder = to_onnx(network(), (SIDE, SIDE, 3)), tmp_path_factory.mktemp("tvm")
    return model, folder, compile_agent(model, folder, threads=1, batch=5)


def test_a_library_equals_onnxruntime_over_observations(compiled):
    model, _, made = compiled
    assert (made.shape, made.element, made.names) == ((5, SIDE, SIDE, 3), "uint8", ("logits", "value"))
    found = check_library(made, model, FRAMES, threads=1)
    assert found.max_abs_difference < 1e-4 and (found.greedy_agreement, found.observations) == (1.0, 64)
    assert 0 < found.timer_p50_s < 1
    other = to_onnx(network(5), (SIDE, SIDE, 3))
    with pytest.raises(ParityError, match="differs from ONNX Runtime"):
        check_library(made, other, FRAMES, threads=1)


def test_a_library_loads_with_the_runtime_alone(compiled):
    model, folder, _ = compiled
    code = (
        "import sys, numpy\n"
        "from latency_tables.board.library import LibraryRunner\n"
        f"runner = LibraryRunner(open(sys.argv[1], 'rb').read(), (5, {SIDE}, {SIDE}, 3), 'uint8')\n"
        f"runner.bind(numpy.zeros((5, {SIDE}, {SIDE}, 3), numpy.uint8))\n"
        "print(runner.outputs()[0].tolist())\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libtvm_runtime' in maps and 'libtvm_compiler' not in maps\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / "agent.so")], capture_output=True, text=True, check=True)
    wanted = outputs_of(model, np.zeros((5, SIDE, SIDE, 3), np.uint8))["logits"]
    assert np.array(eval(done.stdout)) == pytest.approx(wanted, abs=1e-5)


def test_a_library_for_another_processor_is_of_that_processor(compiled, tmp_path):
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}
    assert described(target) == '{"kind": "llvm", "mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}'
    compiler = "aarch64-linux-gnu-g++"
    if shutil.which(compiler) is None:
        with pytest.raises(MeasurementError, match="cannot be linked"):
            compile_agent(compiled[0], tmp_path, threads=1, batch=1, target=target, compiler=compiler)
        pytest.skip(f"{compiler} is not installed: the code is compiled, and not linked")
    made = compile_agent(compiled[0], tmp_path, threads=1, batch=1, target=target, compiler=compiler)
    assert struct.unpack_from("<H", made.library, 18)[0] == 183  # e_machine of AArch64
    with pytest.raises(MeasurementError, match="cannot run the library"):
        check_library(made, compiled[0], FRAMES, threads=1)


def test_a_free_batch_becomes_a_number():
    model = onnx.load_model_from_string(with_batch(to_onnx(network(), (SIDE, SIDE, 3)), 3))
    sizes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.graph.input, *model.graph.output)]
    assert sizes == [[3, SIDE, SIDE, 3], [3, 3], [3]]
