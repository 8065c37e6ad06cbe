"""How long an exported agent takes: back to back, and at a control period, on this machine or on a board.

The measuring core runs in a process of its own, pinned and with explicit threads, as for the tables: neither torch's threads
nor the training's memory disturb it, and its figures are comparable with the table's. Several agents are visited in turns, in a
new order each round, so that a slow moment of the machine meets all of them; their ratios are taken within a round.
Percentiles of different rounds are not added up: a figure is the median over rounds, beside the worst round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from latency_tables.board.timing import VisitPlan
from latency_tables.errors import MeasurementError, RequestError
from latency_tables.measuring.remote import Connection, Target

PERIOD_S = 0.02
ROUNDS = 5
STATISTIC = "median over rounds; p50_s over the samples that were not preempted, the others over all samples"
NICE = -10


def measure_agent(
    path: Path, *, threads: int, seconds: float, device: str = "this machine", target: Target | None = None
) -> dict[str, Any]:
    """Time one exported agent.

    Args:
        path: the ONNX file.
        threads: CPU threads of the runtime, explicit; idle ones do not spin.
        seconds: half of it back to back, half at the control period.
        device: name of the machine for the record.
        target: where; None for this machine.

    Returns:
        ``measured`` and ``paced`` as :func:`measure_side_by_side` describes them, and ``conditions``.

    Raises:
        RequestError: the file is missing, or threads or seconds are out of range.
        MeasurementError: the runtime refuses the file, or the measuring process was lost.
    """
    found = measure_side_by_side({"agent": path}, threads=threads, seconds=seconds, device=device, target=target)
    return {**found["agents"]["agent"], "conditions": found["conditions"]}


def measure_side_by_side(
    models: Mapping[str, Path | bytes],
    *,
    threads: int,
    seconds: float,
    device: str = "this machine",
    target: Target | None = None,
) -> dict[str, Any]:
    """Time several models in turns, so that they see the same moments of a noisy machine.

    Args:
        models: ONNX files, or serialized models, by name; the first one is what the others are compared with.
        threads: CPU threads of the runtime.
        seconds: for each model; half of it back to back, half at the control period.
        device: name of the machine for the record.
        target: where; None for this machine.

    Returns:
        ``agents``: by name ``measured`` (``p50_s``, ``p90_s``, ``p99_s``, ``min_s``, ``worst_p99_s``, ``samples``,
        ``clean_share`` or None with several threads, ``rounds``, ``device``, ``runtime``, ``runtime_version``, ``threads``,
        ``statistic``), and ``paced`` (``period_s``, ``p50_s``, ``p90_s``, ``p99_s``, ``max_s``, ``samples``, ``missed``).
        ``ratios``: for each further model how many times longer it takes than the first: ``p50`` (median of the rounds' ratios),
        ``low``, ``high`` (smallest and largest), ``paced_p50``.
        ``conditions``: the machine, its state, and what could be fixed.

    Raises:
        RequestError: a file is missing, there is no model, or threads or seconds are out of range.
        MeasurementError: the runtime refuses a file, or the measuring process was lost.
    """
    if not models or threads < 1 or not 0 < seconds <= 3600:
        raise RequestError(
            f"measuring needs at least one model, at least 1 thread and 0 to 3600 seconds, "
            f"got {len(models)}, {threads}, {seconds}"
        )
    contents = {name: _content(name, model) for name, model in models.items()}
    core = Connection(target or Target(), answer_timeout_s=120 + 2 * seconds)
    try:
        hello = core.one("hello", threads=threads, runtime="onnxruntime", nice=NICE, pin=True)
        graphs = {name: _load(core, name, content) for name, content in contents.items()}
        rounds = _back_to_back(core, list(models), seconds / 2)
        paced = {name: core.one("paced", ids=[name], period_s=PERIOD_S, seconds=seconds / 2)["paced"] for name in models}
        state = core.one("state")["state"]
    finally:
        core.close()
    identity = {
        "device": device,
        "runtime": "onnxruntime",
        "runtime_version": hello["runtime_version"],
        "threads": threads,
        "statistic": STATISTIC,
    }
    agents = {
        name: {"measured": {**_summary([seen[name] for seen in rounds]), **identity}, "paced": paced[name]} for name in models
    }
    return {
        "agents": agents,
        "ratios": _ratios(rounds, paced),
        "conditions": {
            "machine": hello["fingerprint"],
            "fixed": hello["settings"],
            "before": hello["state"],
            "after": state,
            "graphs": graphs,
        },
    }


def _content(name: str, model: Path | bytes) -> bytes:
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise RequestError(f"the agent {name} cannot be read: {model}: {error.strerror or error}") from error


def _load(core: Connection, name: str, content: bytes) -> dict[str, int]:
    answer = core.one("load", content, id=name)
    if "error" in answer:
        raise MeasurementError(f"the agent {name} cannot be measured: {answer['error']}")
    return answer["graph"]


def _back_to_back(core: Connection, names: list[str], seconds: float) -> list[dict[str, dict[str, Any]]]:
    plan = replace(VisitPlan(), seconds=seconds / ROUNDS, warmup_s=min(0.05, seconds / ROUNDS)).to_dict()
    rng = np.random.default_rng(0)
    rounds = []
    for _ in range(ROUNDS):
        order = [names[i] for i in rng.permutation(len(names))]
        rounds.append({answer["id"]: answer["visit"] for answer in core.ask("visit", ids=order, plan=plan)})
    return rounds


def _summary(visits: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [visit["clean_share"] for visit in visits]
    return {
        "p50_s": median(visit["median_s"] for visit in visits),
        "p90_s": median(visit["p90_s"] for visit in visits),
        "p99_s": median(visit["p99_s"] for visit in visits),
        "min_s": min(visit["min_s"] for visit in visits),
        "worst_p99_s": max(visit["p99_s"] for visit in visits),
        "samples": sum(visit["samples"] for visit in visits),
        "clean_share": None if None in shares else sum(shares) / len(shares),
        "rounds": len(visits),
    }


def _ratios(rounds: list[dict[str, dict[str, Any]]], paced: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    first, *others = paced
    found = {}
    for name in others:
        each = [seen[name]["median_s"] / seen[first]["median_s"] for seen in rounds]
        found[name] = {
            "p50": median(each),
            "low": min(each),
            "high": max(each),
            "paced_p50": paced[name]["p50_s"] / paced[first]["p50_s"],
        }
    return found
