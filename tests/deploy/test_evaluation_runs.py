"""Scores of several runs are averaged where they are scores of one task."""

import dataclasses
from types import SimpleNamespace

import pytest

from cosearch.config.env import EnvConfig
from cosearch.config.run import resolve
from cosearch.deploy import evaluation
from cosearch.deploy.evaluation import evaluate_runs
from latency_tables.errors import RequestError

HOW = {"episodes": 4, "levels": "test", "greedy": False, "seed": 1}
CHANGES = {  # of each key of the task: another value, and whether scores mean the same beside it
    "name": ("minatar:asterix", False),
    "num_envs": (3, True),
    "train_levels": (7, False),
    "kwargs": ({"gravity": 3.0}, False),
    "layout": ("channels_first", False),
    "wrappers": (("reward_scale:0.1",), False),
    "episode_steps": (5, False),
    "metric": ("length", False),
    "solved_at": (3.0, True),
    "step_limit_s": (3.0, True),
}


@pytest.fixture
def scores(monkeypatch, tmp_path):
    """Runs of given tasks in place of trained agents; gives the scores of their evaluation."""

    def of(*tasks, **options):
        paths = [tmp_path / f"r{i}" for i in range(len(tasks))]
        configs = {path: dataclasses.replace(resolve(), env=task) for path, task in zip(paths, tasks, strict=True)}
        monkeypatch.setattr(evaluation, "_agent_of", lambda path: (SimpleNamespace(path=path), path))
        monkeypatch.setattr(evaluation, "config_of", lambda run: configs[run.path])
        monkeypatch.setattr(evaluation, "evaluate_run", lambda path, **how: {"score_mean": float(paths.index(path))})
        return [row["score_mean"] for row in evaluate_runs(paths, **HOW, **options)["runs"]]

    return of


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(EnvConfig)])
def test_runs_of_another_task_are_refused_and_the_keys_named(key, scores):
    value, same = CHANGES[key]
    other = dataclasses.replace(EnvConfig(), **{key: value})
    if same:
        assert scores(EnvConfig(), EnvConfig(), other) == [0.0, 1.0, 2.0]
        return
    with pytest.raises(RequestError, match=rf"cannot be averaged: \S*r2 has env\.{key}=.*r0 has env\.{key}="):
        scores(EnvConfig(), EnvConfig(), other)


def test_a_metric_that_is_asked_for_takes_the_place_of_the_runs_own(scores):
    assert scores(EnvConfig(), dataclasses.replace(EnvConfig(), metric="length"), metric="length") == [0.0, 1.0]
