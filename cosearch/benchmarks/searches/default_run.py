"""The default run over several seeds, beside the controls, random search and the largest network, of equal environment steps.

``python -m cosearch.benchmarks.searches.default_run`` makes (or resumes) the runs, then prints the table and writes
``default_run.json``, ``default_run.png`` and the page's table; runs that are not finished are left out. Intervals of 95 %: of one
seed over its episodes; of all by resampling seeds, and episodes within each (``two_level_estimate``), and of means by Student and
Welch over the seeds, which are wider and hold for few of them. IQM: the mean of the middle half of the seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program, saved
from cosearch.benchmarks.runs import check_alike, check_command
from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.control import CONTROLS, LARGEST, RANDOM
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.rundir import RunDir
from cosearch.rl.evaluate import evaluate
from cosearch.rl.task import make_task
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams
from cosearch.statistics import estimate_text, interval_text, iqm_estimate, student_interval, two_level_estimate, welch_interval
from latency_tables.errors import RequestError

HERE = Path(__file__).parent
OURS = "reinforce"
STRATEGIES = (OURS, *CONTROLS)
DIFFERENCES = {RANDOM: "difference", LARGEST: "difference_largest"}  # keys of the results
TEACHER_SEED = 77  # of the levels and actions of its many episodes
RESAMPLED = "seeds, and episodes within them"
BEFORE = "episodes within the seeds"  # in results that were saved without saying so


def run_all(strategies: Sequence[str], seeds: int, runs: Path, extra: list[str], threads: int) -> None:
    """Make every run that is not finished yet; an interrupted one goes on.

    Args:
        strategies: of :data:`STRATEGIES`.
        seeds: seeds ``0 .. seeds - 1``.
        runs: folder of the run folders.
        extra: further words of the command line.
        threads: CPU threads of each run; 0 for all cores.

    Raises:
        RunFolderError: a run was begun with other words.
    """
    for seed in range(seeds):
        for strategy in strategies:
            name = run_name(strategy, seed)
            asked = ["search", "--strategy", strategy, "--seed", str(seed), "--run", name, "--runs", str(runs)]
            asked += [f"threads={threads}", *extra]
            if (runs / name).exists():
                check_command(runs / name, asked)
                asked = ["resume", str(runs / name)]
            subprocess.run([sys.executable, "-m", "cosearch", *asked], check=True)


def run_name(strategy: str, seed: int) -> str:
    """Name of a run's folder."""
    return f"default-{strategy}-s{seed}"


def collect(seeds: int, runs: Path) -> dict[str, Any]:
    """Figures of all finished runs.

    Returns:
        For each strategy that has one the figures of each seed, and the mean, IQM and interval over them; and the difference
        from each control.

    Raises:
        RunFolderError: the runs differ in more than strategy and seed.
    """
    result: dict[str, Any] = {"resampled": RESAMPLED, "strategies": {}}
    returns: dict[str, list[np.ndarray]] = {}
    folders = {(strategy, seed): runs / run_name(strategy, seed) for strategy in STRATEGIES for seed in range(seeds)}
    check_alike([folder for folder in folders.values() if (folder / Summary.FILE).is_file()])
    for strategy in STRATEGIES:
        rows: list[dict[str, Any]] = []
        for seed in range(seeds):
            folder = folders[strategy, seed]
            if not (folder / Summary.FILE).is_file():
                continue
            run = RunDir.open(folder)
            found, choices = run.read(Summary), run.read(ArchitectureRecord).choice_names
            summary = to_json(found)
            impala = next(agent for agent in found.reference_agents if agent.name == "impala-cnn")
            returns.setdefault(strategy, []).append(
                np.asarray(json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["returns"])
            )
            keys = (
                "score_mean",
                "score_ci95",
                "episodes",
                "teacher_score_mean",
                "share_of_teacher",
                "latency_predicted_s",
                "latency_measured_s",
                "latency_target_s",
                "target_met",
                "env_steps",
                "wall_s",
                "params",
                "macs",
                "table_provenance",
            )
            rows.append(
                {
                    "seed": seed,
                    **{key: summary[key] for key in keys},
                    "choices": list(choices),
                    "predicted_share_of_impala": impala.predicted_ratio,
                    "measured_share_of_impala": impala.measured_ratio,
                }
            )
        if rows:
            result["strategies"][strategy] = {"seeds": rows, **statistics(returns[strategy])}
    for control, key in DIFFERENCES.items():
        if {OURS, control} <= returns.keys():
            result[key] = difference(returns[OURS], returns[control])
    return result


