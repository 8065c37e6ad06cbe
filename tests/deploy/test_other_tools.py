"""The exported files in other tools: ONNX's own checker, ONNX Runtimes years apart, the documented ways of three projects.

None of the three is installed here. What their documentation does with a file is done here in their order, with their names:
stable-baselines3 (guide "Exporting models"), Isaac Lab (``isaaclab_rl.rsl_rl.exporter``), and the ONNX controller of
ros2_control's examples (``onnx_policy_controller``, example 18).
"""

import json
import os
import shutil
import subprocess

import numpy as np
import onnx
import pytest
from bundle_run import HIGH, LOW, SCALE, SHIFT, make_run, observations
from onnx import TensorProto

from cosearch.api import load_agent
from cosearch.deploy.artifacts.quantised import Quantiser
from cosearch.deploy.bundle.contract import Contract
from cosearch.deploy.bundle.folder import BundleOptions
from cosearch.deploy.bundle.graph import load, metadata_of, with_opset
from latency_tables.board.runners import import_onnxruntime

KINDS = ("categorical", "gaussian")
OLD_PYTHON = os.environ.get("COSEARCH_OLD_PYTHON", "")
RAW_LOOP = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: numpy.load(sys.argv[2])}
numpy.savez(sys.argv[3], **dict(zip((o.name for o in session.get_outputs()), session.run(None, feed))))
print(onnxruntime.__version__)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, with its bundle."""
    return {kind: make_run(tmp_path_factory.mktemp("tools") / kind, kind) for kind in KINDS}


def in_int8(run, kind):
    seen = observations(kind, 32)
    form = Quantiser((run.path / "agent.onnx").read_bytes(), seen, seen, greedy=False).make()
    assert not form.float_layers
    return onnx.load_model_from_string(form.model)


def files_of(run):
    return [run.path / "agent.onnx", *sorted((run.path / "agent").glob("*.onnx"))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actions", ["outside", "greedy", "sampled"])
def test_every_file_passes_the_full_check_and_its_shapes_are_inferred(tmp_path, kind, actions):
    run = make_run(tmp_path / "run", kind, options=BundleOptions(actions=actions))
    files = files_of(run)
    assert [file.name for file in files] == ["agent.onnx", "agent.onnx", *(["policy.onnx"] if kind == "gaussian" else [])]
    for file in files:
        onnx.checker.check_model(str(file), full_check=True)
        model = onnx.load(file)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
        shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
        made = {name for node in model.graph.node for name in node.output} - {output.name for output in model.graph.output}
        assert made <= set(shapes)  # each value between the nodes has a shape
        assert {domain.domain for domain in model.opset_import} <= {"", "ai.onnx"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_int8_form_passes_the_full_check(runs, kind):
    made = in_int8(runs[kind], kind)
    onnx.checker.check_model(made, full_check=True)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_way_of_stable_baselines3(runs, kind):
    """Load with onnx, check, open a session on the path alone, feed one observation by name, take the outputs in order."""
    path, seen = str(runs[kind].path / "agent" / "agent.onnx"), observations(kind, 4)
    onnx.checker.check_model(onnx.load(path))
    session = import_onnxruntime().InferenceSession(path)
    contract = json.loads((runs[kind].path / "agent" / "contract.json").read_text())
    outputs = session.run(None, {contract["input_name"]: seen[:1]})
    agent = load_agent(runs[kind].path)
    action = outputs[0].argmax(axis=1) if kind == "categorical" else outputs[0] * SCALE + SHIFT
    expected = agent.act(seen[:1], greedy=True)
    low, high = ([-np.inf, LOW[1]], HIGH) if kind == "gaussian" else (0, 3)
    np.testing.assert_allclose(np.clip(action, low, high), expected, rtol=1e-5)


def test_the_file_for_controllers_has_the_names_and_shapes_of_isaac_lab(runs):
    model = load((runs["gaussian"].path / "agent" / "policy.onnx").read_bytes(), "policy.onnx")
    assert [value.name for value in model.graph.input] == ["obs"] and [value.name for value in model.graph.output] == ["actions"]
    for value, size in ((model.graph.input[0], 3), (model.graph.output[0], 2)):
        kind = value.type.tensor_type
        assert kind.elem_type == TensorProto.FLOAT and [d.dim_value for d in kind.shape.dim] == [1, size]  # no free dimension
    agent, session = load_agent(runs["gaussian"].path), import_onnxruntime().InferenceSession(model.SerializeToString())
    for row in observations("gaussian", 40, seed=4):
        actions = session.run(["actions"], {"obs": row[None]})[0]
        np.testing.assert_allclose(actions[0], agent(row, greedy=True), atol=1e-5)
    contract = Contract.from_metadata(metadata_of(model), "policy.onnx")
    assert (contract.input_name, contract.output_names, contract.input_shape) == ("obs", ("actions",), (1, 3))
    assert contract.model == "policy.onnx" and contract.action_names == ("component_0", "component_1")


def test_the_file_for_controllers_passes_the_checks_of_ros2_control(runs):
    """One input and one output, as long as observations and joints, one thread, basic optimisation, a flat float32 vector."""
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = runtime.InferenceSession(str(runs["gaussian"].path / "agent" / "policy.onnx"), options)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert int(np.prod(taken.shape)) == 3 and taken.type == "tensor(float)" and given.shape[-1] == 2
    flat = observations("gaussian", 1)[0].ravel()
    shape = [len(flat) if isinstance(size, str) else size for size in taken.shape]  # what it does with a free dimension
    found = session.run([given.name], {taken.name: flat.reshape(shape)})[0].ravel()
    np.testing.assert_allclose(found, load_agent(runs["gaussian"].path)(flat, greedy=True), atol=1e-5)


def test_no_file_for_controllers_where_they_could_not_feed_it(runs):
    assert not (runs["categorical"].path / "agent" / "policy.onnx").exists()


@pytest.mark.slow  # COSEARCH_OLD_PYTHON: an interpreter with an older onnxruntime, such as 1.16 (numpy below 2)
@pytest.mark.parametrize("kind", KINDS)
def test_an_older_onnxruntime_gives_the_same_outputs(runs, kind, tmp_path):
    if not OLD_PYTHON or shutil.which(OLD_PYTHON) is None:
        pytest.skip("COSEARCH_OLD_PYTHON names no Python with an older onnxruntime")
    folder, seen = runs[kind].path / "agent", observations(kind, 32, seed=8)
    done = subprocess.run([OLD_PYTHON, str(folder / "run_agent.py"), "--self-test"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("ok: 64 observations"), done.stderr
    (tmp_path / "int8.onnx").write_bytes(with_opset(in_int8(runs[kind], kind), None).SerializeToString())
    for file in [*files_of(runs[kind]), tmp_path / "int8.onnx"]:
        np.save(tmp_path / "seen.npy", seen[:1] if file.name == "policy.onnx" else seen)
        words = [OLD_PYTHON, "-c", RAW_LOOP, str(file), str(tmp_path / "seen.npy"), str(tmp_path / "found.npz")]
        old = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        now = import_onnxruntime()
        years_apart = int(now.__version__.split(".")[1]) - int(old.split(".")[1])
        assert years_apart >= 8  # four releases a year
        session = now.InferenceSession(str(file))
        wanted = session.run(None, {session.get_inputs()[0].name: np.load(tmp_path / "seen.npy")})
        with np.load(tmp_path / "found.npz") as found:
            for entry, values in zip(session.get_outputs(), wanted):
                allowed = 0.02 if file.name == "int8.onnx" else 1e-4
                size = max(1.0, float(np.abs(values).max()))
                assert float(np.abs(found[entry.name] - values).max()) <= allowed * size
