"""How the weights of the distillation should fall over a run: whole runs of each schedule, their agents evaluated; resumable.

``python -m cosearch.benchmarks.learning.annealing --first-seed 100 --seeds 5`` searches and trains an agent with each schedule at
equal environment steps, plays ``EPISODES`` episodes with each agent and with the teacher (training levels, actions sampled),
prints the table and writes ``annealing-<game>.json``. Intervals, 95 %: Student's over the seeds, of the mean and of the paired
difference from constant weights. The seeds that a default is chosen with are not those of any other figure of the documentation,
which begin at 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from cosearch.benchmarks.results import program, save
from cosearch.benchmarks.runs import check_run, open_or_create
from cosearch.cli.progress import TerminalProgress
from cosearch.config.run import resolve
from cosearch.pipeline.run import TRAINING, work_on
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import Plan, make_plan
from cosearch.rl.evaluate import evaluate
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.statistics import estimate_text, student_interval
from cosearch.training.algorithms import as_policy
from cosearch.training.threads import set_threads
from latency_tables.errors import RequestError

HERE = Path(__file__).parent
CONSTANT = "constant"
SCHEDULES = {
    CONSTANT: ("distill.end_fraction=1",),
    "linear, run": ("distill.end_fraction=0",),
    "linear, first 3/4 of the run": ("distill.end_fraction=0", "distill.fall_end=0.75"),
    "geometric to 1 %, run": ("distill.fall=geometric", "distill.end_fraction=0.01"),
}
MINATAR = (
    "objective.latency_ratio=0.4",
    "rl.gamma=0.99",
    "rl.minibatch=256",
    "rl.micro_batch=256",
    "budget.search_steps=49152",
    "budget.retrain_steps=98304",
    "budget.checkpoint_interval_s=60",
)
EPISODES = 256
FILE = "annealing.json"  # of a run: the returns of its agent


def _words(env: str) -> tuple[str, ...]:
    return MINATAR if env.startswith("minatar:") else ()


def _folder(env: str, schedule: str, seed: int, runs: Path) -> Path:
    kept = "".join(c if c.isalnum() else "-" for c in schedule.replace("/", "of"))
    return runs / f"annealing-{env.split(':')[1]}-{kept}-s{seed}"


def _plan(env: str, schedule: str, seed: int, words: list[str]) -> Plan:
    said = [*_words(env), *words, *SCHEDULES[schedule]]
    return make_plan(resolve(overrides=said, options={"env.name": env, "seed": seed}))


def played(plan: Plan, forward: Forward) -> list[float]:
    """Returns of ``EPISODES`` episodes on training levels, from the seed of the plan.

    Args:
        plan: of the run.
        forward: of the agent or the teacher.
    """
    streams = Streams(plan.config.seed)
    env = make_task(plan.config.env, 64, streams.derive("eval"))
    try:
        return list(evaluate(forward, env, EPISODES, streams.torch("eval")).returns)
    finally:
        env.close()


def run_one(env: str, schedule: str, seed: int, runs: Path, words: list[str]) -> None:
    """Search and retrain with one schedule and seed, or go on with it; then play.

    Args:
        env: the task.
        schedule: a key of :data:`SCHEDULES`.
        seed: of the run.
        runs: folder of the run folders.
        words: further KEY=VALUE words.

    Raises:
        RunFolderError: the folder holds a run of other words.
    """
    folder = _folder(env, schedule, seed, runs)
    plan = _plan(env, schedule, seed, words)
    run = open_or_create(folder, plan)
    if (folder / FILE).is_file():
        return
    set_threads(plan.config.threads)
    with run.lock():
        session = open_session(run, plan, TerminalProgress(True))
        work_on(session, TRAINING)
        outputs = session.checkpoints.current.outputs
        assert outputs.search is not None and outputs.retrain is not None  # both stages are done
        network = derive(plan.space.architecture(outputs.search.choices), torch.Generator().manual_seed(0))
        network.load_state_dict(outputs.retrain.weights)
        run.write_json(FILE, {"returns": played(plan, as_policy(network.float().eval(), plan.config))})


def collect(env: str, seeds: range, runs: Path, words: list[str]) -> dict[str, Any]:
    """Figures of all schedules.

    Args:
        env: the task.
        seeds: of the runs.
        runs: folder of the run folders.
        words: further KEY=VALUE words of every run.

    Returns:
        The teacher and its score; for each schedule the seeds' scores, their mean, the share of the teacher's, and the paired
        difference from constant weights, with intervals; ``not_finished``: schedules that lack a seed.

    Raises:
        RequestError: there is no teacher, or a run with constant weights is not finished.
        RunFolderError: a run was made with other words.
    """
    plan = _plan(env, CONSTANT, seeds[0], words)
    teacher = plan.load_teacher(torch.device("cpu"))
    if teacher is None or plan.teacher is None:
        raise RequestError(f"there is no teacher for {env}: `cosearch list teachers` shows all")
    score = float(np.mean(played(plan, teacher.forward)))
    result: dict[str, Any] = {
        "env": env,
        "teacher": plan.teacher.name,
        "teacher_score_mean": score,
        "words": [*_words(env), *words],
    }
    result |= {"seeds": list(seeds), "episodes": EPISODES, "schedules": {}, "not_finished": []}
    base: np.ndarray | None = None
    for schedule, options in SCHEDULES.items():
        files = [_folder(env, schedule, seed, runs) / FILE for seed in seeds]
        missing = [file for file in files if not file.is_file()]
        if missing and base is None:
            raise RequestError(f"{missing[0].parent} is not finished: run this without --only-table first")
        if missing:
            result["not_finished"].append(schedule)
            continue
        for seed, file in zip(seeds, files):
            check_run(file.parent, _plan(env, schedule, seed, words))
        scores = np.array([np.mean(json.loads(file.read_text(encoding="utf-8"))["returns"]) for file in files])
        base = scores if base is None else base
        result["schedules"][schedule] = {
            "options": list(options),
            "scores": scores.tolist(),
            "mean": float(scores.mean()),
            "ci95": student_interval(scores),
            "share_of_teacher": float(scores.mean()) / score,
            "difference": float((scores - base).mean()),
            "difference_ci95": student_interval(scores - base),
        }
    return result


def markdown(result: dict[str, Any]) -> str:
    """The table of the documentation."""
    lines = [
        f"{result['env']}, teacher {result['teacher']} ({result['teacher_score_mean']:.2f}), seeds "
        f"{result['seeds'][0]} to {result['seeds'][-1]}, {result['episodes']} episodes each",
        "",
        "| weights fall | score [95 %] | of the teacher's | difference from constant [95 %] |",
        "| --- | --- | --- | --- |",
    ]
    for schedule, part in result["schedules"].items():
        score = estimate_text(part["mean"], part["ci95"], "seed")
        difference = "" if schedule == CONSTANT else estimate_text(part["difference"], part["difference_ci95"], "seed", "+.2f")
        lines.append(f"| {schedule} | {score} | {part['share_of_teacher']:.0%} | {difference} |")
    return "\n".join(lines)


def main(
    env: Annotated[str, typer.Option(help="Task with a teacher.")] = "minatar:breakout",
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 5,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    only_table: Annotated[bool, typer.Option("--only-table", help="Make no run; read the finished ones.")] = False,
    extra: Annotated[list[str] | None, typer.Argument(help="Further KEY=VALUE words of every run.")] = None,
) -> None:
    """Run, play, compare, print, save."""
    chosen = range(first_seed, first_seed + seeds)
    for seed in range(0) if only_table else chosen:
        for schedule in SCHEDULES:
            run_one(env, schedule, seed, runs, extra or [])
    result = collect(env, chosen, runs, extra or [])
    save(result, HERE / f"annealing-{env.split(':')[1]}.json")
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
