"""A table composed from a record of visits written by hand: no machine, no connection, no file. Oracle: sums on paper."""

import itertools

import pytest

from latency_tables.board.timing import Paced, Visit
from latency_tables.errors import MeasurementError
from latency_tables.measuring.compose import compose_table
from latency_tables.measuring.plan import EMPTY, MeasurePlan, RowPlan
from latency_tables.measuring.settings import Settings
from latency_tables.measuring.visits import Hello, MeasuredVisits
from latency_tables.opspec import Device, OpSpec
from latency_tables.table import Table
from latency_tables.worklists import Network

STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CONV = OpSpec("conv", 8, 8, 8, 8, 3, 1, 1)
WIDE = OpSpec("conv", 8, 8, 8, 8, 5, 1, 2)
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
ROWS = (
    RowPlan(STEM, "stem", "stem", EMPTY, 1),
    RowPlan(CONV, "chain", "five", "one", 4),
    RowPlan(WIDE, "chain", "wide five", "wide one", 4),
    RowPlan(HEAD, "head", "head", "context", 1),
)
TIMES_US = {EMPTY: 2, "stem": 12, "five": 100, "one": 20, "wide five": 200, "wide one": 40, "head": 37, "context": 7}
ROW_US = {STEM: 10, CONV: 20, WIDE: 40, HEAD: 30}  # 12 - 2, (100 - 20) / 4, (200 - 40) / 4, 37 - 7
SETTINGS = Settings(tolerance=0.02, seed=3)


def visits(time_us, count=4):
    time_s = time_us * 1e-6
    return (Visit(time_s, time_s, time_s, time_s, time_s, time_s, time_s, samples=50, inner=1, clean_share=1.0),) * count


def network(*middle):
    return Network((STEM, *middle, HEAD))


CALIBRATION = (("a", network(CONV)), ("b", network(CONV, CONV)), ("c", network(WIDE)))
CERTIFICATE = (("d", network(CONV, WIDE)), ("e", network(WIDE, WIDE)))
NETWORKS_US = {"a": 68, "b": 90, "c": 90, "d": 112 * 1.02, "e": 134}  # 2 + 1.1 x (60, 80, 80, 100, 120); d two percent more
PLAN = MeasurePlan({}, ROWS, CALIBRATION, CERTIFICATE, {})


def record(**fields):
    times_us = {**TIMES_US, **NETWORKS_US}
    return MeasuredVisits(**{"visits": {name: visits(time_us) for name, time_us in times_us.items()}, **fields})


def compose(seen, plan=PLAN):
    return compose_table(plan, seen, SETTINGS, Device("toy", "a toy", "onnxruntime"), space="toy", command="by hand")


def test_rows_calibration_and_certificate_are_the_sums_on_paper():
    content = compose(record())
    for op, row_us in ROW_US.items():
        assert content.rows[op.key].latency_s == pytest.approx(row_us * 1e-6)
        assert content.rows[op.key].interval_s == pytest.approx((row_us * 1e-6, row_us * 1e-6))
    table = Table(content)
    assert (table.overhead_s, table.scale) == pytest.approx((2e-6, 1.1))
    errors = [1 / 1.02 - 1, 0.0]
    assert table.certificate.accuracy.mape == pytest.approx(-sum(errors) / 2) and table.certificate.accuracy.networks == 2
    assert table.certificate.measured_s == pytest.approx((112 * 1.02e-6, 134e-6))
    assert table.certificate.predicted_s == pytest.approx((112e-6, 134e-6))
    uncalibrated = table.certificate.sample.others["uncalibrated"]
    assert uncalibrated.bias == pytest.approx((102 / (112 * 1.02) - 1 + 122 / 134 - 1) / 2)
    assert content.header["protocol"]["visits"] == 13 * 4 and content.header["protocol"]["seed"] == 3


