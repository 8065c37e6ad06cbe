"""Runs with an accelerator as the device: searched with the agent or fixed, exactly resumable, reported, and clear refusals."""

import json
from dataclasses import replace

import pytest
from pipeline_runs import TINY, TINY_PROPOSALS, Moment, assert_equal, command, results

from accel_models import evaluate, load_design, save_design
from accel_models.resources import resources
from cosearch.cli.app import main
from cosearch.cost.accel_table import layers_of
from cosearch.planning.builtins import load_builtins
from cosearch.record.rundir import RunDir
from cosearch.report.accelerator import NO_ENERGY, NOT_VALIDATED, accelerator_section
from cosearch.report.data import read_run
from cosearch.report.page import render_page
from cosearch.space.files import load_architecture
from cosearch.space.network import impala_cnn

TARGET = ("objective.latency_target_s=null", "objective.latency_ratio=0.5")
SEARCHED = ("accel.evaluations=560", "accel.final_evaluations=600")
FIXED = (*TINY, *TARGET)
SMALL, SMALL_PROPOSALS = (*FIXED, *SEARCHED, "accel.every_steps=64"), (*TINY_PROPOSALS, *TARGET, *SEARCHED)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs by name: co-searched, random agents, and on a fixed design with known energies."""
    load_builtins()
    folder = tmp_path_factory.mktemp("accel")
    words = {
        "searched": ("--device", "zc706"),
        "random": ("--device", "zc706", "--strategy", "random", "strategy.candidates=2"),
        "npu": ("--device", "edge-npu", "--fixed-accelerator"),
    }
    for name, more in words.items():
        done = command(
            "search", "--run", name, *more, *{"random": SMALL_PROPOSALS, "searched": SMALL}.get(name, FIXED), folder=folder
        )
        assert done.code == 0, done.err
        assert "modelled on" in done.err
    return folder / "runs"


@pytest.mark.parametrize("name", ["searched", "random", "npu"])
def test_the_written_design_gives_the_written_figures_within_its_limits(runs, name):
    run = RunDir.open(runs / name)
    design = load_design(runs / name / "accelerator.json")
    architecture = load_architecture(runs / name / "architecture.json")
    result = evaluate(layers_of(architecture.ops()), design)
    summary, predicted = run.read_json("summary.json"), run.read_json("architecture.json")["predicted"]
    assert predicted["provenance"] == summary["table_provenance"] == run.record["table"]["provenance"] == "modelled"
    assert summary["latency_predicted_s"] == pytest.approx(result.latency_s) == pytest.approx(predicted["latency_s"])
    assert predicted["energy_j"] == (None if name != "npu" else pytest.approx(result.energy_j))
    assert summary["accelerator"]["frames_per_s"] == pytest.approx(result.frames_per_s)
    assert resources(design).over(design.platform) == [] and summary["target_met"]
    assert run.read_json("agent.json")["latency"]["predicted_provenance"] == "modelled"


def test_the_accelerator_is_searched_when_it_is_due_and_not_where_it_is_fixed(runs):
    counts = {
        name: [line.get("accel_searches") for line in RunDir.open(runs / name).read_metrics() if line["stage"] == "search"]
        for name in ("searched", "random", "npu")
    }
    assert counts["searched"] == [2, 2, 3, 3] and counts["npu"] == [0, 0, 0, 0]  # two of them before the first step
    assert counts["random"] == [3, 3, 4, 4]  # one for each candidate
    assert RunDir.open(runs / "searched").read_json("summary.json")["accelerator"]["searches"] == 4
    assert load_design(runs / "npu" / "accelerator.json") == load_design("edge-npu")
    assert load_design(runs / "searched" / "accelerator.json") != load_design("zc706")


def test_the_target_is_a_share_of_the_reference_on_an_accelerator_of_its_own(runs):
    records = {name: RunDir.open(runs / name).record for name in ("searched", "npu")}
    for record in records.values():
        impala = record["references"]["impala-cnn"]["latency_predicted_s"]
        assert record["targets"][0]["value"] == pytest.approx(0.5 * impala)
    as_it_is = evaluate(layers_of(impala_cnn((64, 64, 3), 15)), load_design("zc706")).latency_s
    assert 0 < records["searched"]["references"]["impala-cnn"]["latency_predicted_s"] <= as_it_is


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_agent_and_accelerator(runs, tmp_path):
    done = command("search", "--run", "searched", *SMALL, "--device", "zc706", folder=tmp_path, moment=Moment("search", 45))
    assert done.code < 0
    again = command("resume", "runs/searched", folder=tmp_path)
    assert again.code == 0, again.err
    assert_equal(results(tmp_path / "runs" / "searched"), results(runs / "searched"))
    files = [folder / "searched" / "accelerator.json" for folder in (tmp_path / "runs", runs)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", ["searched", "npu"])
def test_the_report_shows_the_accelerator(runs, name):
    run = read_run(runs / name)
    section, page = accelerator_section(run), render_page(run)
    network = run.architecture.predicted.accelerator.network
    assert NOT_VALIDATED in page and "Roofline" in page and "by an accelerator model" in page and "modelled" in page
    assert len(section.layers) == sum(layer.latency_s > 0 for layer in network.layers)
    assert sum(layer.latency_s for layer in section.layers) == pytest.approx(network.latency_s)
    assert all(layer.utilisation is None or 0 < layer.utilisation <= 1 for layer in section.layers)
    assert section.speed[0][2] == pytest.approx(1 / network.latency_s)
    if name == "npu":
        assert sum(energy for _, energy in section.energy) == pytest.approx(network.energy_j) and NO_ENERGY not in page
    else:
        assert NO_ENERGY in page and not section.energy


def test_no_section_for_a_device_with_a_table(runs, tmp_path):
    run = read_run(runs / "searched")
    plain = replace(run.architecture, predicted=replace(run.architecture.predicted, accelerator=None))
    other = replace(run, architecture=plain)
    assert accelerator_section(other) is None and NOT_VALIDATED not in render_page(other)


def test_predict_uses_the_design_as_it_is(runs, capsys, tmp_path):
    file = runs / "npu" / "architecture.json"
    assert main(["predict", "--device", "edge-npu", str(file), "--json"]) == 0
    found, predicted = json.loads(capsys.readouterr().out), json.loads(file.read_text())["predicted"]
    assert found["provenance"] == "modelled" and found["runtime"] == "accel_models"
    assert (found["latency_s"], found["energy_j"]) == pytest.approx((predicted["latency_s"], predicted["energy_j"]))
    assert main(["predict", "--table", str(runs / "searched" / "accelerator.json"), str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["latency_s"] != found["latency_s"]


def test_accelerators_are_listed_as_modelled(capsys):
    assert main(["list", "devices", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out) if row["runtime"] == "accel_models"}
    assert set(rows) == {"zc706", "zcu102", "edge-npu", "eyeriss-like", "gemmini-like"}
    assert {row["provenance"] for row in rows.values()} == {"modelled"} and "900 DSP" in rows["zc706"]["description"]


def test_wrong_requests_are_refused_with_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    design = load_design("zc706").to_dict()
    big = {**design, "chunks": [{**design["chunks"][0], "rows": 64, "cols": 64}]}
    (tmp_path / "big.json").write_text(json.dumps(big))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "typo.json").write_text(json.dumps({**design, "weight_bit": 8}))
    cases = {
        ("--device", "zc70"): ("Did you mean the accelerator zc706?", "Accelerators: edge-npu"),
        ("--table", "none.json"): ("no design", "none.json"),
        ("--table", "broken.json"): ("not JSON",),
        ("--table", "typo.json"): ("unknown field 'weight_bit' (did you mean 'weight_bits'?)",),
        ("--table", "big.json", "--fixed-accelerator"): ("4096 DSP, the limit is 900",),
        ("--device", "zc706", "--fixed-accelerator", "objective.latency_ratio=1e-6"): ("no architecture", "the cheapest, "),
        ("--device", "zc706", "--fixed-accelerator", "objective.energy_target_j=1"): ("no constants with a source",),
        ("--device", "zc706", "accel.evaluations=10"): ("accel.evaluations", "560"),
    }
    for words, parts in cases.items():
        assert main(["search", *(FIXED if "--fixed-accelerator" in words else SMALL), *words]) == 2, words
        message = capsys.readouterr().err
        assert all(part in message for part in parts) and "Traceback" not in message, (words, message)
    assert not (tmp_path / "runs").exists()


def test_a_design_file_is_a_platform_of_its_own(tmp_path):
    base = load_design("zcu102")
    save_design(base, tmp_path / "mine.json")
    done = command("search", "--dry-run", "--json", *FIXED, "--table", "mine.json", "--fixed-accelerator", folder=tmp_path)
    assert done.code == 0, done.err
    assert done.json["table"] == {"device": "zcu102", "provenance": "modelled"}
