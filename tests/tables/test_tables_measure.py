"""The measuring loop on a fake machine whose true costs are known, and its journal under every kind of interruption."""

import errno
import json
import re
from pathlib import Path

import pytest

from latency_tables.board.timing import Paced, Visit
from latency_tables.errors import MeasurementError, RequestError, TableError
from latency_tables.measuring import loop as measure
from latency_tables.measuring.compose import compose_table
from latency_tables.measuring.job import MeasureRequest, preview, run
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.loop import Measurer
from latency_tables.measuring.plan import EMPTY, make_plan
from latency_tables.measuring.remote import Location, LostBoard
from latency_tables.measuring.settings import Settings
from latency_tables.opspec import Device, OpSpec
from latency_tables.schema import read_table
from latency_tables.table import Table
from latency_tables.worklists import make_worklist

STEM = OpSpec("stem", 3, 16, 16, 8, 4, 2, 1)
CELLS = [OpSpec("conv", 8, 8, 8, 8, k, 1, k // 2) for k in (3, 5)] + [OpSpec("mbconv", 8, 8, 8, 8, 3, 1, 1, expansion=3)]
HEAD = OpSpec("head", 8, 8, 8, 4, hidden=16, activation="none")
NETWORKS = [[STEM, a, b, HEAD] for a in CELLS for b in CELLS]
WORK = make_worklist("toy", [], NETWORKS)
PLAN = make_plan(WORK)
TRUE_S = {op.key: 1e-5 * (i + 2) for i, op in enumerate(WORK.ops)}
EMPTY_S, CONTEXT_S, CACHE = 2e-6, 7e-6, 1.04


class FakeCore:
    """Answers like the measuring core: an additive machine whose whole networks cost 4 % more than their rows."""

    visits = 0
    fail_at = ()
    lines = ()
    noise = 0.0

    def __init__(self, target):
        self.loaded = set()

    def one(self, verb, payload=b"", **values):
        if verb == "hello":
            state = {"load": 0.0}
            return {"fingerprint": {"machine": "fake", "cores": 2}, "runtime_version": "0", "settings": {}, "power": None,
                    "power_reason": "no power sensor is readable", "state": state}  # fmt: skip
        if verb == "load":
            self.loaded.add(values["id"])
            return {"id": values["id"], "graph": {"Conv": 1}}
        return {"state": {"load": 0.0}}

    def ask(self, verb, payload=b"", **values):
        for name in values["ids"]:
            FakeCore.visits += 1
            if FakeCore.visits in FakeCore.fail_at:
                raise LostBoard("planted")
            assert name in self.loaded, "visited before it was loaded"
            wobble = 1 + FakeCore.noise * ((FakeCore.visits * 2654435761 % 1000) / 500 - 1)
            time_s = true_time_s(name) * wobble
            yield {"id": name, "visit": Visit(time_s, time_s, time_s, time_s, time_s, time_s, time_s, 50, 1, 1.0).to_dict()}

    def close(self):
        self.loaded = set()


def true_time_s(name):
    if name == EMPTY:
        return EMPTY_S
    for network, ops in (*PLAN.calibration, *PLAN.certificate):
        if name == network:
            return EMPTY_S + CACHE * sum(TRUE_S[op.key] for op in ops)
    if name.startswith("single-"):
        return 5e-6
    if name.startswith("base-"):
        return EMPTY_S + CONTEXT_S
    key, times = name.rsplit("|x", 1)
    context = EMPTY_S if key.startswith("stem") else EMPTY_S + CONTEXT_S
    return context + int(times) * TRUE_S[key]


JOURNALS = []


@pytest.fixture(autouse=True)
def fake_core(monkeypatch):
    monkeypatch.setattr(measure, "Connection", FakeCore)
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    FakeCore.visits, FakeCore.fail_at, FakeCore.noise = 0, (), 0.0
    yield
    while JOURNALS:
        JOURNALS.pop().close()


def measured(path, **settings):
    journal = Journal(path, {"plan": PLAN.plan_id})
    JOURNALS.append(journal)
    measurer = Measurer(
        PLAN, Location(), Settings(**{"min_rounds": 3, "network_factor": 1, "budget_s": 0.0, **settings}), journal
    )
    return measurer, journal


def composed(measurer):
    device = Device("toy", "a toy", "onnxruntime")
    return compose_table(PLAN, measurer.measured(), measurer.settings, device, space="toy", command="x")


def test_rows_scale_and_certificate_recover_the_true_machine(tmp_path):
    measurer, _ = measured(tmp_path / "j")
    measurer.run()
    content = composed(measurer)
    for key, row in content.rows.items():
        assert row.latency_s == pytest.approx(TRUE_S[key], rel=1e-9), key
    assert {row.details["method"] for row in content.rows.values()} == {"stem", "chain", "head"}
    assert content.header["calibration"]["scale"] == pytest.approx(CACHE) and content.header["calibration"]["method"] == "scale"
    assert content.header["calibration"]["overhead_s"] == pytest.approx(EMPTY_S)
    proof = content.certificate
    assert proof["mape"] == pytest.approx(0, abs=1e-9) and proof["kendall_tau"] == pytest.approx(1) and proof["within_5"] == 1
    assert proof["uncalibrated"]["bias"] < -0.03 and proof["flops"]["mape"] > 0.01 < proof["single_operations"]["mape"]
    names = [{name for name, _ in part} for part in (PLAN.calibration, PLAN.certificate)]
    assert len(names[0]) == 4 and len(names[1]) == 5 and not names[0] & names[1]


def test_a_complete_journal_asks_for_the_machine_and_for_no_visit(tmp_path):
    first, journal = measured(tmp_path / "j")
    first.run()
    journal.close()
    again, _ = measured(tmp_path / "j")
    before = FakeCore.visits
    again.run()
    seen = again.measured()
    assert FakeCore.visits == before and seen.resumed and seen.visits == first.measured().visits
    assert seen.hello.fingerprint == {"machine": "fake", "cores": 2}


def test_no_energy_is_null_with_a_reason(tmp_path):
    measurer, _ = measured(tmp_path / "j")
    measurer.run()
    content = composed(measurer)
    assert all(row.energy_j is None for row in content.rows.values())
    assert Table(content).predict(NETWORKS[0]).energy_j is None and content.header["power_reason"]


def test_unsure_rows_are_visited_again_until_sure_or_the_cap(tmp_path):
    FakeCore.noise = 0.2
    measurer, journal = measured(tmp_path / "a", max_rounds=3)
    measurer.run()
    counts = {len(v) for v in journal.visits.values()}
    assert counts == {3}
    assert not all(measurer._has_converged(row) for row in PLAN.rows)
    FakeCore.visits = 0
    patient, journal = measured(tmp_path / "b", max_rounds=40, budget_s=60.0)
    patient.run()
    rounds = [len(journal.visits[row.more]) for row in PLAN.rows]
    assert max(rounds) > 3 and all(patient._has_converged(row) or len(journal.visits[row.more]) == 40 for row in PLAN.rows)


def test_what_noise_hides_is_visited_on_after_the_budget_and_nothing_else(tmp_path):
    FakeCore.noise = 0.99
    measurer, journal = measured(tmp_path / "a", max_rounds=3)
    measurer.run()
    hidden = {op.key for op in WORK.ops if composed(measurer).rows[op.key].status == "failed"}
    assert 0 < len(hidden) < len(WORK.ops)
    FakeCore.visits = 0
    patient, journal = measured(tmp_path / "b", max_rounds=40)
    patient.run()
    rounds = {name: len(visits) for name, visits in journal.visits.items()}
    owed = {name for row in PLAN.rows if row.op.key in hidden for name in (row.more, row.less)}
    assert {name for name, count in rounds.items() if count > 3} == owed
    failed = [key for key, row in composed(patient).rows.items() if row.status == "failed"]
    assert all(rounds[row.more] == 40 for row in PLAN.rows if row.op.key in failed) and len(failed) < len(hidden)


@pytest.mark.parametrize("fail_at", [(1,), (40,), (20, 21, 60), tuple(range(5, 200, 50))])
def test_lost_connections_lose_and_double_nothing(tmp_path, fail_at):
    FakeCore.fail_at = fail_at
    measurer, journal = measured(tmp_path / "j")
    measurer.run()
    assert {len(v) for v in journal.visits.values()} == {3} and set(journal.visits) == set(PLAN.builders)
    content = composed(measurer)
    assert all(row.latency_s == pytest.approx(TRUE_S[key], rel=1e-9) for key, row in content.rows.items())


def test_a_dead_board_is_an_error_that_names_the_journal(tmp_path):
    FakeCore.fail_at = range(10, 10_000)
    measurer, _ = measured(tmp_path / "j")
    with pytest.raises(MeasurementError, match=re.escape(str(tmp_path / "j"))):
        measurer.run()


def test_killed_at_any_byte_resumes_to_the_same_table(tmp_path):
    """The journal is cut at many places, as a kill would; the table that follows has each row once and right."""
    measurer, journal = measured(tmp_path / "whole")
    measurer.run()
    journal.close()
    data = (tmp_path / "whole").read_bytes()
    for at in (0, 5, len(data) // 7, len(data) // 3, len(data) // 2 + 1, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:at])
        again, rest = measured(tmp_path / "cut")
        again.run()
        assert {len(v) for v in rest.visits.values()} == {3}
        rest.close()
        names = [
            json.loads(line).get("id") for line in (tmp_path / "cut").read_text().splitlines() if "visit" in json.loads(line)
        ]
        assert sorted(names) == sorted(name for name in PLAN.builders for _ in range(3))


class AgeingCore(FakeCore):
    """A machine whose load rises with every core that is started on it."""

    started = 0

    def one(self, verb, payload=b"", **values):
        answer = super().one(verb, payload, **values)
        if verb != "hello":
            return answer
        AgeingCore.started += 1
        return {**answer, "settings": {"nice": -AgeingCore.started}, "state": {"load": float(AgeingCore.started)}}


def test_the_state_at_the_start_is_that_of_the_first_core(tmp_path, monkeypatch):
    """Not of the one that reads paced calls when all visits are made, nor of one after a lost connection or an interruption."""
    monkeypatch.setattr(measure, "Connection", AgeingCore)
    monkeypatch.setattr(AgeingCore, "started", 0)
    FakeCore.fail_at = (20,)
    measurer, journal = measured(tmp_path / "j")
    measurer.run()
    measurer.paced([], period_s=0.02, seconds=1.0)
    journal.close()
    again, _ = measured(tmp_path / "j")
    again.run()
    assert AgeingCore.started == 4
    for one in (measurer, again):
        header = composed(one).header
        assert header["power_state"] == {"start": {"load": 1.0}, "end": one.measured().end_state}
        assert header["protocol"]["fixed"] == {"nice": -1}
    lines = [line for line in (tmp_path / "j").read_text().splitlines(True) if '"start"' not in line]
    (tmp_path / "earlier").write_text("".join(lines))
    earlier, _ = measured(tmp_path / "earlier")
    earlier.run()
    assert composed(earlier).header["power_state"]["start"] is None


def test_journal_of_another_measurement_or_damaged_is_refused(tmp_path):
    _, journal = measured(tmp_path / "j")
    journal.add({"id": "x", "graph": {}})
    journal.close()
    with pytest.raises(TableError, match="plan"):
        Journal(tmp_path / "j", {"plan": "another"})
    text = (tmp_path / "j").read_text()
    (tmp_path / "j").write_text(text + '{"id": "x", "visit": {"median_s": 1}}\n')
    with pytest.raises(TableError, match="line 3 is damaged"):
        Journal(tmp_path / "j", {"plan": PLAN.plan_id})


EARLIER = """{"journal": 1, "plan": "p"}
{"graph": {"Conv": 2}, "id": "a"}
{"id": "a", "visit": {"clean_share": 1.0, "high_s": 3.0, "inner": 1, "low_s": 1.0, "median_s": 2.0, "min_s": 1.0, \
"p10_s": 1.0, "p90_s": 3.0, "p99_s": 3.0, "samples": 50, "sentinel_s": null}}
{"failed": "no kernel", "id": "b"}
{"calls": 9.0, "energy_j": 0.5, "id": "a", "idle_w": 1.0, "kind": "energy", "power_w": 4.0, "samples": 7.0}
{"energy_j": null, "id": "c", "kind": "energy", "reason": "the sensor stopped answering"}
{"id": "a", "kind": "paced", "paced": {"max_s": 9.0, "missed": 0, "p50_s": 4.0, "p90_s": 5.0, "p99_s": 6.0, \
"period_s": 0.02, "samples": 50}}
"""


def test_a_journal_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "j").write_text(EARLIER)
    journal = Journal(tmp_path / "j", {"plan": "p"})
    journal.close()
    assert journal.visits == {"a": [Visit(2.0, 1.0, 3.0, 1.0, 1.0, 3.0, 3.0, 50, 1, 1.0)]} and journal.graphs == {
        "a": {"Conv": 2}
    }
    assert journal.failed == {"b": "no kernel"} and journal.energies_j == {"a": 0.5, "c": None}
    assert journal.paced == {"a": Paced(0.02, 4.0, 5.0, 6.0, 9.0, samples=50, missed=0)}
    assert journal.resumed and (tmp_path / "j").read_text() == EARLIER


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "a", "visit": {"median_s": 2}}',
        json.dumps({"id": "a", "visit": {**Visit(*(1.0,) * 7, 50, 1, 1.0).to_dict(), "median_s": "2"}}),
        '{"id": "a", "visit": 3}',
        '{"id": "a", "kind": "energy", "energy_j": "much"}',
        '{"id": "a", "kind": "smell"}',
        '{"id": "a", "graph": []}',
    ],
)
def test_a_damaged_line_of_a_journal_is_named(tmp_path, line):
    (tmp_path / "j").write_text(f'{{"journal": 1, "plan": "p"}}\n{line}\n')
    with pytest.raises(TableError, match="line 2 is damaged"):
        Journal(tmp_path / "j", {"plan": "p"})


