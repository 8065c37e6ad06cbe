"""The folder of a teacher's training in place of a run: every verb says what it is, and lists of runs leave it out."""

import json

import pytest
from report_fake_run import make_run

from cosearch.cli.app import main
from cosearch.record.rundir import RunDir


@pytest.fixture
def teacher(tmp_path):
    """As ``cosearch teacher`` leaves it when it is stopped after its first checkpoint."""
    run = RunDir.create(
        tmp_path / "runs", "teacher-a", {"command": "cosearch teacher --env a", "request": {"env": "a", "steps": 512}}
    )
    run.save_checkpoint({"training": {}}, 1)
    return run.path


@pytest.mark.parametrize("verb", ["resume", "export", "evaluate", "deploy", "report", "video"])
def test_a_verb_for_runs_names_the_verb_that_goes_on_with_it(verb, teacher, capsys):
    assert main([verb, str(teacher)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    verb = "`cosearch teacher --env TASK --out FILE`, as it was begun, goes on"
    assert f"{teacher} is the folder of a teacher, not of a search: {verb}" in said


def test_it_is_no_run_of_a_list_of_runs(teacher, capsys):
    words = ["dashboard", str(teacher.parent), "--out", str(teacher.parent.parent / "all.html"), "--json"]
    assert main(words) == 2 and "there is no run in" in capsys.readouterr().err
    make_run(teacher.parent / "one")
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], found["states"], found["passed"]) == (1, {"finished": 1}, [])
