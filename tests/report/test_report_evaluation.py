"""What reports and comparisons say of an evaluation: its metric, whether the task is solved, the share since a random policy."""

import dataclasses

import pytest
from report_fake_run import change, make_run

from cosearch.compare.data import Comparison, Result, StrategyRow, _mean_share, _require_equal, _solved
from cosearch.compare.page import COLUMNS, columns, tables
from cosearch.compare.plan import PlannedRun
from cosearch.config.run import Config
from cosearch.record.json_record import to_json
from cosearch.record.results.evaluation import EvaluationRecord
from cosearch.report.data import read_run
from cosearch.report.facts import caveats, tiles, verdict
from cosearch.statistics import Estimate
from latency_tables.errors import ConfigError

NEGATIVE = EvaluationRecord(
    metric="return",
    return_mean=-80.0,
    return_ci95=(-90.0, -70.0),
    length_mean=200.0,
    success_rate=None,
    solved_at=-100.0,
    solved=True,
    solved_surely=True,
    random_mean=-480.0,
    random_ci95=(-490.0, -470.0),
    share_of_teacher=400 / 430,
    share_ci95=(390 / 430, 410 / 430),
)


def run_with(folder, found, **scores):
    path = make_run(folder)
    change(path, "summary.json", evaluation=to_json(found), **scores)
    return read_run(path)


def tile(run, label):
    return next(one for one in tiles(run) if one.label == label)


def test_a_share_of_negative_scores_is_counted_from_the_random_policy(tmp_path):
    run = run_with(tmp_path / "run", NEGATIVE, score_mean=-80.0, score_ci95=[-90.0, -70.0], teacher_score_mean=-50.0)
    assert verdict(run).startswith("The agent reaches 93 % of its teacher's score, counted from a random policy's, and ")
    found = tile(run, "Of the teacher's score")
    assert (found.figure, found.detail) == ("93 %", "teacher -50.0, random policy -480; 95 %: 91 to 95 %")
    assert tile(run, "Score").detail.endswith("; solved: -100 counts")
    assert not [sentence for sentence in caveats(run) if "teacher" in sentence]


def test_a_teacher_below_a_random_policy_gives_no_share(tmp_path):
    found = dataclasses.replace(NEGATIVE, share_of_teacher=None, share_ci95=None, solved_surely=False)
    run = run_with(tmp_path / "run", found, score_mean=-80.0, score_ci95=[-90.0, -70.0], teacher_score_mean=-500.0)
    assert verdict(run).startswith("The agent scores -80.0 where its teacher scores -500")
    assert tile(run, "Of the teacher's score").detail == "teacher -500, random policy -480"
    assert "The teacher scores no more than a random policy, so a share of its score is not shown." in caveats(run)
    assert tile(run, "Score").detail.endswith("; solved: -100 counts, not over the whole interval")


def test_the_tile_names_the_metric(tmp_path):
    found = dataclasses.replace(NEGATIVE, metric="success", solved=False, solved_at=0.9)
    assert tile(run_with(tmp_path / "a", found), "Success rate").detail.endswith("; not solved: 0.90 counts")
    assert tile(run_with(tmp_path / "b", dataclasses.replace(found, metric="length")), "Steps of an episode").figure == "14.2"


def test_a_comparison_has_columns_for_what_its_runs_know(tmp_path):
    row = StrategyRow(
        env="a", strategy="random", runs=4, iqm=Estimate(1.0, None), score_mean=1.0, improvement=None, improvement_largest=None
    )
    plain = Comparison(folder="", runs=(), strategies=(row,), unfinished=(), unlearned=(), reference={})
    assert columns(plain) == list(COLUMNS)
    known = dataclasses.replace(plain, strategies=(dataclasses.replace(row, share_of_teacher=0.934, solved=3), row))
    assert columns(known) == [*COLUMNS, "of the teacher's score", "solved"]
    ((_, rows),) = tables(known)
    assert [cells[-2:] for cells in rows] == [["93 %", "3 of 4"], ["", ""]]


def test_the_figures_of_a_comparison_need_every_run_and_one_metric(tmp_path):
    run = run_with(tmp_path / "run", NEGATIVE)
    one = run.summary
    other = dataclasses.replace(one, evaluation=dataclasses.replace(NEGATIVE, share_of_teacher=0.5, solved=False))
    old = dataclasses.replace(one, evaluation=None)
    assert _mean_share([one, other]) == pytest.approx((400 / 430 + 0.5) / 2) and _solved([one, other]) == 1
    assert _mean_share([one, old]) is None and _solved([one, old]) is None
    by_length = dataclasses.replace(one, evaluation=dataclasses.replace(NEGATIVE, metric="length"))
    results = [result(name, run, summary) for name, summary in (("first", old), ("second", by_length))]
    with pytest.raises(ConfigError, match=r"metric of the score differs, first has return, second has length"):
        _require_equal(results)
    _require_equal([result("first", run, old), result("second", run, one)])


def result(name, run, summary):
    return Result(PlannedRun(name, "a", "random", 0, Config()), run.record, summary)


def test_the_policy_that_an_agent_was_made_from_has_its_tile_where_it_was_timed(tmp_path):
    comparison = {"origin": "ONNX", "acting": "greedy", "score_ci95": None, "random_score_mean": 1.0, "score_share": 0.9}
    comparison |= {"score_share_ci95": None, "latency_from": "measurement", "latency_measured_s": 3e-5}
    comparison |= {"latency_ratio": 0.315, "latency_ratio_range": [0.3, 0.33]}
    path = make_run(tmp_path / "run")
    assert "Of the policy's latency" not in {one.label for one in tiles(read_run(path))}
    change(path, "summary.json", policy=comparison)
    found = tile(read_run(path), "Of the policy's latency")
    assert (found.figure, found.detail) == ("32 %", "policy 30.0 µs, timed in turns; 30 % to 33 %")
    change(path, "summary.json", policy={**comparison, "latency_ratio": None})
    assert "Of the policy's latency" not in {one.label for one in tiles(read_run(path))}
