"""Does a search credit the right operations? Utilities of each gradient strategy against training architectures alone.

``python -m cosearch.benchmarks.searches.credit`` lets the shipped teacher play, keeps the labelled frames, and uses them for
everything:
1. random architectures within the target (``--every``: each different network) are trained alone on the frames; their divergence
   from the teacher on held-out frames is the truth;
2. each strategy searches on the same frames for the same number of samples, its supernet and its logits on one loss;
3. printed are Spearman's correlation of the summed utilities with the truth over those architectures (1: the right order), and
   the divergence of each strategy's derived architecture trained alone, beside that of the random ones and of the largest one
   within the target; multiply-accumulates are a rule without any search.
``a3cs:1`` is ``a3cs`` with one path backward. One game with all of its networks takes some minutes of one core:
``python -m cosearch.benchmarks.searches.credit --every --samples 24000 --seeds 3 --strategies a3cs:1,a3cs:2,reinforce
env.name=minatar:breakout objective.latency_ratio=0.3``.
No environment is stepped after the frames are there, so that all differences come from how operations are credited.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from cosearch.benchmarks.results import program, save
from cosearch.config.run import resolve
from cosearch.planning.plan import Plan, make_plan
from cosearch.rl.learning import losses
from cosearch.rl.learning.subject import mixed_precision
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import Limit, derive, discretise
from cosearch.space.space import Architecture, SearchSpace
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.budgeted import tilt
from cosearch.strategies.regression import DrawnPaths
from cosearch.training.threads import set_threads
from latency_tables.errors import RequestError

HERE = Path(__file__).parent
CPU = torch.device("cpu")
BATCH, HELD_OUT, ENVS = 128, 4096, 64


class Frames:
    """Labelled frames of a teacher that plays on training levels; the last ``HELD_OUT`` are kept for testing.

    Args:
        plan: with a teacher.
        count: frames to collect, a multiple of the environments.
    """

    def __init__(self, plan: Plan, count: int) -> None:
        if plan.teacher is None:
            raise RequestError(f"there is no teacher for {plan.config.env.name}: `cosearch list teachers` shows all")
        teacher = Teacher(plan.teacher, device=CPU, bf16=True)
        env = make_task(plan.config.env, ENVS, 77)
        generator, observation = torch.Generator().manual_seed(1), env.observe()
        frames, labels = [], []
        with torch.inference_mode():
            for _ in range(count // ENVS):
                logits = teacher.forward(torch.from_numpy(observation))[0].float()
                frames.append(observation.copy())
                labels.append(F.log_softmax(logits, -1))
                env.send(torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0].numpy())
                observation = env.receive().frames
        env.close()
        self.frames, self.labels = torch.from_numpy(np.concatenate(frames)), torch.cat(labels).clone()
        self.train = len(self.frames) - HELD_OUT

    def loss(self, forward: Forward, generator: torch.Generator) -> Tensor:
        """Divergence from the teacher ``[]`` in nats on a random minibatch of the training frames."""
        index = torch.randint(0, self.train, (BATCH,), generator=generator)
        return losses.actor_distillation(F.log_softmax(forward(self.frames[index])[0].float(), -1), self.labels[index])

    def held_out(self, forward: Forward) -> float:
        """Divergence from the teacher in nats on the held-out frames."""
        with torch.inference_mode():
            parts = [F.log_softmax(forward(part)[0].float(), -1) for part in self.frames[self.train :].split(512)]
        return float(losses.actor_distillation(torch.cat(parts), self.labels[self.train :]))


def train_alone(plan: Plan, data: Frames, architecture: Architecture, samples: int, supernet: SuperNet | None = None) -> float:
    """Held-out divergence in nats of an architecture trained on ``samples`` frames, from a supernet's weights if given."""
    network = derive(architecture, torch.Generator().manual_seed(0), supernet)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
    forward = mixed_precision(network, CPU, True)
    _descend(plan, network, lambda generator: data.loss(forward, generator), samples, seed=1)
    return data.held_out(forward)


def search(
    plan: Plan, data: Frames, name: str, samples: int, seed: int, drawn: DrawnPaths | None = None
) -> tuple[list[list[float]], SuperNet]:
    """Utilities of each candidate and the supernet after a search on ``samples`` frames.

    ``name`` may end in ``:K``, the paths backward; ``drawn`` gets the paths with their losses.
    """
    config, streams = plan.config.strategy, Streams(seed)
    name, _, paths = name.partition(":")
    info, config = STRATEGIES.get(name), replace(config, active_paths=int(paths)) if paths else config
    strategy = info.make(plan.space, info.options(config), streams.torch("arch"))
    supernet = SuperNet(plan.space, streams.torch("weights"))
    supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out
    run = mixed_precision(supernet, CPU, True)
    limit, bound = plan.constraints[0].limit, plan.constraints[0].bound
    done, path = 0, None

    def loss(generator: torch.Generator) -> Tensor:
        nonlocal path
        strategy.arch.anneal(done / samples)
        strategy.arch.set_tilt(tilt(plan.space, strategy.scores(), limit, bound).rows)
        path = strategy.sample()
        strategy.arch.zero_grad()
        return data.loss(lambda frames: run(frames, strategy.weighted(path)), generator)

    def after(value: float) -> None:
        nonlocal done
        done += BATCH
        if done >= config.warmup_fraction * samples:
            strategy.step(path, value)
        if drawn is not None and path is not None:
            drawn.add(path.choices, value, done / samples)

    _descend(plan, supernet, loss, samples, seed=seed, after=after)
    return strategy.scores(), supernet


