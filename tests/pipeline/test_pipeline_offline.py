"""Invariant 10: the whole pipe works without any network, listens nowhere, and leaves nothing in the home folder."""

import os
import subprocess
import sys
import time

import pytest
from pipeline_runs import ROOT, TINY, results

LISTENING = "0A"  # state of a TCP socket in /proc


def without_network():
    """Command words that run a program in a network namespace without interfaces; skips where that is not permitted."""
    for words in (["unshare", "-n"], ["unshare", "-rn"]):
        try:
            if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
                return words
        except FileNotFoundError:
            pytest.skip("this system has no unshare command")
    pytest.skip("a network namespace is not permitted here")


def sockets(process):
    """Sockets of any protocol in the process's network namespace that something could reach, or that reach out."""
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw"):
        try:
            with open(f"/proc/{process}/net/{kind}", encoding="ascii") as lines:
                found += [f"{kind} {line.split()[1]} {line.split()[3]}" for line in list(lines)[1:]]
        except OSError:
            continue  # the process has ended
    return found


def apart(process):
    """Whether a process is in another network namespace than this one."""
    try:
        return os.readlink(f"/proc/{process}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False  # the process has ended


def test_a_socket_that_listens_would_be_seen(tmp_path):
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(flush=True); time.sleep(60)"
    words = [*without_network(), sys.executable, "-c", code]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    process.stdout.readline()
    seen = sockets(process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(seen) == 1 and seen[0].startswith("tcp ") and seen[0].endswith(LISTENING)


@pytest.mark.slow
def test_the_whole_pipe_without_a_network_or_a_trace_in_the_home_folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL", "ORT_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [*without_network(), sys.executable, "-m", "cosearch", "--preset", "smoke", "--run", "one", *TINY],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
        seen = set()
        while process.poll() is None:
            if apart(process.pid):  # not in the moment before it has left this machine's own namespace
                seen.update(sockets(process.pid))
            time.sleep(0.05)
    text = (tmp_path / "log").read_text()
    assert process.returncode == 0 and "Traceback" not in text, text
    assert not seen
    assert results(tmp_path / "runs" / "one")["stage"] == "done"
    left = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    foreign = [path for path in left if path.parts[:2] not in ((".cache", "matplotlib"), (".config", "matplotlib"))]
    assert not foreign, f"files in the home folder: {foreign}"
