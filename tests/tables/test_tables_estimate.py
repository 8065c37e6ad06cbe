"""Estimates: the roofline in closed form, the published figures they come from, and the error they admit."""

import dataclasses
import json
from pathlib import Path

import pytest

from latency_tables.devices import find_table
from latency_tables.errors import TableError, UnknownNameError
from latency_tables.estimating.estimate import build_estimate
from latency_tables.estimating.published import load_published, refit_spec
from latency_tables.estimating.roofline import CONSTANTS, Roofline
from latency_tables.estimating.specification import list_specs, load_spec
from latency_tables.opspec import Layer, OpSpec
from latency_tables.schema import write_table
from latency_tables.table import load_table

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "data" / "hwnasbench_fbnet_ops.csv"
MACHINE = Roofline("max", 1e-5, 1e9, 0.5, 0.1, 0.25, 1e8, 0.5, 2.0)
CONV = OpSpec("conv", 4, 8, 8, 8, 3, 1, 1)


def needs_published():
    if not PUBLISHED.exists():
        pytest.skip("the published block latencies are not here")


def test_kernel_time_by_hand():
    layer = CONV.layers()[0]
    compute = 2 * (8 * 4 * 9 * 64) / (1e9 * 0.5)
    memory = 4 * (4 * 64 + 8 * 64 + 8 * 4 * 9 + 8) / (1e8 * 0.5)
    assert MACHINE.kernel_s(layer) == pytest.approx(max(1e-5, compute, memory))
    assert dataclasses.replace(MACHINE, combine="sum").kernel_s(layer) == pytest.approx(1e-5 + max(compute, memory))
    assert MACHINE.kernel_s(layer, batch=4) == pytest.approx(max(4 * compute, 4 * (4 * 64 + 8 * 64) * 4 / 5e7 + 4 * 296 / 5e7))


def test_kinds_use_their_own_utilisation_and_small_kernels_cost_a_launch():
    fast_memory = dataclasses.replace(MACHINE, bandwidth_bytes_per_s=1e15)
    dw = Layer("x", "dw", 64, 64, 32, 32, 3, 3, 1, 1, 32, 32)
    fc = Layer("x", "fc", 1000, 500, 1, 1, 1, 1, 1, 0, 1, 1)
    assert fast_memory.kernel_s(dw) == pytest.approx(2 * 64 * 9 * 1024 / 1e8)
    assert fast_memory.kernel_s(fc) == pytest.approx(2 * 500_000 / 2.5e8)
    assert fast_memory.kernel_s(Layer("x", "relu", 4, 4, 2, 2, 1, 1, 1, 0, 2, 2)) == 1e-5


def test_block_is_the_sum_of_its_kernels():
    op = OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3)
    assert MACHINE.latency_s(op) == pytest.approx(sum(MACHINE.kernel_s(layer) for layer in op.layers()))


@pytest.mark.parametrize("name", list_specs())
def test_every_specification_gives_sources_an_error_and_a_table(name, tmp_path):
    spec = load_spec(name)
    assert set(spec.constants) == set(CONSTANTS) and all(len(entry["source"]) > 5 for entry in spec.constants.values())
    assert spec.sources and spec.error["kind"] and spec.interval_factors[0] < 1 < spec.interval_factors[1]
    write_table(tmp_path / "t.jsonl", build_estimate(spec, [CONV]))
    table = load_table(tmp_path / "t.jsonl")
    prediction = table.predict([CONV, CONV])
    assert prediction.provenance == "estimated" and prediction.interval[0] < prediction.latency_s < prediction.interval[1]
    power = spec.constants["power_w"]["value"]
    assert (
        (prediction.energy_j is None)
        if power is None
        else prediction.energy_j == pytest.approx(power * prediction.latency_s, rel=1e-4)
    )
    assert find_table(name).header["sources"] == list(spec.sources), "the shipped table comes from this specification"


