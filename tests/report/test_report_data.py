"""Reading a run folder: null is not zero, half a line is not a line, and damage is named."""

from __future__ import annotations

import json

import pytest
from report_fake_run import CHOICES, change, make_run, metric_lines

from cosearch.report.data import CLIP_BYTES_MAX, flatten, interval, latency_target_s, number, part, read_run, records
from latency_tables.errors import RunFolderError


def write_lines(path, lines):
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_numbers_are_finite_numbers_or_none():
    source = {"a": {"b": 2.5, "zero": 0, "null": None, "nan": float("nan"), "inf": float("inf"), "true": True, "text": "3"}}
    assert number(source, "a", "b") == 2.5 and number(source, "a", "zero") == 0
    for key in ("null", "nan", "inf", "true", "text", "absent"):
        assert number(source, "a", key) is None, key
    assert number(source, "a", "b", "c") is None and number(None, "a") is None


def test_intervals_parts_and_records():
    source = {"ci": [1, 2.0], "short": [1], "bad": [1, None], "list": [{"x": 1}, 3], "null": None}
    assert interval(source, "ci") == (1, 2.0)
    assert all(interval(source, key) is None for key in ("short", "bad", "null", "absent"))
    assert part(source, "null") == {} and records(source, "list") == [{"x": 1}] and records(source, "null") == []


def test_flatten_names_every_leaf_in_order():
    nested = {"b": {"y": 1, "x": {"deep": None}}, "a": [1, {"k": 2}], "empty": {}}
    assert list(flatten(nested)) == [("b.y", 1), ("b.x.deep", None), ("a", [1, {"k": 2}]), ("empty", {})]


def test_a_finished_run_misses_nothing(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    assert run.finished and run.missing == () and run.name == "starpilot-jetson"
    assert len(run.metrics) == len(metric_lines()) and run.clip[0] == "image/gif"


@pytest.mark.parametrize("name", ["metrics.jsonl", "architecture.json", "agent.json", "summary.json"])
def test_each_absent_file_is_named(tmp_path, name):
    path = make_run(tmp_path / "run")
    (path / name).unlink()
    run = read_run(path)
    assert [sentence.split()[0] for sentence in run.missing] == [name]
    assert run.finished == (name != "summary.json")


def test_curves_skip_nulls_keep_the_newest_and_ascend(tmp_path):
    path = make_run(tmp_path / "run")
    line = {"stage": "search", "wall_s": 1.0}
    write_lines(
        path,
        [
            line | {"step": 20, "entropy": 2.0},
            line | {"step": 10, "entropy": 1.0},
            line | {"step": 30, "entropy": None},
            line | {"step": 20, "entropy": 5.0},
            line | {"step": 40, "stage": "retrain", "entropy": 9.0},
        ],
    )
    assert read_run(path).curve("search", "entropy") == ([10, 20], [1.0, 5.0])


def test_candidates_have_curves_of_their_own(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    assert run.candidates("control") == ["c0", "c1", "c2"] and run.candidates("search") == []
    expected = [line["score_train"] for line in metric_lines() if line.get("candidate") == "c1"]
    assert run.curve("control", "score_train", "c1")[1] == expected
    assert run.curve("control", "score_train", "c1") != run.curve("control", "score_train", "c2")


def test_probabilities_leave_out_lines_of_another_shape(tmp_path):
    path = make_run(tmp_path / "run")
    line = {"stage": "search", "wall_s": 1.0}
    write_lines(
        path,
        [
            line | {"step": 1, "arch_probabilities": [[0.5, 0.5]]},
            line | {"step": 2, "arch_probabilities": None},
            line | {"step": 3, "arch_probabilities": [[0.2, 0.8], [1.0]]},
            line | {"step": 4, "arch_probabilities": [[0.1, 0.9], [1.0]]},
        ],
    )
    assert read_run(path).probabilities() == ([3, 4], [[[0.2, 0.8], [1.0]], [[0.1, 0.9], [1.0]]])
    assert len(read_run(make_run(tmp_path / "whole")).probabilities()[1][0]) == len(CHOICES)


def test_an_unfinished_last_line_is_left_out_and_said(tmp_path):
    path = make_run(tmp_path / "run")
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"stage": "retrain", "st')
    run = read_run(path)
    assert len(run.metrics) == len(metric_lines()) and "not finished" in run.missing[0]


@pytest.mark.parametrize("content, word", [("{", "damaged"), ("[1]", "must hold one JSON object")])
def test_damage_is_an_error_that_names_the_file(tmp_path, content, word):
    path = make_run(tmp_path / "run")
    (path / "summary.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunFolderError, match=f"summary.json.*{word}"):
        read_run(path)


def test_what_is_not_a_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="there is no run folder"):
        read_run(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        read_run(tmp_path)


def test_a_clip_that_is_too_large_is_named_not_embedded(tmp_path):
    path = make_run(tmp_path / "run")
    (path / "clip.gif").write_bytes(bytes(CLIP_BYTES_MAX + 1))
    run = read_run(path)
    assert run.clip is None and "clip.gif is left out" in run.missing[0]


def test_the_target_is_known_before_the_summary(tmp_path):
    path = make_run(tmp_path / "run")
    assert latency_target_s(read_run(path)) == 4.0e-3
    (path / "summary.json").unlink()
    assert latency_target_s(read_run(path)) is None
    change(path, "run.json", config={"objective": {"latency_target_s": 7e-3}})
    assert latency_target_s(read_run(path)) == 7e-3
    change(path, "run.json", latency_target_s=6e-3)
    assert latency_target_s(read_run(path)) == 6e-3
    change(path, "run.json", targets=[{"metric": "energy_j", "value": 1.0}, {"metric": "latency_s", "value": 5e-3}])
    assert latency_target_s(read_run(path)) == 5e-3
