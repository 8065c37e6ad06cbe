"""Worker processes: results, messages, errors and deaths come to the right job, and none outlives its parent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_jobs import job

from cosearch.training.workers import Workers
from latency_tables.errors import ConfigError, RunFailedError

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "tests" / "support"


@pytest.fixture(scope="module")
def pair():
    """Two processes that all tests share which do not kill them."""
    with Workers(job, 2) as workers:
        yield workers


def work(workers, jobs):
    messages, results = [], {}
    workers.run(jobs, name=lambda index: f"job {index}", sent=lambda *message: messages.append(message), done=results.__setitem__)
    return messages, results


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_messages_and_results_of_each_job_arrive_in_two_processes(pair):
    messages, results = work(pair, [("send", 3), ("sleep", 0.3), ("send", 2)])
    assert sorted(messages) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert [results[i][0] for i in range(3)] == ["send", "sleep", "send"]
    assert len({pid for _, pid in results.values()}) <= 2 and os.getpid() not in {pid for _, pid in results.values()}
    again = work(pair, [("send", 0)])[1]
    assert again[0][1] in {pid for _, pid in results.values()}  # the processes stay


def test_errors_keep_their_class_and_other_failures_name_the_job(pair):
    with pytest.raises(ConfigError, match="a wrong key"):
        work(pair, [("wrong request", "a wrong key")])
    with pytest.raises(RunFailedError, match=r"(?s)job 0 failed:.*ZeroDivisionError: by nought"):
        work(pair, [("crash", "by nought")])
    assert work(pair, [("send", 1)])[0] == [(0, 0)]


def test_a_job_whose_process_dies_is_tried_once_more_and_then_named(tmp_path):
    with Workers(job, 1) as workers:
        results = work(workers, [("die once", str(tmp_path / "pid")), ("send", 0)])[1]
        assert results[0][1] == results[1][1] != int((tmp_path / "pid").read_text())
        with pytest.raises(RunFailedError, match=r"job 0: its process died 2 times.*exit code -9"):
            work(workers, [("die", "")])


def test_the_processes_end_with_their_parent(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(JOBS)!r})\nfrom worker_jobs import job\n"
        "from cosearch.training.workers import Workers\nif __name__ == '__main__':\n"
        f"    Workers(job, 1).run([('live for ever', {str(tmp_path / 'pid')!r})], name=str, sent=print, done=print)\n"
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
