"""A disk that fails at the n-th write, synchronisation, rename, removal, or opening for writing, of one process and its forks.

Opening, renaming, removing and making folders are seen by an audit hook, so whatever library asks for them; ``write`` at the
level of the system's calls, by files whose raw stream is ours; ``fsync`` in ``os``. Files that compiled code writes by itself
escape: of those there is one, the optimised graph that onnxruntime leaves in the folder for temporary files.
"""

from __future__ import annotations

import builtins
import errno
import io
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("open", "write", "fsync", "rename", "remove", "mkdir", "rmdir", "truncate")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE)
LASTING = {  # what else fails from then on, where a fault lasts until the command has ended
    errno.ENOSPC: {"open", "write", "fsync", "mkdir"},  # a full disk still renames and removes
    errno.EIO: set(KINDS),
    errno.EROFS: set(KINDS),
    errno.EACCES: {"open", "rename", "remove", "mkdir", "rmdir"},  # what is open stays so
    errno.EMFILE: {"open"},
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_write = os.write


@dataclass(frozen=True)
class Fault:
    """What fails.

    Attributes:
        number: of the call, from 1.
        error: its ``errno``.
        lasting: the later ones fail, too, as ``LASTING`` says; else this one alone.
    """

    number: int
    error: int
    lasting: bool = False

    def __str__(self) -> str:
        return f"{errno.errorcode[self.error]} at {self.number}{' and on' if self.lasting else ''}"


class Disk:
    """Counts the calls below some folders, and lets one fail. There is no way back: only for a process that ends afterwards.

    Args:
        places: the folders.
        log: file outside of them that gets a line a call: its kind and its path.
        fault: None: nothing fails.
        branch: is told number, kind and path of each call; gives the fault that this process has from now on, if it has one.
    """

    def __init__(
        self,
        places: Sequence[Path],
        log: Path,
        fault: Fault | None,
        branch: Callable[[int, str, str], Fault | None] | None = None,
    ) -> None:
        self._branch, self._paused = branch, False
        self._places = tuple(f"{os.path.realpath(place)}{os.sep}" for place in places)
        self._fault = fault
        self._count: Any = mmap.mmap(-1, 8)  # shared with the processes that are forked
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o644)

    def install(self) -> None:
        """From now on every call of this process is counted."""
        opened = _opener(self)
        for module in (builtins, io, sys.modules["_io"]):
            module.open = opened  # type: ignore[attr-defined]  # all three are looked up by libraries
        os.fsync = self._synchronise
        os.write = self._written
        sys.addaudithook(self._audit)

    def call(self, kind: str, path: str | bytes | int) -> None:
        """One call.

        Raises:
            OSError: it is the one that fails.
        """
        place = _place(path)
        if self._paused or not place.startswith(self._places):
            return
        number = int.from_bytes(self._count[:8], "little") + 1
        self._count[:8] = number.to_bytes(8, "little")
        _write(self._log, f"{kind} {place}\n".encode())
        if self._branch is not None:
            self._begin_branches(number, kind, place, self._branch)
        fault = self._fault
        if fault is not None and (number == fault.number or (fault.lasting and self._goes_on(number, kind, fault))):
            raise OSError(fault.error, os.strerror(fault.error), place)

    def _begin_branches(self, number: int, kind: str, place: str, branch: Callable[[int, str, str], Fault | None]) -> None:
        self._paused = True  # what it does itself is no call
        self._fault = branch(number, kind, place)
        self._paused = False
        if self._fault is not None:
            self._branch = None
            self._log = os.open(os.devnull, os.O_WRONLY)
            self._count = bytearray(self._count[:8])

    def _goes_on(self, number: int, kind: str, fault: Fault) -> bool:
        return number > fault.number and kind in LASTING[fault.error]

    def _synchronise(self, descriptor: Any) -> None:
        """Nothing here cuts the power, so the disk itself need not be waited for."""
        self.call("fsync", descriptor if isinstance(descriptor, int) else descriptor.fileno())

    def _written(self, descriptor: int, data: Any) -> int:
        self.call("write", descriptor)
        return _write(descriptor, data)

    def _audit(self, event: str, words: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = words
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
                self.call("open", path)
        elif event == "os.rename":
            self.call("rename", _within(words[1], words[3]))
        elif event in ("os.remove", "os.rmdir"):
            self.call(event[3:], _within(*words))
        elif event == "os.mkdir":
            self.call("mkdir", _within(words[0], words[2]))
        elif event == "os.truncate":
            self.call("truncate", words[0])


def _within(path: Any, folder: int) -> Any:
    """A path that is relative to an open folder, as ``shutil.rmtree`` gives it."""
    return path if folder < 0 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))


def _place(path: Any) -> str:
    try:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
    except (OSError, TypeError, ValueError):
        return ""
    return os.path.join(os.path.realpath(folder), name)


def _opener(disk: Disk) -> Callable[..., Any]:
    real = io.open

    class Raw(io.FileIO):
        """A file whose every ``write`` the disk sees; one that fails writes its first half, and the next one raises, as on a
        disk that fills up."""

        full, refused = False, None

        def write(self, data: Any) -> int:
            """See ``io.FileIO``."""
            refused, self.refused = self.refused, None
            if refused is not None:
                raise refused
            try:
                disk.call("write", self.fileno())
            except OSError as error:
                view = memoryview(data).cast("B")
                if len(view) < 2 or self.full:
                    raise
                self.full, self.refused = True, error
                return super().write(view[: len(view) // 2])
            return super().write(data)

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """As the built-in ``open`` does it."""
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        size = io.DEFAULT_BUFFER_SIZE if buffering in (-1, 1) else buffering
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, io.text_encoding(encoding), errors, newline, line_buffering=buffering == 1)
        text.mode = mode  # type: ignore[misc]  # as the built-in one sets it
        return text

    return opened
