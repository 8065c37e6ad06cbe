"""Whole runs on the macro space: kills change nothing, every kind of strategy derives a network within the target."""

import json

import pytest
from pipeline_runs import TINY, TINY_PROPOSALS, Moment, assert_equal, command, results

from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.request import resolve_request
from cosearch.report.architecture import cells
from cosearch.report.data import read_run
from cosearch.space.files import load_architecture
from latency_tables.errors import ConfigError

OWN = ("space.values", "objective", "rl.minibatch")
MACRO = {"stem_widths": [4, 6], "stage_widths": [[4, 8]], "hidden": [0, 8], "cells": ["none", "conv_k3", "residual_k3"]}
TASK = (
    "--env",
    "minatar:breakout",
    "space.name=macro",
    f"space.values={json.dumps(MACRO)}",
    "objective.latency_ratio=0.35",
    "budget.search_steps=96",
    "budget.retrain_steps=32",
    "rl.minibatch=16",
)
GRADIENT = tuple(word for word in TINY if not word.startswith(OWN))
PROPOSAL = (*(word for word in TINY_PROPOSALS if not word.startswith(OWN)), "strategy.candidates=2")
FEW_PATHS = tuple(word for word in GRADIENT if not word.startswith(("strategy.paths", "strategy.warmup")))
load_builtins()


def run(folder, *words, moment=None):
    folder.mkdir(exist_ok=True)
    return command("search", "--run", "one", *words, *TASK, folder=folder, moment=moment)


def check_derived(folder):
    """The derived network meets its target, and the report draws each of its blocks by its place."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["latency_predicted_s"] <= summary["latency_target_s"] * (1 + 1e-12)
    architecture = load_architecture(folder / "architecture.json")
    boxes, note = cells(read_run(folder))
    names = [architecture.space.nodes[block.node].name for block in architecture.placed()]
    assert note is None and [box.point for box in boxes] == names


@pytest.mark.slow
def test_a_killed_run_equals_the_undisturbed_one(tmp_path):
    done = run(tmp_path / "a", *GRADIENT)
    assert done.code == 0, done.err
    check_derived(tmp_path / "a" / "runs" / "one")
    killed = run(tmp_path / "b", *GRADIENT, moment=Moment("search", done.events["search"] // 2))
    assert killed.code < 0, killed.err
    resumed = command("resume", "runs/one", folder=tmp_path / "b")
    assert resumed.code == 0, resumed.err
    assert_equal(results(tmp_path / "b" / "runs" / "one"), results(tmp_path / "a" / "runs" / "one"))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((*GRADIENT, "--strategy", "a3cs"), marks=pytest.mark.slow),
        (*FEW_PATHS, "--strategy", "rl-darts"),
        pytest.param((*PROPOSAL, "--strategy", "local-search", "strategy.candidate_init=shared"), marks=pytest.mark.slow),
        pytest.param((*PROPOSAL[:-1], "--strategy", "largest"), marks=pytest.mark.slow),
        pytest.param(
            (*GRADIENT, "--device", "edge-npu", "accel.evaluations=560", "accel.final_evaluations=560"), marks=pytest.mark.slow
        ),
    ],
    ids=["gates", "mixture", "shared", "largest", "accelerator"],
)
def test_every_kind_of_strategy_and_device_runs(words, tmp_path):
    done = run(tmp_path, *words)
    assert done.code == 0, done.err
    check_derived(tmp_path / "runs" / "one")


@pytest.mark.parametrize("words", [(), ("strategy.name=local-search", "strategy.candidate_init=shared")])
def test_a_dqn_learns_no_shared_weights_of_chosen_heads(words):
    task = ("env.name=minatar:breakout", "space.name=macro", "rl.algorithm=dqn")
    with pytest.raises(ConfigError, match="space 'macro' chooses the head"):
        resolve_request(resolve(overrides=[*task, *words]))
    alone = resolve_request(resolve(overrides=[*task, "strategy.name=random", "budget.search_steps=98304"]))
    assert alone.space.name == "macro"
