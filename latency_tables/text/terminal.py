"""Where the commands meet the terminal and the system: text that any terminal takes, and one message for what escapes.

Foreign text becomes plain text in ``errors.plain``; :func:`say` and :func:`show` print for all three command lines.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_tables.errors import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


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


def plain_if_text(value: object) -> object:
    """What a page's template writes: texts as plain text, markup of our own and numbers as they are."""
    return plain(value) if type(value) is str else value


def say(text: object, *, error: bool = False) -> None:
    """Print one text, as plain text.

    Args:
        text: what to print.
        error: on stderr.
    """
    stream = sys.stderr if error else sys.stdout
    stream.write(plain(str(text)) + "\n")
    stream.flush()


@dataclass(frozen=True)
class _Plain:
    """A renderable whose text is plain whatever it was made of: the styles are ours, the words may be foreign."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self.content, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def show(content: RenderableType, *, error: bool = False, width: int | None = None, soft_wrap: bool = False) -> None:
    """Print a table or panel of ``rich``; words in brackets are words, not markup.

    Args:
        content: what to print.
        error: on stderr.
        width: columns; None: the terminal's.
        soft_wrap: break no lines.
    """
    from rich.console import Console

    console = Console(stderr=error, width=width, markup=False, emoji=False, highlight=False)
    console.print(_Plain(content), soft_wrap=soft_wrap)
