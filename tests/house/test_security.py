"""What docs/security.md says: opening a file from elsewhere runs nothing, starts nothing, reaches nothing and writes nothing."""

import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import bundle_run
import old_files
import pytest
import torch
from watched import ROOT, watched

from accel_models.design import load_design
from accel_models.layers import load_layers
from cosearch.api import load_agent, load_run
from cosearch.bench.table import read_table
from cosearch.compare.runs import read_comparison
from cosearch.config.run import resolve
from cosearch.deploy.bundle.folder import open_bundle
from cosearch.pipeline.checkpoint import Checkpoint
from cosearch.planning.builtins import load_builtins
from cosearch.planning.recorded import config_of
from cosearch.record.rundir import RunDir
from cosearch.report.data import read_run
from cosearch.report.page import write_report
from cosearch.rl.teacher import load_network, read_record
from cosearch.space.files import load_architecture
from latency_tables.errors import CosearchError
from latency_tables.importing.formats import FORMATS
from latency_tables.table import load_table
from latency_tables.worklists import load_worklist

NEWEST = old_files.FOLDERS[-1]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Files as they come from elsewhere: those of a version, with its run folders and a bundle."""
    folder = old_files.unpacked(NEWEST, tmp_path_factory.mktemp("downloads") / "there")
    bundle_run.make_run(folder / "runs" / "bundled")
    (folder / "values.toml").write_text("[rl]\nlr = 0.001\n")
    (folder / "layers.csv").write_text("name,kind,C,K,P,Q,R,S,stride\na,conv,8,8,8,8,3,3,1\n")
    load_builtins()
    return folder


OPENED = {
    "a table": lambda f: load_table(f / "table.jsonl"),
    "a measured table": lambda f: load_table(f / "table-measured.jsonl"),
    "latencies to import": lambda f: FORMATS["csv"](f / "latencies.csv", "float32"),
    "a work list": lambda f: load_worklist(f / "worklist.json"),
    "a teacher": lambda f: load_network(read_record(f / "teacher.json")),
    "a design": lambda f: load_design(f / "design.json"),
    "layers": lambda f: load_layers(f / "layers.csv"),
    "an architecture": lambda f: load_architecture(f / "architecture.json"),
    "a table of the benchmark": lambda f: read_table(next((f / "bench").glob("*.jsonl"))),
    "a configuration": lambda f: resolve(file=f / "values.toml"),
    "a run": lambda f: (read_run(f / "runs" / "finished"), load_run(f / "runs" / "finished")),
    "the request of a run": lambda f: config_of(RunDir.open(f / "runs" / "search-chain")),
    "a checkpoint": lambda f: Checkpoint.from_dict(RunDir.open(f / "runs" / "search-chain").load_checkpoint()),
    "a comparison": lambda f: read_comparison(f / "runs" / "compared"),
    "an agent": lambda f: load_agent(f / "runs" / "finished"),
    "a bundle": lambda f: open_bundle(RunDir.open(f / "runs" / "bundled")),
    "a report": lambda f: write_report(f / "runs" / "finished"),
}


@pytest.mark.parametrize("what", OPENED)
def test_opening_runs_starts_and_reaches_nothing(what, downloads):
    OPENED[what](downloads)  # imports what it needs, which are installed packages
    before = {path: path.stat().st_mtime_ns for path in downloads.rglob("*")}
    with watched() as heard:
        OPENED[what](downloads)
    assert heard == []
    after = {path: path.stat().st_mtime_ns for path in downloads.rglob("*")}
    changed = {path.name for path in after.keys() | before.keys() if before.get(path) != after.get(path)}
    assert changed <= ({"report.html", "finished"} if what == "a report" else set())


def planted(path):
    """What a pickle, a program or a name of a module in a file would leave behind."""

    class Leaves:
        def __reduce__(self):
            return (Path.touch, (path,))

    return Leaves()


def test_what_would_run_is_heard(tmp_path):
    data = pickle.dumps(planted(tmp_path / "ran"))
    with watched() as heard:
        pickle.loads(data)
        subprocess.run([sys.executable, "-c", ""], check=True)
        exec(compile("x = 1", "<from elsewhere>", "exec"))
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))
    events = {text.split()[0] for text in heard}
    assert {"pickle.find_class", "subprocess.Popen", "exec", "socket.bind"} <= events and (tmp_path / "ran").exists()
    assert heard == [text for text in heard if "<from elsewhere>" in text or not text.startswith("exec ")]


def checkpoint_with(content, folder):
    """A run whose newest checkpoint holds this, under the name that its digest demands."""
    from cosearch.record.checkpoints import _digest

    run = RunDir.create(folder, "run", {})
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / f"000001-1-{_digest(content)}.pt").write_bytes(content)
    return run


def test_a_checkpoint_with_code_is_refused(tmp_path, caplog):
    buffer, plain = io.BytesIO(), io.BytesIO()
    torch.save({"stage": planted(tmp_path / "ran")}, buffer)
    pickle.dump({"stage": planted(tmp_path / "ran")}, plain, protocol=2)
    for i, content in enumerate((buffer.getvalue(), plain.getvalue())):
        with watched() as heard, pytest.raises(CosearchError, match="are damaged"):
            checkpoint_with(content, tmp_path / str(i)).load_checkpoint()
        assert not (tmp_path / "ran").exists() and not [text for text in heard if "find_class" in text]
        assert "holds something else than tensors and plain values" in caplog.text and "\x1b" not in caplog.text


def test_a_pickle_is_no_teacher(tmp_path, downloads):
    shutil.copy(downloads / "teacher.json", tmp_path)
    record = json.loads((tmp_path / "teacher.json").read_text())
    record.pop("weights_sha256")
    (tmp_path / "teacher.json").write_text(json.dumps(record))
    (tmp_path / "teacher.safetensors").write_bytes(pickle.dumps(planted(tmp_path / "ran")))
    with watched() as heard, pytest.raises(CosearchError, match="cannot be read as the weights"):
        load_network(read_record(tmp_path / "teacher.json"))
    assert heard == [] and not (tmp_path / "ran").exists()


def test_nothing_of_a_run_folder_is_imported(tmp_path, downloads, monkeypatch):
    """A module beside the files, named like one of ours or of a library, is not found by opening them."""
    folder = shutil.copytree(downloads / "runs" / "finished", tmp_path / "finished")
    for name in ("numpy", "torch", "onnxruntime", "cosearch", "json", "teacher", "table"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    read_run(folder)
    load_agent(folder)
    assert not (tmp_path / "ran").exists()


def texts(folder):
    """All bytes of the files of a folder, unpacked where they are packed."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def test_what_is_handed_on_names_no_user_no_machine_and_no_folder(tmp_path):
    """The bundle, the ONNX file and the page; ``run.json`` alone holds the command line and the places of files."""
    folder = tmp_path / "a-user-s-own-folder"
    run = bundle_run.make_run(folder / "run").path
    write_report(run)
    private = [b"a-user-s-own-folder", str(tmp_path).encode(), os.path.expanduser("~").encode() + b"/", str(ROOT).encode()]
    private += [socket.gethostname().encode()] if len(socket.gethostname()) > 4 else []
    handed_on = dict(texts(run / "agent")) | {name: data for name, data in texts(run) if name in ("agent.onnx", "report.html")}
    assert len(handed_on) > 6
    found = [(name, word) for name, data in handed_on.items() for word in private if word in data]
    assert not found


def test_every_test_that_the_page_names_is_there():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 15
    for path, function in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not function or re.search(rf"^def {function}\(", source, re.MULTILINE), f"{path}::{function}"
