"""One command on a board through the system's OpenSSH client; whatever goes wrong is one message that says what to do.

Nothing is asked for on the terminal (``BatchMode``), and a connection that is silent for a quarter of a minute counts as lost.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from latency_tables.errors import CosearchError, DiskFullError, MeasurementError, MissingExtraError, RequestError

SSH_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
OWN_FAILURE = 255  # exit code of ssh itself; any other is the command's
NOT_FOUND = 127
LAST_LETTERS = 1000  # of what a failed command said: a runtime names its own functions before the reason
ADVICE = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key is not the one that was seen before. If the board was set up anew, "
    "remove the old key: ssh-keygen -R {name}; if not, somebody else answers",
    "Host key verification failed": "its host key is not known here: connect once by hand and compare it: ssh {host}",
    "Permission denied": "it refuses the login: put your public key there: ssh-copy-id {host}",
    "Could not resolve hostname": "there is no machine of that name: check it, or name it in ~/.ssh/config",
}


class LostBoard(MeasurementError):
    """The connection to a board ended or went silent; the work can go on after a new one."""


def ssh_command(host: str, options: Sequence[str]) -> list[str]:
    """The words that begin a command on a board.

    Args:
        host: ``user@board`` of the system's ssh configuration.
        options: further options of ssh.
    """
    return ["ssh", *SSH_OPTIONS, *options, "--", host]


def run_on_board(host: str, options: Sequence[str], command: str, data: bytes = b"", *, timeout_s: float = 120.0) -> str:
    """Run one command of the board's shell.

    Args:
        host, options: see :func:`ssh_command`.
        command: for the shell there.
        data: its standard input.
        timeout_s: seconds after which the connection counts as lost.

    Returns:
        What it wrote to standard output.

    Raises:
        LostBoard: the board cannot be reached, or the connection ended; it may be tried again.
        RequestError: the host key, the login or the name of the board is wrong.
        MissingExtraError: the board has no such program.
        DiskFullError: no space is left there.
        MeasurementError: the command failed for another reason.
    """
    try:
        done = subprocess.run(
            [*ssh_command(host, options), command], input=data, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LostBoard(f"cannot reach {host} with ssh: {error}") from error
    if done.returncode:
        raise failure(host, done.returncode, done.stderr.decode(errors="replace").strip())
    return done.stdout.decode(errors="replace")


def failure(host: str, code: int, said: str) -> CosearchError:
    """The error that an exit code and what was said on standard error amount to.

    Args:
        host: the board.
        code: of ssh, not 0.
        said: on standard error.
    """
    last = " ".join(said.split())[-LAST_LETTERS:]
    if code == OWN_FAILURE or code < 0:
        for words, advice in ADVICE.items():
            if words in said:
                return RequestError(f"{host}: {advice.format(host=host, name=host.rpartition('@')[2])}")
        return LostBoard(f"cannot reach {host} with ssh: {last or 'no reason given'}; try: ssh {host} true")
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return DiskFullError(f"the disk of {host} is full; free some space there, the same command goes on. It said: {last}")
    if code == NOT_FOUND:
        return MissingExtraError(f"{host} lacks a program: {last}; install it there, or give the board's Python with --python")
    return MeasurementError(f"a command on {host} failed with exit code {code}: {last or 'nothing was said'}")
