"""What is known of each target: measured, predicted, or not at all."""

import json

import numpy as np
import pytest
from made_table import made_table
from pipeline_runs import TINY, Silent

from cosearch.config.run import resolve
from cosearch.deploy.deployment import checked_there
from cosearch.deploy.readings import Meter, Readings
from cosearch.pipeline.forecast import Forecast
from cosearch.pipeline.run import work_on
from cosearch.pipeline.session import open_session
from cosearch.pipeline.target.checks import checked_targets
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.summary import Summary, TargetCheck, all_met
from cosearch.record.rundir import RunDir
from cosearch.report.data import read_run
from cosearch.report.facts import facts, tiles, verdict
from cosearch.report.rounds import figure_text, round_rows
from latency_tables.board.timing import Paced
from latency_tables.errors import InfeasibleTargetError

load_builtins()
UNKNOWN = "not known: the table has no such figures, measure it (`cosearch deploy RUN`, or --device this)"


@pytest.mark.parametrize(
    "device, at, statistic, known",
    [
        ("x86-server", "period", "p99", True),
        ("x86-server", "period", "median", True),
        ("x86-server", "back-to-back", "p99", False),
        ("jetson", "back-to-back", "median", True),
        ("jetson", "back-to-back", "p99", False),
        ("jetson", "period", "median", False),
        ("jetson", "period", "p99", False),
    ],
)
def test_a_median_back_to_back_is_no_prediction_of_another_figure(device, at, statistic, known):
    words = [
        "env.name=procgen:coinrun",
        "distill.teacher=none",
        f"device={device}",
        f"objective.target_at={at}",
        f"objective.target_statistic={statistic}",
    ]
    plan = make_plan(resolve(overrides=[*words, "objective.latency_target_s=0.05"]))
    planned, found = plan.constraints[0], plan.space.architecture([0] * len(plan.space.points))
    check = checked_targets(plan, found, {})[0]
    assert planned.known is known and (plan.not_known == "") is known
    if known:
        assert check.predicted == planned.expected(found) > 0 and check.met is True
        return
    assert (planned.bound, planned.cost.exact(found) > 0) == (0.05, True)  # the search goes by the median
    assert (check.predicted, check.met, check.probability, check.residuals) == (None, None, None, 0)
    assert plan.targets[0].text in plan.not_known
    assert [checked_targets(plan, found, {"latency_s": value})[0].met for value in (0.04, 0.06)] == [True, False]
    with pytest.raises(InfeasibleTargetError, match=r"ms, its median back to back: the table knows nothing else\. Ask for"):
        make_plan(resolve(overrides=[*words, "objective.latency_target_s=1e-9"]))


@pytest.mark.parametrize("met, whole", [((True, None), None), ((None, False), False), ((True, True), True), ((None,), None)])
def test_targets_are_met_together_where_each_is_known_to_be(met, whole):
    check = {"metric": "latency_s", "statistic": "p99", "at": "period", "target": 1.0, "predicted": None, "measured": None}
    assert all_met([TargetCheck(**check, met=each) for each in met]) is whole


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def plan_of(folder, device):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    words = [*(w for w in TINY if not w.startswith("objective")), "env.name=minatar:breakout", "budget.clip_frames=0"]
    path = made_table(folder / f"{device}.jsonl", words, device=device)
    words += [f"table={path}", "objective.latency_target_s=0.00012", "objective.target_at=period"]
    return make_plan(resolve(overrides=[*words, "objective.target_statistic=p99"]))


def made(folder, plan):
    run, notes = RunDir.create(folder / "one", "one", to_json(plan.record("a test"))), Notes()
    work_on(open_session(run, plan, notes))
    return run, notes.texts


def test_a_run_elsewhere_says_that_a_p99_is_not_known_until_a_board_measures_it(tmp_path):
    plan = plan_of(tmp_path, "elsewhere")
    planned = Forecast(plan, 1.0, None, 1.0, 1)
    assert plan.not_known in planned.text() and planned.to_json()["target_not_known_because"] == plan.not_known
    run, notes = made(tmp_path, plan)
    summary, read = run.read(Summary), read_run(run.path)
    written = json.loads((run.path / "summary.json").read_text())
    assert (written["target_met"], written["target_checked_by"]) == (None, "nothing") and plan.not_known in notes
    assert [(each["predicted"], each["met"]) for each in written["targets"]] == [(None, None)]
    assert facts(read).holds is None and verdict(read).endswith(
        f"the median back to back; whether the promise of 120 µs, p99 once a control period holds is {UNKNOWN}."
    )
    tile = next(tile for tile in tiles(read) if tile.label == "Latency, predicted")
    assert (tile.detail, tile.mood) == (f"target 120 µs, p99 once a control period: {UNKNOWN}", "")
    found = type("Found", (), {"figure": lambda self, metric, statistic, at: 0.0001 if at == "period" else None})()
    assert checked_there(summary.targets, found)[0].met is True
    (run.path / "summary.json").unlink()
    assert facts(read_run(run.path)).holds is None and "not known before the end" in verdict(read_run(run.path))


def test_on_this_machine_the_rounds_measure_what_the_table_does_not_know(tmp_path, monkeypatch):
    shares = [1.3, 0.97, 0.98]

    def read(self, model, targets):
        value = shares.pop(0) * 0.00012
        calls = Paced(period_s=0.02, p50_s=value / 9, p90_s=value / 3, p99_s=value, max_s=value, samples=9, missed=0)
        return Readings(1000, paced=[calls] * 3, runtime_version="1")

    monkeypatch.setattr(Meter, "read", read)
    run, _ = made(tmp_path, plan_of(tmp_path, "this"))
    summary = run.read(Summary)
    figures = [each.figures[0] for each in summary.target_rounds]
    assert [figure.predicted for figure in figures] == [None] * 3 and np.diff([figure.bound for figure in figures])[0] < 0
    assert (summary.target_met, summary.target_checked_by, summary.rounds_outcome) == (True, "measurement", "holds")
    assert summary.targets[0].predicted is None and summary.targets[0].met is True
    assert "predicted not known" in figure_text(figures[0]) and {row.predicted for row in round_rows(summary)} == {"not known"}
    assert verdict(read_run(run.path)).endswith("the promise of 120 µs holds.")
