"""Errors on published latencies: exact on data that a roofline made, by hand on small ones, and on the published files."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from latency_tables import commands
from latency_tables.errors import TableError
from latency_tables.estimating.evidence import OPERATIONS, START, PublishedSet, layer_shapes, left_out, load_sets, markdown
from latency_tables.estimating.published import block_row, predict_row, predict_rows

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
TRUE = replace(START, launch_s=1e-5, utilisation_conv=0.004, utilisation_dw=0.001, utilisation_bandwidth=0.02)
PLACES = list(dict.fromkeys(layer_shapes()))
NAMES = [name for name in OPERATIONS if name != "skip" and not name.endswith("_g2")]


def made_rows(machine, batch=1):
    rows = [block_row(name, place, 1.0) for place in PLACES for name in NAMES]
    return tuple(replace(row, latency_s=float(t)) for row, t in zip(rows, predict_rows(machine, rows, batch=batch), strict=True))


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_one_pass_over_all_kernels_equals_row_by_row(combine):
    machine = replace(TRUE, combine=combine)
    rows = made_rows(machine)
    assert [row.latency_s for row in rows] == pytest.approx([predict_row(machine, row) for row in rows], rel=1e-12)
    doubled = made_rows(machine, batch=2)
    parts = [sum(machine.kernel_s(layer, batch=2) for layer in layers) for layers in (rows[7].layers, rows[7].minus)]
    by_hand = parts[0] - parts[1]
    assert doubled[7].latency_s == pytest.approx(by_hand, rel=1e-12)


def test_the_space_has_22_layers_at_12_places():
    assert len(layer_shapes()) == 22 and len(PLACES) == 12
    assert PLACES[0] == (16, 16, 1, 32, 32) and PLACES[-1] == (184, 352, 1, 4, 4)


@pytest.mark.parametrize("combine", ["sum", "max"])
def test_a_machine_that_is_a_roofline_is_predicted_exactly_and_macs_are_not_enough(combine):
    errors = left_out(PublishedSet("made", "machine", "synthetic", 1, made_rows(replace(TRUE, combine=combine))))
    assert errors.rows == 72 and errors.mape < 0.02 and errors.macs_mape > 0.05


def test_the_place_that_is_tested_is_not_fitted():
    """A place and its twin with the same blocks at three times the latency: each is predicted from the other alone."""
    rows = [row for row in made_rows(TRUE) if row.place == "64-64-s1-8x8"]
    twins = [replace(row, place="twin", latency_s=3 * row.latency_s) for row in rows]
    errors = left_out(PublishedSet("made", "machine", "synthetic", 1, (*rows, *twins)))
    assert errors.mape == pytest.approx((2 + 2 / 3) / 2, rel=0.01) and errors.bias == pytest.approx((2 - 2 / 3) / 2, rel=0.01)
    assert errors.within_10 == 0


def write_published(folder, machine):
    """The three files, made from one machine: blocks, whole networks (sums), eager blocks."""
    rows = dict(zip([(place, name) for place in PLACES for name in NAMES], made_rows(machine), strict=True))
    fields = ["device", "metric", "op", "in_ch", "out_ch", "stride", "input_h", "input_w", "value", "value_kind"]
    boards = ("raspi4", "pixel3", "eyeriss", "fpga")
    for name, devices in (("hwnasbench_fbnet_ops.csv", boards), ("jh88_rpi4_fbnet_tf2.csv", ("x",))):
        with (folder / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(fields)
            for device in devices:
                for (place, op), row in rows.items():
                    scale = 1e6 if device == "x" else 1e3
                    writer.writerow([device, "latency", op, *place, row.latency_s * scale, "delta_vs_skip"])
    rng = np.random.default_rng(0)
    with gzip.open(folder / "help_fbnet_latency.csv.gz", "wt", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["arch_id", "op_idx", "2080ti_1", "raspi4"])
        for i in range(300):
            digits = rng.integers(0, 9, 22)
            shapes = zip(layer_shapes(), digits, strict=True)
            total = sum(rows[place, OPERATIONS[d]].latency_s for place, d in shapes if OPERATIONS[d] in NAMES)
            writer.writerow([i, "".join(map(str, digits)), 1e3 * (5e-3 + total), 1.0])


def test_blocks_are_recovered_from_sums_of_whole_networks(tmp_path):
    write_published(tmp_path, TRUE)
    sets = load_sets(tmp_path)
    assert [(s.source.split(",")[0], s.device) for s in sets] == [
        *(("HW-NAS-Bench", d) for d in ("raspi4", "pixel3", "eyeriss", "fpga")),
        ("HELP", "2080ti_1"),
        ("jh88/fbnet", "raspberry pi 4"),
    ]
    recovered = sets[4]
    assert recovered.kind == "recovered" and sets[2].kind == "estimated" and recovered.dropped == 0
    assert [row.latency_s for row in recovered.rows] == pytest.approx([row.latency_s for row in made_rows(TRUE)], rel=1e-6)
    assert len(markdown([(s, left_out(s)) for s in sets[:2]]).splitlines()) == 4


def test_wrong_folders_are_one_clear_error(tmp_path):
    with pytest.raises(TableError, match="lacks"):
        load_sets(tmp_path)
    write_published(tmp_path, TRUE)
    (tmp_path / "help_fbnet_latency.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(TableError, match="cannot be read"):
        load_sets(tmp_path)


@pytest.mark.slow
def test_every_published_set_has_its_figures():
    if not FOLDER.is_dir():
        pytest.skip("the published latencies are not here")
    rows = json.loads(CliRunner().invoke(commands.app, ["evidence", str(FOLDER), "--json"]).stdout)
    assert len(rows) == 28 and all(row["rows"] + row["dropped"] in (72, 132) for row in rows)
    figures = {(row["source"], row["device"]): row for row in rows}
    assert figures["HW-NAS-Bench", "pixel3"]["mape"] < 0.1 and figures["HELP", "1080ti_1"]["mape"] < 0.07
    assert sum(row["mape"] < row["macs_mape"] for row in rows) == 28
