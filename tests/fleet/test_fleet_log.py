"""What processes did is recorded over restarts of the command, and told in the report by figures that a hand can check."""

import json
from dataclasses import replace

import pytest
from report_fake_run import make_run

from cosearch.fleet import log as log_module
from cosearch.fleet.log import WorkLog
from cosearch.record.json_record import to_json
from cosearch.record.workers import LOST, Attempt, Session, WorkersRecord, read_workers
from cosearch.report.page import write_report
from cosearch.report.work import at_once, lost_s, utilisation, work_section, worker_times
from latency_tables.errors import DiskFullError, RunFolderError


def refuse(line):
    raise AssertionError(f"nothing was to be told: {line}")


def test_a_restarted_command_goes_on_with_the_record(tmp_path):
    now = [1000.0]
    log = WorkLog(tmp_path, refuse, clock=lambda: now[0])
    log.started("a", "p1")
    now[0] = 1003.0
    log.started("b", "p2")
    log.keep()
    assert not (tmp_path / WorkersRecord.FILE).exists()  # a moment ago
    now[0] = 1010.0
    log.started("a", "p3")  # its process was lost
    log.stuck("b")
    log.keep()
    now[0] = 1012.0  # and the command is killed: what is recorded ends at its last write
    (session,) = read_workers(tmp_path).sessions
    assert [(one.name, one.where, one.began_s, one.ended_s, one.end) for one in session.attempts] == [
        ("a", "p1", 1000.0, 1010.0, "lost"),
        ("b", "p2", 1003.0, 1010.0, "under way"),
        ("a", "p3", 1010.0, 1010.0, "under way"),
    ]
    now[0] = 1100.0
    with WorkLog(tmp_path, refuse, clock=lambda: now[0]) as second:
        second.started("b", "p9")
        now[0] = 1104.0
        second.slow("b")
        second.ended("b", "finished")
        second.started("a", "p9")
        now[0] = 1105.0
        second.keep()
        now[0] = 900.0  # the clock is set back
    first, last = read_workers(tmp_path).sessions
    assert [one.end for one in first.attempts] == ["lost", "stopped", "stopped"] and first.attempts[1].stuck
    assert [(one.end, one.slow, one.busy_s) for one in last.attempts] == [("finished", True, 4.0), ("stopped", False, 1.0)]
    assert (first.began_s, first.ended_s, last.began_s, last.ended_s) == (1000.0, 1010.0, 1100.0, 1105.0)


def test_a_disk_that_does_not_take_the_record_is_told_once_and_stops_nothing(tmp_path, monkeypatch):
    def full(path, data):
        raise DiskFullError(f"no space is left for {path}")

    monkeypatch.setattr(log_module, "write_bytes_atomic", full)
    now, told = [0.0], []
    with WorkLog(tmp_path, told.append, clock=lambda: now[0]) as log:
        log.started("a", "p1")
        for now[0] in (10.0, 20.0):
            log.keep()
    assert len(told) == 1 and "no space is left" in told[0]
    backwards = Session(began_s=5.0, ended_s=4.0)
    (tmp_path / WorkersRecord.FILE).write_text(json.dumps(to_json(WorkersRecord(sessions=(backwards,)))))
    with pytest.raises(RunFolderError, match=r"the beginning before the end, got 5\.0 and 4\.0"):
        read_workers(tmp_path)
    (tmp_path / WorkersRecord.FILE).write_text("[")
    with pytest.raises(RunFolderError, match=r"workers\.json"):
        WorkLog(tmp_path, refuse)


def attempt(name, where, began_s, ended_s, end="finished", **more):
    return Attempt(name=name, where=where, began_s=began_s, ended_s=ended_s, end=end, **more)


