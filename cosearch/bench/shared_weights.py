"""Searches as the product makes them, with a supernet and its shared weights, whose result is looked up in the table.

Only the search runs, and the short bracket that chooses between its network and the largest one: a minute or two. The network
that is left needs no training, for the table has it. So any strategy has a true regret and rank, at the environment steps that it
takes. Beside it stand ``largest``, and random search and the regression on the table with as many queries as take the same
environment steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cosearch.bench.benchmark import Benchmark
from cosearch.bench.searches import Outcome, Search, judged, run_search
from cosearch.config.fixed import check_words
from cosearch.config.run import resolve
from cosearch.pipeline.agent.bracket import Bracket
from cosearch.pipeline.checkpoint import SearchOutput
from cosearch.pipeline.run import TRAINING, is_finished, work_on
from cosearch.pipeline.session import Session, open_session
from cosearch.planning.identity import Inputs, check_inputs
from cosearch.planning.plan import Plan, make_plan
from cosearch.planning.recorded import config_of
from cosearch.record.json_record import to_json
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import BENCH_SEARCH, RunDir
from cosearch.statistics import improvement, improvement_interval, interval_text, student_interval, wilson_interval
from cosearch.training.progress import Progress
from cosearch.training.threads import set_threads
from latency_tables.errors import RequestError, RunFolderError

BESIDE = ("random", "ridge", "largest")
CONTROLS = 20  # searches of each, at least: a query of the table costs nothing
SET_BY = {  # key -> what sets it
    "env.name": "--task",
    "space.name": "the benchmark, whose space it is",
    "strategy.name": "--strategy",
    "device": "--device",
    "table": "--device",
    "objective.latency_target_s": "--latency-target-ms",
    "seed": "--first-seed and --seeds",
    "threads": "the benchmark: one thread",
}
READ = (  # how the keys begin that a search and its bracket read; the rest is of the agent that a run would export
    *("compute", "space.values", "strategy.", "rl.", "dqn.", "sac.", "distill.", "objective."),
    *("env.num_envs", "env.train_levels", "env.kwargs", "env.layout", "env.wrappers", "env.episode_steps", "env.step_limit_s"),
    *("budget.search_steps", "budget.retrain_steps", "budget.bracket", "budget.repair_rounds", "budget.checkpoint_interval_s"),
)


@dataclass(frozen=True)
class SharedSearch:
    """A search of the product on the benchmark's space.

    Attributes:
        benchmark: the task.
        strategy: any registered one.
        device: whose table prices the networks.
        words: further ``KEY=VALUE`` words of the configuration, such as ``budget.search_steps=49152``.
        target_s: latency target, seconds; None: half of the space is within it.
    """

    benchmark: Benchmark
    strategy: str
    device: str
    words: tuple[str, ...] = ()
    target_s: float | None = None

    @property
    def bound_s(self) -> float:
        """The target, seconds."""
        return self.benchmark.default_target_s(self.device) if self.target_s is None else self.target_s

    def plan(self, seed: int) -> Plan:
        """The search of a seed.

        Raises:
            ConfigError: a wrong word, or one without effect.
            RequestError: one that makes another space than the benchmark's.
        """
        check_words(self.words, SET_BY)
        options: Mapping[str, object] = {
            "env.name": self.benchmark.table.task,
            "space.name": self.benchmark.space.name,
            "strategy.name": self.strategy,
            "device": self.device,
            "objective.latency_target_s": self.bound_s,
            "seed": seed,
            "threads": 1,
        }
        plan = make_plan(resolve(overrides=self.words, options=options))
        bracket = plan.strategy.kind == "gradient" and plan.config.rl.on_policy and plan.config.budget.bracket > 1
        check_words(self.words, SET_BY, (*READ, "budget.retrain_init") if bracket else READ)
        if plan.space != self.benchmark.space:
            raise RequestError(
                "the words make another space than the benchmark's, whose networks alone are in its table: leave out space.values"
            )
        return plan

    def search(self, seed: int, runs: Path, progress: Progress) -> SearchOutput:
        """Search, or go on with a search that was interrupted; one that is done is only read.

        Args:
            seed: of the search.
            runs: folder that gets one run folder a search.
            progress: display.

        Raises:
            RunFolderError: the folder is of a search with other values, or in use, or its agent was trained.
            TableError: it began with another table.
            ConfigError: it began with another teacher or environment; or as for :meth:`plan`.
            RequestError: as for :meth:`plan`.
        """
        plan = self.plan(seed)
        task, device = (name.replace(":", "-").replace("/", "-") for name in (plan.config.env.name, self.device))
        folder = runs / f"{task}-{device}-{self.strategy}-s{seed}"
        runs.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            run = RunDir.open(folder)
            if config_of(run) != plan.config:
                raise RunFolderError(f"{folder} is a search with other values; move it away, or take another --runs")
            differs = check_inputs(run.path, run.read(RunRecord), Inputs.of(plan.record("")), None)
            for line in () if is_finished(run) else differs:
                progress.note(line)
        else:
            run = RunDir.create(runs, folder.name, to_json(replace(plan.record(BENCH_SEARCH), name=folder.name)))
        set_threads(plan.config.threads)
        with run.lock():
            session = open_session(run, plan, progress)
            work_on(session, {**TRAINING, "retrain": _choose})
            outputs = session.checkpoints.current.outputs
        if outputs.retrain is not None:
            raise RunFolderError(f"{folder}: `cosearch resume {folder}` trained its agent; move it away and search again")
        if outputs.search is None:
            raise RunFolderError(f"{folder}: its checkpoint holds no architecture; move it away and search again")
        return outputs.search

    def judge(self, seed: int, found: SearchOutput) -> Outcome:
        """Look the network of a search up.

        Args:
            seed: of the search.
            found: what it gave.

        Raises:
            RequestError: its network is not in the table yet.
        """
        search = Search(self.benchmark, self.device, self.bound_s, seed, 0)
        return judged(search, self.strategy, self.benchmark.space.architecture(found.choices), found.steps)


def _choose(session: Session) -> None:
    """Of the retraining only what decides which network it is: the bracket's rungs before the last, whose steps count."""
    searched = session.checkpoints.current.outputs.search
    if searched is not None and searched.others:
        bracket = Bracket(session.plan, searched, session.resources, session.run, session.log, session.checkpoints)
        searched = replace(bracket.choose(), steps=searched.steps + bracket.done)
    session.checkpoints.finish_stage("done", search=searched)