def request(tmp_path, **values) -> MeasureRequest:
    work = tmp_path / "work.json"
    work.write_text(json.dumps(WORK.to_dict()))
    settings = Settings(min_rounds=3, budget_s=0.0)
    worklists = () if "keys" in values else (str(work),)
    return MeasureRequest(out=tmp_path / "t.jsonl", device="toy", worklists=worklists, settings=settings, **values)


def test_job_writes_a_table_then_refuses_then_adds_single_operations(tmp_path):
    run(request(tmp_path))
    table = read_table(tmp_path / "t.jsonl")
    assert set(table.rows) == set(TRUE_S) and sorted(p.name for p in Path(tmp_path).iterdir()) == ["t.jsonl", "work.json"]
    with pytest.raises(TableError, match="--again"):
        run(request(tmp_path))
    run(request(tmp_path, again=True))
    extra = OpSpec("conv", 8, 8, 8, 8, 1, 1, 0)
    TRUE_S[extra.key] = 3e-5
    run(request(tmp_path, keys=(extra.key,)))
    added = read_table(tmp_path / "t.jsonl")
    assert added.rows[extra.key].latency_s == pytest.approx(3e-5) and set(added.rows) == set(TRUE_S)
    assert added.certificate == table.certificate and added.header["additions"][0]["keys"] == [extra.key]
    with pytest.raises(TableError, match="asked to add"):
        run(request(tmp_path, keys=(extra.key,), provenance="synthetic"))
    del TRUE_S[extra.key]


