"""Checkpoints of a run: written whole, checked by content, the newest few kept.

A file's name is ``<number>-<tag>-<first 16 hex digits of the content's SHA-256>.pt``. The number gives the order and the
digest travels with the rename, so a torn or altered file is noticed and the one before it is used. The content is
plain ``torch.save`` of tensors and plain values, read with ``weights_only``: loading one cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import torch

from cosearch.record.durable import TEMPORARY_SUFFIX, one_clear_error, write_bytes_atomic
from latency_tables.errors import RunFolderError
from latency_tables.text.writing import remove

KEEP = 2
_PLAIN = (int, float, bool, str, bytes, type(None), torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device)
_NAME = re.compile(r"(\d{6,})-([A-Za-z0-9_.]+)-([0-9a-f]{16})\.pt")
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: made at the first :meth:`save`.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self.folder = folder
        self.keep = keep
        self._damaged: set[Path] = set()

    def paths(self) -> list[Path]:
        """The files there are, the newest first."""
        if not self.folder.is_dir():
            return []
        named = [(int(match[1]), path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(named, reverse=True)]

    def save(self, state: dict[str, object], tag: str | int) -> Path:
        """Write a checkpoint, then remove those that are too old.

        Args:
            state: nested dicts, lists and tuples of tensors, numbers, text, bytes, ``None``.
            tag: what the file's name says besides its number, such as the step: letters, digits, ``_`` and ``.``.

        Returns:
            The new file.

        Raises:
            RunFailedError: the disk is full; the older checkpoints are intact.
            TypeError: something in ``state`` could not be loaded again safely; says where it stands.
            ValueError: the tag has other letters.
        """
        _require_plain(state, "state")
        if not re.fullmatch(r"[A-Za-z0-9_.]+", str(tag)):
            raise ValueError(f"the tag of a checkpoint must be of letters, digits, _ and ., got {tag!r}")
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getbuffer()
        older = self.paths()
        number = int(older[0].name.split("-")[0]) + 1 if older else 1
        path = self.folder / f"{number:06d}-{tag}-{_digest(data)}.pt"
        with one_clear_error(self.folder):
            self.folder.mkdir(exist_ok=True)
        write_bytes_atomic(path, data)
        good = [old for old in older if old not in self._damaged]
        for old in [*good[self.keep - 1 :], *self._damaged, *self.folder.glob(f".*{TEMPORARY_SUFFIX}")]:
            remove(old)
        self._damaged.clear()
        return path

    def load(self) -> dict[str, object] | None:
        """The newest checkpoint that is whole, on the CPU; ``None`` when none was ever saved.

        A damaged one is named in a logged warning, and the one before it is taken.

        Raises:
            RunFolderError: there are checkpoints, and all of them are damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                return _read(path)
            except (OSError, ValueError) as error:
                self._damaged.add(path)
                _log.warning("checkpoint %s is damaged (%s); the one before it is used", path, error)
        if paths:
            raise RunFolderError(
                f"all {len(paths)} checkpoints in {self.folder} are damaged; start the run again under another name"
            )
        return None


def _read(path: Path) -> dict[str, object]:
    data = path.read_bytes()
    expected, got = path.stem.rsplit("-", 1)[1], _digest(data)
    if expected != got:
        raise ValueError(f"its content has digest {got}, its name says {expected}")
    return loaded(data)


def loaded(data: bytes) -> dict[str, object]:
    """A dictionary of tensors and plain values that ``torch.save`` wrote, on the CPU; nothing in it is run.

    Args:
        data: the content of the file.

    Raises:
        ValueError: it is something else, or damaged.
    """
    try:
        with torch.serialization.safe_globals([bytes]):  # empty bytes; others it reads anyway
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:  # whose text is a page of torch's own, with advice to load it unsafely
        raise ValueError("it holds something else than tensors and plain values") from error
    except Exception as error:  # a damaged pickle raises whatever the interpreter meets in it
        raise ValueError(f"torch cannot read it: {type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, expected a dictionary")
    return content


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _require_plain(value: object, where: str) -> None:
    """Refuse at saving what ``weights_only`` would refuse at resuming, when it is too late."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif type(value) not in _PLAIN:
        raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors, numbers, text, lists and dicts only")
