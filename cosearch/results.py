"""What the public functions return: frozen records, and the reading of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from latency_tables.errors import RunFolderError

Number = int | float


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run folder; holds all that follows, the configuration (``run.json``) and the log (``metrics.jsonl``).
        agent: the exported network, ``agent.onnx``; its description is ``agent.json`` beside it.
        architecture: the network that was found, ``architecture.json``.
        report: ``report.html``, one file without links to anything else.
        score_mean: mean undiscounted return of the exported agent on held-out episodes.
        score_ci95: 95 % interval of that mean over episodes, low and high.
        episodes: how many there were.
        teacher_score_mean: the teacher's score, or None without a teacher.
        latency_predicted_s: of the agent on the target device, seconds an inference.
        latency_measured_s: of the agent on the machine that searched, seconds an inference, median.
        latency_target_s: the bound on the target device, seconds.
        target_met: whether the latency is within it; ``target_checked_by`` says which latency.
        target_checked_by: ``measurement``, or the kind of table that predicted, e.g. ``estimated table``.
        table_provenance: measured, derived, estimated, synthetic, or modelled for an accelerator.
        summary: the whole of ``summary.json``.
    """

    folder: Path
    agent: Path
    architecture: Path
    report: Path
    score_mean: float
    score_ci95: tuple[float, float]
    episodes: int
    teacher_score_mean: float | None
    latency_predicted_s: float
    latency_measured_s: float
    latency_target_s: float
    target_met: bool
    target_checked_by: str
    table_provenance: str
    summary: Mapping[str, object]


@dataclass(frozen=True)
class OperationCost:
    """What one operation of a network is predicted to cost.

    Attributes:
        name: its place in the network and the candidate that was chosen there.
        key: of the table's row.
        latency_s: seconds.
        energy_j: joules, or None where nobody measured them.
        macs: multiply-accumulates an inference.
        params: weights.
    """

    name: str
    key: str
    latency_s: float
    energy_j: float | None
    macs: int
    params: int


@dataclass(frozen=True)
class Prediction:
    """What a network is predicted to cost on a device.

    Attributes:
        latency_s: seconds an inference of one observation; ``overhead_s`` and the operations' seconds add up to it.
        energy_j: joules an inference, or None where nobody measured them.
        overhead_s: the fixed part of ``latency_s``, seconds.
        interval: bounds that hold the latency of 95 % of networks, ``(low_s, high_s)`` in seconds, or None.
        provenance: measured, derived, estimated, synthetic, or modelled for an accelerator.
        device: name of the device.
        runtime: the runtime that was measured or modelled, such as onnxruntime.
        dtype: number format of the network there.
        threads: CPU threads.
        macs: multiply-accumulates an inference.
        params: weights.
        operations: one row an operation, in the order of the network.
    """

    latency_s: float
    energy_j: float | None
    overhead_s: float
    interval: tuple[float, float] | None
    provenance: str
    device: str
    runtime: str
    dtype: str
    threads: int
    macs: int
    params: int
    operations: tuple[OperationCost, ...]


@dataclass(frozen=True)
class MeasuredTable:
    """A latency table that was just measured.

    Attributes:
        path: the file; ``search(table=path)`` and ``predict(..., table=path)`` take it.
        device: name of the device in it.
        rows: how many operations it has.
        overhead_s: fixed part of an inference, seconds.
        mape: mean absolute error over whole networks that were measured and not used for fitting, as a fraction; None where
            the space was too small for a certificate.
        kendall_tau: rank correlation of predicted and measured latencies of the same networks, -1..1, or None.
    """

    path: Path
    device: str
    rows: int
    overhead_s: float
    mape: float | None
    kendall_tau: float | None


def load_run(folder: str | Path) -> Run:
    """The results of a finished run.

    Args:
        folder: the run folder.

    Raises:
        RunFolderError: not a run folder, or not finished.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = f"`python -m cosearch resume {folder}` goes on" if (folder / "run.json").is_file() else "give a run's folder"
        raise RunFolderError(f"{folder} is no finished run: it has no summary.json; {hint}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunFolderError(f"{folder / 'summary.json'} cannot be read: {error}; `cosearch export {folder}` makes it") from error
    summary: dict[str, object] = content if isinstance(content, dict) else {}
    read = _Reader(summary, folder / "summary.json")
    return Run(
        folder,
        folder / "agent.onnx",
        folder / "architecture.json",
        folder / "report.html",
        read.number("score_mean"),
        read.pair("score_ci95"),
        read.count("episodes"),
        read.number_or_none("teacher_score_mean"),
        read.number("latency_predicted_s"),
        read.number("latency_measured_s"),
        read.number("latency_target_s"),
        summary.get("target_met") is True,
        read.text("target_checked_by"),
        read.text("table_provenance"),
        summary,
    )


@dataclass(frozen=True)
class _Reader:
    """Typed values of a JSON object; a missing or wrong one is an error that names the file."""

    content: Mapping[str, object]
    path: Path

    def number(self, key: str) -> float:
        value = self.content.get(key)
        return float(value) if isinstance(value, Number) and not isinstance(value, bool) else self._fault(key, "a number")

    def number_or_none(self, key: str) -> float | None:
        return None if self.content.get(key) is None else self.number(key)

    def count(self, key: str) -> int:
        value = self.content.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else self._fault(key, "a whole number")

    def text(self, key: str) -> str:
        value = self.content.get(key)
        return value if isinstance(value, str) else self._fault(key, "a text")

    def pair(self, key: str) -> tuple[float, float]:
        value = self.content.get(key)
        if isinstance(value, list) and len(value) == 2:
            ends = _Reader({"low": value[0], "high": value[1]}, self.path)
            return ends.number("low"), ends.number("high")
        return self._fault(key, "a pair of numbers")

    def _fault(self, key: str, expected: str) -> NoReturn:
        raise RunFolderError(f"{self.path}: {key} must be {expected}, got {self.content.get(key)!r}")
