"""``deployments.json``: where a run's bundle was put, and what was measured there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cosearch.record.json_record import OMITTED, JsonObject
from cosearch.record.results.agent import MeasuredLatency, PacedLatency, latency_figure


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One bundle on one device.

    Attributes:
        name: of the device.
        host: how it was reached: by SSH, or the address of a TVM RPC tracker; None for this machine.
        provenance: ``measured``, or ``synthetic`` where the device is emulated.
        created_utc: when it was measured, ISO 8601.
        model_sha256: digest of the bundle's ONNX file.
        self_test: what the self-test said there.
        measured: latency back to back.
        paced: latency at the control period, after a sleep; None through a tracker, which cannot call at a period.
        warmed: the same as ``run_agent.py`` makes it: a call just before the moment warms the caches up.
        lead_s: how long before the moment that call begins, seconds.
        target_s: the bound, seconds.
        target_met: whether what was measured keeps all targets of the run; of runs of versions that recorded no targets one by
            one, the median back to back. None where one was not measured and is not known.
        conditions: the machine, and its state before and after.
        energy_j: of one inference, joules; None where no target is on it.
        memory_bytes: peak of the process that ran the agent; None where no target is on it.
    """

    name: str
    host: str | None
    provenance: str
    created_utc: str
    model_sha256: str
    self_test: str
    measured: MeasuredLatency
    paced: PacedLatency | None
    warmed: PacedLatency | None
    lead_s: float
    target_s: float
    target_met: bool | None
    conditions: JsonObject
    energy_j: float | None = field(default=None, metadata=OMITTED)
    memory_bytes: float | None = field(default=None, metadata=OMITTED)

    def figure(self, metric: str, statistic: str, at: str) -> float | None:
        """What was measured there of a target, in the metric's unit.

        Args:
            metric, statistic, at: of the target, as in ``summary.json``.

        Returns:
            None where that was not measured there.
        """
        if metric == "latency_s":
            return latency_figure(self.measured, self.paced, statistic, at)
        return {"energy_j": self.energy_j, "memory_bytes": self.memory_bytes}.get(metric)


@dataclass(frozen=True, kw_only=True)
class Deployments:
    """All devices that a run's bundle was measured on, the newest last; one entry a device.

    Attributes:
        deployments: of each device.
    """

    FILE: ClassVar[str] = "deployments.json"

    deployments: tuple[Deployment, ...] = ()
