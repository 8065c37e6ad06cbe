"""Comparisons whose runs were never trained: planned as the verb plans them, with scores that a test gives."""

import old_run

from cosearch.compare.plan import planned_runs
from cosearch.compare.runs import begin
from cosearch.record.rundir import RunDir

WORDS = ("distill.teacher=none", "objective.latency_ratio=0.3", "budget.search_steps=20000", "budget.retrain_steps=0")
TARGET_S = 2e-4


SUMMARY = old_run.content(
    "summary.json",
    score_mean=1.0,
    score_ci95=[1.0, 1.0],
    latency_predicted_s=1e-4,
    latency_measured_s=1e-4,
    latency_target_s=TARGET_S,
    target_met=True,
    wall_s=60.0,
    env_steps=20480,
)


def plan(folder, strategies=("a3cs",), seeds=range(2), envs=("minatar:breakout",), words=WORDS, **more):
    return planned_runs(folder, strategies, seeds, envs, words=words, **more)


def made(folder, scores, *, envs=("minatar:breakout",), steps=20480, latency=None, left_out=(), hand_made=()):
    """A comparison whose runs were never trained: scores by strategy, one a seed (by task for several)."""
    searched, seeds = [name for name in scores if name not in hand_made], range(len(next(iter(scores.values()))))
    runs = [run for run in plan(folder, searched, seeds, envs, hand_made=hand_made) if run.strategy in scores]
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, runs, "made up")
    for run in runs:
        if run.name in left_out:
            continue
        made_run = RunDir.create(folder, run.name, old_run.content("run.json", name=run.name))
        value = scores[run.strategy][run.seed]
        value = value[envs.index(run.env)] if isinstance(value, tuple) else value
        for step in (2048, 4096):
            made_run.append_metrics({"stage": "search", "step": step, "wall_s": 1.0, "score_train": value * step / 4096})
        latency_s = (latency or {}).get(run.strategy, 1e-4)
        made_run.write_json(
            "summary.json",
            {
                **SUMMARY,
                "score_mean": value,
                "score_ci95": [value, value],
                "latency_predicted_s": latency_s,
                "latency_measured_s": latency_s,
                "env_steps": steps if not isinstance(steps, dict) else steps[run.strategy],
            },
        )
    return folder
