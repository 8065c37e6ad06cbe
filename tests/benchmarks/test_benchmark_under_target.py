"""The benchmark of targets: what it says of its pairs, the shipped table that stands for this machine's, how it goes on."""

import json
from dataclasses import replace

import pytest
from old_run import copy_to
from typer.testing import CliRunner

from cosearch.benchmarks.searches import under_target as module
from cosearch.benchmarks.searches.under_target import (
    GAMES,
    IDENTITIES,
    SEEDS,
    SHARES,
    Pair,
    config_of,
    in_short,
    markdown,
    pair_of,
    with_target,
)
from cosearch.planning.builtins import load_builtins
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import TargetFigure, TargetRound
from cosearch.record.rundir import RunDir
from latency_tables.devices import find_table
from latency_tables.errors import RequestError
from latency_tables.table import load_table

pytest.importorskip("minatar", reason="MinAtar is not installed")
load_builtins()


def pair(number, measured_s=0.9e-4, derived_s=1.1e-4, outcome="holds"):
    return Pair(
        "minatar:breakout", "x", 0.1, number, 1e-4, derived_s, measured_s, measured_s <= 1e-4, 0.1, outcome, 3, 1, (1.5, 2.5)
    )


def test_the_figures_of_pairs():
    pairs = [pair(0), pair(1, derived_s=0.5e-4), pair(2, 1.2e-4, outcome="nothing can")]
    found = in_short([each.__dict__ for each in pairs])
    assert found == {
        "pairs": 3,
        "under": 2,
        "nothing_can": 1,
        "under_without_repair": 1,
        "mean_slack": pytest.approx(0.1),
        "mean_rounds": 3.0,
        "mean_retrainings": 1.0,
    }
    assert "| minatar:breakout, x, 0.1, seed 2 | 100.0 µs | 110.0 µs | 120.0 µs | 10.0% | 3, 1 | 2.5 |" in markdown(
        [each.__dict__ for each in pairs]
    )
    assert len(GAMES) * len(IDENTITIES) * len(SHARES) * len(SEEDS) == 24


def measured_round(measured_s, retraining):
    value = dict.fromkeys(("measured", "low", "high"), measured_s)
    figure = TargetFigure(metric="latency_s", target=1e-4, bound=1e-4, predicted=1e-4, visits=3, verdict="over", **value)
    names = {"choices": (0,), "choice_names": ("a",), "why": "derived", "measured_on": "this"}
    return TargetRound(retraining=retraining, score=1.0, figures=(figure,), **names)


@pytest.mark.parametrize("deployed, measured_s", [(1, 1.3e-4), (2, 1.1e-4), (3, 1.2e-4)])
def test_a_pair_is_told_by_the_round_of_the_agent_that_is_deployed(tmp_path, deployed, measured_s):
    run = RunDir.open(copy_to(tmp_path / "run"))
    rounds = tuple(measured_round(*each) for each in ((1.3e-4, "before"), (1.1e-4, "after"), (1.2e-4, "after")))
    summary = replace(run.read(Summary), target_rounds=rounds, rounds_outcome="rounds used up", latency_target_s=1e-4)
    run.write(replace(summary, deployed_round=deployed))
    found = pair_of(run, "minatar:breakout", "x", 0.1)
    assert (found.derived_s, found.measured_s, found.rounds, found.retrainings) == (1.3e-4, measured_s, 3, 2)
    assert found.slack == pytest.approx(1 - measured_s / 1e-4) and not found.under


def test_a_run_that_measured_nothing_here_is_refused(tmp_path):
    with pytest.raises(RequestError, match="measured nothing on this machine"):
        pair_of(RunDir.open(copy_to(tmp_path / "run")), "minatar:breakout", "x", 0.1)


def test_a_shipped_table_stands_for_this_machines(tmp_path):
    config = config_of("minatar:asterix", "onnxruntime-int8-1t", 3, tmp_path, "x86-epyc", ())
    table, shipped = load_table(config.table), find_table("x86-epyc/onnxruntime-int8-1t")
    assert table.device.name == "this" and shipped.device.name == "x86-epyc" and table.rows == shipped.rows
    plan = with_target(config, 1.5e-5)
    assert plan.artifact.identity == "onnxruntime-int8-1t" and plan.config.seed == 3 and plan.constraints[0].value == 1.5e-5
    assert plan.counts.feasible < plan.space.size


def test_it_goes_on_with_the_pairs_that_are_missing(tmp_path, monkeypatch):
    made = []

    def run_pair(config, game, identity, share, target_s, folder):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((share, config.seed, target_s))
        return pair(config.seed)

    monkeypatch.setattr(module, "run_pair", run_pair)
    monkeypatch.setattr(module, "span_of", lambda config: (1e-5, 2e-5))
    app, words = module.typer.Typer(), ["--out", str(tmp_path / "out.json"), "--folder", str(tmp_path), "--shipped", "x86-epyc"]
    app.command()(module.main)
    words += ["--games", "minatar:breakout", "--devices", "onnxruntime-float32-1t"]
    assert CliRunner().invoke(app, words).exit_code != 0
    assert len(json.loads((tmp_path / "out.json").read_text())["pairs"]) == 3
    before = list(made)
    made.clear()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(made) == 1 and made[0] not in before
    assert [round(target / 1e-5 - 1, 3) for _, _, target in (*before, *made)] == [share for share in SHARES for _ in SEEDS]
    assert json.loads((tmp_path / "out.json").read_text())["summary"]["pairs"] == 4
