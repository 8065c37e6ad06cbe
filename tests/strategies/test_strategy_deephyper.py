"""DeepHyper's controllers: whose change reaches the server when, the cache, and a recorded order that is repeated."""

import pytest
import torch
from small_space import small_space

from cosearch.strategies.base import Evaluation
from cosearch.strategies.controller import clipped_loss
from cosearch.strategies.proposal.deephyper import DeepHyper, DeepHyperOptions
from cosearch.testing.conformance import seeded

SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=3)


def score(architecture):
    return float(sum((i + 1) * c for i, c in enumerate(architecture.choices)))


def made(seed=0, **options):
    return DeepHyper(SPACE, DeepHyperOptions(**{"cache": False, **options}), seeded(seed))


def told(strategy, *asks):
    """Ask for so many, and tell these in this order."""
    asked = [strategy.ask() for _ in asks]
    first = strategy.asked - len(asked)
    for index in asks:
        strategy.tell(Evaluation(asked[index - first], score(asked[index - first]), 1e-3, asked=index))
    return asked


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_full_batch_changes_the_server_at_once_by_four_steps_of_adam_on_ppos_loss():
    strategy, twin = made(batch=2), made(batch=2)
    before = {key: value.clone() for key, value in strategy.server.items()}
    asked = told(strategy, 0, 1, 2)  # the first controller drew 0 and 2
    choices = torch.tensor([asked[0].choices, asked[2].choices])
    sign = 1.0 if score(asked[0]) > score(asked[2]) else -1.0
    optimiser, old = torch.optim.Adam(twin.controller.parameters(), 0.001), twin.controller.of(choices).log_p.detach()
    for _ in range(4):
        optimiser.zero_grad()
        drawn = twin.controller.of(choices)
        (clipped_loss(drawn.log_p, old, torch.tensor([sign, -sign])) - 0.01 * drawn.entropy.mean()).backward()
        optimiser.step()
    assert score(asked[0]) != score(asked[2]) and not same(before, strategy.server)
    for key, value in twin.controller.state_dict().items():
        assert torch.allclose(strategy.server[key], value, atol=1e-6)
    assert strategy.fetched[0] is strategy.server and same(strategy.fetched[1], before)  # the second one has the old ones


def test_a2c_waits_for_all_and_takes_the_mean():
    together, alone = made(batch=2, mode="a2c"), made(batch=2)
    before = {key: value.clone() for key, value in together.server.items()}
    for strategy in (together, alone):
        told(strategy, 0, 1, 2)
    first = {key: alone.server[key] - before[key] for key in before}
    assert same(together.server, before) and together.changes[0] is not None
    told(together, 3)
    second = made(batch=2)
    told(second, 0, 1, 2)
    second.fetched[1] = before
    second.server = before
    second.batches[0] = []
    told(second, 3)
    for key in before:
        expected = before[key] + 0.5 * (first[key] + second.server[key] - before[key])
        assert torch.allclose(together.server[key], expected, atol=1e-6)
    assert all(fetched is together.server for fetched in together.fetched) and together.changes == [None, None]


def test_the_order_of_telling_decides_whose_batch_is_full_and_results_go_to_the_controller_that_drew():
    other = made(batch=3)
    told(other, 2, 0, 1)
    assert [len(batch) for batch in other.batches] == [2, 1] and [r.choices for r in other.results.all][1] == other.batches[0][1][
        0
    ]


def test_a_result_that_nobody_waits_for_is_refused_and_changes_nothing():
    strategy = made()
    told(strategy, 0)
    with pytest.raises(ValueError, match="a result of proposal 0"):
        told(strategy, 0)
    assert len(strategy.results) == 1 and sum(map(len, strategy.batches)) == 1


def test_the_cache_answers_what_was_evaluated():
    space = small_space("conv_k3", "skip", cells=1)  # two architectures
    with_cache, without = (DeepHyper(space, DeepHyperOptions(cache=cache), seeded(0)) for cache in (True, False))
    for strategy in (with_cache, without):
        for _ in range(6):
            strategy.tell(Evaluation(strategy.ask(), 1.0, 1e-3))
    assert with_cache.hits > 20 and without.hits == 0
    assert len({result.choices for result in with_cache.results.all[:2]}) == 2


def test_the_cache_answers_twenty_draws_in_a_row_and_the_next_one_is_trained_and_counts_once():
    strategy = DeepHyper(small_space("conv_k3", cells=1), DeepHyperOptions(agents=1, batch=1000), seeded(0))
    for asks in range(1, 4):
        strategy.tell(Evaluation(strategy.ask(), 1.0, 1e-3))
        assert strategy.hits == 20 * (asks - 1) and len(strategy.batches[0]) == asks + strategy.hits


@pytest.mark.parametrize("options", [{"mode": "a2c"}, {"agents": 1}, {"batch": 2}])
def test_each_option_changes_what_is_learned(options):
    servers = []
    for more in ({}, options):
        strategy = made(**more)
        for n in range(10):
            told(strategy, n)
        servers.append(strategy.server)
    assert not same(*servers)
