"""Writing that survives a kill, a power cut and a full disk.

A file is replaced whole or not at all: written beside its place, synchronised to the disk, renamed, and the folder
synchronised as well. A line is appended whole: what a failed write left behind is cut off again. A write that fails
becomes one clear error and leaves the old content as it was.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from latency_tables.errors import DiskFullError, RunFailedError

TEMPORARY_SUFFIX = ".partial"


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Replace the content of ``path``; a reader sees the old bytes or the new ones, never a mixture.

    Args:
        path: the file; its folder must exist.
        data: all bytes of the new content.

    Raises:
        RunFailedError: the disk is full or refuses the write; the old file is intact.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    with one_clear_error(path):
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line to a text file and synchronise it; the file is created when it is missing.

    Args:
        path: a file of lines. A last line without its line end (a writer was killed there) is cut off first.
        line: the text without a line end.

    Raises:
        RunFailedError: the disk is full or refuses the write; the earlier lines are intact.
        ValueError: the text holds a line end itself.
    """
    if "\n" in line:
        raise ValueError(f"a line must not hold a line end, got {line!r}")
    with one_clear_error(path), open(path, "a+b", buffering=0) as file:  # unbuffered: closing must not write again
        end = _cut_torn_line(file)
        try:
            rest = line.encode() + b"\n"
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)  # a part of the line may have reached the disk
            raise


def _cut_torn_line(file: BinaryIO) -> int:
    """Cut an unfinished last line off an open file; returns the length in bytes afterwards."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.read().rfind(b"\n") + 1
            file.truncate(end)
    return end


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable, on systems where folders can be synchronised (all but Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def one_clear_error(path: Path) -> Iterator[None]:
    """Turn whatever the disk answers inside the ``with`` block into one error about ``path``.

    Raises:
        DiskFullError: no space is left.
        RunFailedError: the disk refuses the write for another reason.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DiskFullError if full else RunFailedError)(
            f"{'the disk is full' if full else 'the disk refused a write'}: {path} could not be written "
            f"({error.strerror or error}). What it held before is kept. "
            f"{'Free some space' if full else 'Check the folder and its rights'}, then repeat the command "
            "(`cosearch resume FOLDER` for a run that had begun)"
        ) from error