def test_what_the_machine_said_stands_in_the_header():
    hello = Hello({"machine": "toy64"}, "1.2", {"nice": -10}, None, "no sensor", {"load": 0.5})
    header = compose(record(hello=hello, end_state={"load": 0.7}, elapsed_s=12.0, resumed=True)).header
    assert header["host"] == {"machine": "toy64"} and header["software"]["version"] == "1.2"
    assert header["power_state"] == {"start": {"load": 0.5}, "end": {"load": 0.7}} and header["power_reason"] == "no sensor"
    assert (header["protocol"]["fixed"], header["protocol"]["elapsed_s"], header["protocol"]["resumed"]) == (
        {"nice": -10},
        12.0,
        True,
    )
    said = {"fingerprint": {"machine": "toy64"}, "runtime_version": "1.2", "settings": {"nice": -10}, "power": None}
    assert Hello.from_answer({**said, "power_reason": "no sensor", "state": {"load": 0.5}, "providers": []}) == hello


def test_a_block_that_failed_takes_its_networks_along():
    seen = record(failed={"wide one": "no kernel for it"})
    content = compose(seen)
    assert content.rows[WIDE.key].status == "unsupported" and content.rows[WIDE.key].details["reason"] == "no kernel for it"
    assert content.certificate is None  # both networks of the certificate hold it
    assert content.header["calibration"]["networks"] == 0  # two are left, too few for a fit


def test_a_network_that_failed_is_left_out_and_counted():
    seen = record(failed={"d": "no memory for it"})
    visited = {name: seen for name, seen in seen.visits.items() if name != "d"}
    certificate = compose(MeasuredVisits(visits=visited, failed=seen.failed)).certificate
    assert (certificate["networks"], certificate["left_out"]) == (1, 1)


def test_energies_are_differences_above_an_empty_call_beside_one_power():
    joules = {name: 3.0 * time_us * 1e-6 for name, time_us in {**TIMES_US, **NETWORKS_US}.items()}
    content = compose(record(energies_j=joules, hello=Hello(power="a sensor")))
    assert content.rows[CONV.key].energy_j == pytest.approx(3.0 * 20e-6)
    assert Table(content).calibration.power_w == pytest.approx(3.0) and Table(content).overhead_j == pytest.approx(6e-6)
    assert content.header["power_measurement"] == {"sensor": "a sensor", "idle_subtracted": True}
    from_rows, from_time = Table(content).certificate.energy
    assert from_rows.mape == pytest.approx((1 - 1 / 1.02) / 2) and from_time.mape == pytest.approx((1 - 1 / 1.02) / 2)


def test_paced_calls_stand_beside_back_to_back_ones():
    calls = {n: Paced(0.02, 2e-6 * t, 3e-6 * t, 4e-6 * t, 1.0, samples=50, missed=1) for n, t in NETWORKS_US.items()}
    paced = compose(record(paced=calls)).certificate["paced"]
    assert paced["p50_over_back_to_back"] == pytest.approx(2) and paced["p99_over_back_to_back"] == pytest.approx(4)
    assert (paced["calls"], paced["missed"], paced["one_factor"]["factor"]) == (100, 2, pytest.approx(2))


def test_a_block_that_costs_more_inside_networks_is_corrected_with_its_interval():
    """Thirteen networks of three cells in which WIDE costs 1.3 times its row and nothing else differs."""
    combinations = list(itertools.product((CONV, WIDE), repeat=3)) + list(itertools.product((CONV, WIDE), repeat=2))
    chains = tuple((f"net-{i}", network(*cells)) for i, cells in enumerate([*combinations, (CONV,)]))
    times_us = {name: 2 + sum(ROW_US[op] * (1.3 if op == WIDE else 1.0) for op in ops) for name, ops in chains}
    seen = MeasuredVisits(visits={name: visits(time_us) for name, time_us in {**TIMES_US, **times_us}.items()})
    content = compose(seen, MeasurePlan({}, ROWS, chains, (), {}))
    assert content.header["calibration"]["ridge"] is not None
    row = content.rows[WIDE.key]
    assert row.details["alone_s"] == pytest.approx(40e-6)
    factor = row.latency_s / 40e-6
    assert row.interval_s == pytest.approx((factor * 40e-6, factor * 40e-6))
    table = Table(content)
    assert table.scale * row.latency_s == pytest.approx(1.3 * 40e-6, rel=0.01)
    for name, ops in chains:
        assert table.predict(ops).latency_s == pytest.approx(times_us[name] * 1e-6, rel=0.01)


def test_without_the_empty_model_there_is_no_table():
    seen = record()
    rest = {name: seen for name, seen in seen.visits.items() if name != EMPTY}
    with pytest.raises(MeasurementError, match="more time"):
        compose(MeasuredVisits(visits=rest))
