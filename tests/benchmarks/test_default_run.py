"""The table of the default run: its seeds, its controls and how sure each difference is, also of results saved before."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer

from cosearch.benchmarks.documents import DOCS
from cosearch.benchmarks.searches import default_run
from cosearch.benchmarks.searches.default_run import markdown
from cosearch.planning.builtins import load_builtins
from latency_tables.errors import RequestError


def returns(*means):
    return [np.array([mean - 1.0, mean + 1.0]) for mean in means]


OLD_RUN = Path(__file__).parents[1] / "assets" / "run_0_1_0"


def test_runs_that_are_not_finished_are_left_out(tmp_path):
    load_builtins()
    for strategy, seed in (("reinforce", 0), ("reinforce", 2), ("random", 0)):
        shutil.copytree(OLD_RUN, tmp_path / f"default-{strategy}-s{seed}")
    (tmp_path / "default-random-s0" / "summary.json").unlink()
    found = default_run.collect(3, tmp_path)
    assert [row["seed"] for row in found["strategies"]["reinforce"]["seeds"]] == [0, 2]
    assert list(found["strategies"]) == ["reinforce"] and "difference" not in found
    assert "| reinforce | 2 | 11.80 [10.64, 13.07] | 93% |" in markdown(found) and "Difference" not in markdown(found)
    shutil.copytree(OLD_RUN, tmp_path / "default-largest-s1")
    found = default_run.collect(3, tmp_path)
    assert found["difference_largest"]["mean"] == 0.0 and "minus largest: +0.00" in markdown(found)


def test_only_what_was_asked_for_is_run(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(default_run.subprocess, "run", lambda command, check: ran.append(command[-7:]))
    default_run.run_all(["largest"], 2, tmp_path, [], 1)
    assert [words[words.index("--run") + 1] for words in ran] == ["default-largest-s0", "default-largest-s1"]
    with pytest.raises(typer.BadParameter, match="expected some of reinforce, random, largest, got a3cs"):
        default_run.main(strategies=["a3cs"], runs=tmp_path)


def test_the_difference_from_each_control_is_said_with_its_seeds():
    row = {"seed": 0, "score_mean": 1.0, "score_ci95": [0.0, 2.0], "share_of_teacher": None, "latency_predicted_s": 1e-4}
    row |= {"table_provenance": "estimated", "predicted_share_of_impala": 0.2, "latency_measured_s": 1e-4}
    row |= {"measured_share_of_impala": 0.2, "target_met": True, "env_steps": 1, "wall_s": 60.0}
    part = {"seeds": [row, row], "mean": 1.0, "mean_ci95": [0.0, 2.0], "iqm": 1.0, "iqm_ci95": [0.0, 2.0]}
    saved = {"strategies": dict.fromkeys(("reinforce", "random", "largest"), part)}
    saved["difference"] = {"mean": 0.5, "ci95": [0.25, 0.75]}
    *_, last = markdown(saved).splitlines()
    assert last.startswith(
        "Difference of the means, reinforce minus random: +0.50 [+0.25, +0.75], resampled: episodes within the seeds;"
    )
    saved |= {"resampled": default_run.RESAMPLED, "difference_largest": {"mean": 1.0, "ci95": None}}
    *_, random, largest = markdown(saved).splitlines()
    assert "minus random" in random and "minus largest: +1.00, no interval (1 seed), resampled: seeds, and episodes" in largest


def test_the_page_has_the_saved_table():
    saved = json.loads((Path(default_run.__file__).parent / "default_run.json").read_text(encoding="utf-8"))
    page = (DOCS / "evidence" / "default-run.md").read_text(encoding="utf-8")
    assert f"begin -->\n{markdown(saved)}\n<!-- default-run: end" in page


def test_the_interval_of_seeds_is_wider_than_that_of_their_episodes():
    """Seeds 10 apart whose episodes differ by 2: resampled seeds reach from the lowest seed to the highest."""
    found = default_run.statistics(returns(0.0, 10.0, 20.0))
    low, high = found["mean_ci95"]
    assert found["mean"] == 10.0 and low < 3.0 and high > 17.0
    assert found["mean_ci95_student"][0] < low  # for three seeds the bootstrap is too narrow
    gap = default_run.difference(returns(0.0, 10.0, 20.0), returns(1.0, 11.0, 21.0))
    assert gap["mean"] == -1.0 and gap["ci95"][0] < -10.0 < 9.0 < gap["ci95"][1] and gap["ci95_welch"][0] < -20.0


def test_the_teacher_is_played_as_often_as_asked_for_and_kept(tmp_path, monkeypatch):
    """Without the option the known score stays."""
    found = default_run.teacher_score(["env.name=minatar:breakout", "objective.latency_ratio=0.4"], 64)
    assert found["episodes"] == 64 and 10 < found["ci95"][0] < found["mean"] < found["ci95"][1] < 40
    with pytest.raises(RequestError, match="no teacher for gym:CartPole-v1"):
        default_run.teacher_score(["env.name=gym:CartPole-v1", "objective.latency_ratio=4"], 1)
    load_builtins()
    shutil.copytree(OLD_RUN, tmp_path / "default-reinforce-s0")
    monkeypatch.setattr(default_run, "HERE", tmp_path)
    score = {"mean": 20.0, "ci95": [19.0, 21.0]}
    monkeypatch.setattr(default_run, "teacher_score", lambda extra, episodes: score | {"episodes": episodes})
    default_run.main(runs=tmp_path, seeds=1, only_table=True)
    assert "teacher" not in json.loads((tmp_path / "default_run.json").read_text())
    for episodes in (5, 0):
        default_run.main(runs=tmp_path, seeds=1, only_table=True, teacher_episodes=episodes)
        kept = json.loads((tmp_path / "default_run.json").read_text())
        assert "The teacher over 5 episodes of its own: 20.00 [19.00, 21.00]; of that have reinforce 59%." in markdown(kept)
