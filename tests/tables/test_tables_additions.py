"""Operations that are added to a table are made by the estimator of its own rows, and without an empty call as the sentinel."""

import dataclasses
import json

import numpy as np
import pytest
from test_tables_measure import CELLS, EMPTY_S, TRUE_S, WORK, FakeCore, fake_core

from latency_tables.board.timing import Visit
from latency_tables.errors import RequestError, TableError
from latency_tables.measuring import job, loop
from latency_tables.measuring.job import MeasureRequest, run
from latency_tables.measuring.settings import Settings
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, read_table, write_table
from latency_tables.worklists import make_worklist

ADDED = OpSpec("conv", 8, 8, 8, 8, 1, 1, 0)
assert fake_core  # the fixture is used by its name


class MoodyCore(FakeCore):
    """A machine that is slower from visit to visit, and whose short calls take times of their own; it keeps what it said."""

    seen: dict[str, list[float]] = {}  # noqa: RUF012
    sentinels: set[str] = set()  # noqa: RUF012

    def ask(self, verb, payload=b"", **values):
        MoodyCore.sentinels.add(values["sentinel"])
        for answer in super().ask(verb, payload, **values):
            times = MoodyCore.seen.setdefault(answer["id"], [])
            time_s = answer["visit"]["median_s"] * (1.0, 1.3, 1.9)[len(times) % 3]
            times.append(time_s)
            sentinel_s = EMPTY_S * (1 + 3 * len(times)) if values["sentinel"] else None
            yield {"id": answer["id"], "visit": Visit(*[time_s] * 7, 50, 1, 1.0, sentinel_s).to_dict()}


@pytest.fixture
def moody(monkeypatch):
    monkeypatch.setattr(loop, "Connection", MoodyCore)
    monkeypatch.setattr(MoodyCore, "seen", {})
    monkeypatch.setattr(MoodyCore, "sentinels", set())
    monkeypatch.setitem(TRUE_S, ADDED.key, 3e-5)
    return MoodyCore


def request(tmp_path, work=WORK, **values):
    path = tmp_path / "work.json"
    path.write_text(json.dumps(work.to_dict()))
    settings = Settings(min_rounds=3, max_rounds=3, budget_s=0.0)
    worklists = () if "keys" in values else (str(path),)
    return MeasureRequest(out=tmp_path / "t.jsonl", device="toy", worklists=worklists, settings=settings, **values)


@pytest.mark.parametrize(
    "own, taken, middle",
    [("min", "min", min), ("median", "median", np.median), ("paired", "median", np.median), (None, "median", np.median)],
)
def test_added_rows_are_made_as_the_tables_own_are(own, taken, middle, tmp_path, moody):
    table = run(request(tmp_path))
    header = {**table.header, "calibration": {**table.header["calibration"], "estimator": own}}
    if own is None:
        del header["calibration"]["estimator"]
    write_table(tmp_path / "t.jsonl", dataclasses.replace(table, header=header))
    moody.seen.clear()
    run(request(tmp_path, keys=(ADDED.key,)))
    added = read_table(tmp_path / "t.jsonl")
    times = [middle(moody.seen[f"{ADDED.key}|x{count}"]) for count in (5, 1)]
    assert added.rows[ADDED.key].latency_s == pytest.approx((times[0] - times[1]) / 4)
    assert added.header["additions"][0]["estimator"] == taken and added.header["calibration"].get("estimator") == own


def test_a_row_that_the_certificate_was_made_with_is_not_measured_alone(tmp_path, moody):
    table = run(request(tmp_path))
    before = (tmp_path / "t.jsonl").read_bytes()
    with pytest.raises(TableError, match=f"has a row of {CELLS[0].key}.*--again in place of --op"):
        run(request(tmp_path, keys=(ADDED.key, CELLS[0].key)))
    assert (tmp_path / "t.jsonl").read_bytes() == before
    failed = Row(CELLS[0].key, None, None, "failed", {"reason": "noise"})
    write_table(tmp_path / "t.jsonl", dataclasses.replace(table, rows={**table.rows, failed.key: failed}))
    run(request(tmp_path, keys=(failed.key,)))
    assert read_table(tmp_path / "t.jsonl").rows[failed.key].latency_s is not None


