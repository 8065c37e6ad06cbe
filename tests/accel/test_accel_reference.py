"""The equations against SCALE-Sim, ZigZag and Timeloop rows, and the report of that comparison."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from accel_models import evaluate, load_design, load_layers
from accel_models.check import DATA, compare
from accel_models.design import Chunk
from accel_models.energy import ENERGY_TABLES, EnergyTable
from accel_models.engines.loopnest import factors, fills
from accel_models.references.rows import statistics
from accel_models.references.timeloop import parse_mapping
from latency_tables.errors import DesignError, UnknownNameError

TIMELOOP = Path(__file__).resolve().parents[3] / "shared" / "data" / "oracle_timeloop_sample.csv"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "evidence"
needs_timeloop = pytest.mark.skipif(not TIMELOOP.is_file(), reason="third-party Timeloop rows are not beside the repository")


def edited(tmp_path, source, column, change):
    """A copy of a reference file with one value of its first row changed."""
    rows = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
    rows[0][column] = change(rows[0][column])
    target = tmp_path / source.name
    with target.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return target


def test_every_scalesim_count_is_equal():
    got = statistics(compare("scalesim", DATA / "oracle_scalesim.csv"))
    assert (got.rows, got.exact_share, got.cycles_mape, got.worst_row) == (162, 1.0, 0.0, 0.0)
    assert got.energy_mape is None, "SCALE-Sim rows have no energy: None, not 0"


def test_the_whole_model_on_zigzags_machine_as_the_documents_say(monkeypatch):
    """``evaluate`` with its own tile and loop order over ZigZag's figure for its mapping; no depthwise layers."""
    monkeypatch.setitem(ENERGY_TABLES, "zigzag", EnergyTable("", "", {8: 1.0}, 1.0, 200.0, buffer_j_per_byte=6.0))
    base, clock = load_design("gemmini-like"), 5e8
    limits = {"clock_hz": clock, "dram_bytes_per_s": 8 * clock, "pe_limit": 256, "sram_limit_bytes": 10**9}
    base = replace(base, platform=replace(base.platform, energy="zigzag", **limits), partial_bits=24, overlap_fill=True)
    shapes = {layer.name: layer for layer in load_layers(DATA / "layers.csv")}
    energies, cycles = [], []
    for row in csv.DictReader((DATA / "oracle_zigzag.csv").read_text(encoding="utf-8").splitlines()):
        layer, side = shapes[row["layer"]], int(row["array"])
        if layer.kind == "dw":
            continue
        result = evaluate([layer], replace(base, chunks=(Chunk(side, side, row["dataflow"], *[65536] * 3),)))
        energies.append(result.energy_j / float(row["energy"]))
        cycles.append(result.latency_s * clock / float(row["latency"]))
    assert len(energies) == 276
    text = " ".join((DOCS / "accelerators.md").read_text(encoding="utf-8").split())
    for name, ratios in (("energy", energies), ("cycles", cycles)):
        low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
        assert f"{name}: median {middle:.2f}, 5 % {low:.2f}, 95 % {high:.2f}" in text


@pytest.mark.parametrize("column", ["cycles", "sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes"])
def test_one_wrong_scalesim_count_is_seen(tmp_path, column):
    file = edited(tmp_path, DATA / "oracle_scalesim.csv", column, lambda v: str(int(v) + 1))
    rows = compare("scalesim", file)
    assert [row.exact for row in rows].count(False) == 1 and not rows[0].exact


def test_scalesim_product_must_be_that_of_its_layer(tmp_path):
    with pytest.raises(DesignError, match="Sr, Sc, T"):
        compare("scalesim", edited(tmp_path, DATA / "oracle_scalesim.csv", "Sr", lambda v: str(int(v) + 1)))


def test_unknown_scalesim_layer_is_taken_as_its_product(tmp_path):
    assert compare("scalesim", edited(tmp_path, DATA / "oracle_scalesim.csv", "layer", lambda v: "other"))[0].exact


def test_zigzag_bytes_latency_and_energy():
    got = statistics(compare("zigzag", DATA / "oracle_zigzag.csv"))
    assert got.rows == 324 and got.exact_share == 1.0
    assert got.latency_median_error <= 0.03 and got.latency_spearman >= 0.99
    assert got.energy_mape <= 0.015 and got.cycles_p95 <= 0.25


