"""The comparison of search methods: four pipeline problems, equal evaluations, several seeds, one table.

Minimise the initiation interval of J chunks with at most 900 multipliers on IMPALA-CNN and the MobileNetV2-like agent, computing
only. ``BEST_KNOWN`` holds the smallest interval there is: a test finds it again by a programme over every cut and every array.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from accel_models.cost import Machine
from accel_models.layers import load_layers
from accel_models.searching.baselines import METHODS
from accel_models.searching.elites import Elites
from accel_models.searching.problem import DesignProblem, Limits
from accel_models.searching.search import check_budget, continuous
from latency_tables.errors import UnknownNameError

BEST_KNOWN = {("impala", 3): 42_796, ("impala", 4): 39_096, ("mobilenet", 3): 32_766, ("mobilenet", 4): 26_866}
MULTIPLIERS = 900
ALL_METHODS: dict[str, Callable[[DesignProblem, int, int], Elites]] = {
    **METHODS,
    "gradient": lambda problem, budget, seed: continuous(problem, budget, seed, polish_share=0.0),
    "gradient+polish": continuous,
}


@dataclass(frozen=True)
class BenchmarkRow:
    """One method on one problem; ratios to the best known interval, one for each seed; processor seconds a run."""

    network: str
    chunks: int
    method: str
    ratios: tuple[float, ...]
    best_cycles: float
    seconds: float

    @property
    def mean(self) -> float:
        """Mean ratio over the seeds."""
        return float(np.mean(self.ratios))


def pipeline_problem(network: str, chunks: int) -> DesignProblem:
    """One of the four problems.

    Args:
        network: ``impala`` or ``mobilenet``.
        chunks: J.
    """
    layers = [layer for layer in load_layers(network) if layer.macs]
    return DesignProblem(layers, Machine(dram_bytes_per_cycle=16.0), chunks, Limits(MULTIPLIERS), "interval", "compute")


def check_methods(methods: Sequence[str], evaluations: int) -> None:
    """Raise unless every method is known and can run with so many evaluations.

    Raises:
        UnknownNameError: a method is not known.
        ConfigError: too few evaluations for the gradient search.
    """
    unknown = [name for name in methods if name not in ALL_METHODS]
    if unknown:
        raise UnknownNameError(f"unknown methods {', '.join(unknown)}; there are {', '.join(ALL_METHODS)}")
    if any(name not in METHODS for name in methods):
        check_budget(evaluations)


def run_benchmark(
    methods: Sequence[str], seeds: int, evaluations: int, progress: Callable[[BenchmarkRow], None] | None = None
) -> list[BenchmarkRow]:
    """Every method on every problem with every seed.

    Args:
        methods: names of :data:`ALL_METHODS`.
        seeds: runs of each.
        evaluations: of each run; a method that exceeds them is an error.
        progress: called with each finished row.

    Raises:
        UnknownNameError: a method is not known.
        ConfigError: too few evaluations for one of them.
    """
    check_methods(methods, evaluations)
    rows = []
    for (network, chunks), best in BEST_KNOWN.items():
        for name in methods:
            values, begin = [], time.process_time()
            for seed in range(seeds):
                problem = pipeline_problem(network, chunks)
                elites = ALL_METHODS[name](problem, evaluations, seed)
                assert problem.evaluations <= evaluations, f"{name} used {problem.evaluations} evaluations of {evaluations}"
                values.append(elites.best.value if elites.best else float("inf"))
            seconds = (time.process_time() - begin) / seeds
            row = BenchmarkRow(network, chunks, name, tuple(value / best for value in values), min(values), seconds)
            rows.append(row)
            if progress is not None:
                progress(row)
    return rows


def as_markdown(rows: Sequence[BenchmarkRow]) -> str:
    """The table: mean ratio (worst seed) for each method and problem, and seconds a run."""
    problems = list(dict.fromkeys((row.network, row.chunks) for row in rows))
    lines = [
        "| method | " + " | ".join(f"{n}, J = {j}" for n, j in problems) + " | CPU s a run |",
        "| --- |" + " --- |" * (len(problems) + 1),
    ]
    for method in dict.fromkeys(row.method for row in rows):
        mine = {(row.network, row.chunks): row for row in rows if row.method == method}
        cells = [f"{mine[p].mean:.3f} ({max(mine[p].ratios):.3f})" for p in problems]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {np.mean([r.seconds for r in mine.values()]):.1f} |")
    return "\n".join(lines)
