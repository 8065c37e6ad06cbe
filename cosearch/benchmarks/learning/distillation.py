"""What the teacher is worth: steps to 90 % of its score with no teacher, its actor alone, and its actor and critic; resumable.

``python -m cosearch.benchmarks.learning.distillation --seeds 5`` searches and trains an agent for ``minatar:breakout`` in three
arms at equal environment steps (``--env procgen:starpilot --seeds 1`` for the other game), prints the table and writes
``distillation-<game>.json`` and ``.png``. A curve is the mean return of the last 100 training episodes, over search and
retraining one after the other. Intervals, 95 %: percentile bootstrap over the seeds. A run that never gets there counts with
its whole length, which favours it; how many do not is part of the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cosearch.benchmarks.results import program, save
from cosearch.benchmarks.runs import check_run, open_or_create
from cosearch.benchmarks.searches.co_search import bootstrap
from cosearch.cli.progress import TerminalProgress
from cosearch.config.run import resolve
from cosearch.pipeline.run import TRAINING, work_on
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import Plan, make_plan
from cosearch.record.metrics import number, read_metrics
from cosearch.statistics import estimate_text
from cosearch.training.threads import set_threads
from latency_tables.errors import RequestError

HERE = Path(__file__).parent
ARMS = {
    "none": ("distill.teacher=none",),
    "actor": ("distill.critic=0",),
    "actor and critic": (),
}
WORDS = {
    "minatar:breakout": (
        "objective.latency_ratio=0.4",
        "rl.gamma=0.99",
        "rl.minibatch=256",
        "rl.micro_batch=256",
        "budget.search_steps=16384",
        "budget.retrain_steps=196608",
        "budget.checkpoint_interval_s=20",
    ),
    "procgen:starpilot": (),
}
SHARE = 0.9  # of the teacher's score


def run_one(env: str, arm: str, seed: int, runs: Path, words: list[str]) -> None:
    """Search and retrain one arm with one seed, or go on with it.

    Args:
        env: the task.
        arm: a key of :data:`ARMS`.
        seed: of the run.
        runs: folder of the run folders.
        words: further KEY=VALUE words.

    Raises:
        RunFolderError: the folder holds a run of other words.
    """
    plan = _plan(env, arm, seed, words)
    run = open_or_create(_folder(env, arm, seed, runs), plan)
    set_threads(plan.config.threads)
    with run.lock():
        work_on(open_session(run, plan, TerminalProgress(True)), TRAINING)


def _plan(env: str, arm: str, seed: int, words: list[str]) -> Plan:
    said = [*WORDS.get(env, ()), *words, *ARMS[arm]]
    return make_plan(resolve(overrides=said, options={"env.name": env, "seed": seed}))


def _folder(env: str, arm: str, seed: int, runs: Path) -> Path:
    return runs / f"distillation-{env.split(':')[1]}-{arm.replace(' ', '-')}-s{seed}"


def curve(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Steps and scores of a run, search and retraining one after the other, each ``[updates]``.

    Raises:
        RequestError: there is no such run.
    """
    if not (folder / "metrics.jsonl").is_file():
        raise RequestError(f"{folder} is no run: run this without --only-table first")
    lines = read_metrics(folder / "metrics.jsonl")
    points = [(str(line["stage"]), number(line, "step") or 0.0, number(line, "score_train")) for line in lines]
    searched = max(step for stage, step, _ in points if stage == "search")
    rows = [(step + (searched if stage == "retrain" else 0), score) for stage, step, score in points if score is not None]
    return np.array([step for step, _ in rows]), np.array([score for _, score in rows])


def steps_to(step: np.ndarray, score: np.ndarray, wanted: float) -> int | None:
    """The first step at which a curve is at ``wanted`` or above; None where it never is."""
    there = np.flatnonzero(score >= wanted)
    return int(step[there[0]]) if there.size else None