def statistics(returns: list[np.ndarray]) -> dict[str, Any]:
    """Mean and IQM over seeds, each with its 95 % interval.

    Args:
        returns: one array of episode returns a seed.
    """
    mean = two_level_estimate(seed_mean, returns)
    iqm = iqm_estimate([[float(part.mean()) for part in returns]])
    return {
        "mean": mean.value,
        "mean_ci95": mean.ci95,
        "mean_ci95_student": student_interval([float(part.mean()) for part in returns]),
        "iqm": iqm.value,
        "iqm_ci95": iqm.ci95,
    }


def teacher_score(extra: Sequence[str], episodes: int) -> dict[str, Any]:
    """Score of the default run's teacher on held-out levels, where its own record has too few episodes to be a yardstick.

    Args:
        extra: KEY=VALUE words of every run.
        episodes: at least so many.

    Raises:
        RequestError: there is no teacher.
    """
    load_builtins()
    plan = make_plan(resolve(overrides=list(extra)))
    if plan.teacher is None:
        raise RequestError(f"there is no teacher for {plan.config.env.name}: leave --teacher-episodes out")
    teacher = Teacher(plan.teacher, device=torch.device("cpu"), bf16=False)
    streams = Streams(TEACHER_SEED)
    env = make_task(plan.config.env, 64, streams.derive("eval"), test=True)
    try:
        score = evaluate(teacher.forward, env, episodes, torch.Generator().manual_seed(streams.derive("eval", 1)))
    finally:
        env.close()
    return {"mean": score.mean, "ci95": score.ci95, "episodes": len(score.returns)}


def seed_mean(returns: Sequence[np.ndarray]) -> float:
    """Mean over seeds of the mean return: each seed counts the same, whatever its number of episodes."""
    return float(np.mean([part.mean() for part in returns]))


def difference(ours: list[np.ndarray], control: list[np.ndarray]) -> dict[str, Any]:
    """Difference of the mean scores with its 95 % intervals.

    Args:
        ours, control: one array of episode returns a seed.
    """
    gap = two_level_estimate(lambda mine, theirs: seed_mean(mine) - seed_mean(theirs), ours, control)
    welch = welch_interval(*([float(part.mean()) for part in parts] for parts in (ours, control)))
    return {"mean": gap.value, "ci95": gap.ci95, "ci95_welch": welch}


