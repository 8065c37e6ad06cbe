"""How long an exported agent takes: back to back, and at a control period, on this machine or on a board.

The measuring core runs in a process of its own, pinned and with explicit threads, as for the tables: neither torch's threads
nor the training's memory disturb it, and its figures are comparable with the table's. Several agents are visited in turns, in a
new order each round, so that a slow moment of the machine meets all of them; their ratios are taken within a round.
Percentiles of different rounds are not added up: a figure is the median over rounds, beside the worst round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from cosearch.deploy.figures import Running, measured_latency, paced_latency
from cosearch.record.json_record import JsonObject
from cosearch.record.results.agent import MeasuredLatency, PacedLatency
from latency_tables.board.timing import Paced, Visit, VisitPlan
from latency_tables.errors import MeasurementError, RequestError
from latency_tables.measuring.remote import Connection, Location

PERIOD_S = 0.02
ROUNDS = 5
NICE = -10


@dataclass(frozen=True)
class AgentLatency:
    """Latency of one agent, back to back and at the control period."""

    measured: MeasuredLatency
    paced: PacedLatency


@dataclass(frozen=True)
class LatencyRatio:
    """How many times longer one agent takes than the first one.

    Attributes:
        p50: median of the rounds' ratios.
        low, high: smallest and largest of them.
        paced_p50: ratio of the medians at the control period.
    """

    p50: float
    low: float
    high: float
    paced_p50: float


@dataclass(frozen=True)
class SideBySide:
    """Several agents, timed in turns.

    Attributes:
        agents: by name.
        ratios: of each further agent, by name.
        conditions: the machine, its state, and what could be fixed.
    """

    agents: Mapping[str, AgentLatency]
    ratios: Mapping[str, LatencyRatio]
    conditions: JsonObject


@dataclass(frozen=True)
class Library:
    """A library of TVM and the one input that it takes, which the library itself does not say.

    Attributes:
        path: the file.
        shape: of the input, with the batch.
        element: its dtype: ``uint8`` or ``float32``.
    """

    path: Path
    shape: tuple[int, ...]
    element: str


Model = Path | bytes | Library


def measure_agent(
    path: Model,
    *,
    threads: int,
    seconds: float,
    device: str = "this machine",
    location: Location | None = None,
    runtime: str = "onnxruntime",
    dtype: str = "float32",
    batch: int = 1,
) -> SideBySide:
    """Time one exported agent.

    Args:
        path: the ONNX file, or a library.
        threads: CPU threads of the runtime, explicit; idle ones do not spin.
        seconds: half of it back to back, half at the control period.
        device: name of the machine for the record.
        location: where; None for this machine.
        runtime, dtype, batch: see :func:`measure_side_by_side`.

    Returns:
        What :func:`measure_side_by_side` returns, for an agent named ``agent``.

    Raises:
        RequestError: the file is missing, or threads or seconds are out of range.
        MeasurementError: the runtime refuses the file, or the measuring process was lost.
    """
    return measure_side_by_side(
        {"agent": path},
        threads=threads,
        seconds=seconds,
        device=device,
        location=location,
        runtime=runtime,
        dtype=dtype,
        batch=batch,
    )


def measure_side_by_side(
    models: Mapping[str, Model],
    *,
    threads: int,
    seconds: float,
    device: str = "this machine",
    location: Location | None = None,
    runtime: str = "onnxruntime",
    dtype: str = "float32",
    batch: int = 1,
) -> SideBySide:
    """Time several models in turns, so that they see the same moments of a noisy machine.

    Args:
        models: ONNX files, serialized models, or libraries, by name; the first one is what the others are compared with.
        threads: CPU threads of the runtime.
        seconds: for each model; half of it back to back, half at the control period.
        device: name of the machine for the record.
        location: where; None for this machine.
        runtime: ``onnxruntime`` or ``tvm``; the latter compiles what is no library.
        dtype: of the models, for the record: it is inside them.
        batch: observations in one call, where a model leaves that free.

    Raises:
        RequestError: a file is missing, there is no model, or threads, batch or seconds are out of range.
        MeasurementError: the runtime refuses a file, or the measuring process was lost.
    """
    running = Running(runtime, dtype, threads, batch)
    if not models or min(running.threads, running.batch) < 1 or not 0 < seconds <= 3600:
        raise RequestError(
            f"measuring needs at least one model, at least 1 thread, a batch of at least 1 and 0 to 3600 seconds, "
            f"got {len(models)}, {running.threads}, {running.batch}, {seconds}"
        )
    contents = {name: content_of(name, model) for name, model in models.items()}
    core = Connection(location or Location(), answer_timeout_s=120 + 2 * seconds)
    try:
        hello = core.one("hello", threads=running.threads, runtime=running.runtime, nice=NICE, pin=True)
        graphs = {name: load_model(core, name, models[name], content, running.batch) for name, content in contents.items()}
        rounds = _back_to_back(core, list(models), seconds / 2)
        paced = {name: _paced(core, name, seconds / 2) for name in models}
        state = core.one("state")["state"]
    finally:
        core.close()
    version = str(hello["runtime_version"])
    agents = {
        name: AgentLatency(
            measured_latency([seen[name] for seen in rounds], device=device, runtime_version=version, running=running),
            paced[name],
        )
        for name in models
    }
    conditions = {
        "machine": hello["fingerprint"],
        "fixed": hello["settings"],
        "before": hello["state"],
        "after": state,
        "graphs": graphs,
    }
    return SideBySide(agents, _ratios(rounds, agents), conditions)


def content_of(name: str, model: Model) -> bytes:
    """The bytes that a measuring core loads.

    Args:
        name: of the agent, for the message.
        model: what is timed.

    Raises:
        RequestError: its file cannot be read.
    """
    if isinstance(model, bytes):
        return model
    path = model.path if isinstance(model, Library) else Path(model)
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"the agent {name} cannot be read: {path}: {error.strerror or error}") from error


def load_model(core: Connection, name: str, model: Model, content: bytes, batch: int) -> object:
    """Load a model into a measuring core.

    Args:
        core: the connection, after its ``hello``.
        name: that the core knows it by.
        model: what is timed.
        content: see :func:`content_of`.
        batch: observations in one call, where the model leaves that free.

    Returns:
        Node types of the graph that the runtime made, and how often each occurs.

    Raises:
        MeasurementError: the runtime refuses it.
    """
    if isinstance(model, Library):
        answer = core.one("load", content, id=name, shape=list(model.shape), element=model.element)
    elif batch > 1:
        answer = core.one("load", content, id=name, batch=batch)
    else:
        answer = core.one("load", content, id=name)
    if "error" in answer:
        raise MeasurementError(f"the agent {name} cannot be measured: {answer['error']}")
    return answer["graph"]


def _paced(core: Connection, name: str, seconds: float) -> PacedLatency:
    return paced_latency(Paced.from_dict(core.one("paced", ids=[name], period_s=PERIOD_S, seconds=seconds)["paced"]))


def _back_to_back(core: Connection, names: list[str], seconds: float) -> list[dict[str, Visit]]:
    plan = replace(VisitPlan(), seconds=seconds / ROUNDS, warmup_s=min(0.05, seconds / ROUNDS)).to_dict()
    rng = np.random.default_rng(0)
    rounds = []
    for _ in range(ROUNDS):
        order = [names[i] for i in rng.permutation(len(names))]
        answers = core.ask("visit", ids=order, plan=plan)
        rounds.append({str(answer["id"]): Visit.from_dict(answer["visit"]) for answer in answers})
    return rounds


def _ratios(rounds: list[dict[str, Visit]], agents: Mapping[str, AgentLatency]) -> dict[str, LatencyRatio]:
    first, *others = agents
    found = {}
    for name in others:
        each = [seen[name].median_s / seen[first].median_s for seen in rounds]
        paced_p50 = agents[name].paced.p50_s / agents[first].paced.p50_s
        found[name] = LatencyRatio(median(each), min(each), max(each), paced_p50)
    return found
