"""``cosearch deploy``: a run's bundle on its device, tested and measured there, and the run's figures updated from that.

The bundle is copied, its self-test runs with the device's own Python, and the measuring core times the file as it does for
tables: back to back in several visits, then at the control period, after a sleep and as the runner's loop calls it. Each answer
is in a journal before the next question; a lost connection is made again, and the same command goes on where an interrupted one
stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cosearch.deploy.board import copy_bundle, self_test_by_rpc, self_test_here, self_test_there
from cosearch.deploy.bundle.contract import Contract
from cosearch.deploy.bundle.folder import BUNDLE, open_bundle
from cosearch.deploy.figures import Running, measured_latency, paced_latency
from cosearch.deploy.readings import ENERGY_S, joules_of, number_of
from cosearch.planning.identity import check_results
from cosearch.record.json_record import JsonObject
from cosearch.record.results.agent import AgentRecord, LatencyRecord, MeasuredLatency, PacedLatency, check_agent_files
from cosearch.record.results.deployment import Deployment, Deployments
from cosearch.record.results.family import check_single
from cosearch.record.results.summary import Summary, TargetCheck, all_met, predicted_by
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.report.facts import as_predicted
from cosearch.report.page import write_report
from cosearch.space.derivation.derive import within
from latency_tables.board.timing import Paced, VisitPlan
from latency_tables.errors import MeasurementError, RequestError, RunFolderError
from latency_tables.measuring.identity import HOST, place_of
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.remote import Answer, Connection, Core, Location
from latency_tables.measuring.rpc import TrackerConnection
from latency_tables.measuring.ssh import LostBoard
from latency_tables.measuring.visits import Hello
from latency_tables.text.writing import remove

HERE = "this machine"
MODEL = "agent"
SLEPT, WARMED = "after a sleep", "warmed up"
ROUNDS = 5
NICE = -10
LEAD_S = 0.001
MAX_LOST = 5


@dataclass(frozen=True)
class DeployRequest:
    """Where a bundle goes and how it is measured.

    Attributes:
        location: a board, or this machine.
        name: of the device; empty: its host's, or ``this machine``.
        seconds: a third of them back to back, a third at the period after a sleep, a third warmed up.
        period_s: control period; None: the one in the contract.
        synthetic: the device is emulated: no figure of it says anything about a board.

    Raises:
        RequestError: seconds or period are out of range.
    """

    location: Location = field(default_factory=Location)
    name: str = ""
    seconds: float = 15.0
    period_s: float | None = None
    synthetic: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 3600 or (self.period_s is not None and not 0 < self.period_s <= 10):
            raise RequestError(
                f"deploying needs 0 to 3600 seconds and a period of at most 10 s, got {self.seconds:g} and {self.period_s}"
            )

    @property
    def device(self) -> str:
        """Name of the device for the record."""
        if self.location.tracker is not None:
            return self.name or self.location.tracker_key
        host = self.location.host
        return self.name or (HERE if host is None else host.rpartition("@")[2])


def deploy(path: Path, request: DeployRequest, note: Callable[[str], None] = lambda text: None) -> Deployment:
    """Put a finished run's bundle on a device, test and measure it there, and update summary, ``agent.json`` and report.

    Args:
        path: run folder with a bundle.
        request: where and how.
        note: called with a line for each step.

    Returns:
        What was measured; ``deployments.json`` keeps it.

    Raises:
        RunFolderError: the run has no bundle, or one of another agent or with code that is not ours, or is in use.
        RequestError: the board, its login or its runtime is not what it has to be.
        DiskFullError: the disk there, or here, is full.
        ParityError: the outputs there differ from the stored ones.
        MeasurementError: the connection was lost again and again; what was measured is kept.
    """
    run = RunDir.open(path)
    check_single(run)
    with run.lock():
        contract, model = open_bundle(run)
        agent = run.read(AgentRecord)
        check_agent_files(run.path, agent)
        check_results(run.path, run.read(RunRecord), run.read(Summary), agent)
        session = _Session(run, run.path / BUNDLE, contract, model, request, note)
        found = session.measured()
        _keep(run, found)
        session.forget()
    return found


class _Session:
    """One bundle on one device, taken up where its journal stands."""

    def __init__(
        self, run: RunDir, bundle: Path, contract: Contract, model: bytes, request: DeployRequest, note: Callable[[str], None]
    ) -> None:
        self._run, self._bundle, self._contract, self._model = run, bundle, contract, model
        self._request, self._note = request, note
        self._artifact = run.read(AgentRecord).artifact
        self._period_s = contract.period_s if request.period_s is None else request.period_s
        self._sha256 = hashlib.sha256(model).hexdigest()
        self._identity = {
            "deploy": self._sha256,
            "device": request.device,
            "host": request.location.host or request.location.tracker,
            "threads": contract.threads,
            "runtime": self._runtime,
            "seconds": request.seconds,
            "period_s": self._period_s,
            "provenance": self._provenance,
        }
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()[:12]
        self._path = run.path / f"deploy-{digest}.journal"
        self._hello: JsonObject = {}
        self._session: TrackerConnection | None = None
        self._reached = request.location.host is None and request.location.tracker is None
        if request.location.tracker is not None and self._runtime != "tvm":
            raise RequestError(
                f"a TVM RPC tracker runs a library of TVM, this agent is for {self._runtime}: use --host, or search with the "
                "device's table for tvm"
            )
        self._end_state: object = None
        self._targets = run.read(Summary).targets
        self._energy_j: float | None = None
        self._memory_bytes: float | None = None
        if request.location.tracker is not None and any(map(_only_there, self._targets)):
            raise RequestError(
                "a TVM RPC tracker makes no calls at a control period and reads neither power nor memory, and a target of this "
                "run is on that: use --host"
            )

    @property
    def _provenance(self) -> str:
        return "synthetic" if self._request.synthetic else "measured"

    def measured(self) -> Deployment:
        """Test and measure what the journal does not have yet."""
        said = self._again(self._tested)
        self._note(f"self-test on {self._request.device}: {said}")
        journal = Journal(self._path, self._identity)
        try:
            if journal.resumed:
                self._note(f"going on: {len(journal.visits.get(MODEL, ()))} of {ROUNDS} visits were made before")
            self._again(lambda: self._time(journal))
            return self._record(said, journal)
        finally:
            journal.close()

    def forget(self) -> None:
        """Remove the journal, and those of requests that were given up; one of this model on another device stays."""
        for path in self._run.path.glob("deploy-*.journal"):
            begun = path.read_bytes().partition(b"\n")[0].decode(errors="replace")
            ours, here = (json.dumps({key: self._identity[key]})[1:-1] in begun for key in ("deploy", "device"))
            if here or not ours:
                remove(path)

    def _again(self, work: Callable[[], str | None]) -> str:
        """Do some work, and again after each loss of the connection."""
        for attempt in range(MAX_LOST + 1):
            try:
                return work() or ""
            except LostBoard as error:
                if not self._reached:  # it has never answered: trying again would only take time
                    raise MeasurementError(str(error)) from error
                if attempt == MAX_LOST:
                    raise MeasurementError(
                        f"the connection to {self._request.device} was lost {attempt + 1} times; what was measured is kept, "
                        f"the same command goes on from there. Last: {error}"
                    ) from error
                self._note(f"lost {self._request.device}: {error}; trying again")
                time.sleep(min(0.5 * 2**attempt, 10))
        raise AssertionError("the loop returns or raises")

    def _tested(self) -> str:
        if self._request.location.tracker is not None:
            return self._tested_by_rpc()
        if self._request.location.host is None:
            return self_test_here(self._bundle)
        folder = copy_bundle(self._bundle, self._request.location)
        self._reached = True
        self._note(f"the bundle is on {self._request.device} in {folder}")
        return self_test_there(folder, self._request.location)

    def _tested_by_rpc(self) -> str:
        """Open the one session that also times: a tracker gives a device away again only when this process has let go of it."""
        self._session = core = TrackerConnection(self._request.location)
        self._reached = True
        core.one("hello", threads=self._contract.threads)
        self._load(core)
        return self_test_by_rpc(core, MODEL, self._bundle, self._contract)

    def _connect(self, third_s: float) -> Core:
        location = self._request.location
        if location.tracker is not None:
            session, self._session = self._session or TrackerConnection(location), None
            return session
        return Connection(location, answer_timeout_s=120 + 2 * third_s)

    def _time(self, journal: Journal) -> None:
        third_s, by_rpc = self._request.seconds / 3, self._request.location.tracker is not None
        core = self._connect(third_s)
        try:
            self._hello = core.one("hello", threads=self._contract.threads, runtime=self._runtime, nice=NICE, pin=True)
            journal.measured_at(place_of(Hello.from_answer(self._hello)))
            loaded = self._load(core)
            if "error" in loaded:
                raise RequestError(f"{self._request.device} cannot run the agent: {loaded['error']}")
            if MODEL not in journal.graphs:
                journal.add({"id": MODEL, "graph": loaded["graph"]})
            plan = replace(VisitPlan(), seconds=third_s / ROUNDS, warmup_s=min(0.05, third_s / ROUNDS)).to_dict()
            while len(journal.visits.get(MODEL, ())) < ROUNDS:
                journal.add({"id": MODEL, "visit": core.one("visit", ids=[MODEL], plan=plan)["visit"]})
            for mode, lead_s in ((SLEPT, 0.0), (WARMED, LEAD_S)):
                if mode not in journal.paced and not by_rpc:
                    answer = core.one("paced", ids=[MODEL], period_s=self._period_s, seconds=third_s, lead_s=lead_s)
                    journal.add({"id": mode, "kind": "paced", "paced": answer["paced"]})
            metrics = {check.metric for check in self._targets}
            if "energy_j" in metrics:
                self._energy_j = joules_of(core.one("energy", ids=[MODEL], seconds=max(ENERGY_S, third_s)), self._request.device)
            if "memory_bytes" in metrics:
                self._memory_bytes = number_of(core.one("memory"), "peak_bytes")
            self._end_state = core.one("state")["state"]
        finally:
            core.close()

    @property
    def _runtime(self) -> str:
        return "onnxruntime" if self._artifact is None else self._artifact.runtime

    def _load(self, core: Core) -> Answer:
        """The bundle's file; of an agent that TVM compiled its library, which is what the table speaks of."""
        artifact, contract = self._artifact, self._contract
        batch = 1 if artifact is None else artifact.batch
        if artifact is not None and artifact.runtime == "tvm":
            (taken,) = self._run.read(AgentRecord).inputs
            shape = [batch, *(int(str(size)) for size in taken.shape[1:])]
            library = self._library(artifact.file)
            return core.one("load", library, id=MODEL, shape=shape, element=contract.input_dtype)
        return core.one("load", self._model, id=MODEL, batch=batch) if batch > 1 else core.one("load", self._model, id=MODEL)

    def _library(self, name: str) -> bytes:
        path = self._run.path / name
        if not path.is_file():
            raise RunFolderError(f"{path} is not there: `cosearch export {self._run.path}` writes it again")
        return path.read_bytes()

    def _record(self, said: str, journal: Journal) -> Deployment:
        target_s = self._run.read(Summary).latency_target_s
        measured = self._back_to_back(journal)
        found = Deployment(
            name=self._request.device,
            host=self._request.location.host or self._request.location.tracker,
            provenance=self._provenance,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            model_sha256=self._sha256,
            self_test=said,
            measured=measured,
            paced=_paced(journal.paced.get(SLEPT)),
            warmed=_paced(journal.paced.get(WARMED)),
            lead_s=LEAD_S,
            target_s=target_s,
            target_met=within(measured.p50_s, target_s),
            conditions={
                "machine": self._hello["fingerprint"],
                "fixed": self._hello["settings"],
                "before": self._hello["state"],
                "after": self._end_state,
                "graphs": journal.graphs,
                "resumed": journal.resumed,
            },
            energy_j=self._energy_j,
            memory_bytes=self._memory_bytes,
        )
        checked = checked_there(self._targets, found)
        return replace(found, target_met=all_met(checked)) if checked else found

    def _back_to_back(self, journal: Journal) -> MeasuredLatency:
        batch = 1 if self._artifact is None else self._artifact.batch
        return measured_latency(
            journal.visits[MODEL],
            device=self._request.device,
            runtime_version=str(self._hello["runtime_version"]),
            running=Running(self._runtime, self._contract.dtype, self._contract.threads, batch),
        )


