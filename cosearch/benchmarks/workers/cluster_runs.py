"""Whether two run folders are the same but for times and places, and what processes of this machine use."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

BYTES = ("agent.onnx", "architecture.json", "evaluation.json", "supernet.pt")
LINES = {"metrics.jsonl": {"wall_s", "steps_per_s"}}  # file -> keys that are times
KEYS = {
    "summary.json": {"wall_s", "latency_measured_s", "measured_ratio", "latency_measured_p99_s"},
    "run.json": {"created_utc", "command", "control"},
}
TICKS = os.sysconf("SC_CLK_TCK")


def compared(folder: Path) -> tuple[str, ...]:
    """The files of a run that are compared, each with what is left out."""
    parts = dict.fromkeys(BYTES, "") | {name: f" without {', '.join(sorted(keys))}" for name, keys in (LINES | KEYS).items()}
    return tuple(f"{name}{left_out}" for name, left_out in parts.items() if (folder / name).is_file())


def differences(first: Path, second: Path) -> list[str]:
    """The files in which two runs differ; times and places are not compared."""
    found = []
    for name in (*BYTES, *LINES, *KEYS):
        there = [(folder / name).is_file() for folder in (first, second)]
        if there == [True, True]:
            if _content(first / name) != _content(second / name):
                found.append(f"{name} differs")
        elif True in there:
            found.append(f"{name} is in one of them alone")
    if not (first / "summary.json").is_file():
        found.append("not finished")
    return found


def _content(file: Path) -> object:
    """What is compared of a file."""
    if file.name in BYTES:
        return file.read_bytes()
    text = file.read_text(encoding="utf-8")
    if file.name in LINES:
        return [_without(json.loads(line), LINES[file.name]) for line in text.splitlines()]
    return _without(json.loads(text), KEYS[file.name])


def _without(value: object, keys: set[str]) -> object:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def processes() -> dict[int, tuple[int, float, str]]:
    """Parent, processor seconds and command line of each process of this machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                line = (entry / "cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ")
            except OSError:  # it has ended by now
                continue
            found[int(entry.name)] = int(fields[1]), sum(int(one) for one in fields[11:13]) / TICKS, line
    return found


def descendants(there: dict[int, tuple[int, float, str]]) -> list[int]:
    """This process and all that it started, directly or not.

    Args:
        there: see :func:`processes`.
    """
    own = [os.getpid()]
    for pid in own:
        own += [child for child, (parent, _, _) in there.items() if parent == pid]
    return own


class Meter:
    """Processor seconds of this process and of all that it starts, directly or not, looked at twice a second.

    Ray does not wait for the processes that it ends, so that the system forgets what they used.
    """

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    @property
    def cpu_s(self) -> float:
        """Seconds so far."""
        return sum(self._used.values())

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            there = processes()
            self._used |= {pid: there[pid][1] for pid in descendants(there)}


def under(words: str) -> list[int]:
    """The processes below this one whose command line begins with some words."""
    there = processes()
    return [pid for pid in descendants(there) if there[pid][2].startswith(words)]


def table(results: Sequence[dict[str, object]]) -> str:
    """Results as a table: a row for each figure, a column for each result."""
    rows = [f"| {key} | {' | '.join(text(one[key]) for one in results)} |" for key in results[-1]]
    return "\n".join([f"| |{' |' * len(results)}", f"| --- |{' --- |' * len(results)}", *rows])


def text(value: object) -> str:
    """A figure for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
