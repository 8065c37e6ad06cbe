"""What every verb prints, and what a message says of the command: its words, and how its work goes on."""

from __future__ import annotations

import json
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from latency_tables.text.terminal import say, show

if TYPE_CHECKING:
    from rich.console import RenderableType

command_line: ContextVar[str] = ContextVar("command_line", default="cosearch")
resume_hint: ContextVar[tuple[str, Path | None]] = ContextVar("resume_hint", default=("", None))  # what to type, for which run


def emit(result: object, as_json: bool, text: RenderableType) -> None:
    """Print a result: as one JSON object, or as text for people."""
    if as_json:
        say(json.dumps(result, indent=1, allow_nan=False))
    else:
        (say if isinstance(text, str) else show)(text)  # rich would break long paths into lines
