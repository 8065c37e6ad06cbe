"""What the public functions return: frozen records, and the reading of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cosearch.record.results.summary import Summary
from latency_tables.errors import RunFolderError


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run folder; it also holds the configuration (``run.json``) and the log (``metrics.jsonl``).
        summary: the results: scores, latencies in seconds, and what they were checked by.
    """

    folder: Path
    summary: Summary

    @property
    def agent(self) -> Path:
        """The exported network, ``agent.onnx``; ``agent.json`` beside it says how to act on its outputs."""
        return self.folder / "agent.onnx"

    @property
    def architecture(self) -> Path:
        """The network that was found, ``architecture.json``."""
        return self.folder / "architecture.json"

    @property
    def report(self) -> Path:
        """``report.html``: one file, without links to anything else."""
        return self.folder / "report.html"


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
        interval: where the latency is expected, ``(low_s, high_s)`` in seconds: the extremes of networks that the table was not
            fitted on; of an estimate those of left-out blocks, or assumed. None where nothing is known.
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
        RunFolderError: not a run folder, not finished, or its ``summary.json`` cannot be read.
    """
    from cosearch.record.results.family import check_single
    from cosearch.record.rundir import RunDir  # it loads torch for its checkpoints, and an agent plays without it

    run = RunDir.open(folder)
    check_single(run)
    if not (run.path / Summary.FILE).is_file():
        raise RunFolderError(f"{folder} is not finished: it has no {Summary.FILE}; `cosearch resume {folder}` goes on with it")
    return Run(run.path, run.read(Summary))
