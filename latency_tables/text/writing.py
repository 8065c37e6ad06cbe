"""Writing files that the user keeps: whole or not at all, and never over what is no regular file.

A file is replaced whole: written beside its place, synchronised to the disk, renamed, and the folder synchronised as well. A
link is followed first, so that the file it names is replaced and the link stays. Renaming over a device, a pipe or a folder
would destroy it: that is refused before anything is written. What the system answers becomes one clear error.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latency_tables.errors import DiskFullError, RequestError, RunFailedError

TEMPORARY_SUFFIX = ".partial"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link that leads in a circle",
}


def write_bytes_atomic(path: Path, data: bytes | memoryview) -> None:
    """Replace the content of ``path``; a reader sees the old bytes or the new ones, never a mixture.

    Args:
        path: the file, or a link to it; its folder must exist.
        data: all bytes of the new content.

    Raises:
        RequestError: something that is no regular file is there; nothing was written.
        DiskFullError: no space is left; the old file is intact.
        RunFailedError: the disk refuses the write; the old file is intact.
    """
    with one_clear_error(path):
        target = regular_file(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            sync_folder(target.parent)
        finally:
            partial.unlink(missing_ok=True)


def regular_file(path: Path) -> Path:
    """The file that ``path`` names, links followed: a regular file, or one that does not exist yet.

    Raises:
        RequestError: it is a folder, a device, a pipe, a socket or a link that leads in a circle.
        OSError: a folder on the way cannot be looked into.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise RequestError(f"{path} is {kind}: it is not written over; give the path of a file")
    return target


def check_destination(path: Path, *keep: str | Path) -> None:
    """Raise now where a file could not be written after the work; its folder need not exist yet. Nothing is left behind.

    Args:
        path: of the file.
        *keep: files that it is made from, which must not be written over; what is no file is passed over.

    Raises:
        RequestError: the place is read-only or refuses files, a file is in the way, it is no regular file, or one to ``keep``.
    """
    try:
        target = regular_file(path)
        if any(target.exists() and os.path.exists(source) and os.path.samefile(target, source) for source in keep):
            raise RequestError(f"{path} is the file that it would be made from: give the result another name")
        check_folder(target.parent)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}; give another place") from error


def check_folder(path: Path) -> None:
    """Raise now where a folder could not be made, or could take no file; nothing is left behind.

    Raises:
        RequestError: the place is read-only or refuses files, or a file is in the way.
    """
    try:
        above = Path(os.path.realpath(path))
        while not above.exists():
            above = above.parent
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}; give another place") from error


def make_folder(path: Path) -> None:
    """Make a folder and the folders above it; one that exists is left as it is.

    Raises:
        DiskFullError: no space is left.
        RunFailedError: the place is read-only, or a file is in the way.
    """
    with one_clear_error(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is no fault.

    Raises:
        RunFailedError: the disk refuses it.
    """
    with one_clear_error(path):
        path.unlink(missing_ok=True)


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
            f"{'the disk is full' if full else 'the disk refused a write'}: {path} could not be written or removed "
            f"({error.strerror or error}). What it held before is kept. "
            f"{'Free some space' if full else 'Check the folder and its rights'}, then repeat the command "
            "(`cosearch resume FOLDER` for a run that had begun)"
        ) from error
