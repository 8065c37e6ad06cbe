"""A comparison that is killed goes on by the same command, and ends as one that nothing disturbed."""

import json
import os
import shutil
import signal
import time

import pytest
from pipeline_runs import TINY, TINY_PROPOSALS, assert_equal, command, results, started

from cosearch.cli.app import main

WORDS = (
    "compare",
    "--strategies",
    "a3cs,evolution",
    "--seeds",
    "1",
    "--env",
    "minatar:breakout",
    "--name",
    "small",
    *(word for word in TINY if not word.startswith("threads")),
    "a3cs:strategy.temperature_end=0.5",
    "evolution:strategy.values.population=2",
)
RUNS = ("random-s0", "largest-s0", "a3cs-s0", "evolution-s0")


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_the_same_result(tmp_path):
    (tmp_path / "straight").mkdir()
    (tmp_path / "killed").mkdir()
    straight = command(*WORDS, "--json", folder=tmp_path / "straight")
    assert straight.code == 0, straight.err
    for awaited, more, code in (
        ("random-s0/metrics.jsonl", (), -signal.SIGKILL),
        ("evolution-s0/metrics.jsonl", ("--jobs", "2"), 130),
    ):
        process = started(*WORDS, *more, folder=tmp_path / "killed")
        while not (tmp_path / "killed" / "runs" / "small" / awaited).exists():
            assert process.is_alive(), (tmp_path / "killed" / "stderr").read_text()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL if code < 0 else signal.SIGINT)
        process.join()
        assert process.exitcode == code
        time.sleep(1.0)  # its worker notices
    assert "interrupted; the same command goes on" in (tmp_path / "killed" / "stderr").read_text()
    done = command(*WORDS, "--json", folder=tmp_path / "killed")
    assert done.code == 0, done.err
    for name in RUNS:
        one, other = (results(tmp_path / folder / "runs" / "small" / name) for folder in ("straight", "killed"))
        for found in (one, other):
            (found["summary"]["control"] or {}).pop("path", None)
        assert_equal(other, one)
    for key in ("strategies", "runs"):
        pairs = zip(json.loads(straight.out)[key], json.loads(done.out)[key], strict=True)
        assert all(a["strategy"] == b["strategy"] and a.get("score_mean") == b.get("score_mean") for a, b in pairs)
    assert {row["env_steps"] for row in straight.json["strategies"]} == {128 + 96}
    again = command(*WORDS, folder=tmp_path / "killed")
    assert again.code == 0 and "search: step" not in again.err  # nothing is left to be done


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_are_made(tmp_path):
    done = command(*WORDS, "evolution:rl.lr=1e30", "--json", folder=tmp_path)
    assert done.code == 1 and "error: evolution-s0: " in done.err
    assert {row["strategy"] for row in done.json["strategies"]} == {"random", "largest", "a3cs"}
    assert done.json["unfinished"] == ["evolution-s0"]


@pytest.mark.slow
def test_a_run_whose_control_failed_is_made_without_it_and_stays_whole_when_that_is_repaired(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder, words = tmp_path / "runs" / "c", [word for word in TINY_PROPOSALS if not word.startswith("threads")]
    verb = ["compare", "--strategies", "random", "--seeds", "1", "--env", "minatar:breakout", "--name", "c", *words]
    assert main([*verb, "random:rl.lr=1e30"]) == 1
    err = capsys.readouterr().err
    assert [line.split(":")[1] for line in err.splitlines() if line.startswith("error: ")] == [" random-s0"]
    assert "largest-s0: is made without its control random-s0, which is not finished" in err
    before = (folder / "largest-s0" / "summary.json").read_bytes()
    assert json.loads(before)["control"] is None
    page = (folder / "largest-s0" / "report.html").read_text(encoding="utf-8")
    assert "No control (strategy random or largest) was finished" in page
    shutil.rmtree(folder / "random-s0")  # repaired: made again with values that it can be made with
    record = folder / "compare.json"
    record.write_text(record.read_text().replace("1e+30", "0.002"))
    assert main([*verb, "random:rl.lr=0.002", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["unfinished"] == [] and [row["runs"] for row in result["strategies"]] == [1, 1]
    assert (folder / "largest-s0" / "summary.json").read_bytes() == before
