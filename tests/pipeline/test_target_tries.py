"""Which architecture is measured next: on devices whose truth is known, against a walk through the whole space."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from made_table import made_table
from pipeline_runs import TINY

from cosearch.config.run import resolve
from cosearch.deploy.readings import Readings
from cosearch.pipeline.target.tries import HOLDS, NONE_LEFT, NOTHING_CAN, SLACK, USED_UP, Scores, Tries, saved_scores
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.record.results.architecture import Derivation, RegressionRecord
from cosearch.record.results.target_rounds import AFTER, BEFORE, TargetRounds
from cosearch.report.rounds import OUTCOMES
from latency_tables.board.timing import Visit
from latency_tables.errors import MeasurementError

pytest.importorskip("minatar", reason="MinAtar is not installed")
load_builtins()
WORDS = (*(word for word in TINY if not word.startswith("objective")), "env.name=minatar:breakout")
NOISE = 0.004  # half width of an interval, as a share


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A plan on a made-up table of this machine."""
    path = made_table(tmp_path_factory.mktemp("table") / "this.jsonl", WORDS)
    return make_plan(resolve(overrides=[*WORDS, f"table={path}", "objective.latency_target_s=1"]))


def plan_of(table, target_s):
    return replace(table, constraints=(replace(table.constraints[0], value=target_s),))


def readings(value_s, noise=NOISE):
    """What a device says that takes so long."""
    values = [value_s * (1 - noise), value_s, value_s * (1 + noise)]
    return Readings(1000, [Visit(v, v, v, v, v, v, v, 9, 1, 1.0) for v in values])


def every(plan):
    """Choices and predicted seconds of all architectures."""
    sizes = [range(len(point.candidates)) for point in plan.space.points]
    cost = plan.constraints[0].cost
    return {choices: cost.exact(plan.space.architecture(choices)) for choices in itertools.product(*sizes)}


def tried(plan, scores, truth, budget=8, noise=NOISE):
    """Rounds until the end, on a device with a true latency for each architecture."""
    first = max((c for c, p in every(plan).items() if p <= plan.constraints[0].bound), key=scores.of)
    tries = Tries(plan, scores, plan.space.architecture(first), TargetRounds(budget=budget), (0,), "a device")
    while (architecture := tries.next()) is not None:
        tries.add(architecture, readings(truth(tuple(architecture.choices)), noise).of, BEFORE)
    return tries, tries.end()


def random_scores(plan, seed):
    rng, macs = np.random.default_rng(seed), plan.space.macs()
    most = max(value for row in macs for value in row)
    return Scores([[float(value / most + 0.3 * rng.normal()) for value in row] for row in macs])