def collect(env: str, seeds: int, runs: Path, words: list[str]) -> dict[str, Any]:
    """Figures of all arms.

    Args:
        env: the task.
        seeds: seeds ``0 .. seeds - 1``.
        runs: folder of the run folders.
        words: further KEY=VALUE words of every run.

    Returns:
        The teacher, its score on training levels, the score wanted, and for each arm its seeds' steps and last scores with
        intervals.
    """
    teacher = make_plan(resolve(overrides=list(WORDS.get(env, ())), options={"env.name": env})).teacher
    if teacher is None:
        raise RequestError(f"there is no teacher for {env}: `cosearch list teachers` shows all")
    score = number(teacher.provenance, "score_train_mean")  # on training levels, as the curves are
    if score is None:
        raise RequestError(f"the teacher {teacher.name} has no score on training levels: score_train_mean is missing in its file")
    wanted = SHARE * score
    result: dict[str, Any] = {
        "env": env,
        "teacher": teacher.name,
        "teacher_score_mean": score,
        "share": SHARE,
        "wanted": wanted,
        "arms": {},
    }
    for arm in ARMS:
        curves = [curve(_folder(env, arm, seed, runs)) for seed in range(seeds)]
        for seed in range(seeds):
            check_run(_folder(env, arm, seed, runs), _plan(env, arm, seed, words))
        reached = [steps_to(*c, wanted) for c in curves]
        counted = np.array([c[0][-1] if r is None else r for c, r in zip(curves, reached)], dtype=float)
        last = np.array([c[1][-1] for c in curves])
        result["arms"][arm] = {
            "steps_to_wanted": reached,
            "not_reached": reached.count(None),
            "env_steps": int(curves[0][0][-1]),
            "steps_mean": float(counted.mean()),
            "steps_ci95": bootstrap(counted),
            "last_scores": last.tolist(),
            "last_mean": float(last.mean()),
            "last_ci95": bootstrap(last),
        }
    return result


def markdown(result: dict[str, Any]) -> str:
    """The table of the documentation."""
    lines = [
        f"{result['env']}, teacher {result['teacher']} ({result['teacher_score_mean']:.1f}), "
        f"{result['share']:.0%} of its score is {result['wanted']:.1f}",
        "",
        "| distilled | steps to it [95 %] | seeds that never get there | last score [95 %] |",
        "| --- | --- | --- | --- |",
    ]
    for arm, part in result["arms"].items():
        sign = "≥ " if part["not_reached"] else ""
        steps = estimate_text(part["steps_mean"], part["steps_ci95"], "seed", ",.0f")
        last = estimate_text(part["last_mean"], part["last_ci95"], "seed", ".1f")
        missed = f"{part['not_reached']} of {len(part['steps_to_wanted'])}"
        lines.append(f"| {arm} | {sign}{steps} | {missed} | {last} |")
    return "\n".join(lines)


def plot(env: str, seeds: int, runs: Path, result: dict[str, Any], path: Path) -> None:
    """Each arm's mean over seeds with the range of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for arm in ARMS:
        curves = [curve(_folder(env, arm, seed, runs)) for seed in range(seeds)]
        steps = np.linspace(max(c[0][0] for c in curves), min(c[0][-1] for c in curves), 120)
        scores = np.array([np.interp(steps, *c) for c in curves])
        (line,) = axes.plot(steps, scores.mean(0), label=arm)
        axes.fill_between(steps, scores.min(0), scores.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.axhline(result["teacher_score_mean"], color="0.4", linestyle="--", label="teacher")
    axes.axhline(result["wanted"], color="0.7", linestyle=":", label=f"{result['share']:.0%} of it")
    axes.set(xlabel="environment steps, search and retraining", ylabel="mean return of the last 100 episodes", title=env)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(
    env: Annotated[str, typer.Option(help="Task with a shipped teacher.")] = "minatar:breakout",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 5,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    only_table: Annotated[bool, typer.Option("--only-table", help="Make no run; read the finished ones.")] = False,
    extra: Annotated[list[str] | None, typer.Argument(help="Further KEY=VALUE words of every run.")] = None,
) -> None:
    """Run, compare, print, save."""
    for seed in range(0 if only_table else seeds):
        for arm in ARMS:
            run_one(env, arm, seed, runs, extra or [])
    result = collect(env, seeds, runs, extra or [])
    name = f"distillation-{env.split(':')[1]}"
    save(result, HERE / f"{name}.json")
    plot(env, seeds, runs, result, HERE / f"{name}.png")
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
