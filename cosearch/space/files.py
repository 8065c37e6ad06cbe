"""Architectures from files."""

from __future__ import annotations

import json
from pathlib import Path

from cosearch.space.space import Architecture, architecture_from_dict
from latency_tables.errors import ConfigError


def load_architecture(path: Path) -> Architecture:
    """Read an architecture file.

    Raises:
        ConfigError: missing, not JSON, or not an architecture.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as an architecture: {error}") from error
    return architecture_from_dict(values, str(path))
