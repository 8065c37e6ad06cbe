"""`teacher --seeds N`: each is the teacher of its seed alone, the best on training levels is kept, and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from here_cluster import HereCluster

from cosearch.benchmarks.workers.cluster_runs import descendants, processes
from cosearch.cli.app import main
from cosearch.planning.builtins import load_builtins
from cosearch.record.failures import read_failures
from cosearch.record.workers import LOST, read_workers
from cosearch.rl.envs import ENVIRONMENTS
from cosearch.rl.evaluate import Score
from cosearch.rl.teacher import read_record
from cosearch.teachers import train
from cosearch.teachers.seeds import train_teachers
from cosearch.teachers.train import TeacherRequest, train_teacher
from cosearch.testing.toys import TOYS
from latency_tables.errors import ConfigError, RunFailedError, RunFolderError

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("env.num_envs=4", "rl.rollout_steps=8", "rl.minibatch=32")
REQUEST = TeacherRequest("toy:signal", "minatar-cnn", 32, 5, 0, 2, values=WORDS)
FOLDER = Path("runs") / "teacher-toy-signal-minatar-cnn-seeds"


class Quiet:
    """Shows nothing."""

    def stage(self, name, total_steps, done_steps):
        pass

    def update(self, metrics):
        pass


@pytest.fixture(autouse=True)
def toys(monkeypatch, tmp_path):
    """The toy tasks; scores by seed, on held-out and on training levels: the best on one is not that on the other."""
    scores = {5: (9.0, 1.0), 6: (3.0, 7.0), 7: (4.0, 7.0)}

    def score(network, config, request, levels, progress):
        return Score((scores[request.seed][levels == "train"],) * 2, 0)

    monkeypatch.chdir(tmp_path)
    load_builtins()  # before the registry is put aside: a module registers itself once a process
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {**ENVIRONMENTS._entries, "toy": TOYS})
    monkeypatch.setattr(train, "_score", score)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def made(count=3, cluster=None, request=REQUEST):
    cluster = HereCluster() if cluster is None else cluster
    return train_teachers(request, count, Path("best.json"), Path("runs"), "a test", [].append, cluster=cluster)


def weights(file):
    return Path(file).with_suffix(".safetensors").read_bytes()


def test_each_is_the_teacher_of_its_seed_and_the_best_on_training_levels_is_kept():
    result = made()
    assert [one.seed for one in result.trained] == [5, 6, 7] and result.best.seed == 6 and not result.failed
    train_teacher(replace(REQUEST, seed=6, threads=1), Path("alone.json"), Path("alone"), "a test", Quiet())
    assert weights("best.json") == weights(FOLDER.resolve() / "s6" / "teacher.json") == weights("alone.json")
    assert weights("best.json") != weights(FOLDER / "s5" / "teacher.json")
    known = read_record(Path("best.json")).provenance
    assert known == read_record(Path("alone.json")).provenance and (known["score_mean"], known["score_train_mean"]) == (3.0, 7.0)
    assert result.to_json()["teachers"][2] == {
        "seed": 7,
        "teacher": str((FOLDER / "s7" / "teacher.json").resolve()),
        "score_mean": 4.0,
        "score_ci95": (4.0, 4.0),
        "episodes": 2,
        "score_train_mean": 7.0,
    }


def test_what_is_trained_stays_and_another_request_is_refused():
    made(2)
    cluster = HereCluster()
    assert [one.seed for one in made(3, cluster).trained] == [5, 6, 7]
    assert [work.name for work in cluster.made.works if work] == ["the run s7"]
    with pytest.raises(RunFolderError, match="was begun with other values"):
        made(1, request=replace(REQUEST, steps=64))


def test_one_that_is_lost_is_named_and_the_others_are_kept(monkeypatch):
    result = made(3, HereCluster(loses=2))
    assert [one.seed for one in result.trained] == [5, 7] and result.best.seed == 7
    assert result.failed == read_failures(FOLDER) == {"s6": "its process died"}
    assert [one.end for session in read_workers(FOLDER).sessions for one in session.attempts] == ["finished", LOST, "finished"]
    assert made().best.seed == 6 and not (FOLDER / "failures.json").exists()

    def unmade(plan, run, out, command, progress):
        raise ConfigError("no luck")

    monkeypatch.setattr("cosearch.teachers.seeds.teach", unmade)
    with pytest.raises(RunFailedError, match="no teacher was trained: s8: no luck"):
        made(1, request=replace(REQUEST, seed=8))


def test_the_verb_shows_all_and_ends_with_1_where_one_failed(monkeypatch, capsys):
    cluster = HereCluster(loses=1)
    monkeypatch.setattr("cosearch.fleet.cluster.Cluster.engine", lambda self, most, files=None: cluster.engine(most))
    words = [
        "teacher",
        "--env",
        "toy:signal",
        "--network",
        "minatar-cnn",
        "--seed",
        "5",
        "--steps",
        "32",
        "--episodes",
        "2",
    ]
    assert main([*words, "--seeds", "2", "--out", "best.json", "--quiet", *WORDS]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "seed 6: 3.00 [3.00, 3.00] over 2 episodes, 7.00 on training levels",
        "best.json: seed 6, the best on training levels",
    ]
    assert "error: s5: its process died" in shown.err
    assert main([*words, "--jobs", "1", "--out", "best.json", "--quiet", "--json", *WORDS]) == 0
    assert [one["seed"] for one in json.loads(capsys.readouterr().out)["teachers"]] == [5]
    assert main(["teacher", "--env", "toy:signal", "--from-sb3", "x.zip", "--seeds", "2", "--out", "t.json"]) == 2
    assert "trains nothing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("where", ["--jobs=1", "--cluster=local"])
def test_a_teacher_whose_worker_is_killed_goes_on_to_the_same_weights(where, tmp_path):
    if "local" in where:
        pytest.importorskip("ray")
    task = ("--env", "gym:CartPole-v1", "--steps", "12288", "--episodes", "4", "--threads", "1", "--test-envs", "2")
    learning = ("env.num_envs=8", "rl.rollout_steps=32", "rl.minibatch=64", "rl.epochs=1")
    words = [sys.executable, "-m", "cosearch", "teacher", *task, *learning]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    straight = subprocess.run([*words, "--out", "straight.json", "--runs", "alone", "--quiet"], env=environment, check=False)
    assert straight.returncode == 0
    folder = Path("runs") / "teacher-gym-CartPole-v1-mlp-64x64-seeds"
    killed = subprocess.Popen([*words, "--out", "killed.json", where], env=environment)
    try:
        while not list((folder / "s1" / "checkpoints").glob("*.pt")):
            assert killed.poll() is None
            time.sleep(0.01)
        there = processes()
        (worker,) = [pid for pid in descendants(there) if "spawn_main" in there[pid][2] or "ray::the run" in there[pid][2]]
        os.kill(worker, signal.SIGKILL)
        assert killed.wait() == 0
    finally:
        killed.kill()
        killed.wait()
    assert weights("killed.json") == weights("straight.json")
    ends = [one.end for one in read_workers(folder).sessions[0].attempts]
    assert ends == [LOST, "finished"]
    steps = [json.loads(line)["step"] for line in (folder / "s1" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == len(set(steps)) == 12288 // 256
