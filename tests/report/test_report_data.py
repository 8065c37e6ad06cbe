"""Reading a run folder: null is not zero, half a line is not a line, and damage is named."""

from __future__ import annotations

import json

import old_run
import pytest
from report_fake_run import CHOICES, change, make_run, metric_lines

from cosearch.record.metrics import METRICS, OF_A_TARGET, number
from cosearch.report.data import CLIP_BYTES_MAX, flatten, read_run
from cosearch.training.supernet_subject import EXPECTED
from latency_tables.errors import RunFolderError


def write_lines(path, lines):
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_numbers_of_a_line_are_numbers_or_none():
    line = {"b": 2.5, "zero": 0, "null": None, "true": True, "text": "3"}
    assert number(line, "b") == 2.5 and number(line, "zero") == 0
    for key in ("null", "true", "text", "absent"):
        assert number(line, key) is None, key


def test_flatten_names_every_leaf_in_order():
    nested = {"b": {"y": 1, "x": {"deep": None}}, "a": [1, {"k": 2}], "empty": {}}
    assert list(flatten(nested)) == [("b.y", 1), ("b.x.deep", None), ("a", [1, {"k": 2}]), ("empty", {})]


def test_a_finished_run_misses_nothing(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    assert run.finished and run.missing == () and run.name == "starpilot-jetson"
    assert len(run.metrics) == len(metric_lines()) and run.clip[:3] == b"GIF"


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


def test_of_a_search_for_several_agents_what_goes_by_a_target_is_the_first_agents(tmp_path):
    run = make_run(tmp_path / "run")
    agents = [{"name": name, "device": "d", "table_id": "0" * 64, "latency_target_s": 1e-3} for name in ("a", "b")]
    change(run, "run.json", agents=agents)
    line = {"stage": "search", "wall_s": 1.0, "score_train": 2.0}
    lines = [{**line, "step": 32 * i, "agent": "ab"[i % 2], "latency_expected_s": 1.0 + i % 2} for i in range(6)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    found = read_run(run)
    assert found.curve("search", "latency_expected_s") == ([0.0, 64.0, 128.0], [1.0] * 3)
    assert found.curve("search", "score_train")[0] == [32.0 * i for i in range(6)]
    assert set(EXPECTED.values()) < set(OF_A_TARGET) < set(METRICS)


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


@pytest.mark.parametrize("content, word", [("{", "is damaged"), ("[1]", "its content must be an object")])
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


def test_figures_are_known_before_the_summary(tmp_path):
    path = make_run(tmp_path / "run")
    predicted_s = read_run(path).latency_predicted_s
    for name in ("summary.json", "agent.json"):
        (path / name).unlink()
        run = read_run(path)
        assert (run.latency_target_s, run.latency_predicted_s, run.teacher_score) == (4.0e-3, predicted_s, 15.1), name
    assert run.latency_measured_s is None
    (path / "architecture.json").unlink()
    assert read_run(path).latency_predicted_s is None
    change(path, "run.json", targets=[{"metric": "energy_j", "value": 1.0, "margin": 0.0}])
    assert read_run(path).latency_target_s is None


def test_a_run_of_version_0_1_0_is_read():
    run = read_run(old_run.FOLDER)
    assert run.finished and run.missing == () and run.summary.strategy == "reinforce" and not run.has_candidates
    assert run.curve("search", "score_train")[0][-1] == 163840 and run.curve("retrain", "score_train")[0][-1] == 323584
    assert len(run.probabilities()[1][-1]) == len(run.architecture.choices) == 7
