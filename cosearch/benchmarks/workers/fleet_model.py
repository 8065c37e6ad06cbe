"""A fleet as a discrete-event simulation: workers that train, write checkpoints and fail; a driver, a store and an object store.

SimPy's processes are the workers. Each asks the driver for a run, trains it in spans between two checkpoints, waits while the
store writes each checkpoint, and hands the finished run back through the object store. A worker fails as a Poisson process while
it trains: the span is lost, and after a restart it goes on from its last checkpoint. Driver, store and object store serve one
request after the other per server, in the order of arrival; what runs tell the driver on the way loads it and is not waited for.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import simpy

Events = Generator[simpy.Event, object, None]


@dataclass(frozen=True)
class Costs:
    """What the shared parts take, in seconds a request.

    Attributes:
        job_s: of the driver, to begin a run and again to take its result.
        message_s: of the driver, for each line that a run tells it.
        save_s: of the store, for a checkpoint of no size.
        store_bytes_s: bytes a second beyond that.
        object_bytes_s: bytes a second in which finished runs are handed back.
        restart_s: from the loss of a worker to the next one in its place.
    """

    job_s: float
    message_s: float
    save_s: float
    store_bytes_s: float
    object_bytes_s: float
    restart_s: float


@dataclass(frozen=True)
class Fleet:
    """How many of everything.

    Attributes:
        workers: that train.
        interval_s: of training between two checkpoints of a run.
        failures_an_hour: of one worker, while it trains.
        stores: servers that write checkpoints; as many as workers where each writes to a disk of its own.
        drivers: machines that begin runs and take their results, each for its share of the workers.
    """

    workers: int
    interval_s: float
    failures_an_hour: float
    stores: int = 1
    drivers: int = 1


@dataclass(frozen=True)
class Work:
    """The runs, as draws with replacement.

    Attributes:
        run_s: seconds of training of a run.
        checkpoint_bytes, folder_bytes: sizes.
        lines: that a run of mean length tells the driver; others in proportion.
    """

    run_s: Sequence[float]
    checkpoint_bytes: Sequence[float]
    folder_bytes: Sequence[float]
    lines: float


@dataclass(frozen=True)
class Outcome:
    """What a simulation gave.

    Attributes:
        efficiency: seconds of training that were kept, as a share of all workers' time, 0..1.
        lost: seconds of training that were done again, as a share of those that were kept.
        busy: share of its time in which each shared part is busy: driver, store, objects; near 1 it is the limit.
        limits: workers beyond which that part is always busy, by the bottleneck law (Denning and Buzen, ACM Computing Surveys
            10(3), 1978): a cycle of one worker alone over the part's share of it.
        makespan_s: until the last run was handed back, or the end that was given.
    """

    efficiency: float
    lost: float
    busy: dict[str, float]
    limits: dict[str, float]
    makespan_s: float


class Station:
    """Servers with one queue; a request is served whole, in the order of arrival.

    Args:
        env: the simulation.
        servers: that work side by side.
    """

    def __init__(self, env: simpy.Environment, servers: int = 1) -> None:
        self.env, self.servers = env, servers
        self._free_at = [0.0] * servers
        self.busy_s = 0.0
        self.waited_s = 0.0
        self.served = 0

    def serve(self, service_s: float) -> float:
        """Take a request now; returns the seconds until it is served."""
        now = self.env.now
        begin = max(now, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, begin + service_s)
        self.busy_s += service_s
        self.waited_s += begin - now
        self.served += 1
        return begin - now + service_s


class FleetSimulation:
    """One simulation.

    Args:
        fleet, work, costs: see their classes.
        seed: of all draws.
        runs: to be done in all, of the given seconds in turn; None: runs are drawn, and the workers go on for ever, from the
            middle of a run each.
    """

    def __init__(self, fleet: Fleet, work: Work, costs: Costs, seed: int = 0, runs: int | None = None) -> None:
        self.fleet, self.work, self.costs, self.runs = fleet, work, costs, runs
        self.env = simpy.Environment()
        self.driver = Station(self.env, fleet.drivers)
        self.store = Station(self.env, fleet.stores)
        self.objects = Station(self.env, fleet.drivers)
        self.line_rate = work.lines / float(np.mean(work.run_s))
        self.random = np.random.default_rng(seed)
        self.begun = 0
        self.kept_s = self.lost_s = 0.0
        self.last_end_s = 0.0

    def run(self, until_s: float | None = None, warm_up_s: float = 0.0) -> Outcome:
        """Simulate to the end of the runs, or for a time.

        Args:
            until_s: seconds, where there is no number of runs.
            warm_up_s: seconds at the begin that do not count.
        """
        for _ in range(self.fleet.workers):
            self.env.process(self._worker())
        before = (0.0, 0.0, [0.0, 0.0, 0.0])
        stations = (self.driver, self.store, self.objects)
        if warm_up_s:
            self.env.run(warm_up_s)
            before = (self.kept_s, self.lost_s, [station.busy_s for station in stations])
        self.env.run(until_s)
        end = self.last_end_s if until_s is None else until_s
        kept, lost, span = self.kept_s - before[0], self.lost_s - before[1], end - warm_up_s
        names = ("driver", "store", "objects")
        busy = {
            name: min(1.0, (station.busy_s - earlier) / station.servers / span)
            for name, station, earlier in zip(names, stations, before[2])
        }
        return Outcome(kept / (self.fleet.workers * span), lost / kept if kept else 0.0, busy, self.limits(), end)

    def limits(self) -> dict[str, float]:
        """See :class:`Outcome`."""
        fleet, work, costs = self.fleet, self.work, self.costs
        run_s = float(np.mean(work.run_s))
        saves = float(np.mean(np.ceil(np.asarray(work.run_s) / fleet.interval_s)))
        store = saves * (costs.save_s + float(np.mean(work.checkpoint_bytes)) / costs.store_bytes_s)
        demands = {
            "driver": (2 * costs.job_s + work.lines * costs.message_s, fleet.drivers),
            "store": (store, fleet.stores),
            "objects": (float(np.mean(work.folder_bytes)) / costs.object_bytes_s, fleet.drivers),
        }
        cycle = run_s + sum(demand for demand, _ in demands.values())
        return {name: servers * cycle / demand if demand else float("inf") for name, (demand, servers) in demands.items()}

    def _draw(self, values: Sequence[float]) -> float:
        return float(values[int(self.random.integers(len(values)))])

    def _worker(self) -> Events:
        at_middle = self.runs is None
        while self.runs is None or self.begun < self.runs:
            self.begun += 1
            yield self.env.timeout(self.driver.serve(self.costs.job_s))
            left_s = self._rest_of_a_run() if at_middle else self._next_run()
            yield from self._train(left_s, left_s % self.fleet.interval_s if at_middle else self.fleet.interval_s)
            at_middle = False
            yield self.env.timeout(self.objects.serve(self._draw(self.work.folder_bytes) / self.costs.object_bytes_s))
            yield self.env.timeout(self.driver.serve(self.costs.job_s))
            self.last_end_s = self.env.now

    def _next_run(self) -> float:
        """Seconds of the next run: drawn, or the next of those that are to be done."""
        return self._draw(self.work.run_s) if self.runs is None else self.work.run_s[(self.begun - 1) % len(self.work.run_s)]

    def _rest_of_a_run(self) -> float:
        """Seconds that are left of a run in whose middle a worker is found: long ones are met in proportion to their length."""
        lengths = np.asarray(self.work.run_s)
        return float(self.random.choice(lengths, p=lengths / lengths.sum()) * self.random.random())

    def _train(self, left_s: float, first_s: float) -> Events:
        rate_s = self.fleet.failures_an_hour / 3600.0
        while left_s > 0.0:
            span_s = min(first_s, left_s)
            failure_s = float(self.random.exponential(1.0 / rate_s)) if rate_s else float("inf")
            if failure_s < span_s:
                yield self.env.timeout(failure_s)
                self.lost_s += failure_s
                yield self.env.timeout(self.costs.restart_s)
                yield self.env.timeout(self.driver.serve(self.costs.job_s))
                continue
            yield self.env.timeout(span_s)
            self.driver.serve(self.line_rate * span_s * self.costs.message_s)
            size = self._draw(self.work.checkpoint_bytes)
            yield self.env.timeout(self.store.serve(self.costs.save_s + size / self.costs.store_bytes_s))
            self.kept_s += span_s
            left_s, first_s = left_s - span_s, self.fleet.interval_s
