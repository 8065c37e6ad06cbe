"""A comparison that is killed goes on by the same command, and ends as one that nothing disturbed."""

import json
import os
import signal
import time

import pytest
from pipeline_runs import TINY, assert_equal, command, results, started

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