def test_job_checks_its_request_and_tells_its_plan(tmp_path):
    with pytest.raises(RequestError, match=r"runtime.*dtype.*provenance"):
        request(tmp_path, runtime="abacus", dtype="int7", provenance="derived")
    with pytest.raises(RequestError, match="--dtype"):
        run(request(tmp_path, keys=(CELLS[0].key.replace("float32", "int8"),)))
    plan = preview(request(tmp_path))
    assert plan["models"] == len(PLAN.builders) and plan["rows"] == 5 and plan["certificate_networks"] == 5


@pytest.mark.parametrize("runtime, dtype", [("torch", "int8"), ("torch", "float16"), ("onnxruntime", "float16")])
def test_a_dtype_that_the_runtime_cannot_run_is_refused_before_the_work(runtime, dtype, tmp_path):
    with pytest.raises(RequestError, match=f"dtype must be one of float32.* with runtime {runtime}, got '{dtype}'"):
        MeasureRequest(out=tmp_path / "t", runtime=runtime, dtype=dtype)
    MeasureRequest(out=tmp_path / "t", dtype="int8")


def test_the_expected_time_tells_that_of_the_energy_readings(tmp_path):
    """2 s under load and as long idle, of the empty model, every network and both models of each row; no single operations."""
    models = 1 + len(PLAN.networks) + len({name for row in PLAN.rows for name in (row.more, row.less)} - {"", EMPTY})
    plan = preview(request(tmp_path, energy_seconds=2.0))
    assert plan["expected_energy_s_with_a_sensor"] == 4.0 * models
    assert preview(request(tmp_path, energy_seconds=0.0))["expected_energy_s_with_a_sensor"] == 0


