"""``--device this``: measured once for exactly the blocks of the space, found again, and the target checked by measurement."""

import dataclasses
import json
import os
import platform
from pathlib import Path

import pytest
from pipeline_runs import TARGET_S, TINY, command, results

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.pipeline import local_table
from cosearch.planning.plan import make_plan
from cosearch.planning.space import make_space
from cosearch.record.rundir import RunDir
from cosearch.space.network import reference_agents
from latency_tables.errors import RequestError, UnknownNameError
from latency_tables.measuring.identity import place_here
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile, write_table
from latency_tables.table import load_table

HERE = {"version": "1.2", "machine": "m", "cpu": "c", "model": None, "cores": 2, "serial_sha256": None, "target": None}
THIS = (*TINY, "device=this", "objective.latency_target_s=null")


class Notes:
    """Progress that keeps its notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        """Keep it."""
        self.notes.append(text)


def write_made_up_table(path, ops):
    """A table of a machine that needs 1 us and a nanosecond a MAC for each block."""
    header = {
        "schema": 1,
        "provenance": "synthetic",
        "device": {"name": "this", "description": "made up", "runtime": "onnxruntime", "dtype": "float32", "threads": 1},
        "calibration": {"overhead_s": 1e-5, "scale": 1.0, "interval_factors": [0.9, 1.1]},
        "host": {"machine": "m", "cpu": "c", "cores": 2},
        "software": {"version": "1.2", "provider": "CPUExecutionProvider", "nchw": False},
    }
    rows = {op.key: Row(op.key, 1e-6 + op.macs * 1e-9, None) for op in ops}
    write_table(path, TableFile(header, rows, None))


@pytest.fixture
def measured(monkeypatch):
    """Replaces the measurement by a made-up table; gives the work lists that were measured."""
    seen = []

    def run(request, command):
        work = json.loads(Path(request.worklists[0]).read_text(encoding="utf-8"))
        seen.append(work)
        write_made_up_table(request.out, [OpSpec.from_dict(op) for op in work["ops"]])

    monkeypatch.setattr(local_table, "run", run)
    monkeypatch.setattr(local_table, "place_here", lambda runtime: HERE)
    return seen


def test_it_measures_every_block_once_and_finds_its_table_again(measured, tmp_path):
    config, notes = resolve(overrides=THIS), Notes()
    first = local_table.table_of_this_machine(config, tmp_path, notes, dry_run=False)
    again = local_table.table_of_this_machine(config, tmp_path, notes, dry_run=True)
    assert len(measured) == 1 and first == again and "60 networks on this machine" in notes.notes[0]
    space = make_space(config)
    wanted = set(space.all_ops()) | {op for ops in reference_agents(space.frame_shape, space.num_actions).values() for op in ops}
    assert {OpSpec.from_dict(op) for op in measured[0]["ops"]} == wanted
    assert len(measured[0]["networks"]) == local_table.NETWORKS
    plan = make_plan(first)
    assert plan.hardware.device.name == "this" and plan.hardware.path == tmp_path / "tables" / plan.hardware.path.name


@pytest.mark.parametrize(
    "changed",
    [{"version": "1.3"}, {"cpu": "another"}, pytest.param({"machine": "armv7l", "cores": 4}, marks=pytest.mark.slow)],
)
def test_a_table_of_another_machine_or_runtime_stays_and_is_not_taken(changed, measured, tmp_path, monkeypatch):
    config, notes = resolve(overrides=THIS), Notes()
    first = local_table.table_of_this_machine(config, tmp_path, notes, dry_run=False)
    monkeypatch.setattr(local_table, "place_here", lambda runtime: {**HERE, **changed})
    with pytest.raises(RequestError, match="has no table for these blocks yet"):
        local_table.table_of_this_machine(config, tmp_path, notes, dry_run=True)
    second = local_table.table_of_this_machine(config, tmp_path, notes, dry_run=False)
    again = local_table.table_of_this_machine(config, tmp_path, notes, dry_run=False)
    assert len(measured) == 2 and first.table != second.table == again.table and Path(first.table).is_file()
    assert any(first.table in note and "another machine or runtime" in note for note in notes.notes)
    monkeypatch.setattr(local_table, "place_here", lambda runtime: HERE)
    assert local_table.table_of_this_machine(config, tmp_path, notes, dry_run=True) == first


def test_the_place_is_what_a_measurement_here_writes_down():
    import onnxruntime

    place = place_here("onnxruntime")
    assert place["version"] == onnxruntime.__version__ and place["machine"] == platform.machine()
    assert place["cores"] == os.cpu_count() and set(place) == set(HERE)


def test_of_a_small_space_as_many_networks_are_announced_as_there_are(measured, tmp_path):
    config, notes = (
        resolve(overrides=[*THIS, 'space.values={"stage_channels": [8], "stage_repeats": [1], "stage_strides": [2]}']),
        Notes(),
    )
    local_table.table_of_this_machine(config, tmp_path, notes, dry_run=False)
    count = len(measured[0]["networks"])
    assert count == make_space(config).size < 60 and f" {count} networks on this machine" in notes.notes[0]


def test_another_space_has_a_table_of_its_own(measured, tmp_path):
    tables = [
        local_table.table_of_this_machine(resolve(overrides=[*THIS, more]), tmp_path, Notes(), dry_run=False).table
        for more in ("seed=1", "seed=2", "space.values.hidden=16")
    ]
    assert tables[0] == tables[1] != tables[2] and len(measured) == 2


def test_the_device_name_says_what_this_machine_is_measured_with(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(local_table, "run", lambda request, command: asked.append((request, command)))
    plain = resolve(overrides=THIS)
    for name in ("this", "this/onnxruntime-int8-2t", "this/tvm-float32-1t"):
        config = dataclasses.replace(plain, device=name)
        assert local_table.wants_own_table(config)
        local_table.table_of_this_machine(config, tmp_path, Notes(), dry_run=False)
    assert [(request.device, request.runtime, request.dtype, request.settings.threads) for request, _ in asked] == [
        ("this", "onnxruntime", "float32", 1),
        ("this", "onnxruntime", "int8", 2),
        ("this", "tvm", "float32", 1),
    ]
    assert len({request.out for request, _ in asked}) == 3 and "onnxruntime-int8-2t" in asked[1][0].out.name
    assert asked[1][1] == "cosearch --device this/onnxruntime-int8-2t"
    with pytest.raises(UnknownNameError, match="named like this/onnxruntime-float32-1t, got 'int8'"):
        local_table.table_of_this_machine(dataclasses.replace(plain, device="this/int8"), tmp_path, Notes(), dry_run=False)
    for other in (dataclasses.replace(plain, device="jetson"), dataclasses.replace(plain, table="a.jsonl")):
        assert not local_table.wants_own_table(other)


def test_a_dry_run_does_not_measure_but_says_how(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dry-run", *THIS]) == 2
    message = capsys.readouterr().err
    assert "this machine has no table for these blocks yet" in message and "without --dry-run" in message
    assert not measured and not list(tmp_path.iterdir())


@pytest.mark.parametrize("target_s, met", [pytest.param(1.0, True, marks=pytest.mark.slow), (1.2e-5, False)])
def test_on_this_machine_the_measurement_decides_whether_the_target_is_met(target_s, met, tmp_path):
    space = make_space(resolve(overrides=THIS))
    ops = {*space.all_ops(), *(op for blocks in reference_agents(space.frame_shape, space.num_actions).values() for op in blocks)}
    cheap = tmp_path / "cheap.jsonl"
    write_made_up_table(cheap, ops)
    text = [json.loads(line) for line in cheap.read_text().splitlines()]
    header = {**text[0], "calibration": {**text[0]["calibration"], "scale": 1e-6}}
    rows = {row["key"]: Row(row["key"], row["latency_s"], None) for row in text[1:]}
    header.pop("table_id"), header.pop("record")
    write_table(cheap, TableFile(header, rows, None))  # it promises about 10 us for everything
    words = [*TINY, f"table={cheap}", f"objective.latency_target_s={target_s}", "budget.retrain_steps=0"]
    done = command("search", "--run", "one", *words, "--json", folder=tmp_path)
    assert done.code == 0, done.err
    assert done.json["target_checked_by"] == "measurement" and done.json["table_provenance"] == "synthetic"
    assert done.json["latency_predicted_s"] <= target_s
    assert done.json["target_met"] is met is (done.json["latency_measured_s"] <= target_s)


@pytest.mark.slow
def test_this_machine_is_measured_and_searched_for(tmp_path):
    """``pytest -m slow tests/pipeline/test_pipeline_local_table.py``: minutes."""
    done = command("search", "--run", "one", *THIS, "--json", folder=tmp_path)
    assert done.code == 0, done.err
    assert done.json["table_provenance"] == "measured" and done.json["latency_target_s"] != TARGET_S
    (table,) = (tmp_path / "runs" / "tables").glob("*.jsonl")
    assert load_table(table).certificate.accuracy.networks > 0
    assert RunDir.open(tmp_path / "runs" / "one").record["table"]["table_id"] == load_table(table).table_id
    assert results(tmp_path / "runs" / "one")["stage"] == "done"
