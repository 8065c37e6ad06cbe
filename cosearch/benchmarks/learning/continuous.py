"""Continuous control: this package's PPO and SAC beside stable-baselines3's on MuJoCo, the same values and network sizes.

``python -m cosearch.benchmarks.learning.continuous`` trains each method on each task from several seeds, and evaluates it at ten
equal distances by the same deterministic episodes (``peers.continuous_control``). ``continuous.json`` beside this file has a row
for each training; those that are there are not trained again, so the command goes on where it was stopped. Tables give the
inter-quartile mean over seeds with its bootstrap interval (Agarwal et al. 2021), and steps a second of processor time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.peers.continuous_control import WAYS, Curve, ours, theirs
from cosearch.benchmarks.results import program, saved
from cosearch.cli.environment import prepare_process
from cosearch.planning.builtins import load_builtins
from cosearch.statistics import estimate_text, iqm_estimate

HERE = Path(__file__).parent
TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
METHODS: dict[str, Callable[..., Curve]] = {
    "ppo": partial(ours, "ppo"),
    "sb3-ppo": partial(theirs, "ppo"),
    "sb3-ppo-apart": partial(theirs, "ppo", apart=True),
    "sac": partial(ours, "sac"),
    "sb3-sac": partial(theirs, "sac"),
}
NAMES = {
    "ppo": "PPO",
    "sb3-ppo": "PPO of stable-baselines3",
    "sb3-ppo-apart": "the same, two networks",
    "sac": "SAC",
    "sb3-sac": "SAC of stable-baselines3",
}
POINTS = 10
Row = dict[str, Any]


def algorithm_of(method: str) -> str:
    """``ppo`` or ``sac``."""
    return "sac" if method.endswith("sac") else "ppo"


def measure(method: str, task: str, seed: int, steps: int) -> Row:
    """One training.

    Args:
        method: one of :data:`METHODS`.
        task: a Gymnasium id.
        seed: of everything.
        steps: environment steps.
    """
    curve = METHODS[method](task, seed, steps, steps // POINTS)
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "steps": steps,
        "curve": curve.points,
        "steps_done": curve.steps,
        "cpu_s": round(curve.cpu_s, 1),
    }


def same(row: Row, method: str, task: str, seed: int, steps: int) -> bool:
    """Whether a row is of that training."""
    return (row["method"], row["task"], row["seed"], row["steps"]) == (method, task, seed, steps)


def at(curve: Sequence[Sequence[float]], steps: float, way: int = 0) -> float:
    """The mean return of the last evaluation up to so many steps.

    Args:
        curve: environment steps and a mean return for each way of acting, in order of the steps.
        steps: environment steps; a training overshoots by less than one rollout.
        way: which of the returns.
    """
    return max((point for point in curve if point[0] <= steps * 1.05), key=lambda point: point[0])[1 + way]


def curves_table(rows: Sequence[Row], task: str, steps: int, way: int) -> str:
    """Scores of the methods at a fifth, at half and at the end of the steps.

    Args:
        rows: of one algorithm, one task and one number of steps.
        task, steps: these.
        way: which of the algorithm's ways of acting.
    """
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    acting = "most likely actions" if WAYS[algorithm_of(methods[0])][way] else "drawn actions"
    lines = [
        "| " + " | ".join([f"{task}, {acting}, steps", *(NAMES[method] for method in methods)]) + " |",
        "|---" * (1 + len(methods)) + "|",
    ]
    for share in (0.2, 0.5, 1.0):
        cells = []
        for method in methods:
            found = iqm_estimate([[at(row["curve"], share * steps, way) for row in rows if row["method"] == method]])
            cells.append(estimate_text(found.value, found.ci95, "seed", ",.0f"))
        lines.append(f"| {share * steps:,.0f} | " + " | ".join(cells) + " |")
    seeds = {method: sum(row["method"] == method for row in rows) for method in methods}
    lines.append("| seeds | " + " | ".join(str(seeds[method]) for method in methods) + " |")
    return "\n".join(lines)


def speed_table(rows: Sequence[Row]) -> str:
    """Environment steps a second of processor time, the median over the trainings of each method and task."""
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    lines = ["| steps per second of one core | " + " | ".join(tasks) + " |", "|---" * (1 + len(tasks)) + "|"]
    for method in METHODS:
        rates = [[r["steps_done"] / r["cpu_s"] for r in rows if (r["method"], r["task"]) == (method, task)] for task in tasks]
        if any(rates):
            lines.append(f"| {NAMES[method]} | " + " | ".join(f"{np.median(of):,.0f}" if of else "" for of in rates) + " |")
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """All tables of the page."""
    parts = []
    for algorithm in ("ppo", "sac"):
        mine = [row for row in rows if algorithm_of(row["method"]) == algorithm]
        for task in TASKS:
            own = [row for row in mine if row["task"] == task]
            budgets = sorted({row["steps"] for row in own})
            for steps, way in ((steps, way) for steps in budgets for way in reversed(range(len(WAYS[algorithm])))):
                parts.append(curves_table([row for row in own if row["steps"] == steps], task, steps, way))
    return "\n\n".join([*parts, speed_table(rows)])


def main(
    tasks: Annotated[list[str] | None, typer.Option("--task", help=f"Of {', '.join(TASKS)}; may be given again.")] = None,
    methods: Annotated[list[str] | None, typer.Option("--method", help=f"Of {', '.join(METHODS)}; may be given again.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 .. n - 1.")] = 5,
    ppo_steps: Annotated[int, typer.Option(min=POINTS, help="Environment steps of each training by PPO.")] = 1_000_000,
    sac_steps: Annotated[int, typer.Option(min=POINTS, help="Environment steps of each training by SAC.")] = 1_000_000,
    out: Annotated[Path, typer.Option(help="The rows; those in it are not trained again.")] = HERE / "continuous.json",
) -> None:
    """Train what is missing, save after each training, print the tables."""
    prepare_process()
    tasks, methods = tasks or list(TASKS), methods or list(METHODS)
    for given, known in ((tasks, TASKS), (methods, tuple(METHODS))):
        if wrong := [name for name in given if name not in known]:
            raise typer.BadParameter(f"expected some of {', '.join(known)}, got {', '.join(wrong)}")
    load_builtins()
    torch.set_num_threads(1)
    rows: list[Row] = saved(out).get("rows", [])
    for seed in range(seeds):
        for task in tasks:
            for method in methods:
                steps = ppo_steps if algorithm_of(method) == "ppo" else sac_steps
                if any(same(row, method, task, seed, steps) for row in rows):
                    continue
                rows.append(measure(method, task, seed, steps))
                keep({"rows": rows}, out, DOCS / "evidence" / "continuous.md", "continuous", markdown(rows))
                typer.echo(f"{method} {task} seed {seed}: {rows[-1]['curve'][-1]}, {rows[-1]['cpu_s']} s", err=True)
    typer.echo(markdown(rows))


if __name__ == "__main__":
    program(main)
