"""Architectures from files."""

from __future__ import annotations

from pathlib import Path

from cosearch.space.space import Architecture, architecture_from_dict
from latency_tables.errors import ConfigError
from latency_tables.text.reading import read_json


def load_architecture(path: Path) -> Architecture:
    """Read an architecture file.

    Raises:
        ConfigError: missing, not JSON, or not an architecture.
    """
    return architecture_from_dict(read_json(Path(path), "an architecture", ConfigError), str(path))
