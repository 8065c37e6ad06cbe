"""Prediction: a closed form over the rows, and never a number for what is not there."""

import dataclasses

import pytest
from small_table import CONV, TAIL, make_file

from latency_tables.checks import check_table
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


def test_another_dtype_than_the_tables_is_never_exchanged_for_it():
    table = Table(make_file())
    with pytest.raises(MissingOpError, match="int8"):
        table.latency_s(dataclasses.replace(CONV, dtype="int8"))
    assert table.cast([dataclasses.replace(CONV, dtype="int8")]) == [dataclasses.replace(CONV, dtype="int8")]


@pytest.mark.parametrize("dtype, batch", [("int8", 1), ("float16", 1), ("float32", 8), ("int8", 8)])
def test_a_trained_network_is_priced_in_the_tables_dtype_and_batch(dtype, batch):
    """Float32 blocks of one frame find the table's rows; what no row prices names the command with the whole identity."""
    content = make_file()
    float_prediction = Table(content).predict([CONV, TAIL])
    rows = {key: content.rows.pop(key) for key in list(content.rows)}
    for key, row in rows.items():
        own = dataclasses.replace(OpSpec.from_key(key), dtype=dtype, batch=batch).key
        content.rows[own] = dataclasses.replace(row, key=own)
    content.header["device"] = {**content.header["device"], "dtype": dtype, "threads": 2, "runtime": "tvm"}
    content.header["protocol"] = {"batch": batch}
    table = Table(content)
    found = table.predict([CONV, TAIL])
    assert (table.batch, found.latency_s, found.energy_j) == (batch, float_prediction.latency_s, float_prediction.energy_j)
    assert [key for key, _, _ in found.operations] == [
        dataclasses.replace(op, dtype=dtype, batch=batch).key for op in (CONV, TAIL)
    ]
    assert table.energy_j(CONV) == rows[CONV.key].energy_j and table.coverage([CONV, TAIL]) == 1.0
    missing = dataclasses.replace(CONV, kernel=5, padding=2)
    named = dataclasses.replace(missing, dtype=dtype, batch=batch).key
    wanted = "".join(
        text
        for text, said in (
            (" --runtime tvm", True),
            (f" --dtype {dtype}", dtype != "float32"),
            (" --threads 2", True),
            (f" --batch {batch}", batch > 1),
        )
        if said
    )
    with pytest.raises(MissingOpError, match=f"measure --device toy{wanted} --op {named} --out"):
        table.predict([missing])


def test_operations_of_several_batches_are_no_network_and_a_finding():
    """The file as ``measure --op --batch 8`` made it of a table for one frame."""
    content, wide = make_file(), dataclasses.replace(CONV, batch=8)
    content.rows[wide.key] = dataclasses.replace(content.rows[CONV.key], key=wide.key)
    with pytest.raises(TableError, match="must be of one batch, got 1 and 8"):
        Table(content).predict([wide, TAIL])
    Table(content).predict([wide])  # the header does not say which batch its calibration is of
    (finding,) = [finding for finding in check_table(Table(content)) if finding.rule == "batch"]
    assert finding.keys == (wide.key,) and "1 and 8" in finding.text
    content.header["protocol"] = {"batch": 1}
    with pytest.raises(TableError, match="of batch 1, as its calibration is, got 8"):
        Table(content).predict([wide])
    assert not [finding for finding in check_table(Table(make_file())) if finding.rule == "batch"]


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


def test_every_part_of_a_prediction_by_hand():
    table = Table(make_file(overhead_j=1e-5, power_w=5.0))
    latency_s = 1e-5 + 1.25 * (4e-5 + 6e-5)
    found = table.predict([CONV, TAIL])
    assert found.operations == (
        (CONV.key, pytest.approx(5e-5), pytest.approx(2.5e-4)),
        (TAIL.key, pytest.approx(7.5e-5), pytest.approx(3.75e-4)),
    )
    assert found.power_times_time_j == pytest.approx(5.0 * latency_s) and found.overhead_s == 1e-5
    plain = Table(make_file(interval_factors=None)).predict([CONV])
    assert plain.operations == ((CONV.key, pytest.approx(5e-5), None),)
    assert (plain.energy_j, plain.interval, plain.power_times_time_j) == (None, None, None)


def test_an_estimate_costs_its_power_times_its_time():
    table = find_table("jetson")
    odd = OpSpec("conv", 7, 9, 9, 5, 3, 1, 1)
    assert table.power_w > 0 and table.energy_j(odd) == pytest.approx(table.power_w * table.latency_s(odd))
    found = table.predict([odd])
    assert found.power_times_time_j == pytest.approx(table.power_w * found.latency_s)
    model = dict(table.header["model"])
    model["constants"] = {**model["constants"], "power_w": {"value": None, "source": "unknown"}}
    unknown = Table(dataclasses.replace(make_file(), header={**make_file().header, "model": model}))
    assert unknown.energy_j(odd) is None and unknown.latency_s(odd) == pytest.approx(table.latency_s(odd))
    with pytest.raises(MissingOpError, match="use the table of int8"):
        table.energy_j(dataclasses.replace(odd, dtype="int8"))