@pytest.mark.parametrize("array,dataflow", [(a, d) for a in ("8x8", "16x16") for d in ("ws", "os", "is")])
def test_zigzag_rank_holds_within_each_array_and_dataflow(array, dataflow):
    rows = [r for r in compare("zigzag", DATA / "oracle_zigzag.csv") if f" {array} {dataflow} " in r.name]
    assert len(rows) == 54 and statistics(rows).latency_spearman >= 0.99


def test_one_wrong_zigzag_byte_count_is_seen(tmp_path):
    file = edited(tmp_path, DATA / "oracle_zigzag.csv", "I_dram_rd_out_to_low_B", lambda v: str(float(v) + 24))
    assert [row.exact for row in compare("zigzag", file)].count(False) == 1


def test_zigzag_layer_without_shapes_is_refused(tmp_path):
    with pytest.raises(DesignError, match="--layers"):
        compare("zigzag", edited(tmp_path, DATA / "oracle_zigzag.csv", "layer", lambda v: "other"))


@needs_timeloop
def test_timeloop_cycles_and_energy():
    got = statistics(compare("timeloop", TIMELOOP))
    assert got.rows == 1000 and got.cycles_mape <= 0.0002 and got.energy_mape <= 0.003


@needs_timeloop
def test_timeloop_needs_the_sliding_window(monkeypatch):
    from accel_models.references import timeloop

    monkeypatch.setattr(timeloop, "fills", lambda *a: fills(*a, sliding_window=False))
    assert statistics(compare("timeloop", TIMELOOP)).energy_mape > 0.03, "the halo rule must matter on these rows"


def test_timeloop_row_made_by_hand(tmp_path):
    """1x1 convolution, C = K = P = 2, everything in DRAM loops: counted on paper."""
    header = [
        "target.cycle",
        "target.energy",
        "mapping.mapping",
        "arch.meshX",
        "arch.mem1_entries",
        "arch.mem2_entries",
        "prob.Wstride",
        "prob.Hstride",
        *(f"prob.{d}" for d in "CKPQRSN"),
    ]
    row = [
        "3",
        "1",
        "L3[WIO] P2 K2 C2 - L2[WI] N1 - L1[O] N1 - L0[W] N1",
        "2",
        "16",
        "16",
        "1",
        "1",
        "2",
        "2",
        "2",
        "1",
        "1",
        "1",
        "1",
    ]
    file = tmp_path / "rows.csv"
    file.write_text(",".join(header) + "\n" + ",".join(row) + "\n", encoding="utf-8")
    got = compare("timeloop", file)[0]
    # 8 products; C innermost: weights 8, inputs 8, outputs once each (4 written, none read back): 20 words of DRAM, 8 a cycle;
    # scratchpad 8 + 8 + 8 + 8 = 32 words, 4 a cycle; accumulators 4 + 8 + 4 = 16, 2 a cycle; 8 cycles of computing
    assert got.cycles == 8.0
    pj = 0.5608 * 8 + 0.48746 * 16 + (1.94 + 0.1005 * (16 * 4 / 1024)) * 16 + (0.49 + 0.02513 * 16 / 1024) * 32 + 100 * 20
    assert got.energy == pytest.approx(pj * 1e-6, rel=1e-12)


def test_mapping_text_is_checked():
    assert parse_mapping("L3[WIO] C2 K4X - L2[WI] N1 - L1[O] Q7 P3 - L0[W] N1").temporal[1] == [("P", 3), ("Q", 7)]
    with pytest.raises(DesignError, match="four levels"):
        parse_mapping("L3[WIO] C2 - L1[O] N1 - L0[W] N1")


def test_factors_multiply():
    assert factors([("K", 2), ("P", 3), ("K", 5)])["K"] == 10


def test_wrong_requests():
    with pytest.raises(UnknownNameError, match="scalesim"):
        compare("maestro", DATA / "oracle_zigzag.csv")
    with pytest.raises(DesignError, match="columns"):
        compare("zigzag", DATA / "oracle_scalesim.csv")
    with pytest.raises(DesignError, match="no reference file"):
        compare("zigzag", "missing.csv")


def test_statistics_are_json_and_ranks_need_two_values():
    rows = compare("scalesim", DATA / "oracle_scalesim.csv")
    assert statistics(rows[:1]).latency_spearman is None
    found = asdict(statistics(rows))
    assert json.loads(json.dumps(found)) == found
