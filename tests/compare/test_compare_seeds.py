"""One search over several seeds: which runs, each as it would be alone, their figures over the seeds, and a kill in between."""

import json
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from pipeline_runs import TINY, assert_equal, command, results, started
from report_fake_run import change, make_run

from cosearch.cli.app import main
from cosearch.compare.page import terminal_tables, write_comparison
from cosearch.compare.seeds import planned_seeds
from cosearch.config.run import config_to_dict, resolve
from cosearch.fleet.cluster import Cluster
from cosearch.pipeline.forecast import Forecast
from cosearch.planning.needs import needs_of
from latency_tables.errors import ConfigError

SCORES = (4.0, 9.0, 5.0, 6.0)
WORDS = ("search", "--env", "minatar:breakout", "--run", "both", *TINY)


def test_a_run_a_seed_with_all_else_as_it_was_asked_for():
    config = replace(resolve(options={"seed": 3, "device": "jetson"}), control="")
    runs = planned_seeds(config, range(3, 6))
    assert [(run.name, run.seed, run.config.seed) for run in runs] == [("s3", 3, 3), ("s4", 4, 4), ("s5", 5, 5)]
    assert all(replace(run.config, seed=3) == runs[0].config for run in runs) and runs[0].config.threads == config.threads
    with pytest.raises(ConfigError, match="one device and one latency target"):
        planned_seeds(resolve(options={"family.latency_targets_s": [0.1, 0.2]}), range(2))
    with pytest.raises(ConfigError, match="seed must be 0 to 18446744073709551615, got 18446744073709551616"):
        planned_seeds(config, range(2**64 - 1, 2**64 + 1))
    with pytest.raises(ConfigError, match="repeats the order of one run"):
        planned_seeds(replace(config, strategy=replace(config.strategy, order=(0, 1))), range(2))


def test_on_a_cluster_each_uses_the_cores_that_are_kept_for_it():
    """threads=0 is all cores of a node, of which one was kept."""
    for threads, expected in ((0, 1), (1, 1), (3, 3)):
        config = resolve(overrides=[f"threads={threads}"])
        (there,), (here,) = planned_seeds(config, [0], Cluster("10.0.0.1:6379")), planned_seeds(config, [0])
        assert (there.config.threads, needs_of(there.config).cores) == (expected, expected)
        assert here.config == replace(there.config, threads=threads)


def test_the_option_plans_several_runs_and_its_default_one(capsys, monkeypatch):
    monkeypatch.setattr("cosearch.pipeline.forecast.forecast", lambda plan: Forecast(plan, 1.0, 1.0, 60.0, peak_memory_bytes=1))
    words = [
        "search",
        "--preset",
        "smoke",
        "--env",
        "gym:CartPole-v1",
        "--seed",
        "7",
        "--dry-run",
        "--json",
        "distill.teacher=none",
    ]
    assert main([*words, "--seeds", "2"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in planned["runs"]] == [7, 8]
    assert planned["expected_s"] == pytest.approx(sum(run["expected_s"] for run in planned["runs"]))
    assert main(words) == 0
    assert "runs" not in json.loads(capsys.readouterr().out)


def test_their_pages_have_each_seed_and_the_interval_over_them(tmp_path):
    config = config_to_dict(resolve(options={"device": "jetson"}))
    entries = [
        {"name": f"s{seed}", "env": "procgen:starpilot", "strategy": "a3cs", "seed": seed, "config": config} for seed in range(5)
    ]
    (tmp_path / "compare.json").write_text(json.dumps({"format": 1, "runs": entries}))
    for seed, score in enumerate(SCORES):  # the fifth has not begun
        change(make_run(tmp_path / f"s{seed}"), "summary.json", score_mean=score, score_ci95=[score - 1, score + 1], seed=seed)
    result, files = write_comparison(tmp_path)
    (row,) = result.strategies
    assert row.iqm.value == pytest.approx(np.mean(sorted(SCORES)[1:3])) and row.iqm.ci95[0] < row.iqm.value < row.iqm.ci95[1]
    assert row.improvement is None and result.unfinished == ("s4",)
    pages = {file.name: file.read_text() for file in files if file.suffix in (".md", ".html")}
    assert pages["compare.md"].startswith("# a3cs over 5 seeds\n")
    each = pages["compare.md"].split("## Each seed")[1]
    assert "| 0 | 4.00 [3.00, 5.00] |" in each and "| 4 | not finished |" in each
    assert '<a href="s3/report.html">3</a>' in pages["compare.html"] and "s4/report.html" not in pages["compare.html"]
    assert [column.header for column in terminal_tables(result)[0].columns] == ["strategy", "runs", "IQM [95 %]", "latency", "HV"]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_undisturbed_and_each_run_is_that_of_its_seed_alone(tmp_path):
    for name in ("straight", "killed", "alone"):
        (tmp_path / name).mkdir()
    straight = command(*WORDS, "--seeds", "2", "--json", folder=tmp_path / "straight")
    assert straight.code == 0, straight.err
    assert straight.json["strategies"][0]["runs"] == 2
    process = started(*WORDS, "--seeds", "2", folder=tmp_path / "killed")
    while not (tmp_path / "killed" / "runs" / "both" / "s1" / "metrics.jsonl").exists():
        assert process.is_alive(), (tmp_path / "killed" / "stderr").read_text()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again = command(*WORDS, "--seeds", "2", folder=tmp_path / "killed")
    assert again.code == 0, again.err
    alone = command("search", "--env", "minatar:breakout", "--run", "s1", "--seed", "1", *TINY, folder=tmp_path / "alone")
    assert alone.code == 0, alone.err
    for seed in ("s0", "s1"):
        assert_equal(
            results(tmp_path / "killed" / "runs" / "both" / seed), results(tmp_path / "straight" / "runs" / "both" / seed)
        )
    assert_equal(results(tmp_path / "alone" / "runs" / "s1"), results(tmp_path / "straight" / "runs" / "both" / "s1"))
