"""Playing exported agents: their scores on held-out or training levels, sampled or greedy; a clip of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosearch.config.env import METRICS
from cosearch.deploy.clip import animate, play
from cosearch.deploy.judging import judged, solved_at
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.deploy.player import read_rule
from cosearch.planning.builtins import load_builtins
from cosearch.planning.control import task_differences, task_words
from cosearch.planning.identity import Inputs, check_inputs, environment_now, environment_record
from cosearch.planning.recorded import config_of
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import to_json
from cosearch.record.results.agent import AgentRecord, check_agent_files
from cosearch.record.results.family import check_single
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.rl.evaluate import Note, evaluate
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.statistics import iqm_estimate
from cosearch.training.algorithms import as_policy
from latency_tables.errors import ConfigError, RequestError, RunFolderError
from latency_tables.text.writing import check_destination, make_folder

JUDGED = ("metric", "return_mean", "return_ci95", "length_mean", "success_rate", "solved_at", "solved", "solved_surely")


def evaluate_run(
    path: Path,
    *,
    episodes: int,
    levels: str,
    greedy: bool,
    seed: int,
    metric: str | None = None,
    threshold: float | None = None,
    note: Note | None = None,
) -> dict[str, Any]:
    """Score of a run's exported agent.

    Args:
        path: run folder with ``agent.onnx``.
        episodes: at least this many.
        levels: ``test`` (held out) or ``train``.
        greedy: most likely action instead of sampling.
        seed: of levels and actions.
        metric: what the score is the mean of, ``return``, ``success`` or ``length``; None: the run's.
        threshold: mean score from which the task counts as solved; None: the run's, else of returns what Gymnasium names.
        note: told how far it is, and whether episodes were cut.

    Raises:
        RunFolderError: the run has exported no agent yet.
        ConfigError: ``levels`` or ``metric`` is none of its words, ``threshold`` is not finite, the environment says nothing of
            success, or it has other observations or actions than the run began with.
    """
    if levels not in ("test", "train"):
        raise ConfigError(f"levels must be test or train, got {levels!r}")
    if threshold is not None and not math.isfinite(threshold):
        raise ConfigError(f"the score that counts as solved (--solved-at) must be a finite number, got {threshold}")
    known = next((one for one in METRICS if one == metric), None)
    if metric is not None and known is None:
        raise ConfigError(f"metric must be {', '.join(METRICS[:-1])} or {METRICS[-1]}, got {metric!r}")
    run, agent = _agent_of(path)
    config, streams = config_of(run), Streams(seed)
    best = _takes_best(run)
    task = config.env
    if threshold is not None or known not in (None, task.metric):  # its own threshold is one of its own metric
        task = replace(task, metric=known or task.metric, solved_at=threshold)
    env = make_task(config.env, min(64, episodes), streams.derive("eval"), test=levels == "test")
    try:
        check_inputs(path, run.read(RunRecord), Inputs(environment=environment_record(env)))
        score = evaluate(
            as_policy(OnnxAgent(agent), config),
            env,
            episodes,
            streams.torch("eval"),
            greedy=greedy or (best and config.rl.algorithm != "dqn"),  # of a DQN with a little chance of any, see ``as_policy``
            episode_steps=config.env.episode_steps,
            metric=task.metric,
            note=note,
        )
        if task.metric != config.env.metric:  # of its own metric the run looked before its training
            score.check_said()
        found = judged(score, solved_at(task, env), None, None)
    finally:
        env.close()
    return {
        "score_mean": score.mean,
        "score_ci95": score.ci95,
        "episodes": len(score.returns),
        "episodes_cut": score.cut,
        "levels": levels,
        "greedy": greedy or best,
        "seed": seed,
        **{key: value for key, value in to_json(found).items() if key in JUDGED},
    }


def evaluate_runs(
    paths: Sequence[Path],
    *,
    episodes: int,
    levels: str,
    greedy: bool,
    seed: int,
    metric: str | None = None,
    threshold: float | None = None,
    note: Note | None = None,
) -> dict[str, Any]:
    """Scores of several runs of one task, such as the seeds of a method.

    Args:
        paths: run folders, at least two.
        episodes, levels, greedy, seed, metric, threshold, note: see :func:`evaluate_run`; each run plays the same levels.

    Returns:
        ``runs``: what :func:`evaluate_run` returns of each, with its ``run``; ``iqm``: the inter-quartile mean over the runs and
        its 95 % bootstrap interval over runs (Agarwal et al. 2021).

    Raises:
        RequestError: a run is named twice, or the runs have different tasks: another environment, or other values of it.
    """
    names = [str(path) for path in paths]
    if len({Path(name).resolve() for name in names}) < len(names):
        raise RequestError(f"a run is named twice: {' '.join(names)}. An interval over runs needs different ones")
    tasks = {name: config_of(_agent_of(path)[0]).env for name, path in zip(names, paths)}
    for name, task in tasks.items():
        differing = [key for key in task_differences(task, tasks[names[0]]) if key != "metric" or metric is None]
        if differing:
            its, other = (f"{each} has {task_words(tasks[each], differing)}" for each in (name, names[0]))
            raise RequestError(f"the runs have different tasks, whose scores cannot be averaged: {its}, {other}")
    how: dict[str, Any] = {"episodes": episodes, "levels": levels, "greedy": greedy, "seed": seed, "note": note}
    rows = [{"run": name, **evaluate_run(path, metric=metric, threshold=threshold, **how)} for name, path in zip(names, paths)]
    return {"runs": rows, "iqm": iqm_estimate([[row["score_mean"] for row in rows]]).to_dict()}


def judged_text(row: Mapping[str, Any]) -> str:
    """What an evaluation amounts to beside its mean: the other means, and whether the task is solved.

    Args:
        row: see :func:`evaluate_run`.
    """
    words = []
    if row["metric"] != "return":
        words.append(f"mean {'success' if row['metric'] == 'success' else 'length in steps'}; return {row['return_mean']:.2f}")
    if row["success_rate"] is not None and row["metric"] != "success":
        words.append(f"{row['success_rate']:.0%} succeed")
    if row["solved_at"] is not None:
        sure = "" if row["solved"] == row["solved_surely"] or row["solved_surely"] is None else ", its interval reaches below"
        words.append(f"{'solved' if row['solved'] else 'not solved'} (from {row['solved_at']:g} on{sure})")
    return "".join(f"; {word}" for word in words)


def write_clip(path: Path, *, frames: int, seed: int | None = None, out: Path | None = None) -> Path:
    """Record the exported agent of a run playing held-out levels, by the rule that it is deployed with.

    Args:
        path: run folder with ``agent.onnx``.
        frames: environment steps to show.
        seed: of levels and actions; None: the run's.
        out: the file; None: ``clip.gif`` in the run folder, which the next report embeds.

    Returns:
        The file.

    Raises:
        RunFolderError: the run has exported no agent yet.
        RequestError: the observations are not images, or ``out`` is not a .gif file.
        RunFailedError: the disk is full.
    """
    run, agent = _agent_of(path)
    target = run.path / "clip.gif" if out is None else Path(out)
    if target.suffix != ".gif":
        raise RequestError(f"--out must be a .gif file, got {target}")
    check_destination(target)
    config = config_of(run)
    check_inputs(path, run.read(RunRecord), Inputs(environment=environment_now(config.env)))
    greedy = _takes_best(run) and config.rl.algorithm != "dqn"
    shown = play(as_policy(OnnxAgent(agent), config), config, frames, config.seed if seed is None else seed, greedy=greedy)
    make_folder(target.parent)
    write_bytes_atomic(target, animate(shown))
    return target


def _takes_best(run: RunDir) -> bool:
    """Whether the exported agent of a run takes its best action, as its description says."""
    return read_rule(run.path / AgentRecord.FILE).rule == "argmax"


def _agent_of(path: Path) -> tuple[RunDir, Path]:
    run = RunDir.open(path)
    check_single(run)
    agent = run.path / "agent.onnx"
    if not agent.is_file():
        raise RunFolderError(f"{path} has no agent.onnx yet: `cosearch resume {path}` goes on to the export")
    check_agent_files(run.path, run.read(AgentRecord))
    load_builtins()
    return run, agent
