"""The JSON file of a benchmark: saved whole or not at all, and gone on with under the settings that it has alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latency_tables.errors import CosearchError, RequestError, short
from latency_tables.text.reading import read_json
from latency_tables.text.terminal import say
from latency_tables.text.writing import write_bytes_atomic


def save(content: object, out: Path) -> None:
    """Write a result; a kill leaves the file as it was."""
    write_bytes_atomic(out, json.dumps(content, indent=1).encode() + b"\n")


def saved(out: Path) -> dict[str, Any]:
    """A result so far; empty where there is none yet.

    Args:
        out: the JSON file.

    Raises:
        RequestError: it is damaged, or no object.
    """
    if not out.exists():
        return {}
    content = read_json(out, "the result of a benchmark", RequestError)
    if not isinstance(content, dict):
        raise RequestError(f"{out} is no result of a benchmark: expected an object; give another file with --out")
    return content


def check_same(out: Path, kept: Mapping[str, object], asked: Mapping[str, object]) -> None:
    """Raise where a result was made with other settings than those asked for, so that neither is lost or mixed with the other.

    Args:
        out: the file of the result.
        kept: its settings.
        asked: those of this command.

    Raises:
        RequestError: names all that differ.
    """
    now = json.loads(json.dumps(asked))
    differ = [f"{key} {_brief(kept.get(key))} there, {_brief(now[key])} asked for" for key in now if kept.get(key) != now[key]]
    if differ:
        raise RequestError(f"{out} holds results of other settings ({'; '.join(differ)}): give another file with --out")


def _brief(value: object) -> str:
    return json.dumps(value) if value is not None else "none"


def program(main: Callable[..., object]) -> None:
    """Run a benchmark as a command: an error is one message, and the exit code is its own (2 for a wrong request).

    Args:
        main: its function, whose parameters are the options.
    """
    import typer

    try:
        typer.run(main)
    except CosearchError as error:
        say(f"error: {short(error)}", error=True)
        sys.exit(error.exit_code)
