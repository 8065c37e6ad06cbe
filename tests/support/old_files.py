"""Files that earlier versions left, by the folders of ``make_assets.py``: what every later version must still open."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
FOLDERS = sorted(path.parent for path in ASSETS.glob("*/ABOUT.json"))


def about(folder: Path) -> dict[str, str]:
    """Version, day and command that made a folder."""
    return json.loads((folder / "ABOUT.json").read_text(encoding="utf-8"))


def unpacked(folder: Path, place: Path) -> Path:
    """A copy of a folder at another place, which is made, with its run folders in ``runs``."""
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("runs.tar.xz"))
    with tarfile.open(folder / "runs.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place
