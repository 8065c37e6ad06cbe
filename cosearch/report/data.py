"""Reads a run folder for the report: whatever is there, and a list of what is not.

A run may be unfinished, so every file but ``run.json`` may be absent; an absent file or a null quantity stays ``None``
and is shown as "not measured". Never a zero in its place. This file only reads; wording and drawing live elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cosearch.planning.identity import check_results
from cosearch.record.json_record import from_json
from cosearch.record.metrics import OF_A_TARGET, Line, number, read_metrics
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, read_json

if TYPE_CHECKING:
    from cosearch.record.rundir import Content

FILES = {
    "metrics.jsonl": "learning curves",
    ArchitectureRecord.FILE: "the derived architecture and its predicted latency",
    AgentRecord.FILE: "the export record: parity and measured latency",
    Summary.FILE: "the final score and its interval",
}
CLIP = "clip.gif"
CLIP_BYTES_MAX = 12_000_000  # a larger clip would make the report slow to open; it is named, not embedded


@dataclass(frozen=True)
class Run:
    """What one run folder holds.

    Attributes:
        path: the folder.
        record: ``run.json``.
        metrics: the lines of ``metrics.jsonl``, in order.
        architecture, agent, summary: the files of these names; None where absent.
        missing: one sentence for each thing that is not there or could not be used.
        clip: bytes of ``clip.gif``, the agent playing; None where absent.
    """

    path: Path
    record: RunRecord
    metrics: tuple[Line, ...]
    architecture: ArchitectureRecord | None
    agent: AgentRecord | None
    summary: Summary | None
    missing: tuple[str, ...]
    clip: bytes | None

    @property
    def name(self) -> str:
        """Name of the run; the folder's name where the record has none."""
        return self.record.name or self.path.name

    @property
    def finished(self) -> bool:
        """Whether the last stage wrote its summary."""
        return self.summary is not None

    def curve(self, stage: str, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of one metric, by ascending step; a repeated step keeps its newest value.

        Args:
            stage: a stage of the run, such as ``search``.
            key: name of the metric.
        """
        points: dict[float, float] = {}
        for line in self.metrics:
            step, value = number(line, "step"), number(line, key)
            if line["stage"] == stage and step is not None and value is not None:
                points[step] = value
        steps = sorted(points)
        return steps, [points[step] for step in steps]

    @property
    def has_candidates(self) -> bool:
        """Whether the search trained candidates, one after the other or side by side, instead of a supernet."""
        return any("candidate" in line and "score_train" in line and line["stage"] == "search" for line in self.metrics)

    def probabilities(self) -> tuple[list[float], list[list[list[float]]]]:
        """Steps and architecture probabilities ``[steps][points][candidates]``; lines that do not fit the last are left out."""
        rows = {}
        for line in self.metrics:
            step, table = number(line, "step"), _table(line.get("arch_probabilities"))
            if step is not None and line["stage"] == "search" and table is not None:
                rows[step] = table
        if not rows:
            return [], []
        last = [len(row) for row in rows[max(rows)]]
        steps = [step for step in sorted(rows) if [len(row) for row in rows[step]] == last]
        return steps, [rows[step] for step in steps]

    @property
    def latency_target_s(self) -> float | None:
        """The latency that was asked for, seconds: from the summary, or while there is none from the record of the run."""
        return self.record.latency_target_s if self.summary is None else self.summary.latency_target_s

    @property
    def latency_predicted_s(self) -> float | None:
        """Predicted latency of the derived agent, seconds: from the newest file that knows it."""
        if self.summary is not None:
            return self.summary.latency_predicted_s
        if self.agent is not None:
            return self.agent.latency.predicted_s
        return None if self.architecture is None else self.architecture.predicted.latency_s

    @property
    def latency_measured_s(self) -> float | None:
        """Measured median latency of the exported agent, seconds: from the export record, else from the summary."""
        if self.agent is not None and self.agent.latency.measured is not None:
            return self.agent.latency.measured.p50_s
        return None if self.summary is None else self.summary.latency_measured_s

    @property
    def teacher_score(self) -> float | None:
        """Mean score of the teacher: from the summary, or while there is none from the record of the run."""
        if self.summary is not None and self.summary.teacher_score_mean is not None:
            return self.summary.teacher_score_mean
        return None if self.record.teacher is None else self.record.teacher.score_mean


def flatten(source: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted name and value of every leaf of a nested JSON object, in the order written."""
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
        RunFolderError: the path is not a run folder, one of its files is damaged (names the file and the key), or its results are
            of another device than its record.
    """
    path = Path(run_path)
    if not path.is_dir():
        raise RunFolderError(f"there is no run folder {path}; `ls {path.parent}` shows the runs there are")
    record = _read(path, RunRecord)
    if record is None:
        raise RunFolderError(f"{path} is not a run folder: it has no run.json; give the folder that `cosearch search` made")
    missing = [f"{name} is not there yet: {what}" for name, what in FILES.items() if not (path / name).is_file()]
    log = path / "metrics.jsonl"
    metrics = tuple(_of_the_first(line, record) for line in read_metrics(log))
    if log.is_file() and log.stat().st_size > 0 and not log.read_bytes().endswith(b"\n"):
        missing.append("the last line of metrics.jsonl was not finished and is left out")
    clip = (path / CLIP).read_bytes() if (path / CLIP).is_file() else None
    if clip is not None and len(clip) > CLIP_BYTES_MAX:
        missing.append(f"{CLIP} is left out: {len(clip) / 1e6:.0f} MB are too many for a report")
        clip = None
    architecture, agent, summary = _read(path, ArchitectureRecord), _read(path, AgentRecord), _read(path, Summary)
    check_results(path, record, summary, agent)
    return Run(path, record, metrics, architecture, agent, summary, tuple(missing), clip)


def _of_the_first(line: Line, record: RunRecord) -> Line:
    """A line of a search for several agents without what is of another one's target: the record's figures are the first one's."""
    if not record.agents or line.get("agent", record.agents[0].name) == record.agents[0].name:
        return line
    return {key: value for key, value in line.items() if key not in OF_A_TARGET}


def _read(folder: Path, record: type[Content]) -> Content | None:
    """The record in its file, or None where the file is absent."""
    path = folder / record.FILE
    if not path.is_file():
        return None
    try:
        content = read_json(path, "a file of a run", RunFolderError, digits=OWN_DIGITS)
    except RunFolderError as error:
        raise RunFolderError(f"{path} is damaged ({error}); move it away and resume the run") from error
    return from_json(record, content, path)


def _table(value: object) -> list[list[float]] | None:
    """A non-empty list of non-empty lists of numbers; None for anything else."""
    rows = value if isinstance(value, list) else []
    known = rows and all(isinstance(row, list) and row and all(isinstance(p, (int, float)) for p in row) for row in rows)
    return rows if known else None
