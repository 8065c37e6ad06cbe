"""``agent.json``: the exported agent: proof that it is the trained one, how to run it, how long it takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cosearch.record.json_record import OMITTED, JsonObject
from cosearch.record.results.artifact import ArtifactRecord
from latency_tables.errors import RunFolderError

EXPORTED = "agent.onnx"


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """The exported file beside the network that it was made from, on real observations.

    Attributes:
        max_abs_difference: largest difference of any output.
        greedy_agreement: share of the observations with the same greedy action, 0..1.
        rounding_ties: observations whose greedy action differs only by float32 rounding.
        observations: how many were compared.
        tolerance: largest difference that is allowed, for outputs of at most 1; of larger ones this share.
        magnitude: of the largest output, at least 1.
        batch_sizes: that were tried.
        episodes: that ended among the observations, of an agent with a memory; 0 of others.
        opset: of the file.
        bytes, sha256: size and digest of the file.
    """

    max_abs_difference: float
    greedy_agreement: float
    rounding_ties: int
    observations: int
    tolerance: float
    batch_sizes: tuple[int, ...]
    opset: int
    bytes: int
    sha256: str
    magnitude: float = field(default=1.0, metadata=OMITTED)
    episodes: int = field(default=0, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """An input or output of the file: name, dtype, and shape, in which a free dimension has a name."""

    name: str
    dtype: str
    shape: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryRecord:
    """What an agent carries from one observation to the next.

    Attributes:
        input: that takes it.
        output: that gives the next one.
        initial: its numbers at the first observation of an episode.
    """

    input: str
    output: str
    initial: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MeasuredLatency:
    """Latency of the exported agent, run back to back.

    Attributes:
        p50_s, p90_s, p99_s: quantiles, seconds: medians over the rounds.
        min_s: the fastest decision.
        worst_p99_s: of the worst round.
        samples: decisions that were timed.
        clean_share: share of them that were not preempted; None with several threads.
        rounds: visits.
        device: the machine.
        runtime, runtime_version, dtype, threads, batch: what ran the file, and how many observations it took at once.
        statistic: what the quantiles are taken over, in words.
    """

    p50_s: float
    p90_s: float
    p99_s: float
    min_s: float
    worst_p99_s: float
    samples: int
    clean_share: float | None
    rounds: int
    device: str
    runtime: str
    runtime_version: str
    threads: int
    statistic: str
    dtype: str = field(default="float32", metadata=OMITTED)
    batch: int = field(default=1, metadata=OMITTED)

    @property
    def identity(self) -> str:
        """As in the name of a table: ``onnxruntime-int8-1t``."""
        return f"{self.runtime}-{self.dtype}-{self.threads}t"


@dataclass(frozen=True, kw_only=True)
class PacedLatency:
    """Latency at a control period: one decision each ``period_s`` seconds; ``missed`` took longer than that."""

    max_s: float
    missed: int
    p50_s: float
    p90_s: float
    p99_s: float
    period_s: float
    samples: int


def latency_figure(measured: MeasuredLatency, paced: PacedLatency | None, statistic: str, at: str) -> float | None:
    """The figure of a latency that a target is on, seconds.

    Args:
        measured, paced: the agent back to back and at the control period; None where nobody timed it so.
        statistic: ``median`` or ``p99``.
        at: ``back-to-back`` or ``period``.

    Returns:
        None where that was not measured.
    """
    calls = measured if at == "back-to-back" else paced
    return None if calls is None else calls.p50_s if statistic == "median" else calls.p99_s


@dataclass(frozen=True, kw_only=True)
class LatencyRecord:
    """Latency of one decision.

    Attributes:
        predicted_s: for the target device, seconds.
        predicted_provenance: of the table that predicts it.
        predicted_for: name of that device.
        measured: back to back; None where nobody timed it.
        paced: at a control period; None where nobody timed it.
        conditions: state of the machine that timed it, and what could be fixed.
    """

    predicted_s: float
    predicted_provenance: str
    predicted_for: str
    measured: MeasuredLatency | None
    paced: PacedLatency | None
    conditions: JsonObject


@dataclass(frozen=True, kw_only=True)
class AgentRecord:
    """The exported agent.

    Attributes:
        parity: the float32 file beside the trained network.
        artifact: the file that is deployed and what runs it; None in runs of versions that did not record it.
        inputs, outputs: of the file.
        memory: what it carries from one observation to the next; None: nothing.
        preprocessing: what the file does to an observation, in words.
        acting: how to act on the outputs; None in runs of versions that did not record it.
        latency: predicted and measured.
        architecture: names of the chosen candidates.
    """

    FILE: ClassVar[str] = "agent.json"

    parity: ParityRecord
    artifact: ArtifactRecord | None = field(default=None, metadata=OMITTED)
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    memory: MemoryRecord | None = field(default=None, metadata=OMITTED)
    preprocessing: str
    acting: JsonObject | None = field(default=None, metadata=OMITTED)
    latency: LatencyRecord
    architecture: tuple[str, ...]

    @property
    def deployed_sha256(self) -> str:
        """SHA-256 of the file that is deployed."""
        return self.parity.sha256 if self.artifact is None else self.artifact.sha256

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each file of the agent, by its name: the one that was exported, and the one that is deployed."""
        if self.artifact is None:
            return {EXPORTED: self.parity.sha256}
        return {self.artifact.source: self.parity.sha256, self.artifact.file: self.artifact.sha256}


def check_agent_files(folder: Path, record: AgentRecord) -> None:
    """Raise unless the files of an agent are those that its record describes; one that is not there is not compared.

    Args:
        folder: of the agent.
        record: its ``agent.json``.

    Raises:
        RunFolderError: a file is another one (names both digests), or lies elsewhere than beside the record.
    """
    for name, recorded in record.files.items():
        path = folder / name
        if Path(name).name != name:
            raise RunFolderError(f"{folder / record.FILE}: a file of an agent must lie beside it, got {name[:80]!r}")
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
        if found != recorded:
            raise RunFolderError(
                f"{path} is not the file that {record.FILE} describes (SHA-256 {recorded[:12]} there, {found[:12]} now): it is "
                f"damaged or another one; `cosearch export {folder}` writes it again"
            )
