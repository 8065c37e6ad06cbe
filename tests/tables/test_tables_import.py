"""Latencies that others measured become tables: what is taken, what is refused, what is left out and said."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_models.layers import load_layers
from cosearch.cli.app import main as cosearch_main
from cosearch.cost.table_cost import TableCost
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.testing.conformance import seeded
from latency_tables.commands import main
from latency_tables.errors import CosearchError, RequestError, TableError
from latency_tables.importing.formats import FORMATS, RELU6, read_columns, read_nn_meter, read_once_for_all
from latency_tables.importing.table import ImportRequest, imported_table
from latency_tables.opspec import OpSpec
from latency_tables.table import load_table

OPS = (OpSpec("conv", 8, 6, 6, 16, 3, 2, 1), OpSpec("mbconv", 8, 6, 6, 8, 5, 1, 2, expansion=3), OpSpec("linear", 4, 1, 1, 8))


def written(tmp_path, text, name="mine.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["latency_tables", "import", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    return caught.value.code or 0, said.out, said.err


FULL = """kind,in_channels,in_height,in_width,out_channels,kernel,stride,padding,expansion,activation,latency_ms,energy_mj
conv,8,6,6,16,3,2,1,,,0.25,0.5
mbconv,8,6,6,8,5,1,2,3,relu,0.5,
linear,4,1,1,8,,,,,,0.01,
"""


def test_columns_become_operations_with_seconds_and_joules(tmp_path):
    found = read_columns(written(tmp_path, FULL), "float32").rows
    assert [row.op for row in found] == list(OPS)
    assert [row.latency_s for row in found] == pytest.approx([2.5e-4, 5e-4, 1e-5])
    assert [row.energy_j for row in found] == [pytest.approx(5e-4), None, None]


@given(st.lists(st.tuples(st.sampled_from(OPS), st.floats(1e-3, 1e6)), min_size=1, max_size=3, unique_by=lambda pair: pair[0]))
@settings(deadline=None, max_examples=30)
def test_what_a_table_says_can_be_imported_again(tmp_path_factory, rows):
    """By keys, in each unit: the same figures."""
    folder = tmp_path_factory.mktemp("units")
    for unit, factor in (("latency_s", 1e-6), ("latency_ms", 1e-3), ("latency_us", 1.0)):
        lines = [f"{op.key},{value * factor!r}" for op, value in rows]
        found = read_columns(written(folder, "\n".join([f"key,{unit}", *lines]) + "\n"), "float32").rows
        assert [(row.op, row.latency_s) for row in found] == [(op, pytest.approx(value * 1e-6)) for op, value in rows]


@pytest.mark.parametrize(
    "text, words",
    [
        ("kind,in_channels,in_height,in_width,out_channels,latency\nconv,8,6,6,8,1\n", "unknown column 'latency'"),
        ("kind,in_channels,in_height,in_width,latency_s\nconv,8,6,6,1\n", "out_channels are missing"),
        ("kind,in_channels,in_height,in_width,out_channels\nconv,8,6,6,8\n", "no latency"),
        ("kind,in_channels,in_height,in_width,out_channels,latency_s,latency_ms\nconv,8,6,6,8,1,1\n", "say the same"),
        ("kind,in_channels,in_height,in_width,out_channels,latency_s\nconv,8,6,6,8,-1\n", "above 0, got '-1'"),
        ("kind,in_channels,in_height,in_width,out_channels,latency_s\nconv,8,6,6,8,nan\n", "above 0, got 'nan'"),
        ("kind,in_channels,in_height,in_width,out_channels,latency_s\nconv,8,6,6,8,1e999\n", "above 0"),
        ("kind,in_channels,in_height,in_width,out_channels,latency_s\nconv,8.5,6,6,8,1\n", "whole number, got '8.5'"),
        ("kind,in_channels,in_height,in_width,out_channels,latency_s\nsoftmax,8,6,6,8,1\n", "kind must be one of"),
        ("key,latency_s\nnonsense,1\n", "not the key of an operation"),
        ("key,kind,latency_s\n" + OPS[0].key + ",conv,1\n", "the key says all; leave out kind"),
        ("key,latency_s\n" + OPS[0].key.replace("float32", "int8") + ",1\n", "a row of dtype int8"),
        ("key;latency_s\na;1\n", "separated by semicolons"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_row_is_refused_by_name(text, words, tmp_path):
    with pytest.raises(TableError, match=words):
        read_columns(written(tmp_path, text), "float32")


NN_METER = {
    "conv-bn-relu": {
        "AB12CD": {"config": {"HW": 28, "CIN": 16, "COUT": 32, "KERNEL_SIZE": 3, "STRIDES": 2}, "latency": "12.5 +- 0.3"},
    },
    "dwconv-bn-relu": {"EF34GH": {"config": {"HW": 28, "CIN": 16, "COUT": 16, "KERNEL_SIZE": 5, "STRIDES": 1}, "latency": 3}},
    "fc": {"X": {"config": {"CIN": 64, "COUT": 10}, "latency": "0.5"}},
    "hswish": {"Y": {"config": {"HW": 28, "CIN": 16}, "latency": "0.1"}},
}


def test_profiled_kernels_of_nn_meter(tmp_path):
    read = read_nn_meter(written(tmp_path, json.dumps(NN_METER), "k.json"), "float32")
    assert [(row.op, row.latency_s) for row in read.rows] == [
        (OpSpec("conv", 16, 28, 28, 32, 3, 2, 1), pytest.approx(12.5e-3)),
        (OpSpec("conv", 16, 28, 28, 16, 5, 1, 2, groups=16), pytest.approx(3e-3)),
        (OpSpec("linear", 64, 1, 1, 10, activation="none"), pytest.approx(5e-4)),
    ]
    assert read.left_out == ("hswish Y: no such operation here",)


def test_pools_of_nn_meter_have_their_own_stride_and_its_padding(tmp_path):
    kernels = {
        "maxpool": {
            "A": {"config": {"HW": 28, "CIN": 16, "KERNEL_SIZE": 2, "POOL_STRIDES": 2}, "latency": "0.5 +- 0.1"},
            "B": {"config": {"HW": 28, "CIN": 16, "KERNEL_SIZE": 3, "STRIDES": 2}, "latency": "0.5"},
            "C": {"config": {"HW": 28, "CIN": 16, "KERNEL_SIZE": 2, "POOL_STRIDES": 1}, "latency": "0.4"},  # 28, ours 27
        },
        "conv-bn-relu": {"D": {"config": {"HW": 27, "CIN": 16, "COUT": 8, "KERNEL_SIZE": 2, "STRIDES": 2}, "latency": "1"}},
    }
    read = read_nn_meter(written(tmp_path, json.dumps(kernels), "k.json"), "float32")
    shapes = [(row.op.kernel, row.op.stride, row.op.padding, row.op.out_height) for row in read.rows]
    assert shapes == [(2, 2, 0, 14), (3, 2, 1, 14)]
    assert [text.partition(":")[0] for text in read.left_out] == ["maxpool C", "conv-bn-relu D"]
    without = {"maxpool": {"A": {"config": {"HW": 28, "CIN": 16, "KERNEL_SIZE": 2}, "latency": "0.5"}}}
    with pytest.raises(TableError, match="STRIDES must be a whole number, got None"):
        read_nn_meter(written(tmp_path, json.dumps(without), "k.json"), "float32")


ONCE_FOR_ALL = {
    "expanded_conv-input:56x56x24-output:28x28x40-expand:144-kernel:5-stride:2-idskip:0-se:0-hs:0": {"mean": 2.0, "count": 50},
    "expanded_conv-input:56x56x24-output:28x28x40-expand:100-kernel:5-stride:2-idskip:0-se:0-hs:0": {"mean": 2.0, "count": 50},
    "expanded_conv-input:56x56x24-output:28x28x40-expand:4-kernel:3-stride:2-idskip:0": {"mean": 3.0},
    "expanded_conv-input:28x28x40-output:28x28x40-expand:3-kernel:3-stride:1-idskip:1": {"mean": 1.0},
    "expanded_conv-input:28x28x40-output:28x28x40-expand:3-kernel:3-stride:1-idskip:0": {"mean": 1.0},
    "expanded_conv-input:28x28x40-output:28x28x40-expand:3-kernel:3-stride:1-idskip:1-se:1-hs:1": {"mean": 1.0},
    "Conv-input:224x224x3-output:112x112x32": {"mean": 4.0},
}


def test_look_up_tables_of_once_for_all(tmp_path):
    read = read_once_for_all(written(tmp_path, json.dumps(ONCE_FOR_ALL), "lut.json"), "float32")
    linear = {"activation": "none"}  # their projection has no activation, and none follows the sum
    assert [(row.op, row.latency_s) for row in read.rows] == [
        (OpSpec("mbconv", 24, 56, 56, 40, 5, 2, 2, expansion=6, **linear), pytest.approx(2e-3)),  # 144 channels in the middle
        (
            OpSpec("mbconv", 24, 56, 56, 40, 3, 2, 1, expansion=4, **linear),
            pytest.approx(3e-3),
        ),  # ProxylessNAS: the factor itself
        (OpSpec("mbconv", 40, 28, 28, 40, 3, 1, 1, expansion=3, **linear), pytest.approx(1e-3)),
    ]
    assert [row.note for row in read.rows] == ["", RELU6, RELU6], "Once-for-All without hard swish has ReLU, ProxylessNAS ReLU6"
    assert len(read.left_out) == 4 and "100 channels in the middle are no whole multiple of 24" in read.left_out[0]
    assert "idskip is 0, this operation adds its input" in read.left_out[1]


@pytest.mark.parametrize("reader, header, good, bad", [
    (read_columns, "key,latency_us", f"{OpSpec('linear', 4, 1, 1, 8).key},3", "nonsense,3"),
    (read_columns, "key,latency_us", f"{OpSpec('linear', 4, 1, 1, 8).key},3", "a,3,4"),
    (lambda path, _: load_layers(path), "Layer,M,N,K,", "one,4,4,4,", "two,4,4,0,"),
])  # fmt: skip
def test_a_message_counts_rows_as_an_editor_does(reader, header, good, bad, tmp_path):
    path = written(tmp_path, f"{header}\n\n{good}\n,\n\n{bad}\n", "t.csv")
    with pytest.raises(RequestError, match=r"row 6\b"):
        reader(path, "float32")


def test_what_differs_in_a_row_stands_in_its_details(tmp_path):
    path = written(tmp_path, json.dumps(ONCE_FOR_ALL), "lut.json")
    table, _ = imported_table(ImportRequest(path, "once-for-all", "phone", "a phone", "tflite", "float32", 1, "their bench"))
    notes = {key: row.details.get("note") for key, row in table.rows.items()}
    assert sorted(filter(None, notes.values())) == [RELU6, RELU6] and len(notes) == 3
    assert all("-none-float32-b1" in key for key in notes)


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_read_or_refused_in_one_short_message(tmp_path_factory, kind, content, whole):
    examples = {"csv": FULL, "nn-meter": json.dumps(NN_METER), "once-for-all": json.dumps(ONCE_FOR_ALL)}
    base = examples[kind].encode()
    path = tmp_path_factory.mktemp("any") / "file"
    cut = len(content) * 7 % len(base)
    path.write_bytes(content if whole else base[:cut] + content + base[cut:])
    try:
        FORMATS[kind](path, "float32")
    except CosearchError as error:
        said = str(error)
    else:
        said = ""
    assert len(said) < 2000


def test_an_imported_table_is_checked_shown_and_searched_with_like_any_other(tmp_path, monkeypatch, capsys):
    out = tmp_path / "t.jsonl"
    words = (written(tmp_path, FULL), "--device", "bench", "--source", "my bench, 2026", "--out", out, "--overhead-us", "20")
    code, said, _ = run(monkeypatch, capsys, *words, "--json")
    assert code == 0
    result = json.loads(said)
    assert result["provenance"] == "imported" and result["rows"] == 3
    assert [text.partition(":")[0] for text in result["findings"]] == ["near-zero", "certificate"]
    table = load_table(out)
    assert table.header["imported"]["source"] == "my bench, 2026" and len(table.header["imported"]["sha256"]) == 64
    predicted = table.predict([OPS[0], OPS[1]])
    assert predicted.latency_s == pytest.approx(2e-5 + 2.5e-4 + 5e-4) and predicted.energy_j is None  # one row has no energy
    assert cosearch_main(["search", "--dry-run", "--table", str(out)]) == 2  # which names the block that has no row
    assert "has no row in the table of bench" in capsys.readouterr().err


def test_a_network_of_imported_rows_has_their_energy(tmp_path, monkeypatch, capsys):
    text = "\n".join(["key,latency_ms,energy_mj", *(f"{op.key},0.5,{mj}" for op, mj in zip(OPS, (0.5, 0.25, 2)))]) + "\n"
    out = tmp_path / "t.jsonl"
    words = (written(tmp_path, text), "--device", "bench", "--source", "me", "--out", out, "--overhead-us", "20")
    assert run(monkeypatch, capsys, *words)[0] == 0
    assert load_table(out).predict([OPS[0], OPS[2], OPS[2]]).energy_j == pytest.approx(4.5e-3)
    space = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(1,), stage_strides=(1,)), (12, 12, 3), 4)
    rows = "\n".join(f"{op.key},0.5,0.25" for op in space.all_ops())
    assert run(monkeypatch, capsys, written(tmp_path, f"key,latency_ms,energy_mj\n{rows}\n"), *words[1:])[0] == 0
    architecture = space.sample(seeded(0))
    cost = TableCost(space, load_table(out), "energy_j")
    assert cost.exact(architecture) == pytest.approx(2.5e-4 * len(architecture.ops()))


@pytest.mark.parametrize(
    "millijoules, said",
    [
        (("0.5", "0.25", "2"), "energy of 3 of 3 rows, that of networks known, without certificate"),
        (("0.5", "", "2"), "energy of 2 of 3 rows, that of networks unknown"),
        (("", "", ""), "energy unknown"),
    ],
)
def test_the_caption_says_which_energies_are_known(millijoules, said, tmp_path, monkeypatch, capsys):
    text = "\n".join(["key,latency_ms,energy_mj", *(f"{op.key},0.5,{mj}" for op, mj in zip(OPS, millijoules))]) + "\n"
    words = (written(tmp_path, text), "--device", "bench", "--source", "me", "--out", tmp_path / "t.jsonl")
    assert f"; {said}; no certificate" in run(monkeypatch, capsys, *words)[1]


@pytest.mark.parametrize(
    "words, said",
    [
        (("--format", "excel"), "--format must be one of csv, nn-meter, once-for-all"),
        (("--dtype", "float64"), "dtype must be one of"),
        (("--threads", "100000"), "threads must be an integer from 1 to"),
        (("--overhead-us", "inf"), "--overhead-us must be a time of at most an hour, got inf"),
        (("--source", " "), "--source must say who measured"),
        (("--device", "this"), "'this' stands for the one that searches"),
    ],
)
def test_what_cannot_be_imported_writes_nothing(words, said, tmp_path, monkeypatch, capsys):
    out = tmp_path / "t.jsonl"
    base = (written(tmp_path, FULL), "--device", "bench", "--source", "me", "--out", out)
    code, _, err = run(monkeypatch, capsys, *base, *words)
    assert code == 2 and said in err and not out.exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_table_is_not_written_over_the_file_that_it_is_made_from(link, tmp_path, monkeypatch, capsys):
    source = written(tmp_path, FULL)
    before, out = source.read_bytes(), tmp_path / "link.csv" if link else source
    if link:
        out.symlink_to(source)
    code, _, err = run(monkeypatch, capsys, source, "--device", "bench", "--source", "me", "--out", out)
    assert code == 2 and "is the file that it would be made from" in err and source.read_bytes() == before


def test_an_import_replaces_an_earlier_one_of_its_device_and_nothing_else(tmp_path, monkeypatch, capsys):
    source, out = written(tmp_path, FULL), tmp_path / "t.jsonl"
    words = (source, "--source", "me", "--out", out)
    assert [run(monkeypatch, capsys, *words, "--device", "bench")[0] for _ in range(2)] == [0, 0]
    before = out.read_bytes()
    code, _, err = run(monkeypatch, capsys, *words, "--device", "other")
    assert code == 2 and "the imported table of bench); give --again" in err and out.read_bytes() == before
    assert run(monkeypatch, capsys, *words, "--device", "other", "--again")[0] == 0 and load_table(out).device.name == "other"


def test_an_operation_with_two_latencies_is_refused(tmp_path, monkeypatch, capsys):
    twice = written(tmp_path, f"key,latency_s\n{OPS[0].key},1\n{OPS[0].key},2\n")
    code, _, err = run(monkeypatch, capsys, twice, "--device", "d", "--source", "me", "--out", tmp_path / "t.jsonl")
    assert code == 2 and "is there twice, with 1 and 2 s" in err