@dataclass(frozen=True)
class Beside:
    """Searches with shared weights on one task and device, and what stands beside them.

    Attributes:
        task, device, partial: which, and what its table lacks.
        target_s: latency target, seconds.
        words: of the searches' configuration.
        found: of each strategy, one outcome a seed.
        controls: ``random``, ``ridge`` and ``largest`` on the table, for the seeds and steps of the first strategy.
    """

    task: str
    device: str
    partial: str | None
    target_s: float
    words: tuple[str, ...]
    found: Mapping[str, tuple[Outcome, ...]]
    controls: Mapping[str, tuple[Outcome, ...]]

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        own = {name: [one.to_json() for one in rows] for name, rows in self.found.items()}
        controls = {name: [one.to_json() for one in rows] for name, rows in self.controls.items()}
        return {
            "task": self.task,
            "device": self.device,
            "partial": self.partial,
            "target_s": self.target_s,
            "words": list(self.words),
            "found": own,
            "controls": controls,
        }


def beside(searches: Sequence[SharedSearch], seeds: Sequence[int], runs: Path, progress: Progress) -> Beside:
    """Make the searches that are not made yet, and the controls at equal environment steps.

    Args:
        searches: one a strategy, of one task, device, target and words.
        seeds: of the searches; the controls, which are looked up, have at least ``CONTROLS``.
        runs: folder that gets one run folder a search.
        progress: display.
    """
    first = searches[0]
    ended = {one: [one.search(seed, runs, progress) for seed in seeds] for one in searches}
    found = {one.strategy: tuple(one.judge(seed, own) for seed, own in zip(seeds, rows)) for one, rows in ended.items()}
    queries = max(1, round(found[first.strategy][0].env_steps / first.benchmark.env_steps))
    controls = {
        name: tuple(
            run_search(first.benchmark, name, first.device, target_s=first.bound_s, seed=seed, queries=queries)
            for seed in [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + CONTROLS - len(seeds))]
        )
        for name in BESIDE
    }
    partial = first.benchmark.table.partial
    return Beside(first.benchmark.table.task, first.device, partial, first.bound_s, first.words, found, controls)


def beside_page(boards: Sequence[Beside]) -> str:
    """The figures as Markdown."""
    lines = []
    for board in boards:
        everything = {**board.found, **{f"{name}, on the table": rows for name, rows in board.controls.items()}}
        first = next(iter(board.found.values()))[0]
        lines += [
            f"## {board.task}, {board.device} within {board.target_s * 1e3:.3g} ms",
            "",
            *([f"**{board.partial.upper()}**: ranks are among these networks.", ""] if board.partial else []),
            f"{first.feasible} networks within the target; {len(next(iter(board.found.values())))} searches of each strategy, "
            f"{len(board.controls['random'])} of each control. {' '.join(f'`{word}`' for word in board.words)}".rstrip(),
            "",
            "| strategy | regret [95 %] | rank | percentile | environment steps | better than random [95 %] |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, rows in sorted(everything.items(), key=lambda item: float(np.mean([one.regret for one in item[1]]))):
            regrets = [one.regret for one in rows]
            interval = "" if len(set(regrets)) == 1 else f" {interval_text(student_interval(regrets), 'search')}"
            better = ""
            if name != "random, on the table":
                better = _better(rows, board.controls["random"])
            lines.append(
                f"| {name} | {np.mean(regrets):.2f}{interval} | {np.mean([one.rank for one in rows]):.1f} | "
                f"{np.mean([one.percentile for one in rows]):.0f} | {np.mean([one.env_steps for one in rows]):,.0f} | {better} |"
            )
        lines.append("")
    return "\n".join(lines)


def _better(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    """Probability of improvement with its interval; of a rule that asks for nothing all outcomes are one, no sample of runs."""
    value = improvement([[one.score for one in ours]], [[one.score for one in theirs]])
    fixed = len({one.architecture for one in ours}) == 1 and not any(one.env_steps for one in ours)
    interval = wilson_interval(value, len(theirs)) if fixed else improvement_interval(value, len(ours), len(theirs))
    return f"{value:.2f} {interval_text(interval, 'search')}"
