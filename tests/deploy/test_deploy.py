"""``cosearch deploy``: here, and over an OpenSSH server on loopback: lost connections, killed commands, what boards lack."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import loopback_ssh
import numpy as np
import pytest
from bundle_run import make_run

from cosearch.cli.app import main
from cosearch.deploy import deployment as module
from cosearch.deploy.board import copy_bundle, explained, pack, self_test_there
from cosearch.deploy.deployment import ROUNDS, DeployRequest, deploy
from cosearch.record.json_record import from_json
from cosearch.record.results.deployment import Deployments
from cosearch.record.results.summary import Summary
from latency_tables.errors import (
    DiskFullError,
    MeasurementError,
    MissingExtraError,
    ParityError,
    RequestError,
    RunFolderError,
)
from latency_tables.measuring.remote import Location
from latency_tables.measuring.ssh import LostBoard, failure

ROOT = Path(__file__).resolve().parents[2]
LOGIN = """#!/bin/sh
cd "{home}" && exec env -u PYTHONPATH HOME="{home}" PATH="{home}/bin:/usr/bin:/bin" /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """Options that reach a board with a home of its own, and that home."""
    if reason := loopback_ssh.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("board")
    home = folder / "home"
    login = program(folder / "login", LOGIN.format(home=home))
    home.mkdir()
    with loopback_ssh.server(folder / "sshd", login) as options:
        yield options, home


@pytest.fixture
def board(ssh):
    """A board that has what it needs and nothing of ours."""
    options, home = ssh
    shutil.rmtree(home)
    program(home / "bin" / "python3", f'#!/bin/sh\nexec {sys.executable} -s "$@"\n')
    return Location(host="root@127.0.0.1", ssh_options=options), home


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("deploy") / "run").path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_over_ssh_everything_happens_on_the_board(run, board):
    location, home = board
    notes = []
    found = deploy(run, DeployRequest(location, "pi", seconds=0.6, synthetic=True), notes.append)
    name, _ = pack(run / "agent")
    assert (home / ".cosearch" / name / "complete").exists() and not list((home / ".cosearch").glob("*.zip"))
    assert (home / ".cosearch" / name / "agent.onnx").read_bytes() == (run / "agent" / "agent.onnx").read_bytes()
    assert list((home / ".latency_tables").glob("core-*.zip"))  # the measuring core of the tables, no second one
    summary = summary_of(run)
    assert summary["latency_measured_on"] == "pi, synthetic"
    assert summary["target_checked_by"] == "measurement on pi, synthetic"
    assert found.host == "root@127.0.0.1" and found.provenance == "synthetic" and found.conditions["resumed"] is False
    assert any("self-test on pi: ok: 64 observations" in note for note in notes)
    again = deploy(run, DeployRequest(location, seconds=0.3))
    kept = from_json(Deployments, json.loads((run / "deployments.json").read_text()), "x").deployments
    assert [each.name for each in kept] == ["pi", "127.0.0.1"] and again.name == "127.0.0.1"


def test_a_bundle_that_is_there_is_not_sent_again_and_a_torn_one_is(run, board, monkeypatch):
    location, home = board
    folder = copy_bundle(run / "agent", location)
    before = (home / folder / "agent.onnx").stat().st_mtime_ns
    assert copy_bundle(run / "agent", location) == folder and (home / folder / "agent.onnx").stat().st_mtime_ns == before
    (home / folder / "complete").unlink()
    (home / folder / "agent.onnx").write_bytes(b"torn")
    (home / f"{folder}.zip").write_bytes(b"half")
    copy_bundle(run / "agent", location)
    assert self_test_there(folder, location).startswith("ok: 64")


def lose(times):
    """A way to measure that loses the board after each answer, so many times."""
    real, left = module.Connection, [times]

    class Losing:
        def __init__(self, *args, **more):
            self.core = real(*args, **more)

        def one(self, verb, *args, **more):
            if verb in ("visit", "paced") and left[0]:
                left[0] -= 1
                answer = self.core.one(verb, *args, **more)
                if left[0] % 2:
                    return answer
                self.core.close()
                raise LostBoard("planted")
            return self.core.one(verb, *args, **more)

        def close(self):
            self.core.close()

    return Losing


def test_a_lost_connection_loses_nothing(run, monkeypatch):
    monkeypatch.setattr(module, "Connection", lose(6))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    notes = []
    found = deploy(run, DeployRequest(seconds=0.3), notes.append)
    assert sum("lost this machine: planted; trying again" in note for note in notes) == 3
    assert found.measured.rounds == ROUNDS


