"""Learning curves of this project's PPO beside published ones at equal environment steps; resumable.

``python -m cosearch.benchmarks.learning.learning_curves`` trains the IMPALA-CNN on 200 Procgen levels as `cosearch teacher` does
(``--train-levels 200 --test-envs 32``) and compares it with the curves of openai/train-procgen; ``--minatar`` trains
`cosearch teacher --env minatar:breakout` over several seeds beside Young & Tian 2019. Each writes a table, a JSON file and a plot
beside this file. ``--set KEY=VALUE --label NAME`` does so with other settings, into files of another name (and needs other
``--runs``). A run that has not reached its steps yet is compared as far as it is; the same command goes on with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cosearch.benchmarks.results import program, save
from cosearch.record.metrics import number, read_metrics
from latency_tables.errors import RequestError

HERE = Path(__file__).parent
PUBLISHED = HERE / "published_curves.json"
PROCGEN = ("starpilot:2", "fruitbot:2")
MINATAR = ("breakout:5",)
SPAN = 32_768  # steps on either side of a point that are averaged with it: two updates of the published runs, as in their curves


def train(family: str, game: str, seed: int, steps: int, runs: Path, threads: int, settings: tuple[str, ...] = ()) -> None:
    """One training, or the rest of it.

    Args:
        family: ``procgen`` or ``minatar``.
        game: of the family.
        seed: of the run.
        steps: environment steps.
        runs: folder of the run folders.
        threads: CPU threads; 0: all cores.
        settings: KEY=VALUE words.
    """
    words = ["--train-levels", "200", "--test-envs", "32", "--network", "impala-cnn", *settings]
    command = [
        sys.executable,
        "-m",
        "cosearch",
        "teacher",
        "--env",
        f"{family}:{game}",
        "--steps",
        str(steps),
        "--seed",
        str(seed),
        "--threads",
        str(threads),
        "--episodes",
        "64",
        "--out",
        str(runs / f"{game}-s{seed}.json"),
        "--runs",
        str(runs),
        *(words if family == "procgen" else settings),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def curve(family: str, game: str, seed: int, runs: Path) -> dict[str, np.ndarray]:
    """The log of one training so far.

    Returns:
        ``step``, ``wall_s``, ``train`` and ``test`` (NaN where no episode has ended yet, or no held-out levels are played),
        each ``[updates]``.

    Raises:
        RequestError: there is no such run.
    """
    network = "impala-cnn" if family == "procgen" else "minatar-cnn"
    log = runs / f"teacher-{family}-{game}-{network}-s{seed}" / "metrics.jsonl"
    if not log.is_file():
        raise RequestError(f"{log} does not exist: run this without --only-table first")
    lines = read_metrics(log)
    names = {"step": "step", "wall_s": "wall_s", "train": "score_train", "test": "score_eval"}
    return {name: np.array([number(line, key) for line in lines], dtype=float) for name, key in names.items()}


def at(values: np.ndarray, step: np.ndarray, point: int) -> float | None:
    """Mean of a curve around a point; None where the curve does not reach it.

    Args:
        values, step: ``[updates]``.
        point: environment steps.
    """
    if point > step[-1]:
        return None
    return float(np.nanmean(values[np.abs(step - point) <= SPAN]))


def compare_procgen(game: str, curves: list[dict[str, np.ndarray]], published: dict[str, Any]) -> list[dict[str, Any]]:
    """Our seeds beside the published runs at each published point that a seed has reached.

    Args:
        game: name.
        curves: one a seed.
        published: the part ``procgen_ppo_200_levels``.

    Returns:
        For each of train and test levels and each point: the published mean and standard deviation over runs, ours with the
        number of seeds that reached it, the difference in published standard deviations and whether we are within one of
        them or above.
    """
    rows = []
    for kind in ("train", "test"):
        theirs = published["games"][game][kind]
        for point, mean, std in zip(published["steps"], theirs["mean"], theirs["std"]):
            ours = [value for c in curves if (value := at(c[kind], c["step"], point)) is not None]
            if ours:
                found = float(np.mean(ours))
                rows.append(
                    {
                        "levels": kind,
                        "steps": point,
                        "published_mean": mean,
                        "published_std": std,
                        "ours": ours,
                        "ours_mean": found,
                        "deviations": (found - mean) / std,
                        "not_below": found >= mean - std,
                    }
                )
    return rows


def compare_minatar(game: str, curves: list[dict[str, np.ndarray]], published: dict[str, Any]) -> list[dict[str, Any]]:
    """Our seeds beside each published method at each published point that all seeds have reached.

    Args:
        game: name.
        curves: one a seed.
        published: the part ``minatar``.
    """
    rows = []
    for i, point in enumerate(published["steps"]):
        ours = [score for c in curves if (score := at(c["train"], c["step"], point)) is not None]
        if len(ours) == len(curves):
            rows.append(
                {
                    "steps": point,
                    "ours": ours,
                    "ours_mean": float(np.mean(ours)),
                    **{name: values[i] for name, values in published["games"][game].items()},
                }
            )
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The tables of the documentation."""
    lines = []
    for game, part in result["games"].items():
        last = ", ".join(f"{run['steps']:,} in {run['wall_s'] / 60:.0f} min" for run in part["runs"])
        lines += ["", f"{game}, {len(part['runs'])} seed(s), steps so far: {last}", ""]
        if result["family"] == "procgen":
            lines += _beside(part["rows"])
        else:
            names = [name for name in part["rows"][0] if name not in ("steps", "ours", "ours_mean")] if part["rows"] else []
            lines += [f"| steps | {' | '.join(names)} | ours, mean (each seed) |", "| --- |" + " --- |" * (len(names) + 1)]
            lines += [
                f"| {r['steps']:,} | {' | '.join(str(r[name]) for name in names)} | "
                f"{r['ours_mean']:.1f} ({', '.join(f'{v:.1f}' for v in r['ours'])}) |"
                for r in part["rows"]
            ]
    return "\n".join(lines)


