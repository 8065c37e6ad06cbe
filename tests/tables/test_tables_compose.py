"""A table from a record written by hand: every figure of its rows and its header on paper, no machine and no file."""

import dataclasses
import itertools
import re
from importlib import metadata

import numpy as np
import pytest

from latency_tables.board.timing import Visit, VisitPlan
from latency_tables.checks import check_table
from latency_tables.errors import MeasurementError
from latency_tables.measuring.compose import BOUND_IO, PLAIN_IO, compose_table
from latency_tables.measuring.plan import EMPTY, MeasurePlan, RowPlan
from latency_tables.measuring.settings import Settings
from latency_tables.measuring.visits import Hello, MeasuredVisits
from latency_tables.opspec import Device, OpSpec
from latency_tables.schema import read_table, write_table
from latency_tables.table import Table

STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CONV, DEEP = OpSpec("conv", 8, 8, 8, 8, 3, 1, 1), OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3)
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
LATE, NOISE = OpSpec("conv", 8, 8, 8, 8, 5, 1, 2), OpSpec("conv", 8, 8, 8, 8, 1, 1, 0)
ROWS = (
    RowPlan(STEM, "stem", "stem1", EMPTY, 1),
    RowPlan(CONV, "chain", "conv5", "conv1", 4),
    RowPlan(DEEP, "chain", "deep5", "deep1", 4),
    RowPlan(HEAD, "head", "head1", "base", 1),
)
TIME_S = {
    EMPTY: 2e-6,
    "stem1": 32e-6,
    "conv1": 12e-6,
    "conv5": 52e-6,
    "deep1": 20e-6,
    "deep5": 100e-6,
    "base": 9e-6,
    "head1": 29e-6,
}
ROW_S = {STEM: 30e-6, CONV: 10e-6, DEEP: 20e-6, HEAD: 20e-6}
MIDDLES = [[CONV], [DEEP], [CONV, DEEP], [DEEP, DEEP, CONV]]
DEVICE = Device("toy", "a toy", "onnxruntime", "float32", 2)


def visit(time_s, spread_s=0.0, share=None, sentinel_s=None):
    low, high = time_s - spread_s, time_s + spread_s
    return Visit(time_s, low, high, low, low, high, high, 50, 1, share, sentinel_s)


def networks(middles, name):
    return tuple((f"net-{name}{i}", (STEM, *ops, HEAD)) for i, ops in enumerate(middles))


def record(plan, cost_s, **changed):
    """Three equal visits of each model; whole networks take ``cost_s``."""
    times = {**TIME_S, **{name: cost_s(ops) for name, ops in plan.networks}}
    visits = {name: [visit(time_s)] * 3 for name, time_s in times.items()}
    return MeasuredVisits(**{"visits": visits, **changed})


def additive(ops):
    return 2e-6 + 1.1 * sum(ROW_S[op] for op in ops)


def plan_of(calibration=MIDDLES, rows=ROWS):
    proof = networks([[CONV, CONV], [DEEP, DEEP]], "proof")
    return MeasurePlan({}, rows, networks(calibration, "fit"), proof, {})


def composed(plan, seen, settings=None, **options):
    return compose_table(plan, seen, settings or Settings(), DEVICE, **{"space": "toys", "command": "measure it", **options})