DEVICES = {
    "as the table says": (0.0, 1.0),
    "slower": (0.0, 1.3),
    "much slower": (0.0, 2.2),
    "faster": (0.0, 0.7),
    "a fixed cost a call": (4e-5, 1.0),
    "a fixed cost and slower": (3e-5, 1.4),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scatter", [0.0, 0.03])
def test_it_holds_uses_the_target_and_measures_none_twice(table, device, scatter):
    offset, scale = DEVICES[device]
    for seed in range(6):
        plan = plan_of(table, 1.0)
        predicted, scores = every(plan), random_scores(plan, seed)
        rng = np.random.default_rng(seed)
        true_s = {c: offset + scale * p * (1 + scatter * rng.uniform(-1, 1)) for c, p in predicted.items()}
        target_s = min(true_s.values()) + 0.3 * (max(true_s.values()) - min(true_s.values()))
        plan = plan_of(table, max(target_s, min(predicted.values())))
        target_s = plan.constraints[0].value
        _, ended = tried(plan, scores, true_s.get)
        last = ended.rounds[ended.deployed]
        assert ended.outcome == HOLDS and true_s[last.choices] * (1 + NOISE) <= target_s
        assert len({each.choices for each in ended.rounds}) == len(ended.rounds) <= 8
        if last.slack > SLACK and len(ended.rounds) < 8:  # then none that is clearly within has a higher score: a walk tells
            clearly = [scores.of(c) for c, value in true_s.items() if value <= target_s * (1 - SLACK - 3 * scatter)]
            assert scores.of(last.choices) >= max(clearly, default=-9.0) - 1e-9


def test_where_scores_cannot_tell_the_larger_network_uses_the_target(table):
    """Scores that prefer a small network by less than a tie leave slack unused without it, and not with it."""
    predicted = every(table)
    target_s = sorted(predicted.values())[400]
    plan = plan_of(table, target_s)
    rows = [[-float(value) for value in row] for row in plan.space.macs()]
    largest = max(abs(value) for row in rows for value in row)
    small = Scores([[value / largest for value in row] for row in rows])
    _, kept = tried(plan, small, predicted.get)
    assert kept.rounds[kept.deployed].slack > SLACK and len(kept.rounds) == 1
    _, used = tried(plan, replace(small, tie=10.0), predicted.get)
    last = used.rounds[used.deployed]
    assert used.outcome == HOLDS and last.slack <= SLACK and last.score < kept.rounds[0].score
    band = [c for c, p in predicted.items() if target_s * (1 - SLACK) <= p * (1 + NOISE) <= target_s * (1 - NOISE)]
    assert last.choices in band
    assert len(used.rounds) == 2  # the second is looked for in the band at once, not among what is as good and as small
    _, near = tried(plan, replace(small, tie=kept.rounds[0].score - last.score - 0.01), predicted.get)
    assert near.rounds[near.deployed].choices == kept.rounds[0].choices


def test_where_nothing_can_the_cheapest_is_measured_and_named(table):
    plan = plan_of(table, 1.0)
    predicted = every(plan)
    target_s = 1.5 * min(predicted.values())
    plan = plan_of(table, target_s)
    _, ended = tried(plan, random_scores(plan, 1), lambda choices: 10 * predicted[choices])
    assert ended.outcome == NOTHING_CAN and len(ended.rounds) < 8
    assert min(predicted, key=predicted.get) in [each.choices for each in ended.rounds]
    assert all(not each.holds for each in ended.rounds)
    measured = [10 * predicted[each.choices] for each in ended.rounds]
    assert measured[ended.deployed] == min(measured)


def test_a_cheapest_one_that_is_too_close_to_tell_is_not_said_to_be_over(table):
    """Every architecture measures an interval around the target itself: none is shown to be over it, none within."""
    plan = plan_of(table, sorted(every(table).values())[300])
    target_s = plan.constraints[0].value
    tries, ended = tried(plan, random_scores(plan, 1), lambda choices: target_s, budget=50, noise=0.05)
    assert {each.figures[0].verdict for each in ended.rounds} == {"unclear"} and tries.left > 0
    assert min(every(plan), key=every(plan).get) in [each.choices for each in ended.rounds]
    assert ended.outcome == NONE_LEFT and ended.outcome in OUTCOMES
    assert not any("over" in each.why for each in ended.rounds) and any("too close to tell" in each.why for each in ended.rounds)
    over, _ = tried(plan, random_scores(plan, 1), lambda choices: 1.3 * target_s, budget=2)
    assert "was over" in over.rounds.rounds[1].why


def test_a_used_up_budget_takes_the_nearest(table):
    plan = plan_of(table, 1.0)
    predicted = every(plan)
    plan = plan_of(table, sorted(predicted.values())[300])
    _, ended = tried(plan, random_scores(plan, 2), lambda choices: 1.5 * predicted[choices], budget=1)
    assert (ended.outcome, len(ended.rounds), ended.deployed) == (USED_UP, 1, 0)


def test_noise_that_is_larger_than_the_margin_is_not_taken_for_under(table):
    plan = plan_of(table, 1.0)
    predicted = every(plan)
    plan = plan_of(table, sorted(predicted.values())[300])
    scores = random_scores(plan, 3)
    found = max((c for c, p in predicted.items() if p <= plan.constraints[0].bound), key=scores.of)
    factor = 0.99 * plan.constraints[0].value / predicted[found]
    _, ended = tried(plan, scores, lambda choices: factor * predicted[choices], noise=0.05)
    assert any(each.figures[0].verdict == "unclear" for each in ended.rounds) and ended.outcome == HOLDS
    assert ended.rounds[ended.deployed].figures[0].high <= plan.constraints[0].value


def test_after_the_retraining_the_figure_decides_and_the_newest_round_of_an_architecture_counts(table):
    plan = plan_of(table, 1.0)
    predicted = every(plan)
    plan = plan_of(table, sorted(predicted.values())[300])
    target_s, scores = plan.constraints[0].value, random_scores(plan, 4)
    tries, ended = tried(plan, scores, lambda choices: predicted[choices])
    chosen = plan.space.architecture(ended.rounds[ended.deployed].choices)
    count = len(tries.rounds.rounds)
    made = tries.add(chosen, readings(target_s * 0.999, 0.05).of, AFTER)
    assert made.holds and tries.best() == count
    made = tries.add(chosen, readings(target_s * 1.05).of, AFTER)  # finished again: takes the place of the one before
    assert not made.holds and len(tries.rounds.rounds) == count + 1 and tries.best() != count
    following = tries.best()
    if following is None:
        architecture = tries.next()
        assert tuple(architecture.choices) != tuple(chosen.choices)
        assert predicted[tuple(architecture.choices)] < predicted[tuple(chosen.choices)]
    else:
        assert tries.rounds.rounds[following].choices != tuple(chosen.choices)


def test_what_another_device_measured_decides_nothing_here(table):
    plan = plan_of(table, 1.0)
    predicted = every(plan)
    plan = plan_of(table, sorted(predicted.values())[300])
    target_s, scores = plan.constraints[0].value, random_scores(plan, 4)
    there, ended = tried(plan, scores, lambda choices: 1.2 * predicted[choices])
    assert ended.outcome == HOLDS and len(ended.rounds) > 1
    deployed = plan.space.architecture(ended.rounds[ended.deployed].choices)
    there.add(deployed, readings(target_s * 0.99).of, AFTER)
    here = Tries(plan, scores, deployed, there.rounds, (0,), "another device")
    assert here.left == there.rounds.budget and here.best() is None and here.constraints() == plan.constraints
    assert tuple(here.next().choices) == tuple(deployed.choices)
    here.add(deployed, readings(target_s * 1.1).of, AFTER)
    assert there.rounds.rounds == here.rounds.rounds[:-1]  # what the deployed one measured there is kept beside it
    assert here.best() is None and here.left == there.rounds.budget - 1 and here.nearest() == len(here.rounds.rounds) - 1
    following = here.next()
    assert predicted[tuple(following.choices)] < predicted[tuple(deployed.choices)]
    assert here.end().deployed == len(here.rounds.rounds) - 1 and here.end().outcome == USED_UP
    back = Tries(plan, scores, deployed, here.rounds, (0,), "a device")
    assert back.rounds.rounds[back.best()].choices == tuple(deployed.choices)


def test_a_round_of_some_targets_holds_none_of_the_others(table):
    words = [*WORDS, f"table={table.config.table}", "objective.latency_target_s=1", "objective.file_target_bytes=1000000"]
    plan = make_plan(resolve(overrides=words))
    metrics = [target.metric for target in plan.targets]
    size = (metrics.index("file_bytes"),)
    scores = random_scores(plan, 5)
    files = Tries(plan, scores, plan.space.architecture((0, 0, 0)), TargetRounds(budget=8), size, "a device")
    made = files.add(files.first, readings(1.0).of, BEFORE)
    assert made.holds and files.best() == 0
    both = Tries(plan, scores, files.first, files.rounds, range(len(metrics)), "a device")
    assert both.best() is None and both.left == 8 and tuple(both.next().choices) == (0, 0, 0)
    both.add(both.first, readings(0.9).of, BEFORE)
    assert both.best() == 1
    with pytest.raises(MeasurementError, match="a device gave no figure of latency_s"):
        both.add(both.first, lambda target: None, AFTER)


def test_without_scores_of_candidates_the_next_shares_most_choices(table):
    plan = plan_of(table, 1.0)
    found = (2, 0, 5)
    scores = saved_scores(plan, Derivation(method="best training score among the candidates"), found)
    totals = {choices: scores.of(choices) for choices in every(plan)}
    assert max(totals, key=totals.get) == found
    shared = lambda choices: sum(a == b for a, b in zip(choices, found))  # noqa: E731
    ranked = sorted(totals, key=totals.get, reverse=True)
    assert [shared(choices) for choices in ranked] == sorted(map(shared, totals), reverse=True)


@pytest.mark.parametrize("by", ["macs", "weights", "both"])
def test_the_largest_is_followed_by_the_next_largest_of_its_kind(table, by):
    words = [word for word in WORDS if not word.startswith("strategy.")]
    words = [
        *words,
        f"table={table.config.table}",
        "objective.latency_target_s=1",
        "strategy.name=largest",
        f"strategy.values.by={by}",
    ]
    plan = make_plan(resolve(overrides=words))
    networks = {choices: plan.space.architecture(choices).ops() for choices in every(plan)}
    macs, weights = (
        np.array([sum(map(size, ops)) for ops in networks.values()]) for size in (lambda o: o.macs, lambda o: o.params)
    )
    order = {"macs": macs, "weights": weights, "both": macs * weights}[by]
    found = list(networks)[int(np.argmax(order))]
    scores = saved_scores(plan, Derivation(method="best training score among the candidates"), found)
    totals = np.array([scores.of(choices) for choices in networks])
    near = np.argsort(-order)[:5]  # the product is a sum near the one that was found
    assert (np.diff(totals[near]) <= 1e-9).all() and totals[near[0]] == totals.max()
    assert by == "both" or np.array_equal(np.argsort(np.argsort(totals)), np.argsort(np.argsort(order)))


@pytest.mark.parametrize("correlation, tie", [(None, np.inf), (-0.3, np.inf), (0.6, 4 / 3), (1.0, 0.0)])
def test_a_regression_tells_architectures_apart_as_far_as_it_ranks(table, correlation, tie):
    rows = tuple(tuple(float(c % 2) * 2 for c in range(len(point.candidates))) for point in table.space.points)
    fit = RegressionRecord(scores=rows, pairs=9, r2=0.1, rank_correlation=correlation, penalty=1.0)
    found = saved_scores(table, Derivation(method="x", scored_by="regression", regression=fit), (0, 0, 0))
    spread = np.sqrt(sum(np.var(row) for row in rows))
    assert found.rows == rows and found.tie == pytest.approx(tie * spread)
