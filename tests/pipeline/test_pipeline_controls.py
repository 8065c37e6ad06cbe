"""The finished runs that may stand beside a result."""

import dataclasses
import re

import numpy as np
import old_run
import pytest
from pipeline_runs import TINY
from scipy.stats import chi2

from cosearch.config.env import EnvConfig
from cosearch.config.run import resolve
from cosearch.pipeline.search.gradient_search import DRAWN, METHOD, found_by
from cosearch.planning.control import CONTROLS, SAME_SCORES, check_control, control_of
from cosearch.planning.plan import make_plan
from cosearch.planning.request import resolve_request
from cosearch.record.rundir import RunDir
from cosearch.strategies.regression import DrawnPaths, fit_scores
from cosearch.strategies.relaxation import learned
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError
from latency_tables.opspec import Device

CANDIDATE = {"choices": [8, 8, 1, 8, 1], "score": 4.5, "latency_s": 2e-4, "env_steps": 256}


def finished(folder, strategy):
    run = RunDir.create(folder, "one", old_run.content("run.json"))
    run.write_json("summary.json", old_run.content("summary.json", strategy=strategy))
    derived_by = {"method": "best training score among the candidates", "candidates": [CANDIDATE]}
    run.write_json("architecture.json", old_run.content("architecture.json", derived_by=derived_by))
    return resolve(overrides=[f"control={run.path}"])


@pytest.mark.parametrize("strategy", CONTROLS)
def test_a_run_of_either_control_may_be_shown(strategy, tmp_path):
    control = control_of(finished(tmp_path, strategy))
    assert control.strategy == strategy and control.score_mean == old_run.content("summary.json")["score_mean"]
    assert [(item.choices, item.score) for item in control.candidates] == [((8, 8, 1, 8, 1), 4.5)]


def test_a_search_is_no_control(tmp_path):
    with pytest.raises(ConfigError, match="a run of 'evolution', expected a run made with --strategy random or largest"):
        control_of(finished(tmp_path, "evolution"))
    assert CONTROLS == ("random", "largest") and control_of(resolve()) is None


def test_a_control_is_of_the_same_device_or_table(tmp_path):
    config, recorded = finished(tmp_path, "random"), old_run.content("run.json")
    device = Device(**recorded["device"])
    check_control(config, device, recorded["table"]["table_id"])
    check_control(config, device, None)  # an accelerator's design is searched: it has no table of its own
    check_control(config, dataclasses.replace(device, description="in other words"), None)
    with pytest.raises(ConfigError, match="their latencies cannot be compared"):
        check_control(config, device, "0" * 64)
    for other in ({"name": "zc706"}, {"dtype": "int8"}, {"threads": 2}, {"runtime": "tvm"}):
        with pytest.raises(ConfigError, match=r"made for jetson \(roofline, float32, 1 thread\).*latencies cannot be compared"):
            check_control(config, dataclasses.replace(device, **other), None)
    with pytest.raises(ConfigError, match="this run is for zc706"):
        resolve_request(dataclasses.replace(config, device="zc706"))


TASK = {  # each key of the task by which scores mean something else: another value, and what is said of it
    "name": ("minatar:asterix", "'minatar:asterix'"),
    "train_levels": (7, "7"),
    "kwargs": ({"g": 1.0}, "{'g': 1.0}"),
    "layout": ("channels_first", "'channels_first'"),
    "wrappers": (("grey_scale",), r"['grey_scale']"),
    "episode_steps": (5, "5"),
    "metric": ("length", "'length'"),
}


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(EnvConfig)])
def test_a_control_is_of_the_same_task(key, tmp_path):
    config, recorded = finished(tmp_path, "random"), old_run.content("run.json")
    if key in SAME_SCORES:
        other = dataclasses.replace(config.env, **{key: 3})
        check_control(dataclasses.replace(config, env=other), Device(**recorded["device"]), recorded["table"]["table_id"])
        return
    value, words = TASK[key]
    other = dataclasses.replace(config.env, **{key: value})
    with pytest.raises(ConfigError, match=rf"this one has env\.{key}={re.escape(words)}: their scores cannot be compared"):
        check_control(dataclasses.replace(config, env=other), Device(**recorded["device"]), recorded["table"]["table_id"])


