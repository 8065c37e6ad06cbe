"""The certificate beyond its first figures, on the fake machine of ``test_tables_measure``: range, repetition, energy, pace."""

import json

import numpy as np
import pytest
from test_tables_measure import CACHE, CELLS, HEAD, NETWORKS, PLAN, STEM, TRUE_S, FakeCore, fake_core, true_time_s

from latency_tables.errors import RequestError
from latency_tables.measuring import compose
from latency_tables.measuring import loop as measure
from latency_tables.measuring.compose import compose_table
from latency_tables.measuring.job import MeasureRequest, run
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.loop import Measurer
from latency_tables.measuring.plan import EMPTY, make_plan
from latency_tables.measuring.remote import Location, LostBoard
from latency_tables.measuring.settings import Settings
from latency_tables.opspec import Device
from latency_tables.showing.draw import caption
from latency_tables.showing.output import certificate_markdown, certificate_rows
from latency_tables.table import Table
from latency_tables.worklists import load_worklist, make_worklist

assert fake_core  # the fixture is used by its name
UNIFORM = [[STEM, CELLS[0], CELLS[0], CELLS[1], HEAD], [STEM, CELLS[2], CELLS[1], CELLS[2], HEAD]]
POWER_W, IDLE_OVER_J = 3.0, 1e-6


class BusyCore(FakeCore):
    """Also answers about power and pace: 3 W times time, networks one percent more; paced calls take 1.5 times as long."""

    asked = ()

    def one(self, verb, payload=b"", **values):
        if verb == "hello":
            return {**super().one(verb), "power": "a sensor"}
        if verb not in ("energy", "paced"):
            return super().one(verb, payload, **values)
        FakeCore.visits += 1
        if FakeCore.visits in FakeCore.fail_at:
            raise LostBoard("planted")
        name = values["ids"][0]
        BusyCore.asked += ((verb, name),)
        time_s = all_times_s(name)
        if verb == "energy":
            return {"id": name, "energy_j": POWER_W * time_s * (1.01 if name.startswith("net-") else 1.0)}
        paced = {"period_s": values["period_s"], "p50_s": 1.5 * time_s, "p90_s": 2 * time_s, "p99_s": 3 * time_s}
        return {"id": name, "paced": {**paced, "max_s": 1.0, "samples": 50, "missed": 1}}


def all_times_s(name):
    for network, ops in WIDE.uniform:
        if name == network:
            return true_time_s(EMPTY) + CACHE * sum(TRUE_S[op.key] for op in ops)
    return true_time_s(name)


WIDE = make_plan(make_worklist("toy", [], NETWORKS, UNIFORM))


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setattr(measure, "Connection", BusyCore)
    monkeypatch.setattr("test_tables_measure.true_time_s", all_times_s)
    BusyCore.asked = ()


def composed(tmp_path, plan=PLAN, extras=(), **settings):
    journal = Journal(tmp_path / "j", {"plan": plan.plan_id})
    measurer = Measurer(plan, Location(), Settings(**{"min_rounds": 3, "budget_s": 0.0, **settings}), journal)
    measurer.run()
    networks = [name for name, _ in plan.networks]
    if "energy" in extras:
        names = {EMPTY, *networks, *(name for row in plan.rows for name in (row.more, row.less))}
        measurer.energies(sorted(names), seconds=1.0)
    if "paced" in extras:
        measurer.paced(networks, period_s=0.02, seconds=1.0)
    journal.close()
    device = Device("toy", "a toy", "onnxruntime")
    return measurer, compose_table(plan, measurer.measured(), measurer.settings, device, space="toy", command="x")


def test_whole_networks_are_visited_more_often_over_the_same_time(tmp_path):
    measurer, _ = composed(tmp_path, min_rounds=4)
    counts = {name: len(visits) for name, visits in measurer.journal.visits.items()}
    assert {counts[n] for n, _ in PLAN.networks} == {8} and {counts[r.more] for r in PLAN.rows} == {4}
    order = [line.split('"id": "')[1].split('"')[0] for line in (tmp_path / "j").read_text().splitlines() if '"visit"' in line]
    last_row = max(i for i, name in enumerate(order) if not name.startswith(("net-", "single-")))
    assert sum(name.startswith("net-") for name in order[:last_row]) >= 6 * len(PLAN.networks)


def test_both_halves_reach_over_the_range_and_uniform_networks_only_certify():
    work = load_worklist("chain")
    plan = make_plan(work)
    macs = [np.log([sum(op.macs for op in ops) for _, ops in group]) for group in (plan.calibration, plan.certificate)]
    assert len(plan.calibration) == len(plan.certificate) == 30 == len(plan.uniform)
    assert abs(macs[0].mean() - macs[1].mean()) < 0.05 and abs(macs[0].std() - macs[1].std()) < 0.1
    spread = max(macs[0].max(), macs[1].max()) - min(macs[0].min(), macs[1].min())
    middle = np.log([sum(op.macs for op in ops) for _, ops in plan.uniform])
    assert spread > 2 * np.ptp(middle)
    names = [{name for name, _ in group} for group in (plan.calibration, plan.certificate, plan.uniform)]
    assert not names[0] & names[1] and not names[2] & (names[0] | names[1])
    assert make_plan(work, seed=1).calibration != plan.calibration and make_plan(work).plan_id == plan.plan_id


