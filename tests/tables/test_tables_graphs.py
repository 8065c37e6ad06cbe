"""Models of blocks compute what the vocabulary says: outputs against torch, weights against counted parameters."""

import dataclasses
import time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional as f

from latency_tables.board import core, runners
from latency_tables.board.compilers import TorchRunner
from latency_tables.board.runners import OnnxRunner, op_histogram
from latency_tables.errors import MeasurementError, ShapeError
from latency_tables.onnx_models.blocks import build_block_model, build_empty_model, build_network_model, keeps_shape
from latency_tables.onnx_models.layers import build_layer_model
from latency_tables.onnx_models.quantise import quantise_model
from latency_tables.opspec import OpSpec

STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
MB = OpSpec("mbconv", 8, 8, 8, 8, 5, 1, 2, expansion=3)
DOWN = OpSpec("mbconv", 8, 8, 8, 12, 3, 2, 1, expansion=1)
RES = OpSpec("residual", 12, 4, 4, 12, 3, 1, 1)
POOL = OpSpec("maxpool", 12, 4, 4, 12, 3, 2, 1, activation="none")
HEAD = OpSpec("head", 12, 2, 2, 5, hidden=16, activation="relu")
NETWORK = [STEM, MB, DOWN, RES, POOL, HEAD]


def weights_of(model):
    return [torch.from_numpy(np.array(numpy_helper.to_array(w))) for w in onnx.load_model_from_string(model).graph.initializer]


def by_hand(frames, weights):
    """The network above, written down once more with torch only."""
    it = iter(weights)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float() * next(it)
    x = f.relu(f.conv2d(x, next(it), next(it), 2, 1))
    y = f.relu(f.conv2d(x, next(it), next(it)))
    y = f.relu(f.conv2d(y, next(it), next(it), 1, 2, groups=24))
    x = f.relu(x + f.conv2d(y, next(it), next(it)))
    y = f.relu(f.conv2d(x, next(it), next(it), 2, 1, groups=8))
    x = f.relu(f.conv2d(y, next(it), next(it)))
    y = f.conv2d(f.relu(x), next(it), next(it), 1, 1)
    x = x + f.conv2d(f.relu(y), next(it), next(it), 1, 1)
    x = f.relu(f.max_pool2d(x, 3, 2, 1)).flatten(1)
    x = f.relu(f.linear(x, next(it), next(it)))
    return f.linear(x, next(it), next(it)).numpy()