def _paced(calls: Paced | None) -> PacedLatency | None:
    return None if calls is None else paced_latency(calls)


def _only_there(check: TargetCheck) -> bool:
    """Whether a target is on what a process on the board alone can measure."""
    return check.metric in ("energy_j", "memory_bytes") or check.at == "period"


def checked_there(targets: Sequence[TargetCheck], found: Deployment) -> tuple[TargetCheck, ...]:
    """The targets of a run with what was measured on a device.

    Args:
        targets: as the summary has them; none of runs of versions that did not record them.
        found: on the device.
    """
    figures = [(check, found.figure(check.metric, check.statistic, check.at)) for check in targets]
    return tuple(
        check
        if figure is None
        else replace(check, measured=figure, met=within(figure, check.target), probability=None, residuals=0)
        for check, figure in figures
    )


def _timed_there(latency: LatencyRecord, found: Deployment) -> bool:
    """Whether what was timed beside the agent before was timed on the device; machines are compared where both are recorded."""
    machines = [
        each for each in (latency.conditions.get("machine"), found.conditions.get("machine")) if isinstance(each, Mapping)
    ]
    same = len({tuple(each.get(name) for name in HOST) for each in machines}) < 2
    return same and latency.measured is not None and latency.measured.device == found.name


def _without_times(summary: Summary) -> Summary:
    """The summary without the times of reference agents and of the policy: they are of another machine than the agent's now."""
    references = (replace(each, latency_measured_s=None, measured_ratio=None) for each in summary.reference_agents)
    policy = summary.policy
    if policy is not None:
        policy = replace(policy, latency_measured_s=None, latency_ratio=None, latency_ratio_range=None)
    return replace(summary, reference_agents=tuple(references), policy=policy)


