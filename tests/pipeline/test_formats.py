"""What earlier versions left is opened by this one: files of every kind, and runs that were cut in every stage and strategy.

The folders are made by ``tests/support/make_assets.py``; none is ever changed. A format that this version cannot read any more
has to say which version does (``USE``), and is then listed in ``NO_LONGER``.
"""

import json
import shutil
import subprocess
import sys

import old_files
import pytest
from make_assets import all_cut_runs
from pipeline_runs import Silent, steps

from accel_models.design import load_design
from cosearch.api import load_agent, load_run, predict
from cosearch.bench.table import read_table
from cosearch.cli.app import main
from cosearch.compare.page import write_comparison
from cosearch.deploy.bundle.contract import Contract
from cosearch.pipeline.checkpoint import Checkpoint
from cosearch.pipeline.run import resume_run
from cosearch.planning.builtins import load_builtins
from cosearch.record.results.deployment import Deployments
from cosearch.record.results.summary import Summary
from cosearch.record.rundir import RunDir
from cosearch.report.page import write_report
from cosearch.rl.teacher import load_network, read_record
from cosearch.space.files import load_architecture
from latency_tables.table import load_table
from latency_tables.worklists import load_worklist

NEWEST = old_files.FOLDERS[-1]


@pytest.fixture(scope="module", params=old_files.FOLDERS, ids=lambda folder: folder.name)
def kept(request, tmp_path_factory):
    """The files of one version, at a place where they were not made."""
    load_builtins()
    return old_files.unpacked(request.param, tmp_path_factory.mktemp("kept") / "there")


def test_every_folder_says_which_version_made_it():
    names = {path.name for path in old_files.ASSETS.iterdir()}
    assert names == {folder.name for folder in old_files.FOLDERS} | {"run_0_1_0", "README.md"}
    for folder in old_files.FOLDERS:
        about = old_files.about(folder)
        assert folder.name == f"v{about['version']}-{about['made']}" and about["command"].startswith("python tests/support/")
    assert sum(path.stat().st_size for path in old_files.ASSETS.rglob("*") if path.is_file()) < 1_500_000


def test_nothing_in_them_names_a_place_of_the_machine(kept):
    for path in (path for path in kept.rglob("*") if path.is_file()):
        for word in (b"/tmp/", b"/root/", b"/home/", b"/work/"):
            assert word not in path.read_bytes(), path


def test_the_newest_folder_has_a_run_cut_in_every_strategy_and_kind_of_state():
    assert old_files.about(NEWEST)["cut"] == {name: stage for name, (stage, _) in all_cut_runs().items()}


def test_every_folder_has_its_runs(kept):
    there, cut = {path.name for path in (kept / "runs").iterdir()}, json.loads((kept / "ABOUT.json").read_text())["cut"]
    assert {"finished", "compared", *cut} <= there and any(name.startswith("teacher-") for name in there)


READ = {
    "table": lambda f: [load_table(path).predict for path in f.glob("table*.jsonl")],
    "work list": lambda f: load_worklist(f / "worklist.json"),
    "teacher": lambda f: load_network(read_record(f / "teacher.json")),
    "design": lambda f: load_design(f / "design.json"),
    "architecture": lambda f: load_architecture(f / "architecture.json"),
    "bench": lambda f: [read_table(path) for path in (f / "bench").glob("*.jsonl")],
    "deployments": lambda f: RunDir.open(f / "runs" / "finished").read(Deployments).deployments,
}


@pytest.mark.parametrize("what", READ)
def test_each_kind_of_file_is_read(what, kept):
    assert READ[what](kept)


def test_a_finished_run_is_reported_played_and_predicted(kept):
    folder = kept / "runs" / "finished"
    assert load_run(folder).summary.episodes >= 4 and write_report(folder).stat().st_size > 10_000
    agent = load_agent(folder)
    assert agent([0.0] * agent.observation_shape[0]) in (0, 1)
    assert predict(folder / "architecture.json", table=kept / "table.jsonl").latency_s == pytest.approx(
        load_run(folder).summary.latency_predicted_s, rel=1e-9
    )


def test_a_bundle_passes_its_own_self_test(kept):
    bundle = kept / "runs" / "finished" / "agent"
    Contract.from_json(json.loads((bundle / "contract.json").read_text()), bundle)
    words = [sys.executable, "-I", str(bundle / "run_agent.py"), "--self-test"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("ok: "), done.stderr


def test_a_comparison_is_shown_again(kept):
    result, files = write_comparison(kept / "runs" / "compared")
    assert not result.unfinished and all(file.stat().st_size for file in files)


QUICK = ("search-reinforce", "search-random", "finish")


def cut_names():
    """Cut runs of every folder; all but a few are slow."""
    found = []
    for folder in old_files.FOLDERS:
        names = json.loads((folder / "ABOUT.json").read_text())["cut"]
        for name in names:
            marks = () if name in QUICK else pytest.mark.slow
            found.append(pytest.param(folder, name, id=f"{folder.name}/{name}", marks=marks))
    return found


@pytest.mark.parametrize("folder, name", cut_names())
def test_a_run_that_was_cut_goes_on_to_its_end(folder, name, tmp_path):
    place = old_files.unpacked(folder, tmp_path / "there")
    run = RunDir.open(place / "runs" / name)
    began = Checkpoint.from_dict(run.load_checkpoint())
    assert began.stage == old_files.about(folder)["cut"][name]
    resume_run(run.path, Silent())
    assert Checkpoint.from_dict(run.load_checkpoint()).stage == "done"
    seen = steps(run.path)
    assert len(seen) == len(set(seen)) and RunDir.open(run.path).read(Summary).score_mean is not None


def test_a_teacher_in_training_goes_on(kept, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(kept, tmp_path / "there"))
    (name,) = [path.name for path in (tmp_path / "there" / "runs").iterdir() if path.name.startswith("teacher-")]
    request = json.loads((tmp_path / "there" / "runs" / name / "run.json").read_text())["request"]
    words = ["teacher", "--env", request["env"], "--out", "other.json", "--quiet", *request["values"]]
    for option in ("steps", "seed", "threads", "episodes"):  # a task without levels, whatever number was recorded
        words += [f"--{option}", str(request[option])]
    assert main([*words, "--network", request["network"]]) == 0, capsys.readouterr().err
    assert load_network(read_record(tmp_path / "there" / "other.json"))
