"""TVM RPC: real sessions over loopback (slow), and what goes wrong without TVM or a tracker.

The slow tests need ``pip install 'cosearch[tvm]'``. With an emulated board whose Python has TVM too
(``COSEARCH_BOARD=FOLDER``) and a cross compiler, code is compiled for aarch64, sent there and run there.
"""

import gc
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import rpc_tracker

from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import MeasurementError, MissingExtraError, RequestError
from latency_tables.measuring.job import MeasureRequest, run
from latency_tables.measuring.remote import Location, LostBoard
from latency_tables.measuring.rpc import TrackerConnection, read_address, read_tvm_target
from latency_tables.measuring.settings import Settings
from latency_tables.onnx_models.blocks import build_network_model
from latency_tables.opspec import OpSpec
from latency_tables.table import load_table
from latency_tables.worklists import make_worklist

HAS_TVM = importlib.util.find_spec("tvm") is not None
BOARD = os.environ.get("COSEARCH_BOARD", "")
COMPILER = "aarch64-linux-gnu-g++"
AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72", "mattr": ["+neon"]}
STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CELLS = [OpSpec("conv", 8, 8, 8, 8, 3, 1, 1), OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3)]
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")


def test_addresses_and_targets_are_read_or_refused():
    assert read_address("127.0.0.1:9190") == ("127.0.0.1", 9190) and read_address("::1:80") == ("::1", 80)
    for wrong in ("127.0.0.1", ":9190", "host:", "host:x", "host:70000"):
        with pytest.raises(RequestError, match="tracker"):
            read_address(wrong)
    assert read_tvm_target(None) is None and read_tvm_target(json.dumps(AARCH64)) == AARCH64
    for wrong in ("llvm", "[]", "{}", '{"kind": 3}'):
        with pytest.raises(RequestError, match="tvm-target"):
            read_tvm_target(wrong)


def test_a_tracker_is_for_tvm_and_stands_alone(tmp_path):
    target = Location(tracker="127.0.0.1:9190")
    with pytest.raises(RequestError, match="runtime tvm"):
        MeasureRequest(out=tmp_path / "t", location=target)
    with pytest.raises(RequestError, match="period-s"):
        MeasureRequest(out=tmp_path / "t", location=target, runtime="tvm", period_s=0.02)
    with pytest.raises(RequestError, match="got both"):
        Location(host="me@board", tracker="127.0.0.1:9190")


@pytest.mark.parametrize(
    "values, way",
    [
        ({"python": "python3.9"}, "host"),
        ({"ssh_options": ("-p", "2222")}, "host"),
        ({"python": "python3.9", "tracker": "127.0.0.1:9190"}, "host"),
        ({"tracker_key": "arm"}, "tracker"),
        ({"tvm_target": AARCH64}, "tracker"),
        ({"compiler": "aarch64-linux-gnu-g++", "host": "me@board"}, "tracker"),
    ],
)
def test_what_belongs_to_another_way_to_a_board_is_refused(values, way):
    with pytest.raises(RequestError, match=f"no effect without {way}"):
        Location(**values)
    Location(**{key: value for key, value in values.items() if key in ("host", "tracker")})  # the way itself is none of it


def test_without_tvm_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tvm", None)  # an import of it fails, whether it is installed or not
    with pytest.raises(MissingExtraError, match=r"cosearch\[tvm\]"):
        TrackerConnection(Location(tracker="127.0.0.1:9190"))


