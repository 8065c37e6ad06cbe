"""The table of policies made smaller: what a row says, and what a process that was killed leaves."""

import json
from types import SimpleNamespace

import pytest

from cosearch.benchmarks.peers.policies import POLICIES
from cosearch.benchmarks.peers.policy_files import PolicyFile, once
from cosearch.benchmarks.searches import compress
from cosearch.benchmarks.searches.compress import markdown, verdict
from latency_tables.errors import RunFailedError


def row(seed, share, ratio, **more):
    figures = {
        "policy_score": 500.0,
        "share": share,
        "ratio": ratio,
        "policy_measured_s": 2e-5,
        "measured_s": 1e-5,
        "params": 100,
    }
    return {"policy": "one", "about": "a zip", "env": "gym:CartPole-v1", "device": "jetson", "seed": seed, **figures, **more}


def test_a_row_has_its_mean_and_interval_over_seeds():
    found = markdown([row(0, 1.0, 0.5), row(1, 0.9, 0.3)], {"one": {"empty_ratio": 0.25, "params": 1000}}).splitlines()
    cells = [cell.strip() for cell in found[2].split("|")[1:-1]]
    assert len(found) == 3 and cells[0] == "one: a zip" and cells[3] == "1.00, 0.90"
    assert cells[4] == "**0.95** [0.31, 1.59]"  # Student with one degree of freedom: 0.95 +- 12.706 * 0.05
    assert cells[6].startswith("**0.40**") and cells[7] == "0.25" and cells[8] == "1,000, 100"
    assert cells[9] == "latency misses by 0.07"
    said = markdown([row(0, 1.0, 0.5, said="nothing smaller")], {}).splitlines()
    assert said[2].split("|")[3].strip() == "seed 0: nothing smaller"


def test_what_is_missed_is_said():
    assert verdict(0.95, 1 / 3, 0.2) == verdict(1.1, 0.1, 0.2) == "yes"
    assert verdict(0.9, 0.5, 0.4) == "return misses by 0.05; latency misses by 0.17, an empty network by 0.07"


def test_the_policies_of_the_issue_are_all_in_it():
    assert len(POLICIES) == 10


def test_a_file_that_was_left_half_is_made_again(tmp_path):
    path = tmp_path / "policy.zip"
    with pytest.raises(KeyboardInterrupt):
        once(path, lambda half: (half.write_bytes(b"ha"), (_ for _ in ()).throw(KeyboardInterrupt))[1].__next__())
    assert not path.exists()
    once(path, lambda half: half.write_bytes(b"whole"))
    assert once(path, lambda half: half.write_bytes(b"again")).read_bytes() == b"whole"


def test_a_command_that_was_killed_is_no_result_and_goes_on(tmp_path, monkeypatch):
    commands = []

    def run(command, **how):
        commands.append(command[3:5])
        (tmp_path / "a-policy-s3").mkdir(exist_ok=True)
        return SimpleNamespace(returncode=-9 if len(commands) == 1 else 2, stderr="no\nerror: too slow\n", stdout="")

    monkeypatch.setattr(compress.subprocess, "run", run)
    asked = ("A policy", PolicyFile(tmp_path / "p.zip", "gym:CartPole-v1", (), "a zip"), 3, "jetson", tmp_path, ())
    with pytest.raises(RunFailedError, match="ended with -9"):
        compress.compress(*asked)
    assert compress.compress(*asked)["said"] == "error: too slow"
    assert commands == [["compress", str(tmp_path / "p.zip")], ["resume", str(tmp_path / "a-policy-s3")]]
    assert json.dumps(compress.compress(*asked))
