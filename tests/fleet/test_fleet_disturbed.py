"""A machine with a full disk, and one that stands still, cost their own work alone: the rest goes on to its end meanwhile."""

import os
import signal

from folder_pieces import make_piece

import cosearch.fleet.watch as watch
import cosearch.fleet.workers as workers_module
from cosearch.fleet.folder_making import FolderMaking
from cosearch.fleet.folder_work import FolderJob
from cosearch.fleet.folders import Shared
from cosearch.fleet.log import WorkLog
from cosearch.fleet.processes import Processes
from cosearch.fleet.workers import Workers
from cosearch.record.workers import read_workers


def made(folder, contents, tell, count=2):
    """What failed of some folders, made by processes of this machine."""
    jobs = [FolderJob(Shared(str(folder)), name, content) for name, content in contents.items()]
    with WorkLog(folder, tell) as log, Workers(make_piece, Processes(count)) as workers:
        return FolderMaking(folder, jobs, log, tell).make(workers)


def test_a_full_disk_fails_what_is_written_there_and_nothing_else(tmp_path, small_disk):
    contents = {"a": ("", ""), "b": ("fill", str(small_disk)), "c": ("", ""), "d": ("", "")}
    told = []
    failed = made(tmp_path, contents, told.append)
    assert list(failed) == ["b"] and failed["b"].startswith("the disk is full") and not list(small_disk.iterdir())
    assert all((tmp_path / name / "done").is_file() for name in "acd")
    (one,) = [one for one in read_workers(tmp_path).sessions[0].attempts if one.end == "failed"]
    assert one.name == "b" and one.why == failed["b"]


def test_a_process_that_stands_still_is_told_as_stuck_and_the_others_do_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "STUCK_S", 0.5)
    monkeypatch.setattr(workers_module, "TICK_S", 0.1)
    go_on, finished, stopped, stuck = tmp_path / "go on", [], [], []

    def tell(line):
        if line.startswith("slow: pid "):
            stopped.append(int(line.rpartition(" ")[2]))
            os.kill(stopped[0], signal.SIGSTOP)
        elif line.startswith("stuck? slow on process") and stopped:
            stuck.append(line)
        elif ": finished; " in line:
            finished.append(line.partition(":")[0])
        if stuck and len(finished) == 4 and not go_on.exists():
            go_on.touch()
            os.kill(stopped[0], signal.SIGCONT)

    assert not made(tmp_path, {"slow": ("wait", str(go_on)), **dict.fromkeys("abcd", ("", ""))}, tell)
    assert sorted(finished[:4]) == ["a", "b", "c", "d"] and finished[4] == "slow" and len(stuck) == 1
    attempts = {one.name: one for one in read_workers(tmp_path).sessions[0].attempts}
    assert attempts["slow"].stuck and {one.end for one in attempts.values()} == {"finished"}
    assert (tmp_path / "slow" / "done").read_text() == str(stopped[0])
