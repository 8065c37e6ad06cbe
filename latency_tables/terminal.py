"""Where the commands meet the terminal and the system: text that any terminal takes, and one message for what escapes."""

from __future__ import annotations

import io
import sys


def plain_streams() -> None:
    """Let every letter be printed: one that the terminal's encoding lacks is written as an escape, such as ``\\xb5``.

    A command that has done its work must not fail because its result holds a letter.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def system_fault(error: OSError) -> str:
    """What the system refused, for a message: the file where it names one, and its reason.

    Args:
        error: that nothing nearer to its cause has turned into one of our own.
    """
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"the system refused {place}{error.strerror or error}"
