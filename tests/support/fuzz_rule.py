"""What every reader of a file must do with any bytes: return, or raise one of our own errors, in time and in few words."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from latency_tables.errors import CosearchError

LONGEST = 2000  # letters of a message, the path of the file left out
STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of letters that change what a terminal does
SLOWEST_S = 5.0  # processor time of one input; a campaign instruments the code, which makes it several times slower


@dataclass(frozen=True)
class Reader:
    """One reader of a file.

    Attributes:
        name: of the file that it reads, also of its folder in the corpus.
        seeds: valid contents.
        read: takes the content of such a file.
        path: of the file that ``read`` writes; None where it takes the content as it is.
        errors: what it may raise.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    path: Path | None = None
    errors: tuple[type[Exception], ...] = (CosearchError,)


def of_file(
    path: Path,
    seeds: tuple[bytes, ...],
    read: Callable[[Path], object],
    *,
    remade: Callable[[bytes], bytes] = bytes,
    errors: tuple[type[Exception], ...] = (CosearchError,),
) -> Reader:
    """A reader of a file at a path.

    Args:
        path: is written before each reading.
        seeds: valid contents.
        read: takes the path.
        remade: mends a digest of the content, so that what lies behind its check is tried, too.
        errors: what it may raise.
    """

    def written(content: bytes) -> object:
        path.write_bytes(remade(content))
        return read(path)

    return Reader(path.name, seeds, written, path, errors)


def outcome(reader: Reader, content: bytes) -> str:
    """How a reader takes a content: ``read``, or its message.

    Raises:
        AssertionError: the message is too long or cannot be printed, or it took too long.
        Exception: whatever else left the reader.
    """
    begun = time.process_time()
    text = "read"
    try:
        reader.read(content)
    except reader.errors as error:
        text = str(error).replace(str(reader.path.parent), "") if reader.path else str(error)
    spent_s = time.process_time() - begun
    assert text and len(text) <= LONGEST, f"a message of {len(text)} letters: {text[:300]}"
    assert not {unicodedata.category(letter) for letter in text if letter not in "\n\t"} & STEERING, f"not plain: {text[:300]!r}"
    assert spent_s < SLOWEST_S, f"{spent_s:.1f} s: {text}"
    return text
