"""The files of a real finished run of version 0.1.0: what every later version must still open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "assets" / "run_0_1_0"


def content(name: str, /, **changes: Any) -> dict[str, Any]:
    """The object in one of its JSON files, with some top-level keys replaced."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8")) | changes


def copy_to(path: Path) -> Path:
    """The whole folder at another place."""
    return shutil.copytree(FOLDER, path)