def _keep(run: RunDir, found: Deployment) -> None:
    """Write what was measured into ``deployments.json``, ``agent.json``, ``summary.json`` and the report, in this order."""
    before = run.read(Deployments).deployments if (run.path / Deployments.FILE).is_file() else ()
    run.write(Deployments(deployments=(*(each for each in before if each.name != found.name), found)))
    agent = run.read(AgentRecord)
    run.write(
        replace(agent, latency=replace(agent.latency, measured=found.measured, paced=found.paced, conditions=found.conditions))
    )
    where = found.name if found.provenance == "measured" else f"{found.name}, {found.provenance}"
    summary = run.read(Summary)
    if not _timed_there(agent.latency, found):
        summary = _without_times(summary)
    summary = replace(summary, latency_measured_s=found.measured.p50_s, latency_measured_on=where)
    if found.name != HERE or run.read(RunRecord).device.name == "this":
        checks = checked_there(summary.targets, found)
        summary = replace(summary, target_met=found.target_met, target_checked_by=f"measurement on {where}", targets=checks)
    elif summary.targets:  # this machine is not the run's device: its times decide nothing
        checks = tuple(map(as_predicted, summary.targets))
        met = all_met(checks)
        source = "nothing" if met is None else predicted_by(summary.table_provenance)
        summary = replace(summary, target_met=met, target_checked_by=source, targets=checks)
    run.write(summary)
    write_report(run.path)