def test_header_by_hand():
    plan, visits = plan_of(), record(plan_of(), additive).visits
    sentinels = {"conv1": [visit(12e-6, sentinel_s=s) for s in (1e-6, 2e-6, 3e-6, 4e-6)]}
    hello = Hello({"machine": "m"}, "1.2", {"nice": -5}, None, "no sensor", {"load": 0.1})
    seen = record(
        plan, additive, visits={**visits, **sentinels}, hello=hello, end_state={"load": 0.7}, elapsed_s=12.5, resumed=True
    )
    settings = Settings(provider="P", nchw=True, visit=VisitPlan(seconds=0.5), tolerance=0.03, seed=7, network_factor=4)
    header = composed(plan, seen, settings).header
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", header.pop("created_utc"))
    try:
        version = metadata.version("cosearch")
    except metadata.PackageNotFoundError:
        version = "unknown"
    assert header.pop("tool") == {"name": "latency_tables", "version": version}
    errors = header["calibration"].pop("mape_by_estimator")
    assert max(errors["median"], errors["min"]) < 1e-12 and errors["paired"] > 5e-4
    calibration = {k: v for k, v in header.pop("calibration").items() if v is not None}
    assert calibration.pop("interval_factors") == pytest.approx((1.0, 1.0)) and calibration.pop("mape") == pytest.approx(
        0, abs=1e-12
    )
    assert calibration.pop("scale") == pytest.approx(1.1) and calibration.pop("estimator") in ("median", "min")
    assert calibration == {"overhead_s": 2e-6, "networks": 4, "method": "scale", "empty_s": 2e-6}
    protocol = header.pop("protocol")
    own = composed(plan, seen, dataclasses.replace(settings, provider="CPUExecutionProvider")).header["protocol"]
    assert own == {**protocol, "io": PLAIN_IO}
    assert protocol.pop("sentinel_s") == pytest.approx([1.15e-6, 2.5e-6, 3.85e-6])
    assert protocol.pop("estimator") in ("median over rounds of the clean median", "min over rounds of the clean median")
    assert protocol == {
        "clock": "perf_counter_ns and thread_time_ns",
        "io": BOUND_IO,
        "visit": VisitPlan(seconds=0.5).to_dict(),
        "rounds": [3, 4],
        "visits": 3 * (len(TIME_S) + 6) + 1,
        "tolerance": 0.03,
        "seed": 7,
        "elapsed_s": 12.5,
        "resumed": True,
        "fixed": {"nice": -5},
        "batch": 1,
        "network_factor": 4,
    }
    assert header == {
        "schema": 1,
        "device": {"name": "toy", "description": "a toy", "runtime": "onnxruntime", "dtype": "float32", "threads": 2},
        "provenance": "measured",
        "space": "toys",
        "command": "measure it",
        "host": {"machine": "m"},
        "software": {"runtime": "onnxruntime", "version": "1.2", "provider": "P", "nchw": True},
        "power_state": {"start": {"load": 0.1}, "end": {"load": 0.7}},
        "power_measurement": None,
        "power_reason": "no sensor",
    }
    assert composed(plan, seen, provenance="synthetic").header["provenance"] == "synthetic"
    assert composed(plan, record(plan, additive)).header["protocol"]["sentinel_s"] is None
    compiled = compose_table(plan, seen, settings, dataclasses.replace(DEVICE, runtime="tvm"), space="toys", command="measure it")
    assert compiled.header["software"] == {**header["software"], "runtime": "tvm", "tuned": False}


def test_a_row_of_smallest_samples_says_so():
    """Where most of every visit was preempted there is no clean median: the minimum is taken, and the row and the check tell."""
    plan = plan_of()
    visits = {**record(plan, additive).visits, "conv5": [visit(52e-6, share=0.2)] * 3}
    content = composed(plan, record(plan, additive, visits=visits), estimator="median")
    said = {key: row.details.get("fallback") for key, row in content.rows.items()}
    assert said.pop(CONV.key) == "no visit of conv5 was clean: its smallest sample stands for it" and set(said.values()) == {None}
    (finding,) = (finding for finding in check_table(Table(content)) if finding.rule == "preempted")
    assert finding.keys == (CONV.key,)


def test_rows_by_hand():
    rows = (RowPlan(LATE, "chain", "late5", "late1", 4), RowPlan(NOISE, "chain", "noise5", "noise1", 4), *ROWS)
    plan = plan_of(rows=rows)
    visits = dict(record(plan, additive).visits)
    visits["conv5"] = [visit(52e-6, share=0.75)] * 12 + [visit(52e-6, share=0.95), visit(52e-6)]
    visits["stem1"] = [visit(t) for t in (32e-6, 22e-6, 42e-6)]
    visits |= {"noise5": [visit(5e-6)], "noise1": [visit(7e-6)], "late5": [visit(5e-6)]}
    seen = record(plan, additive, visits=visits, failed={"late5": "no kernel"}, graphs={"conv5": {"Conv": 5}})
    found = composed(plan, seen).rows
    assert set(found) == {row.op.key for row in rows}
    conv = found[CONV.key]
    assert conv.latency_s == pytest.approx(10e-6) and (conv.status, conv.energy_j, conv.key) == ("ok", None, CONV.key)
    assert conv.details.pop("interval_s") == pytest.approx([10e-6, 10e-6])
    assert conv.details.pop("clean_share") == pytest.approx((12 * 0.75 + 0.95) / 13)
    assert conv.details == {
        "method": "chain",
        "macs": CONV.macs,
        "params": CONV.params,
        "bytes": CONV.bytes_moved,
        "sure": True,
        "rounds": 14,
        "round_medians_s": [52e-6] * 12,
        "graph": {"Conv": 5},
    }
    stem = found[STEM.key]
    assert stem.latency_s == pytest.approx(30e-6) and not stem.details["sure"] and stem.details["clean_share"] is None
    low, high = stem.details["interval_s"]
    assert 19e-6 < low < 28e-6 and 32e-6 < high < 41e-6 and stem.details["graph"] is None
    late, noise = found[LATE.key], found[NOISE.key]
    assert (late.key, late.latency_s, late.energy_j, late.status) == (LATE.key, None, None, "unsupported")
    assert late.details == {
        "method": "chain",
        "macs": LATE.macs,
        "params": LATE.params,
        "bytes": LATE.bytes_moved,
        "reason": "no kernel",
    }
    assert (noise.key, noise.latency_s, noise.energy_j, noise.status) == (NOISE.key, None, None, "failed")
    assert noise.details["reason"] == ("the difference of two contexts came out as -5e-07 s: too small to be told from noise")
    assert not noise.details["sure"] and noise.details["rounds"] == 1


