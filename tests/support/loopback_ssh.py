"""An OpenSSH server of our own on loopback, for tests of boards: its login runs every command in a home of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


def missing() -> str | None:
    """Why there can be no server here; None where there can."""
    if SSHD is None or shutil.which("ssh") is None:
        return "sshd or ssh is not installed"
    return None if os.geteuid() == 0 else "sshd needs root here"


@contextmanager
def server(folder: Path, login: Path) -> Iterator[tuple[str, ...]]:
    """A running server.

    Args:
        folder: gets keys, configuration and log.
        login: program that each connection runs; its command is in ``SSH_ORIGINAL_COMMAND``.

    Yields:
        Options of ssh that reach it at 127.0.0.1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for key in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/client.pub\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nForceCommand {login}\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run([str(SSHD), "-f", str(folder / "config"), "-E", str(folder / "log")], check=True)
    for _ in range(50):
        if (folder / "pid").exists():
            break
        time.sleep(0.1)
    try:
        yield ("-p", str(port), "-i", str(folder / "client"), "-F", "none", "-o", "IdentitiesOnly=yes",
               "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known")  # fmt: skip
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
