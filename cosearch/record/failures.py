"""``failures.json`` of a folder of runs that one command makes: those that failed when it was last typed, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import from_json, to_json
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json


@dataclass(frozen=True, kw_only=True)
class FailuresRecord:
    """The runs that failed: why, by name."""

    FILE: ClassVar[str] = "failures.json"

    failed: Mapping[str, str]


def read_failures(folder: Path) -> Mapping[str, str]:
    """Why each run of a comparison failed, by name; empty where none did.

    Args:
        folder: of the comparison.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder / FailuresRecord.FILE
    if not path.is_file():
        return {}
    return from_json(
        FailuresRecord, read_json(path, "the failures of a comparison", RunFolderError, digits=OWN_DIGITS), path
    ).failed


def write_failures(folder: Path, failed: Mapping[str, str]) -> None:
    """Record which runs failed, and why; without any the record is taken away.

    Args:
        folder: of the runs.
        failed: the reason of each, by name.

    Raises:
        RunFailedError: the disk is full or refuses the write.
    """
    path = folder / FailuresRecord.FILE
    if failed:
        content = {"format": 1, **to_json(FailuresRecord(failed=failed))}
        write_bytes_atomic(path, json.dumps(content, indent=1).encode() + b"\n")
    else:
        path.unlink(missing_ok=True)
