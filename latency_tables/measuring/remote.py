"""Talks to the measuring core: in a process of its own on this machine, or on a board through the system's OpenSSH client.

The core is one small zip of our own files, pushed with ``cat`` over the connection (no scp, rsync or root on the board)
and run by the board's Python, which needs numpy and onnxruntime only. Nothing listens anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import queue
import re
import shlex
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, Unpack

import latency_tables
from latency_tables.board.core import RequestFields
from latency_tables.errors import MeasurementError, RequestError
from latency_tables.measuring.answers import Answer, read_answer
from latency_tables.measuring.ssh import LostBoard, run_on_board, ssh_command

__all__ = ["Answer", "Connection", "Core", "Location", "LostBoard"]

START = """import sys

if sys.version_info < (3, 8):
    sys.exit("the measuring core needs Python 3.8 or newer, this is " + sys.version.split()[0])
from latency_tables.board.core import main

main()
"""
READINGS = 2  # a reading of power lasts so many times its seconds: half before, once under load, half after
CAUSES = (  # what the last words of a core that does not start mean: pattern, advice
    (
        r"No module named 'numpy|onnxruntime cannot be imported",
        "its Python lacks a package: {run} -m pip install numpy onnxruntime",
    ),
    (r"needs Python 3", "--python PATH names another Python there"),
    (
        r"^(?!.*can't open file).*(not found|No such file|ermission denied)",
        "--python PATH names the Python there; it must be one that {host} can run",
    ),
)


@dataclass(frozen=True)
class Location:
    """Where to measure.

    Attributes:
        host: ``user@board`` of the system's ssh configuration, or None for this machine.
        python: the Python of a ``host``; here it is that of this process.
        folder: where the core is put there, relative to the home directory.
        ssh_options: further options of ssh, such as ``("-p", "2222")``.
        tracker, tracker_key: ``host:port`` of a TVM RPC tracker and the device's key there, instead of ``host``.
        tvm_target: what TVM compiles for, as its JSON object; this processor by default.
        compiler: what links for the board, such as ``aarch64-linux-gnu-g++``.

    Raises:
        RequestError: a malformed host, two ways at once, or a value for a way that is not taken.
    """

    host: str | None = None
    python: str = "python3"
    folder: str = ".latency_tables"
    ssh_options: tuple[str, ...] = field(default=())
    tracker: str | None = None
    tracker_key: str = "board"
    tvm_target: Mapping[str, object] | None = None
    compiler: str | None = None

    def __post_init__(self) -> None:
        if self.host is not None and (not self.host or self.host.startswith("-") or any(c.isspace() for c in self.host)):
            raise RequestError(f"host must look like user@board, got {self.host!r}")
        if self.host is not None and self.tracker is not None:
            raise RequestError("a board is reached by host or by tracker, got both")
        for way, names in (("host", ("python", "ssh_options")), ("tracker", ("tracker_key", "tvm_target", "compiler"))):
            idle = [name.replace("_", "-") for name in names if getattr(self, name) != getattr(type(self), name)]
            if getattr(self, way) is None and idle:
                raise RequestError(f"{' and '.join(idle)} would have no effect without {way}: leave it out, or give {way}, too")


class Core(Protocol):
    """A measuring core, wherever it is; what it can be asked for is said at ``board.core.RequestFields``."""

    def ask(self, verb: str, payload: bytes = b"", **values: Unpack[RequestFields]) -> Iterator[Answer]:
        """Send one request and give its answers as they come."""

    def one(self, verb: str, payload: bytes = b"", **values: Unpack[RequestFields]) -> Answer:
        """The single answer to a request."""

    def close(self) -> None:
        """End the core; safe to call twice."""


def core_archive() -> tuple[str, bytes]:
    """The room ``board`` and the errors as a zip whose name holds its hash, the same bytes for the same sources."""
    package = Path(latency_tables.__file__).parent
    files = [package / "__init__.py", package / "errors.py", *sorted((package / "board").glob("*.py"))]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(f"latency_tables/{path.relative_to(package).as_posix()}", date_time=(2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, path.read_bytes())
        start = zipfile.ZipInfo("__main__.py", date_time=(2020, 1, 1, 0, 0, 0))
        archive.writestr(start, START)
    data = buffer.getvalue()
    return f"core-{hashlib.sha256(data).hexdigest()[:12]}.zip", data


def only(answers: Iterable[Answer], verb: str, where: str) -> Answer:
    """The one answer to a request.

    Args:
        answers: all of them.
        verb, where: what was asked, and which board, for the message.

    Raises:
        LostBoard: there are none, or several.
    """
    given = list(answers)
    if len(given) != 1:
        raise LostBoard(f"{where} gave {len(given)} answers to {verb}, expected 1")
    return given[0]


class Connection:
    """One running measuring core.

    Args:
        location: where.
        answer_timeout_s: a silence longer than this, in seconds, counts as a lost connection; a request that measures for
            some ``seconds`` is given their time on top.

    Raises:
        LostBoard: the core could not be started.
        RequestError: the host key, the login or the name of the board is wrong.
        DiskFullError: no space is left there.
    """

    def __init__(self, location: Location, *, answer_timeout_s: float = 120.0) -> None:
        self.location = location
        self._timeout = answer_timeout_s
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log: list[str] = []
        command, environment = self._command()
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        except OSError as error:
            raise LostBoard(f"{self._where()} cannot be started: {error.strerror or error}") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr  # they are pipes
        self._requests = self._process.stdin
        threading.Thread(target=_pump, args=(self._process.stdout, self._lines.put), daemon=True).start()
        self._errors = threading.Thread(target=_pump, args=(self._process.stderr, self._note), daemon=True)
        self._errors.start()

    def _command(self) -> tuple[list[str], dict[str, str] | None]:
        if self.location.host is None:
            root = str(Path(latency_tables.__file__).parent.parent)
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
            environment["OMP_NUM_THREADS"] = "1"
            return [sys.executable, "-u", "-m", "latency_tables.board.core"], environment
        name, data = core_archive()
        folder, path = shlex.quote(self.location.folder), shlex.quote(f"{self.location.folder}/{name}")
        push = f"mkdir -p {folder} && cat > {path}.part && mv {path}.part {path}"
        run_on_board(self.location.host, self.location.ssh_options, push, data)
        run = f"ORT_DISABLE_TELEMETRY=1 {shlex.quote(self.location.python)} -u {path}"
        return [*ssh_command(self.location.host, self.location.ssh_options), run], None

    def _note(self, line: str | None) -> None:
        if line is not None:
            self._log.append(line.rstrip())
            del self._log[:-20]

    def ask(self, verb: str, payload: bytes = b"", **values: Unpack[RequestFields]) -> Iterator[Answer]:
        """Send one request and give its answers as they come.

        Raises:
            LostBoard: the core ended, went silent, or answered something else, see ``answers``.
            MeasurementError: the core refused the request.
        """
        text = json.dumps({"verb": verb, "payload": len(payload), **values}).encode()
        try:
            self._requests.write(struct.pack(">I", len(text)) + text + payload)
            self._requests.flush()
        except (OSError, ValueError) as error:
            raise LostBoard(self._lost()) from error
        patience_s = self._timeout + READINGS * values.get("seconds", 0.0)
        while True:
            try:
                line = self._lines.get(timeout=patience_s)
            except queue.Empty as error:
                raise LostBoard(f"{self._where()} was silent for {patience_s:g} s") from error
            if line is None:
                raise LostBoard(self._lost())
            answer = self._read(line, verb)
            if answer.get("end"):
                return
            if "error" in answer and "id" not in answer:
                raise MeasurementError(f"{self._where()}: {answer['error']}")
            yield answer

    def _read(self, line: str, verb: str) -> Answer:
        try:
            return read_answer(line, verb, self._where())
        except LostBoard as error:
            if self.location.host is None or line.lstrip().startswith("{"):
                raise
            raise LostBoard(
                f"{error}. Where the start files of its shell print that, let them do so in a terminal alone: "
                f"`ssh {self.location.host} true` must print nothing"
            ) from error

    def one(self, verb: str, payload: bytes = b"", **values: Unpack[RequestFields]) -> Answer:
        """The single answer to a request; see :meth:`ask`."""
        return only(self.ask(verb, payload, **values), verb, self._where())

    def close(self) -> None:
        """End the core; safe to call twice."""
        with contextlib.suppress(OSError):  # it is gone already
            self._requests.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _where(self) -> str:
        return f"the measuring core on {self.location.host or 'this machine'}"

    def _lost(self) -> str:
        """What became of the core: its last words, and what they mean."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        self._errors.join(timeout=1)
        log: Sequence[str] = [line for line in self._log if line][-3:]
        words = f"{self._where()} ended; its last words: {' | '.join(log)[-400:] or 'none'}"
        host = self.location.host or "this machine"
        run = f"ssh {host} {self.location.python}" if self.location.host else "python"
        advice = next((advice for pattern, advice in CAUSES if re.search(pattern, words)), None)
        return words if advice is None else f"{words}; {advice.format(run=run, host=host)}"


def _pump(stream: IO[bytes], sink: Callable[[str | None], None]) -> None:
    with io.TextIOWrapper(stream, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            sink(line)
    sink(None)
