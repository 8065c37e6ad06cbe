"""What Python does while something is opened: the audit events (PEP 578) that run code, start programs or touch the network."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNS = {"exec", "import", "pickle.find_class", "ctypes.dlopen", "marshal.loads", "cpython.run_file", "cpython.run_command"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn"}
REACHES = {
    "socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
    "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect",
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
TRUSTED = (str(ROOT / "cosearch"), str(ROOT / "latency_tables"), str(ROOT / "accel_models"), sys.prefix, sys.base_prefix)

_listening: list[list[str]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _listening or event not in RUNS | STARTS | REACHES:
        return
    text = f"{event} {str(arguments)[:200]}"
    if event == "exec":
        name = str(getattr(arguments[0], "co_filename", "<source>"))
        if name.startswith((*TRUSTED, "<frozen ")) or sys._getframe(1).f_code.co_filename == typing.__file__:
            return  # the last: annotations of our own records are read as types
        text = f"exec {name}"
    if event == "import":
        found = str(arguments[1] or "")  # the file of an extension; None for a name that is only looked for
        if not found or found.startswith(TRUSTED):
            return
    for heard in _listening:
        heard.append(text)


_added: list[bool] = []


@contextmanager
def watched() -> Iterator[list[str]]:
    """What happens inside the ``with`` block; code of the installed packages and of this repository is not named."""
    if not _added:  # a hook cannot be taken away: there is one, which is deaf outside of the blocks
        sys.addaudithook(_hear)
        _added.append(True)
    heard: list[str] = []
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)
