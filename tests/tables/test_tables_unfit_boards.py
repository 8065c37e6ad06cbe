"""A board that cannot be used is one message at once; a measurement goes on only where it began; a passing fault is tried again.

The board is this machine behind a stand-in for ``ssh``; real SSH is in ``test_tables_board.py``.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from latency_tables.board.runners import runtime_reason
from latency_tables.board.timing import Visit
from latency_tables.errors import MeasurementError, TableError
from latency_tables.measuring import loop
from latency_tables.measuring.identity import HOST, SOFTWARE, check_same_place, place_of
from latency_tables.measuring.job import MeasureRequest, run
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.remote import Location
from latency_tables.measuring.settings import Settings
from latency_tables.measuring.visits import Hello
from latency_tables.opspec import OpSpec
from latency_tables.worklists import make_worklist

STEM, HEAD = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1), OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
CELL = OpSpec("conv", 8, 8, 8, 8, 3, 1, 1)
OLD_RUNTIME = (
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Failed to load model with error: model_load_utils.h:47 void Validate(...) ONNX "
    "Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 17 is under "
    "development and support for this is limited. Current official support for domain ai.onnx is till opset 16."
)
BOARDS = {  # what the board's Python is -> parts of the one message
    "no python": ("not found", "--python PATH names the Python there"),
    "python 3.6": ("needs Python 3.8 or newer, this is 3.6.9", "--python PATH names another Python there"),
    "no numpy": ("No module named 'numpy'", "-m pip install numpy onnxruntime"),
    "a greeting": ("'Welcome to the board", "`ssh me@board true` must print nothing"),
    "a crash": ("its last words: none",),
}
PYTHONS = {
    "python 3.6": "import sys; sys.exit('the measuring core needs Python 3.8 or newer, this is 3.6.9')",
    "a greeting": "import sys; print('Welcome to the board', flush=True); sys.stdin.read()",
    "a crash": "import os; os._exit(3)",
}


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A stand-in for ssh, and a home for the board."""
    (tmp_path / "home").mkdir()
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\nfor word; do last=$word; done\necho >> {tmp_path}/calls\ncd {tmp_path}/home && exec sh -c "$last"\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def request(tmp_path, **more):
    work = tmp_path / "work.json"
    work.write_text(json.dumps(make_worklist("toy", [], [[STEM, CELL, HEAD], [STEM, CELL, CELL, HEAD]]).to_dict()))
    settings = Settings(min_rounds=1, max_rounds=1, network_factor=1, budget_s=0.0, pin=False)
    values = {"device": "toy", "worklists": (str(work),), "settings": settings, **more}
    return MeasureRequest(out=tmp_path / "t.jsonl", **values)


@pytest.mark.parametrize("kind", BOARDS)
def test_a_board_that_cannot_be_used_is_one_message_at_once(kind, board):
    python = board / "python"
    if kind == "no numpy":
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$2"\n')
        python.chmod(0o755)
    elif kind in PYTHONS:
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{PYTHONS[kind]}" "$2"\n')
        python.chmod(0o755)
    with pytest.raises(MeasurementError) as caught:
        run(request(board, location=Location(host="me@board", python=str(python))))
    assert all(part in str(caught.value) for part in BOARDS[kind]), str(caught.value)
    assert "goes on from there" not in str(caught.value) and (board / "calls").read_text().count("\n") == 2
    left = {path.name for path in board.iterdir()}
    assert not left & {"t.jsonl", "t.jsonl.journal", "t.jsonl.lock"}, "what was begun in vain leaves nothing"


class Core:
    """A core in this process: what it says of itself, and what it answers to ``load``."""

    version, fingerprint = "1.32.0", {"machine": "x", "cores": 2}
    errors: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, location):
        self.location = location

    def one(self, verb, payload=b"", **values):
        if verb == "hello":
            return {"fingerprint": self.fingerprint, "runtime_version": self.version, "state": {}}
        if verb == "load" and values["id"] in Core.errors:
            return {"id": values["id"], "error": Core.errors[values["id"]]}
        return {"graph": {}, "state": {}}

    def ask(self, verb, payload=b"", **values):
        for name in values["ids"]:
            seconds = 1e-5 * (1 + len(name))
            yield {"id": name, "visit": Visit(*[seconds] * 7, 50, 1, 1.0).to_dict()}

    def close(self):
        pass