def test_an_interval_as_wide_as_the_tolerance_is_sure():
    """Of samples that scatter by 0.5 us, two models: the half width of the difference is about 1.96 * 0.5 * sqrt(2) / 4."""
    plan, visits = plan_of(), dict(record(plan_of(), additive).visits)
    visits |= {"conv5": [visit(52e-6, spread_s=0.98e-6)], "conv1": [visit(12e-6, spread_s=0.98e-6)]}
    seen = record(plan, additive, visits=visits)
    low, high = composed(plan, seen).rows[CONV.key].details["interval_s"]
    half = (high - low) / 2
    assert half == pytest.approx(1.96 * 0.5e-6 * 2**0.5 / 4, rel=0.25)
    for tolerance, sure in ((0.99 * half / 10e-6, False), (1.01 * half / 10e-6, True)):
        assert composed(plan, seen, Settings(tolerance=tolerance)).rows[CONV.key].details["sure"] is sure


def test_energies_by_hand():
    plan = plan_of()
    energies = {EMPTY: 1e-6, "conv5": 9e-6, "conv1": 1e-6, "head1": 4e-6, "base": 4e-6, "stem1": 3e-6, "deep5": 1e-6}
    energies |= {name: 3.0 * additive(ops) for name, ops in plan.calibration}
    content = composed(plan, record(plan, additive, energies_j=energies, hello=Hello(power="ina", power_reason="none")))
    joules = {op: content.rows[op.key].energy_j for op in ROW_S}
    assert joules == {STEM: pytest.approx(2e-6), CONV: pytest.approx(2e-6), DEEP: None, HEAD: None}
    calibration = content.header["calibration"]
    assert calibration["overhead_j"] == 1e-6 and calibration["power_w"] == pytest.approx(3.0)
    assert content.header["power_measurement"] == {"sensor": "ina", "idle_subtracted": True}
    assert "power_reason" not in content.header and Table(content).power_w == pytest.approx(3.0)


def test_the_estimator_with_the_least_error_makes_the_table():
    """One network has a rare fast visit: the smallest time is wrong; the sentinel of another one lies: so is the paired one."""
    plan, visits = plan_of(), dict(record(plan_of(), additive).visits)
    names = [name for name, _ in plan.calibration]
    visits[names[0]] = [*visits[names[0]], visit(0.6 * visits[names[0]][0].median_s)]
    visits[names[1]] = [dataclasses.replace(v, sentinel_s=2e-6) for v in visits[names[1]]]
    visits[names[2]] = [dataclasses.replace(v, sentinel_s=1e-6) for v in visits[names[2]]]
    content = composed(plan, record(plan, additive, visits=visits))
    errors = content.header["calibration"]["mape_by_estimator"]
    assert content.header["calibration"]["estimator"] == "median" and errors["median"] < 1e-9
    assert errors["min"] > 0.05 < errors["paired"] and content.header["calibration"]["scale"] == pytest.approx(1.1)
    assert content.header["protocol"]["estimator"] == "median over rounds of the clean median"


def test_the_smallest_time_makes_the_rows_where_it_fits_best():
    """Two of three visits of one chain were disturbed; the networks were not."""
    plan, visits = plan_of(), dict(record(plan_of(), additive).visits)
    visits["conv5"] = [visit(t) for t in (60e-6, 52e-6, 61e-6)]
    content = composed(plan, record(plan, additive, visits=visits))
    assert content.header["calibration"]["estimator"] == "min"
    assert content.rows[CONV.key].latency_s == pytest.approx(10e-6) and content.header["calibration"]["scale"] == pytest.approx(
        1.1
    )
    assert content.certificate["networks"] == 2 and content.certificate["mape"] == pytest.approx(0.0, abs=1e-9)


