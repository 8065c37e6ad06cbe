"""A TVM RPC tracker and its servers on loopback, for slow tests; needs TVM."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(log: Path, *command: str) -> subprocess.Popen[bytes]:
    """A process in a group of its own, so that its workers end with it."""
    with open(log, "w") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True)


def wait_for(log: Path, words: str, process: subprocess.Popen[bytes], seconds: float = 240) -> None:
    """Wait until the log has these words.

    Raises:
        AssertionError: they never came.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if words in log.read_text():
            return
        time.sleep(0.2)
    raise AssertionError(f"{words!r} never came: {log.read_text()[-500:]}")


@contextlib.contextmanager
def tracker(folder: Path) -> Iterator[Callable[[str, str], str]]:
    """A tracker whose logs lie in a folder; yields a function: Python and key of a server -> the tracker's address."""
    port, running = free_port(), []
    address = f"127.0.0.1:{port}"
    where = ("--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1))
    running.append(start(folder / "tracker", sys.executable, "-m", "tvm.exec.rpc_tracker", *where))
    wait_for(folder / "tracker", "bind to", running[0])

    def serve(python: str, key: str) -> str:
        at = free_port()
        there = ("--host", "127.0.0.1", "--port", str(at), "--port-end", str(at + 1), "--tracker", address, "--key", key)
        running.append(start(folder / key, python, "-m", "tvm.exec.rpc_server", *there))
        wait_for(folder / key, "bind to", running[-1])
        return address

    try:
        yield serve
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):  # it had ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
