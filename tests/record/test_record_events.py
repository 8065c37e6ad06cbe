"""TensorBoard events: every number of the log once, after any kill and resume."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from report_fake_run import make_run, metric_lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cosearch.record.events import EventWriter
from cosearch.record.metrics import truncate_metrics
from latency_tables.errors import RunFolderError


def scalars(path):
    """Every tag's ``(step, value)`` as TensorBoard reads them."""
    reader = EventAccumulator(str(path), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def line(step, stage="search", **values):
    return {"stage": stage, "step": step, "wall_s": step / 100} | values


def log(path, lines):
    (path / "metrics.jsonl").write_text("".join(json.dumps(item) + "\n" for item in lines), encoding="utf-8")


def test_every_number_of_the_log_and_nothing_else(tmp_path):
    path = make_run(tmp_path / "run")
    EventWriter(path).close()
    expected = {}
    for item in metric_lines():
        group = item["stage"] + (f"-{item['candidate']}" if "candidate" in item else "")
        for key, value in item.items():
            if key not in ("stage", "step", "wall_s", "candidate", "arch_probabilities") and value is not None:
                expected.setdefault(f"{group}/{key}", []).append((item["step"], value))
    found = scalars(path)
    assert set(found) == set(expected)
    for tag, points in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in points], rel=1e-6)


def test_a_killed_and_resumed_run_has_no_gap_and_no_doubled_step(tmp_path):
    lines = [line(step, entropy=float(step)) for step in range(10, 110, 10)]
    first = EventWriter(tmp_path)
    for item in lines[:7]:
        log(tmp_path, lines[: lines.index(item) + 1])
        first.add(item)
    first.flush()  # killed at step 70, three lines after the checkpoint of step 40
    truncate_metrics(tmp_path / "metrics.jsonl", 40, "search")
    with EventWriter(tmp_path) as second:
        for item in lines[4:]:
            second.add(item)
    first.close()  # the dead process's file is gone from the folder; closing it brings nothing back
    assert scalars(tmp_path) == {"search/entropy": [(step, float(step)) for step in range(10, 110, 10)]}
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_events_that_a_kill_swallowed_come_back_from_the_log(tmp_path):
    lines = [line(step, entropy=1.0) for step in (10, 20, 30)]
    with EventWriter(tmp_path) as writer:
        writer.add(lines[0])
    log(tmp_path, lines)  # the log had reached 30, the events only 10
    EventWriter(tmp_path).close()
    assert [step for step, _ in scalars(tmp_path)["search/entropy"]] == [10, 20, 30]


def test_a_step_is_written_once_for_each_curve(tmp_path):
    with EventWriter(tmp_path) as writer:
        for item in (
            line(10, entropy=1.0),
            line(10, score_eval=5.0),
            line(10, entropy=2.0),
            line(5, entropy=3.0),
            line(10, "retrain", entropy=4.0),
            line(10, "control", entropy=5.0, candidate="a"),
            line(10, "control", entropy=6.0, candidate="b"),
        ):
            writer.add(item)
    assert scalars(tmp_path) == {
        "search/entropy": [(10, 1.0)],
        "search/score_eval": [(10, 5.0)],
        "retrain/entropy": [(10, 4.0)],
        "control-a/entropy": [(10, 5.0)],
        "control-b/entropy": [(10, 6.0)],
    }


def test_what_has_no_curve_is_passed_over(tmp_path):
    with EventWriter(tmp_path) as writer:
        writer.add(line(0, entropy=None, arch_probabilities=[[1.0]], candidate=None, lr=0.5))
    assert scalars(tmp_path) == {"search/lr": [(0, 0.5)]}


def test_times_count_from_the_start_of_the_run(tmp_path):
    path = make_run(tmp_path / "run")
    EventWriter(path).close()
    reader = EventAccumulator(str(path))
    reader.Reload()
    event = reader.Scalars("search/entropy")[0]
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert math.isclose(event.wall_time, start + metric_lines()[0]["wall_s"], abs_tol=1e-3)


def test_event_files_of_others_stay(tmp_path):
    other = tmp_path / "events.out.tfevents.1.host.2.3"
    other.write_bytes(b"")
    EventWriter(tmp_path).close()
    EventWriter(tmp_path).close()
    assert other.exists() and len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


def test_a_damaged_log_is_refused_before_anything_is_deleted(tmp_path):
    EventWriter(tmp_path).close()
    before = sorted(item.name for item in tmp_path.glob("events*"))
    (tmp_path / "metrics.jsonl").write_text("no line\n", encoding="utf-8")
    with pytest.raises(RunFolderError):
        EventWriter(tmp_path)
    assert sorted(item.name for item in tmp_path.glob("events*")) == before
