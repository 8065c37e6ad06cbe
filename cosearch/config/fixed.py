"""Words of a request whose value something else sets, or that nothing reads: refused, not ignored without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosearch.config.run import resolve
from latency_tables.errors import ConfigError


def check_words(words: Sequence[str], fixed: Mapping[str, str], reads: Sequence[str] = ("",)) -> None:
    """Raise where a word would have no effect.

    Args:
        words: ``KEY=VALUE``.
        fixed: dotted key -> what sets it instead, an option or what else the reader knows.
        reads: how the keys begin that are read at all; default: all are.

    Raises:
        ConfigError: lists all such words, or one is unknown or out of its range.
    """
    lines = []
    for key in sorted(resolve(overrides=words).said):
        if key in fixed:
            option = f", and give {fixed[key]}" if fixed[key].startswith("--") else ""
            lines.append(f"{key} is set by {fixed[key]}, its word has no effect: leave the word out{option}")
        elif not key.startswith(tuple(reads)):
            lines.append(f"{key} has no effect here: leave it out")
    if lines:
        raise ConfigError("\n".join(lines))
