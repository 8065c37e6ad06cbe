"""Many run folders read together: which there are, in what state each of them is, and what of a run its row holds."""

import json
import os

import pytest
from report_fake_run import ARCHITECTURE, change, make_run

from cosearch.config.run import config_to_dict, resolve
from cosearch.overview import rows as row_reader
from cosearch.overview.folders import FRESH_S, QUIET_S, STATES, find_runs, signature
from cosearch.overview.rows import Reader
from cosearch.record.rundir import only_writer
from cosearch.report.data import read_run
from latency_tables.errors import RunFolderError

NOW_S = 2_000_000_000.0


def aged(folder, silent_s):
    """Make every file of a run so old at NOW_S."""
    for path in folder.rglob("*"):
        os.utime(path, (NOW_S - silent_s,) * 2)


def unfinished(folder):
    for name in ("summary.json", "agent.json", "architecture.json"):
        (folder / name).unlink()
    return folder


def states(folder):
    rows, passed = Reader().rows([folder], NOW_S)
    assert not passed
    return {row.name: row.state for row in rows}


def test_a_row_has_the_figures_of_the_run_s_files(tmp_path):
    run = make_run(tmp_path / "one")
    ((row,), passed) = Reader().rows([run], NOW_S)
    summary, record = (json.loads((run / name).read_text()) for name in ("summary.json", "run.json"))
    predicted = json.loads((run / "architecture.json").read_text())["predicted"]
    assert not passed and (row.name, row.folder, row.state) == ("starpilot-jetson", run, "finished")
    assert (row.task, row.device, row.strategy, row.seed) == ("procgen:starpilot", "jetson", "a3cs", 7)
    assert (row.score_mean, list(row.score_ci95), row.macs) == (14.2, [13.1, 15.3], summary["macs"])
    assert (row.latency_predicted_s, row.latency_measured_s) == (predicted["latency_s"], 1.21e-3)
    assert row.architecture == tuple(ARCHITECTURE.choice_names) and row.created_utc == record["created_utc"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    retrained = [line for line in lines if line["stage"] == "retrain"]
    curve = dict(row.curves)["retrain"]
    assert len(curve) == 60 and curve[0][0] < curve[-1][0] <= retrained[-1]["step"]
    mean = sum(line["score_train"] for line in retrained[:3]) / 3  # 147 lines in 60 pieces: the first has three
    assert len(retrained) == 146 and curve[0][1] == pytest.approx(mean)
    evaluated = [line for line in retrained if "score_eval" in line]
    assert [one.score for one in dict(row.evaluations)["retrain"]] == [line["score_eval"] for line in evaluated]


def test_states_follow_the_lock_and_the_times_of_the_files(tmp_path):
    make_run(tmp_path / "done")
    run = unfinished(make_run(tmp_path / "half"))
    change(run, "run.json", name="half")
    aged(run, FRESH_S + 1)
    assert states(run) == {"half": "idle"}
    aged(run, FRESH_S - 1)
    assert states(run) == {"half": "running"}  # perhaps on another node, whose locks are not seen here
    with only_writer(run, "", 0.0):
        aged(run, QUIET_S - 1)
        assert states(run) == {"half": "running"}
        aged(run, QUIET_S + 1)
        assert states(run) == {"half": "stuck"}
        assert states(tmp_path)["starpilot-jetson"] == "finished"
        lines = [
            {"stage": "search", "step": i, "wall_s": 60.0 * i} for i in range(5)
        ]  # a line a minute: twenty of them are longer
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        aged(run, 20 * 60.0 - 1)
        assert states(run) == {"half": "running"}
        aged(run, 20 * 60.0 + 1)
        assert states(run) == {"half": "stuck"}
    assert states(run) == {"half": "idle"}


def test_a_lock_that_is_asked_for_hinders_no_writer(tmp_path):
    run = unfinished(make_run(tmp_path / "half"))
    states(run)
    with only_writer(run, "in use", 0.0):
        states(run)


def test_runs_that_a_comparison_has_not_begun_wait(tmp_path):
    config = config_to_dict(resolve(options={"device": "raspberry-pi-4"}))
    planned = [
        {"name": f"a3cs-s{seed}", "env": "minatar:breakout", "strategy": "a3cs", "seed": seed, "config": config}
        for seed in (0, 1)
    ]
    (tmp_path / "compare.json").write_text(json.dumps({"format": 1, "runs": planned}))
    make_run(tmp_path / "a3cs-s0")
    (begun, waiting), _ = Reader().rows([tmp_path], NOW_S)
    assert (begun.folder.name, begun.state) == ("a3cs-s0", "finished")
    assert (waiting.name, waiting.state, waiting.task) == ("a3cs-s1", "waiting", "minatar:breakout")
    assert (waiting.strategy, waiting.seed, waiting.device) == ("a3cs", 1, "raspberry-pi-4")


def test_a_failed_run_has_its_comparison_s_reason_until_it_goes_on(tmp_path):
    config = config_to_dict(resolve())
    planned = [{"name": f"s{seed}", "env": "a", "strategy": "a3cs", "seed": seed, "config": config} for seed in (0, 1)]
    (tmp_path / "compare.json").write_text(json.dumps({"format": 1, "runs": planned}))
    (tmp_path / "failures.json").write_text(json.dumps({"format": 1, "failed": {"s0": "lost three times", "s1": "no disk"}}))
    run = unfinished(make_run(tmp_path / "s0"))
    aged(run, 1.0)
    rows, _ = Reader().rows([tmp_path], NOW_S)
    assert [(row.folder.name, row.state, row.reason) for row in rows] == [
        ("s0", "failed", "lost three times"),
        ("s1", "failed", "no disk"),
    ]
    with only_writer(run, "", 0.0):
        (again, _), _ = Reader().rows([tmp_path], NOW_S)
        assert (again.state, again.reason) == ("running", "")
    (tmp_path / "failures.json").write_text("{}")
    assert "failed is missing" in Reader().rows([tmp_path], NOW_S)[1][0].reason


def test_a_broken_run_is_named_with_its_reason_and_the_others_are_read(tmp_path):
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad")
    (bad / "summary.json").write_text("{")
    rows, passed = Reader().rows([tmp_path], NOW_S)
    assert not passed and {row.folder.name: row.state for row in rows} == {"bad": "unreadable", "good": "finished"}
    assert "summary.json" in rows[0].reason and not rows[1].reason
    (tmp_path / "compare.json").write_text("{")
    rows, passed = Reader().rows([tmp_path], NOW_S)
    assert len(rows) == 2 and [one.path.name for one in passed] == ["compare.json"] and "cannot be read" in passed[0].reason


def test_only_what_has_changed_is_read_again(tmp_path, monkeypatch):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    reader, read = Reader(), []
    before, _ = reader.rows([tmp_path], NOW_S)
    monkeypatch.setattr(row_reader, "read_run", lambda path: read.append(path) or read_run(path))
    change(second, "summary.json", score_mean=3.0)
    os.utime(second / "summary.json", (NOW_S, NOW_S))
    after, _ = reader.rows([tmp_path], NOW_S)
    assert read == [second] and [row.score_mean for row in after] == [14.2, 3.0] and before[0] == after[0]
    assert first / "run.json" in map(type(first), signature(find_runs([first])[0][0]))


def test_a_run_is_listed_once_and_a_folder_without_one_says_what_to_give(tmp_path):
    run = make_run(tmp_path / "deep" / "below" / "one")
    places, _ = find_runs([tmp_path, run, tmp_path / "deep"])
    assert [place.path for place in places] == [run]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"no run in .*empty.*`cosearch search --run NAME` makes one"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(RunFolderError, match=r"there is no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])


def test_agents_of_a_family_are_rows_of_their_own(tmp_path):
    family = make_run(tmp_path / "several")
    for name in ("0.2ms", "0.4ms"):
        make_run(family / "agents" / name)
    (family / "agents" / "0.4ms" / "summary.json").unlink()
    aged(family, FRESH_S + 1)
    with only_writer(family, "", 0.0):
        rows, _ = Reader().rows([tmp_path], NOW_S)
        assert [(row.name, row.state) for row in rows] == [("several/0.2ms", "finished"), ("several/0.4ms", "running")]
    assert set(STATES) >= {row.state for row in rows}
