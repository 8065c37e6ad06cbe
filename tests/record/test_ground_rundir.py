"""The run folder: made whole, never written over, one writer, refusals that say what to type."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cosearch.record.rundir import RunDir
from latency_tables.errors import NonFiniteError, RunFolderError

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from cosearch.record.rundir import RunDir
with RunDir.open(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(600)
"""
WRITER = """
import sys, torch
from cosearch.record.rundir import RunDir
run = RunDir.open(sys.argv[1])
with run.lock():
    for step in range(1, 100_000):
        run.append_metrics({"stage": "search", "step": step, "wall_s": 0})
        run.save_checkpoint({"step": step, "weights": torch.full((2000,), float(step))}, step)
        print(step, flush=True)
"""


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path / "runs", "one", {"seed": 3})


def started(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_new_run_holds_its_record(tmp_path):
    run = RunDir.create(tmp_path / "deep" / "runs", "a.b-c+1", {"seed": 3, "sizes": (1, 2)})
    assert run.path == tmp_path / "deep" / "runs" / "a.b-c+1"
    assert run.record == {"seed": 3, "sizes": [1, 2], "format": 1} == json.loads((run.path / "run.json").read_text())
    assert RunDir.open(run.path).record == RunDir.open(str(run.path)).record == run.record
    assert [path.name for path in run.path.iterdir()] == ["run.json"] and [path.name for path in run.path.parent.iterdir()] == [
        "a.b-c+1"
    ]


def test_an_existing_run_is_refused_and_resume_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunDir.create(Path("runs"), "one", {"seed": 3})
    with pytest.raises(
        RunFolderError, match="the run folder runs/one exists already; `cosearch resume runs/one` goes on"
    ) as caught:
        RunDir.create(Path("runs"), "one", {"seed": 4})
    assert caught.value.exit_code == 2
    assert RunDir.open("runs/one").record["seed"] == 3


@pytest.mark.parametrize("kind", ["folder", "full folder", "file", "dangling link"])
def test_something_else_of_that_name_is_refused_and_left_alone(tmp_path, kind):
    place = tmp_path / "one"
    if kind == "file":
        place.write_text("mine")
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.mkdir()
    if kind == "full folder":
        (place / "mine").touch()
    with pytest.raises(RunFolderError, match=r"exists already; it holds no run\.json.*choose another --run"):
        RunDir.create(tmp_path, "one", {})
    assert [path.name for path in tmp_path.rglob("*")] == (["one", "mine"] if kind == "full folder" else ["one"])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "-a", ".a", "a b", "a\n", "é"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(RunFolderError, match="the name of a run must be"):
        RunDir.create(tmp_path, name, {})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_runs_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be made: Not a directory; choose another place with --runs"):
        RunDir.create(tmp_path / "file" / "runs", "one", {})


def test_a_record_with_nan_leaves_no_folder(tmp_path):
    with pytest.raises(NonFiniteError):
        RunDir.create(tmp_path, "one", {"lr": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_make_one_name_one_succeeds(tmp_path, monkeypatch):
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + threading.get_ident() % 10**6)  # as separate processes would have
    barrier, outcomes = threading.Barrier(8), []

    def make(number):
        barrier.wait()
        try:
            outcomes.append(RunDir.create(tmp_path, "one", {"number": number}).record["number"])
        except RunFolderError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(winners) == 1 and RunDir.open(tmp_path / "one").record["number"] == winners[0]
    assert sum("exists already" in str(outcome) for outcome in outcomes) == 7


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "is not a run folder: it holds no run.json"),
        ("", "run.json: cannot be read"),
        ('{"format": 1', "run.json: cannot be read"),
        ("[]", "is not a run of this version: its format must be 1, got None"),
        ('{"name": "a package of JavaScript"}', "got None"),
        ('{"format": 2}', "got 2; use the version of cosearch that made it"),
        (b"\xff\xfe", "run.json: cannot be read"),
    ],
)
def test_a_foreign_or_damaged_folder_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunFolderError, match=message):
        RunDir.open(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    for place in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(RunFolderError, match=f"there is no run folder .*`ls {tmp_path}` shows"):
            RunDir.open(place)


def test_json_files_come_back_and_are_refused_when_damaged(run):
    content = {"score": 1.5, "unknown": None, "list": [1, 2]}
    assert run.write_json("summary.json", content) == run.path / "summary.json"
    assert run.read_json("summary.json") == content
    (run.path / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"summary\.json: cannot be read"):
        run.read_json("summary.json")
    with pytest.raises(RunFolderError, match=f"holds no agent.json; `cosearch resume {run.path}` goes on"):
        run.read_json("agent.json")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(run, number):
    run.write_json("summary.json", {"score": 1.0})
    with pytest.raises(NonFiniteError, match=r"summary\.json was not written"):
        run.write_json("summary.json", {"score": number})
    assert run.read_json("summary.json") == {"score": 1.0}


@pytest.mark.parametrize("name", ["../x.json", "a/b.json", "/x.json", "", ".", ".."])
def test_json_files_stay_inside_the_folder(run, name):
    for use in (lambda: run.write_json(name, {}), lambda: run.read_json(name)):
        with pytest.raises(ValueError, match="a plain file name"):
            use()


def test_a_second_writer_in_this_process_is_refused(run):
    with run.lock():
        with pytest.raises(RunFolderError, match="runs/one is in use by another process"), RunDir.open(run.path).lock(wait_s=0):
            raise AssertionError("two writers in one folder")
    with pytest.raises(ZeroDivisionError), run.lock(wait_s=0):  # free again, and free after an error as well
        raise ZeroDivisionError
    with run.lock(wait_s=0):
        pass


def test_a_second_process_is_refused_until_the_first_is_killed(run):
    holder = started(HOLDER, run.path)
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RunFolderError, match="in use"), run.lock(wait_s=0):
            raise AssertionError("two writers in one folder")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with run.lock(wait_s=0):
        pass


def test_the_lock_waits_for_a_writer_that_is_ending(run):
    entered, ended = threading.Event(), []

    def hold():
        with run.lock():
            entered.set()
            threading.Event().wait(0.3)
            ended.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with run.lock(wait_s=20):
        assert ended
    thread.join()


def test_leftovers_of_a_killed_writer_go_with_the_next_lock(run):
    (run.path / ".run.json.77.partial").write_text("half")
    with run.lock():
        assert sorted(path.name for path in run.path.iterdir()) == [".lock", "run.json"]


@pytest.mark.parametrize("after", [3, 17])
def test_a_run_that_is_killed_while_it_writes_can_go_on(run, after):
    writer = started(WRITER, run.path)
    for _ in range(after):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    last = int((rest.split() or [last])[-1]) if rest.endswith("\n") or not rest else last
    with run.lock():
        state = RunDir.open(run.path).load_checkpoint()
        assert last <= state["step"] <= last + 1 and state["weights"].tolist() == [state["step"]] * 2000
        assert run.truncate_metrics(state["step"], "search") in (0, 1)
        assert [line["step"] for line in run.read_metrics()] == list(range(1, state["step"] + 1))
        run.save_checkpoint({"step": 0}, 0)
    assert len(list((run.path / "checkpoints").iterdir())) == 2