def _beside(rows: list[dict[str, Any]]) -> list[str]:
    """One line a point: training levels, then held-out ones."""
    below = sum(not row["not_below"] for row in rows)
    lines = [
        f"Points that are below the published mean by more than its standard deviation: {below} of {len(rows)}.",
        "",
        "| steps | training levels, published (3 runs) | ours (each seed), difference in deviations | "
        "held-out levels, published | ours |",
        "| --- |" + " --- |" * 4,
    ]
    for point in dict.fromkeys(row["steps"] for row in rows):
        cells = [
            f"{r['published_mean']:.2f} ± {r['published_std']:.2f} | "
            f"{r['ours_mean']:.2f} ({', '.join(f'{v:.2f}' for v in r['ours'])}), {r['deviations']:+.1f}"
            for kind in ("train", "test")
            for r in rows
            if (r["levels"], r["steps"]) == (kind, point)
        ]
        lines.append(f"| {point:,} | {' | '.join(cells)} |")
    return lines


def plot(result: dict[str, Any], curves: dict[str, list[dict[str, np.ndarray]]], published: dict[str, Any], path: Path) -> None:
    """Our seeds as lines, the published curves as bands or points."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(5.2 * len(curves), 3.6), layout="constrained", squeeze=False)
    for axis, (game, seeds) in zip(axes[0], curves.items()):
        theirs = published["games"][game]
        points = np.array(published["steps"]) / 1e6
        for name, values in theirs.items():
            if result["family"] == "procgen":
                mean, std, colour = np.array(values["mean"]), np.array(values["std"]), {"train": "C0", "test": "C1"}[name]
                axis.plot(points, mean, color=colour, linestyle="--", label=f"published, {name} levels")
                axis.fill_between(points, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
            else:
                axis.plot(points, values, "o", label=f"published {name}")
        for index, seed in enumerate(seeds):
            for kind, colour in (("train", "C0"), ("test", "C1")):
                if np.isfinite(seed[kind]).any():
                    label = None if index else f"ours, {kind}"
                    axis.plot(seed["step"] / 1e6, seed[kind], color=colour, linewidth=1, label=label)
        axis.set(title=game, xlabel="million environment steps", ylabel="mean return of the last 100 episodes")
        axis.set_xlim(0, 1.05 * max(seed["step"][-1] for seed in seeds) / 1e6)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(
    minatar: Annotated[bool, typer.Option("--minatar", help="MinAtar instead of Procgen.")] = False,
    games: Annotated[
        list[str] | None, typer.Argument(metavar="[GAME:SEEDS]...", help="Games and how many seeds of each.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Environment steps of each run.")] = 1_000_000,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs/curves"),
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all cores.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another setting of the runs; kept in the JSON file.")
    ] = None,
    label: Annotated[str, typer.Option(help="Ending of the files' names; needed with --set.")] = "",
    only_table: Annotated[bool, typer.Option("--only-table", help="Train nothing; read the runs as far as they are.")] = False,
) -> None:
    """Train, compare, print, save."""
    if settings and not label:
        raise typer.BadParameter("--set needs --label: curves with other settings go into files of another name")
    family = "minatar" if minatar else "procgen"
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))["minatar" if minatar else "procgen_ppo_200_levels"]
    wanted = dict(word.partition(":")[::2] for word in games or (MINATAR if minatar else PROCGEN))
    curves: dict[str, list[dict[str, np.ndarray]]] = {}
    for game, seeds in wanted.items():
        if game not in published["games"] or not seeds.isdigit():
            raise typer.BadParameter(f"expected GAME:SEEDS with a game of {', '.join(published['games'])}, got {game}:{seeds}")
        for seed in range(int(seeds)):
            if not only_table:
                train(family, game, seed, steps, runs, threads, tuple(settings or ()))
        curves[game] = [curve(family, game, seed, runs) for seed in range(int(seeds))]
    compare = compare_minatar if minatar else compare_procgen
    result: dict[str, Any] = {
        "family": family,
        "settings": settings or [],
        "published": {k: published[k] for k in ("source", "how")},
        "games": {},
    }
    for game, found in curves.items():
        ends = [{"seed": i, "steps": int(c["step"][-1]), "wall_s": float(c["wall_s"][-1])} for i, c in enumerate(found)]
        result["games"][game] = {"runs": ends, "rows": compare(game, found, published)}
    name = "_".join(["learning_curves", *(["minatar"] if minatar else []), *([label] if label else [])])
    save(result, HERE / f"{name}.json")
    plot(result, curves, published, HERE / f"{name}.png")
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
