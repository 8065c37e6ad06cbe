"""The board workflow over SSH on loopback, on an emulated aarch64 machine; its table is ``synthetic``.

Run: COSEARCH_BOARD=/path/to/board python -m pytest tests/tables/test_tables_board.py -m slow

The folder holds an emulated board whose ``bin/login`` runs a command with the board's own ``python3`` first in PATH
(numpy and onnxruntime for aarch64, no torch and no onnx). Needs sshd and qemu; skips with a reason where they are absent.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import loopback_ssh
import pytest

from latency_tables.measuring.remote import Connection, Location, LostBoard
from latency_tables.opspec import OpSpec
from latency_tables.table import load_table
from latency_tables.worklists import make_worklist

BOARD = os.environ.get("COSEARCH_BOARD", "")
STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CELLS = [OpSpec("conv", 8, 8, 8, 8, 3, 1, 1), OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3)]
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A target behind an sshd of our own on loopback."""
    if not BOARD or not Path(BOARD, "bin", "login").exists():
        pytest.skip("COSEARCH_BOARD names no folder with an emulated board")
    if reason := loopback_ssh.missing():
        pytest.skip(reason)
    login = Path(BOARD).resolve() / "bin" / "login"
    with loopback_ssh.server(tmp_path_factory.mktemp("sshd"), login) as options:
        yield Location(host="127.0.0.1", ssh_options=options)


def test_an_unreachable_host_is_one_clear_error():
    with pytest.raises(LostBoard, match="ssh"):
        Connection(Location(host="127.0.0.1", ssh_options=("-p", "1", "-F", "none")))


@pytest.mark.slow
def test_emulated_board_is_an_arm_machine_without_torch_or_onnx(board):
    core = Connection(board)
    try:
        hello = core.one("hello", threads=1, pin=True)
    finally:
        core.close()
    assert hello["fingerprint"]["machine"] == "aarch64" and "CPUExecutionProvider" in hello["providers"]
    assert hello["power"] is None


@pytest.mark.slow
def test_table_of_an_emulated_board_survives_a_lost_connection(board, tmp_path):
    networks = [[STEM, *cells, HEAD] for cells in ((CELLS[0],), (CELLS[1],), tuple(CELLS), (CELLS[1], CELLS[1]), (CELLS[0],) * 2)]
    work = tmp_path / "work.json"
    work.write_text(json.dumps(make_worklist("toy", [], networks).to_dict()))
    out = tmp_path / "board.jsonl"
    options = [f"--ssh-option={option}" for option in board.ssh_options]
    command = [sys.executable, "-m", "latency_tables", "measure", "--device", "emulated", "--out", str(out),
               "--worklist", str(work),
               "--host", board.host, "--rounds", "2", "--max-rounds", "2", "--budget", "1", "--synthetic", *options]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    journal = Path(f"{out}.journal")
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_text().count('"visit"') >= 6:
            break
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "ssh"], capture_output=True, text=True, check=False
    ).stdout.split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    assert children, "the connection should have been open"
    assert process.wait(timeout=290) == 0
    table = load_table(out)
    assert table.provenance == "synthetic" and table.header["host"]["machine"] == "aarch64"
    assert table.coverage(networks[3]) == 1.0 and table.certificate.accuracy.networks == 3
    assert not any("Reorder" in name for row in table.rows.values() for name in row.details["graph"])
    assert table.predict(networks[0]).provenance == "synthetic" and not journal.exists()
