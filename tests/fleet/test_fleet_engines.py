"""Engines do what the conformance suite asks for, and the processes of this machine end with their parent."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cosearch
from cosearch.fleet.processes import UNGUARDED, WORKER, Processes
from cosearch.fleet.work import TRIES
from cosearch.fleet.workers import Workers
from cosearch.testing.engine_conformance import check_engine, obey
from latency_tables.errors import ConfigError, RequestError, RunFailedError

ROOT = Path(__file__).resolve().parents[2]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_processes_of_this_machine_are_an_engine(tmp_path):
    check_engine(lambda: Processes(2), tmp_path)


def test_jobs_are_told_by_their_index_and_errors_are_raised_or_told(tmp_path):
    told, starts = [], []

    def work(workers, jobs, **more):
        told.clear()
        workers.run(
            jobs,
            name=lambda index: f"job {index}",
            sent=lambda *message: told.append(message),
            done=lambda index, result: told.append((index, result[0])),
            started=lambda index, where: starts.append(index),
            **more,
        )
        return told

    with Workers(obey, Processes(1)) as workers:
        assert work(workers, [("send", 2), ("sleep", 0.0)]) == [(0, 0), (0, 1), (0, "send"), (1, "sleep")]
        assert starts == [0, 1]
        with pytest.raises(ConfigError, match="a wrong key"):
            work(workers, [("wrong request", "a wrong key")])
        with pytest.raises(RunFailedError, match=r"(?s)job 0 failed:.*ZeroDivisionError: by nought"):
            work(workers, [("crash", "by nought")])
        errors = []
        jobs = [("crash", "by nought"), ("send", 0)]
        assert work(workers, jobs, failed=lambda *error: errors.append(error)) == [(1, "send")] and errors[0][0] == 0
        lost = []
        assert work(workers, [("die", ""), ("send", 0)], lost=lambda *one: lost.append(one)) == [(1, "send")]
        ((index, reason),) = lost
        assert index == 0 and f"its process died {TRIES} times" in reason and "exit code -9" in reason


def leave(code, send):
    os._exit(code)


def test_want_of_memory_is_named_where_a_process_was_killed_alone():
    lost = []
    with Workers(leave, Processes(1)) as workers:
        workers.run([3], name=str, sent=print, done=print, lost=lambda *one: lost.append(one))
    assert lost == [(0, "its process died 3 times, the last time with exit code 3")]


def test_a_script_that_its_processes_run_again_is_told_so_once(tmp_path):
    (tmp_path / "unguarded.py").write_text(
        "from cosearch.fleet.processes import Processes\nfrom cosearch.fleet.workers import Workers\n"
        "from cosearch.testing.engine_conformance import obey\nprint('runs', __name__, flush=True)\n"
        "with Workers(obey, Processes(1)) as workers:\n    workers.run([('send', 1)], name=str, sent=print, done=print)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "unguarded.py")],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.stdout.splitlines() == ["runs __main__", "runs __mp_main__"]  # no second try
    assert done.stderr.count("Traceback") == 1
    said = done.stderr.splitlines()[-1]
    assert "RequestError: every process that this script starts runs it again" in said and 'if __name__ == "__main__":' in said


def test_a_search_that_a_spawned_process_begins_again_is_refused_before_it_does_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RequestError, match="runs it again"):  # another program's process
        cosearch.search("minatar:breakout", "jetson", preset="smoke", quiet=True)
    monkeypatch.setattr(multiprocessing.current_process(), "name", WORKER)
    with pytest.raises(SystemExit) as ended:  # one of ours: its parent says it
        cosearch.search("minatar:breakout", "jetson", preset="smoke", quiet=True)
    assert ended.value.code == UNGUARDED and not list(tmp_path.iterdir())


def test_a_job_that_is_added_under_the_name_of_one_that_ended_is_done_once_more_and_nothing_else_is():
    names, jobs, finished, errors = ["a", "b", "c"], [("crash", "by nought"), ("sleep", 0.1), ("sleep", 0.2)], [], []

    def failed(index, error):
        errors.append(index)
        if len(errors) < 3:
            names.append(names[index])
            jobs.append(("crash", "by nought") if len(errors) < 2 else ("sleep", 0.3))

    with Workers(obey, Processes(2)) as workers:
        workers.run(
            jobs, name=lambda index: names[index], sent=print, done=lambda index, result: finished.append(index), failed=failed
        )
    assert errors == [0, 3] and sorted(finished) == [1, 2, 4] and len(jobs) == 5


def test_the_processes_end_with_their_parent(tmp_path):
    code = (
        "from cosearch.fleet.processes import Processes\nfrom cosearch.fleet.workers import Workers\n"
        "from cosearch.testing.engine_conformance import obey\nif __name__ == '__main__':\n"
        f"    jobs = [('live for ever', {str(tmp_path / 'pid')!r})]\n"
        "    Workers(obey, Processes(1)).run(jobs, name=str, sent=print, done=print)\n"
    )
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    pid, until = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while not gone(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(pid)
