"""Speed is worth nothing if less is learned: score against steps, this package's PPO beside its peers, on a workload of theirs.

``python -m cosearch.benchmarks.learning.equal_curves`` trains each contestant of the throughput benchmark from several seeds with
the same hyper-parameters, and prints the mean return of the last 100 training episodes at a few steps: mean over the seeds, 95 %
t interval. ``--workload`` chooses which (MinAtar's breakout by default), ``--rollout-steps`` shortens its rollouts at the same
minibatches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cosearch.benchmarks.peers.contestants import CONTESTANTS, make_contestant
from cosearch.benchmarks.peers.workloads import WORKLOADS, Workload
from cosearch.benchmarks.results import program
from cosearch.benchmarks.speed.throughput import shortened
from cosearch.cli.environment import prepare_process
from cosearch.record.durable import write_bytes_atomic
from cosearch.statistics import estimate_text, student_interval

HERE = Path(__file__).parent
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


def saved(workload: str) -> Path:
    """Where the curves of a workload are kept."""
    return HERE / f"equal_curves-{workload}.json"


def markdown(result: dict[str, Any]) -> str:
    """The table of the documentation."""
    steps = result["steps"]
    names = [f"{name} [95 %]" for name in result["curves"]]
    lines = ["| " + " | ".join(["steps", *names]) + " |", "|---" * (1 + len(names)) + "|"]
    for point in POINTS:
        cells = []
        for curves in result["curves"].values():
            at = [max((pair for pair in found if pair[0] <= point * steps + 1), key=lambda pair: pair[0])[1] for found in curves]
            cells.append(estimate_text(float(np.mean(at)), student_interval(at), "seed"))
        lines.append(f"| {point * steps:,.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    workload_name: Annotated[str, typer.Option("--workload", help=f"One of {', '.join(WORKLOADS)}.")] = "small-minatar",
    steps: Annotated[int, typer.Option(min=1, help="Environment steps of each training.")] = 204_800,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 .. n - 1.")] = 3,
    rollout_steps: Annotated[int, typer.Option(min=0, help="Shorter rollouts; 0: the workload's.")] = 0,
    save: Annotated[bool, typer.Option("--save", help="Keep the curves beside this file.")] = False,
) -> None:
    """Train, print, keep."""
    prepare_process()
    if workload_name not in WORKLOADS:
        raise typer.BadParameter(f"expected a workload of {', '.join(WORKLOADS)}, got {workload_name}")
    workload = WORKLOADS[workload_name]
    if rollout_steps:
        workload = shortened(workload, rollout_steps)
    result: dict[str, Any] = {
        "workload": workload.name,
        "rollout_steps": workload.rollout_steps,
        "steps": steps,
        "curves": {name: [] for name in CONTESTANTS},
    }
    for seed in range(seeds):
        for name, curves in result["curves"].items():
            curves.append(curve(name, workload, seed, steps))
            typer.echo(f"{name}, seed {seed}: {curves[-1][-1][1]:.2f}", err=True)
        if save:  # the seeds so far
            write_bytes_atomic(saved(workload.name), (json.dumps(result) + "\n").encode())
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
