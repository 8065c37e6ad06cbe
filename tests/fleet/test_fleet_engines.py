"""Engines do what the conformance suite asks for, and the processes of this machine end with their parent."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

import cosearch
from cosearch.fleet import ray_engine
from cosearch.fleet.processes import UNGUARDED, WORKER, Processes
from cosearch.fleet.ray_engine import RayEngine
from cosearch.fleet.work import TRIES, Done, Needs, Started, Waits, Work
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


@pytest.fixture
def ray(monkeypatch):
    """In place of Ray: a cluster of two nodes with a core, of one with four that is gone, and of one with two and a GPU."""
    fake = MagicMock()
    fake.is_initialized.return_value = False
    sizes = [({"CPU": 1.0}, True), ({"CPU": 4.0}, False), ({"CPU": 1.0}, True), ({"CPU": 2.0, "GPU": 1.0}, True)]
    fake.nodes.return_value = [{"Resources": resources, "Alive": alive} for resources, alive in sizes]
    fake.cluster_resources.return_value = {"CPU": 4.0, "GPU": 1.0}
    monkeypatch.setattr(ray_engine, "ray_module", lambda address: fake)
    monkeypatch.setattr(ray_engine, "_parts", lambda: (MagicMock(), MagicMock()))
    monkeypatch.setattr(ray_engine, "_answers", lambda address: None)
    return fake


def test_what_no_single_node_of_a_cluster_has_is_told_once_and_waits(ray):
    engine, said = RayEngine("10.0.0.1:6379"), []
    for name, needs in (("a", Needs(2)), ("b", Needs(3)), ("c", Needs(3)), ("d", Needs(1, gpus=2)), ("e", Needs(2, gpus=0.5))):
        engine.submit(Work(name, obey, ("send", 1), needs))
        while engine._events:
            said.append(engine.next(0.0))
    assert [(one.name, type(one)) for one in said] == [("b", Waits), ("d", Waits)]
    assert "waits for a node with 3 cores and 0 GPUs, the largest has 2 and 1: " in said[0].reason
    assert "strategy.workers" in said[0].reason and "with 1 cores and 2 GPUs, the largest has 2 and 1" in said[1].reason
    with pytest.raises(
        RequestError, match=r"b needs 3 cores and 0 GPUs, this machine has 2 and 1; set threads or strategy.workers"
    ):
        RayEngine("local").submit(Work("b", obey, ("send", 1), Needs(3)))


def test_what_a_job_waits_for_is_told_by_its_index_and_it_is_done_all_the_same():
    events = deque([Waits("job 1", "a larger node"), Done("job 0", "x"), Started("job 1", "there"), Done("job 1", "y")])
    engine = SimpleNamespace(submit=lambda work: None, next=lambda timeout_s: events.popleft())
    told, done = [], []
    Workers(obey, engine).run(
        ["a", "b"],
        name=lambda index: f"job {index}",
        sent=print,
        done=lambda *one: done.append(one),
        waits=lambda *one: told.append(one),
    )
    assert told == [(1, "a larger node")] and done == [(0, "x"), (1, "y")]


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
