"""Measures a work list: visits models in random order, round after round, until rows are sure or time is up.

Each round visits every model that is still unsure, in a new order; the first rounds visit everything. A sentinel, one
whole network, is timed just before and after each visit and tells how fast the machine was meanwhile. Every visit is in
the journal before the next batch starts; a lost core is started again, and an interrupted run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latency_tables.board.timing import Visit, VisitPlan
from latency_tables.errors import MeasurementError
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.plan import EMPTY, MeasurePlan, RowPlan
from latency_tables.measuring.remote import Connection, LostBoard, Target
from latency_tables.measuring.rpc import TrackerConnection
from latency_tables.measuring.statistics import difference, paired_visits

BATCH = 16
NETWORK_TOLERANCE = 0.5
MAX_LOST = 5


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads, provider, nchw: see ``OnnxRunner``.
        visit: how long one visit is.
        min_rounds, max_rounds: visits of every model, at least and at most.
        network_factor: whole networks get so many times the visits, as calibration and certificate stand on them.
        tolerance: half-width of a row's interval, relative, at which it is sure; half of it for whole networks.
        budget_s: wall time after which no new round starts (the first ``min_rounds`` are always made).
        seed: order of visits and weights of models.
        nice: priority that the core asks for.
        pin: whether the core pins itself to the least busy processors.
    """

    threads: int = 1
    provider: str = "CPUExecutionProvider"
    nchw: bool = False
    visit: VisitPlan = field(default_factory=VisitPlan)
    min_rounds: int = 9
    max_rounds: int = 40
    network_factor: int = 2
    tolerance: float = 0.02
    budget_s: float = 240.0
    seed: int = 0
    nice: int = -10
    pin: bool = True

    def least_visits(self, name: str) -> int:
        """How often a model is visited at least: single operations seldom, whole networks often."""
        if name.startswith("single-"):
            return min(3, self.min_rounds)
        return self.min_rounds * (max(1, self.network_factor) if name.startswith("net-") else 1)


