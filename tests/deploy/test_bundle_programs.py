"""The programs of a bundle that are not for Python alone: C++ on ONNX Runtime, a ROS 2 node, TensorRT on a Jetson."""

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from bundle_run import make_run, observations, runner, spoil_array

from cosearch.api import load_agent
from cosearch.deploy.bundle.folder import BundleOptions

KINDS = ("categorical", "gaussian")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, with its bundle."""
    return {kind: make_run(tmp_path_factory.mktemp("bundle") / kind, kind) for kind in KINDS}


def test_the_script_for_a_jetson_names_the_input_and_its_shape(runs, tmp_path):
    bundle = runs["categorical"].path / "agent"
    fake = tmp_path / "trtexec"
    fake.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    fake.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", str(bundle / "trtexec.sh"), "--fp16"], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    words = done.stdout.split("\n")
    assert {"--onnx=agent.onnx", "--shapes=frames:1x8x8x3", "--optShapes=frames:1x8x8x3", "--fp16", "--useCudaGraph"} <= set(
        words
    )
    assert "NOT RUN" in (bundle / "trtexec.sh").read_text().split("set -eu")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_node_acts_on_the_newest_observation(runs, kind, monkeypatch):
    class Message:
        def __init__(self, data=None):
            self.data = data

    class Node:
        def __init__(self, name):
            self.published, self.errors, self.timers = [], [], []

        def declare_parameter(self, name, value):
            return types.SimpleNamespace(value=True)

        def create_subscription(self, kind, topic, call, depth):
            self.subscribed = (kind, topic, call)

        def create_publisher(self, kind, topic, depth):
            return types.SimpleNamespace(publish=self.published.append)

        def create_timer(self, period_s, call):
            self.timers.append((period_s, call))

        def get_logger(self):
            return types.SimpleNamespace(error=lambda text, once: self.errors.append(text))

    messages = {name: type(name, (Message,), {}) for name in ("Float32MultiArray", "Int64", "UInt8MultiArray")}
    folder = runs[kind].path / "agent"
    for name, content in {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "std_msgs": {},
        "std_msgs.msg": messages,
        "run_agent": runner(folder),
    }.items():
        module_of = types.ModuleType(name)
        vars(module_of).update(content)
        monkeypatch.setitem(sys.modules, name, module_of)
    space = {"__name__": "ros2_node"}
    exec(compile((folder / "ros2_node.py").read_text(encoding="utf-8"), "ros2_node.py", "exec"), space)
    sys.modules["run_agent"].HERE = str(folder)
    monkeypatch.setitem(space, "Agent", lambda: sys.modules["run_agent"].Agent(str(folder)))
    node, seen = space["AgentNode"](), observations(kind, 3)
    period_s, act = node.timers[0]
    act()
    assert period_s == 0.02 and node.published == []
    node.take(Message(seen[0].ravel().tolist()))
    act()
    node.take(Message([1]))
    expected = load_agent(runs[kind].path)(seen[0], greedy=True)
    np.testing.assert_allclose(node.published[0].data, expected, rtol=1e-5)
    assert len(node.errors) == 1 and type(node.published[0]).__name__ == (
        "Int64" if kind == "categorical" else "Float32MultiArray"
    )
    assert node.subscribed[0].__name__ == ("UInt8MultiArray" if kind == "categorical" else "Float32MultiArray")


@pytest.mark.slow  # a compiler, and a release of ONNX Runtime (folders include and lib) named by COSEARCH_ONNXRUNTIME
@pytest.mark.parametrize(
    "kind, programs",
    [
        ("gaussian", {"run_agent.py", "agent.cpp", "ros2_node.py", "trtexec.sh"}),
        ("memory", {"run_agent.py", "agent.cpp"}),  # the node would never clear the memory, the script does not know its input
        ("masked", {"run_agent.py"}),
    ],
)
def test_a_bundle_has_the_programs_that_can_run_its_agent(tmp_path, kind, programs):
    folder = make_run(tmp_path / "run", kind).path / "agent"
    assert {path.name for path in folder.iterdir() if path.suffix in (".py", ".cpp", ".sh")} == programs


@pytest.mark.parametrize("kind", [*KINDS, "memory"])
@pytest.mark.parametrize("actions", ["outside", "sampled"])
def test_the_cpp_example_gives_the_stored_outputs(tmp_path, kind, actions):
    release = os.environ.get("COSEARCH_ONNXRUNTIME", "")
    if not Path(release, "include", "onnxruntime_cxx_api.h").is_file() or shutil.which("g++") is None:
        pytest.skip("COSEARCH_ONNXRUNTIME names no release of ONNX Runtime with its headers, or there is no g++")
    folder = make_run(tmp_path / "run", kind, options=BundleOptions(actions=actions)).path / "agent"
    build = ["g++", "-O2", "-Wall", "-Wextra", "-Werror", "-std=c++17", "agent.cpp", f"-I{release}/include", f"-L{release}/lib"]
    subprocess.run([*build, "-lonnxruntime", f"-Wl,-rpath,{release}/lib", "-o", "agent"], cwd=folder, check=True)
    words = ["./agent", "agent.onnx", "self_test"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    count = 30 if kind == "memory" else 64  # those of one of its three environments
    assert done.returncode == 0 and done.stdout.startswith(f"ok: {count} observations") and "another" not in done.stdout, (
        done.stderr
    )
    spoil_array(folder, "value", lambda v: v + 1.0)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "error: observation 0: value differs\n"
    spoil_array(folder, "value", lambda v: v * np.nan)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "error: observation 0: value differs\n"
    (folder / "agent.onnx").write_bytes((tmp_path / "run" / "agent.onnx").read_bytes())
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: the file has no contract: no entry")