def markdown(result: dict[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| strategy | seed | score [95 %] | of the teacher's | predicted, ms (share of IMPALA-CNN) | measured here, ms (share) | "
        "target met | env steps | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy, part in result["strategies"].items():
        for row in part["seeds"]:
            score = estimate_text(row["score_mean"], row["score_ci95"], "episode")
            share = "" if row["share_of_teacher"] is None else f"{row['share_of_teacher']:.0%}"
            lines.append(
                f"| {strategy} | {row['seed']} | {score} | {share} | "
                f"{row['latency_predicted_s'] * 1e3:.3f} {row['table_provenance']} ({row['predicted_share_of_impala']:.0%}) | "
                f"{row['latency_measured_s'] * 1e3:.3f} ({row['measured_share_of_impala']:.0%}) | "
                f"{'yes' if row['target_met'] else 'no'} | {row['env_steps']:,} | {row['wall_s'] / 60:.1f} |"
            )
        lines.append(
            f"| **{strategy}** | all | **{part['mean']:.2f}** {interval_text(part['mean_ci95'], 'seed')}, "
            f"IQM {estimate_text(part['iqm'], part['iqm_ci95'], 'seed')} | | | | | | |"
        )
    lines.append("")
    if teacher := result.get("teacher"):
        score = estimate_text(teacher["mean"], teacher["ci95"], "episode")
        shares = ", ".join(f"{name} {part['mean'] / teacher['mean']:.0%}" for name, part in result["strategies"].items())
        lines += [f"The teacher over {teacher['episodes']:,} episodes of its own: {score}; of that have {shares}.", ""]
    for control in (name for name, key in DIFFERENCES.items() if key in result):
        gap = result[DIFFERENCES[control]]
        scores = [[row["score_mean"] for row in result["strategies"][name]["seeds"]] for name in (OURS, control)]
        seeds = " and ".join(str(len(values)) for values in scores)
        lines.append(
            f"Difference of the means, {OURS} minus {control}: {estimate_text(gap['mean'], gap['ci95'], 'seed', '+.2f')}, "
            f"resampled: {result.get('resampled', BEFORE)}; by Welch over {seeds} seeds "
            f"{interval_text(welch_interval(*scores), 'seed', '+.2f')}."
        )
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Score against predicted latency, one point a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for strategy, marker in zip(result["strategies"], "o^s"):
        rows = result["strategies"][strategy]["seeds"]
        scores = np.asarray([row["score_mean"] for row in rows])
        bounds = [row["score_ci95"] or (row["score_mean"],) * 2 for row in rows]  # no bar where there is no interval
        errors = np.abs(np.asarray(bounds).T - scores)
        axes.errorbar(
            [row["latency_predicted_s"] * 1e3 for row in rows], scores, yerr=errors, fmt=marker, capsize=3, label=strategy
        )
    row = result["strategies"][OURS]["seeds"][0]
    if row["teacher_score_mean"] is not None:
        axes.axhline(row["teacher_score_mean"], color="0.4", linestyle="--", label="teacher (IMPALA-CNN)")
        axes.axhline(0.9 * row["teacher_score_mean"], color="0.7", linestyle=":", label="90 % of the teacher")
    axes.axvline(row["latency_target_s"] * 1e3, color="tab:red", linewidth=1, label="target")
    axes.set(xlabel=f"predicted latency on the device, ms ({row['table_provenance']})", ylabel="score on held-out levels")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", help=f"Of {', '.join(STRATEGIES)}; may be given again.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 5,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    threads: Annotated[int, typer.Option(help="CPU threads of each run; 0: all cores.")] = 0,
    only_table: Annotated[bool, typer.Option("--only-table", help="Make no run; read the finished ones.")] = False,
    teacher_episodes: Annotated[int, typer.Option(min=0, help="Play the teacher so often, too; 0: keep what is known.")] = 0,
    extra: Annotated[list[str] | None, typer.Argument(help="Further KEY=VALUE words of every run.")] = None,
) -> None:
    """Run, compare, print, save."""
    if wrong := [name for name in strategies or () if name not in STRATEGIES]:
        raise typer.BadParameter(f"expected some of {', '.join(STRATEGIES)}, got {', '.join(wrong)}")
    if not only_table:
        run_all(strategies or STRATEGIES, seeds, runs, extra or [], threads)
    result = collect(seeds, runs)
    if OURS not in result["strategies"]:
        raise typer.BadParameter(f"no finished run of {OURS} is in {runs}")
    known = saved(HERE / "default_run.json").get("teacher")
    if teacher := teacher_score(extra or [], teacher_episodes) if teacher_episodes else known:
        result["teacher"] = teacher
    keep(result, HERE / "default_run.json", DOCS / "evidence" / "default-run.md", "default-run", markdown(result))
    plot(result, HERE / "default_run.png")
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
