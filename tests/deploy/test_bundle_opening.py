"""A bundle is put on a device only where it is the run's own, and where each program in it is the one that we write."""

import json
import shutil

import pytest
from bundle_run import make_run
from report_fake_run import change

from cosearch.deploy.bundle.folder import FILES, open_bundle
from cosearch.deploy.deployment import DeployRequest, deploy
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("opening") / "run").path


@pytest.fixture
def run(finished, tmp_path):
    return RunDir.open(shutil.copytree(finished, tmp_path / "run"))


def test_our_own_bundle_is_opened(run):
    (run.path / "agent" / "__pycache__").mkdir()
    (run.path / "agent" / "notes.txt").write_text("mine")
    contract, model = open_bundle(run)
    assert model == (run.path / "agent" / contract.model).read_bytes()


FOREIGN = {
    "another runner": ("run_agent.py", "is not the program that this version of cosearch writes, .*`cosearch export"),
    "another node": ("ros2_node.py", "is not the program that this version of cosearch writes"),
    "a module that hides numpy": ("numpy.py", "no part of a bundle, and Python would run it: move it away"),
    "a compiled module": ("onnxruntime.pyc", "Python would run it"),
    "an extension": ("onnxruntime.so", "Python would run it"),
    "a package": ("numpy/__init__.py", "Python would find code in it: move it away"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_code_in_a_bundle_is_neither_run_nor_sent(what, run, monkeypatch):
    name, words = FOREIGN[what]
    path, started = run.path / "agent" / name, []
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit(0)\n")
    monkeypatch.setattr("cosearch.deploy.deployment.self_test_here", started.append)
    with pytest.raises(RunFolderError, match=words):
        deploy(run.path, DeployRequest(seconds=0.1))
    assert started == []


def test_each_program_that_we_write_is_known(run):
    written = {path.name for path in (run.path / "agent").iterdir() if path.suffix == ".py"}
    assert written == {path.name for path in FILES.iterdir() if path.suffix == ".py"} >= {"run_agent.py"}


@pytest.mark.parametrize("model", ["../../../etc/hostname", "/etc/hostname", "..", "missing.onnx"])
def test_a_model_lies_beside_its_contract(model, run):
    change(run.path / "agent", "contract.json", model=model)
    with pytest.raises(RunFolderError, match=r"model must be the name of a file beside it|cannot be read as the agent"):
        open_bundle(run)


def test_the_bundle_of_another_run_is_refused(run, tmp_path):
    other = make_run(tmp_path / "other", "gaussian")
    shutil.rmtree(run.path / "agent")
    shutil.copytree(other.path / "agent", run.path / "agent")
    with pytest.raises(RunFolderError, match=r"was made of another agent than agent\.json describes .*`cosearch export"):
        open_bundle(run)


def test_results_of_another_device_are_not_deployed(run):
    content = json.loads((run.path / "summary.json").read_text())
    change(run.path, "summary.json", latency_predicted_for="raspberry-pi-4")
    with pytest.raises(RunFolderError, match="a report would mix the two"):
        deploy(run.path, DeployRequest(seconds=0.1))
    change(run.path, "summary.json", latency_predicted_for=content["latency_predicted_for"])
    change(run.path, "agent.json", parity__sha256="0" * 64)
    change(run.path / "agent", "contract.json", network_sha256="0" * 64)
    with pytest.raises(RunFolderError, match=r"is not the file that agent\.json describes"):
        deploy(run.path, DeployRequest(seconds=0.1))
