"""What a barrier costs a search with unequal workers, and whether results out of order cost quality: real strategies.

``python -m cosearch.benchmarks.workers.asynchronous``. Eight workers whose speeds differ up to threefold evaluate networks of the
tabular benchmark; an evaluation takes the CPU seconds that the training of that network took when the table was made, over the
worker's speed, times a lognormal factor of 10 %. The strategy is asked and told as in a run (``cosearch.strategies.turns``): as
trainings end, in batches of eight, or one by one. Nothing but time is simulated: scores are the table's, of one train seed drawn
for each proposal, the same one in each mode, and a search is judged by the mean over the train seeds of the network that it
found. Random search proposes the same whatever it is told: it is the control, and must not differ.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cosearch.bench.benchmark import Benchmark
from cosearch.bench.searches import Search
from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import check_same, program, saved
from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.quality import regret
from cosearch.record.json_record import from_json
from cosearch.space.space import Architecture
from cosearch.statistics import mean_interval, student_interval
from cosearch.strategies.base import STRATEGIES, Evaluation, ProposalStrategy
from cosearch.strategies.turns import BEGIN, Turns
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import read_json
from latency_tables.text.terminal import say

TASK, DEVICE = "minatar:breakout", "x86-epyc"
STRATEGY_NAMES = ("evolution", "deephyper", "monas", "fnas", "catch", "random")
MODES = ("as trainings end", "in batches", "one by one")
LEARNING = ("deephyper", "fnas", "catch")  # their networks learn from each result, which takes minutes: without the last mode
SPEEDS = (1.0, 1.17, 1.37, 1.6, 1.87, 2.19, 2.56, 3.0)  # a geometric series
JITTER = 0.1
SECONDS = Path(__file__).with_name("breakout_train_seconds.json")
OUT = Path(__file__).with_suffix(".json")
PAGE = DOCS / "evidence" / "fleet.md"


@dataclass(frozen=True)
class Trace:
    """One simulated search.

    Attributes:
        makespan_s: until the last result.
        last_begin_s: when the last evaluation began: until then there was something to do.
        busy_s: of all workers together.
        busy_before_s: the part of it before ``last_begin_s``.
        workers: that were there.
        found: place in the order told of the network that was found.
        told: the networks in that order.
    """

    makespan_s: float
    last_begin_s: float
    busy_s: float
    busy_before_s: float
    workers: int
    found: int
    told: tuple[Architecture, ...]

    @property
    def utilisation(self) -> float:
        """Share of the workers' time in which they evaluated, 0..1, to the last result."""
        return self.busy_s / (self.workers * self.makespan_s)

    @property
    def utilisation_before(self) -> float:
        """The same to the begin of the last evaluation; 1 where no worker ever waits for another."""
        return self.busy_before_s / (self.workers * self.last_begin_s) if self.last_begin_s else 1.0


def simulated(
    search: Search,
    strategy: ProposalStrategy,
    seconds: Sequence[float],
    speeds: Sequence[float],
    turns: Turns,
    jitter: Sequence[float],
    seeds: Sequence[int],
) -> Trace:
    """A search on workers of given speeds; each takes the next evaluation, the fastest free one first.

    Args:
        search: gives the scores, and how many evaluations there are.
        strategy: fresh.
        seconds: of the evaluation of each network at speed 1.
        speeds: of the workers.
        turns: fresh, with a slot for each worker.
        jitter: factor of the duration of each evaluation, in the order asked.
        seeds: place of the train seed whose score each tells.
    """
    asked: list[Architecture] = []
    told: list[Architecture] = []
    running: list[tuple[float, int, int]] = []  # end, candidate, worker
    spans: list[tuple[float, float]] = []
    free = sorted(range(len(speeds)), key=lambda worker: speeds[worker])
    now = 0.0
    while True:
        while (turn := turns.next(len(asked) < search.queries)) is not None:
            if turn == BEGIN:
                worker, index = free.pop(), len(asked)
                asked.append(strategy.ask())
                end = now + seconds[search.benchmark.number(asked[-1])] * jitter[index] / speeds[worker]
                heapq.heappush(running, (end, index, worker))
                spans.append((now, end))
                turns.begin(index)
            else:
                turns.take(turn)
                network = search.benchmark.number(asked[turn])
                score = float(search.benchmark.seed_scores[network, seeds[turn]])
                latency_s = search.benchmark.latency_s(asked[turn], search.device)
                strategy.tell(Evaluation(asked[turn], score, latency_s, asked=turn))
                told.append(asked[turn])
        if not running:
            break
        now, index, worker = heapq.heappop(running)
        free = sorted([*free, worker], key=lambda one: speeds[one])
        turns.end(index)
    last = max(begin for begin, _ in spans)
    busy, before = (sum(min(end, until) - begin for begin, end in spans) for until in (now, last))
    return Trace(now, last, busy, before, len(speeds), strategy.best(), tuple(told))


@dataclass(frozen=True, kw_only=True)
class Row:
    """Searches of one strategy in one mode.

    Attributes:
        strategy, mode: which.
        utilisation, utilisation_before: means over the seeds, see :class:`Trace`.
        makespan_s: mean, simulated seconds.
        regrets: of the network found, for each seed.
        regret_ci95: interval of their mean.
        difference_ci95: of the mean difference to the same seeds in batches, by Student; None for these themselves.
    """

    strategy: str
    mode: str
    utilisation: float
    utilisation_before: float
    makespan_s: float
    regrets: tuple[float, ...]
    regret_ci95: tuple[float, float]
    difference_ci95: tuple[float, float] | None

    @property
    def regret(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.regrets))


