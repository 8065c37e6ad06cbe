"""Reads a run folder for the report: whatever is there, and a list of what is not.

A run may be unfinished, so every file but ``run.json`` may be absent; an absent file or a null quantity stays ``None``
and is shown as "not measured". Never a zero in its place. This file only reads; wording and drawing live elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosearch.record.metrics import read_metrics
from latency_tables.errors import RunFolderError

FILES = {
    "metrics.jsonl": "learning curves",
    "architecture.json": "the derived architecture and its predicted latency",
    "agent.json": "the export record: parity and measured latency",
    "summary.json": "the final score and its interval",
}
CLIPS = {"clip.gif": "image/gif", "clip.png": "image/png"}
CLIP_BYTES_MAX = 12_000_000  # a larger clip would make the report slow to open; it is named, not embedded


@dataclass(frozen=True)
class Run:
    """What one run folder holds.

    Attributes:
        path: the folder.
        record: ``run.json``.
        metrics: the lines of ``metrics.jsonl``, in order.
        architecture, agent, summary: the JSON files of these names; empty where absent.
        missing: one sentence for each thing that is not there or could not be used.
        clip: media type and bytes of the clip of the agent playing, or ``None``.
    """

    path: Path
    record: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    architecture: dict[str, Any]
    agent: dict[str, Any]
    summary: dict[str, Any]
    missing: tuple[str, ...]
    clip: tuple[str, bytes] | None

    @property
    def name(self) -> str:
        """Name of the run; the folder's name where the record has none."""
        return str(self.record.get("name") or self.path.name)

    @property
    def finished(self) -> bool:
        """Whether the last stage wrote its summary."""
        return bool(self.summary)

    def curve(self, stage: str, key: str, candidate: Any = None) -> tuple[list[float], list[float]]:
        """Steps and values of one metric, by ascending step; a repeated step keeps its newest value.

        Args:
            stage: a stage of the run, such as ``search``.
            key: name of the metric.
            candidate: only the lines of this candidate (``None``: all lines of the stage).
        """
        points: dict[float, float] = {}
        for line in self.metrics:
            if line.get("stage") == stage and (candidate is None or line.get("candidate") == candidate):
                step, value = number(line, "step"), number(line, key)
                if step is not None and value is not None:
                    points[step] = value
        steps = sorted(points)
        return steps, [points[step] for step in steps]

    def candidates(self, stage: str) -> list[Any]:
        """Names of the candidates that the lines of a stage mention, in order of appearance."""
        names = [line.get("candidate") for line in self.metrics if line.get("stage") == stage]
        return list(dict.fromkeys(name for name in names if isinstance(name, (str, int))))

    def probabilities(self) -> tuple[list[float], list[list[list[float]]]]:
        """Steps and architecture probabilities ``[steps][points][candidates]``; lines that do not fit the last are left out."""
        rows = {}
        for line in self.metrics:
            step, value = number(line, "step"), line.get("arch_probabilities")
            if step is not None and line.get("stage") == "search" and _is_table(value):
                rows[step] = value
        if not rows:
            return [], []
        last = [len(row) for row in rows[max(rows)]]
        steps = [step for step in sorted(rows) if [len(row) for row in rows[step]] == last]
        return steps, [rows[step] for step in steps]


def number(source: Any, *path: str) -> float | None:
    """The finite number below ``path`` in nested objects; ``None`` where it is absent, null, NaN or not a number."""
    for key in path:
        source = source.get(key) if isinstance(source, dict) else None
    if isinstance(source, bool) or not isinstance(source, (int, float)) or not math.isfinite(source):
        return None
    return source


def interval(source: Any, *path: str) -> tuple[float, float] | None:
    """The pair of finite numbers ``[low, high]`` below ``path``, or ``None``."""
    for key in path:
        source = source.get(key) if isinstance(source, dict) else None
    if not isinstance(source, (list, tuple)) or len(source) != 2:
        return None
    low, high = number({"low": source[0]}, "low"), number({"high": source[1]}, "high")
    return None if low is None or high is None else (low, high)


def part(source: Any, *path: str) -> dict[str, Any]:
    """The object below ``path``; empty where it is absent or null."""
    for key in path:
        source = source.get(key) if isinstance(source, dict) else None
    return source if isinstance(source, dict) else {}


def records(source: Any, *path: str) -> list[dict[str, Any]]:
    """The list of objects below ``path``; empty where it is absent or null."""
    found = part(source, *path[:-1]).get(path[-1])
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def latency_target_s(run: Run) -> float | None:
    """The latency that was asked for: from the summary, or while there is none from the record of the run."""
    places = (
        (run.summary, ("latency_target_s",)),
        (run.record, ("latency_target_s",)),
        (run.record, ("config", "objective", "latency_target_s")),
    )
    resolved = (number(target, "value") for target in records(run.record, "targets") if target.get("metric") == "latency_s")
    if not run.summary and (value := next(resolved, None)) is not None:
        return value
    return next((found for source, path in places if (found := number(source, *path)) is not None), None)


def flatten(source: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf of a nested object, in the order written."""
    if isinstance(source, dict) and source:
        for key, value in source.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, source


def read_run(run_path: Path) -> Run:
    """Everything that a run folder holds.

    Args:
        run_path: the run folder; it needs ``run.json``, all else may be absent.

    Raises:
        RunFolderError: the path is not a run folder, or one of its files is damaged.
    """
    path = Path(run_path)
    if not path.is_dir():
        raise RunFolderError(f"there is no run folder {path}; `ls {path.parent}` shows the runs there are")
    record = _read_json(path / "run.json")
    if record is None:
        raise RunFolderError(f"{path} is not a run folder: it has no run.json; give the folder that `cosearch search` made")
    missing = [f"{name} is not there yet: {what}" for name, what in FILES.items() if not (path / name).is_file()]
    log = path / "metrics.jsonl"
    metrics = tuple(read_metrics(log))
    torn = log.is_file() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n")
    fault = "the last line of metrics.jsonl was not finished and is left out" if torn else None
    clip, clip_fault = _read_clip(path)
    architecture, agent, summary = (_read_json(path / f"{name}.json") or {} for name in ("architecture", "agent", "summary"))
    missing += [text for text in (fault, clip_fault) if text]
    return Run(path, record, metrics, architecture, agent, summary, tuple(missing), clip)


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or ``None`` where the file is absent."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged ({error}); move it away and resume the run") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} must hold one JSON object, got {type(value).__name__}; move it away and resume the run")
    return value


def _read_clip(path: Path) -> tuple[tuple[str, bytes] | None, str | None]:
    """Media type and bytes of the first clip there is, and a sentence where one cannot be embedded."""
    for name, media in CLIPS.items():
        if (path / name).is_file():
            content = (path / name).read_bytes()
            if len(content) <= CLIP_BYTES_MAX:
                return (media, content), None
            return None, f"{name} is left out: {len(content) / 1e6:.0f} MB are too many for a report"
    return None, None


def _is_table(value: Any) -> bool:
    """Whether a value is a non-empty list of non-empty lists of finite numbers."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and row and all(number({"p": p}, "p") is not None for p in row) for row in value)
    )