def test_a_row_that_cannot_be_run_replaces_none_that_could(tmp_path, moody, monkeypatch):
    """A table that was written just before the process was killed: the journal is still there, and the same command goes on."""
    run(request(tmp_path))
    with monkeypatch.context() as killed:
        killed.setattr(job, "remove", lambda path: None)
        run(request(tmp_path, keys=(ADDED.key,)))
    assert (tmp_path / "t.jsonl.journal").exists()
    added = read_table(tmp_path / "t.jsonl").rows[ADDED.key]

    def refuses(core, verb, payload=b"", **values):
        answer = FakeCore.one(core, verb, payload, **values)
        return {"id": values["id"], "error": "no"} if ADDED.key in values.get("id", "") else answer

    (tmp_path / "t.jsonl.journal").write_text((tmp_path / "t.jsonl.journal").read_text().splitlines(True)[0])
    monkeypatch.setattr(moody, "one", refuses)
    run(request(tmp_path, keys=(ADDED.key,)))
    assert read_table(tmp_path / "t.jsonl").rows[ADDED.key] == added


@pytest.mark.parametrize(
    "values, words",
    [({"worklists": ("chain",)}, "worklist"), ({"description": "a board"}, "description"), ({"again": True}, "again"),
     ({"period_s": 0.02, "again": True}, "period-s and again")],
)  # fmt: skip
def test_what_is_not_read_for_single_operations_is_refused(values, words, tmp_path):
    with pytest.raises(RequestError, match=f"^{words} would have no effect with op"):
        MeasureRequest(out=tmp_path / "t", keys=(ADDED.key,), **values)
    MeasureRequest(out=tmp_path / "t", **values)


def test_a_whole_network_is_the_sentinel_or_nothing(tmp_path, moody):
    run(request(tmp_path))
    assert {name[:4] for name in moody.sentinels} == {"net-"}
    moody.sentinels.clear()
    (tmp_path / "alone").mkdir()
    table = run(request(tmp_path / "alone", make_worklist("toy", CELLS, [])))
    assert moody.sentinels == {""} and table.header["protocol"]["sentinel_s"] is None
    assert table.header["calibration"]["estimator"] == "median"


def test_rows_of_another_batch_are_not_added(tmp_path, moody):
    run(request(tmp_path))
    before = (tmp_path / "t.jsonl").read_bytes()
    with pytest.raises(TableError, match=r"is a measured table of \(.*batch 1\), asked to add measured rows of \(.*batch 4\)"):
        run(request(tmp_path, keys=(dataclasses.replace(ADDED, batch=4).key,), batch=4))
    assert (tmp_path / "t.jsonl").read_bytes() == before


def during_the_start_of(monkeypatch, other):
    """Lets another command end while this one is about to take the lock."""
    real, waiting = job.make_folder, [other]

    def make_folder(path):
        if waiting:
            waiting.pop()()
        real(path)

    monkeypatch.setattr(job, "make_folder", make_folder)


def test_two_commands_that_add_rows_lose_none(tmp_path, moody, monkeypatch):
    table, second = run(request(tmp_path)), dataclasses.replace(ADDED, kernel=7, padding=3)
    monkeypatch.setitem(TRUE_S, second.key, 4e-5)
    during_the_start_of(monkeypatch, lambda: run(request(tmp_path, keys=(ADDED.key,))))
    run(request(tmp_path, keys=(second.key,)))
    assert read_table(tmp_path / "t.jsonl").rows.keys() == table.rows.keys() | {ADDED.key, second.key}


def test_a_table_that_another_command_has_just_written_is_not_replaced(tmp_path, moody, monkeypatch):
    during_the_start_of(monkeypatch, lambda: run(request(tmp_path)))
    with pytest.raises(TableError, match="is there already; give --again"):
        run(request(tmp_path))
    assert not (tmp_path / "t.jsonl.lock").exists() and not (tmp_path / "t.jsonl.journal").exists()
