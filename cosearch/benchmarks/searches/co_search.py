"""Co-search of agent and accelerator beside its parts, at equal environment steps, for a board of 900 DSP slices.

``python -m cosearch.benchmarks.searches.co_search --seeds 3`` makes (or resumes) the runs, prints the table and writes
``co_search.json``. Four arms: the co-search; (a) the agent searched on the board's own design and the accelerator searched
afterwards for it; (b) the co-searched agent on the board's own design; (c) random agents, each with a searched accelerator. All
searches have the same latency target, which (b), searched for another design, need not meet, and the accelerators of the
first, second and last arm the same evaluations in their final search.
Intervals, 95 %: of scores as in ``default_run`` (seeds, and episodes within them), of frames per second over the seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from accel_models.design import DESIGNS, load_design
from accel_models.resources import resources
from accel_models.searching.search import search_design
from cosearch.benchmarks.results import program, save
from cosearch.benchmarks.runs import check_command
from cosearch.benchmarks.searches.default_run import BEFORE, RESAMPLED, difference, statistics
from cosearch.config.run import Config, resolve
from cosearch.cost.accel_table import AccelTable, layers_of, limits_exceeded
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.recorded import config_of
from cosearch.record.results.summary import Summary
from cosearch.record.rundir import RunDir
from cosearch.seeding import Streams
from cosearch.space.files import load_architecture
from cosearch.statistics import Interval, estimate_text, percentile_interval
from latency_tables.errors import RequestError
from latency_tables.opspec import OpSpec

HERE = Path(__file__).parent
DEVICE = "zc706"
MADE = {
    "co": ("accel.every_steps=10000",),
    "first": ("--fixed-accelerator",),
    "random": ("--strategy", "random"),
}  # the arms that need runs
ARMS = {
    "co-search": "agent and accelerator together",
    "agent first": "(a) agent on the board's own design, accelerator afterwards",
    "own design": "(b) the co-searched agent on the board's own design",
    "random": "(c) random agents with searched accelerators",
}
WORDS = (
    "env.name=minatar:breakout",
    "distill.teacher=none",
    "space.values.hidden=64",
    "rl.gamma=0.99",
    "budget.search_steps=40000",
    "budget.retrain_steps=80000",
    "budget.eval_episodes=256",
    "budget.measure_s=0.5",
)
TARGET = "objective.latency_ratio=0.5"  # of the reference agent on the first design, then the same for every run


def run_all(seeds: int, runs: Path, words: list[str]) -> None:
    """Make every run that is not finished yet; an interrupted one goes on.

    Args:
        seeds: seeds ``0 .. seeds - 1``.
        runs: folder of the run folders.
        words: KEY=VALUE words of every run.

    Raises:
        RunFolderError: a run was begun with other words.
    """
    load_builtins()
    target_s = make_plan(resolve(overrides=[*words, TARGET, f"device={DEVICE}"])).constraints[0].value
    for seed in range(seeds):
        for arm, more in MADE.items():
            name = f"co-search-{arm}-s{seed}"
            asked = ["search", "--device", DEVICE, "--seed", str(seed), "--run", name, "--runs", str(runs), *more, *words]
            asked.append(f"objective.latency_target_s={target_s!r}")
            if (runs / name).exists():
                check_command(runs / name, asked)
                asked = ["resume", str(runs / name)]
            subprocess.run([sys.executable, "-m", "cosearch", *asked], check=True, stdout=subprocess.DEVNULL)


def collect(seeds: int, runs: Path) -> dict[str, Any]:
    """Figures of all arms.

    Args:
        seeds: as for :func:`run_all`.
        runs: folder of the run folders.

    Returns:
        For each arm its seeds, scores and frames per second with intervals, and its difference from the co-search.

    Raises:
        RequestError: a run is missing or not finished.
    """
    load_builtins()
    rows: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    returns: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        made = {arm: _read(runs / f"co-search-{arm}-s{seed}") for arm in MADE}
        co, first = made["co"], made["first"]
        arms = {
            "co-search": (co, co.summary.latency_predicted_s, co.dsp),
            "agent first": (first, *_afterwards(first)),
            "own design": (co, *_on_own_design(co)),
            "random": (made["random"], made["random"].summary.latency_predicted_s, made["random"].dsp),
        }
        for arm, (run, latency_s, dsp) in arms.items():
            returns[arm].append(run.returns)
            rows[arm].append(
                {
                    "seed": seed,
                    "score_mean": float(run.returns.mean()),
                    "latency_s": latency_s,
                    "frames_per_s": 1.0 / latency_s,
                    "dsp": dsp,
                    "macs": run.summary.macs,
                    "env_steps": run.summary.env_steps,
                    "wall_s": run.summary.wall_s,
                    "latency_target_s": run.summary.latency_target_s,
                    "choices": list(run.choices),
                    "provenance": "modelled",
                }
            )
    limit = load_design(DESIGNS / f"{DEVICE}.json").platform.dsp_limit
    result: dict[str, Any] = {"device": DEVICE, "dsp_limit": limit, "resampled": RESAMPLED, "arms": {}}
    for arm, words in ARMS.items():
        rates = np.array([row["frames_per_s"] for row in rows[arm]])
        ratios = np.array([row["frames_per_s"] for row in rows["co-search"]]) / rates
        result["arms"][arm] = {
            "description": words,
            "seeds": rows[arm],
            **statistics(returns[arm]),
            "frames_per_s": float(rates.mean()),
            "frames_per_s_ci95": bootstrap(rates),
            "co_search_minus_this": difference(returns["co-search"], returns[arm]),
            "co_search_times_faster": float(ratios.mean()),
            "co_search_times_faster_ci95": bootstrap(ratios),
        }
    return result


def bootstrap(values: np.ndarray) -> Interval | None:
    """95 % percentile interval of the mean of values ``[seeds]``; None for one seed."""
    rng = np.random.default_rng(0)
    return percentile_interval(rng.choice(values, (4000, len(values))).mean(1), [len(values)])


@dataclass(frozen=True)
class Finished:
    """A finished run: its results, the returns of its episodes, its network and its configuration."""

    summary: Summary
    returns: np.ndarray
    choices: tuple[str, ...]
    ops: list[OpSpec]
    config: Config

    @property
    def dsp(self) -> float | None:
        """DSP slices of its accelerator."""
        return None if self.summary.accelerator is None else self.summary.accelerator.dsp


def _read(folder: Path) -> Finished:
    if not (folder / Summary.FILE).is_file():
        raise RequestError(f"{folder} is no finished run: run this without --only-table first")
    run = RunDir.open(folder)
    returns = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["returns"]
    architecture = load_architecture(folder / "architecture.json")
    choices, ops = tuple(architecture.choice_names), list(architecture.ops())
    return Finished(run.read(Summary), np.asarray(returns), choices, ops, config_of(run))


def _on_own_design(run: Finished) -> tuple[float, float | None]:
    design = load_design(DESIGNS / f"{DEVICE}.json")
    return AccelTable(design).predict(run.ops).latency_s, resources(design).dsp


def _afterwards(run: Finished) -> tuple[float, float | None]:
    """Latency and DSP of an agent on the better of the own design and one that is searched for it now."""
    base, config = load_design(DESIGNS / f"{DEVICE}.json"), run.config
    seed = Streams(config.seed).derive("accel", 0)
    found = search_design(layers_of(run.ops), base, seed, evaluations=config.accel.final_evaluations).design
    designs = [design for design in (base, found) if not limits_exceeded(design)]
    latency_s, best = min(
        ((AccelTable(design).predict(run.ops).latency_s, design) for design in designs), key=lambda pair: pair[0]
    )
    return latency_s, resources(best).dsp


def markdown(result: dict[str, Any]) -> str:
    """The table of the README."""
    lines = [
        "| arm | score [95 %] | frames / s, one frame alone [95 %] | DSP | co-search's score minus this "
        "| co-search's frames / s over this |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm, part in result["arms"].items():
        dsp = ", ".join(f"{row['dsp']:g}" for row in part["seeds"])
        gap, times = part["co_search_minus_this"], part["co_search_times_faster_ci95"]
        beside = (
            "| | |"
            if arm == "co-search"
            else (
                f"| {estimate_text(gap['mean'], gap['ci95'], 'seed', '+.2f')} "
                f"| {estimate_text(part['co_search_times_faster'], times, 'seed', '.3f')} |"
            )
        )
        lines.append(
            f"| {arm}: {part['description']} | {estimate_text(part['mean'], part['mean_ci95'], 'seed')} "
            f"| {estimate_text(part['frames_per_s'], part['frames_per_s_ci95'], 'seed', ',.0f')} | {dsp} "
            f"{beside}"
        )
    lines += ["", f"Resampled for the scores: {result.get('resampled', BEFORE)}; for the frames per second: seeds."]
    return "\n".join(lines)


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    only_table: Annotated[bool, typer.Option("--only-table", help="Make no run; read the finished ones.")] = False,
    extra: Annotated[list[str] | None, typer.Argument(help="Further KEY=VALUE words of every run.")] = None,
) -> None:
    """Run, compare, print, save."""
    if not only_table:
        run_all(seeds, runs, [*WORDS, *(extra or [])])
    result = collect(seeds, runs)
    save(result, HERE / "co_search.json")
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
