"""What a model measures of a run's targets on a device, with intervals: visits until each target is clearly under or over.

One model in a process of its own, visited in short turns; a figure is the median over visits, its interval that of a median by
order statistics. Where the interval holds the target the device is visited again, up to ``BATCHES`` times as long: noise that
is larger than the margin is not decided by one number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from cosearch.deploy.figures import Running
from cosearch.deploy.measure import NICE, PERIOD_S, Model, content_of, load_model
from cosearch.record.json_record import JsonObject
from cosearch.record.run_record import TargetRecord
from cosearch.space.derivation.derive import within
from latency_tables.board.timing import Paced, Visit, VisitPlan, median_interval
from latency_tables.errors import MeasurementError
from latency_tables.measuring.remote import Connection, Location

VISITS, SESSIONS, ENERGIES = 15, 5, 5  # of one batch: back to back, at the period, of the power sensor
BATCHES = 3
ENERGY_S = 2.0  # at least, of the readings of a power sensor together
UNDER, OVER, UNCLEAR = "under", "over", "unclear"


@dataclass(frozen=True)
class Reading:
    """One figure over several visits.

    Attributes:
        values: of each visit, seconds, joules or bytes.
        exact: no visit would give another value: bytes of a file, the peak of a process.
    """

    values: tuple[float, ...]
    exact: bool = False

    @property
    def value(self) -> float:
        """The median over the visits."""
        return median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of it; of one value that value twice, which says nothing unless it is exact."""
        return median_interval(self.values) if len(self.values) > 1 else (self.values[0], self.values[0])

    def verdict(self, target: float) -> str:
        """``under``: the whole interval is at most the target; ``over``: none of it; else, and of one value that is not exact,
        ``unclear``.

        Args:
            target: the bound, in the figure's unit.
        """
        low, high = self.interval
        if len(self.values) == 1 and not self.exact:
            return UNCLEAR
        return UNDER if within(high, target) else UNCLEAR if within(low, target) else OVER


@dataclass
class Readings:
    """What one model measured.

    Attributes:
        visits: back to back.
        paced: at the control period.
        energies_j: of one inference.
        file_bytes: size of the model's file.
        memory_bytes: peak of the process that ran it; None where nobody asked.
        runtime_version: there.
        conditions: the machine, and what could be fixed.
    """

    file_bytes: int
    visits: list[Visit] = field(default_factory=list)
    paced: list[Paced] = field(default_factory=list)
    energies_j: list[float] = field(default_factory=list)
    memory_bytes: float | None = None
    runtime_version: str = ""
    conditions: JsonObject = field(default_factory=dict)

    def of(self, target: TargetRecord) -> Reading | None:
        """The figure that a target is on; None where it was not measured.

        Args:
            target: what is bounded.
        """
        if target.metric == "file_bytes":
            return Reading((float(self.file_bytes),), exact=True)
        if target.metric == "memory_bytes":
            return None if self.memory_bytes is None else Reading((self.memory_bytes,), exact=True)
        if target.metric == "energy_j":
            values: list[float] = self.energies_j
        elif target.at == "period":
            values = [calls.p50_s if target.statistic == "median" else calls.p99_s for calls in self.paced]
        else:
            values = [visit.median_s if target.statistic == "median" else visit.p99_s for visit in self.visits]
        return Reading(tuple(values)) if values else None

    @property
    def pace(self) -> Paced | None:
        """The calls at the period as one record: medians of the sessions' quantiles; None without any."""
        if not self.paced:
            return None
        return Paced(
            period_s=self.paced[0].period_s,
            p50_s=median(calls.p50_s for calls in self.paced),
            p90_s=median(calls.p90_s for calls in self.paced),
            p99_s=median(calls.p99_s for calls in self.paced),
            max_s=max(calls.max_s for calls in self.paced),
            samples=sum(calls.samples for calls in self.paced),
            missed=sum(calls.missed for calls in self.paced),
        )


@dataclass(frozen=True)
class Meter:
    """A device that models are measured on.

    Attributes:
        running: runtime, dtype, threads and batch.
        device: name for the record.
        location: where; this machine by default.
        seconds: of one batch of visits of each kind.
        period_s: control period.
    """

    running: Running
    device: str = "this machine"
    location: Location = field(default_factory=Location)
    seconds: float = 2.5
    period_s: float = PERIOD_S

    def read(self, model: Model, targets: Sequence[TargetRecord]) -> Readings:
        """Measure what the targets are on.

        Args:
            model: ONNX file, serialized model, or library.
            targets: of the run; what none of them is on is not measured.

        Raises:
            MeasurementError: the runtime refuses the model, the device has no power sensor, or the process was lost.
        """
        content = content_of("agent", model)
        found = Readings(len(content))
        kinds = {(target.metric, target.at) for target in targets if target.metric != "file_bytes"}
        if not kinds:
            return found
        core = Connection(self.location, answer_timeout_s=120 + 2 * self.seconds)
        try:
            hello = core.one("hello", threads=self.running.threads, runtime=self.running.runtime, nice=NICE, pin=True)
            found.runtime_version = str(hello["runtime_version"])
            graph = load_model(core, "agent", model, content, self.running.batch)
            for _ in range(BATCHES):
                self._batch(core, kinds, found)
                if all((reading := found.of(target)) is None or reading.verdict(target.value) != UNCLEAR for target in targets):
                    break
            found.conditions = {
                "machine": hello["fingerprint"],
                "fixed": hello["settings"],
                "before": hello["state"],
                "after": core.one("state")["state"],
                "graphs": {"agent": graph},
            }
        finally:
            core.close()
        return found

    def _batch(self, core: Connection, kinds: set[tuple[str, str]], found: Readings) -> None:
        if ("latency_s", "back-to-back") in kinds:
            each_s = self.seconds / VISITS
            plan = replace(VisitPlan(), seconds=each_s, warmup_s=min(0.05, each_s)).to_dict()
            for _ in range(VISITS):
                found.visits.append(Visit.from_dict(core.one("visit", ids=["agent"], plan=plan)["visit"]))
        if ("latency_s", "period") in kinds:
            for _ in range(SESSIONS):
                answer = core.one("paced", ids=["agent"], period_s=self.period_s, seconds=self.seconds / SESSIONS)
                found.paced.append(Paced.from_dict(answer["paced"]))
        if any(metric == "energy_j" for metric, _ in kinds):
            for _ in range(ENERGIES):
                answer = core.one("energy", ids=["agent"], seconds=max(ENERGY_S, self.seconds) / ENERGIES)
                found.energies_j.append(joules_of(answer, self.device))
        if any(metric == "memory_bytes" for metric, _ in kinds):
            found.memory_bytes = number_of(core.one("memory"), "peak_bytes")


def joules_of(answer: Mapping[str, object], device: str) -> float:
    """Joules of one inference, from what a measuring core answered.

    Args:
        answer: of the verb ``energy``.
        device: its name, for the message.

    Raises:
        MeasurementError: it has no power sensor, or that could not be read.
    """
    if answer.get("energy_j") is None:
        raise MeasurementError(f"{device} cannot measure the energy of an inference: {answer.get('reason')}")
    return number_of(answer, "energy_j")


def number_of(answer: Mapping[str, object], key: str) -> float:
    """A number that a measuring core answered.

    Args:
        answer: of any verb.
        key: of the number.

    Raises:
        MeasurementError: it is not there.
    """
    value = answer.get(key)
    if not isinstance(value, (int, float)):
        raise MeasurementError(f"the measuring core answered no {key}: {str(answer)[:200]}")
    return float(value)