@pytest.fixture
def core(monkeypatch):
    monkeypatch.setattr(loop, "Connection", Core)
    monkeypatch.setattr(Core, "errors", {})
    return Core


def test_a_runtime_that_is_too_old_is_named_with_the_one_that_it_needs(core, tmp_path):
    core.errors[loop.EMPTY] = OLD_RUNTIME
    with pytest.raises(
        MeasurementError, match=r"onnxruntime 1\.32\.0 on this machine cannot run the models.*opset 16.*opset 17.*1\.12"
    ):
        run(request(tmp_path))
    assert not (tmp_path / "t.jsonl.journal").exists()


@pytest.mark.parametrize("name", [*SOFTWARE, *HOST])
def test_a_measurement_goes_on_only_where_it_began(name, tmp_path):
    began = dict.fromkeys((*SOFTWARE, *HOST), "a")
    journal = Journal(tmp_path / "j", {"plan": "p"})
    journal.add({"id": "m", "graph": {}})
    journal.measured_at(began)
    journal.measured_at(began)
    journal.close()
    again = Journal(tmp_path / "j", {"plan": "p"})
    again.measured_at(began)
    with pytest.raises(TableError) as caught:
        again.measured_at({**began, name: "b"})
    again.close()
    assert "'a'" in str(caught.value) and "'b'" in str(caught.value) and f"`rm {tmp_path}/j`" in str(caught.value)


def test_a_measurement_that_was_cut_does_not_go_on_with_another_runtime(core, tmp_path, monkeypatch):
    def cut(done, total, text):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request(tmp_path), progress=cut)
    before = (tmp_path / "t.jsonl.journal").read_bytes()
    monkeypatch.setattr(core, "version", "1.19.2")
    with pytest.raises(TableError, match=r"software\.version '1\.32\.0', these rows with '1\.19\.2'"):
        run(request(tmp_path))
    assert (tmp_path / "t.jsonl.journal").read_bytes() == before and not (tmp_path / "t.jsonl").exists()


def test_a_long_text_of_the_runtime_keeps_its_reason():
    said = runtime_reason(RuntimeError(f"[ONNXRuntimeError] : 2 : FAIL : {'void f(int) ' * 90}Unsupported model IR version: 99"))
    assert said.startswith("[ONNXRuntimeError] : 2") and said.endswith("Unsupported model IR version: 99") and len(said) < 320
    assert runtime_reason(RuntimeError("short\nreason")) == "short reason"


def test_what_is_compared_is_what_a_core_says_and_a_header_keeps():
    hello = Hello(fingerprint={"machine": "x", "cpu": "y", "load": 3}, runtime_version="1.2")
    assert place_of(hello)["version"] == "1.2" and place_of(hello)["cpu"] == "y" and "load" not in place_of(hello)
    check_same_place(place_of(hello), {**place_of(hello), "load": 9}, what="it", advice="")


def test_a_model_that_failed_is_tried_again_by_the_next_process(core, tmp_path):
    journal = Journal(tmp_path / "t.jsonl.journal", {})
    journal.add({"id": "m", "failed": "out of memory"})
    journal.close()
    again = Journal(tmp_path / "t.jsonl.journal", {})
    assert again.failed == {"m": "out of memory"}
    again.try_failures_again()
    again.add({"id": "m", "graph": {"Conv": 1}})
    again.close()
    last = Journal(tmp_path / "t.jsonl.journal", {})
    assert last.failed == {} and last.graphs == {"m": {"Conv": 1}}
    last.close()


def test_other_readings_are_another_measurement_and_an_old_journal_is_read(tmp_path):
    path = tmp_path / "j"
    path.write_text('{"journal": 1, "plan": "p"}\n{"id": "m", "graph": {}}\n')
    Journal(path, {"plan": "p", "readings": {"period_s": 0.02}}).close()
    Path(path).write_text('{"journal": 1, "plan": "p", "readings": {"period_s": 0.05}}\n')
    with pytest.raises(TableError, match="different: readings"):
        Journal(path, {"plan": "p", "readings": {"period_s": 0.02}})
