"""Agents with and without a memory on a task that needs one: the T-maze, over seeds.

``python -m cosearch.benchmarks.searches.remembering`` trains the same small network with ``none``, stacked features, a GRU and an
LSTM before its head, each with the same steps, and plays whole episodes. ``remembering.json`` beside this file has the mean
returns; seeds that are there are not trained again.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import check_same, program, saved
from cosearch.config.run import Config, resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.statistics import mean_interval
from cosearch.training.algorithms import make_training

HERE = Path(__file__).parent
TASK = "gym:cosearch.testing.tmaze:TMaze-v0"
MEMORIES = ("none", "stack_k4", "gru_w32", "lstm_w32")
EPISODES = 512
CPU = torch.device("cpu")


def settings(memory: str, length: int, seed: int) -> Config:
    """One configuration for all: 32 environments, 64 steps a rollout, minibatches of 256 frames.

    Args:
        memory: candidate before the head.
        length: of the corridor, steps.
        seed: of the run.
    """
    space = {"stem_width": 32, "stage_widths": [32], "stage_repeats": [1], "memory": [memory]}
    words = [
        f"env.name={TASK}",
        f'env.kwargs={{"length": {length}}}',
        "env.num_envs=32",
        "rl.rollout_steps=64",
        "rl.minibatch=256",
        "rl.gamma=0.98",
        "rl.bf16=false",
        "threads=1",
        "distill.teacher=none",
        f"seed={seed}",
        f"space.values={json.dumps(space)}",
    ]
    return resolve(overrides=words)


def measure(length: int, steps: int, seed: int) -> dict[str, Any]:
    """All trainings of one seed: mean return in whole episodes, actions sampled, and seconds, by name.

    Args:
        length: of the corridor, steps.
        steps: environment steps of each training.
        seed: of all.
    """
    found: dict[str, Any] = {}
    for memory in MEMORIES:
        config, begun = settings(memory, length, seed), time.perf_counter()
        streams, space = Streams(config.seed), make_space(config)
        network = derive(space.architecture([0] * len(space.points)), streams.torch("weights"))
        subject = NetworkSubject(network, lr=config.rl.lr, bf16=False, device=CPU)
        training = make_training(config, subject, streams, None, total_steps=steps)
        try:
            training.run(lambda line: None)
        finally:
            training.close()
        env = make_task(config.env, 64, streams.derive("eval"), test=True)
        try:
            score = evaluate(network.eval(), env, EPISODES, streams.torch("eval"))
        finally:
            env.close()
        found[memory] = {"mean": score.mean, "episodes": len(score.returns), "wall_s": time.perf_counter() - begun}
    return found


def markdown(result: dict[str, Any]) -> str:
    """The table of the docs."""
    lines = ["| before the head | mean return of each seed | mean over seeds (95 %) |", "|---|---|---|"]
    for name in next(iter(result["seeds"].values())):
        means = [row[name]["mean"] for row in result["seeds"].values()]
        interval = mean_interval(means)
        span = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
        lines.append(f"| {name} | {', '.join(format(m, '.2f') for m in means)} | {sum(means) / len(means):.2f}{span} |")
    return "\n".join(lines)


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each network.")] = 5,
    length: Annotated[int, typer.Option(min=1, help="Steps from the cue to the junction.")] = 8,
    steps: Annotated[int, typer.Option(min=2048, help="Environment steps of each training.")] = 49_152,
    out: Annotated[Path, typer.Option(help="The results; seeds in it are not trained again.")] = HERE / "remembering.json",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for a machine.")] = False,
) -> None:
    """Measure, save after each seed, print."""
    load_builtins()
    torch.set_num_threads(1)
    asked = {"task": TASK, "length": length, "steps": steps}
    result: dict[str, Any] = {**asked, "seeds": {}} | saved(out)
    check_same(out, result, asked)
    rows = result["seeds"]
    for seed in range(seeds):
        if str(seed) not in rows:
            rows[str(seed)] = measure(length, steps, seed)
        keep(result, out, DOCS / "evidence" / "remembering.md", "remembering", markdown(result))
    typer.echo(json.dumps(result) if as_json else markdown(result))


if __name__ == "__main__":
    program(main)
