"""MONAS: its rules by table, its policy gradient by hand, and what each option changes."""

import pytest
import torch
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.strategies.base import Evaluation
from cosearch.strategies.proposal.monas import LR, Monas, MonasOptions, monas_options, reward
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError, RequestError

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
COSTS = [[3.0, 1.0, 2.0], [2.0, 3.0, 0.5]]  # the cheapest: 1 and 2


def cost(architecture):
    return sum(row[c] for row, c in zip(COSTS, architecture.choices)) * 1e-3


@pytest.mark.parametrize(
    "rule, accuracy, energy, words, expected",
    [
        ("mixed", 0.8, 0.5, {"weight": 1.0}, 0.8),
        ("mixed", 0.8, 0.5, {"weight": 0.0}, -0.5),
        ("mixed", 0.8, 0.5, {"weight": 0.25}, 0.25 * 0.8 - 0.75 * 0.5),
        ("power-limit", 0.8, 0.5, {"within": True}, 0.8),
        ("power-limit", 0.8, 0.5, {"within": False}, 0.0),
        ("accuracy-limit", 0.8, 0.3, {"accurate": True}, 0.7),
        ("accuracy-limit", 0.8, 0.3, {"accurate": False}, 0.0),
    ],
)
def test_the_rules_are_those_of_the_paper(rule, accuracy, energy, words, expected):
    assert reward(rule, accuracy, energy, **words) == pytest.approx(expected)


def monas(seed=0, feasible=lambda a: True, **options):
    return Monas(SPACE, MonasOptions(**options), seeded(seed), feasible)


def run(strategy, asks, score=lambda a: 1.0, energy_j=None):
    for _ in range(asks):
        architecture = strategy.ask()
        strategy.tell(Evaluation(architecture, score(architecture), cost(architecture), energy_j=energy_j))
    return [result.choices for result in strategy.results.all]


def share(strategy, choices):
    return float(strategy.controller.of(torch.tensor([choices])).log_p.detach().exp())


def test_scores_have_their_place_between_the_lowest_and_the_highest():
    strategy = monas()
    for score, failed in ((3.0, False), (7.0, False), (4.0, False), (None, False), (None, True)):
        strategy.tell(Evaluation(SPACE.architecture([0, 0]), score, 1e-3, failed))
    assert [strategy.accuracy(i) for i in range(5)] == [0.0, 1.0, 0.25, 0.0, 0.0]
    alone = monas()
    alone.tell(Evaluation(SPACE.architecture([0, 0]), 3.0, 1e-3))
    assert alone.accuracy(0) == 0.5


def test_each_step_is_adams_on_the_reward_over_the_running_mean():
    strategy, choices = monas(weight=1.0), torch.tensor([[1, 2]])
    other = monas(weight=1.0)
    optimiser = torch.optim.Adam(other.controller.parameters(), LR)
    mean, scores = None, []
    for score in (2.0, 4.0, 3.0):
        strategy.tell(Evaluation(SPACE.architecture([1, 2]), score, 1e-3))
        scores.append(score)
        low, high = min(scores), max(scores)
        value = 0.5 if low == high else (score - low) / (high - low)
        optimiser.zero_grad()
        (-(value - (value if mean is None else mean)) * other.controller.of(choices).log_p[0]).backward()
        optimiser.step()
        mean = value if mean is None else 0.9 * mean + 0.1 * value
    for mine, theirs in zip(strategy.controller.parameters(), other.controller.parameters()):
        assert torch.allclose(mine, theirs, atol=1e-7)
    assert strategy.baseline == pytest.approx(mean)


def test_with_no_weight_on_the_score_the_cheapest_becomes_the_most_probable():
    strategy = monas(weight=0.0)
    before = share(strategy, (1, 2))
    run(strategy, 150, score=lambda a: 10.0 * a.choices[0])
    shares = {(i, j): share(strategy, (i, j)) for i in range(3) for j in range(3)}
    assert max(shares, key=shares.get) == (1, 2) and shares[1, 2] > max(0.6, 3 * before)


def test_above_the_limit_of_the_score_only_the_cost_counts():
    strategy = monas(rule="accuracy-limit", score_limit=0.5)
    run(strategy, 250, score=lambda a: float(a.choices[1] != 2))  # the cheapest choice of the second point is not good enough
    shares = {(i, j): share(strategy, (i, j)) for i in range(3) for j in range(3)}
    assert max(shares, key=shares.get) == (1, 0)


def test_what_is_over_the_power_limit_teaches_at_once():
    rules = ({"rule": "power-limit"}, {"weight": 1.0})
    learns, redraws = (monas(feasible=lambda a: a.choices[0] != 0, **rule) for rule in rules)
    for strategy in (learns, redraws):
        run(strategy, 60)  # all scores are equal: nothing else teaches
    over = [sum(share(strategy, (0, j)) for j in range(3)) for strategy in (learns, redraws)]
    assert over[0] < 0.1 and over[1] == pytest.approx(1 / 3, abs=0.03)


def test_energy_in_place_of_latency_needs_one():
    strategy = monas(cost="energy")
    run(strategy, 2, energy_j=2.0)
    assert strategy.highest_cost == 2.0
    with pytest.raises(RequestError, match="energies"):
        run(strategy, 1)


@pytest.mark.parametrize(
    "values, text",
    [
        ({"rule": "accuracy-limit"}, "score_limit"),
        ({"score_limit": 3.0}, "score_limit"),
        ({"rule": "power-limit", "weight": 0.5}, r"weight=0\.5 has no effect with strategy\.values\.rule=power-limit"),
        ({"rule": "power-limit", "cost": "energy"}, "cost=energy has no effect"),
        ({"weight": 2.0}, "weight"),
        ({"rule": "sum"}, "rule"),
    ],
)
def test_options_that_a_rule_does_not_use_are_refused(values, text):
    with pytest.raises(ConfigError, match=text):
        monas_options(StrategyConfig(name="monas", values=values))
