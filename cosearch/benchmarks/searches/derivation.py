"""What should an architecture be derived from: the scores that a search learned, or a regression over all paths that it drew?

``python -m cosearch.benchmarks.searches.derivation`` compares both on the same searches of ``reinforce``, and writes
``derivation.json``:
1. a toy whose truth is known: losses are sums of one number a candidate, with noise, on the space, costs and target of the
   default run; two lengths of the search. Rank correlation with the truth over feasible architectures, and regret: 0 for the best
   feasible one, 1 for the median of them;
2. real networks: random feasible architectures are trained alone on frames that a teacher labels (``credit``), and searches on
   the same frames are compared with them, with the paths of the warm-up in the regression and without;
3. a bracket: the shortlist of each search by its regression (the largest network is on it) is trained shortly from the
   searched weights; what it picks is compared with the first on the list, each by its training alone.
What is done already is kept in the file, so that a second command goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.stats import spearmanr

from cosearch.benchmarks.results import check_same, program, save, saved
from cosearch.benchmarks.searches.credit import Frames, search, train_alone
from cosearch.config.run import resolve
from cosearch.planning.plan import Plan, make_plan
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import discretise
from cosearch.space.derivation.shortlist import shortlist
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.budgeted import tilt
from cosearch.strategies.regression import DrawnPaths, fit_scores
from cosearch.training.threads import set_threads

HERE = Path(__file__).parent
NAME = "reinforce"
TOY_STEPS, TOY_NOISE, TOY_TRUTHS, POOL = (672, 2624), (0.5, 1.0), 4, 300
BRACKET, SHORT = 4, 10  # candidates; share of the frames of a training alone that each has, one over this
SAMPLES = 60_000  # frames of each training and search
REAL = ("env.name=minatar:breakout", "objective.latency_ratio=0.4")
Row = dict[str, float]


def compared(plan: Plan, scores: list[list[float]], pool: list[tuple[int, ...]], truth: np.ndarray, best: float | None) -> Row:
    """Rank correlation of summed scores with the truth over a pool; where the best is known, the regret of what they derive.

    Args:
        plan: space and limits.
        scores: for each point one a candidate.
        pool: choices of feasible architectures.
        truth: of each, ``[len(pool)]``, the higher the better.
        best: truth of the best feasible architecture; None where it is not known.
    """
    summed = [sum(row[c] for row, c in zip(scores, choices)) for choices in pool]
    row = {"spearman": float(spearmanr(summed, truth).statistic)}
    if best is not None:
        found = discretise(plan.space, scores, plan.constraints[0].limit).choices
        got = truth[pool.index(found)] if found in pool else np.nan
        row["regret"] = float((best - got) / (best - np.median(truth)))
    return row


def feasible(plan: Plan, count: int, seed: int) -> list[tuple[int, ...]]:
    """Different architectures within the target, drawn as a search draws before it has learned anything.

    Args:
        plan: space and target.
        count: how many.
        seed: of the draws.
    """
    info, limit = STRATEGIES.get(NAME), plan.constraints[0].limit
    strategy = info.make(plan.space, info.options(plan.config.strategy), Streams(seed).torch("eval"))
    strategy.arch.set_tilt(tilt(plan.space, strategy.scores(), limit, limit.target).rows)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        choices = strategy.sample().choices
        if limit.meets(choices):
            found[choices] = None
    return list(found)


def toy(plan: Plan, steps: int, noise: float, seed: int) -> dict[str, Row]:
    """One search on an additive truth of variance 1 whose loss and spread fall five- and fourfold while the weights would learn.

    Args:
        plan: space, costs and target.
        steps: minibatches.
        noise: standard deviation of a minibatch's noise, in units of that of the architectures.
        seed: of truth and search.

    Returns:
        For ``scores`` and ``regression`` see :func:`compared`.
    """
    random, config, limit = np.random.default_rng(seed), plan.config.strategy, plan.constraints[0].limit
    sizes = [len(point.candidates) for point in plan.space.points]
    worth = [random.normal(size=size) / len(sizes) ** 0.5 for size in sizes]

    def value(choices: tuple[int, ...]) -> float:
        return float(sum(row[c] for row, c in zip(worth, choices)))

    strategy = STRATEGIES.get(NAME).make(plan.space, STRATEGIES.get(NAME).options(config), Streams(seed).torch("arch"))
    drawn = DrawnPaths(len(sizes))
    for step in range(steps):
        progress = step / steps
        if step % 8 == 0:
            strategy.arch.set_tilt(tilt(plan.space, strategy.scores(), limit, limit.target).rows)
        path = strategy.sample()
        fallen = np.exp(-5.0 * progress)
        loss = 5.0 * fallen + (1.0 + 3.0 * fallen) * (-value(path.choices) + noise * random.normal())
        strategy.arch.zero_grad()
        if progress >= config.warmup_fraction:
            strategy.step(path, loss)
            drawn.add(path.choices, loss, progress)
    pool = feasible(plan, POOL, seed)
    fit = fit_scores(sizes, drawn)
    assert fit is not None  # the toy's losses differ
    ways = {"scores": strategy.scores(), "regression": fit.scores}
    best = discretise(plan.space, [row.tolist() for row in worth], limit).choices
    pool += [tuple(best), *(tuple(discretise(plan.space, scores, limit).choices) for scores in ways.values())]
    truth = np.array([value(choices) for choices in pool])
    return {way: compared(plan, scores, pool, truth, value(tuple(best))) for way, scores in ways.items()}


def real(plan: Plan, result: dict[str, Any], file: Path, architectures: int, samples: int, seeds: int) -> None:
    """Train architectures alone, search, compare; each step is added to the result and to its file.

    Args:
        plan: with a teacher.
        result: what there is already.
        file: gets it after each step.
        architectures: random feasible ones.
        samples: frames of each training alone and of a search.
        seeds: searches.
    """
    data, result["samples"] = Frames(plan, 20_480), samples
    pool = [plan.space.architecture(choices) for choices in feasible(plan, architectures, 1000)]
    alone = result.setdefault("alone", [])
    for architecture in pool[len(alone) :]:
        alone.append({"choices": list(architecture.choices), "divergence": train_alone(plan, data, architecture, samples)})
        save(result, file)
    truth, choices = -np.array([one["divergence"] for one in alone]), [tuple(one["choices"]) for one in alone]
    rows = result.setdefault("searches", [])
    macs = plan.space.macs()
    result["most MACs"] = compared(plan, macs, choices, truth, None)
    sizes, begin = [len(point.candidates) for point in plan.space.points], plan.config.strategy.warmup_fraction
    for seed in range(1000 + len(rows), 1000 + seeds):
        every, later = DrawnPaths(len(sizes)), DrawnPaths(len(sizes))
        scores, supernet = search(plan, data, NAME, samples, seed, every)
        for path, loss, progress in zip(every.choices.tolist(), every.losses, every.progress):
            if progress >= begin:
                later.add(path, float(loss), float(progress))
        fits = {"regression": fit_scores(sizes, later), "regression with the warm-up": fit_scores(sizes, every)}
        row: dict[str, Any] = {"seed": seed, "scores": compared(plan, scores, choices, truth, None)}
        row |= {way: compared(plan, fit.scores, choices, truth, None) for way, fit in fits.items() if fit is not None}
        row |= {f"{way}: held out": fit.rank_correlation for way, fit in fits.items() if fit is not None}
        if fits["regression"] is not None:
            found = shortlist(plan.space, fits["regression"].scores, plan.constraints[0].limit, count=BRACKET)
            row["bracket"] = {
                "choices": [list(architecture.choices) for architecture in found],
                "largest": int(np.argmax([sum(op.macs for op in architecture.ops()) for architecture in found])),
                "short": [train_alone(plan, data, architecture, samples // SHORT, supernet) for architecture in found],
                "alone": [train_alone(plan, data, architecture, samples) for architecture in found],
            }
        rows.append(row)
        save(result, file)


def markdown(result: dict[str, Any]) -> str:
    """The tables of the documentation."""
    lines = ["| toy: minibatches, noise | rank, scores | rank, regression | regret, scores | regret, regression |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, rows in result.get("toy", {}).items():
        means = [np.mean([row[way][key] for row in rows]) for key in ("spearman", "regret") for way in ("scores", "regression")]
        lines.append(f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")
    rows = result.get("searches", [])
    if rows:
        lines += [
            "",
            f"| {len(result['alone'])} networks trained alone; searches | rank correlation, each seed |",
            "| --- | --- |",
        ]
        for way in ("scores", "regression", "regression with the warm-up"):
            lines.append(f"| {way} | {', '.join(format(row[way]['spearman'], '+.2f') for row in rows)} |")
        lines.append(f"| most multiply-accumulates, no search | {result['most MACs']['spearman']:+.2f} |")
        pairs = [(row["bracket"]["short"], row["bracket"]["alone"]) for row in rows]
        ways = {
            "first of the regression": [alone[0] for _, alone in pairs],
            f"picked by a bracket of {BRACKET}": [alone[int(np.argmin(short))] for short, alone in pairs],
            "largest": [row["bracket"]["alone"][row["bracket"]["largest"]] for row in rows],
            f"best of the {BRACKET}": [min(alone) for _, alone in pairs],
        }
        lines += ["", "| network | divergence trained alone, nats, each search | mean |", "| --- | --- | --- |"]
        lines += [
            f"| {w} | {', '.join(format(v, '.3f') for v in values)} | {np.mean(values):.3f} |" for w, values in ways.items()
        ]
    return "\n".join(lines)


def main(
    architectures: Annotated[int, typer.Option(min=0, help="Networks trained alone; 0: the toy only.")] = 16,
    samples: Annotated[int, typer.Option(min=128, help="Frames of each training and search.")] = SAMPLES,
    seeds: Annotated[int, typer.Option(min=1, help="Searches on real networks.")] = 3,
    out: Annotated[Path, typer.Option(help="File of the results, which is gone on with.")] = HERE / "derivation.json",
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.")] = 1,
) -> None:
    """Measure what is not in the file yet, print."""
    set_threads(threads)
    result = saved(out)
    if architectures and "alone" in result:
        check_same(out, {"samples": SAMPLES} | result, {"samples": samples})
    plan = make_plan(resolve())
    for steps in TOY_STEPS:
        for noise in TOY_NOISE:
            rows = result.setdefault("toy", {}).setdefault(f"{steps}, {noise:g}", [])
            for seed in range(len(rows), TOY_TRUTHS):
                rows.append(toy(plan, steps, noise, seed))
                save(result, out)
    if architectures:
        real(make_plan(resolve(overrides=list(REAL))), result, out, architectures, samples, seeds)
    save(result, out)
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
