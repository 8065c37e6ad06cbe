"""A comparison's runs on machines that do not see its folder, and those that fail: no cluster is needed to tell."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import cosearch.compare.making as making
import cosearch.compare.worker as worker
from cosearch.cli.app import main
from cosearch.compare.making import make_runs
from cosearch.compare.plan import planned_runs
from cosearch.compare.runs import alone, begin
from cosearch.compare.worker import RunJob, make_run
from cosearch.config.run import config_to_dict
from cosearch.fleet.cluster import Cluster
from cosearch.fleet.folder_work import FolderJob, FolderMade, Paused
from cosearch.fleet.folders import Shared
from cosearch.planning.needs import needs_of
from cosearch.planning.plan import make_plan
from cosearch.planning.recorded import config_of
from cosearch.planning.request import resolve_request
from cosearch.record.failures import FailuresRecord
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.rl.foreign.onnx_file import load_model
from cosearch.training.carried import carried, with_files_here
from latency_tables.errors import RunFailedError

TEACHER = ["teacher", "--env", "gym:CartPole-v1", "--out", "t/t.json"]
WORDS = ("distill.teacher=none", "objective.latency_ratio=0.3", "budget.search_steps=20000", "budget.retrain_steps=0")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "c"
    runs = planned_runs(folder, ("a3cs",), [0], ["minatar:breakout"], words=WORDS)
    with alone(folder):
        return folder, runs, begin(folder, runs, "compare")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_teacher_whose_weights_lie_in_a_subfolder_is_brought_along_whole(planned, tmp_path, monkeypatch):
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])],
            [numpy_helper.from_array(weights, "w")],
        )
    )
    own, there = tmp_path / "own", tmp_path / "there"
    (own / "weights").mkdir(parents=True)
    there.mkdir()
    onnx.save_model(model, own / "t.onnx", save_as_external_data=True, location="weights/data.bin", size_threshold=0)
    config = planned[1][0].config
    config = replace(config, table="", distill=replace(config.distill, teacher=str(own / "t.onnx")))
    with carried([config], Cluster("10.0.0.1:6379")) as brought:
        monkeypatch.chdir(brought.folder)
        own.rename(tmp_path / "elsewhere")
        for placed in (with_files_here(config, brought.by_path), worker._here(config, there, brought.by_path)):
            (found,) = load_model(Path(placed.distill.teacher)).graph.initializer
            np.testing.assert_array_equal(numpy_helper.to_array(found), weights)
        monkeypatch.chdir(tmp_path)


class Apart:
    """In place of ``Workers``: no job sees the folder, and each is done here."""

    def __init__(self, function, engine, needs):
        self.function = function

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, jobs, *, done, failed, lost, sent, started, **_):
        for index, job in enumerate(jobs):
            started(index, "a node")
            try:
                apart = replace(job, place=Shared(job.place.path, "another token"))
                done(index, self.function(apart, lambda text, index=index: sent(index, text)))
            except RunFailedError as error:
                failed(index, error) if "lost" not in str(error) else lost(index, str(error))


def test_runs_that_are_made_elsewhere_come_back_whole_with_the_paths_of_this_machine(planned, monkeypatch):
    folder, runs, inputs = planned
    steps, controls = [], []

    def plan_without_control(config):
        controls.append(config.control)
        return make_plan(replace(config, control=""))

    def resolve_without_control(config):
        assert (Path(config.control) / "done").is_file() and Path(config.control).parent != folder
        return SimpleNamespace(config=replace(resolve_request(replace(config, control="")).config, control=config.control))

    def start(plan, place, name, command, progress):
        assert place != folder and controls[-1] == ("" if name == "random-s0" else str(place / "random-s0"))
        assert name == "random-s0" or (place / "random-s0" / "done").is_file()  # its control came along
        run = RunDir.create(place, name, to_json(plan.record(command)))
        steps.append(name)
        if name == "a3cs-s0":
            raise Paused
        (run.path / "done").touch()

    def resume(path, progress):
        assert path.name == "a3cs-s0"
        (path / "done").touch()
        steps.append("resumed")

    monkeypatch.setattr(making, "Workers", Apart)
    monkeypatch.setattr(worker, "make_plan", plan_without_control)
    monkeypatch.setattr(worker, "resolve_request", resolve_without_control)
    monkeypatch.setattr(worker, "start_run", start)
    monkeypatch.setattr(worker, "resume_run", resume)
    monkeypatch.setattr(making, "is_finished", lambda run: (run.path / "done").is_file())
    told = []
    assert make_runs(folder, runs, jobs=1, command="compare", tell=told.append, inputs=inputs) == {}
    assert sorted(steps) == ["a3cs-s0", "largest-s0", "random-s0", "resumed"]
    for run in runs:
        assert (folder / run.name / "done").is_file()
        assert config_of(RunDir.open(folder / run.name)).control == run.config.control
    assert sum("come back in whole pieces" in line for line in told) == 2 and not (folder / FailuresRecord.FILE).exists()


def test_a_run_that_fails_or_is_lost_is_recorded_and_the_others_go_on(planned, monkeypatch):
    folder, runs, inputs = planned

    tries = []

    def make(job, send):
        tries.append(job.name)
        if job.name == "random-s0":
            raise RunFailedError("lost three times")
        if job.name == "largest-s0" and tries.count(job.name) < 3:
            raise RunFailedError("no current folder")
        return FolderMade("no luck" if job.name == "a3cs-s0" else None)

    monkeypatch.setattr(making, "Workers", Apart)
    monkeypatch.setattr(making, "make_run", make)
    failed = make_runs(folder, runs, jobs=1, command="compare", tell=print, inputs=inputs)
    assert failed == {"random-s0": "lost three times", "a3cs-s0": "no luck"}
    assert json.loads((folder / FailuresRecord.FILE).read_text())["failed"] == failed
    assert tries.count("largest-s0") == 3 and tries.count("a3cs-s0") == tries.count("random-s0") == 1


def test_a_node_with_another_table_or_teacher_refuses(planned, monkeypatch):
    folder, runs, inputs = planned
    run = next(run for run in runs if run.name == "random-s0")
    began = inputs[run.env, run.strategy]
    job = FolderJob(Shared(str(folder / "new")), run.name, RunJob(config_to_dict(run.config), "compare", began))
    monkeypatch.setattr(worker, "start_run", lambda *args: None)
    assert make_run(job, print) == FolderMade()
    other = replace(job, content=replace(job.content, inputs=replace(began, table=replace(began.table, table_id="0" * 64))))
    assert "where 000000000000 was asked for" in make_run(other, print).failure


def test_a_run_asks_for_the_cores_that_it_uses(planned):
    config = planned[1][0].config
    assert needs_of(config).cores == 1 and needs_of(config).gpus == 0
    many = replace(config, threads=3, compute="cuda", strategy=replace(config.strategy, workers=5))
    assert needs_of(many).cores == 5 and needs_of(many).gpus == 1


@pytest.mark.parametrize(
    "verb", [["compare"], ["search"], ["bench", "extend", "--out", "o"], ["measure", "--board", "b"], TEACHER]
)
def test_without_ray_one_message_says_what_to_type(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*verb, "--cluster", "local"]) == 2
    assert "pip install 'cosearch[ray]'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_option_of_clusters_without_one_is_refused(capsys):
    assert main(["search", "--other-torch"]) == 2
    assert "give --cluster ADDRESS" in capsys.readouterr().err


def test_a_cluster_that_would_have_nothing_to_do_is_refused_by_the_dry_run_too(monkeypatch, capsys):
    monkeypatch.setattr("cosearch.fleet.cluster.ray_module", lambda address: None)
    monkeypatch.setattr("cosearch.pipeline.forecast.forecast", lambda plan: pytest.fail("the dry run went on"))
    words = ["--preset", "smoke", "--env", "gym:CartPole-v1", "--device", "jetson", "distill.teacher=none"]
    assert main(["search", "--dry-run", "--cluster", "local", *words]) == 2
    assert "--cluster has no effect on a run of" in " ".join(capsys.readouterr().err.split())


def test_a_run_with_files_that_were_brought_along_is_the_run_that_was_asked_for(planned, monkeypatch):
    config = planned[1][0].config
    asked = replace(config, table="/here/t.jsonl", distill=replace(config.distill, teacher="/here/t.json"))
    brought = replace(config, table="/elsewhere/t.jsonl", distill=replace(config.distill, teacher="/elsewhere/t.json"))
    monkeypatch.setattr(worker, "resolve_request", lambda config: SimpleNamespace(config=config))
    assert worker._resolved(brought, asked) == asked and worker._resolved(asked, asked) == asked
