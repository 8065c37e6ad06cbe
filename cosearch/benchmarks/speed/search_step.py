"""What the search costs beside plain training: seconds of one update against the derived network alone.

``python -m cosearch.benchmarks.speed.search_step`` interleaves the score function and gates with K = 1 and 2 in one process, on
the same rollout sizes. The paths are those of the derived architecture (with K = 2 the second candidate is drawn as in the
search), so that the ratio shows the machinery and not that other architectures are larger; the ratio over freely sampled paths is
printed beside it.
"""

from __future__ import annotations

import json
import resource
import time
from typing import Annotated, Any

import numpy as np
import typer

from cosearch.benchmarks.results import program
from cosearch.cli.environment import prepare_process


def measure(rounds: int, threads: int, words: list[str]) -> dict[str, Any]:
    """Time all variants in turns.

    Args:
        rounds: updates of each variant.
        threads: CPU threads; 0 for all cores.
        words: further KEY=VALUE words.
    """
    import torch

    from cosearch.config.run import resolve
    from cosearch.pipeline.search.derivation import most_likely_feasible
    from cosearch.planning.plan import make_plan
    from cosearch.rl.learning.subject import NetworkSubject
    from cosearch.seeding import Streams
    from cosearch.space.derivation.derive import derive
    from cosearch.space.supernet import SuperNet
    from cosearch.strategies.budgeted import tilt
    from cosearch.strategies.gradient.one_level import OneLevelOptions, OneLevelStrategy
    from cosearch.strategies.gradient.score_function import ScoreFunctionOptions, ScoreFunctionStrategy
    from cosearch.training.algorithms import make_training
    from cosearch.training.supernet_subject import SuperNetSubject
    from cosearch.training.threads import set_threads

    set_threads(threads)
    plan = make_plan(resolve(overrides=["strategy.paths_per_rollout=1", *words]))
    config, device = plan.config, torch.device("cpu")
    streams = Streams(0)
    teacher = plan.load_teacher(device)
    limit = plan.constraints[0].limit
    held = tilt(plan.space, [[0.0] * len(row) for row in limit.costs], limit, plan.constraints[0].bound)
    start = [[-value for value in row] for row in held.rows]
    generator = torch.Generator().manual_seed(1)
    scores = [[float(torch.rand((), generator=generator)) for _ in row] for row in start]
    architecture = most_likely_feasible(plan, scores)
    subjects: dict[str, Any] = {
        "alone": NetworkSubject(derive(architecture, streams.torch("weights")), lr=1e-3, bf16=config.rl.bf16, device=device)
    }
    variants = (
        ("reinforce", lambda arch: ScoreFunctionStrategy(plan.space, ScoreFunctionOptions(), arch), True),
        ("K=1", lambda arch: OneLevelStrategy(plan.space, OneLevelOptions(active_paths=1), arch), True),
        ("K=2", lambda arch: OneLevelStrategy(plan.space, OneLevelOptions(active_paths=2), arch), True),
        ("K=1, sampled paths", lambda arch: OneLevelStrategy(plan.space, OneLevelOptions(active_paths=1), arch), False),
    )
    for name, make, pinned in variants:
        strategy = make(streams.torch("arch"))
        strategy.arch.set_tilt(
            [
                [-value - 20.0 * (pinned and k == choice) for k, value in enumerate(row)]
                for row, choice in zip(start, architecture.choices)
            ]
        )
        subjects[name] = SuperNetSubject(
            SuperNet(plan.space, streams.torch("weights")),
            strategy,
            [],
            paths=1,
            fresh=True,
            lr=1e-3,
            bf16=config.rl.bf16,
            device=device,
            warmup=0.0,
        )
    trainings = {name: make_training(config, subject, streams, teacher, total_steps=10**9) for name, subject in subjects.items()}
    for training in trainings.values():
        training.advance()
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for _ in range(rounds):
        for name, training in trainings.items():
            began = time.perf_counter()
            training.advance()
            seconds[name].append(time.perf_counter() - began)
    for training in trainings.values():
        training.close()
    alone = np.asarray(seconds["alone"])
    return {
        "architecture": list(architecture.choice_names),
        "rounds": rounds,
        "update_s": {name: float(np.median(values)) for name, values in seconds.items()},
        "ratio": {name: float(np.median(np.asarray(values) / alone)) for name, values in seconds.items()},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Updates of each variant.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.")] = 0,
    words: Annotated[list[str] | None, typer.Argument(help="Further KEY=VALUE words.")] = None,
) -> None:
    """Measure and print."""
    prepare_process()
    typer.echo(json.dumps(measure(rounds, threads, words or []), indent=1))


if __name__ == "__main__":
    program(main)
