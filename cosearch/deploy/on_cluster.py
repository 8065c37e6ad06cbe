"""A device's table measured on the machine of a cluster that has the board, and brought here whole."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cosearch.fleet.cluster import Cluster
from cosearch.fleet.identity import package_folders
from cosearch.fleet.work import Needs, Send
from cosearch.fleet.workers import Workers
from latency_tables.errors import MeasurementError
from latency_tables.text.writing import check_destination, write_bytes_atomic


def measure_on(
    cluster: Cluster, board: str, words: Sequence[str], out: Path, tell: Callable[[str], None], cores: float = 1.0
) -> None:
    """Measure a table where the board is, and write it here.

    Args:
        cluster: that has a machine with the board; nothing else that names the same board is done there meanwhile.
        board: its name, as ``ray start --resources`` gave it.
        words: of ``latency_tables measure``, without ``--out``.
        out: the table file to write.
        tell: gets what the measurement says, one line each.
        cores: that are kept for it on that machine.

    Raises:
        RequestError: there is no such cluster, or no machine of it has the board.
        MeasurementError: the measurement failed.
        RunFailedError: its process was lost three times.
    """
    check_destination(out)
    with Workers(measured_there, cluster.engine(None), Needs(cores=cores, board=board)) as workers:
        workers.run(
            [list(words)],
            name=lambda _: f"the table of {board}",
            sent=lambda _, line: tell(line),
            done=lambda _, content: write_bytes_atomic(out, content),
            waits=lambda _, reason: tell(reason),
        )


def measured_there(words: list[str], send: Send) -> bytes:
    """Measure a table on this machine; the content of its file.

    Args:
        words: see :func:`measure_on`.
        send: gets what the measurement says, one line each.

    Raises:
        MeasurementError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="cosearch-") as place:
        out = Path(place) / "table.jsonl"
        command = [sys.executable, "-m", "latency_tables", "measure", "--out", str(out), *words]
        environment = {**os.environ, "PYTHONPATH": str(package_folders()[0].parent)}
        said = []
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                said.append(line.rstrip())
                send(said[-1])
        if process.returncode or not out.is_file():
            raise MeasurementError(f"{' '.join(command[1:4])} failed on {os.uname().nodename}: {' '.join(said[-3:])}")
        return out.read_bytes()