@pytest.mark.parametrize(
    "provenance, words",
    [
        ("synthetic", "Measure it with: python -m latency_tables measure --device toy --synthetic --op "),
        ("imported", "Add its latency to the file that the table was imported from, and import that again with --out FILE"),
        ("derived", "Nothing here can measure it, as the table is derived: give one that has the row with --table FILE"),
        ("estimated", "Nothing here can measure it, as the table is estimated: give one that has the row with --table FILE"),
    ],
)
def test_what_gives_a_table_a_row_depends_on_who_made_it(provenance, words):
    content = make_file()
    content.header["provenance"] = provenance
    with pytest.raises(MissingOpError) as caught:
        Table(content).predict([dataclasses.replace(CONV, kernel=5, padding=2)])
    assert words in str(caught.value) and ("latency_tables measure" in str(caught.value)) == (provenance == "synthetic")


def test_coverage_by_hand():
    table = Table(make_file())
    others = [dataclasses.replace(CONV, kernel=k, padding=k // 2) for k in (1, 5, 7)]
    assert table.coverage([CONV, *others]) == 0.25 and table.coverage([CONV, TAIL]) == 1.0 == table.coverage([])
    assert table.coverage(others) == 0.0 == table.coverage([dataclasses.replace(CONV, dtype="int8")])


def test_the_messages_of_missing_operations(tmp_path):
    content = make_file()
    rows = {k: dataclasses.replace(CONV, kernel=k, padding=k // 2) for k in (1, 5, 7, 9)}
    content.rows[rows[9].key] = Row(rows[9].key, None, None, "unsupported")
    for threads, named, option in (
        (1, "toy (onnxruntime, float32, 1 thread)", ""),
        (2, "toy (onnxruntime, float32, 2 threads)", " --threads 2"),
    ):
        content.header["device"]["threads"] = threads
        path = tmp_path / "my tables" / "toy.jsonl"
        for table, file in ((Table(content), "FILE"), (Table(content, path=path), f"'{path}'")):
            rest = (
                f"in the table of {named}. Nearest rows: {CONV.key}, {TAIL.key}. Measure it with: "
                f"python -m latency_tables measure --device toy{option} --op {{}} --out {file}"
            )
            for asked, words in (
                ([rows[1]], f"operation {rows[1].key} has no row {rest.format(rows[1].key)}"),
                (
                    [rows[9]],
                    f"operation {rows[9].key} could not be measured (unsupported: no reason recorded) {rest.format(rows[9].key)}",
                ),
                (
                    [CONV, *(rows[k] for k in (1, 5, 7, 9, 1))],
                    f"operation {rows[1].key} (and 3 more: {rows[5].key}, {rows[7].key}, {rows[9].key}) "
                    f"has no row {rest.format(rows[1].key)}",
                ),
            ):
                with pytest.raises(MissingOpError) as caught:
                    table.predict(asked)
                assert str(caught.value) == words
        with pytest.raises(MissingOpError) as caught:
            table.latency_s(rows[1])
        assert str(caught.value).startswith(f"operation {rows[1].key} has no row in")
    many = [dataclasses.replace(CONV, kernel=k, padding=k // 2) for k in (1, 5, 7, 11, 13)]
    with pytest.raises(MissingOpError, match=r"\(and 4 more: (\S+, ){3}\.\.\.\) has no row"):
        Table(content).predict(many)
    foreign = dataclasses.replace(CONV, dtype="int8")
    with pytest.raises(MissingOpError) as caught:
        Table(make_file()).latency_s(foreign)
    assert str(caught.value) == (
        f"the table of toy (onnxruntime, float32, 1 thread) holds float32 operations, got {foreign.key}; "
        "use the table of int8, named like toy/onnxruntime-int8-1t"
    )
    with pytest.raises(TableError, match=r"^a network needs at least one operation, got an empty list$"):
        Table(make_file()).predict([])


def test_the_nearest_rows_differ_least_relative_to_their_size():
    """From 8 channels, 12 is nearer than 4 (a third against a half), a kind of its own is farthest, and three are named."""
    content, asked = make_file(), dataclasses.replace(CONV, kernel=5, padding=2)
    content.rows.clear()
    near = [
        dataclasses.replace(asked, in_channels=12),
        dataclasses.replace(asked, in_channels=4),
        dataclasses.replace(asked, activation="none"),
        dataclasses.replace(asked, activation="none", in_channels=4),
    ]
    far = dataclasses.replace(asked, kind="stem")
    for order in (near, near[::-1]):
        for i in range(2):
            content.rows.clear()
            content.rows.update({op.key: Row(op.key, 1e-5) for op in (far, *order[i:])})
            with pytest.raises(MissingOpError) as caught:
                Table(content).latency_s(asked)
            named = str(caught.value).split("Nearest rows: ")[1].split(". Measure")[0].split(", ")
            wanted = [op.key for op in near if op in order[i:]][:3]
            assert named == wanted
