"""``cosearch deploy`` of an agent that TVM compiled: here, and on a device of a TVM RPC tracker (slow; needs TVM)."""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import report_fake_run
import rpc_tracker
from bundle_run import make_run, observations, spoil_array

from cosearch.deploy.board import self_test_by_rpc
from cosearch.deploy.bundle.contract import Contract
from cosearch.deploy.bundle.folder import write_bundle
from cosearch.deploy.deployment import ROUNDS, DeployRequest, deploy
from cosearch.record.json_record import to_json
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.artifact import ArtifactRecord
from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import ParityError, RequestError
from latency_tables.measuring.remote import Location

HAS_TVM = importlib.util.find_spec("tvm") is not None
BOARD = os.environ.get("COSEARCH_BOARD", "")
COMPILER = "aarch64-linux-gnu-g++"
AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "mattr": ["+neon"]}


def compiled_run(path, kind, **board):
    """A finished run whose artifact is a library, for this processor unless a target and a compiler say another."""
    from cosearch.deploy.artifacts.compiled import compile_agent

    run = make_run(path, kind)
    made = compile_agent((path / "agent.onnx").read_bytes(), path, threads=1, batch=1, **board)
    artifact = ArtifactRecord(
        file="agent.so",
        source="agent.onnx",
        runtime="tvm",
        runtime_version="0",
        dtype="float32",
        threads=1,
        batch=1,
        bytes=len(made.library),
        sha256=hashlib.sha256(made.library).hexdigest(),
    )
    report_fake_run.write_json(path / "agent.json", to_json(replace(run.read(AgentRecord), artifact=artifact)))
    write_bundle(run, observations(kind))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_a_library_is_tested_and_timed_by_a_tracker(tmp_path, kind):
    if not HAS_TVM:
        pytest.skip("TVM is not installed")
    path = compiled_run(tmp_path / "run", kind)
    here = deploy(path, DeployRequest(seconds=0.6))
    assert (here.measured.runtime, here.measured.rounds) == ("tvm", ROUNDS) and here.paced is not None
    (tmp_path / "rpc").mkdir()
    with rpc_tracker.tracker(tmp_path / "rpc") as serve:
        there = Location(tracker=serve(sys.executable, "pi"), tracker_key="pi")
        found = deploy(path, DeployRequest(there, seconds=0.6))
        assert found.name == "pi" and found.host == there.tracker and found.paced is None and found.warmed is None
        assert found.self_test.startswith("ok: 64 observations") and 0.05 < found.measured.p50_s / here.measured.p50_s < 20
        assert json.loads((path / "summary.json").read_text())["target_checked_by"] == "measurement on pi"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_an_agent_compiled_for_an_arm_board_is_the_same_agent_there(tmp_path, kind):
    """On a board, here an emulated one, with TVM's runtime: each stored observation gives the outputs of ONNX Runtime here."""
    python = Path(BOARD, "bin", "python3")
    if not HAS_TVM or not BOARD or not Path(BOARD, "site", "tvm").exists():
        pytest.skip("TVM is not installed, or COSEARCH_BOARD names no folder with an emulated board that has it")
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed")
    path = compiled_run(tmp_path / "run", kind, target=AARCH64, compiler=COMPILER)
    (tmp_path / "rpc").mkdir()
    with rpc_tracker.tracker(tmp_path / "rpc") as serve:
        there = Location(tracker=serve(str(python), "arm"), tracker_key="arm")
        found = deploy(path, DeployRequest(there, seconds=0.6, synthetic=True))
    assert found.self_test.startswith("ok: 64 observations") and found.provenance == "synthetic" and found.measured.p50_s > 0
    assert json.loads((path / "summary.json").read_text())["target_checked_by"] == "measurement on arm, synthetic"


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_a_library_with_other_outputs_fails_the_self_test(tmp_path, layout):
    run = make_run(tmp_path / "run")
    if layout == "channels_first":
        report_fake_run.change(run.path, "agent.json", acting__layout=layout)
        write_bundle(run, observations("categorical"))
    folder = run.path / "agent"
    contract = Contract.from_json(json.loads((folder / "contract.json").read_text()), "contract.json")

    class Session:
        location = Location(tracker="127.0.0.1:1", tracker_key="pi")

        def bind(self, name, values):
            self.values = values

        def outputs(self, name):
            feed = {contract.input_name: self.values}
            return OnnxRunner((run.path / "agent.onnx").read_bytes()).session.run(None, feed)  # what a library is made from

    assert self_test_by_rpc(Session(), "agent", folder, contract).startswith("ok: 64 observations, largest difference 0 of")
    spoil_array(folder, "value", lambda values: values + np.float32(1))
    with pytest.raises(ParityError, match=r"the self-test failed on pi: observation 0: value differs by 1, at most"):
        self_test_by_rpc(Session(), "agent", folder, contract)


def test_forbidden_actions_make_the_self_test_no_blunter(tmp_path):
    run = make_run(tmp_path / "run")
    folder = run.path / "agent"
    contract = Contract.from_json(json.loads((folder / "contract.json").read_text()), "contract.json")

    def forbid(logits):
        return np.where(np.arange(4) == 1, np.float32(-1e8), logits)

    class Session:
        location = Location(tracker="127.0.0.1:1", tracker_key="pi")

        def bind(self, name, values):
            self.values = values

        def outputs(self, name):
            logits, value = OnnxRunner((run.path / "agent.onnx").read_bytes()).session.run(None, {"frames": self.values})
            return [forbid(logits), value]

    spoil_array(folder, "logits", forbid)
    assert self_test_by_rpc(Session(), "agent", folder, contract).startswith("ok: 64 observations, largest difference 0 of")
    spoil_array(folder, "logits", lambda logits: logits + np.float32(1))
    with pytest.raises(ParityError, match=r"the self-test failed on pi: observation 0: logits differs by 1, at most"):
        self_test_by_rpc(Session(), "agent", folder, contract)


def test_a_tracker_is_for_agents_that_tvm_compiled(tmp_path):
    path = make_run(tmp_path / "run").path
    with pytest.raises(RequestError, match=r"a TVM RPC tracker runs a library of TVM, this agent is for onnxruntime: use --host"):
        deploy(path, DeployRequest(Location(tracker="127.0.0.1:1")))
