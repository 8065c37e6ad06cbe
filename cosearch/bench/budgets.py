"""Regret against budget: every strategy with several numbers of queries, several searches each, beside the controls.

A strategy that plans with its budget (the share of random candidates, a last bracket) is run anew for each number of queries:
a search of 40 is not one of 10 that goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cosearch.bench.benchmark import Benchmark
from cosearch.bench.searches import run_search, runnable
from cosearch.statistics import Interval, interval_text, student_interval
from latency_tables.text import markdown


@dataclass(frozen=True)
class Spent:
    """One strategy with one budget.

    Attributes:
        strategy: its name.
        queries: scores that each search may ask for; ``largest`` asks for none.
        env_steps: environment steps of that many trainings.
        regret: mean over the searches of the distance to the best network within the target.
        regret_ci95: its interval over the searches; None where all found equally good networks.
    """

    strategy: str
    queries: int
    env_steps: int
    regret: float
    regret_ci95: Interval | None


@dataclass(frozen=True)
class Budgets:
    """One task on one device.

    Attributes:
        task, device, partial: which, and what its table lacks.
        target_s: latency target, seconds.
        searches: of each strategy with each budget.
        rows: one a strategy and budget.
    """

    task: str
    device: str
    partial: str | None
    target_s: float
    searches: int
    rows: tuple[Spent, ...]

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


def budgets(benchmark: Benchmark, device: str, seeds: Sequence[int], queries: Sequence[int]) -> Budgets:
    """Run every strategy with every budget.

    Args:
        benchmark: the task.
        device: name as in ``cosearch list devices``.
        seeds: of the searches.
        queries: the budgets.

    Raises:
        UnknownNameError: no such device.
        MissingOpError: its table lacks a block of the space.
    """
    target_s = benchmark.default_target_s(device)
    rows = []
    for name in runnable():
        for count in queries:
            if name not in runnable(count):
                continue
            found = [run_search(benchmark, name, device, target_s=target_s, seed=seed, queries=count).regret for seed in seeds]
            interval = None if len(set(found)) == 1 else student_interval(found)
            rows.append(Spent(name, count, count * benchmark.env_steps, float(np.mean(found)), interval))
    return Budgets(benchmark.table.task, device, benchmark.table.partial, target_s, len(seeds), tuple(rows))


def budgets_page(boards: Sequence[Budgets]) -> str:
    """The boards as Markdown, strategies by their regret with the largest budget."""
    lines = [
        "# Regret against budget",
        "",
        "The distance to the best network within the target, mean of the searches with its 95 % interval over them, for so many",
        "queries; each is one training from scratch. The `largest` ones ask for nothing.",
        "Made by `python -m cosearch bench budgets`.",
    ]
    for board in boards:
        counts = sorted({row.queries for row in board.rows})
        steps = {row.queries: row.env_steps for row in board.rows}
        by_name: dict[str, dict[int, Spent]] = {}
        for row in board.rows:
            by_name.setdefault(row.strategy, {})[row.queries] = row
        lines += [
            "",
            f"## {markdown.word(f'{board.task}, {board.device}')} within {board.target_s * 1e3:.3g} ms",
            "",
            *([f"**{board.partial.upper()}**: ranks are among these networks.", ""] if board.partial else []),
        ]
        ordered = sorted(by_name.items(), key=lambda item: item[1][counts[-1]].regret)
        table = [[name, *(_text(own.get(count)) for count in counts)] for name, own in ordered]
        heads = [f"{count} queries, {steps[count]:,} steps" for count in counts]
        lines += markdown.table(("strategy", *heads), table)
    return "\n".join(lines) + "\n"


def _text(spent: Spent | None) -> str:
    if spent is None:
        return ""
    interval = "" if spent.regret_ci95 is None else f" {interval_text(spent.regret_ci95, 'search')}"
    return f"{spent.regret:.2f}{interval}"
