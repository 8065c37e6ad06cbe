"""A small fleet of real processes, and the shared parts' costs as they are measured here: what the simulation is checked with.

The engine, the processes and their loss, the messages, the durable checkpoints and the results are those of every fleet. The
training itself is a sleep: a machine of few cores would otherwise measure how its trainings wait for each other's core, which
is no property of a fleet of machines.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from cosearch.benchmarks.workers.fleet_measures import timed_store
from cosearch.benchmarks.workers.fleet_model import Costs
from cosearch.fleet.processes import Processes
from cosearch.fleet.work import TRIES, Send
from cosearch.fleet.workers import Workers
from cosearch.record.durable import write_bytes_atomic

MESSAGES, JOBS, RESULT_BYTES = 2000, 200, 20_000_000


class SleepJob(TypedDict):
    """One run that sleeps.

    Attributes:
        place: its checkpoint; the file beside it counts its deaths.
        seed: of its deaths.
        run_s, interval_s: see ``fleet_model``.
        checkpoint_bytes, folder_bytes, lines: likewise.
        failures_an_hour: of its worker.
    """

    place: str
    seed: int
    run_s: float
    interval_s: float
    checkpoint_bytes: int
    folder_bytes: int
    lines: int
    failures_an_hour: float


def sleep_run(job: SleepJob, send: Send) -> bytes:
    """Do one run in a worker process, from its checkpoint; it may end the process.

    Args:
        job: see the class.
        send: gets its lines, and ``("lost", seconds)`` before a death.
    """
    place = Path(job["place"])
    deaths = place.with_suffix(".deaths")
    attempt = int(deaths.read_text()) if deaths.exists() else 0
    done_s = float(place.read_bytes()[:20]) if place.exists() else 0.0
    random = np.random.default_rng([job["seed"], attempt])
    while job["run_s"] - done_s > 1e-6:
        span_s = min(job["interval_s"], job["run_s"] - done_s)
        failure_s = float(random.exponential(3600.0 / job["failures_an_hour"])) if job["failures_an_hour"] else float("inf")
        if failure_s < span_s and attempt < TRIES - 1:
            time.sleep(failure_s)
            deaths.write_text(str(attempt + 1))
            send(("lost", failure_s))
            os._exit(1)
        time.sleep(span_s)
        for _ in range(round(job["lines"] * span_s / job["run_s"])):
            send(("line", span_s))
        done_s += span_s
        write_bytes_atomic(place, f"{done_s:020.12f}".encode() + bytes(job["checkpoint_bytes"]))
    return bytes(job["folder_bytes"])


def talk(count: int, send: Send) -> bytes:
    """Send so many lines; a negative number: give back so many bytes."""
    for _ in range(count):
        send({"stage": "search", "step": 1, "score_train": 0.5, "wall_s": 1.0})
    return bytes(max(0, -count))


def timed(work: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measured_costs(folder: Path) -> Costs:
    """The costs of the shared parts with processes of this machine.

    Args:
        folder: in which a checkpoint would be written.
    """

    def do(workers: Workers, jobs: list[int]) -> Callable[[], None]:
        return lambda: workers.run(jobs, name=str, sent=lambda index, line: None, done=lambda index, result: None)

    with Workers(talk, Processes(1)) as workers:
        restart_s = timed(do(workers, [0]))
        job_s = timed(do(workers, [0] * JOBS)) / JOBS
        message_s = timed(do(workers, [MESSAGES])) / MESSAGES
        bytes_s = RESULT_BYTES / timed(do(workers, [-RESULT_BYTES]))
    save_s, store_bytes_s = timed_store(folder)
    return Costs(job_s / 2, message_s, save_s, store_bytes_s, bytes_s, restart_s)


@dataclass(frozen=True)
class RealFleet:
    """What a small fleet of processes did.

    Attributes:
        efficiency, lost: see ``fleet_model.Outcome``.
        makespan_s: seconds.
        deaths: of its processes.
    """

    efficiency: float
    lost: float
    makespan_s: float
    deaths: int


def real_fleet(workers: int, jobs: list[SleepJob]) -> RealFleet:
    """Do runs that sleep on so many processes, which are there before the clock starts.

    Args:
        workers: processes.
        jobs: with the place of their checkpoints left empty.
    """
    lost: list[float] = []

    def sent(index: int, message: tuple[str, float]) -> None:
        if message[0] == "lost":
            lost.append(message[1])

    with tempfile.TemporaryDirectory() as folder, Workers(sleep_run, Processes(workers)) as fleet:
        placed: list[SleepJob] = [{**job, "place": f"{folder}/{index}.checkpoint"} for index, job in enumerate(jobs)]
        warm: list[SleepJob] = [{**jobs[0], "place": f"{folder}/warm-{index}", "run_s": 1.0} for index in range(workers)]
        calm: list[SleepJob] = [{**job, "failures_an_hour": 0.0} for job in warm]
        fleet.run(calm, name=lambda index: f"warm {index}", sent=sent, done=lambda index, result: None)
        makespan_s = timed(lambda: fleet.run(placed, name=str, sent=sent, done=lambda index, result: None))
    kept = sum(job["run_s"] for job in jobs)
    return RealFleet(kept / (workers * makespan_s), sum(lost) / kept, makespan_s, len(lost))