RECORD = WorkersRecord(
    sessions=(
        Session(
            began_s=0.0,
            ended_s=100.0,
            attempts=(
                attempt("a", "p1", 0.0, 50.0, LOST, why="killed"),
                attempt("b", "p2", 0.0, 40.0),
                attempt("a", "p3", 50.0, 100.0, "stopped"),
                attempt("c", "p2", 40.0, 60.0, "failed", why="no  luck\nat all"),
            ),
        ),
        Session(began_s=500.0, ended_s=520.0, attempts=(attempt("a", "p1", 500.0, 520.0, slow=True, stuck=True),)),
    )
)


def test_the_figures_of_the_report_by_hand():
    first, second = RECORD.sessions
    assert at_once(first) == 2 and at_once(second) == 1
    assert utilisation(RECORD) == pytest.approx((50 + 40 + 50 + 20 + 20) / (2 * 100 + 1 * 20))
    assert [(one.where, one.busy_s, one.there_s, one.attempts) for one in worker_times(RECORD)] == [
        ("p2", 60.0, 100.0, 2),
        ("p1", 50.0, 50.0, 1),  # it was lost then
        ("p3", 50.0, 50.0, 1),
        ("p1", 20.0, 20.0, 1),
    ]
    assert lost_s(RECORD, {"a": 90.0, "b": 38.0}) == (120.0 + 40.0, 30.0 + 2.0)
    assert lost_s(RECORD, {"a": 90.0, "b": 41.0}) == (120.0, 30.0)  # b was made in part without a record


def test_the_report_says_what_was_begun_again_slow_stuck_and_lost():
    section = work_section(RECORD, {"a": 90.0, "b": 38.0})
    said = " ".join(section.sentences)
    assert "3 runs in 5 attempts, 2 commands and 2 min 00 s; at most 2 at once" in said and "82 % of the time" in said
    assert "Begun again: 2. Slow: 1. Stuck: 1." in said
    assert "Processes worked for 2 min 40 s on finished runs; 32 s of it is in none of them" in said
    assert section.workers[0] == ("p2", "1 min 00 s", "1 min 40 s", "60 %", "2")
    assert section.faults == (
        ("a", "p1", "50 s", "lost: killed"),
        ("a", "p3", "50 s", "stopped with the command"),
        ("c", "p2", "20 s", "failed: no luck at all"),
        ("a", "p1", "20 s", "slow, stuck for a time"),
    )
    candidates = work_section(RECORD, noun="candidate")
    assert "3 candidates in 5 attempts" in candidates.sentences[0] and "Lost: 1 min 40 s of work" in candidates.sentences[-1]
    assert work_section(WorkersRecord()) is None


def test_the_report_of_a_search_counts_trainings_of_which_a_candidate_may_have_several(tmp_path):
    run = make_run(tmp_path / "one")
    attempts = [attempt(name, "p1", 10.0 * i, 10.0 * i + 10.0) for i, name in enumerate(("candidate 0 (a)", "candidate 1 (b)"))]
    attempts.append(attempt("candidate 1 (b), rung 1", "p1", 20.0, 30.0))
    record = WorkersRecord(sessions=(Session(began_s=0.0, ended_s=30.0, attempts=tuple(attempts)),))
    (run / WorkersRecord.FILE).write_text(json.dumps(to_json(record)))
    said = " ".join(write_report(run).read_text().split())
    assert "3 trainings in 3 attempts" in said and "candidates in" not in said


def test_a_report_of_many_processes_stays_short():
    attempts = tuple(attempt(f"r{i}", f"p{i}", 0.0, 10.0 + i, LOST) for i in range(60))
    section = work_section(WorkersRecord(sessions=(Session(began_s=0.0, ended_s=100.0, attempts=attempts),)), {})
    assert len(section.workers) == 12 and len(section.faults) == 40 and section.faults[-1][0] == "r59"
    assert "12 least busy of 60" in " ".join(section.sentences) and "last 40 of 60" in " ".join(section.sentences)
    calm = replace(RECORD.sessions[0], attempts=(attempt("b", "p2", 0.0, 40.0),))
    assert work_section(WorkersRecord(sessions=(calm,)), {}).faults == ()
    assert json.dumps(section.workers)