def test_network_computes_what_torch_computes():
    model = build_network_model(NETWORK, seed=3)
    frames = np.random.default_rng(1).integers(0, 255, (1, 16, 16, 3)).astype(np.uint8)
    outputs = OnnxRunner(model, {"frames": frames}).outputs()[0]
    expected = by_hand(frames, weights_of(model))
    assert outputs.shape == (1, 5) and np.abs(outputs - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("kernel", [1, 4])
def test_averaged_frames_and_heads_of_every_form_compute_what_torch_computes(kernel, hidden):
    ops = [OpSpec("stem", 3, 9, 8, 5, 3, 1, 1, groups=2), OpSpec("head", 5, 4, 4, 3, kernel, hidden=hidden)]
    model = build_network_model(ops, seed=3)
    frames = np.random.default_rng(1).integers(0, 255, (1, 9, 8, 3)).astype(np.uint8)
    it = iter(weights_of(model))
    x = f.avg_pool2d(torch.from_numpy(frames).permute(0, 3, 1, 2).float() * next(it), 2)
    x = f.relu(f.conv2d(x, next(it), next(it), 1, 1))
    x = x.mean((2, 3)) if kernel > 1 else x.flatten(1)
    x = f.relu(f.linear(x, next(it), next(it))) if hidden else x
    expected = f.linear(x, next(it), next(it)).numpy()
    outputs = OnnxRunner(model, {"frames": frames}).outputs()[0]
    assert outputs.shape == (1, 3) and np.abs(outputs - expected).max() < 1e-5 * np.abs(expected).max()
    for op in ops[1:]:
        once = sum(w.numel() for w in weights_of(build_block_model(op)))
        assert once - sum(w.numel() for w in weights_of(build_block_model(op, repeats=0))) == op.params


def test_seed_decides_the_weights():
    assert build_network_model(NETWORK, seed=1) == build_network_model(NETWORK, seed=1) != build_network_model(NETWORK, seed=2)


@pytest.mark.parametrize("op", NETWORK, ids=lambda op: op.kind)
def test_weights_are_the_counted_parameters(op):
    """Oracle: what the block adds to the number of stored weights, against ``OpSpec.params``."""
    once = sum(w.numel() for w in weights_of(build_block_model(op)))
    if op.kind == "stem":
        assert once - 1 == op.params
        return
    assert once - sum(w.numel() for w in weights_of(build_block_model(op, repeats=0))) == op.params
    if keeps_shape(op):
        five = sum(w.numel() for w in weights_of(build_block_model(op, repeats=5)))
        assert five - once == 4 * op.params


def test_context_before_a_block_leaves_out_the_relu_that_the_block_has_itself():
    assert op_histogram(build_block_model(RES, repeats=0)).get("Relu", 0) == 0
    assert op_histogram(build_block_model(MB, repeats=0))["Relu"] == 1
    assert op_histogram(build_block_model(dataclasses.replace(HEAD, activation="none"), repeats=0))["Relu"] == 1


@pytest.mark.parametrize("op", NETWORK, ids=lambda op: op.kind)
def test_isolated_primitives_have_the_shapes_of_their_layer(op):
    for layer in op.layers():
        outputs = OnnxRunner(build_layer_model(layer)).outputs()[0]
        assert outputs.size == layer.elements_out


def test_wrong_requests_are_refused():
    with pytest.raises(ShapeError, match="cannot follow"):
        build_network_model([STEM, DOWN, DOWN])
    with pytest.raises(ShapeError, match="empty"):
        build_network_model([])
    with pytest.raises(ShapeError, match="chained"):
        build_block_model(DOWN, repeats=5)
    with pytest.raises(ShapeError, match="float32"):
        build_block_model(dataclasses.replace(DOWN, dtype="int8"))
    with pytest.raises(ShapeError):
        build_block_model(STEM, repeats=0)


def test_histogram_equals_what_the_onnx_package_reads():
    model = build_network_model(NETWORK)
    nodes = [node.op_type for node in onnx.load_model_from_string(model).graph.node]
    assert op_histogram(model) == {name: nodes.count(name) for name in sorted(set(nodes))}


@pytest.mark.parametrize("op", [dataclasses.replace(STEM, groups=2), STEM, MB, RES, POOL, HEAD], ids=lambda op: op.key)
def test_the_torch_runner_computes_what_onnxruntime_computes(op):
    model = build_block_model(op)
    eager = TorchRunner(model, threads=1)
    feed = {eager._input: eager._values[eager._input].numpy()}
    assert np.allclose(eager().numpy(), OnnxRunner(model, feed).outputs()[0], atol=1e-4)


def test_int8_form_is_fused_and_close_to_float():
    model = build_network_model(NETWORK, seed=3)
    frames = np.random.default_rng(1).integers(0, 255, (1, 16, 16, 3)).astype(np.uint8)
    runner = OnnxRunner(quantise_model(model), {"frames": frames})
    exact = OnnxRunner(model, {"frames": frames}).outputs()[0]
    assert np.abs(runner.outputs()[0] - exact).max() < 0.15 * np.abs(exact).max()
    quantised = sum(count for name, count in runner.graph.items() if name.startswith("Q") and name != "QuantizeLinear")
    assert quantised > 0 or "Conv" not in runner.graph or "DequantizeLinear" in runner.graph
    assert len(quantise_model(model)) != len(model)


def test_runner_refuses_what_it_cannot_do():
    model = build_empty_model()
    with pytest.raises(MeasurementError, match="has no NoSuchProvider"):
        OnnxRunner(model, provider="NoSuchProvider")
    with pytest.raises(MeasurementError, match="cannot load"):
        OnnxRunner(b"not a model")
    with pytest.raises(MeasurementError, match="no input wrong"):
        OnnxRunner(model, {"wrong": np.zeros(1, np.float32)})


class CompilingRuntime:
    """A runtime with a provider that compiles nodes: as ONNX Runtime does, it writes no optimised graph of these."""

    __version__ = "1"

    class SessionOptions(onnxruntime.SessionOptions):
        optimized_model_filepath = ""

    class InferenceSession(onnxruntime.InferenceSession):
        def __init__(self, source, options, providers):
            self.asked = providers
            if options.optimized_model_filepath and providers != ["CPUExecutionProvider"]:
                raise RuntimeError("Unable to serialize model as it contains compiled nodes")
            super().__init__(source, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return self.asked

    def __getattr__(self, name):
        return getattr(onnxruntime, name)

    def get_available_providers(self):
        return ["NPUExecutionProvider", "CPUExecutionProvider"]


def test_a_provider_that_compiles_nodes_is_run_and_never_called_preempted(monkeypatch):
    """Its thread waits for the device in every sample; the CPU's own samples are told apart as before."""
    monkeypatch.setattr(runners, "import_onnxruntime", CompilingRuntime)
    monkeypatch.setattr(OnnxRunner, "__call__", lambda runner: time.sleep(1e-4))
    for provider, shares in (("NPUExecutionProvider", {None}), ("CPUExecutionProvider", {0.0})):
        handler = core.RequestHandler()
        list(handler.answer("hello", {"threads": 1, "provider": provider}, b""))
        loaded, _ = handler.answer("load", {"id": "a"}, build_empty_model())
        assert "error" not in loaded
        seen, _ = handler.answer("visit", {"ids": ["a"], "sentinel": "a"}, b"")
        assert {seen["visit"]["clean_share"]} == shares


def test_plain_layout_can_be_kept():
    model = build_block_model(OpSpec("conv", 16, 16, 16, 16, 3, 1, 1), repeats=5)
    assert not any(name.startswith("Reorder") for name in OnnxRunner(model, nchw=True).graph)


def test_telemetry_is_off_and_leaves_nothing_in_the_home_folder(tmp_path):
    import subprocess
    import sys

    code = "from latency_tables.board.runners import import_onnxruntime as i; i(); import os; "
    code += "print(os.getenv('ORT_DISABLE_TELEMETRY'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "1" and list(tmp_path.iterdir()) == []
