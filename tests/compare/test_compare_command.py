"""What the verb ``compare`` refuses to ignore, and the time that it expects."""

import json
import re

import pytest
from made_comparison import WORDS, made, plan

from cosearch.cli.app import main
from cosearch.pipeline.forecast import Forecast
from latency_tables.errors import ConfigError

SCORES = {"random": [1.0, 2.0], "a3cs": [6.0, 3.0]}


@pytest.mark.parametrize("owner", ["", "a3cs:", "random:", "mine:"])
@pytest.mark.parametrize(
    "word, by",
    [
        ("env.name=minatar:asterix", "--env"),
        ("seed=7", "--seeds"),
        ("strategy.name=evolution", "--strategies"),
        ("control=runs/other", "the comparison"),
        ("device=raspberry-pi-4", "--device"),
    ],
)
def test_a_word_for_what_an_option_sets_is_refused(owner, word, by, tmp_path):
    key = word.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)} is set by {by}.* leave the word out"):
        plan(tmp_path, ("a3cs", "mine=a3cs"), words=[*WORDS, owner + word], options={"device": "jetson"})


def test_a_device_may_be_a_word_where_no_option_names_one(tmp_path):
    runs = plan(tmp_path, seeds=[0], words=[*WORDS, "device=raspberry-pi-4"], options={"device": None})
    assert {run.config.device for run in runs} == {"raspberry-pi-4"}


def test_nothing_but_the_form_of_the_answer_may_stand_beside_from(tmp_path, capsys):
    folder = made(tmp_path / "c", SCORES)
    before = set(folder.iterdir())
    for words in (["--dry-run"], ["--seeds", "5"], ["--env", "minatar:breakout"], ["--jobs", "2"], ["rl.lr=1"], ["--name", "x"]):
        assert main(["compare", "--from", str(folder), *words]) == 2
        assert (
            f"--from shows the runs that are there: {words[0]} has no effect beside it, leave it out" in capsys.readouterr().err
        )
        assert set(folder.iterdir()) == before
    assert main(["compare", "--from", str(folder), "--jobs", "1", "rl.lr=1", "--dry-run"]) == 2
    assert "rl.lr=1, --jobs, --dry-run have no effect beside it, leave them out" in capsys.readouterr().err
    assert main(["compare", "--from", str(folder), "--json", "--quiet"]) == 0


@pytest.mark.parametrize(
    "jobs, cores, threads, expected_s",
    # three seeds, each run 60 s alone: random's first, then those of largest and a3cs; more than fit into the cores share them
    [
        (1, 4, 1, 180 + 360),
        (2, 2, 1, 120 + 180),
        (9, 2, 1, 90 + 180),
        (4, 8, 1, 60 + 120),
        (9, 2, 2, 180 + 360),
        (1, 2, 4, 180 + 360),
        (2, 8, 4, 120 + 180),
    ],
)
def test_the_expected_time_is_that_of_the_controls_and_then_of_the_others(jobs, cores, threads, expected_s, monkeypatch, capsys):
    monkeypatch.setattr("cosearch.pipeline.forecast.forecast", lambda plan: Forecast(plan, 1.0, 1.0, 60.0, peak_memory_bytes=1))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    words = ["--strategies", "a3cs", "--seeds", "3", "--env", "minatar:breakout", f"threads={threads}", *WORDS]
    assert main(["compare", *words, "--dry-run", "--json", "--jobs", str(jobs)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["expected_s"] == pytest.approx(expected_s) and [run["expected_s"] for run in found["runs"]] == [60.0] * 9


@pytest.mark.parametrize(
    "words, task",
    [([], "gym:CartPole-v1"), (["--env", "minatar:breakout"], "minatar:breakout")],
)
def test_the_task_is_the_files_where_no_option_names_one(words, task, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text('[env]\nname = "gym:CartPole-v1"\n')
    seen = []

    def planned(folder, strategies, seeds, envs, **how):
        seen.extend(envs)
        raise ConfigError("enough")

    monkeypatch.setattr("cosearch.compare.plan.planned_runs", planned)
    assert main(["compare", "--strategies", "a3cs", "--config", str(tmp_path / "mine.toml"), "--dry-run", *words]) == 2
    assert seen == [task]
