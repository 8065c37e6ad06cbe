"""Folders that worker processes make for tests: quick ones, one on a full disk, and one whose process waits."""

import os
import time
from pathlib import Path

from cosearch.fleet.folder_work import make_folder
from cosearch.record.durable import write_bytes_atomic


def make_piece(job, send):
    """Make ``job.name``: ``content`` is the folder where 64 MiB go, or a file that the process waits for, or nothing."""
    kind, place = job.content

    def make(folder, progress):
        path = folder / job.name
        path.mkdir(exist_ok=True)
        if kind == "fill":
            write_bytes_atomic(Path(place) / job.name, bytes(64 << 20))
        elif kind == "wait":
            progress.note(f"pid {os.getpid()}")
            while not Path(place).exists():
                time.sleep(0.02)
        (path / "done").write_text(str(os.getpid()))

    return make_folder(job, send, make)