@dataclass(frozen=True, kw_only=True)
class AsynchronousResult:
    """All searches.

    Attributes:
        task: of the table.
        queries: evaluations of each search.
        seeds: searches of each strategy in each mode.
        speeds: of the workers.
        rows: one for each strategy and mode.
    """

    task: str
    queries: int
    seeds: int
    speeds: tuple[float, ...]
    rows: tuple[Row, ...]


def traces(name: str, mode: str, queries: int, seeds: int, benchmark: Benchmark, seconds: Sequence[float]) -> list[Trace]:
    """The searches of one strategy in one mode, one a seed.

    Args:
        name: of the strategy.
        mode: one of ``MODES``.
        queries, seeds, benchmark, seconds: see :class:`AsynchronousResult` and :func:`simulated`.
    """
    info = STRATEGIES.get(name)
    speeds = (1.0,) if mode == "one by one" else SPEEDS
    loosest = float(benchmark.latencies_s(DEVICE).max())
    made = []
    for seed in range(seeds):
        search = Search(benchmark, DEVICE, loosest, seed, queries)
        options = info.options(StrategyConfig(name=name, candidates=queries))
        strategy = info.make(benchmark.space, options, search.generator, search.is_feasible)
        draws = np.random.default_rng(seed)
        jitter = np.exp(JITTER * draws.normal(size=queries)).tolist()
        places = draws.integers(len(benchmark.table.seeds), size=queries).tolist()
        turns = Turns(len(speeds), in_batches=mode == "in batches")
        made.append(simulated(search, strategy, seconds, speeds, turns, jitter, places))
    return made


def measured(names: Sequence[str], queries: int, seeds: int) -> AsynchronousResult:
    """Run all searches; arguments as for :class:`AsynchronousResult`, with the names of the strategies."""
    benchmark, seconds = Benchmark(TASK), train_seconds()
    rows = []
    for name in names:
        modes = MODES[:2] if name in LEARNING else MODES
        found = {mode: traces(name, mode, queries, seeds, benchmark, seconds) for mode in modes}
        regrets = {
            mode: [regret(benchmark.score(one.told[one.found]), benchmark.scores) for one in each] for mode, each in found.items()
        }
        for mode, each in found.items():
            gaps = [a - b for a, b in zip(regrets[mode], regrets["in batches"])]
            interval = mean_interval(regrets[mode])
            rows.append(
                Row(
                    strategy=name,
                    mode=mode,
                    utilisation=float(np.mean([one.utilisation for one in each])),
                    utilisation_before=float(np.mean([one.utilisation_before for one in each])),
                    makespan_s=float(np.mean([one.makespan_s for one in each])),
                    regrets=tuple(regrets[mode]),
                    regret_ci95=interval or (regrets[mode][0], regrets[mode][0]),
                    difference_ci95=None if mode == "in batches" else student_interval(gaps),
                )
            )
    return AsynchronousResult(task=TASK, queries=queries, seeds=seeds, speeds=SPEEDS, rows=tuple(rows))


def train_seconds() -> list[float]:
    """CPU seconds of the training of each network of the table, by its number."""
    content = read_json(SECONDS, "seconds of trainings", RunFolderError)
    if not isinstance(content, dict) or not isinstance(content.get("seconds"), list):
        raise RunFolderError(f"{SECONDS} has no list of seconds")
    return [float(value) for value in content["seconds"]]


def markdown(result: AsynchronousResult) -> str:
    """The table of the page."""
    lines = [
        f"{result.queries} evaluations on {len(result.speeds)} workers of speeds {result.speeds[0]:g} to {result.speeds[-1]:g}, "
        f"{result.seeds} seeds.",
        "",
        "| strategy | told | utilisation | while there is more to begin | simulated s | regret [95 %] | beside batches [95 %] |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result.rows:
        gap = "" if row.difference_ci95 is None else f"{row.difference_ci95[0]:+.2f} to {row.difference_ci95[1]:+.2f}"
        lines.append(
            f"| {row.strategy} | {row.mode} | {row.utilisation:.3f} | {row.utilisation_before:.3f} | {row.makespan_s:,.0f} "
            f"| {row.regret:.2f} [{row.regret_ci95[0]:.2f}, {row.regret_ci95[1]:.2f}] | {gap} |"
        )
    return "\n".join(lines)


def main(
    strategies: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(STRATEGY_NAMES),
    queries: Annotated[int, typer.Option(min=8, help="Evaluations of each search.")] = 256,
    seeds: Annotated[int, typer.Option(min=2, help="Searches of each strategy in each mode.")] = 20,
    out: Annotated[Path, typer.Option(help="JSON file; rows of other strategies that it has stay.")] = OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate, keep the result and write the table of the page."""
    load_builtins()
    kept = saved(out)
    if kept:
        check_same(out, kept, {"task": TASK, "queries": queries, "seeds": seeds, "speeds": SPEEDS})
    result = measured(strategies.split(","), queries, seeds)
    if kept:
        names = {row.strategy for row in result.rows}
        others = [row for row in from_json(AsynchronousResult, kept, out).rows if row.strategy not in names]
        result = replace(result, rows=(*others, *result.rows))
    keep(asdict(result), out, PAGE, "asynchronous", markdown(result))
    say(json.dumps(asdict(result)) if as_json else markdown(result))


if __name__ == "__main__":
    program(main)
