"""What a deployment leaves in a run: whose figures they are, what says that they are no measurement, which journals stay."""

import json
import shutil
from pathlib import Path

import pytest
from bundle_run import make_run
from report_fake_run import change

from cosearch.cli.app import main
from cosearch.deploy.deployment import ROUNDS, DeployRequest, deploy
from cosearch.record.json_record import from_json, to_json
from cosearch.record.results.deployment import Deployments
from cosearch.record.results.summary import PolicyComparison, TargetCheck
from cosearch.report.data import read_run
from cosearch.report.facts import caveats, facts
from latency_tables.measuring.remote import Location

POLICY = PolicyComparison(
    origin="stable-baselines3",
    acting="sampled",
    score_ci95=None,
    random_score_mean=0.0,
    score_share=0.9,
    score_share_ci95=None,
    latency_from="measurement",
    latency_measured_s=2e-3,
    latency_ratio=0.5,
    latency_ratio_range=(0.4, 0.6),
)
JOURNAL = {"journal": 1, "deploy": "", "device": "", "seconds": 15.0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = make_run(tmp_path_factory.mktemp("deploy") / "run").path
    change(path, "summary.json", policy=to_json(POLICY), policy_latency_s=2e-3)
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run whose agent was timed on this machine beside reference agents and its policy."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def beside(run):
    """The times of the reference agents and of the policy in a run's summary."""
    summary = json.loads((run / "summary.json").read_text())
    references = [[each[name] for name in ("latency_measured_s", "measured_ratio")] for each in summary["reference_agents"]]
    return references, [summary["policy"][name] for name in ("latency_measured_s", "latency_ratio", "latency_ratio_range")]


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_times_of_this_machine_are_not_those_of_another_device(run):
    before = beside(run)
    assert None not in before[0][0] and before[1] == [2e-3, 0.5, [0.4, 0.6]]
    deploy(run, DeployRequest(seconds=0.3))
    assert beside(run) == before
    deploy(run, DeployRequest(Location(), "pi", seconds=0.3))
    assert beside(run) == ([[None, None], [None, None]], [None, None, None])
    kept = json.loads((run / "summary.json").read_text())
    assert kept["policy"]["score_share"] == 0.9 and kept["reference_agents"][0]["predicted_ratio"] > 0
    page = (run / "report.html").read_text()
    assert "3.90 ms" not in page and "Of the policy" not in page
    assert main(["report", str(run)]) == 0


def test_another_machine_of_the_same_name_is_another_device(run):
    agent = json.loads((run / "agent.json").read_text())
    change(run, "agent.json", latency={**agent["latency"], "conditions": {"machine": {"cpu": "another"}}})
    deploy(run, DeployRequest(seconds=0.3))
    assert beside(run)[0] == [[None, None], [None, None]]


def test_every_figure_of_an_emulated_device_says_so(run, capsys):
    words = ["deploy", str(run), "--name", "jetson", "--synthetic", "--seconds", "0.3", "--period-ms", "5", "--quiet"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = [line for line in lines if not line.startswith(("self-test:", "report:"))]
    assert len(figures) == 4 and all("synthetic: the device is emulated" in line for line in figures), figures
    assert json.loads((run / "summary.json").read_text())["latency_measured_on"] == "jetson, synthetic"
    known = facts(read_run(run))
    assert known.measured_on == "jetson, emulated" and not known.on_target  # whatever its name is


def test_the_journal_of_another_device_stays(run):
    digest = json.loads((run / "agent" / "contract.json").read_text())["network_sha256"]
    deploy(run, DeployRequest(seconds=0.3))
    model = json.loads((run / "deployments.json").read_text())["deployments"][0]["model_sha256"]
    assert digest and model != digest
    journals = {
        "deploy-aaa.journal": json.dumps({**JOURNAL, "deploy": model, "device": "pi"}) + "\n",
        "deploy-bbb.journal": json.dumps({**JOURNAL, "deploy": "0" * 64, "device": "pi"}) + "\n",  # of another agent
        "deploy-ccc.journal": json.dumps({**JOURNAL, "deploy": model, "device": "this machine"}) + "\n",  # of other seconds
        "deploy-ddd.journal": "torn",
    }
    for name, text in journals.items():
        (run / name).write_text(text)
    deploy(run, DeployRequest(seconds=0.3))
    assert [path.name for path in run.glob("deploy-*.journal")] == ["deploy-aaa.journal"]


def of_this_machine(run):
    """The run, as if its device had been this machine."""
    record, agent = (json.loads((run / name).read_text()) for name in ("run.json", "agent.json"))
    change(run, "run.json", device={**record["device"], "name": "this"})
    change(run, "agent.json", latency={**agent["latency"], "predicted_for": "this"})
    change(run, "summary.json", latency_predicted_for="this")


def test_here_the_target_is_checked_by_the_measurement(run, capsys):
    of_this_machine(run)
    before = summary_of(run)
    assert before["target_checked_by"] == "estimated table"
    assert main(["deploy", str(run), "--seconds", "0.6", "--period-ms", "5", "--json", "--quiet"]) == 0
    printed, after = json.loads(capsys.readouterr().out), summary_of(run)
    found = from_json(Deployments, json.loads((run / "deployments.json").read_text()), "x").deployments
    assert [each.name for each in found] == ["this machine"] and found[0].provenance == "measured" and found[0].host is None
    assert after["latency_measured_on"] == "this machine" and after["target_checked_by"] == "measurement on this machine"
    assert after["latency_measured_s"] == found[0].measured.p50_s == printed["measured"]["p50_s"]
    assert after["target_met"] is True and found[0].measured.p50_s < before["latency_target_s"] == found[0].target_s
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {"latency_measured_s", "latency_measured_on", "target_checked_by", "target_met"}
    assert found[0].measured.rounds == ROUNDS and found[0].paced.period_s == found[0].warmed.period_s == 0.005
    assert found[0].self_test.startswith("ok: 64 observations") and not list(run.glob("*.journal"))
    agent = json.loads((run / "agent.json").read_text())
    assert agent["latency"]["measured"]["p50_s"] == after["latency_measured_s"]
    assert "measured here" in (run / "report.html").read_text().lower()


def test_a_target_that_is_missed_there_is_not_met(run):
    of_this_machine(run)
    change(run, "summary.json", latency_target_s=1e-9)
    found = deploy(run, DeployRequest(seconds=0.3))
    assert found.target_met is False and summary_of(run)["target_met"] is False


def test_times_of_this_machine_decide_no_target_of_another_device(run):
    """Also after the device itself was timed; summary and report say the same."""
    before = summary_of(run)
    target = TargetCheck(
        metric="latency_s", statistic="median", at="back-to-back", target=1e-9, predicted=1e-10, measured=None, met=True
    )
    change(run, "summary.json", latency_target_s=1e-9, targets=[to_json(target)])
    deploy(run, DeployRequest(name="pi", seconds=0.3))
    there = summary_of(run)
    assert there["target_met"] is False and there["target_checked_by"] == "measurement on pi"
    assert deploy(run, DeployRequest(seconds=0.3)).target_met is False
    after = summary_of(run)
    assert after["target_met"] is True and after["target_checked_by"] == f"prediction ({before['table_provenance']} table)"
    assert after["latency_measured_on"] == "this machine" and after["targets"] == [to_json(target)]
    assert not any("say the contrary" in text for text in caveats(read_run(run)))
