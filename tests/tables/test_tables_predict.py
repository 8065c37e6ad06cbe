"""Prediction: a closed form over the rows, and never a number for what is not there."""

import dataclasses

import pytest
from small_table import CONV, TAIL, make_file

from latency_tables.devices import find_table, list_devices, load_any
from latency_tables.errors import MissingOpError, TableError, UnknownNameError
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile
from latency_tables.table import Table


def test_prediction_is_overhead_plus_scale_times_sum():
    table = Table(make_file(overhead_j=1e-5))
    prediction = table.predict([CONV, CONV, TAIL])
    assert prediction.latency_s == pytest.approx(1e-5 + 1.25 * (4e-5 + 4e-5 + 6e-5), rel=1e-12)
    assert prediction.energy_j == pytest.approx(1e-5 + 1.25 * (2e-4 + 2e-4 + 3e-4), rel=1e-12)
    assert prediction.overhead_s + sum(row[1] for row in prediction.operations) == pytest.approx(prediction.latency_s, rel=1e-12)
    assert prediction.interval == pytest.approx((0.9 * prediction.latency_s, 1.2 * prediction.latency_s))
    assert prediction.provenance == "measured" and prediction.operations[2][0] == TAIL.key
    assert table.latency_rows_s([CONV, TAIL]) == pytest.approx([5e-5, 7.5e-5])


def test_energy_is_none_when_any_part_of_it_is_unknown():
    assert Table(make_file()).predict([CONV]).energy_j is None
    content = make_file(overhead_j=1e-5)
    content.rows[TAIL.key] = Row(TAIL.key, 6e-5, None)
    table = Table(content)
    assert table.predict([CONV]).energy_j is not None
    assert table.predict([CONV, TAIL]).energy_j is None and table.energy_j(TAIL) is None


def test_missing_operation_names_nearest_rows_and_the_command():
    other = dataclasses.replace(CONV, kernel=5, padding=2)
    with pytest.raises(MissingOpError) as caught:
        Table(make_file()).predict([CONV, other])
    text = str(caught.value)
    assert other.key in text and f"--op {other.key}" in text and "python -m latency_tables measure --device toy" in text
    assert text.index(CONV.key) < text.index(TAIL.key)


def test_row_that_could_not_run_raises_with_its_reason():
    content = make_file()
    content.rows[CONV.key] = Row(CONV.key, None, None, "unsupported", {"reason": "no kernel for it"})
    with pytest.raises(MissingOpError, match="no kernel for it"):
        Table(content).latency_s(CONV)


def test_wrong_dtype_raises_and_cast_helps():
    table = Table(make_file())
    with pytest.raises(MissingOpError, match="cast"):
        table.latency_s(dataclasses.replace(CONV, dtype="int8"))
    assert table.cast([dataclasses.replace(CONV, dtype="int8")]) == [CONV]


def test_coverage_counts_distinct_operations_and_empty_network_is_an_error():
    table = Table(make_file())
    assert table.coverage([CONV, CONV, dataclasses.replace(CONV, kernel=1, padding=0)]) == 0.5
    with pytest.raises(TableError, match="at least one"):
        table.predict([])


def test_every_shipped_table_loads_and_its_record_tells_the_truth():
    records = list_devices()
    assert "jetson" in {record.name for record in records}
    for record in records:
        table = load_any(str(record.path))
        assert (table.device.name, table.provenance) == (record.name, record.provenance)
        assert record.path.name == f"{record.runtime}-{record.dtype}-{record.threads}t.jsonl"
        assert record.path.parent.name == record.name


def test_unknown_device_suggests_the_nearest_and_other_identity_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean jetson"):
        find_table("jetsn")
    with pytest.raises(UnknownNameError, match="roofline-float32-1t"):
        find_table("jetson", dtype="int8")
    with pytest.raises(UnknownNameError):
        find_table("jetson", threads=3)


def test_a_device_name_can_say_runtime_dtype_and_threads():
    for record in list_devices():
        name = f"{record.name}/{record.runtime}-{record.dtype}-{record.threads}t"
        assert find_table(name).path == record.path == load_any(name).path
    with pytest.raises(UnknownNameError, match="it has: roofline-float32-1t"):
        find_table("jetson/onnxruntime-int8-4t")
    with pytest.raises(UnknownNameError, match="named like jetson/onnxruntime-float32-1t"):
        find_table("jetson/int8")


def test_jetson_is_estimated_and_computes_what_is_outside_its_rows():
    table = find_table("jetson")
    odd = OpSpec("conv", 7, 9, 9, 5, 3, 1, 1)
    assert odd.key not in table.rows and table.provenance == "estimated"
    prediction = table.predict([odd])
    assert prediction.provenance == "estimated" and prediction.latency_s > table.overhead_s and prediction.energy_j > 0


def test_written_rows_of_an_estimate_equal_its_model():
    table = find_table("jetson")
    bare = Table(TableFile(table.header, {}, None))
    for key, row in table.rows.items():
        assert bare.latency_s(OpSpec.from_key(key)) == pytest.approx(row.latency_s, rel=1e-5)
