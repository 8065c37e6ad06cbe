"""L2NAS: its loss against numpy's quantile, its state against a mean made here, its critic's two forms, its search on a toy."""

import numpy as np
import pytest
import torch
from additive_task import SPACE, TRUTH, run

from cosearch.config.search import StrategyConfig
from cosearch.space.derivation.derive import Limit
from cosearch.strategies.base import Evaluation, Feasible
from cosearch.strategies.proposal.l2nas import EPSILON, L2nas, L2nasOptions, l2nas_options, quantile_loss
from cosearch.strategies.proposal.random_search import RandomOptions, RandomSearch
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError


def l2nas(seed=0, feasible=lambda a: True, candidates=30, **options):
    return L2nas(SPACE, L2nasOptions(candidates, **options), seeded(seed), feasible)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 0.95])
def test_the_loss_is_least_at_numpys_quantile(tau):
    sample = np.random.default_rng(0).gamma(2.0, 1.0, 201)
    lowest, highest = (np.quantile(sample, tau, method=method) for method in ("lower", "higher"))
    grid = np.union1d(np.linspace(0.0, 12.0, 4001), sample)
    losses = [float(quantile_loss(torch.from_numpy(sample - value), tau)) for value in grid]
    assert lowest - 1e-9 <= grid[int(np.argmin(losses))] <= highest + 1e-9


def test_the_loss_of_an_error_by_hand():
    error = torch.tensor([2.0, -1.0, 0.0])
    assert float(quantile_loss(error, 0.9)) == pytest.approx((2.0 * 0.9 + 1.0 * 0.1 + 0.0) / 3)


@pytest.mark.slow  # thousands of steps of its critic
@pytest.mark.parametrize("critic, expected", [("quantile", np.quantile(np.arange(11.0), 0.9)), ("squared", 5.0)])
def test_its_critic_learns_a_high_quantile_and_the_squared_one_the_mean(critic, expected):
    # one state and one action with eleven scores from 0 to 10, each three times
    only, strategy = SPACE.architecture([0] * 5), l2nas(critic=critic)
    scores = np.random.default_rng(1).permutation(np.tile(np.arange(11.0), 3))
    strategy.asked = [(strategy.mean_of_best(), torch.cat(only.one_hot()).float())] * len(scores)
    for score in scores:
        strategy.results.add(Evaluation(only, float(score), 1e-3))
    for _ in range(60):
        strategy._learn()
    states, actions = (torch.stack([pair[i] for pair in strategy.asked]) for i in (0, 1))
    with torch.no_grad():
        value = float(strategy.value(states, actions).mean()) * float(scores.std(ddof=1)) + float(scores.mean())
    assert value == pytest.approx(expected, abs=1.0)


def test_its_state_is_the_mean_of_the_best_so_far():
    strategy = l2nas(top=3)
    assert torch.equal(strategy.mean_of_best(), torch.full((20,), 0.25))
    asked = run(strategy, 12)
    best = sorted(set(asked), key=lambda choices: -TRUTH[choices])
    counted = sorted(asked, key=lambda choices: -TRUTH[choices])[:3]
    expected = np.mean([np.eye(4)[list(choices)].ravel() for choices in counted], 0)
    assert np.allclose(strategy.mean_of_best().numpy(), expected) and best


def test_failures_and_missing_scores_are_neither_remembered_nor_among_the_best():
    strategy = l2nas()
    for score, failed in ((None, True), (None, False), (1.0, False)):
        strategy.tell(Evaluation(strategy.ask(), score, 1e-3, failed))
    expected = SPACE.architecture(strategy.results[2].choices)
    assert torch.equal(strategy.mean_of_best(), torch.cat(expected.one_hot()).float()) and strategy.best() == 2


def test_exploration_falls_over_the_first_half():
    strategy = l2nas(candidates=20)
    found = []
    for _ in range(20):
        found.append(strategy.epsilon)
        strategy.asked.append((torch.zeros(20), torch.zeros(20)))
    assert found[0] == 1.0 and found[5] == pytest.approx((1.0 + EPSILON) / 2) and found[10:] == pytest.approx([EPSILON] * 10)


def test_an_action_becomes_the_best_architecture_within_the_targets():
    rows = torch.rand(20, generator=seeded(4))
    costs = np.random.default_rng(5).random((5, 4)).tolist()

    class Bound:
        limit = Limit(costs, 0.0, 1.6)

        def met_by(self, architecture):
            return self.limit.meets(architecture.choices)

    sums = {choices: sum(float(rows[4 * p + c]) for p, c in enumerate(choices)) for choices in TRUTH}
    within = max((c for c in TRUTH if Bound.limit.meets(c)), key=lambda choices: sums[choices])
    assert l2nas(feasible=Feasible((Bound(),))).architecture_of(rows).choices == within
    assert l2nas().architecture_of(rows).choices == max(sums, key=lambda choices: sums[choices])
    without_limits = l2nas(feasible=lambda a: Bound.limit.meets(a.choices)).architecture_of(rows)
    assert Bound.limit.meets(without_limits.choices)


@pytest.mark.slow  # many whole searches
def test_it_beats_random_search_at_equal_evaluations():
    ours = [max(TRUTH[c] for c in run(l2nas(seed, candidates=40), 40)) for seed in range(4)]
    drawn = [max(TRUTH[c] for c in run(RandomSearch(SPACE, RandomOptions(), seeded(seed)), 40)) for seed in range(4)]
    assert np.mean(ours) > np.mean(drawn)


def test_each_option_changes_the_proposals():
    found = [run(l2nas(candidates=8, **options), 12) for options in ({}, {"critic": "squared"}, {"tau": 0.5}, {"top": 1})]
    assert all(found[0] != other for other in found[1:])


def test_a_quantile_of_a_squared_critic_is_refused():
    with pytest.raises(ConfigError, match=r"tau=0\.5 has no effect with strategy\.values\.critic=squared"):
        l2nas_options(StrategyConfig(name="l2nas", values={"critic": "squared", "tau": 0.5}))
    assert l2nas_options(StrategyConfig(name="l2nas", candidates=7)) == L2nasOptions(7)
