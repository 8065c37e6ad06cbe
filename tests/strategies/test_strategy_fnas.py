"""FNAS: its clipped loss by hand, its pool by identity, and each of its three parts on and off."""

import pytest
import torch
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.strategies.base import Evaluation
from cosearch.strategies.controller import clipped_loss
from cosearch.strategies.proposal import fnas
from cosearch.strategies.proposal.fnas import Fnas, FnasOptions, fnas_options, most_similar
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "mbconv_k3_e3", "skip", cells=3)


def score(architecture):
    return float(sum((i + 1) * c for i, c in enumerate(architecture.choices)))


def run(asks, worth=score, seed=0, failed=lambda i: False, **options):
    strategy = Fnas(SPACE, FnasOptions(**options), seeded(seed))
    for index in range(asks):
        architecture = strategy.ask()
        value = None if failed(index) else worth(architecture)
        strategy.tell(Evaluation(architecture, value, 1e-3, failed=failed(index)))
    return strategy


@pytest.mark.parametrize(
    "rho, advantage, expected",
    [(1.0, 2.0, -2.0), (1.1, 2.0, -2.2), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6)],
)
def test_the_loss_is_ppos(rho, advantage, expected):
    log_p = torch.tensor([0.3 + torch.tensor(rho).log()])
    assert float(clipped_loss(log_p, torch.tensor([0.3]), torch.tensor([advantage]))) == pytest.approx(expected, rel=1e-5)


def test_beyond_the_clip_an_earlier_network_moves_nothing():
    log_p = torch.tensor([1.0], requires_grad=True)
    clipped_loss(log_p, torch.tensor([0.5]), torch.tensor([2.0])).backward()
    assert float(log_p.grad) == 0.0


def test_the_most_similar_block_is_the_same_one_then_one_of_its_kind():
    conv, wide, deep = (OpSpec("conv", c, 8, 8, c, kernel=k, padding=k // 2) for c, k in ((4, 3), (16, 3), (4, 5)))
    inverted = OpSpec("mbconv", 4, 8, 8, 4, kernel=3, padding=1)
    assert most_similar([conv, deep, inverted], [inverted, wide, deep, conv]) == [3, 2, 0]
    assert most_similar([conv], [inverted, deep, wide]) == [1] and most_similar([conv], [conv, inverted, conv]) == [2]


def test_after_twenty_that_the_critic_is_sure_of_the_next_one_is_trained_and_counts_once():
    strategy = run(fnas.WARM + 1, threshold=1e9)
    assert strategy.skipped == 20 and len(strategy.samples) == fnas.WARM + 1 + 20


def test_the_critic_stands_in_for_trainings_once_it_is_sure_and_never_without_it():
    sure, strict, alone = (
        run(16, worth=lambda a: float(a.choices[0]), **options) for options in ({}, {"threshold": 0.0}, {"skip": False})
    )
    assert sure.skipped > 2 and alone.skipped == 0 and strict.skipped < sure.skipped
    assert len(sure.results) == len(alone.results) == 16
    assert len(sure.samples) == 16 + sure.skipped and sure.samples[fnas.WARM - 1].value in (0.0, 1.0, 2.0, 3.0, 4.0)
    assert all(sample.value == result.score for sample, result in zip(alone.samples, alone.results.all))


def test_doubt_is_taught_the_errors_that_were_made_before_learning():
    strategy = run(1)
    fresh = Fnas(SPACE, FnasOptions(), seeded(0))
    error, features = strategy.errors[0][1], torch.zeros(15)
    for point, choice in enumerate(strategy.results[0].choices):
        features[5 * point + choice] = 1.0
    assert error == pytest.approx(abs(float(fresh.value.module(features).detach())), rel=1e-5)  # of a score at the mean of one


def test_replay_changes_what_the_controller_learns_from_the_second_batch_on():
    def weights(asks, replay):
        return run(asks, skip=False, replay=replay).controller.cell.weight_ih.detach()

    assert torch.equal(weights(4, True), weights(4, False)) and not torch.equal(weights(8, True), weights(8, False))


def test_every_block_has_a_start_once_something_is_trained_and_none_without_the_pool():
    strategy = run(5, failed=lambda i: i == 1)
    proposed = strategy.ask()
    inheritance = strategy.inherits()
    assert len(inheritance.blocks) == len(proposed.ops()) and None not in inheritance.blocks and 1 not in inheritance.evaluations
    for op, (index, block) in zip(proposed.ops(), inheritance.blocks):
        pool = [other for i in (0, 2, 3, 4) for other in SPACE.architecture(strategy.results[i].choices).ops()]
        donor = SPACE.architecture(strategy.results[index].choices).ops()[block]
        assert donor == op or op not in pool
    off = run(5, pool=False)
    off.ask()
    assert off.inherits() is None and Fnas(SPACE, FnasOptions(), seeded(0)).inherits() is None


def test_the_controller_moves_to_what_scores_high():
    strategy = run(80, skip=False)
    drawn = strategy.controller.draw(200, seeded(5)).choices.float().mean(0)
    assert float(drawn[2]) > 2.8  # the third point counts most: uniform draws have 2


def test_a_threshold_without_a_critic_that_stands_in_is_refused():
    with pytest.raises(ConfigError, match=r"threshold=0\.1 has no effect with strategy\.values\.skip=false"):
        fnas_options(StrategyConfig(name="fnas", values={"skip": False, "threshold": 0.1}))
    assert fnas_options(StrategyConfig(name="fnas", values={"threshold": 0.1})).threshold == 0.1