def _descend(plan: Plan, module: torch.nn.Module, loss: Any, samples: int, *, seed: int, after: Any = None) -> None:
    rl = plan.config.rl
    optimiser = torch.optim.Adam(module.parameters(), lr=rl.lr, eps=1e-5)
    generator = torch.Generator().manual_seed(seed)
    for step in range(samples // BATCH):
        for group in optimiser.param_groups:
            group["lr"] = rl.lr * (1.0 - 0.9 * step * BATCH / samples)
        optimiser.zero_grad(set_to_none=True)
        value = plan.config.distill.actor * loss(generator)
        value.backward()
        torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], rl.max_grad_norm)
        optimiser.step()
        if after is not None:
            after(float(value.detach()))


def different_networks(space: SearchSpace, limit: Limit) -> list[Architecture]:
    """One architecture for each different network within a limit, by enumeration.

    Raises:
        RequestError: the space has more than a million architectures.
    """
    sizes = [len(point.candidates) for point in space.points]
    if math.prod(sizes) > 1_000_000:
        raise RequestError(f"--every walks through all of a space, this one has {math.prod(sizes):,} architectures: leave it out")
    found: dict[object, Architecture] = {}
    for choices in itertools.product(*map(range, sizes)):
        if limit.meets(choices):
            architecture = space.architecture(choices)
            found.setdefault(tuple(architecture.ops()), architecture)
    return list(found.values())


def measure(
    plan: Plan, architectures: int | None, samples: int, strategies: list[str], seeds: int, frames: int = 40_960
) -> dict[str, Any]:
    """Truth, utilities and derived architectures.

    Args:
        plan: the task, with its target and space.
        architectures: random ones that are trained alone; None: every different network within the target.
        samples: frames of each training alone; a search takes twice as many.
        strategies: names of gradient strategies.
        seeds: searches of each strategy.
        frames: that the teacher labels.
    """
    data = Frames(plan, frames)
    limit = plan.constraints[0].limit
    generator = torch.Generator().manual_seed(0)
    drawn = different_networks(plan.space, limit) if architectures is None else []
    while architectures is not None and len(drawn) < architectures:
        found = plan.space.sample(generator)
        if limit.meets(found.choices):
            drawn.append(found)
    truth = [train_alone(plan, data, found, samples) for found in drawn]
    macs = [sum(op.macs for op in found.ops()) for found in drawn]
    largest = discretise(plan.space, plan.space.macs(), limit, joint=plan.space.joint_macs())
    result: dict[str, Any] = {
        "samples": samples,
        "every": architectures is None,
        "random": {"choices": [list(a.choices) for a in drawn], "divergence": truth},
        "largest": {
            "spearman": float(spearmanr(macs, [-t for t in truth]).statistic),
            "choices": list(largest.choice_names),
            "divergence": train_alone(plan, data, largest, samples),
        },
    }
    for name in strategies:
        result[name] = []
        for seed in range(seeds):
            scores, _ = search(plan, data, name, 2 * samples, seed)
            summed = [sum(row[c] for row, c in zip(scores, found.choices)) for found in drawn]
            derived = discretise(plan.space, scores, limit)
            result[name].append(
                {
                    "spearman": float(spearmanr(summed, [-t for t in truth]).statistic),
                    "choices": list(derived.choice_names),
                    "divergence": train_alone(plan, data, derived, samples),
                }
            )
    return result


def markdown(result: dict[str, Any], strategies: list[str]) -> str:
    """The table of the docs."""
    truth, largest = result["random"]["divergence"], result.get("largest")
    lines = [
        "| | correlation with training alone, each seed | derived architecture's divergence, trained alone (nats) |",
        "|---|---|---|",
        f"| {len(truth)} {'different networks' if result['every'] else 'random architectures'} | | best {min(truth):.3f}, "
        f"median {np.median(truth):.3f}, worst {max(truth):.3f} |",
    ]
    if largest is not None:  # results of before had no such row
        lines.append(f"| multiply-accumulates, the largest | {largest['spearman']:+.2f} | {largest['divergence']:.3f} |")
    for name in strategies:
        rows = result[name]
        lines.append(
            f"| {name} | {', '.join(format(r['spearman'], '+.2f') for r in rows)} | "
            f"{', '.join(format(r['divergence'], '.3f') for r in rows)} |"
        )
    return "\n".join(lines)


def main(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration of the task.")] = None,
    every: Annotated[bool, typer.Option(help="Train every different network alone instead of random ones.")] = False,
    architectures: Annotated[int, typer.Option(min=3, help="Random architectures that are trained alone.")] = 16,
    samples: Annotated[int, typer.Option(min=BATCH, help="Frames of each training alone.")] = 120_000,
    strategies: Annotated[
        str, typer.Option(help="One-level strategies, separated by commas; a3cs:K for K paths.")
    ] = "reinforce,a3cs",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each strategy.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.")] = 1,
) -> None:
    """Measure, save, print."""
    set_threads(threads)
    names = strategies.split(",")
    plan = make_plan(resolve(overrides=words or ()))
    result = measure(plan, None if every else architectures, samples, names, seeds)
    game = plan.config.env.name.partition(":")[2]
    save(result, HERE / f"credit-{game}.json")
    typer.echo(markdown(result, names))


if __name__ == "__main__":
    program(main)
