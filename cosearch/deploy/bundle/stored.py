"""The stored observations and outputs of a bundle: arrays of numbers in ``.npy`` files, read without running anything."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from latency_tables.errors import RunFolderError


def read_array(path: Path) -> np.ndarray:
    """The array of numbers in a ``.npy`` file.

    Args:
        path: of the file.

    Returns:
        Of any shape ``[observations, ...]``.

    Raises:
        RunFolderError: it cannot be read, or holds something else.
    """
    advice = "`cosearch export RUN` writes the bundle again"
    try:
        content = path.read_bytes()
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, TypeError, AttributeError) as error:  # numpy's, of a header
        reason = " ".join(str(error).split())[:200]
        raise RunFolderError(f"{path}: cannot be read as stored observations: {reason}; {advice}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not array.ndim:
        raise RunFolderError(f"{path}: cannot be read as stored observations: it holds no array of numbers; {advice}")
    return array