def test_an_estimator_that_leaves_too_few_networks_to_fit_is_not_chosen():
    """By the smallest time one row comes out below zero: two of four networks remain, and their error is not known."""
    plan = plan_of([[CONV], [DEEP], [CONV, CONV], [DEEP, CONV]])
    visits = dict(record(plan, additive).visits)
    visits["deep5"] = [visit(t) for t in (100e-6, 100e-6, 15e-6)]
    content = composed(plan, record(plan, additive, visits=visits))
    calibration = content.header["calibration"]
    assert calibration["mape_by_estimator"]["min"] is None and calibration["estimator"] in ("paired", "median")
    assert content.rows[DEEP.key].latency_s == pytest.approx(20e-6)


def test_a_difference_of_exactly_nothing_is_no_row():
    visits = dict(record(plan_of(), additive).visits)
    visits["conv5"] = visits["conv1"]
    row = composed(plan_of(), record(plan_of(), additive, visits=visits)).rows[CONV.key]
    assert (row.status, row.latency_s, row.details["sure"]) == ("failed", None, False)


def test_a_failure_of_either_model_of_a_row_is_its_reason():
    plan = plan_of()
    for model in ("conv5", "conv1"):
        row = composed(plan, record(plan, additive, failed={model: f"no {model}"})).rows[CONV.key]
        assert (row.status, row.details["reason"]) == ("unsupported", f"no {model}")


def test_ten_networks_that_agree_with_their_rows_correct_nothing():
    plan = plan_of([[op] * n for n in range(1, 6) for op in (CONV, DEEP)])
    content = composed(plan, record(plan, additive))
    assert content.header["calibration"]["ridge"] is None and content.header["calibration"]["scale"] == pytest.approx(1.1)
    assert {op: content.rows[op.key].latency_s for op in ROW_S} == {op: pytest.approx(value) for op, value in ROW_S.items()}


def test_without_enough_networks_nothing_is_fitted_and_without_the_empty_model_there_is_no_table():
    plan = plan_of(MIDDLES[:2])
    calibration = composed(plan, record(plan, additive)).header["calibration"]
    assert (calibration["scale"], calibration["networks"], calibration["mape"]) == (1.0, 0, None)
    visits = {name: many for name, many in record(plan, additive).visits.items() if name != EMPTY}
    with pytest.raises(MeasurementError, match=r"^the empty model was never visited; give the measurement more time$"):
        composed(plan, record(plan, additive, visits=visits))


def test_a_row_that_networks_are_faster_with_keeps_a_time_above_0_and_the_table_is_written(tmp_path):
    """Inside a network the convolution saves 7 us, as if it were fused away: no row of a table can say that."""
    plan = plan_of([[DEEP] * n + [CONV] * k for n in range(1, 7) for k in (0, 1)])
    table = composed(plan, record(plan, lambda ops: 2e-6 + sum(-7e-6 if op == CONV else ROW_S[op] for op in ops)))
    assert min(row.latency_s for row in table.rows.values()) > 0
    write_table(tmp_path / "t.jsonl", table)
    assert read_table(tmp_path / "t.jsonl").rows.keys() == table.rows.keys()


def test_rows_are_corrected_by_ten_networks_and_not_by_nine():
    """Inside a network the convolution costs 1.4 times what it costs alone."""
    middles = [list(ops) for n in (1, 2, 3, 4) for ops in itertools.combinations_with_replacement([CONV, DEEP], n)][:10]

    def cost_s(ops):
        return 2e-6 + sum(ROW_S[op] * (1.4 if op == CONV else 1.0) for op in ops)

    nine, ten = (plan_of(middles[:n]) for n in (9, 10))
    plain, fitted = composed(nine, record(nine, cost_s)), composed(ten, record(ten, cost_s))
    assert plain.header["calibration"]["ridge"] is None and plain.rows[CONV.key].latency_s == pytest.approx(10e-6)
    assert "alone_s" not in plain.rows[CONV.key].details
    table, calibration = Table(fitted), fitted.header["calibration"]
    error = np.mean([abs(table.predict(ops).latency_s / cost_s(ops) - 1) for _, ops in ten.networks])
    worse = np.mean([abs(Table(plain).predict(ops).latency_s / cost_s(ops) - 1) for _, ops in ten.networks])
    assert calibration["ridge"] is not None and error < 0.01 < 0.02 < worse
    assert calibration["mape"] < 0.5 * plain.header["calibration"]["mape"]
    low, high = calibration["interval_factors"]
    assert 0.96 < low <= 1.0 <= high < 1.04
    for op, alone_s in ROW_S.items():
        row = fitted.rows[op.key]
        factor = row.latency_s / alone_s
        assert row.details["alone_s"] == pytest.approx(alone_s) and row.details["rounds"] == 3
        assert row.details["interval_s"] == pytest.approx([factor * alone_s] * 2)
        assert row.latency_s * calibration["scale"] == pytest.approx(alone_s * (1.4 if op == CONV else 1.0), rel=0.03)
