"""Every reader of files that users give, on seeded damage: only our own errors leave, short, in time, with the exit code 2."""

import gzip
import json
import time
from pathlib import Path

import pytest
from mutations import NASTY, changed, damaged
from report_fake_run import make_run

from accel_models import check
from accel_models.design import DESIGNS, load_design
from accel_models.layers import NETWORKS, load_layers
from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.record.rundir import RunDir
from cosearch.report.data import read_run
from cosearch.rl.teacher import TEACHERS, read_record
from cosearch.space.files import load_architecture
from cosearch.space.kinds.chain import ChainConfig, chain_space
from latency_tables.errors import RequestError, TableError
from latency_tables.estimating.published import load_published
from latency_tables.estimating.specification import SPECS, load_spec
from latency_tables.text import reading
from latency_tables.worklists import FOLDER as WORK_LISTS
from latency_tables.worklists import load_worklist

LONGEST = 700  # letters of a message, the path of the file included
SLOWEST_S = 2.0
TIMELOOP = "target.cycle,target.energy,mapping.mapping,arch.meshX,arch.mem1_entries,arch.mem2_entries,prob.Wstride,prob.Hstride"


def head(path: Path, lines: int = 4) -> bytes:
    return b"".join(path.read_bytes().splitlines(keepends=True)[:lines])


def architecture() -> bytes:
    space = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(1,), stage_strides=(1,), hidden=8), (64, 64, 3), 15)
    return json.dumps(space.architecture([0]).to_dict()).encode()


def layers() -> bytes:
    return json.dumps({"name": "two", "layers": json.loads((NETWORKS / "impala.json").read_text())["layers"][:2]}).encode()


def timeloop() -> bytes:
    names = TIMELOOP + "," + ",".join(f"prob.{d}" for d in "CKPQRSN")
    return f"{names}\n9,1.5,L3[WIO] C2 K4X - L2[WI] N1 - L1[O] Q7 P3 - L0[W] N1,16,64,64,1,1,2,4,3,7,1,1,1\n".encode()


def published() -> bytes:
    """One block and the constant of a device."""
    names = "device,metric,value_kind,op,value,in_ch,out_ch,stride,input_h,input_w"
    rows = ["here,latency,delta_vs_skip,k3_e6,1.5,16,24,1,32,32", "here,latency,constant,all,9.5,1,1,1,1,1"]
    return "\n".join([names, *rows, ""]).encode()


def work_list() -> bytes:
    content = json.loads((WORK_LISTS / "mlp.json").read_text())
    networks = content["networks"]
    return json.dumps({"space": "x", "ops": content["ops"][:2], "networks": list(networks)[:1], "uniform": []}).encode()


READERS = {  # name of the file -> (what it holds, how it is read)
    "design.json": ((DESIGNS / "edge-npu.json").read_bytes(), load_design),
    "fpga.json": ((DESIGNS / "zc706.json").read_bytes(), load_design),
    "network.json": (layers(), load_layers),
    "network.csv": (head(check.DATA / "layers.csv"), load_layers),
    "scalesim.csv": (head(check.DATA / "oracle_scalesim.csv"), lambda path: check.compare("scalesim", path)),
    "zigzag.csv": (head(check.DATA / "oracle_zigzag.csv", 3), lambda path: check.compare("zigzag", path)),
    "timeloop.csv": (timeloop(), lambda path: check.compare("timeloop", path)),
    "architecture.json": (architecture(), load_architecture),
    "estimate.json": ((SPECS / "jetson.json").read_bytes(), lambda path: load_spec(path).roofline()),
    "published.csv": (published(), lambda path: load_published(path, "here")),
    "work_list.json": (work_list(), load_worklist),
    "teacher.json": ((TEACHERS / "minatar-breakout.json").read_bytes(), read_record),
}


def outcome(read, path: Path) -> str:
    """How a reader takes a file: ``read``, or the message; anything but an error of a wrong request leaves as it is."""
    begun = time.process_time()
    text = "read"
    try:
        read(path)
    except RequestError as error:
        text = str(error)
    spent_s = time.process_time() - begun
    assert len(text) < LONGEST + len(str(path)) and "\n" not in text and text.encode(), text
    assert spent_s < SLOWEST_S, f"{spent_s:.1f} s: {text}"
    return text


