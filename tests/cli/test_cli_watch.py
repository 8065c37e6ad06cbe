"""The process beside the one that works: exit codes and signals pass through it, and no end without a result has code 0."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosearch.cli import app

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """import ctypes, os, signal, sys, time
from cosearch.cli.watch import watched

signal.signal(signal.SIGHUP, signal.{hangup})  # whatever the tests run under: nohup has it ignored

def work():
    {work}

sys.exit(watched(work))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the process beside it is made on Linux alone")


def begun(work, *, hangup="SIG_DFL", **more):
    """The program with this work; it says when the work has begun."""
    lines = ["print(os.getpid(), flush=True)", *work]
    text = PROGRAM.format(work="\n    ".join(lines), hangup=hangup)
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


@pytest.mark.parametrize("leave", ["os._exit({})", "ctypes.CDLL(None).exit({})", "ctypes.CDLL(None)._exit({})"])
@pytest.mark.parametrize("code", [0, 3])
def test_work_that_something_else_ends_is_said_and_never_code_0(leave, code):
    process = begun([leave.format(code), "return 0"])
    _, said = process.communicate(timeout=30)
    assert process.returncode == (code or 1)
    assert said.startswith(f"error: the process was ended from inside, with exit code {code}") and said.count("\n") == 1


def test_an_error_of_the_work_is_told_by_its_traceback_alone():
    process = begun(["raise ValueError('ours')"])
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and said.endswith("ValueError: ours\n") and "ended from inside" not in said


def test_work_that_something_else_ends_by_an_exception_is_said():
    process = begun(["raise SystemExit(0)"])
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and said.startswith("error: the process was ended from inside, with exit code 0")


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_of_work_that_is_done_passes_through(code):
    process = begun([f"return {code}"])
    assert process.communicate(timeout=30)[1] == "" and process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_that_ends_the_work_ends_the_program_in_the_same_way(number):
    process = begun([f"os.kill(os.getpid(), {number})", "time.sleep(30)", "return 0"])
    process.communicate(timeout=30)
    assert process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_handed_on(number):
    process = begun(["time.sleep(30)", "return 0"])
    process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number


def test_a_hangup_that_is_ignored_as_under_nohup_ends_nothing():
    process = begun(["time.sleep(1)", "return 0"], hangup="SIG_IGN")
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_an_interrupt_of_the_program_alone_reaches_the_work():
    process = begun(
        [
            "try:",
            "    signal.signal(signal.SIGINT, signal.default_int_handler)",
            "    print(1, flush=True)",
            "    while True:",
            "        time.sleep(0.01)",  # short: an interrupt just before a sleep begins is seen at its end
            "except KeyboardInterrupt:",
            "    return 130",
            "return 0",
        ]
    )
    process.stdout.readline(), process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_the_work_ends_with_a_program_that_is_killed():
    process = begun(["time.sleep(30)", "return 0"])
    worker = int(process.stdout.readline())
    assert worker != process.pid
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] not in "ZX":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_command_is_watched_however_it_is_started(monkeypatch):
    seen = []
    monkeypatch.setattr(app, "watched", lambda work: seen.append(work) or 7)
    with pytest.raises(SystemExit) as ended:
        app.program()
    assert ended.value.code == 7 and seen == [app.main]
    assert "cosearch=cosearch.cli.app:program" in (ROOT / "setup.py").read_text()
    assert "program()" in (ROOT / "cosearch" / "__main__.py").read_text()


def test_help_that_nobody_reads_to_its_end_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "cosearch", "search", "--help"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 1 and said == ""
