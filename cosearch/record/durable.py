"""Writing that survives a kill, a power cut and a full disk.

A file is replaced whole or not at all (``latency_tables.text.writing``, which all packages share). A line is appended whole:
what a failed write left behind is cut off again. A write that fails becomes one clear error and leaves the old content as it was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from latency_tables.text.writing import TEMPORARY_SUFFIX, one_clear_error, sync_folder, write_bytes_atomic

__all__ = ["TEMPORARY_SUFFIX", "append_line", "one_clear_error", "sync_folder", "write_bytes_atomic"]


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