class Measurer:
    """One measurement of one plan on one target.

    Args:
        plan: the models.
        target: where.
        settings: how.
        journal: where visits are kept.
        runtime: what runs the models there.
        progress: called with (done visits, planned visits of the sure part, text) after each visit.
    """

    def __init__(
        self,
        plan: MeasurePlan,
        target: Target,
        settings: Settings,
        journal: Journal,
        *,
        runtime: str = "onnxruntime",
        progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    ) -> None:
        self.plan, self.target, self.settings, self.journal, self._progress = plan, target, settings, journal, progress
        self.runtime = runtime
        self.hello: dict[str, Any] = {}
        self.states: list[dict[str, Any]] = []
        self._connection: Connection | TrackerConnection | None = None
        self._loaded: set[str] = set()
        self._paired: dict[str, list[Visit]] = {}
        self._lost = 0
        self._started = time.monotonic()

    def run(self) -> None:
        """Visit until every row is sure or the budget is spent.

        Raises:
            MeasurementError: the core cannot be started, or is lost again and again.
        """
        try:
            rng = np.random.default_rng([self.settings.seed, sum(len(v) for v in self.journal.visits.values())])
            while True:
                names = self._due()
                if not names:
                    return
                order = list(names)
                rng.shuffle(order)
                for start in range(0, len(order), BATCH):
                    for name, seen in self._visit_all(order[start : start + BATCH]).items():
                        self.journal.add({"id": name, "visit": seen})
                self.states.append(self._with_core(lambda core: core.one("state"))["state"])
        finally:
            self.close()

    def extra(self, verb: str, names: Sequence[str], **values: Any) -> None:
        """Further requests on models (``paced``, ``energy``); each answer goes to the journal at once, none is asked twice.

        Args:
            verb: of the measuring core.
            names: model ids.
            **values: further fields of the request.

        Raises:
            MeasurementError: the core cannot be started, or is lost again and again.
        """

        def ask(core: Connection) -> None:
            for name in names:
                if name in {e["id"] for e in self.journal.extra if e.get("kind") == verb}:
                    continue
                self._load(core, name)
                if name not in self.journal.failed:
                    self.journal.add({"kind": verb, **core.one(verb, ids=[name], **values)})
                core.one("drop", ids=[name])
                self._loaded.discard(name)

        try:
            self._with_core(ask)
        finally:
            self.close()

    def close(self) -> None:
        """End the core; the next request starts a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._loaded = None, set()

    @property
    def elapsed_s(self) -> float:
        """Wall time since this measurement was begun or resumed."""
        return time.monotonic() - self._started

    def _rounds(self, name: str) -> int:
        return len(self.journal.visits.get(name, ()))

    def _due(self) -> list[str]:
        names = [name for name in self.plan.builders if name not in self.journal.failed]
        basic = [name for name in names if self._rounds(name) < self.settings.least_visits(name)]
        if basic:  # whole networks are visited more often than blocks, over the same time and not after them
            done = {name: self._rounds(name) / self.settings.least_visits(name) for name in basic}
            return [name for name in basic if done[name] == min(done.values())]
        if self.elapsed_s > self.settings.budget_s:
            return []
        self._paired = paired_visits(self.journal.visits)
        unsure = set()
        for row in self.plan.rows:
            if not self._is_sure(row):
                unsure |= {row.more, row.less}
        for name, ops in self.plan.networks:
            if name not in self.journal.failed and not self._is_sure(RowPlan(ops[0], "network", name, "", 1), NETWORK_TOLERANCE):
                unsure.add(name)
        return [name for name in names if name in unsure and self._rounds(name) < self.settings.max_rounds]

    def _is_sure(self, row: RowPlan, share: float = 1.0) -> bool:
        visits = self._paired or paired_visits(self.journal.visits)
        if row.more in self.journal.failed or row.less in self.journal.failed:
            return True
        value, low, high = difference(visits[row.more], visits[row.less] if row.less else None, row.divisor)
        return value > 0 and (high - low) / 2 <= share * self.settings.tolerance * value

    def _sentinel(self) -> str:
        networks = [name for name, _ in self.plan.calibration or self.plan.networks if name not in self.journal.failed]
        return networks[len(networks) // 2] if networks else EMPTY

    def _visit_all(self, names: list[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}

        def visit(core: Connection) -> None:
            for name in (self._sentinel(), *names):
                if name not in found:
                    self._load(core, name)
            wanted = [n for n in names if n not in found and n not in self.journal.failed]
            for answer in core.ask("visit", ids=wanted, sentinel=self._sentinel(), plan=self.settings.visit.to_dict()):
                found[answer["id"]] = answer["visit"]
                done = sum(map(len, self.journal.visits.values())) + len(found)
                self._progress(done, self._planned(), answer["id"])

        self._with_core(visit)
        return found

    def _planned(self) -> int:
        return sum(self.settings.least_visits(name) for name in self.plan.builders)

    def _load(self, core: Connection, name: str) -> None:
        if name in self._loaded or name in self.journal.failed:
            return
        answer = core.one("load", self.plan.builders[name](), id=name)
        if "error" in answer:
            self.journal.add({"id": name, "failed": answer["error"]})
        else:
            self._loaded.add(name)
            if name not in self.journal.graphs:
                self.journal.add({"id": name, "graph": answer["graph"]})

    def _with_core(self, request: Callable[[Connection], Any]) -> Any:
        while True:
            try:
                return request(self._core())
            except LostBoard as error:
                self.close()
                self._lost += 1
                if self._lost > MAX_LOST:
                    raise MeasurementError(
                        f"the measuring core was lost {self._lost} times; what was measured is in "
                        f"{self.journal.path}, the same command goes on from there. Last: {error}"
                    ) from error
                time.sleep(min(2**self._lost, 20) * 0.5)

    def _core(self) -> Connection | TrackerConnection:
        if self._connection is None:
            self._connection = TrackerConnection(self.target) if self.target.tracker else Connection(self.target)
            wishes = {
                "nice": self.settings.nice,
                "pin": self.settings.pin,
                "threads": self.settings.threads,
                "runtime": self.runtime,
                "provider": self.settings.provider,
                "nchw": self.settings.nchw,
            }
            self.hello = self._connection.one("hello", **wishes)
        return self._connection
