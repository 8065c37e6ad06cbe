"""The benchmark in words and as JSON: what it holds, one architecture, one search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cosearch.bench import settings
from cosearch.bench.benchmark import Benchmark, tasks
from cosearch.bench.searches import Outcome, runnable
from cosearch.planning.builtins import load_builtins
from latency_tables.errors import RequestError


def describe(folder: Path) -> dict[str, object]:
    """What a folder of tables holds, as JSON.

    Raises:
        RequestError: it has no table.
    """
    load_builtins()
    found = [Benchmark(task, folder) for task in tasks(folder)]
    if not found:
        raise RequestError(
            f"{folder} has no table of the benchmark: `cosearch bench extend --out DIR`, `cosearch bench pack DIR --out TABLES`"
        )
    first = found[0]
    return {
        "architectures": first.space.size,
        "tasks": [one.table.task for one in found],
        "seeds": list(first.table.seeds),
        "devices": first.devices(),
        "points": {point.name: list(point.candidates) for point in first.space.points},
        "env_steps": first.env_steps,
        "curve_steps": list(first.table.steps),
        "episodes": first.table.episodes,
        "finished": {one.table.task: len(one.table.results) for one in found},
        "partial": {one.table.task: one.table.partial for one in found},
        "missing_tasks": [task for task in settings.TASKS if task not in tasks(folder)],
        "strategies": runnable(),
    }


def describe_text(said: dict[str, object]) -> str:
    """The same for people."""
    partial = said["partial"]
    assert isinstance(partial, dict), "of describe"
    lines = [f"{key}: {value if not isinstance(value, list) else ', '.join(map(str, value))}" for key, value in said.items()]
    return "\n".join([*(f"{task}: {text.upper()}" for task, text in partial.items() if text), *lines])


def lookup(benchmark: Benchmark, choices: Sequence[int], device: str | None) -> dict[str, object]:
    """What is known of one architecture, as JSON.

    Args:
        benchmark: the task.
        choices: one candidate index a point.
        device: also its latency there; None: not.

    Raises:
        ShapeError: no such architecture.
        RequestError: it is not finished.
    """
    architecture = benchmark.space.architecture(choices)
    scores = {str(seed): benchmark.query(architecture, seed) for seed in benchmark.table.seeds}
    return {
        "architecture": list(architecture.choice_names),
        "score": benchmark.query(architecture),
        "seed_scores": scores,
        "curve": [[step, value] for step, value in benchmark.curve(architecture)],
        "macs": sum(op.macs for op in architecture.ops()),
        "params": sum(op.params for op in architecture.ops()),
        **({} if device is None else {"device": device, "latency_s": benchmark.latency_s(architecture, device)}),
    }


def outcome_text(outcome: Outcome) -> str:
    """One search in a few lines."""
    lines = [
        f"{outcome.strategy} on {outcome.task}, {outcome.device} within {outcome.target_s * 1e3:.4g} ms, seed {outcome.seed}",
        f"found {'/'.join(outcome.architecture)}: score {outcome.score:.2f}, {outcome.latency_s * 1e3:.4g} ms",
        f"regret {outcome.regret:.2f}, rank {outcome.rank:g} of {outcome.feasible} within the target "
        f"(better than or equal to {outcome.percentile:.0f} % of the others)",
        f"{outcome.queries} queries: {outcome.env_steps:,} environment steps, each candidate trained from scratch",
    ]
    return "\n".join([*([outcome.partial.upper()] if outcome.partial else []), *lines])