def test_a_search_that_preferred_nothing_draws_uniformly_among_what_meets_the_target():
    plan = make_plan(resolve(overrides=TINY))
    every = [plan.space.architecture(choices) for choices in np.ndindex(*[len(point.candidates) for point in plan.space.points])]
    feasible = {a.choices for a in every if plan.constraints[0].cost.exact(a) <= plan.constraints[0].value}
    assert 20 < len(feasible) < len(every)
    alike = [[-1.25] * len(point.candidates) for point in plan.space.points]
    generator, counts = seeded(0), dict.fromkeys(feasible, 0)
    for _ in range(20 * len(feasible)):
        architecture, derived_by = found_by(plan, alike, generator)
        counts[architecture.choices] += 1  # a KeyError misses the target
        assert derived_by.method == DRAWN and derived_by.scored_by is None
    statistic = sum((count - 20) ** 2 / 20 for count in counts.values())
    assert statistic < chi2.ppf(1 - 1e-4, len(feasible) - 1)
    assert found_by(plan, alike, seeded(3))[0] == found_by(plan, alike, seeded(3))[0]


def test_scores_that_differ_choose():
    plan = make_plan(resolve(overrides=TINY))
    scores = [[0.0] * len(point.candidates) for point in plan.space.points]
    scores[0][-1] = 1e-6
    generator = seeded(0)
    architecture, derived_by = found_by(plan, scores, generator)
    assert (derived_by.method, derived_by.scored_by) == (METHOD, "scores") and architecture.choices[0] == len(scores[0]) - 1
    assert generator.get_state().equal(seeded(0).get_state())  # nothing is drawn


@pytest.mark.parametrize("name", ["rl-darts", "darts", "ms-darts", "idarts", "radars", "reinforce", "snas", "unas"])
def test_before_a_first_step_nothing_was_preferred_on_cells_either(name):
    words = [word for word in TINY if not word.startswith(("space.", "strategy."))]
    plan = make_plan(resolve(overrides=[*words, "space.name=cell", "objective.latency_target_s=0.01", f"strategy.name={name}"]))
    strategy = plan.strategy.make(plan.space, plan.strategy.options(plan.config.strategy), seeded(0))
    assert any(zero is not None for zero in plan.space.zeros) and not learned(strategy.scores(), plan.space.zeros)
    assert found_by(plan, strategy.scores(), seeded(0))[1].method == DRAWN


def test_a_regression_chooses_where_the_strategy_derives_by_it():
    """Scores and regression prefer opposite ends of the first point; the words of the record say which was taken."""
    sizes = [len(point.candidates) for point in make_plan(resolve(overrides=TINY)).space.points]
    scores = [[0.0] * size for size in sizes]
    scores[0][-1] = 1.0
    drawn = DrawnPaths(len(sizes))
    for i in range(200):
        choices = [(i * 7 + p) % size for p, size in enumerate(sizes)]
        drawn.add(choices, float(choices[0]), i / 200)  # the first candidate has the lowest loss
    fit = fit_scores(sizes, drawn)
    chosen = {}
    for way in ("scores", "regression"):
        plan = make_plan(resolve(overrides=[*TINY, f"strategy.derive_by={way}"]))
        architecture, derived_by = found_by(plan, scores, seeded(0), fit)
        chosen[way] = architecture.choices[0]
        assert derived_by.scored_by == way and derived_by.scores == tuple(map(tuple, scores))
        assert derived_by.regression.scores == tuple(map(tuple, fit.scores)) and derived_by.regression.pairs == 200
    assert chosen == {"scores": sizes[0] - 1, "regression": 0}
