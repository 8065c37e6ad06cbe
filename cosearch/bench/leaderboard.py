"""Every strategy on every task and device, several searches each: the standings and their page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from cosearch.bench.benchmark import Benchmark, benchmarks
from cosearch.bench.searches import BRACKET, run_search, runnable
from cosearch.statistics import Interval, interval_text, student_interval
from latency_tables.text import markdown


@dataclass(frozen=True)
class Standing:
    """One strategy on one task and device, over its searches.

    Attributes:
        strategy: its name.
        regret, rank, percentile, queries: means over the searches.
        regret_ci95: 95 % interval of the mean regret over the searches; None for a strategy that always finds the same.
        env_steps: of one search.
    """

    strategy: str
    regret: float
    regret_ci95: Interval | None
    rank: float
    percentile: float
    queries: float
    env_steps: float


@dataclass(frozen=True)
class Board:
    """The standings of one task on one device.

    Attributes:
        task, device, partial: which, and what its table lacks.
        target_s: latency target, seconds.
        feasible: finished networks within it.
        optimum: best mean score within it.
        median: median of the mean scores within it.
        seed_deviation: standard deviation of a network's score between train seeds, root mean square over the networks; None:
            there is one train seed.
        macs_correlation: Spearman's, of multiply-accumulates and mean score within the target; None where either is constant.
        standings: by mean regret.
    """

    task: str
    device: str
    partial: str | None
    target_s: float
    feasible: int
    optimum: float
    median: float
    seed_deviation: float | None
    macs_correlation: float | None
    standings: tuple[Standing, ...]


@dataclass(frozen=True)
class Standings:
    """All boards.

    Attributes:
        searches: of each strategy on each board.
        queries: that a search may ask for.
        boards: one a task and device.
    """

    searches: int
    queries: int
    boards: tuple[Board, ...]

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


def standings(folder: Path, devices: Sequence[str], seeds: Sequence[int], queries: int) -> Standings:
    """Run every strategy.

    Args:
        folder: of the tables.
        devices: names as in ``cosearch list devices``.
        seeds: of the searches.
        queries: that each may ask for.

    Raises:
        RequestError: the folder has no table.
        UnknownNameError: no such device.
        MissingOpError: a device's table lacks a block of the space.
    """
    boards = []
    for benchmark in benchmarks(folder):
        boards += [_board(benchmark, device, seeds, queries) for device in devices]
    return Standings(len(seeds), queries, tuple(boards))


def _board(benchmark: Benchmark, device: str, seeds: Sequence[int], queries: int) -> Board:
    target_s = benchmark.default_target_s(device)
    inside = benchmark.feasible(device, target_s)
    scores = benchmark.scores[inside]
    macs = [sum(op.macs for op in benchmark.architectures[i].ops()) for i in inside]
    rows = []
    for name in runnable(queries):
        found = [run_search(benchmark, name, device, target_s=target_s, seed=seed, queries=queries) for seed in seeds]
        regrets = [one.regret for one in found]
        rows.append(
            Standing(
                name,
                float(np.mean(regrets)),
                None if len(set(regrets)) == 1 else student_interval(regrets),
                float(np.mean([one.rank for one in found])),
                float(np.mean([one.percentile for one in found])),
                float(np.mean([one.queries for one in found])),
                float(np.mean([one.env_steps for one in found])),
            )
        )
    return Board(
        benchmark.table.task,
        device,
        benchmark.table.partial,
        target_s,
        len(inside),
        float(scores.max()),
        float(np.median(scores)),
        float(np.sqrt(np.mean(benchmark.seed_scores[inside].var(1, ddof=1)))) if len(benchmark.table.seeds) > 1 else None,
        float(spearmanr(macs, scores).statistic) if len(set(macs)) > 1 and len(set(scores.tolist())) > 1 else None,
        tuple(sorted(rows, key=lambda row: row.regret)),
    )


def leaderboard_page(result: Standings) -> str:
    """The boards as Markdown."""
    left_out = [name for name in runnable() if name not in runnable(result.queries)]
    lines = [
        "# Searches on the tabular benchmark",
        "",
        f"{result.searches} searches of each strategy, {result.queries} queries each (the `largest` ones ask for none).",
        "A query is the final score of one train seed and counts as its environment steps; every candidate is trained from",
        "scratch: weight sharing is not simulated. Regret is the distance to the best network within the target, rank its place",
        "among them, both by the mean over the train seeds; percentile is the share of the others that are no better. The best",
        "of many noisy means is too high by chance, so even a search that knew every network's true mean would have some regret.",
        *(f"`{name}` is left out: its bracket alone takes {BRACKET} queries." for name in left_out),
        "Made by `python -m cosearch bench leaderboard`; [what explains the order](methods.md).",
    ]
    for board in result.boards:
        deviation = _defined(board.seed_deviation)
        lines += [
            "",
            f"## {markdown.word(f'{board.task}, {board.device}')} within {board.target_s * 1e3:.3g} ms",
            "",
            *(
                [f"**{board.partial.upper()}**: a uniform sample of the space; the rest is not trained yet.", ""]
                if board.partial
                else []
            ),
            f"{board.feasible} networks within the target; best mean score {board.optimum:.2f}, median {board.median:.2f};",
            f"standard deviation of a network's score between train seeds {deviation}; Spearman correlation of",
            f"multiply-accumulates and score {_defined(board.macs_correlation, '+')}."
            + f" {result.queries} queries are {100 * result.queries / board.feasible:.0f} % of these networks.",
            "",
        ]
        rows = []
        for row in board.standings:
            interval = "" if row.regret_ci95 is None else f" {interval_text(row.regret_ci95, 'search')}"
            rows.append([row.strategy, f"{row.regret:.2f}{interval}", f"{row.rank:.1f}", f"{row.percentile:.0f}"])
            rows[-1].append(f"{row.env_steps:,.0f}")
        lines += markdown.table(("strategy", "regret [95 %]", "rank", "percentile", "environment steps"), rows)
    return "\n".join(lines) + "\n"


def _defined(value: float | None, sign: str = "") -> str:
    return "not defined" if value is None else f"{value:{sign}.2f}"
