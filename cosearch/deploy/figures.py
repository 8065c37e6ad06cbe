"""The recorded figures of an agent's calls: back to back over rounds, and at the control period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from cosearch.record.results.agent import MeasuredLatency, PacedLatency
from latency_tables.board.timing import Paced, Visit

STATISTIC = "median over rounds; p50_s over the samples that were not preempted, the others over all samples"


@dataclass(frozen=True)
class Running:
    """What runs the models that are timed.

    Attributes:
        runtime: ``onnxruntime`` or ``tvm``.
        dtype: of the models, for the record: it is inside them.
        threads: CPU threads of the runtime, explicit; idle ones do not spin.
        batch: observations in one call, where a model leaves that free.
    """

    runtime: str
    dtype: str
    threads: int
    batch: int


def measured_latency(visits: Sequence[Visit], *, device: str, runtime_version: str, running: Running) -> MeasuredLatency:
    """Back-to-back calls of all rounds as one record.

    Args:
        visits: one a round, at least one.
        device: where they ran.
        runtime_version: of the runtime there.
        running: runtime, dtype, threads and batch.
    """
    shares = [visit.clean_share for visit in visits if visit.clean_share is not None]
    return MeasuredLatency(
        p50_s=median(visit.median_s for visit in visits),
        p90_s=median(visit.p90_s for visit in visits),
        p99_s=median(visit.p99_s for visit in visits),
        min_s=min(visit.min_s for visit in visits),
        worst_p99_s=max(visit.p99_s for visit in visits),
        samples=sum(visit.samples for visit in visits),
        clean_share=sum(shares) / len(shares) if len(shares) == len(visits) else None,
        rounds=len(visits),
        device=device,
        runtime=running.runtime,
        runtime_version=runtime_version,
        dtype=running.dtype,
        threads=running.threads,
        batch=running.batch,
        statistic=STATISTIC,
    )


def paced_latency(calls: Paced) -> PacedLatency:
    """Calls at the control period as a record.

    Args:
        calls: as the measuring core counted them, seconds.
    """
    return PacedLatency(
        max_s=calls.max_s,
        missed=calls.missed,
        p50_s=calls.p50_s,
        p90_s=calls.p90_s,
        p99_s=calls.p99_s,
        period_s=calls.period_s,
        samples=calls.samples,
    )
