"""A comparison that was killed at an awkward moment, or that two processes work on: the same command goes on."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

import cosearch.compare.runs as runs_of_comparison
from cosearch.cli.app import main
from cosearch.compare import making, worker
from cosearch.compare.plan import planned_runs
from cosearch.compare.runs import alone, begin, read_comparison
from cosearch.compare.worker import RunJob, make_run
from cosearch.config.run import config_to_dict
from cosearch.fleet.folder_work import FolderJob, FolderMade
from cosearch.fleet.folders import Shared
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from latency_tables.errors import ConfigError

TAUGHT = ("objective.latency_ratio=0.3", "budget.search_steps=20000", "budget.retrain_steps=0")
WORDS = ("distill.teacher=none", *TAUGHT)


def planned(folder, strategies=("a3cs",), words=WORDS):
    return planned_runs(folder, strategies, [0], ["minatar:breakout"], words=words)


def test_a_run_that_was_cut_goes_on_though_its_record_holds_the_discount_of_its_teacher(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    (run, *_) = planned(folder, ("random",), words=TAUGHT)
    resolved = make_plan(run.config)
    assert run.config.rl.gamma is None and resolved.config.rl.gamma == resolved.teacher.gamma
    RunDir.create(folder, run.name, to_json(resolved.record("compare")))
    gone_on = []
    monkeypatch.setattr(worker, "resume_run", lambda path, progress: gone_on.append(path))
    job = FolderJob(Shared(str(folder)), run.name, RunJob(config_to_dict(run.config), "compare"))
    assert make_run(job, print) == FolderMade() and gone_on == [folder / run.name]
    content = RunJob(config_to_dict(replace(run.config, rl=replace(run.config.rl, lr=0.5))), "compare")
    other = replace(job, content=content)
    failure = make_run(other, print).failure
    assert "was made with other values (rl.lr 0.002 there, 0.5 now)" in failure and len(gone_on) == 1


@pytest.mark.parametrize("first, then", [(False, True), (True, False)])
def test_a_run_that_was_cut_goes_on_with_its_control_as_it_stands_now(first, then, tmp_path, monkeypatch):
    """Its control failed when it was begun, and is repaired since; or was whole then, and is not now."""
    folder = tmp_path / "c"
    _, run, *_ = planned(folder)
    alone = replace(run.config, control="")
    record = to_json(make_plan(alone).record("compare"))
    record["config"]["control"] = run.config.control if first else ""
    RunDir.create(folder, run.name, record)
    monkeypatch.setattr(worker, "resolve_request", lambda config: SimpleNamespace(config=config))
    monkeypatch.setattr(worker, "resume_run", lambda path, progress: None)
    job = FolderJob(Shared(str(folder)), run.name, RunJob(config_to_dict(run.config if then else alone), "compare"))
    assert make_run(job, print) == FolderMade()
    assert RunDir.open(folder / run.name).read_json("run.json")["config"]["control"] == (run.config.control if then else "")


def test_a_run_is_made_without_its_control_where_that_is_not_finished_and_told(tmp_path, monkeypatch):
    folder, told = tmp_path / "c", []
    runs = planned_runs(folder, ["a3cs"], [0, 1], ["minatar:breakout"], words=WORDS)
    monkeypatch.setattr(making, "_finished", lambda path: path.name in ("random-s0", "largest-s1"))
    asked = [making._beside_finished(folder, runs, run, told.append) for run in runs]
    assert [run.name for run in runs if run not in asked] == ["largest-s1", "a3cs-s1"]
    for run, now in zip(runs, asked, strict=True):
        assert now.config == replace(run.config, control="" if run.name.endswith("s1") else run.config.control)
    assert told == [f"{name}: is made without its control random-s1, which is not finished" for name in ("largest-s1", "a3cs-s1")]
    elsewhere = replace(runs[0], config=replace(runs[0].config, control=str(tmp_path / "other")))  # of `search --seeds`
    assert making._beside_finished(folder, runs, elsewhere, told.append) is elsewhere


@pytest.mark.parametrize("left", [(), (".lock", ".compare.json.77.partial"), (".random-s0.77.draft/run.json",)])
def test_what_a_kill_leaves_before_the_record_is_no_fault(left, tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    for name in left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    with alone(folder):
        begin(folder, planned(folder), "again")
    assert len(read_comparison(folder)) == 3


def test_a_second_process_on_a_comparison_is_told_to_repeat_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs_of_comparison, "WAIT_S", 0.0)
    words = ["compare", "--strategies", "a3cs", "--seeds", "1", "--env", "minatar:breakout", "--name", "c", *WORDS]
    with alone(tmp_path / "runs" / "c"):
        begin(tmp_path / "runs" / "c", planned(tmp_path / "runs" / "c"), "first")
        before = sorted(path.name for path in (tmp_path / "runs" / "c").iterdir())
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "another process works on the comparison" in said and "the same command goes on" in said and "resume" not in said
        assert sorted(path.name for path in (tmp_path / "runs" / "c").iterdir()) == before
    monkeypatch.setattr(making, "make_runs", lambda *args, **options: {})
    assert main(words) == 0  # the advice, followed


def test_a_refused_comparison_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError), alone(tmp_path / "c"):
        raise ConfigError("refused")
    assert not list(tmp_path.iterdir())