@pytest.mark.parametrize(
    "settings, words", [({"provider": "CUDAExecutionProvider"}, "provider"), ({"nchw": True}, "nchw"),
                        ({"provider": "X", "nchw": True}, "provider and nchw")],
)  # fmt: skip
def test_what_onnxruntime_alone_reads_is_refused_for_other_runtimes(settings, words, tmp_path):
    for runtime in ("torch", "tvm"):
        with pytest.raises(RequestError, match=f"{words} would have no effect with runtime {runtime}: leave"):
            MeasureRequest(out=tmp_path / "t", runtime=runtime, settings=Settings(**settings))
        MeasureRequest(out=tmp_path / "t", runtime=runtime)
    MeasureRequest(out=tmp_path / "t", settings=Settings(**settings))


def test_two_processes_cannot_measure_into_one_file(tmp_path):
    from filelock import FileLock

    with FileLock(str(tmp_path / "t.jsonl.lock")), pytest.raises(RequestError, match="another process"):
        run(request(tmp_path))


def test_a_lock_that_cannot_be_removed_takes_nothing_from_a_whole_table(tmp_path, monkeypatch):
    unlink = Path.unlink

    def refused(path, **options):
        if path.suffix == ".lock":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refused)
    table = run(request(tmp_path))
    assert list(read_table(tmp_path / "t.jsonl").rows) == list(table.rows)
    run(request(tmp_path, again=True))  # the lock file is nobody's
