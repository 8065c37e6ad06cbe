"""Whole runs of the mixtures on cells: kills change nothing, files hold a legal architecture, options are used or refused."""

import json

import pytest
from pipeline_runs import TINY, Moment, assert_equal, command, results

from cosearch.planning.builtins import load_builtins
from cosearch.report.architecture import cells
from cosearch.report.data import read_run
from cosearch.space.files import load_architecture

CELL = {"depths": [4, 4], "normal_cells": 1, "nodes": 2, "keep": 1, "hidden": 8}
OWN = ("space.values", "objective", "strategy.paths")
WORDS = (
    *(word for word in TINY if not word.startswith(OWN)),
    "--env",
    "minatar:breakout",
    "space.name=cell",
    f"space.values={json.dumps(CELL)}",
    "objective.latency_ratio=2",
    "budget.search_steps=96",
    "budget.retrain_steps=32",
    "rl.minibatch=16",
)


load_builtins()


def run(folder, *words, moment=None):
    return command("search", "--run", "one", *WORDS, *words, folder=folder, moment=moment)


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(("rl-darts",), marks=pytest.mark.slow),
        pytest.param(("darts", 'strategy.values={"order": 2}'), marks=pytest.mark.slow),
        pytest.param(("snas",), marks=pytest.mark.slow),
    ],
    ids=lambda s: s[0],
)
def test_a_killed_run_equals_the_undisturbed_one_and_derives_a_legal_cell(strategy, tmp_path):
    words = ("--strategy", *strategy)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = run(tmp_path / "a", *words)
    assert done.code == 0, done.err
    architecture = load_architecture(tmp_path / "a" / "runs" / "one" / "architecture.json")
    kept = [p for group in architecture.space.groups for p in group.points if architecture.choice_names[p] != "none"]
    assert len(kept) == sum(group.keep for group in architecture.space.groups) == 2
    boxes, note = cells(read_run(tmp_path / "a" / "runs" / "one"))
    assert "branches" in note and len([box for box in boxes if box.key]) == len(architecture.ops())
    named = {(box.point, box.operation) for box in boxes if box.point}
    chosen = zip(architecture.space.points, architecture.choice_names)
    assert named <= {(point.name, name) for point, name in chosen}
    killed = run(tmp_path / "b", *words, moment=Moment("search", done.events["search"] // 2))
    assert killed.code < 0, killed.err
    resumed = command("resume", "runs/one", folder=tmp_path / "b")
    assert resumed.code == 0, resumed.err
    assert_equal(results(tmp_path / "b" / "runs" / "one"), results(tmp_path / "a" / "runs" / "one"))


@pytest.mark.parametrize(
    "words, text",
    [
        (("--strategy", "rl-darts", "strategy.paths_per_rollout=2"), "paths_per_rollout=2 has no effect"),
        (("--strategy", "snas", "strategy.target_form=penalty"), "target_form=penalty has no effect"),
        (("--strategy", "s3nas", "objective.dual_lr=0.1"), "dual_lr=0.1 has no effect with strategy 's3nas'"),
        (
            ("--strategy", "idarts", 'strategy.values={"terms": -1}'),
            "strategy.values.terms: Input should be greater than or equal to 0, got -1",
        ),
        (("--strategy", "darts", 'strategy.values={"order": 3}'), "order"),
    ],
)
def test_options_without_effect_are_refused(words, text, tmp_path):
    done = run(tmp_path, *words)
    assert done.code == 2 and text in done.err
