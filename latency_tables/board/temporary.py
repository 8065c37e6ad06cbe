"""Folders for files that live as long as a block of code."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


@contextmanager
def temporary_folder(prefix: str = "latency-tables-") -> Iterator[Path]:
    """A folder in the system's place for temporary files; what the system refuses to remove afterwards stays there.

    Not ``tempfile.TemporaryDirectory``, which recurses without an end where a removal is not permitted.

    Args:
        prefix: of its name.

    Raises:
        OSError: no folder can be made there.
    """
    folder = tempfile.mkdtemp(prefix=prefix)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
