"""What comes from outside a run: Ctrl-C, a full disk, a second process. One message, the checkpoint intact, the run goes on."""

import json
import signal

import pytest
from pipeline_runs import TINY, Moment, assert_equal, checkpointed, command, fill, results

from cosearch.cli.app import main
from cosearch.record.rundir import RunDir


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Results of the run that nothing disturbed, and its events."""
    folder = tmp_path_factory.mktemp("straight")
    done = command("search", "--run", "one", *TINY, folder=folder)
    assert done.code == 0, done.err
    return results(folder / "runs" / "one"), done.events


@pytest.mark.parametrize(
    "stage", ["search", pytest.param("retrain", marks=pytest.mark.slow), pytest.param("finish", marks=pytest.mark.slow)]
)
def test_an_interrupted_run_says_how_it_goes_on_and_does(stage, straight, tmp_path):
    expected, events = straight
    done = command("search", "--run", "one", *TINY, folder=tmp_path, moment=Moment(stage, events[stage] // 2, "interrupt"))
    assert done.code == 130 and done.out == ""
    assert "interrupted; `cosearch resume runs/one` goes on from the last checkpoint" in done.err
    assert "Traceback" not in done.err
    assert checkpointed(tmp_path / "runs" / "one")["stage"] == stage
    done = command("resume", "runs/one", folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "one"), expected)


def test_an_interruption_before_the_folder_is_made_leaves_none(tmp_path):
    done = command("search", "--run", "one", *TINY, folder=tmp_path, moment=Moment("plan", 1, "interrupt"))
    assert done.code == 130 and done.err.endswith("interrupted before anything had begun\n")
    assert not (tmp_path / "runs" / "one").exists() and not list((tmp_path / "runs").iterdir())


def test_an_interruption_while_the_libraries_load_is_no_traceback(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("cosearch.cli.app._run", interrupted)
    assert main(["list", "presets"]) == 130
    assert capsys.readouterr().err == "interrupted before anything had begun\n"


@pytest.mark.parametrize(
    "stage", [pytest.param("search", marks=pytest.mark.slow), "retrain", pytest.param("finish", marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_message_and_the_run_goes_on_once_there_is_space(stage, straight, small_disk, tmp_path):
    expected, events = straight
    words = ("search", "--runs", str(small_disk), "--run", "one", *TINY)
    done = command(*words, folder=tmp_path, moment=Moment(stage, events[stage] // 2, "fill", str(small_disk)))
    assert done.code == 2 and done.out == "", done.err
    assert "Traceback" not in done.err and done.err.count("error:") == 1
    assert "the disk is full" in done.err and "Free some space" in done.err and "cosearch resume" in done.err
    assert checkpointed(small_disk / "one")["stage"] == stage
    again = command("resume", str(small_disk / "one"), folder=tmp_path)
    assert again.code == 2 and "Traceback" not in again.err and again.err.count("error:") == 1, again.err
    (small_disk / "filler").unlink()
    done = command("resume", str(small_disk / "one"), folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(small_disk / "one"), expected)


def test_no_folder_is_left_where_the_disk_was_full_from_the_start(small_disk, tmp_path, capsys):
    fill(small_disk)
    assert main(["search", "--runs", str(small_disk), "--run", "one", *TINY]) == 2
    assert capsys.readouterr().err.count("error:") == 1
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_run_that_another_process_writes_is_refused(tmp_path):
    done = command("search", "--run", "one", *TINY, folder=tmp_path, moment=Moment("search", 20))
    assert done.code == -signal.SIGKILL
    run = RunDir.open(tmp_path / "runs" / "one")
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with run.lock():
        for words in (("resume", "runs/one"), ("search", "--run", "one", *TINY)):
            done = command(*words, folder=tmp_path)
            assert done.code == 2 and done.out == "" and done.err.count("error:") == 1 and "Traceback" not in done.err
            assert "in use by another process" in done.err or "exists already" in done.err
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_another_table_or_teacher_than_the_run_began_with_is_refused(tmp_path, capsys, monkeypatch):
    done = command("search", "--run", "one", *TINY, folder=tmp_path, moment=Moment("search", 20))
    assert done.code == -signal.SIGKILL
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "runs" / "one" / "run.json"
    text = json.loads(record.read_text())
    record.write_text(json.dumps({**text, "table": {**text["table"], "table_id": "0" * 64}}))
    assert main(["resume", "runs/one"]) == 2
    assert "would mix two tables" in capsys.readouterr().err
    record.write_text(json.dumps({**text, "teacher": {"name": "other", "network": "other", "weights_sha256": "0" * 64}}))
    assert main(["resume", "runs/one"]) == 2
    assert "would mix two teachers" in capsys.readouterr().err
