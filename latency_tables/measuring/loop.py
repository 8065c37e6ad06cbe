"""Measures a work list: visits models in random order, round after round, until rows have converged or time is up.

Each round visits every model whose row has not converged, in a new order; the first rounds visit everything. A sentinel, one
whole network, is timed just before and after each visit and tells how fast the machine was meanwhile; a work list without
networks has none. Every visit is in the journal before the next batch starts; a lost core is started again, and an
interrupted run goes on from there.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from latency_tables.board.core import MAX_MODEL_BYTES
from latency_tables.board.timing import Visit
from latency_tables.errors import MeasurementError, RequestError
from latency_tables.measuring.identity import place_of
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.plan import EMPTY, MeasurePlan, RowPlan
from latency_tables.measuring.remote import Answer, Connection, Core, Location, LostBoard
from latency_tables.measuring.rpc import TrackerConnection
from latency_tables.measuring.settings import Settings
from latency_tables.measuring.statistics import difference, paired_visits
from latency_tables.measuring.visits import Hello, MeasuredVisits
from latency_tables.onnx_models.builder import TooLargeError
from latency_tables.runtimes import FIRST_OF_OPSET

BATCH = 16
NETWORK_TOLERANCE = 0.5
MAX_LOST = 5
Result = TypeVar("Result")


class Measurer:
    """One measurement of one plan in one place.

    Args:
        plan: the models.
        location: where.
        settings: how.
        journal: where visits are kept.
        runtime: what runs the models there.
        progress: called with (visits made, visits of the plan at least, model id) after each visit.
    """

    def __init__(
        self,
        plan: MeasurePlan,
        location: Location,
        settings: Settings,
        journal: Journal,
        *,
        runtime: str = "onnxruntime",
        progress: Callable[[int, int, str], None] = lambda done, total, text: None,
    ) -> None:
        self.plan, self.location, self.settings, self.journal, self._progress = plan, location, settings, journal, progress
        self.runtime = runtime
        self.hello = Hello()
        self._end_state: object = None
        self._connection: Core | None = None
        self._loaded: set[str] = set()
        self._paired: dict[str, list[Visit]] = {}
        self._lost, self._reached = 0, False
        self._started = time.monotonic()

    def run(self) -> None:
        """Visit until every row has converged or the budget is spent.

        Raises:
            MeasurementError: the core cannot be started, cannot run the models, or is lost again and again.
            TableError: it is another machine or runtime than the measurement began with.
            RequestError: the runtime there has no such execution provider.
        """
        try:
            self.journal.try_failures_again()
            self._with_core(self._try_empty_model)  # also where no visit is left: the header tells the machine
            rng = np.random.default_rng([self.settings.seed, sum(len(v) for v in self.journal.visits.values())])
            while True:
                names = self._due()
                if not names:
                    return
                order = list(names)
                rng.shuffle(order)
                for start in range(0, len(order), BATCH):
                    for name, seen in self._visit_all(order[start : start + BATCH]).items():
                        self.journal.add({"id": name, "visit": seen.to_dict()})
                self._end_state = self._with_core(lambda core: core.one("state"))["state"]
        finally:
            self.close()

    def energies(self, names: Sequence[str], *, seconds: float) -> None:
        """Read the power while each model runs; none is asked twice.

        Args:
            names: model ids.
            seconds: how long each runs.

        Raises:
            MeasurementError: the core cannot be started, or is lost again and again.
        """
        self._further(
            "energy", self.journal.energies_j, names, lambda core, name: core.one("energy", ids=[name], seconds=seconds)
        )

    def paced(self, names: Sequence[str], *, period_s: float, seconds: float) -> None:
        """Call each model at a control period; none is asked twice.

        Args:
            names: model ids.
            period_s: control period in seconds.
            seconds: how long each is called.

        Raises:
            MeasurementError: the core cannot be started, or is lost again and again.
        """
        self._further(
            "paced",
            self.journal.paced,
            names,
            lambda core, name: core.one("paced", ids=[name], period_s=period_s, seconds=seconds),
        )

    def measured(self) -> MeasuredVisits:
        """The record of everything that was measured so far."""
        journal = self.journal
        start = {"state": None, "fixed": self.hello.fixed, **journal.start}  # the last core began in the midst or at the end
        return MeasuredVisits(
            visits={name: tuple(visits) for name, visits in journal.visits.items()},
            failed=dict(journal.failed),
            graphs=dict(journal.graphs),
            energies_j={name: energy_j for name, energy_j in journal.energies_j.items() if energy_j is not None},
            paced=dict(journal.paced),
            hello=replace(self.hello, state=start["state"], fixed=start["fixed"]),
            end_state=self._end_state,
            elapsed_s=self.elapsed_s,
            resumed=journal.resumed,
        )

    def close(self) -> None:
        """End the core; the next request starts a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._loaded = None, set()

    @property
    def elapsed_s(self) -> float:
        """Wall time since this measurement was begun or resumed."""
        return time.monotonic() - self._started

    def _further(
        self, kind: str, done: Mapping[str, object], names: Sequence[str], question: Callable[[Core, str], Answer]
    ) -> None:
        """Ask about each model that is not ``done``; each answer goes to the journal at once."""

        def ask(core: Core) -> None:
            for name in names:
                if name in done:
                    continue
                self._load(core, name)
                if name not in self.journal.failed:
                    self.journal.add({"kind": kind, **question(core, name)})
                core.one("drop", ids=[name])
                self._loaded.discard(name)

        try:
            self._with_core(ask)
        finally:
            self.close()

    def _rounds(self, name: str) -> int:
        return len(self.journal.visits.get(name, ()))

    def _due(self) -> list[str]:
        names = [name for name in self.plan.builders if name not in self.journal.failed]
        basic = [name for name in names if self._rounds(name) < self.settings.least_visits(name)]
        if basic:  # whole networks are visited more often than blocks, over the same time and not after them
            done = {name: self._rounds(name) / self.settings.least_visits(name) for name in basic}
            return [name for name in basic if done[name] == min(done.values())]
        over = self.elapsed_s > self.settings.budget_s
        self._paired = paired_visits(self.journal.visits)
        open_models = set()
        for row in self.plan.rows:
            if self._is_lost(row) if over else not self._has_converged(row):
                open_models |= {row.more, row.less}
        for name, ops in self.plan.networks if not over else ():
            if name not in self.journal.failed and not self._has_converged(
                RowPlan(ops[0], "network", name, "", 1), NETWORK_TOLERANCE
            ):
                open_models.add(name)
        return [name for name in names if name in open_models and self._rounds(name) < self.settings.max_rounds]

    def _has_converged(self, row: RowPlan, share: float = 1.0) -> bool:
        visits = self._paired or paired_visits(self.journal.visits)
        if row.more in self.journal.failed or row.less in self.journal.failed:
            return True
        value, low, high = difference(visits[row.more], visits[row.less] if row.less else None, row.divisor)
        return value > 0 and (high - low) / 2 <= share * self.settings.tolerance * value

    def _is_lost(self, row: RowPlan) -> bool:
        """Whether noise hides it so far: its difference is not above 0, so that the table would lack it."""
        return not self._has_converged(row, share=math.inf)

    def _sentinel(self) -> str:
        """A whole network; empty where there is none: an empty call tells nothing of how fast models run meanwhile."""
        networks = [name for name, _ in self.plan.calibration or self.plan.networks if name not in self.journal.failed]
        return networks[len(networks) // 2] if networks else ""

    def _visit_all(self, names: list[str]) -> dict[str, Visit]:
        seen: dict[str, Visit] = {}

        def visit(core: Core) -> None:
            for name in (self._sentinel(), *names):
                if name and name not in seen:
                    self._load(core, name)
            wanted = [n for n in names if n not in seen and n not in self.journal.failed]
            for answer in core.ask("visit", ids=wanted, sentinel=self._sentinel(), plan=self.settings.visit.to_dict()):
                name = str(answer["id"])
                seen[name] = Visit.from_dict(answer["visit"])
                done = sum(map(len, self.journal.visits.values())) + len(seen)
                self._progress(done, self._planned(), name)

        self._with_core(visit)
        return seen

    def _planned(self) -> int:
        return sum(self.settings.least_visits(name) for name in self.plan.builders)

    def _load(self, core: Core, name: str) -> None:
        if name in self._loaded or name in self.journal.failed:
            return
        try:
            model, reason = self.plan.builders[name](), ""
        except TooLargeError as error:
            model, reason = b"", str(error)
        if len(model) > MAX_MODEL_BYTES:
            reason = f"a model of {len(model)} bytes: the measuring core takes at most {MAX_MODEL_BYTES}"
        answer = {"error": reason} if reason else core.one("load", model, id=name)
        if "error" in answer:
            self.journal.add({"id": name, "failed": answer["error"]})
        else:
            self._loaded.add(name)
            if name not in self.journal.graphs:
                self.journal.add({"id": name, "graph": answer["graph"]})

    def _try_empty_model(self, core: Core) -> None:
        """Load the smallest model: where that fails no other one would run, and no time would help."""
        answer = core.one("load", self.plan.builders[EMPTY](), id=EMPTY)
        if "error" in answer:
            version = f"{self.runtime} {self.hello.runtime_version or ''}".strip()
            reason = str(answer["error"])
            raise MeasurementError(f"{version} on {self._where()} cannot run the models: {reason}{_newer_runtime(reason)}")
        core.one("drop", ids=[EMPTY])

    def _check_provider(self, there: object) -> None:
        if isinstance(there, list) and there and self.settings.provider not in there:
            raise RequestError(
                f"{self.runtime} {self.hello.runtime_version} on {self._where()} has no {self.settings.provider}: "
                f"give one that it has with --provider: {', '.join(map(str, there))}"
            )

    def _where(self) -> str:
        return self.location.host or self.location.tracker or "this machine"

    def _with_core(self, request: Callable[[Core], Result]) -> Result:
        while True:
            try:
                return request(self._core())
            except LostBoard as error:
                self.close()
                if not self._reached:  # it has never answered: trying again would only take time
                    raise MeasurementError(str(error)) from error
                self._lost += 1
                if self._lost > MAX_LOST:
                    raise MeasurementError(
                        f"the measuring core was lost {self._lost} times; what was measured is in "
                        f"{self.journal.path}, the same command goes on from there. Last: {error}"
                    ) from error
                time.sleep(min(2**self._lost, 20) * 0.5)

    def _core(self) -> Core:
        if self._connection is None:
            self._connection = TrackerConnection(self.location) if self.location.tracker else Connection(self.location)
            answer = self._connection.one(
                "hello",
                nice=self.settings.nice,
                pin=self.settings.pin,
                threads=self.settings.threads,
                runtime=self.runtime,
                provider=self.settings.provider,
                nchw=self.settings.nchw,
            )
            self.hello, self._reached = Hello.from_answer(answer), True
            self._check_provider(answer.get("providers"))
            self.journal.began_with(self.hello.state, self.hello.fixed)
            self.journal.measured_at(place_of(self.hello))
        return self._connection


def _newer_runtime(reason: str) -> str:
    """What to install where the runtime is older than the models; empty for any other reason."""
    known, asked = re.search(r"till opset (\d+)", reason), re.search(r"Opset (\d+) is under", reason)
    if known is None or asked is None:
        return ""
    return (
        f". It loads operators up to opset {known[1]}, the models are of opset {asked[1]}: install a newer onnxruntime there "
        f"({FIRST_OF_OPSET.get(int(asked[1]), 'the newest')} or later)"
    )
