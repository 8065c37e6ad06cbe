"""``failures.json`` of a comparison: the runs that failed when it was last worked on, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cosearch.record.json_record import from_json
from latency_tables.errors import RunFolderError
from latency_tables.reading import OWN_DIGITS, read_json


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
