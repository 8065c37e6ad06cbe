"""Speed is worth nothing if less is learned: score against steps, this package's PPO beside its peers, on MinAtar breakout.

``python -m cosearch.benchmarks.equal_curves`` trains each contestant of the throughput benchmark from several seeds with the same
hyper-parameters, and prints the mean return of the last 100 training episodes at a few steps: mean over the seeds, 95 % t
interval.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cosearch.benchmarks.contestants import CONTESTANTS, make_contestant
from cosearch.benchmarks.workloads import WORKLOADS, Workload
from cosearch.cli.environment import prepare_process

SAVED = Path(__file__).with_suffix(".json")
POINTS = (0.25, 0.5, 0.75, 1.0)  # of the steps


def curve(name: str, workload: Workload, seed: int, steps: int) -> list[tuple[int, float]]:
    """(environment steps, score) after each update, once an episode has ended.

    Args:
        name: of the contestant.
        workload: what it trains.
        seed: of everything.
        steps: until when; rounded up to whole updates.
    """
    contestant, found, done = make_contestant(name, workload, seed, 1), [], 0
    while done < steps:
        contestant.advance()
        done += workload.steps_per_update
        score = contestant.score()
        if score is not None:
            found.append((done, score))
    contestant.close()
    return found


def mean_and_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval; the interval is the point for a single value."""
    from scipy.stats import t

    mean = float(np.mean(values))
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return mean, mean - half, mean + half


def markdown(result: dict[str, Any]) -> str:
    """The table of the documentation."""
    steps = result["steps"]
    names = [f"{name} [95 %]" for name in result["curves"]]
    lines = ["| " + " | ".join(["steps", *names]) + " |", "|---" * (1 + len(names)) + "|"]
    for point in POINTS:
        cells = []
        for curves in result["curves"].values():
            at = [max((pair for pair in found if pair[0] <= point * steps + 1), key=lambda pair: pair[0])[1] for found in curves]
            cells.append("{:.2f} [{:.2f}, {:.2f}]".format(*mean_and_interval(at)))
        lines.append(f"| {point * steps:,.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    steps: Annotated[int, typer.Option(min=1, help="Environment steps of each training.")] = 204_800,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 .. n - 1.")] = 3,
    save: Annotated[bool, typer.Option("--save", help="Keep the curves beside this file.")] = False,
) -> None:
    """Train, print, keep."""
    prepare_process()
    workload = WORKLOADS["small-minatar"]
    curves: dict[str, list[Any]] = {name: [] for name in CONTESTANTS}
    for seed in range(seeds):
        for name in CONTESTANTS:
            curves[name].append(curve(name, workload, seed, steps))
            typer.echo(f"{name}, seed {seed}: {curves[name][-1][-1][1]:.2f}", err=True)
    result = {"workload": workload.name, "steps": steps, "curves": curves}
    if save:
        SAVED.write_text(json.dumps(result) + "\n", encoding="utf-8")
    typer.echo(markdown(result))


if __name__ == "__main__":
    typer.run(main)
