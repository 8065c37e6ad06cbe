"""A bundle read back: its contract, its model, and the stored arrays of numbers; nothing in it is run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from cosearch.deploy.bundle.contract import Contract
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json, shown

ADVICE = "`cosearch export RUN` writes the bundle again"


def read_bundle(folder: Path) -> tuple[Contract, bytes]:
    """The contract of a bundle, and the content of its model.

    Args:
        folder: of the bundle.

    Raises:
        RunFolderError: one of the two cannot be read, or the model is no file of the folder.
    """
    file = folder / Contract.FILE
    contract = Contract.from_json(read_json(file, "a contract", RunFolderError, digits=OWN_DIGITS), file)
    name = contract.model
    if not name.isprintable() or Path(name).name != name:
        raise RunFolderError(f"{file}: model must be the name of a file beside it, got {shown(name)}; {ADVICE}")
    try:
        return contract, (folder / name).read_bytes()
    except OSError as error:
        raise RunFolderError(f"{folder / name}: cannot be read as the agent: {error.strerror or error}; {ADVICE}") from error


def read_array(path: Path) -> np.ndarray:
    """The array of numbers in a ``.npy`` file.

    Args:
        path: of the file.

    Returns:
        Of any shape ``[observations, ...]``.

    Raises:
        RunFolderError: it cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy parses the header with the interpreter's own parts, which raise a dozen classes
        reason = " ".join(str(error).split())[:200]
        raise RunFolderError(f"{path}: cannot be read as stored observations: {reason}; {ADVICE}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not array.ndim:
        raise RunFolderError(f"{path}: cannot be read as stored observations: it holds no array of numbers; {ADVICE}")
    return array
