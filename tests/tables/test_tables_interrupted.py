"""Real processes interrupted while they measure: killed here, killed on the board, connection cut. Nothing lost or doubled.

The board is this machine behind a stand-in for ``ssh`` that relays a command's input and output, so that killing it is a
connection cut; real SSH and an emulated board are in ``test_tables_board.py``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latency_tables.measuring.plan import make_plan
from latency_tables.measuring.settings import Settings
from latency_tables.opspec import OpSpec
from latency_tables.table import load_table
from latency_tables.worklists import load_worklist, make_worklist

STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CELLS = [OpSpec("conv", 8, 8, 8, 8, 3, 1, 1), OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3)]
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
NETWORKS = [[STEM, *cells, HEAD] for cells in ((CELLS[0],), (CELLS[1],), tuple(CELLS), (CELLS[1], CELLS[1]), (CELLS[0],) * 2)]
ROUNDS = 4
RELAY = """#!{python}
import os, subprocess, sys, threading
with open("{folder}/connections", "a") as log:
    log.write(f"{{os.getpid()}}\\n")
run = subprocess.Popen(["sh", "-c", sys.argv[-1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="{folder}")
def relay(source, sink):
    while data := os.read(source.fileno(), 65536):
        sink.write(data)
        sink.flush()
    sink.close()
threading.Thread(target=relay, args=(sys.stdin.buffer, run.stdin), daemon=True).start()
relay(run.stdout, sys.stdout.buffer)
sys.exit(run.wait())
"""
PYTHON = """#!/bin/sh
echo $$ >> {folder}/cores
exec {python} "$@"
"""


def write_script(path, text, folder):
    path.write_text(text.format(python=sys.executable, folder=folder))
    path.chmod(0o755)


def listen_to_interrupts():
    """In the new process: a shell that runs the tests in the background has told its children to ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def measurement(tmp_path):
    """Starts the same measurement again and again: here, or on the stand-in board."""
    (tmp_path / "work.json").write_text(json.dumps(make_worklist("toy", [], NETWORKS).to_dict()))
    write_script(tmp_path / "ssh", RELAY, tmp_path)
    write_script(tmp_path / "board_python", PYTHON, tmp_path)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    running = []

    def start(*options):
        command = [sys.executable, "-m", "latency_tables", "measure", "--device", "toy", "--out", str(tmp_path / "t.jsonl"),
                   "--worklist", str(tmp_path / "work.json"), "--rounds", str(ROUNDS), "--max-rounds", str(ROUNDS),
                   "--budget", "0", *options]  # fmt: skip
        with (tmp_path / "stderr").open("w") as errors:
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment,
                                            preexec_fn=listen_to_interrupts))  # noqa: PLW1509  no threads here  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def wait_for_visits(process, journal, count):
    """Let the measurement go on until so many visits are on disk."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_text().count('"visit"') >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the measurement ended before {count} visits: {(journal.parent / 'stderr').read_text()[-500:]}")


def check_whole(tmp_path, *, resumed):
    """Each model has exactly the visits that were planned, and the table all rows with all rounds."""
    plan = make_plan(load_worklist(tmp_path / "work.json"))
    table = load_table(tmp_path / "t.jsonl")
    settings = Settings(min_rounds=ROUNDS)
    assert table.header["protocol"]["visits"] == sum(map(settings.least_visits, plan.builders))
    assert table.header["protocol"]["resumed"] is resumed
    assert set(table.rows) == {row.op.key for row in plan.rows} and table.certificate.accuracy.networks == 3
    assert {row.details["rounds"] for row in table.rows.values()} == {ROUNDS}
    assert not Path(f"{tmp_path}/t.jsonl.journal").exists() and not Path(f"{tmp_path}/t.jsonl.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("visits", [3, 30])
def test_killed_here_goes_on_with_the_same_command(measurement, tmp_path, visits):
    journal = tmp_path / "t.jsonl.journal"
    process = measurement()
    wait_for_visits(process, journal, visits)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes()
    assert not (tmp_path / "t.jsonl").exists() and kept.count(b'"visit"') >= visits
    again = measurement()
    assert again.wait(timeout=200) == 0, (tmp_path / "stderr").read_text()
    check_whole(tmp_path, resumed=True)


@pytest.mark.slow
def test_interrupted_by_the_user_says_how_to_go_on(measurement, tmp_path):
    process = measurement()
    wait_for_visits(process, tmp_path / "t.jsonl.journal", 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130 and "the same command goes on" in (tmp_path / "stderr").read_text()
    assert measurement().wait(timeout=200) == 0
    check_whole(tmp_path, resumed=True)


@pytest.mark.parametrize(
    "victim", [pytest.param("cores", marks=pytest.mark.slow), pytest.param("connections", marks=pytest.mark.slow)]
)
def test_killed_on_the_board_or_cut_off_it_connects_again(measurement, tmp_path, victim):
    process = measurement("--host", "me@board", "--python", str(tmp_path / "board_python"))
    for visits in (3, 40):
        wait_for_visits(process, tmp_path / "t.jsonl.journal", visits)
        os.kill(int((tmp_path / victim).read_text().split()[-1]), signal.SIGKILL)
    assert process.wait(timeout=200) == 0, (tmp_path / "stderr").read_text()
    check_whole(tmp_path, resumed=False)
    assert len((tmp_path / "cores").read_text().split()) == 3
