"""A run's folder: what it is, its log, its checkpoints and its results. One process writes it at a time.

``run.json`` (the resolved configuration, seed, versions, device and table), ``metrics.jsonl``, ``checkpoints/``, and the
results that the pipeline adds. A folder is created atomically and never overwritten.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import filelock

from cosearch.record import metrics
from cosearch.record.checkpoints import Checkpoints
from cosearch.record.durable import TEMPORARY_SUFFIX, one_clear_error, sync_folder, write_bytes_atomic
from cosearch.record.json_record import from_json, to_json
from latency_tables.errors import NonFiniteError, RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json
from latency_tables.text.writing import remove

__all__ = ["RUN_FORMAT", "RunDir", "as_folder_name", "check_one_folder", "write_bytes_atomic"]
RUN_FORMAT = 1
BENCH_SEARCH = "bench search"  # the command in the record of a search for the tabular benchmark

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class FileRecord(DataclassInstance, Protocol):
        """A record that has a file of its own in the folder."""

        FILE: ClassVar[str]

    Content = TypeVar("Content", bound=FileRecord)


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@contextmanager
def only_writer(folder: Path, in_use: str, wait_s: float) -> Iterator[None]:
    """Be the only writer of a folder inside the ``with`` block. The system frees the lock of a process that was killed.

    Args:
        folder: an existing folder.
        in_use: message where another process, or another part of this one, is writing it.
        wait_s: how long to wait for another writer, in seconds.

    Raises:
        RunFolderError: it is in use, or cannot be locked.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=wait_s)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RunFolderError(in_use) from error
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be locked: {error.strerror or error}. Check its rights; a file system without locks holds no runs: "
            "choose another place with --runs"
        ) from error
    try:
        yield
    finally:
        lock.release()