def test_repetition_is_the_agreement_of_every_other_visit(tmp_path, monkeypatch):
    monkeypatch.setattr(compose, "ESTIMATORS", {"median": np.median})
    FakeCore.noise = 0.05
    measurer, content = composed(tmp_path)
    proof = content.certificate
    assert content.header["calibration"]["estimator"] == "median"
    halves = [[np.median([v.median_s for v in measurer.journal.visits[n][k::2]]) for n, _ in PLAN.certificate] for k in (0, 1)]
    wanted = np.mean([abs(first / second - 1) for first, second in zip(*halves, strict=True)])
    assert proof["repeat"]["mape"] == pytest.approx(wanted)
    assert 0 < proof["repeat"]["mape"] < 0.06 and proof["repeat"]["networks"] == len(PLAN.certificate)


def test_uniform_networks_have_their_own_figures(tmp_path, busy):
    _, content = composed(tmp_path, plan=WIDE)
    proof = content.certificate
    assert proof["networks"] == 5 and proof["uniform"]["networks"] == 2 and proof["uniform"]["mape"] == pytest.approx(0, abs=1e-9)
    assert {"flops", "single_operations", "repeat"} <= set(proof["uniform"]) and content.header["calibration"]["networks"] == 4
    rows = certificate_rows([Table(content)])
    assert {(row.networks, row.method) for row in rows} == {
        (sample, method)
        for sample in ("range", "uniform")
        for method in ("blocks in chains", "single operations", "FLOPs", "measured twice")
    }
    lines = [line.split(" | ") for line in certificate_markdown(rows).splitlines()]
    assert len(lines) == 10 and lines[0][0] == "| device" and {line[0] for line in lines[2:]} == {"| toy"}


def test_energy_stands_beside_power_times_time(tmp_path, busy):
    _, content = composed(tmp_path, extras=["energy"])
    table, proof = Table(content), content.certificate["energy"]
    assert content.header["calibration"]["power_w"] == pytest.approx(1.01 * POWER_W)
    for key, row in content.rows.items():
        assert row.energy_j == pytest.approx(POWER_W * TRUE_S[key])
    prediction = table.predict(NETWORKS[0])
    assert prediction.power_times_time_j == pytest.approx(1.01 * POWER_W * prediction.latency_s)
    assert prediction.energy_j == pytest.approx(POWER_W * prediction.latency_s, rel=1e-6)
    assert proof["rows"]["mape"] == pytest.approx(0.01 / 1.01) and proof["power_times_time"]["mape"] == pytest.approx(0, abs=1e-9)
    assert "energy error 0.99%, of 3.03 W x time 0.00%" in caption(table)


def test_unknown_energy_is_null_everywhere(tmp_path):
    _, content = composed(tmp_path)
    table = Table(content)
    assert content.certificate["energy"] is None and content.header["calibration"]["power_w"] is None
    assert table.power_w is None and table.predict(NETWORKS[0]).power_times_time_j is None
    assert "energy unknown" in caption(table)


def test_paced_calls_are_recorded_beside_back_to_back_ones(tmp_path, busy):
    _, content = composed(tmp_path, extras=["paced"])
    paced = content.certificate["paced"]
    assert paced["p50_over_back_to_back"] == pytest.approx(1.5) and paced["p99_over_back_to_back"] == pytest.approx(3)
    assert (paced["period_s"], paced["networks"], paced["calls"], paced["missed"]) == (0.02, 5, 250, 5)
    assert paced["one_factor"]["factor"] == pytest.approx(1.5) and paced["one_factor"]["mape"] == pytest.approx(0, abs=1e-9)
    assert "paced" not in composed(tmp_path / "plain")[1].certificate


def test_a_period_is_measured_on_request_only_and_nothing_is_asked_twice(tmp_path, busy):
    work = tmp_path / "work.json"
    work.write_text(json.dumps(make_worklist("toy", [], NETWORKS, UNIFORM).to_dict()))
    settings = Settings(min_rounds=3, budget_s=0.0)
    values = {"out": tmp_path / "t.jsonl", "device": "toy", "worklists": (str(work),), "settings": settings}
    FakeCore.fail_at = (300, 301, 330, 360)
    run(MeasureRequest(**values, period_s=0.02))
    assert len(BusyCore.asked) == len(set(BusyCore.asked)) and {verb for verb, _ in BusyCore.asked} == {"energy", "paced"}
    assert sum(verb == "paced" for verb, _ in BusyCore.asked) == 9
    BusyCore.asked = ()
    run(MeasureRequest(**values, again=True, energy_seconds=0.0))
    assert BusyCore.asked == ()
    with pytest.raises(RequestError, match="period-s"):
        MeasureRequest(**values, period_s=0.0)