def test_a_tracker_that_is_not_there_is_one_message_at_once_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """TVM's own attempts last a minute and leave sockets to the garbage collector. Where it came while code was parsed, pytest's
    traceback of the warning parsed too, which Python 3.11 answers with "AST constructor recursion depth mismatch"."""
    if not HAS_TVM:
        pytest.skip("TVM is not installed")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begin = time.monotonic()
    with pytest.raises(LostBoard, match=r"tvm\.exec\.rpc_server"):
        TrackerConnection(Location(tracker=f"127.0.0.1:{rpc_tracker.free_port()}", tracker_key="here"))
    gc.collect()
    assert time.monotonic() - begin < 30 and list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """A function that starts a server at a tracker on loopback and gives the tracker's address."""
    if not HAS_TVM:
        pytest.skip("TVM is not installed")
    with rpc_tracker.tracker(tmp_path_factory.mktemp("rpc")) as serve:
        yield serve


def check_parity(connection):
    model = build_network_model([STEM, *CELLS, HEAD])
    assert connection.one("load", model, id="m") == {"id": "m", "graph": {}}
    frames = np.random.default_rng(0).integers(0, 127, (1, 16, 16, 3)).astype(np.uint8)
    expected = OnnxRunner(model, {"frames": frames}).outputs()[0]
    np.testing.assert_allclose(connection.outputs("m")[0], expected, atol=1e-5)


@pytest.mark.slow
def test_a_session_over_loopback_computes_what_onnxruntime_computes(tracker):
    connection = TrackerConnection(Location(tracker=tracker(sys.executable, "here"), tracker_key="here"))
    try:
        hello = connection.one("hello", threads=1)
        assert hello["power"] is None and hello["settings"] == {"threads": 1} and hello["runtime_version"]
        check_parity(connection)
        seen = connection.one("visit", ids=["m"], sentinel="m", plan={"seconds": 0.05})["visit"]
        assert 0 < seen["min_s"] <= seen["median_s"] <= seen["p99_s"] and seen["samples"] >= 8 and seen["clean_share"] is None
        assert 0.2 < seen["sentinel_s"] / seen["median_s"] < 5
        with pytest.raises(MeasurementError, match="does not support paced"):
            connection.one("paced", ids=["m"])
        assert connection.one("visit", ids=["absent"], plan={}) == {"id": "absent", "unknown": True}
        assert "error" in connection.one("load", b"\x08\x08", id="broken")
    finally:
        connection.close()


@pytest.mark.slow
def test_a_table_is_measured_through_the_tracker(tracker, tmp_path):
    networks = [[STEM, *cells, HEAD] for cells in ((CELLS[0],), (CELLS[1],), tuple(CELLS), (CELLS[1], CELLS[1]), (CELLS[0],) * 2)]
    (tmp_path / "work.json").write_text(json.dumps(make_worklist("toy", [], networks).to_dict()))
    target = Location(tracker=tracker(sys.executable, "table"), tracker_key="table")
    settings = Settings(min_rounds=2, max_rounds=2, budget_s=1.0)
    work = (str(tmp_path / "work.json"),)
    out = tmp_path / "t.jsonl"
    run(MeasureRequest(out=out, device="toy", worklists=work, runtime="tvm", location=target, settings=settings))
    table = load_table(tmp_path / "t.jsonl")
    assert table.device.runtime == "tvm" and table.coverage(networks[3]) == 1.0 and table.certificate.accuracy.networks == 3
    assert table.header["host"]["model"] == "device table of a TVM RPC tracker" and not (tmp_path / "t.jsonl.journal").exists()


@pytest.mark.slow
def test_code_compiled_for_an_arm_board_runs_there(tracker):
    python = Path(BOARD, "bin", "python3")
    if not BOARD or not Path(BOARD, "site", "tvm").exists():
        pytest.skip("COSEARCH_BOARD names no folder with an emulated board that has TVM")
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed")
    address = tracker(str(python), "arm")
    connection = TrackerConnection(Location(tracker=address, tracker_key="arm", tvm_target=AARCH64, compiler=COMPILER))
    try:
        assert connection.one("hello", threads=1)["fingerprint"]["machine"] == "aarch64"
        check_parity(connection)
        assert connection.one("visit", ids=["m"], plan={"seconds": 0.05})["visit"]["median_s"] > 0
    finally:
        connection.close()
