"""The command line of latency tables: every verb, its JSON, its exit codes, and the examples of its help."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from small_table import CONV, TAIL, make_file
from typer.testing import CliRunner

from latency_tables import commands
from latency_tables.checks import check_table
from latency_tables.compare import compare_tables
from latency_tables.errors import RequestError, TableError
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile, write_table
from latency_tables.showing.output import command_line
from latency_tables.table import Table

WIDE = OpSpec("conv", 8, 6, 6, 16, 3, 1, 1)


@pytest.fixture
def toy(tmp_path):
    write_table(tmp_path / "toy.jsonl", make_file())
    return str(tmp_path / "toy.jsonl")


def call(*arguments):
    return CliRunner().invoke(commands.app, [str(a) for a in arguments])


def main(monkeypatch, capsys, *arguments):
    """The whole program: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["latency_tables", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    code = stopped.value.code or 0
    return code, *capsys.readouterr()


def test_check_tells_validity_and_the_certificate(toy, monkeypatch, capsys):
    code, out, _ = main(monkeypatch, capsys, "check", toy, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["valid"] is True and answer["rows"] == 2 and answer["certificate"]["mape"] == 0.01
    assert answer["provenance"] == "measured" and answer["energy"] is True


def test_broken_table_is_exit_code_2_with_one_message(toy, monkeypatch, capsys):
    with open(toy, "r+", encoding="utf-8") as stream:
        text = stream.read().replace("4e-05", "3e-05")
        stream.seek(0)
        stream.write(text)
    code, out, err = main(monkeypatch, capsys, "check", toy, "--json")
    assert code == 2 and json.loads(out)["valid"] is False and err.startswith("error: ") and "table_id" in err
    assert "Traceback" not in err
    assert main(monkeypatch, capsys, "show", "no-such-device")[0] == 2
    assert main(monkeypatch, capsys, "check", toy, "--worklist", "nowhere")[0] == 2
    assert main(monkeypatch, capsys, "measure")[0] == 2


def test_show_prints_rows_and_draws(toy, tmp_path):
    text = call("show", toy).stdout
    assert "measured" in text and "40.00" in text
    picture = tmp_path / "p" / "toy.png"
    assert call("show", toy, "--png", picture).exit_code == 0
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 10_000
    rows = json.loads(call("show", toy, "--json").stdout)["rows"]
    assert {row["key"]: row["latency_s"] for row in rows} == {CONV.key: 4e-5, TAIL.key: 6e-5}


def test_diff_compares_calibrated_rows(toy, tmp_path):
    content = make_file(scale=2.5)
    write_table(tmp_path / "other.jsonl", TableFile({**content.header, "provenance": "derived"}, content.rows, None))
    answer = json.loads(call("diff", toy, tmp_path / "other.jsonl", "--json").stdout)
    assert answer["ratio_median"] == pytest.approx(2.0) and answer["changed"]["provenance"] == ["measured", "derived"]
    assert "ratio 2.000" in re.sub(r"\s+", " ", call("diff", toy, tmp_path / "other.jsonl").stdout)


def test_compare_by_hand():
    one, two = make_file(scale=1.0), make_file(scale=1.0)
    two.rows[CONV.key] = Row(CONV.key, 8e-5)
    two.rows[WIDE.key] = Row(WIDE.key, 9e-5)
    comparison = compare_tables(Table(one), Table(two))
    assert (
        comparison.rows[0] == (CONV.key, 4e-5, 8e-5, 2.0)
        and comparison.only_second == (WIDE.key,)
        and comparison.only_first == ()
    )
    lonely = TableFile(one.header, {WIDE.key: Row(WIDE.key, 1e-5)}, None)
    with pytest.raises(TableError, match="share no row"):
        compare_tables(Table(one), Table(lonely))


def test_dry_run_measures_nothing(tmp_path):
    out = tmp_path / "t.jsonl"
    plan = json.loads(call("measure", "--device", "this", "--out", out, "--dry-run", "--json").stdout)
    assert plan["certificate_networks"] >= 30 and plan["expected_s_at_most"] < 600 and not list(tmp_path.iterdir())


def test_fit_and_list():
    records = json.loads(call("list", "--json").stdout)
    assert {"jetson", "raspberry-pi-4"} <= {record["name"] for record in records}
    assert all(record["description"] and record["provenance"] for record in records)


def test_fit_writes_the_shipped_table(tmp_path):
    out = tmp_path / "jetson.jsonl"
    answer = json.loads(call("fit", "--device", "jetson", "--out", out, "--json").stdout)
    assert answer["provenance"] == "estimated" and json.loads(call("diff", "jetson", out, "--json").stdout)["ratio_median"] == 1.0


def test_fit_replaces_its_own_estimate_and_nothing_else(tmp_path):
    out, mine = tmp_path / "t.jsonl", tmp_path / "mine.json"
    mine.write_text((Path(commands.__file__).parent / "specs" / "jetson.json").read_text())
    work = tmp_path / "work.json"
    work.write_text(json.dumps({"space": "s", "ops": [CONV.to_dict()], "networks": []}))
    fit = ("fit", "--device", mine, "--worklist", work)
    for source in (mine, work):
        before = source.read_bytes()
        refused = call(*fit, "--out", source, "--again")
        assert isinstance(refused.exception, RequestError) and "would be made from" in str(refused.exception)
        assert source.read_bytes() == before
    for _ in range(2):
        assert call(*fit, "--out", out).exit_code == 0
    for there in ((Path(commands.__file__).parent / "x86-epyc" / "onnxruntime-float32-1t.jsonl").read_bytes(), b"my notes"):
        out.write_bytes(there)
        refused = call(*fit, "--out", out)
        assert isinstance(refused.exception, RequestError) and "give --again to replace it" in str(refused.exception)
        assert out.read_bytes() == there
    assert call(*fit, "--out", out, "--again").exit_code == 0
    assert json.loads(call("check", out, "--json").stdout)["provenance"] == "estimated"


def test_fewer_rounds_at_most_than_at_least_are_refused(tmp_path):
    refused = call("measure", "--out", tmp_path / "t.jsonl", "--rounds", "5", "--max-rounds", "2", "--dry-run")
    assert isinstance(refused.exception, RequestError) and "max-rounds must be from 5 to" in str(refused.exception)
    assert call("measure", "--out", tmp_path / "t.jsonl", "--rounds", "60", "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    "work, words",
    [
        ({"space": "s", "ops": [], "networks": []}, "it names no operation"),
        ({"space": "s", "networks": [{"ops": [CONV.to_dict()] * 2, "wiring": [[], ["0"]]}]}, r"wiring .* \[\[\], \['0'\]\]"),
        ({"space": "s", "networks": [{"ops": [CONV.to_dict()], "wiring": "x"}]}, "wiring .* 'x'"),
        ({"space": "s", "ops": [{**CONV.to_dict(), "groups": 3}], "networks": []}, "groups must divide the channels, got 3 of"),
    ],
    ids=["empty", "a text as an index", "a text as the wiring", "groups"],
)
def test_a_work_list_that_cannot_be_measured_is_one_message(work, words, tmp_path):
    (tmp_path / "work.json").write_text(json.dumps(work))
    refused = call("measure", "--worklist", tmp_path / "work.json", "--out", tmp_path / "t.jsonl", "--dry-run")
    assert isinstance(refused.exception, TableError) and re.search(words, str(refused.exception)), refused.exception


@pytest.mark.parametrize("line", re.findall(r"^python -m latency_tables (.*)$", commands.EXAMPLES, re.MULTILINE))
def test_examples_of_the_help_work_when_pasted(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*shlex.split(line)).exit_code == 0
    assert "python -m latency_tables" in call("--help").stdout


def findings(content, **options):
    return {f.rule: f.keys for f in check_table(Table(content), **options)}


def test_each_plausibility_rule_sees_its_fault_and_only_that():
    good = make_file()
    assert findings(good) == {}
    near_zero = make_file()
    near_zero.rows[CONV.key] = Row(CONV.key, 1e-7)
    assert findings(near_zero) == {"near-zero": (CONV.key,)}
    power = make_file()
    power.rows[CONV.key] = Row(CONV.key, 4e-5, 1.0)
    assert findings(power) == {"power": (CONV.key,)}
    more = OpSpec("conv", 8, 6, 6, 32, 3, 1, 1)
    monotone = make_file()
    monotone.rows.update({WIDE.key: Row(WIDE.key, 9e-5), more.key: Row(more.key, 5e-5)})
    assert findings(monotone) == {"monotone": (f"{more.key} < {WIDE.key}",)}
    unsure = make_file()
    unsure.rows[CONV.key] = Row(CONV.key, 4e-5, details={"sure": False})
    assert findings(unsure) == {"unsure": (CONV.key,)}
    refused = make_file()
    refused.rows[CONV.key] = Row(CONV.key, None, None, "unsupported", {"reason": "x"})
    assert findings(refused) == {"status": (CONV.key,)}
    bad = TableFile(good.header, good.rows, {**good.certificate, "mape": 0.2, "kendall_tau": 0.5})
    assert list(findings(bad)) == ["certificate"] and list(findings(TableFile(good.header, good.rows, None))) == ["certificate"]
    assert findings(good, ops=[CONV, WIDE]) == {"coverage": (WIDE.key,)}


def test_rows_copied_from_another_device_are_found():
    rows = {op.key: Row(op.key, 1e-5 * (i + 1)) for i, op in enumerate(OpSpec("conv", 8, 6, 6, o, 3, 1, 1) for o in range(1, 9))}
    one = make_file()
    mine = TableFile(one.header, rows, one.certificate)
    other_header = {**one.header, "table_id": "b", "device": {**one.header["device"], "name": "other"}}
    mine.header["table_id"] = "a"
    assert "copied" in findings(mine, others=[Table(TableFile(other_header, rows, None))])
    scaled = {key: Row(key, row.latency_s * 1.01) for key, row in rows.items()}
    assert "copied" not in findings(mine, others=[Table(TableFile(other_header, scaled, None))])


WRONG = {
    "--budget": ("nan", "inf", "-1"),
    "--rounds": ("0", "-3", "9" * 30),
    "--max-rounds": ("9" * 30,),
    "--tolerance": ("nan", "-1", "0", "2"),
    "--threads": ("0", "9" * 30),
    "--batch": ("0", "9" * 30),
    "--seed": ("-1", "9" * 30),
    "--energy-seconds": ("nan", "-1", "inf"),
    "--period-s": ("nan", "0", "11"),
}


@pytest.mark.parametrize("option, value", [(option, value) for option, values in WRONG.items() for value in values])
def test_a_value_out_of_its_range_is_refused_by_its_name(option, value, tmp_path, monkeypatch, capsys):
    code, out, err = main(monkeypatch, capsys, "measure", "--out", tmp_path / "t.jsonl", option, value, "--dry-run")
    assert code == 2 and out == "" and option.removeprefix("--") in err and "must be" in err and err.count("error:") == 1
    assert len(err) < 300


@pytest.mark.parametrize(
    "words, written",
    [
        (["--out", "/home/anna/secret/b.jsonl"], "--out b.jsonl"),
        (["--out=/home/anna/my secret/b.jsonl"], "--out=b.jsonl"),
        (["--out=~/secret/b.jsonl", "--worklist", "../../home/anna/w.json"], "--out=b.jsonl --worklist w.json"),
        (["--worklist=secret/w.json", "--python", "/home/anna/bin/python3"], "--worklist=w.json --python python3"),
        (["--out", "C:\\secret\\b.jsonl"], "--out b.jsonl"),
        (["--ssh-option=-i/home/anna/key", "--ssh-option", "-oUser=anna", "--json"], "--json"),
        (["--description", "a board of 3/4 cores", "--op", "conv-8"], "--description 'a board of 3/4 cores' --op conv-8"),
        (["--host", "me@board", "--nchw"], "--host me@board --nchw"),
    ],
)
def test_the_command_in_a_header_holds_no_folder_and_no_key_of_this_machine(words, written, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/anna/latency_tables", "measure", *words])
    assert command_line() == f"python -m latency_tables measure {written}"
