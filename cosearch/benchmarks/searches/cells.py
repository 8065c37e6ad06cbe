"""RL-DARTS on the micro cell space: does the supernet learn, and are its cells better than random ones and a hand-made block?

``python -m cosearch.benchmarks.searches.cells --seeds 3``; for each seed
1. ``search``: the softmax mixture of all candidates acts and learns in the environment (no teacher, no target): its curve;
2. ``derived``: the cell that it found, trained from scratch;
3. ``random-0``, ``random-1``: uniformly drawn cells, trained from scratch;
4. ``impala``: the residual block of the IMPALA-CNN in the same scaffold, depths and head, trained from scratch;
all of 2 to 4 with the same number of environment steps, updates and settings, and evaluated on the same number of episodes;
5. with ``--random-times N``, N above 1: the random cells of 3 trained from scratch with N times those steps as well.
Each finished part is saved at once; the same command goes on with those that are missing. Printed are means over the seeds with
Student's 95 % intervals, and the paired differences to the derived cells.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from cosearch.benchmarks.results import check_same, program, save, saved
from cosearch.config.run import Config, resolve
from cosearch.planning.builtins import load_builtins
from cosearch.record.metrics import number
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.cells.cell import CellConfig, cell_space
from cosearch.space.derivation.derive import discretise
from cosearch.space.network import AgentNetwork, impala_cnn
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import SuperNet
from cosearch.statistics import estimate_text, student_interval
from cosearch.strategies.base import STRATEGIES
from cosearch.training.algorithms import make_training
from cosearch.training.supernet_subject import SuperNetSubject
from cosearch.training.threads import set_threads
from latency_tables.worklists import Network

OUT = Path(__file__).with_suffix(".json")
CPU = torch.device("cpu")
RANDOM = 2
SETTINGS = (
    "env.num_envs=64",
    "rl.rollout_steps=32",
    "rl.gamma=0.99",
    "rl.lr=1e-3",
    "rl.value_weight=0.5",
    "rl.minibatch=256",
    "rl.micro_batch=256",
    "rl.max_grad_norm=0.5",
    "distill.teacher=none",
)


def search(config: Config, space: SearchSpace, name: str, steps: int, seed: int) -> dict[str, Any]:
    """A supernet's search.

    Returns:
        ``curve`` (pairs of step and mean return of the latest training episodes), ``choices``, ``names``, ``entropy`` (nats),
        ``wall_s``.
    """
    streams, info = Streams(seed), STRATEGIES.get(name)
    strategy = info.make(space, info.options(config.strategy), streams.torch("arch"))
    subject = SuperNetSubject(
        SuperNet(space, streams.torch("weights")),
        strategy,
        [],
        paths=info.paths(config.strategy),
        fresh=True,
        lr=config.rl.lr,
        bf16=config.rl.bf16,
        device=CPU,
        warmup=0.0,
    )
    trained = _train(config, subject, streams, steps)
    found = discretise(space, strategy.scores())
    return {
        **trained,
        "choices": list(found.choices),
        "names": list(found.choice_names),
        "entropy": strategy.metrics()["arch_entropy"],
    }


def train_alone(config: Config, network: Network, steps: int, seed: int, episodes: int) -> dict[str, Any]:
    """A network trained from scratch.

    Returns:
        ``score`` (mean return of ``episodes`` episodes, actions sampled), ``curve``, ``macs``, ``params``, ``wall_s``.
    """
    streams = Streams(1000 + seed)
    agent = AgentNetwork(network, streams.torch("weights"), network.wiring)
    trained = _train(config, NetworkSubject(agent, lr=config.rl.lr, bf16=config.rl.bf16, device=CPU), streams, steps)
    env = make_task(config.env, min(64, episodes), streams.derive("eval"), test=True)
    try:
        score = evaluate(agent, env, episodes, torch.Generator().manual_seed(seed))
    finally:
        env.close()
    return {"score": score.mean, **trained, "macs": sum(op.macs for op in network), "params": sum(op.params for op in network)}


def _train(config: Config, subject: Any, streams: Streams, steps: int) -> dict[str, Any]:
    started = time.perf_counter()
    training = make_training(config, subject, streams, None, total_steps=steps)
    curve: list[list[float | None]] = []
    try:
        while not training.finished:
            if hasattr(subject, "set_progress"):
                subject.set_progress(training.progress)
            row = training.advance()
            curve.append([number(row, "step"), number(row, "score_train")])
    finally:
        training.close()
    every = max(1, len(curve) // 20)
    return {"curve": curve[every - 1 :: every], "wall_s": time.perf_counter() - started}


def random_keys(times: int) -> list[str]:
    """Keys of the random cells that are trained with ``times`` times the steps."""
    return [f"random-{i}" + ("" if times == 1 else f"-x{times}") for i in range(RANDOM)]


def markdown(result: dict[str, Any]) -> str:
    """The table of the docs: one line for each kind of network that every seed has."""
    seeds = [rows for _, rows in sorted(result["seeds"].items()) if "impala" in rows]
    if not seeds:
        return "no seed is finished yet"
    groups = {"derived": ["derived"], "random": random_keys(1), "impala": ["impala"]}
    times = {int(key.rpartition("-x")[2]) for rows in seeds for key in rows if "-x" in key}
    for more in sorted(times):
        if all(key in rows for rows in seeds for key in random_keys(more)):
            groups[f"random, {more} times the steps"] = random_keys(more)
    scores = {kind: [float(np.mean([rows[k]["score"] for k in keys])) for rows in seeds] for kind, keys in groups.items()}
    lines = [
        f"{result['env']}, {len(seeds)} seeds, {result['search_steps']:,} steps of search, {result['train_steps']:,} of "
        "each training from scratch",
        "",
        "| | score, mean [95 %] | derived minus this, paired [95 %] | MACs |",
        "|---|---|---|---|",
    ]
    for kind, keys in groups.items():
        gaps = [a - b for a, b in zip(scores["derived"], scores[kind])]
        macs = np.mean([rows[k]["macs"] for rows in seeds for k in keys])
        versus = "" if kind == "derived" else estimate_text(float(np.mean(gaps)), student_interval(gaps), "seed", "+.2f")
        mean = estimate_text(float(np.mean(scores[kind])), student_interval(scores[kind]), "seed")
        lines.append(f"| {kind} | {mean} | {versus} | {macs:,.0f} |")
    first, last = ([rows["search"]["curve"][i][1] for rows in seeds] for i in (0, -1))
    lines += [
        "",
        f"supernet's training score, first and last twentieth: {np.mean(first):.2f} -> {np.mean(last):.2f} "
        f"({', '.join(format(v, '.2f') for v in last)})",
    ]
    return "\n".join(lines)


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 3,
    env: Annotated[str, typer.Option(help="Environment.")] = "minatar:breakout",
    strategy: Annotated[str, typer.Option(help="Gradient strategy.")] = "rl-darts",
    search_steps: Annotated[int, typer.Option(min=2048, help="Environment steps of a search.")] = 204_800,
    train_steps: Annotated[int, typer.Option(min=2048, help="Environment steps of each training from scratch.")] = 204_800,
    depths: Annotated[str, typer.Option(help="Channels of the sections, separated by commas.")] = "16,32",
    normal_cells: Annotated[int, typer.Option(min=1, help="Cells of a section; the IMPALA block has always two.")] = 1,
    random_times: Annotated[int, typer.Option(min=1, help="The random cells also with so many times the steps.")] = 1,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each evaluation.")] = 256,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.")] = 1,
    out: Annotated[Path, typer.Option(help="JSON file; finished parts in it are kept.")] = OUT,
) -> None:
    """Measure what is missing, save after each part, print."""
    load_builtins()
    set_threads(threads)
    config = resolve(overrides=[*SETTINGS, f"env.name={env}", f"strategy.name={strategy}"])
    widths = tuple(int(part) for part in depths.split(","))
    probe = make_env(env, EnvOptions(1, 0))
    frame_shape, actions = probe.frame_shape, probe.num_actions
    probe.close()
    space = cell_space(CellConfig(depths=widths, normal_cells=normal_cells), frame_shape, actions)
    facts = {
        "env": env,
        "strategy": strategy,
        "search_steps": search_steps,
        "train_steps": train_steps,
        "episodes": episodes,
        "space": space.config,
        "settings": list(SETTINGS),
    }
    result: dict[str, Any] = {**facts, "seeds": {}} | saved(out)
    check_same(out, result, facts)
    for seed in range(seeds):
        rows = result["seeds"].setdefault(str(seed), {})

        def keep(key: str, made: dict[str, Any], rows: dict[str, Any] = rows) -> None:
            rows[key] = made
            save(result, out)

        if "search" not in rows:
            keep("search", search(config, space, strategy, search_steps, seed))
        drawn = [space.sample(torch.Generator().manual_seed(Streams(seed).derive("arch", 1 + i))) for i in range(RANDOM)]
        networks = {
            "derived": space.architecture(rows["search"]["choices"]).network(),
            **{key: architecture.network() for key, architecture in zip(random_keys(1), drawn)},
            "impala": Network.of(impala_cnn(frame_shape, actions, widths)),
            **{key: architecture.network() for key, architecture in zip(random_keys(random_times), drawn)},
        }
        for key, network in networks.items():
            if key not in rows:
                times = random_times if "-x" in key else 1
                keep(key, train_alone(config, network, times * train_steps, seed, episodes))
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