@pytest.mark.slow
def test_a_board_that_is_lost_for_good_leaves_its_journal_and_the_old_summary(run, monkeypatch):
    before = summary_of(run)
    monkeypatch.setattr(module, "Connection", lose(99))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with pytest.raises(MeasurementError, match=r"this machine was lost 6 times; what was measured is kept, the same command"):
        deploy(run, DeployRequest(seconds=0.3))
    (journal,) = run.glob("deploy-*.journal")
    made = journal.read_text().count('"visit"')
    assert 0 < made <= ROUNDS and summary_of(run) == before
    monkeypatch.undo()
    notes = []
    found = deploy(run, DeployRequest(seconds=0.3), notes.append)
    assert f"going on: {made} of {ROUNDS} visits were made before" in notes and found.conditions["resumed"] is True
    assert found.measured.rounds == ROUNDS and not list(run.glob("deploy-*.journal"))


@pytest.mark.slow
def test_a_killed_command_and_cut_connections_go_on(run, board):
    location, _ = board
    command = [sys.executable, "-m", "cosearch", "deploy", str(run), "--host", location.host, "--seconds", "6", "--name", "pi"]
    command += [f"--ssh-option={option}" for option in location.ssh_options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    journal = wait_for_visits(run, 2)
    first.kill()
    first.wait()
    made = journal.read_text().count('"visit"')
    second = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for_visits(run, min(ROUNDS, made + 1))
    connections = [ssh for worker in children(second.pid) for ssh in children(worker, "ssh")]  # the work has a process of its own
    assert connections
    for connection in connections:
        os.kill(connection, signal.SIGKILL)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert f"going on: {made} of {ROUNDS} visits" in said and "trying again" in said
    found = from_json(Deployments, json.loads((run / "deployments.json").read_text()), "x").deployments[0]
    assert found.measured.rounds == ROUNDS and summary_of(run)["latency_measured_on"] == "pi"


def children(pid, *name):
    """Processes that a process has begun."""
    found = subprocess.run(["pgrep", "-P", str(pid), *name], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def wait_for_visits(run, count):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for journal in run.glob("deploy-*.journal"):
            if journal.read_text().count('"visit"') >= count:
                return journal
        time.sleep(0.05)
    raise AssertionError("no visits were made")


OLD_RUNTIME = """
__version__ = "1.5.0"
class SessionOptions:
    def add_session_config_entry(self, *words):
        self.entry = words
def InferenceSession(*words, **more):
    raise RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : Load model from " + "/deep" * 30 + "/agent.onnx failed:/onnxruntime_src/"
        "onnxruntime/core/graph/model.cc:147 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, "
        "const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, "
        "const onnxruntime::ModelOptions&) "
        "Current official support for domain ai.onnx is till opset 12."
    )
"""
ABSENT = "#!/bin/sh\necho 'sh: 1: python3: not found' >&2\nexit 127\n"
FULL = '#!/bin/sh\necho "cat: write error: No space left on device" >&2\nexit 1\n'


def lacking(home, package, text):
    """A board whose Python finds this in place of a package."""
    program(home / "lacking" / f"{package}.py", text)
    program(home / "bin" / "python3", f'#!/bin/sh\nPYTHONPATH="{home}/lacking" exec {sys.executable} -s "$@"\n')


def other_outputs(home):
    """A board that has other outputs stored than the bundle brings."""
    move = f'for f in {home}/.cosearch/*/self_test/value.npy; do [ -f "$f" ] && cp {home}/other.npy "$f"; done'
    program(home / "bin" / "python3", f'#!/bin/sh\n{move}\nexec {sys.executable} -s "$@"\n')


BOARDS = {
    "no Python": (
        lambda home: program(home / "bin" / "python3", ABSENT),
        2,
        "root@127.0.0.1 lacks a program: sh: 1: python3: not",
    ),
    "no numpy": (
        lambda home: lacking(home, "numpy", "raise ImportError(\"No module named 'numpy'\")"),
        2,
        r"a package is missing \(No module named 'numpy'\); python3 -m pip install numpy onnxruntime",
    ),
    "old onnxruntime": (
        lambda home: lacking(home, "onnxruntime", OLD_RUNTIME),
        2,
        r"onnxruntime 1\.5\.0 cannot load .*agent\.onnx \(opset 14\): \[ONNXRuntimeError\] .* \.\.\. .* Current official .* "
        "Install a newer onnxruntime there",
    ),
    "full disk": (
        lambda home: program(home / "bin" / "cat", FULL),
        2,
        "the disk of root@127.0.0.1 is full; free some space there",
    ),
    "another processor": (other_outputs, 1, r"the self-test failed on root@127\.0\.0\.1: observation 0: value differs by"),
}


@pytest.mark.parametrize("what", BOARDS)
def test_what_a_board_lacks_is_one_message(run, board, what, capsys, monkeypatch):
    location, home = board
    spoil, code, message = BOARDS[what]
    np.save(home / "other.npy", np.load(run / "agent" / "self_test" / "value.npy") + 1)
    spoil(home)
    before = summary_of(run)
    words = ["deploy", str(run), "--host", location.host, "--quiet", "--seconds", "0.3"]
    assert main([*words, *(f"--ssh-option={option}" for option in location.ssh_options)]) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said and summary_of(run) == before
    assert re.search(message, said), said


def test_another_host_key_is_refused_and_named(run, board, tmp_path, capsys):
    location, _ = board
    options = list(location.ssh_options)
    port = options[options.index("-p") + 1]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    options = [f"UserKnownHostsFile={tmp_path}/known" if "UserKnownHostsFile" in word else word for word in options]
    options = ["StrictHostKeyChecking=yes" if "StrictHostKeyChecking" in word else word for word in options]
    words = ["deploy", str(run), "--host", location.host, *(f"--ssh-option={word}" for word in options)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "its host key is not the one that was seen before" in said and "ssh-keygen -R 127.0.0.1" in said and "lost" not in said


@pytest.mark.parametrize(
    "code, said, kind",
    [
        (255, "Host key verification failed.", RequestError),
        (255, "me@b: Permission denied (publickey).", RequestError),
        (255, "ssh: Could not resolve hostname b: Name or service not known", RequestError),
        (255, "ssh: connect to host b port 22: Connection refused", LostBoard),
        (255, "client_loop: send disconnect: Broken pipe", LostBoard),
        (-9, "", LostBoard),
        (1, "sh: write error: No space left on device", DiskFullError),
        (1, "OSError: [Errno 122] Disk quota exceeded", DiskFullError),
        (127, "sh: 1: python3: not found", MissingExtraError),
        (1, "something else", MeasurementError),
    ],
)
def test_what_ssh_says_becomes_an_error_of_its_kind(code, said, kind):
    error = failure("me@b", code, said)
    assert type(error) is kind and "me@b" in str(error)


def test_a_runtime_that_is_too_old_is_named_however_long_its_words_are(run, tmp_path, monkeypatch):
    program(tmp_path / "onnxruntime.py", OLD_RUNTIME)
    done = subprocess.run(
        [sys.executable, str(run / "agent" / "run_agent.py"), "--self-test"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and len(done.stderr) > 300
    error = explained(str(failure("me@b", done.returncode, done.stderr)), "me@b")
    assert type(error) is RequestError and "cannot load" in str(error) and "till opset 12.. Install a newer" in str(error)


def test_a_board_that_never_answered_is_one_error_at_once(run):
    notes = []
    with pytest.raises(
        MeasurementError, match=r"cannot reach 127\.0\.0\.1 with ssh: .*Connection refused; try: ssh 127\.0\.0\.1 true"
    ):
        deploy(run, DeployRequest(Location(host="127.0.0.1", ssh_options=("-p", "1", "-F", "none"))), notes.append)
    assert notes == []


def test_wrong_requests(run, capsys):
    shutil.rmtree(run / "agent")
    with pytest.raises(RunFolderError, match=r"has no bundle yet: `cosearch export"):
        deploy(run, DeployRequest())
    for words in (["--seconds", "0"], ["--period-ms", "-1"], ["--host", "-x"], ["--ssh-option=-p1"]):
        assert main(["deploy", str(run), *words]) == 2
    with pytest.raises(ParityError):
        raise explained("error: observation 3: value differs", "x")


def test_the_summary_is_a_summary(run):
    deploy(run, DeployRequest(name="pi", seconds=0.3))
    assert from_json(Summary, summary_of(run), "summary.json").target_checked_by == "measurement on pi"


def test_a_self_test_that_does_not_end_is_one_message(run, monkeypatch, capsys):
    monkeypatch.setattr("cosearch.deploy.board.SELF_TEST_S", 0.01)
    assert main(["deploy", str(run), "--seconds", "0.3", "--quiet"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the self-test on this machine took more than 0.01 s" in said and "Traceback" not in said


@pytest.mark.slow
def test_an_emulated_board_passes_the_self_test_and_says_synthetic(run, tmp_path):
    """Run with COSEARCH_BOARD=FOLDER, an emulated aarch64 board with onnxruntime (tests/tables/test_tables_board.py)."""
    login = Path(os.environ.get("COSEARCH_BOARD", ""), "bin", "login").resolve()
    if not os.environ.get("COSEARCH_BOARD") or not login.exists():
        pytest.skip("COSEARCH_BOARD names no folder with an emulated board")
    if reason := loopback_ssh.missing():
        pytest.skip(reason)
    with loopback_ssh.server(tmp_path / "sshd", login) as options:
        found = deploy(run, DeployRequest(Location(host="root@127.0.0.1", ssh_options=options), "pi", 1.5, 0.2, synthetic=True))
    assert found.self_test.startswith("ok: 64 observations") and found.conditions["machine"]["machine"] == "aarch64"
    assert found.provenance == "synthetic" and summary_of(run)["target_checked_by"] == "measurement on pi, synthetic"
