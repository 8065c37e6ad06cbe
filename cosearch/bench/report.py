"""The benchmark in words and as JSON: what it holds, one architecture, one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cosearch.bench import settings
from cosearch.bench.benchmark import Benchmark, benchmarks, tasks
from cosearch.bench.searches import Outcome, runnable
from cosearch.planning.builtins import load_builtins


def describe(folder: Path) -> dict[str, object]:
    """What a folder of tables holds, as JSON.

    Raises:
        RequestError: it has no table.
    """
    load_builtins()
    found = benchmarks(folder)
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


@dataclass(frozen=True)
class Known:
    """What the table knows of one architecture.

    Attributes:
        architecture: names of its choices.
        score: mean return, the mean over the train seeds whose training did not fail; None: all failed.
        seed_scores: mean return by train seed; None: the training failed.
        failed_seeds: train seeds whose training failed; they are in no mean.
        curve: environment steps and mean return, in order of the steps; None: no episode had ended by then.
        macs, params: multiply-accumulates of a decision, weights.
        device, latency_s: a device and the latency there, seconds; None: not asked for.
    """

    architecture: tuple[str, ...]
    score: float | None
    seed_scores: dict[int, float | None]
    failed_seeds: tuple[int, ...]
    curve: tuple[tuple[int, float | None], ...]
    macs: int
    params: int
    device: str | None = None
    latency_s: float | None = None

    def to_json(self) -> dict[str, object]:
        """Plain JSON; without a device nothing of it."""
        found = asdict(self)
        return found if self.device is not None else {key: found[key] for key in found if key not in ("device", "latency_s")}

    def text(self) -> str:
        """For people."""
        seeds = ", ".join(f"{seed}: {_score_text(score, 'failed')}" for seed, score in self.seed_scores.items())
        failed = without = ""
        if self.failed_seeds:
            failed = f" ({len(self.failed_seeds)} of {len(self.seed_scores)} train seeds failed"
            failed += ")" if self.score is None else ": mean of the others)"
            without = f", without train seed {' and '.join(map(str, self.failed_seeds))}, which failed"
        lines = [
            "/".join(self.architecture),
            f"score {_score_text(self.score, 'none')}{failed}; by train seed: {seeds}",
            f"score after steps{without}: "
            + ", ".join(f"{step:,}: {_score_text(score, 'no episode')}" for step, score in self.curve),
            f"{self.macs:,} multiply-accumulates, {self.params:,} weights",
        ]
        return "\n".join(lines if self.latency_s is None else [*lines, f"{self.latency_s * 1e3:.4g} ms on {self.device}"])


def _score_text(score: float | None, without: str) -> str:
    return without if score is None else f"{score:.2f}"


def lookup(benchmark: Benchmark, choices: Sequence[int], device: str | None) -> Known:
    """What is known of one architecture.

    Args:
        benchmark: the task.
        choices: one candidate index a point.
        device: also its latency there; None: not.

    Raises:
        ShapeError: no such architecture.
        RequestError: it is not finished.
    """
    architecture = benchmark.space.architecture(choices)
    return Known(
        tuple(architecture.choice_names),
        benchmark.query(architecture),
        {seed: benchmark.query(architecture, seed) for seed in benchmark.table.seeds},
        benchmark.failed_seeds(architecture),
        tuple((step, value) for step, value in benchmark.curve(architecture)),
        sum(op.macs for op in architecture.ops()),
        sum(op.params for op in architecture.ops()),
        device,
        None if device is None else benchmark.latency_s(architecture, device),
    )


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
