"""Layer files: what would be computed as something else is refused, and so is what cannot be read."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_models.check import DATA
from accel_models.cli import main
from accel_models.layers import LayerShape, load_layers, to_records
from latency_tables.errors import DesignError

REF = {"name": "l0", "kind": "conv", "C": 32, "K": 32, "P": 16, "Q": 16, "R": 3, "S": 3, "stride": 1}
HEADER = "name,kind,C,K,P,Q,R,S,stride"
ROW = "l0,conv,32,32,16,16,3,3,1"


def write(path, **values):
    layer = {name: value for name, value in (REF | values).items() if value is not ...}
    path.write_text(json.dumps({"name": "x", "layers": [layer]}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "values, words",
    [
        ({"dilation": 4}, "unknown field 'dilation'.*one stride and no dilation"),
        ({"stride_h": 2, "stride_w": 1}, "unknown field 'stride_h'"),
        ({"N": 8}, "unknown field 'N'.*the batch is 1"),
        ({"C": 32.9, "K": 32.9}, "C must be an integer from 1 to 100000000, got 32.9"),
        ({"C": 32.0}, "C must be an integer"),
        ({"C": "32"}, "C must be an integer.*got '32'"),
        ({"stride": True}, "stride must be an integer.*got True"),
        ({"C": 30, "K": 34, "G": 4}, "C 30 and K 34 must be multiples of the 4 groups"),
        ({"G": 0}, "G must be an integer from 1"),
        ({"G": 33}, "multiples of the 33 groups"),
        ({"kind": "dw", "C": 16, "K": 64}, "as many output as input channels"),
        ({"kind": "dw", "G": 4}, "each a group of its own"),
        ({"kind": "pool", "C": 16}, "as many output as input channels"),
        ({"kind": "lstm"}, "kind must be one of conv, dw"),
        ({"kind": ["conv"]}, "name and kind of a layer must be texts"),
        ({"name": None}, "name and kind of a layer must be texts"),
        ({"R": ...}, "R is missing"),
        ({"H": 16, "pad": 0}, "H 16, pad 0, R 3 and stride 1 give P 14, got 16"),
        ({"W": 17, "pad": 1}, "give Q 17, got 16"),
        ({"macs": 2359297}, "the layer has 2359296 multiply-accumulates, got macs 2359297"),
        ({"kind": "pool", "macs": 777}, "the layer has 0 multiply-accumulates, got macs 777"),
        ({"kind": "relu", "macs": 1}, "the layer has 0 multiply-accumulates, got macs 1"),
        ({"H": 5, "W": 9999}, "H or W, and pad, are checked together, and one of them is missing; give both or none"),
        ({"W": 16}, "H or W, and pad, are checked together, and one of them is missing; give both or none"),
        ({"pad": 50}, "H or W, and pad, are checked together, and one of them is missing; give both or none"),
    ],
)
def test_what_would_be_computed_as_another_layer_is_refused(tmp_path, values, words):
    with pytest.raises(DesignError, match=words) as caught:
        load_layers(write(tmp_path / "net.json", **values))
    assert "net.json, layer 1: " in str(caught.value) or "kind must be" in str(caught.value)


def test_what_is_stated_besides_and_fits_is_taken(tmp_path):
    stated = {"H": 16, "W": 16, "pad": 1, "macs": 2359296 // 4, "G": 4}
    (layer,) = load_layers(write(tmp_path / "net.json", **stated))
    (pool,) = load_layers(write(tmp_path / "pool.json", kind="pool", W=16, pad=1, macs=0))
    assert pool == LayerShape("l0", "pool", 32, 1, 1, 16, 16, 3, 3, 1)
    assert layer == LayerShape("l0", "conv", 4, 8, 8, 16, 16, 3, 3, 1) and layer.macs == 2359296 // 4
    assert [layer.name for layer in load_layers(DATA / "layers.csv")] == [
        row["name"] for row in csv.DictReader((DATA / "layers.csv").read_text().splitlines())
    ]


def test_a_field_beside_the_layers_is_refused(tmp_path):
    (tmp_path / "net.json").write_text(json.dumps({"layers": [REF], "batch": 8}))
    with pytest.raises(DesignError, match="unknown field 'batch' beside name, description and layers"):
        load_layers(tmp_path / "net.json")


SIZE = st.integers(1, 10**8)


TEXT = st.text('ab,"; é', max_size=5)
GROUPED = st.builds(LayerShape, TEXT, st.sampled_from(["conv", "fc"]), *[st.integers(1, 99)] * 3, *[SIZE] * 5)
SINGLE = st.sampled_from(["dw", "pool", "add", "relu", "cast"])
BY_CHANNEL = st.builds(LayerShape, TEXT, SINGLE, SIZE, st.just(1), st.just(1), *[SIZE] * 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(GROUPED, BY_CHANNEL), min_size=1, max_size=4))
def test_layers_are_read_as_they_were_written_in_both_formats(tmp_path_factory, layers):
    folder = tmp_path_factory.mktemp("layers")
    (folder / "net.json").write_text(json.dumps({"layers": to_records(layers)}), encoding="utf-8")
    with (folder / "net.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*HEADER.split(","), "G"])
        writer.writeheader()
        writer.writerows(to_records(layers))
    assert load_layers(folder / "net.json") == load_layers(folder / "net.csv") == layers


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("latin1.csv", f"{HEADER}\nSchicht_größe,{ROW[3:]}\n".encode("latin-1"), "byte 39 is not UTF-8"),
        ("utf16.csv", f"{HEADER}\n{ROW}\n".encode("utf-16"), "byte order mark"),
        ("bom.csv", f"{HEADER}\n{ROW}\n".encode("utf-8-sig"), "byte order mark; save it as UTF-8 without one"),
        ("semi.csv", f"{HEADER}\n{ROW}\n".replace(",", ";").encode(), "separated by semicolons or tabs, expected commas"),
        ("spaces.csv", f"{HEADER}\n{ROW}\n".replace(",", ", ").encode(), "the column ' kind' begins or ends with a space"),
        ("g0.csv", f"{HEADER},G\n{ROW},0\n".encode(), "G must be an integer from 1 to .*, got 0"),
        ("missing.csv", f"{HEADER[:-7]}\n{ROW[:-2]}\n".encode(), "columns stride are missing"),
        ("twice.csv", f"{HEADER},C\n{ROW},32\n".encode(), "the column 'C' is named twice"),
        ("short.csv", f"{HEADER}\n{ROW[:-2]}\n".encode(), "row 2 has 8 values, the header 9"),
        ("long.csv", f"{HEADER}\n{ROW},7\n".encode(), "row 2 has 10 values, the header 9"),
        ("empty.csv", b"", "expected a header and at least one row"),
        ("quote.csv", f'{HEADER}\n"l0{ROW[2:]}\n'.encode(), "not CSV"),
        ("digits.csv", f"{HEADER}\n{ROW.replace('16', '٣')}\n".encode(), "P must be an integer"),
        ("inf.json", json.dumps([REF]).replace("32", "1e999").encode(), "1e999 is too large for a number"),
        ("nan.json", json.dumps([REF]).replace("32", "NaN").encode(), "NaN is not a number"),
        ("huge.json", json.dumps([REF]).replace("32", "1" + "0" * 400).encode(), "a whole number of 401 digits"),
        ("huger.json", json.dumps([REF]).replace("32", "1" + "0" * 5000).encode(), "a whole number of 5001 digits"),
        ("long.json", json.dumps([REF]).replace("32", "1" + "0" * 30).encode(), "C must be an integer from 1"),
        ("deep.json", b"[" * 100_000, "within each other deeper than"),
        ("deeper.json", b"[" * 65 + b"]" * 65, "within each other deeper than 64"),
        ("twice.json", b'[{"name": "a", "name": "b"}]', "the field 'name' is named twice"),
        ("half.json", b'[{"name": "\\ud800"}]', "half of a surrogate pair"),
        ("zero.json", b"\x00", "not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_message(tmp_path, capsys, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DesignError, match=words):
        load_layers(path)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "edge-npu", str(path)])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == "" and said.err.startswith("error: ") and len(said.err) < 500


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: text.replace("\n", ",,\n"), str.rstrip])
@pytest.mark.parametrize("ending", [".csv", ".CSV"])
def test_line_ends_and_empty_columns_of_spreadsheets_are_read(tmp_path, change, ending):
    path = tmp_path / f"net{ending}"
    path.write_bytes(change(f"{HEADER}\n{ROW}\n").encode())
    assert load_layers(path) == [LayerShape("l0", "conv", 1, 32, 32, 16, 16, 3, 3, 1)]
