"""Whole folders on their way between machines that share no file system: packed, and put in place whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cosearch.record.durable import TEMPORARY_SUFFIX
from latency_tables.errors import RunFolderError

TOKEN = ".seen-by-workers"
LEFT_OUT = (".lock",)


@dataclass(frozen=True)
class Shared:
    """A folder, and what shows another machine that it sees the same one.

    Attributes:
        path: of the folder.
        token: content of a file in it; empty: it is this machine's.
    """

    path: str
    token: str = ""

    def seen(self) -> bool:
        """Whether this process sees the folder."""
        if not self.token:
            return True
        try:
            return (Path(self.path) / TOKEN).read_text(encoding="utf-8") == self.token
        except OSError:
            return False


def marked(folder: Path) -> Shared:
    """A folder with a new token in it, which :func:`unmarked` takes away again."""
    token = secrets.token_hex(16)
    (folder / TOKEN).write_text(token, encoding="utf-8")
    return Shared(str(folder), token)


def unmarked(folder: Path) -> None:
    """Take the token away."""
    (folder / TOKEN).unlink(missing_ok=True)


def packed(folder: Path) -> bytes:
    """A folder as one block of bytes, without its lock and half-written files."""
    buffer = io.BytesIO()

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        half_written = name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)
        return None if half_written or name in LEFT_OUT else member

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".", filter=kept)
    return buffer.getvalue()


def unpack(content: bytes, folder: Path, correct: Callable[[Path], None] = lambda draft: None) -> None:
    """Put a folder in place whole or not at all; one that is there is replaced.

    Args:
        content: of :func:`packed`.
        folder: gets it.
        correct: changes what must be changed, in a draft beside it, before it is in place.

    Raises:
        RunFolderError: the bytes are no such block, or hold a path that leaves the folder.
    """
    draft, old = folder.parent / f".{folder.name}.{os.getpid()}.draft", _old(folder)
    recover(folder)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            archive.extractall(draft, filter="data")
        correct(draft)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    except tarfile.TarError as error:
        raise RunFolderError(f"{folder}: what came back from a worker is no folder: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo an :func:`unpack` that was killed between its two renamings; nothing else is changed."""
    old = _old(folder)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"
