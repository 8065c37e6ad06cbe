"""Learning curves and the distillation ablation: what they read, compare and count."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer

from cosearch.benchmarks.learning import annealing, distillation, learning_curves
from cosearch.benchmarks.learning.learning_curves import (
    PUBLISHED,
    at,
    compare_minatar,
    compare_procgen,
    curve,
    main,
    markdown,
    train,
)
from cosearch.benchmarks.searches import quantum
from cosearch.record.metrics import append_metrics, read_metrics
from cosearch.rl.teacher import find_teacher
from latency_tables.errors import RequestError, RunFolderError

THEIRS = json.loads(PUBLISHED.read_text(encoding="utf-8"))
ORACLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "train_procgen_easy_curves.json"


def line(steps, train, test=None):
    """A curve of one update each 16,384 steps, linear in the steps."""
    step = np.arange(16384, steps + 1, 16384, dtype=float)
    return {"step": step, "wall_s": step / 300, "train": train(step), "test": (test or train)(step)}


@pytest.mark.parametrize(
    "benchmark, words, more",
    [
        (distillation, ("minatar:breakout", "none"), ()),
        (annealing, ("minatar:breakout", annealing.CONSTANT), ()),
        (quantum, ("bell", "ppo"), ("objective.latency_ratio=4",)),
    ],
    ids=["distillation", "annealing", "quantum"],
)
def test_networks_that_are_measured_before_the_retraining_are_retrained(benchmark, words, more, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "EPISODES", 4, raising=False)
    small = ("env.num_envs=4", "rl.rollout_steps=8", "rl.minibatch=16", "rl.micro_batch=16", "rl.epochs=1", "threads=1")
    budget = ("budget.search_steps=128", "budget.retrain_steps=64", "objective.file_target_bytes=10000000")
    benchmark.run_one(*words, 0, tmp_path, [*small, *budget, *more])
    (folder,) = tmp_path.iterdir()
    assert (folder / "rounds.json").is_file()
    assert [each["step"] for each in read_metrics(folder / "metrics.jsonl") if each["stage"] == "retrain"] == [32, 64]


def test_a_point_is_the_mean_of_five_updates_and_unknown_beyond_the_end():
    c = line(20 * 16384, lambda step: step)
    assert at(c["train"], c["step"], 10 * 16384) == 10 * 16384
    assert at(c["train"] ** 2, c["step"], 10 * 16384) == pytest.approx(16384**2 * (64 + 81 + 100 + 121 + 144) / 5)
    assert at(c["train"], c["step"], 21 * 16384) is None
    half = {"step": np.arange(8192, 20 * 16384 + 1, 8192, dtype=float)}  # twice as many updates: the same steps are averaged
    assert at(half["step"], half["step"], 10 * 16384 + 4096) == pytest.approx(10 * 16384 + 4096)
    assert at(half["step"] ** 2, half["step"], 10 * 16384) == pytest.approx(8192**2 * sum(i * i for i in range(16, 25)) / 9)


def published_line(game, kind):
    theirs = THEIRS["procgen_ppo_200_levels"]
    return lambda step: np.interp(step, theirs["steps"], theirs["games"][game][kind]["mean"])


def test_the_published_curve_beside_itself_and_one_that_is_worse():
    theirs = THEIRS["procgen_ppo_200_levels"]
    same = line(1_000_000, published_line("starpilot", "train"), published_line("starpilot", "test"))
    rows = compare_procgen("starpilot", [same, same], theirs)
    assert len(rows) == 2 * (len(theirs["steps"])) or len(rows) == 2 * (len(theirs["steps"]) - 1)  # the last needs 999,424 steps
    assert all(row["not_below"] and abs(row["ours_mean"] - row["published_mean"]) < 0.25 for row in rows)
    worse = line(500_000, lambda step: 0.0 * step + 2.0)
    rows = compare_procgen("starpilot", [worse], theirs)
    assert {row["steps"] for row in rows} == {step for step in theirs["steps"] if step <= 500_000}
    late = [row for row in rows if row["steps"] > 300_000]
    assert late and not any(row["not_below"] for row in late) and all(row["deviations"] < -1 for row in late)
    text = markdown({"family": "procgen", "games": {"starpilot": {"runs": [{"steps": 1, "wall_s": 60.0}], "rows": rows}}})
    assert f"| {rows[0]['steps']:,} | {rows[0]['published_mean']:.2f} ± " in text and text.count("2.00 (2.00), -") >= len(late)
    missed = sum(row["ours_mean"] < row["published_mean"] - row["published_std"] for row in rows)
    assert f"deviation: {missed} of {len(rows)}." in text


def test_minatar_points_are_those_that_every_seed_has_reached():
    theirs = THEIRS["minatar"]
    rows = compare_minatar("breakout", [line(2_100_000, lambda s: s / 1e5), line(1_100_000, lambda s: 0 * s)], theirs)
    assert [row["steps"] for row in rows] == [500_000, 1_000_000]
    assert rows[1]["DQN"] == theirs["games"]["breakout"]["DQN"][1] and rows[1]["ours_mean"] == pytest.approx(5.0, rel=0.02)


@pytest.mark.skipif(not ORACLE.exists(), reason="the published milestones are not here")
@pytest.mark.parametrize("kind", ["train", "test"])
@pytest.mark.parametrize("game", ["starpilot", "fruitbot", "coinrun", "bossfight"])
def test_the_stored_published_points_agree_with_the_milestones(game, kind):
    milestones = json.loads(ORACLE.read_text(encoding="utf-8"))
    theirs = THEIRS["procgen_ppo_200_levels"]
    for million, value in zip(milestones["milestones_M"], milestones[f"easy-200-{kind}/{game}"]):
        if 0.25 <= million <= 1:
            found = np.interp(million * 1e6, theirs["steps"], theirs["games"][game][kind]["mean"])
            assert found == pytest.approx(value, abs=0.5)  # another window of averaging


def test_a_log_is_read_back_as_a_curve(tmp_path):
    folder = tmp_path / "teacher-minatar-breakout-minatar-cnn-s3"
    folder.mkdir()
    for step, score in ((8192, None), (16384, 1.5)):
        append_metrics(folder / "metrics.jsonl", {"stage": "teacher", "step": step, "wall_s": 1.0, "score_train": score})
    found = curve("minatar", "breakout", 3, tmp_path)
    np.testing.assert_array_equal(found["step"], [8192, 16384])
    assert np.isnan(found["train"][0]) and found["train"][1] == 1.5 and np.isnan(found["test"]).all()
    with pytest.raises(RequestError, match="--only-table"):
        curve("minatar", "breakout", 4, tmp_path)


def test_other_settings_are_words_of_the_training_command(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(learning_curves.subprocess, "run", lambda words, **_: asked.append(words))
    for settings in ((), ("rl.minibatch=2048", "rl.lr_end_fraction=1")):
        train("procgen", "starpilot", 1, 1000, tmp_path, 1, settings)
        train("minatar", "breakout", 1, 1000, tmp_path, 1, settings)
    assert asked[2:] == [[*words, "rl.minibatch=2048", "rl.lr_end_fraction=1"] for words in asked[:2]]
    assert "--train-levels" in asked[0] and "--train-levels" not in asked[1]


def test_curves_with_other_settings_go_into_files_of_another_name(monkeypatch, tmp_path):
    trained = []
    monkeypatch.setattr(learning_curves, "train", lambda *words: trained.append(words))
    monkeypatch.setattr(learning_curves, "curve", lambda *_: line(300_000, lambda step: step / 1e5))
    monkeypatch.setattr(learning_curves, "HERE", tmp_path)
    main(games=["starpilot:1"], settings=["rl.minibatch=512"], label="small", runs=tmp_path, steps=7, threads=1)
    assert trained == [("procgen", "starpilot", 0, 7, tmp_path, 1, ("rl.minibatch=512",))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning_curves_small.json", "learning_curves_small.png"]
    kept = json.loads((tmp_path / "learning_curves_small.json").read_text(encoding="utf-8"))
    assert kept["settings"] == ["rl.minibatch=512"]
    with pytest.raises(typer.BadParameter, match="--set needs --label"):
        main(settings=["rl.minibatch=512"])


def write_run(folder, search, retrain):
    folder.mkdir(parents=True, exist_ok=True)
    for stage, scores in (("search", search), ("retrain", retrain)):
        for i, score in enumerate(scores):
            append_metrics(folder / "metrics.jsonl", {"stage": stage, "step": 100 * (i + 1), "wall_s": 1.0, "score_train": score})


def test_steps_to_the_wanted_score_count_search_and_retraining(tmp_path):
    write_run(tmp_path / "run", [None, 1.0, 2.0], [3.0, 9.0, 8.0])
    step, score = distillation.curve(tmp_path / "run")
    assert step.tolist() == [200, 300, 400, 500, 600] and score.tolist() == [1, 2, 3, 9, 8]
    assert distillation.steps_to(step, score, 3.0) == 400 and distillation.steps_to(step, score, 9.5) is None


def test_an_arm_that_never_gets_there_counts_with_its_length_and_says_so(tmp_path):
    wanted = 0.9 * find_teacher("auto", "minatar:breakout").provenance["score_train_mean"]
    for arm, final in (("none", 3.0), ("actor", wanted + 1), ("actor and critic", wanted + 1)):
        for seed in (0, 1):
            at_once = [wanted + 1 if arm == "actor and critic" else 1.0, final if seed == 0 or arm != "actor" else 1.0]
            folder = distillation._folder("minatar:breakout", arm, seed, tmp_path)
            distillation.open_or_create(folder, distillation._plan("minatar:breakout", arm, seed, []))
            write_run(folder, [0.5], at_once)
    with pytest.raises(RunFolderError, match=r"rl\.lr"):  # of other words than these runs
        distillation.collect("minatar:breakout", 2, tmp_path, ["rl.lr=0.5"])
    result = distillation.collect("minatar:breakout", 2, tmp_path, [])
    assert result["wanted"] == pytest.approx(0.9 * result["teacher_score_mean"])
    arms = result["arms"]
    assert arms["none"]["steps_to_wanted"] == [None, None] and arms["none"]["steps_mean"] == 300
    assert arms["actor"]["steps_to_wanted"] == [300, None] and arms["actor"]["not_reached"] == 1
    assert arms["actor and critic"]["steps_to_wanted"] == [200, 200] and arms["actor and critic"]["steps_ci95"] == (200, 200)
    assert "2 of 2" in distillation.markdown(result)
