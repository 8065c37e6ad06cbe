"""The command line: outputs that scripts rely on, exit codes, and the commands of the documents."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

from accel_models import load_design
from accel_models.cli import main

ROOT = Path(__file__).resolve().parents[2]
GUIDE, EVIDENCE = (ROOT / "docs" / part / "accelerators.md" for part in ("guide", "evidence"))
DOCUMENTS = "\n".join(path.read_text(encoding="utf-8") for path in (GUIDE, EVIDENCE))


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        main(list(arguments))
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def test_check_json_has_the_agreed_keys(capsys, tmp_path):
    file = str(ROOT / "accel_models" / "data" / "oracle_zigzag.csv")
    code, out, _ = run(capsys, "check", "--reference", "zigzag", file, "--json", "--out", str(tmp_path / "rows.csv"))
    got = json.loads(out)
    for key in ("exact_share", "cycles_mape", "energy_mape", "latency_spearman", "latency_median_error", "worst_row"):
        assert 0 <= got[key] <= 1
    assert code == 0 and got["rows"] == 324
    written = list(csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()))
    errors = [abs(float(row["cycles"]) / float(row["reference_cycles"]) - 1) for row in written]
    assert len(written) == 324 and [float(row["cycles_error"]) for row in written] == pytest.approx(errors, abs=1e-12)
    assert got["cycles_mape"] == pytest.approx(sum(errors) / 324) and got["cycles_mape"] > 0
    code, out, _ = run(capsys, "check", "--reference", "scalesim", file.replace("zigzag", "scalesim"), "--json")
    assert json.loads(out)["energy_mape"] is None


def test_check_for_people_says_what_the_reference_lacks(capsys):
    code, out, _ = run(capsys, "check", "--reference", "scalesim", str(ROOT / "accel_models" / "data" / "oracle_scalesim.csv"))
    assert code == 0 and "not in this reference" in out and "162 rows" in out


def test_evaluate_json(capsys):
    code, out, _ = run(capsys, "evaluate", "edge-npu", "nature", "--json")
    got = json.loads(out)
    assert code == 0 and got["latency_s"] == pytest.approx(sum(layer["latency_s"] for layer in got["layers"]))
    assert got["provenance"] == "modelled" and got["energy_j"] > 0 and got["over_limits"] == []
    assert json.loads(run(capsys, "evaluate", "zc706", "nature", "--json")[1])["energy_j"] is None


def test_evaluate_for_people_says_what_is_not_validated(capsys):
    out = run(capsys, "evaluate", "zc706", "nature")[1]
    assert "timing closure" in out and "energy unknown" in out and "one frame in flight" in out


def test_search_writes_a_design_that_reads_back(capsys, tmp_path):
    file = tmp_path / "found.json"
    code, out, _ = run(capsys, "search", "nature", "--platform", "zc706", "--evaluations", "700", "--out", str(file), "--json")
    got = json.loads(out)
    assert code == 0 and load_design(file).to_dict() == load_design(file).from_dict(got["design"]).to_dict()
    assert {row["method"] for row in got["methods"]} >= {"gradient+polish", "random", "evolution", "gumbel", "das"}
    assert got["resources"]["dsp"] <= 900 and got["evaluations"] <= 700
    alone = json.loads(run(capsys, "search", "nature", "--evaluations", "700", "--no-compare", "--json")[1])
    assert alone["methods"] == []


def test_dry_run_plans_without_searching(capsys):
    got = json.loads(run(capsys, "search", "nature", "--dry-run", "--json")[1])
    assert got["evaluations"] == 20_000 and got["expected_s"] > 0
    assert "4 problems" in run(capsys, "search", "--benchmark", "--dry-run")[1]
    got = json.loads(run(capsys, "search", "--benchmark", "--seeds", "2", "--methods", "random,das", "--dry-run", "--json")[1])
    assert got == {"problems": 4, "seeds": 2, "evaluations": 20_000, "methods": ["random", "das"], "expected_s": 320}


@pytest.mark.parametrize("seed", ["-1", "9" * 23])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_seed_out_of_range_exits_2(capsys, seed, more):
    code, out, err = run(capsys, "search", "nature", "--evaluations", "560", "--seed", seed, *more)
    assert code == 2 and out == "" and "--seed" in err and "Traceback" not in err


def test_a_check_does_not_write_over_what_it_reads(capsys, tmp_path):
    for name in ("oracle_zigzag.csv", "layers.csv"):
        (tmp_path / name).write_bytes((ROOT / "accel_models" / "data" / name).read_bytes())
    rows, layers, mine = (tmp_path / name for name in ("oracle_zigzag.csv", "layers.csv", "mine.csv"))
    mine.write_bytes(layers.read_bytes())
    for out, more in ((rows, []), (layers, []), (mine, ["--layers", str(mine)])):
        before = out.read_bytes()
        code, _, err = run(capsys, "check", "--reference", "zigzag", str(rows), "--out", str(out), *more)
        assert code == 2 and "made from" in err and out.read_bytes() == before


@pytest.mark.parametrize("kind", ["designs", "networks", "methods"])
def test_lists_have_names_and_descriptions(capsys, kind):
    rows = json.loads(run(capsys, "list", kind, "--json")[1])
    assert len(rows) >= 3 and all(row["name"] and row["description"] for row in rows)


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["evaluate", "zc707", "impala"], "zc706"),
        (["evaluate", "zc706", "resnet"], "impala"),
        (["check", "--reference", "maestro", "x.csv"], "scalesim"),
        (["check", "--reference", "zigzag", "x.csv"], "x.csv"),
        (["search", "nature", "--evaluations", "0"], "at least 1"),
        (["search", "nature", "--evaluations", "10"], "budget"),
        (["search", "nature", "--chunks", "50"], "chunks"),
        (["search", "nature", "--objective", "energy"], "energy"),
        (["search", "--benchmark", "--methods", "annealing"], "annealing"),
        (["search", "--benchmark", "--methods", "annealing", "--dry-run"], "annealing"),
        (["search", "--benchmark", "--evaluations", "10", "--dry-run"], "budget"),
        (["search", "--benchmark", "--evaluations", "10", "--methods", "random,gradient"], "budget"),
        (["search", "nature", "--evaluations", "10", "--dry-run"], "budget"),
        (["search", "nature", "--no-compare", "--seeds", "3"], "--seeds"),
        (["search", "nature", "--methods", "random"], "--methods"),
        (["search", "nature", "--benchmark", "--dry-run"], "network"),
        *(
            (["search", "--benchmark", "--dry-run", *option.split()], option.split()[0])
            for option in ("--chunks 2", "--objective energy", "--platform zcu102", "--out x.json", "--seed 1", "--no-compare")
        ),
        (["check", "--reference", "timeloop", "x.csv", "--layers", "y.csv"], "layers"),
        (["evaluate", "zc706", "nature", "--objective", "energy"], "energy"),
        (["evaluate", "zc706", "big.json"], "does not fit"),
        (["evaluate", "zc706", "relu.json"], "relu"),
        (["search", "relu.json", "--dry-run"], "relu"),
    ],
)
def test_wrong_requests_exit_2_with_one_message(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    sizes = {"name": "a", "C": 4, "K": 4, "P": 4, "Q": 4, "R": 1, "S": 1, "stride": 1}
    for name, layer in (("relu", {**sizes, "kind": "relu"}), ("big", {**sizes, "kind": "conv", "R": 2000, "S": 2000})):
        Path(f"{name}.json").write_text(json.dumps([layer]), encoding="utf-8")
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and words in err and "Traceback" not in err and err.startswith("error:")


def test_unknown_options_exit_2(capsys):
    assert run(capsys, "search", "--speed", "9")[0] == 2
    assert run(capsys, "evaluate", "zc706", "nature", "--objective", "fps")[0] == 2


def test_nothing_within_the_limits_exits_1(capsys, tmp_path):
    record = load_design("zc706").to_dict()
    record["platform"]["bram18_limit"] = 1
    (tmp_path / "tiny.json").write_text(json.dumps(record), encoding="utf-8")
    code, _, err = run(capsys, "search", "nature", "--platform", str(tmp_path / "tiny.json"), "--evaluations", "600")
    assert code == 1 and "within the limits" in err


COMMANDS = [line.strip() for line in DOCUMENTS.splitlines() if line.startswith("    python -m accel_models")]


def test_documented_commands_run(capsys, tmp_path, monkeypatch):
    (tmp_path / "accel_models").symlink_to(ROOT / "accel_models")
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        if "timeloop" in command:
            continue  # rows of a third party, not in the repository
        code, _, err = run(capsys, *shlex.split(command)[3:])
        assert code == 0, (command, err)


def test_documented_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENTS, re.DOTALL)
    assert blocks and DOCUMENTS.count("```py") == len(blocks)
    for block in blocks:
        exec(block, {})


def test_help_examples_are_real_verbs(capsys):
    for verb in ("evaluate", "search", "list", "check"):
        assert f"python -m accel_models {verb}" in run(capsys, verb, "--help")[1]