def test_wrong_specifications_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="jetson"):
        load_spec("jetsom")
    (tmp_path / "s.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(TableError, match="constants"):
        load_spec(tmp_path / "s.json")
    spec = load_spec("jetson")
    for change in ({"peak_flops": {"value": 0, "source": "nowhere"}}, {"launch_s": {"value": 1e-5}}, {"launch_s": 3}):
        with pytest.raises(TableError):
            build_estimate(dataclasses.replace(spec, constants={**spec.constants, **change}), [CONV])


def fbnet_layers(side, first_stride):
    """The FBNet network of k3_e1 blocks, counted once more by hand: 70 kernels in 26 parts."""
    size, channels = side // first_stride, 16
    layers = [Layer("stem", "conv", 3, 16, side, side, 3, 3, first_stride, 1, size, size)]
    stages = [(1, 16, 1), (4, 24, first_stride), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1)]
    for count, out, stride in stages:
        for number in range(count):
            after = size // (stride if number == 0 else 1)
            layers += [Layer("a", "conv", channels, channels, size, size, 1, 1, 1, 0, size, size),
                       Layer("b", "dw", channels, channels, size, size, 3, 3, size // after, 1, after, after),
                       Layer("c", "conv", channels, out, after, after, 1, 1, 1, 0, after, after)]  # fmt: skip
            size, channels = after, out
    layers += [Layer("h", "conv", 352, 1504, size, size, 1, 1, 1, 0, size, size),
               Layer("p", "pool", 1504, 1504, size, size, size, size, 1, 0, 1, 1),
               Layer("f", "fc", 1504, 100, 1, 1, 1, 1, 1, 0, 1, 1)]  # fmt: skip
    return layers


def test_tx2_constants_reproduce_the_published_networks():
    """Published: 15.80 ms at 32x32 and 16.43 ms at 224x224, each the sum of 26 separately timed parts."""
    spec = load_spec("jetson-tx2")
    machine, overhead = spec.roofline(), spec.overhead_s
    for side, stride, published_s in ((32, 1, 15.80e-3), (224, 2, 16.43e-3)):
        layers = fbnet_layers(side, stride)
        assert len(layers) == 70
        assert sum(map(machine.kernel_s, layers)) + 26 * overhead == pytest.approx(published_s, rel=0.02)
    assert 103 * machine.launch_s + overhead == pytest.approx(5.807e-3, rel=0.01)


def test_published_rows_are_read_with_their_shapes():
    needs_published()
    rows, constant = load_published(PUBLISHED, "raspi4")
    assert len(rows) == 72 and constant == pytest.approx(7.798e-3, rel=1e-3)
    same = next(row for row in rows if row.name == "k3_e3" and row.place == "16-16-s1-32x32")
    assert same.latency_s == pytest.approx(1.28987e-3, rel=1e-4) and same.minus == ()
    assert [layer.kind for layer in same.layers] == ["conv", "dw", "conv"] and same.layers[1].K == 48
    with pytest.raises(TableError, match="0 block rows"):
        load_published(PUBLISHED, "abacus")


@pytest.mark.parametrize("name, limit", [("raspberry-pi-4", 0.20), ("pixel-3", 0.10)])
def test_shipped_constants_come_from_the_published_rows(name, limit):
    needs_published()
    spec = load_spec(name)
    again = refit_spec(spec, PUBLISHED)
    for constant, entry in spec.constants.items():
        if entry["value"] is not None:
            assert again.constants[constant]["value"] == pytest.approx(entry["value"], rel=0.05), constant
    assert again.error["mape"] == pytest.approx(spec.error["mape"], rel=0.05) and again.error["mape"] < limit


def test_fit_beats_work_alone_on_places_it_has_not_seen():
    """Baseline: one constant time a MAC, fitted to all rows; the left-out roofline must be better."""
    needs_published()
    rows, _ = load_published(PUBLISHED, "pixel3")
    macs = [sum(la.macs for la in row.layers) - sum(la.macs for la in row.minus) for row in rows]
    ratios = sorted(row.latency_s / m for row, m in zip(rows, macs, strict=True))
    middle = ratios[len(ratios) // 2]
    naive = sum(abs(middle * m / row.latency_s - 1) for row, m in zip(rows, macs, strict=True)) / len(rows)
    assert load_spec("pixel-3").error["mape"] < 0.5 * naive