@pytest.mark.parametrize("name", READERS)
def test_only_our_own_errors_leave_a_reader(tmp_path, name):
    content, read = READERS[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert outcome(read, path) == "read"
    versions = list(damaged(content, 0, 250))
    if name.endswith(".json"):
        versions += changed(json.loads(content), 0, 250)
    refused = 0
    for version in versions:
        path.write_bytes(version)
        refused += outcome(read, path) != "read"
    assert refused > len(versions) / 4


@pytest.mark.parametrize(
    "key, value",
    [
        ("stage_repeats", [10**30]),
        ("stage_repeats", [10**6]),
        ("stage_channels", [10**30]),
        ("hidden", 10**39),
        ("stem_kernel", -(10**30)),
        ("stage_repeats", [1] * 200),
        ("candidates", ["skip"] * 200),
        ("candidates", [["skip"]]),
        ("x" * 5000, 1),
    ],
)
def test_a_network_out_of_reason_is_refused_before_it_is_built(tmp_path, key, value):
    content = json.loads(architecture())
    content["space_config"][key] = value
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert f"space.values.{key[:20]}" in outcome(load_architecture, tmp_path / "a.json")


@pytest.mark.parametrize("key", ["space", "space_config", "frame_shape", "num_actions", "choices", "policy", "operations"])
@pytest.mark.parametrize("value", [None, 0, -1, 1.5, True, "x", [], {}, [None], [[1]], {"a": 1}, 10**30])
def test_an_architecture_of_wrong_types_is_refused(tmp_path, key, value):
    (tmp_path / "a.json").write_text(json.dumps(json.loads(architecture()) | {key: value}))
    assert outcome(load_architecture, tmp_path / "a.json") != "read"


TOML = b"""seed = 3
device = "jetson"
[rl]
lr = 0.001
epochs = 3
[space]
name = "chain"
[space.values]
stage_repeats = [1, 2, 3]
"""


def test_a_configuration_of_any_bytes_and_words_is_read_or_refused_in_few_lines(tmp_path):
    path, words = tmp_path / "run.toml", [b"seed=", b"rl.lr=", b"space.values.stage_repeats=", b"rl.", b"env.name="]
    asked = [(version, []) for version in damaged(TOML, 0, 250)]
    asked += [(TOML, [(word + nasty).decode("utf-8", "surrogateescape")]) for word in words for nasty in NASTY]
    refused = 0
    for content, overrides in asked:
        path.write_bytes(content)
        text = ""
        try:
            resolve(file=path, overrides=overrides)
        except RequestError as error:
            text = str(error)
        refused += text != ""
        assert len(text) < 2000 + len(str(path)), overrides
    assert refused > len(asked) / 3


DAMAGE = {
    "bytes that are no UTF-8": b"\xff\xfe\x00{",
    "too deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "too many digits": b'{"seed": 1' + b"0" * 5000 + b"}",
    "too large": b'{"seed": 1e999}',
    "no object": b"[1, 2]",
    "a list for a name": b'{"name": ["x"], "config": [], "device": 3}',
    "twice": b'{"name": "a", "name": "b"}',
    "nothing": b"",
    "half": b'{"name": "a", "con',
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["run.json", "summary.json", "agent.json", "architecture.json", "metrics.jsonl"])
def test_a_damaged_file_of_a_run_is_one_short_message(file, damage, tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / file).write_bytes(DAMAGE[damage] + (b"\n" if file.endswith("l") else b""))
    if damage == "nothing" and file == "metrics.jsonl":
        return
    with pytest.raises(RequestError) as caught:
        read_run(folder)
    assert file in str(caught.value) and len(str(caught.value)) < 2000


def test_a_count_of_hundreds_of_digits_in_our_own_files_is_read(tmp_path):
    folder = make_run(tmp_path / "run")
    content = json.loads((folder / "run.json").read_text())
    content["space"]["size"] = content["feasible_architectures"] = 9**400
    (folder / "run.json").write_text(json.dumps(content))
    assert RunDir(folder, {}).read_json("run.json")["space"]["size"] == 9**400


@pytest.mark.parametrize("content", [b"\x1f\x8b", b"no gzip", b"\x1f\x8b\x08\x00" + b"\x00" * 30, bytes(range(256))])
def test_a_damaged_packed_file_is_one_short_message(content, tmp_path):
    path = tmp_path / "latencies.csv.gz"
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"latencies\.csv\.gz: cannot be read as a table"):
        reading.read_csv(path, "a table", ("a",), TableError)


def test_a_packed_file_is_unpacked_up_to_the_limit(tmp_path, monkeypatch):
    path = tmp_path / "latencies.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert reading.read_csv(path, "a table", ("a",), TableError) == [{"a": "1", "b": "2"}]
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 10**6))  # a thousand times larger than it looks
    monkeypatch.setattr(reading, "MAX_BYTES", 2**20)
    with pytest.raises(TableError, match="more than 1 MiB"):
        reading.read_csv(path, "a table", ("a",), TableError)


def test_a_message_that_repeats_its_input_is_cut(capsys):
    assert main(["search", "--dry-run", "env.name=" + "x" * 100_000]) == 2
    said = capsys.readouterr().err
    assert len(said) < 2100 and "unknown environment" in said
