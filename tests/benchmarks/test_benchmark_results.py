"""Results and runs of benchmarks: whole after a kill, gone on with under their own settings alone, errors as one message."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from cosearch.benchmarks import documents
from cosearch.benchmarks.documents import keep
from cosearch.benchmarks.learning import annealing, continuous
from cosearch.benchmarks.results import check_same, program, save, saved
from cosearch.benchmarks.runs import check_alike, check_command
from cosearch.benchmarks.searches import cells, compress, default_run, derivation, remembering, under_target
from cosearch.benchmarks.workers import asynchronous, cluster
from cosearch.record.rundir import RunDir
from latency_tables.errors import RequestError, RunFolderError

OLD_RUN = Path(__file__).parents[1] / "assets" / "run_0_1_0"
PAGE = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"


def test_a_result_is_whole_when_its_writer_is_killed(tmp_path, monkeypatch):
    out = tmp_path / "kept.json"
    save({"value": 1}, out)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, killed)
            with pytest.raises(KeyboardInterrupt):
                save({"value": 2}, out)
        assert saved(out) == {"value": 1}


def test_the_page_shows_the_result_that_ships_and_no_other(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(documents, "DOCS", tmp_path)
    keep({"value": 1}, tmp_path / "other.json", page, "x", "table")
    assert page.read_text() == PAGE and saved(tmp_path / "other.json") == {"value": 1}
    monkeypatch.setattr(documents, "SHIPPED", tmp_path)
    keep({"value": 2}, tmp_path / "kept.json", page, "x", "table")
    assert page.read_text() == PAGE.replace("old", "table")
    keep({"value": 2}, tmp_path / "kept.json", tmp_path / "absent.md", "x", "table")
    assert not (tmp_path / "absent.md").exists()


def test_a_file_that_is_no_result_is_one_message_with_exit_code_2(tmp_path, capsys, monkeypatch):
    assert saved(tmp_path / "absent.json") == {}
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "torn.json").write_text("")
    for name in ("list.json", "torn.json"):
        with pytest.raises(RequestError, match=name):
            saved(tmp_path / name)

    def main() -> None:
        saved(tmp_path / "torn.json")

    monkeypatch.setattr(sys, "argv", ["benchmark"])
    with pytest.raises(SystemExit) as ended:
        program(main)
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: ")


def test_settings_that_differ_are_named(tmp_path):
    check_same(tmp_path, {"steps": 1, "words": ["a"], "more": 3}, {"steps": 1, "words": ("a",)})
    with pytest.raises(RequestError, match=r"\(steps 1 there, 2 asked for; words none there, \[\] asked for\).*--out"):
        check_same(tmp_path, {"steps": 1}, {"steps": 2, "words": []})


OTHER = {
    "cells": (cells, {"seeds": {"0": {}}, "train_steps": 1}, {"train_steps": 2048}, "train_steps 1 there, 2048"),
    "remembering": (remembering, {"seeds": {}, "task": remembering.TASK, "length": 9, "steps": 1}, {}, "length 9 there, 8"),
    "asynchronous": (asynchronous, {"queries": 8, "seeds": 2}, {"strategies": "random", "queries": 9}, "queries 8 there, 9"),
    "compress": (compress, {"rows": {}}, {"device": "jetson"}, 'device "raspberry-pi-4" there, "jetson" asked'),
    "compress words": (compress, {"rows": {}}, {"words": ["seed=1"]}, r'words \[\] there, \["seed=1"\] asked'),
    "under_target": (under_target, {"pairs": {}}, {"shipped": "jetson"}, 'shipped "" there, "jetson" asked'),
    "derivation": (derivation, {"alone": []}, {"samples": 200, "threads": 1}, "samples 60000 there, 200"),
}


@pytest.mark.parametrize("name", OTHER)
def test_results_of_other_settings_are_neither_lost_nor_mixed(name, tmp_path):
    """The command that asks for other settings is refused before it measures anything."""
    module, kept, options, message = OTHER[name]
    out = tmp_path / "kept.json"
    out.write_text(json.dumps(kept))
    before = out.read_bytes()
    asked = {"out": out, **options}
    if module is cells:
        asked |= {"env": "minatar:breakout", "strategy": "rl-darts", "depths": "4", "search_steps": 2048, "episodes": 1}
        asked |= {"seeds": 1, "normal_cells": 1, "random_times": 1, "threads": 1}
    with pytest.raises(RequestError, match=message):
        module.main(**asked)
    assert out.read_bytes() == before


def test_torn_results_of_learning_are_a_message(tmp_path):
    (tmp_path / "kept.json").write_text("")
    with pytest.raises(RequestError, match=r"kept\.json"):
        continuous.main(tasks=["Hopper-v5"], methods=["ppo"], out=tmp_path / "kept.json")


def test_a_run_of_other_words_is_not_gone_on_with(tmp_path):
    """Its folder stays as it was, begun or finished; nor are its figures collected under the other words."""
    words = ["budget.search_steps=256", "budget.retrain_steps=256", "env.num_envs=4", "rl.rollout_steps=32", "rl.minibatch=64"]
    folder = annealing._folder("minatar:breakout", annealing.CONSTANT, 0, tmp_path)
    plan = annealing._plan("minatar:breakout", annealing.CONSTANT, 0, words)
    run = annealing.open_or_create(folder, plan)
    assert annealing.open_or_create(folder, plan).path == run.path
    with pytest.raises(RunFolderError, match=r"rl\.lr .* there, 0\.05 now.*--runs"):
        annealing.run_one("minatar:breakout", annealing.CONSTANT, 0, tmp_path, [*words, "rl.lr=0.05"])
    (folder / annealing.FILE).write_text('{"returns": [1.0]}')
    annealing.run_one("minatar:breakout", annealing.CONSTANT, 0, tmp_path, words)  # finished: nothing to do
    with pytest.raises(RunFolderError, match=r"rl\.lr"):
        annealing.run_one("minatar:breakout", annealing.CONSTANT, 0, tmp_path, [*words, "rl.lr=0.05"])
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted([annealing.FILE, "run.json"])


def told(folder, command):
    """An old run as if another command had made it."""
    shutil.copytree(OLD_RUN, folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"command": command}))


def test_a_run_is_gone_on_with_by_the_command_that_made_it(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(default_run.subprocess, "run", lambda command, check: ran.append(command[3]))
    name = "default-largest-s0"
    told(tmp_path / name, f"cosearch search --strategy largest --seed 0 --run {name} --runs elsewhere threads=1 rl.lr=0.5")
    default_run.run_all(["largest"], 1, tmp_path, ["rl.lr=0.5"], 1)
    assert ran == ["resume"]
    for words, threads in (([], 1), (["rl.lr=0.1"], 1), (["rl.lr=0.5"], 2)):
        with pytest.raises(RunFolderError, match="was made by"):
            default_run.run_all(["largest"], 1, tmp_path, words, threads)
    assert ran == ["resume"]
    with pytest.raises(RunFolderError, match=r"threads=1 rl\.lr=0\.5`, asked for is `cosearch search`"):
        check_command(tmp_path / name, ["search"])


def test_runs_are_compared_that_differ_in_strategy_and_seed_alone(tmp_path):
    words = "--run {} --runs a threads=1"
    told(tmp_path / "a", "cosearch search --strategy largest --seed 0 --run a --runs a threads=1")
    told(tmp_path / "b", "cosearch search --strategy random --seed 1 --run b --runs b threads=1")
    check_alike([tmp_path / "a", tmp_path / "b"])
    check_alike([])
    told(tmp_path / "c", f"cosearch search --strategy random --seed 2 {words.format('c')} rl.lr=0.5")
    with pytest.raises(RunFolderError, match=r"cannot be compared.*rl\.lr=0\.5"):
        check_alike([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert RunDir.open(tmp_path / "c").path.name == "c"


def test_an_efficiency_is_of_halves_that_both_sides_ran_now(tmp_path, monkeypatch):
    """Every run takes ten seconds on either side, so the efficiency is one, whatever a killed command left behind."""
    clock, made = [0.0], []

    class Nodes:
        address = "here"

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

    class Meter:
        @property
        def cpu_s(self):
            return clock[0]

        def stop(self):
            pass

    def finish(words):
        folder, asked, _ = words
        for strategy in cluster.STRATEGIES:
            for seed in range(asked):
                run = folder / f"{strategy}-s{seed}"
                if not run.exists():
                    run.mkdir(parents=True)
                    (run / "summary.json").write_text("{}")
                    clock[0] += 10.0

    monkeypatch.setattr(cluster, "nodes", lambda count: Nodes())
    monkeypatch.setattr(cluster, "Meter", Meter)
    monkeypatch.setattr(cluster, "finish", finish)
    monkeypatch.setattr(cluster, "command", lambda folder, asked, steps, *options: (folder, asked, options[0]))
    monkeypatch.setattr(cluster, "versions", dict)
    monkeypatch.setattr(cluster, "compared", lambda folder: ())
    monkeypatch.setattr(cluster, "write", lambda part, content: made.append(content))
    monkeypatch.setattr(cluster.time, "monotonic", lambda: clock[0])
    runs = {side: tmp_path / side / "runs" / "comparison" for side in ("local", "cluster")}
    finish((runs["local"], 2, ""))
    (runs["cluster"] / "random-s0").mkdir(parents=True)  # killed in the cluster's first half
    cluster.equal(2, 4, (1, 1), tmp_path)
    assert made[0]["efficiency"] == made[0]["cpu_efficiency"] == 1.0 and made[0]["timed_runs"] == 6
    with pytest.raises(RunFolderError, match="--keep-in"):
        cluster.equal(2, 4, (1, 1), tmp_path)
    cluster.equal(2, 4, (1, 1), tmp_path / "new")
    assert made[1]["timed_runs"] == 12 and made[1]["local_s"] == made[1]["cluster_s"] == 120.0
