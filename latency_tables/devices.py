"""The shipped tables by device name, and those that other packages register.

A device is a folder ``<device>/<runtime>-<dtype>-<threads>t.jsonl``. A package adds folders of its own through the
entry point group ``cosearch.tables`` (the value is a module that lies beside its device folders).
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from latency_tables.errors import TableError, UnknownNameError
from latency_tables.header import check_header, read_device
from latency_tables.schema import MAX_FILE_BYTES
from latency_tables.table import Table, load_table
from latency_tables.text.fields import parse_line, text_of

ENTRY_POINTS = "cosearch.tables"
IDENTITY = re.compile(r"([\w.]+)-(\w+)-([1-9]\d{0,3})t")
PREFERENCE = ("measured", "derived", "imported", "estimated", "synthetic")


@dataclass(frozen=True)
class ListedTable:
    """One table of one device, from its header only."""

    name: str
    description: str
    provenance: str
    runtime: str
    dtype: str
    threads: int
    path: Path


def table_folders() -> list[Path]:
    """Folders that hold device folders: ours first, then registered ones."""
    folders = [Path(__file__).parent]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        spec = importlib.util.find_spec(entry.module)
        if spec is None or not spec.origin:
            raise TableError(
                f"entry point {entry.name} of {ENTRY_POINTS} names the module {entry.module}, which is not installed"
            )
        folders.append(Path(spec.origin).parent)
    return folders


def list_devices() -> list[ListedTable]:
    """All tables there are, sorted by device; a device has one record a runtime, dtype and thread count.

    Raises:
        TableError: the header of a table is not valid, or two folders hold the same table.
    """
    records: dict[tuple[str, str, str, int], ListedTable] = {}
    for folder in table_folders():
        for path in sorted(folder.glob("*/*.jsonl")):
            record = _read_record(path)
            identity = (record.name, record.runtime, record.dtype, record.threads)
            if identity in records:
                raise TableError(f"two tables of {identity}: {records[identity].path} and {path}; remove one")
            records[identity] = record
    return [records[identity] for identity in sorted(records)]


@dataclass(frozen=True)
class Identity:
    """What a table is of besides its device; ``str`` gives it as tables are named: ``onnxruntime-int8-1t``."""

    runtime: str = "onnxruntime"
    dtype: str = "float32"
    threads: int = 1

    def __str__(self) -> str:
        return f"{self.runtime}-{self.dtype}-{self.threads}t"


def identity_of(device_name: str, default: Identity = Identity()) -> Identity:
    """The identity in a device name such as ``x86-server/onnxruntime-int8-1t``; the default where it names a device alone.

    Raises:
        UnknownNameError: what follows the slash is none.
    """
    device, slash, identity = device_name.partition("/")
    if not slash:
        return default
    parts = IDENTITY.fullmatch(identity)
    if parts is None:
        raise UnknownNameError(f"a table of a device is named like {device}/onnxruntime-float32-1t, got {identity!r}")
    return Identity(parts[1], parts[2], int(parts[3]))


def find_table(device_name: str, runtime: str = "onnxruntime", dtype: str = "float32", threads: int = 1) -> Table:
    """The table of a device.

    A name such as ``x86-server/onnxruntime-int8-1t`` says runtime, dtype and threads itself, as its file is called.

    An estimate is not tied to a runtime: where the device has no table of ``runtime``, its ``roofline`` answers, and
    says ``estimated`` wherever it shows. Nothing else is ever exchanged for what was asked.

    Raises:
        UnknownNameError: no such device (names the nearest), or not with this runtime, dtype or thread count.
        TableError: the table is not valid.
    """
    wanted_identity = identity_of(device_name, Identity(runtime, dtype, threads))
    runtime, dtype, threads = wanted_identity.runtime, wanted_identity.dtype, wanted_identity.threads
    device_name = device_name.partition("/")[0]
    records = list_devices()
    names = sorted({record.name for record in records})
    if device_name not in names:
        near = difflib.get_close_matches(device_name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UnknownNameError(
            f"no device {device_name!r}; {hint}There are: {', '.join(names)}. "
            "Your own device: python -m latency_tables measure --device NAME --out FILE, then --table FILE"
        )
    own = [record for record in records if record.name == device_name]
    for wanted in (runtime, "roofline"):
        for record in own:
            if (record.runtime, record.dtype, record.threads) == (wanted, dtype, threads):
                return load_table(record.path)
    have = ", ".join(f"{r.runtime}-{r.dtype}-{r.threads}t ({r.provenance})" for r in own)
    raise UnknownNameError(f"device {device_name} has no table {runtime}-{dtype}-{threads}t; it has: {have}")


def load_any(name: str) -> Table:
    """A table by file name, or the first table of a device by its name.

    Raises:
        TableError: the file is not a valid table.
        UnknownNameError: neither a file nor a device.
    """
    path = Path(name)
    if path.suffix == ".jsonl" or path.is_file():
        return load_table(path)
    own = sorted((r for r in list_devices() if r.name == name), key=lambda r: PREFERENCE.index(r.provenance))
    return load_table(own[0].path) if own else find_table(name)


def _read_record(path: Path) -> ListedTable:
    try:
        with path.open(encoding="utf-8") as lines:
            first = lines.readline(MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot read {path} as a table: {error}") from error
    where = f"{path}, line 1"
    header = parse_line(first, where)
    check_header(header, where)
    device, provenance = read_device(header["device"], where), text_of(header, "provenance", where)
    return ListedTable(device.name, device.description, provenance, device.runtime, device.dtype, device.threads, path)
