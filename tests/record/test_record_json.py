"""The records of a run: what is written is read back, old files are opened, and a fault is named by file and key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import pytest

from cosearch.record.json_record import FURTHER, OMITTED, JsonObject, from_json, to_json
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.architecture import ArchitectureRecord, OperationRecord
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError

OLD = Path(__file__).parents[1] / "assets" / "run_0_1_0"  # written by version 0.1.0
RECORDS = [RunRecord, Summary, ArchitectureRecord, AgentRecord]


@dataclass(frozen=True)
class Part:
    size: int
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    ready: bool = True
    bounds: tuple[float, float] | None = None
    rows: tuple[tuple[int, ...], ...] = ()
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    anything: object = None
    extra: Part | None = field(default=None, metadata=OMITTED)
    further: JsonObject = field(default_factory=dict, metadata=FURTHER)


@pytest.mark.parametrize("record", RECORDS)
def test_a_file_of_an_earlier_version_is_read_and_written_again_with_all_that_it_said(record):
    content = json.loads((OLD / record.FILE).read_text())
    expected = {key: value for key, value in content.items() if (record, key) != (RunRecord, "format")}
    written = to_json(from_json(record, content, record.FILE))
    later = set(written) - set(expected)
    assert {key: written[key] for key in expected} == expected
    assert later <= {field.name for field in fields(record) if field.default is not MISSING}


def test_a_folder_writes_and_reads_its_records(tmp_path):
    old = RunDir.open(OLD)
    run = RunDir.create(tmp_path, "one", to_json(old.read(RunRecord)))
    assert run.read(RunRecord) == old.read(RunRecord) and run.read(RunRecord).seed == 0
    assert run.write(old.read(Summary)) == run.path / "summary.json"
    assert run.read(Summary) == old.read(Summary) and run.read(Summary).episodes == 256
    with pytest.raises(RunFolderError, match=r"holds no agent.json; `cosearch resume"):
        run.read(AgentRecord)


def test_every_kind_of_value_goes_to_json_and_back():
    whole = Whole(
        name="a",
        ready=False,
        bounds=(0.5, 2.0),
        rows=((1, 2), (3,)),
        parts=(Part(1), Part(2, 0.25)),
        by_name={"b": Part(3)},
        anything={"deep": [None, 1]},
        extra=Part(4),
        further={"own": "word"},
    )
    content = {
        "name": "a",
        "ready": False,
        "bounds": [0.5, 2.0],
        "rows": [[1, 2], [3]],
        "parts": [{"size": 1, "share": None}, {"size": 2, "share": 0.25}],
        "by_name": {"b": {"size": 3, "share": None}},
        "anything": {"deep": [None, 1]},
        "extra": {"size": 4, "share": None},
        "own": "word",
    }
    assert to_json(whole) == content == json.loads(json.dumps(content))
    assert from_json(Whole, content, "f") == whole


def test_a_missing_key_has_its_default_and_an_unknown_one_is_left_out():
    assert from_json(Whole, {"name": "a"}, "f") == Whole(name="a") and "extra" not in to_json(Whole(name="a"))
    assert from_json(Part, {"size": 1, "colour": "red"}, "f") == Part(1)
    assert from_json(Whole, {"name": "a", "colour": "red"}, "f").further == {"colour": "red"}


@pytest.mark.parametrize(
    "content, words",
    [
        ([], r"f\.json: its content must be an object, got '\[\]'"),
        ({}, r"f\.json: name is missing"),
        ({"name": 3}, r"f\.json: name must be text, got '3'"),
        ({"name": None}, r"f\.json: name must be text, got 'None'"),
        ({"name": "a", "ready": 1}, r"f\.json: ready must be true or false"),
        ({"name": "a", "bounds": [1]}, r"f\.json: bounds must be a list of 2"),
        ({"name": "a", "bounds": [1, "2"]}, r"f\.json: bounds\[1\] must be a finite number"),
        ({"name": "a", "bounds": [1, float("nan")]}, r"f\.json: bounds\[1\] must be a finite number, got 'nan'"),
        ({"name": "a", "rows": [[1], [True]]}, r"f\.json: rows\[1\]\[0\] must be a whole number, got 'True'"),
        ({"name": "a", "rows": 3}, r"f\.json: rows must be a list"),
        ({"name": "a", "parts": [{"size": 1}, {}]}, r"f\.json: parts\[1\]\.size is missing"),
        ({"name": "a", "parts": [{"size": 1.5}]}, r"f\.json: parts\[0\]\.size must be a whole number"),
        ({"name": "a", "parts": [{"size": 1, "share": True}]}, r"f\.json: parts\[0\]\.share must be a finite number"),
        ({"name": "a", "by_name": {"b": 3}}, r"f\.json: by_name\.b must be an object"),
        ({"name": "a", "by_name": []}, r"f\.json: by_name must be an object"),
    ],
)
def test_a_fault_is_named_by_file_and_key(content, words):
    with pytest.raises(RunFolderError, match=words):
        from_json(Whole, content, "f.json")


def test_no_choice_point_and_an_unknown_one_are_told_apart():
    content = {"key": "stem", "latency_s": 1e-3, "energy_j": None, "macs": 10, "params": 2}
    for written in (content, content | {"choice": None}, content | {"choice": 3}):
        assert to_json(from_json(OperationRecord, written, "f")) == written


def test_an_architecture_whose_lists_differ_in_length_is_refused_with_its_file():
    content = json.loads((OLD / ArchitectureRecord.FILE).read_text())
    content["choices"] = content["choices"][:-1]
    with pytest.raises(RunFolderError, match=r"a\.json: choices, choice_names and candidate_names must have one entry for each"):
        from_json(ArchitectureRecord, content, "a.json")