class RunDir:
    """An existing run folder; made by :meth:`create` or :meth:`open`.

    Attributes:
        path: the folder.
        record: content of ``run.json``.
    """

    def __init__(self, path: Path, record: Mapping[str, object]) -> None:
        self.path = path
        self.record = record
        self._checkpoints = Checkpoints(path / "checkpoints")

    @classmethod
    def check_new(cls, root: Path, name: str | None) -> None:
        """Raise now where :meth:`create` would later, or where a run could not be locked; nothing is left behind.

        Args:
            root: folder of the runs.
            name: of the run; None: not known yet.

        Raises:
            RunFolderError: the name does not serve, the folder exists, or its place takes no folder or no locks.
        """
        if name is not None:
            _check_name(root, name)
        try:
            above = Path(os.path.realpath(root))
            while not above.exists():
                above = above.parent
            probe = Path(tempfile.mkdtemp(prefix=".", suffix=".draft", dir=above))
            try:
                with only_writer(probe, "", 0.0):
                    pass
            finally:
                shutil.rmtree(probe)
        except OSError as error:
            raise RunFolderError(
                f"{root / (name or '')} cannot be made: {error.strerror or error}; choose another place with --runs"
            ) from error

    @classmethod
    def create(cls, root: Path, name: str, record: Mapping[str, object]) -> RunDir:
        """Make ``root/name`` with its ``run.json``.

        Args:
            root: folder of the runs; made when it is missing.
            name: name of the run: letters, digits, ``_ . + -``, not beginning with a dot or a dash.
            record: what the run is; ``format`` is added to it.

        Raises:
            RunFolderError: the folder exists, or cannot be made, or the name does not serve as a folder's name.
            RunFailedError: the disk is full; no folder is left behind.
        """
        root, path = Path(root), Path(root) / name
        _check_name(root, name)
        draft = root / f".{name}.{os.getpid()}.draft"
        try:
            draft.mkdir(parents=True)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be made: {error.strerror or error}; choose another place with --runs") from error
        try:
            cls(draft, record).write_json("run.json", {**record, "format": RUN_FORMAT})
            with one_clear_error(path):
                try:
                    draft.rename(path)
                except OSError as error:
                    if os.path.lexists(path):  # another process was faster
                        raise _exists(path) from error
                    raise
                sync_folder(root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls.open(path, teacher=True)

    @classmethod
    def open(cls, path: Path | str, *, teacher: bool = False) -> RunDir:
        """The run in an existing folder.

        Args:
            path: the folder.
            teacher: whether it may be the folder of a teacher's training, which no verb but ``cosearch teacher`` goes on with.

        Raises:
            RunFolderError: there is no such folder, it is not a run, it is a teacher's, or its ``run.json`` cannot be read.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunFolderError(f"there is no run folder {path}; `ls {path.parent}` shows the runs there are")
        if not (path / "run.json").is_file():
            raise RunFolderError(f"{path} is not a run folder: it holds no run.json; give the folder that `cosearch search` made")
        record = cls(path, {}).read_json("run.json")
        version = record.get("format") if isinstance(record, dict) else None
        if not isinstance(record, dict) or version != RUN_FORMAT:
            raise RunFolderError(
                f"{path / 'run.json'} is not a run of this version: its format must be {RUN_FORMAT}, got {version!r}; "
                "use the version of cosearch that made it"
            )
        run = cls(path, record)
        if run.of_teacher and not teacher:
            raise RunFolderError(
                f"{path} is the folder of a teacher, not of a search: `cosearch teacher --env TASK --out FILE`, as it was "
                "begun, goes on with it"
            )
        return run

    @property
    def of_teacher(self) -> bool:
        """Whether it is the folder of a teacher's training, not of a search."""
        return "request" in self.record and "config" not in self.record

    @property
    def of_bench(self) -> bool:
        """Whether it is a search for the tabular benchmark, which ends before its agent is trained."""
        return self.record.get("command") == BENCH_SEARCH

    @contextmanager
    def lock(self, wait_s: float = 2.0) -> Iterator[None]:
        """Be the only writer inside the ``with`` block. The system frees the lock of a process that was killed.

        Args:
            wait_s: how long to wait for another writer, in seconds; workers of a killed run need a moment to end.

        Raises:
            RunFolderError: another process, or another part of this one, is writing the folder.
        """
        with only_writer(self.path, f"{self.path} is in use by another process; wait until it ends, or stop it", wait_s):
            for left_behind in self.path.glob(f".*{TEMPORARY_SUFFIX}"):  # by a writer that was killed
                remove(left_behind)
            yield

    def append_metrics(self, values: Mapping[str, object]) -> None:
        """Add one line to ``metrics.jsonl``; see :func:`cosearch.record.metrics.append_metrics`."""
        metrics.append_metrics(self.path / "metrics.jsonl", values)

    def truncate_metrics(self, step: int, stage: str) -> int:
        """Cut the log back to a checkpoint; see :func:`cosearch.record.metrics.truncate_metrics`."""
        return metrics.truncate_metrics(self.path / "metrics.jsonl", step, stage)

    def read_metrics(self) -> list[metrics.Line]:
        """All lines of the log; see :func:`cosearch.record.metrics.read_metrics`."""
        return metrics.read_metrics(self.path / "metrics.jsonl")

    def save_checkpoint(self, state: dict[str, object], tag: str | int) -> Path:
        """Save the whole state of the run; see :meth:`cosearch.record.checkpoints.Checkpoints.save`."""
        return self._checkpoints.save(state, tag)

    def load_checkpoint(self) -> dict[str, object] | None:
        """The newest whole state, or ``None``; see :meth:`cosearch.record.checkpoints.Checkpoints.load`."""
        return self._checkpoints.load()

    def change_record(self, **values: object) -> None:
        """Give keys of ``run.json`` other values; the others stay as they are. Only under the lock.

        Args:
            **values: plain JSON values by key.
        """
        self.record = {**self.record, **values}
        self.write_json("run.json", self.record)

    def write(self, record: FileRecord) -> Path:
        """Write a record into its file; see :meth:`write_json`."""
        return self.write_json(record.FILE, to_json(record))

    def read(self, record: type[Content]) -> Content:
        """The record in its file.

        Args:
            record: its class, such as ``Summary``.

        Raises:
            RunFolderError: the file is missing or damaged, or holds another record; names the key.
        """
        return from_json(record, self.read_json(record.FILE), self.path / record.FILE)

    def write_json(self, name: str, content: object) -> Path:
        """Write a JSON file into the folder, whole or not at all.

        Args:
            name: name of the file, without folders.
            content: dicts, lists, text, finite numbers, booleans, ``None``.

        Returns:
            The file.

        Raises:
            NonFiniteError: a number is NaN or infinite.
            RunFailedError: the disk is full; the old file is intact.
            ValueError: the name is not a plain file name.
        """
        path = self._file(name)
        try:
            text = json.dumps(content, indent=2, allow_nan=False)
        except ValueError as error:
            raise NonFiniteError(f"{path} was not written: it would hold a number that is NaN or infinite ({error})") from error
        write_bytes_atomic(path, text.encode() + b"\n")
        return path

    def read_json(self, name: str) -> object:
        """The content of a JSON file of the folder.

        Raises:
            RunFolderError: the file is missing or damaged.
            ValueError: the name is not a plain file name.
        """
        path = self._file(name)
        if not path.exists():
            raise RunFolderError(f"{self.path} holds no {name}; `cosearch resume {self.path}` goes on with the run")
        return read_json(path, "a file of a run", RunFolderError, digits=OWN_DIGITS)

    def _file(self, name: str) -> Path:
        if not name or name in (".", "..") or Path(name).name != name:
            raise ValueError(f"expected a plain file name, got {name!r}")
        return self.path / name


def check_one_folder(name: str, option: str) -> None:
    """Raise where a name is not that of one folder within another one: one that leaves it, or goes further down.

    Args:
        name: as it was asked for.
        option: that gave it, for the message.

    Raises:
        RunFolderError: it is empty, ``.`` or ``..``, or holds a separator.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise RunFolderError(f"{option} must be the name of one folder, without / and not . or .., got {name!r:.80}")


def as_folder_name(*parts: str) -> str:
    """A name for a run's folder, from names that may hold other letters, such as ``gym:ALE/Pong-v5``.

    Args:
        *parts: joined by dashes.
    """
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", "-".join(parts)).lstrip(".+-")


def _check_name(root: Path, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RunFolderError(f"the name of a run must be of letters, digits, _ . + - (not . + - at first), got {name!r}")
    if (root / name).exists():
        raise _exists(root / name)


def _exists(path: Path) -> RunFolderError:
    if (path / "run.json").is_file():
        advice = f"`cosearch resume {path}` goes on with it, another --run begins a new one"
    else:
        advice = f"it holds no run.json, so `cosearch resume {path}` cannot go on with it; choose another --run"
    return RunFolderError(f"the run folder {path} exists already; {advice}")
