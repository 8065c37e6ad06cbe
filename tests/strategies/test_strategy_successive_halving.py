"""Successive halving among candidates: rungs by hand, ASHA's rule against its published pseudocode, exact totals in any order."""

import itertools
import math

import pytest
import torch

from cosearch.config.run import resolve
from cosearch.planning.budget import candidate_rungs, candidate_shares
from cosearch.planning.builtins import load_builtins
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.successive_halving import SuccessiveHalving
from latency_tables.errors import ConfigError


def rungs(steps, candidates, factor):
    load_builtins()
    config = resolve(
        overrides=[
            "env.num_envs=4",
            "rl.rollout_steps=8",
            f"budget.search_steps={steps}",
            f"strategy.candidates={candidates}",
            f"strategy.reduction_factor={factor}",
        ]
    )
    info = STRATEGIES.get("random")
    return candidate_rungs(config, info), candidate_shares(config, info)


@pytest.mark.parametrize(
    "rollouts, candidates, factor, expected",
    [
        (20, 8, 2, [[1] * 8, [1] * 4, [2] * 2, [4]]),  # 8 + 4 + 4 + 4
        (40, 8, 2, [[2] * 8, [2] * 4, [4] * 2, [8]]),
        (43, 8, 2, [[2] * 8, [2] * 4, [4] * 2, [11]]),  # what whole rollouts leave over goes to the last rung
        (21, 9, 3, [[1] * 9, [2] * 3, [6]]),
        (9, 5, 4, [[1] * 5, [4]]),
        (7, 4, 1, [[2, 2, 2, 1]]),
    ],
)
def test_the_steps_of_all_rungs_together_are_those_of_the_shares(rollouts, candidates, factor, expected):
    found, shares = rungs(32 * rollouts, candidates, factor)
    assert found == [[32 * each for each in rung] for rung in expected]
    assert sum(map(sum, found)) == sum(shares) == 32 * rollouts


def test_too_few_steps_or_candidates_are_refused_with_what_would_do():
    with pytest.raises(ConfigError, match=r"gives 19 rollouts .* which take 20: set budget.search_steps=640"):
        rungs(32 * 19, 8, 2)
    with pytest.raises(ConfigError, match="reduction_factor=4 of 3 candidates leaves none to train on"):
        rungs(32 * 40, 3, 4)


def published(scores, promoted, factor):
    """ASHA, algorithm 2 (get_job) of arXiv 1810.05934, as its pseudocode reads: the candidate and its rung, or None."""
    for k in reversed(range(len(scores) - 1)):
        top = sorted(scores[k], key=lambda i: scores[k][i], reverse=True)[: math.floor(len(scores[k]) / factor)]
        promotable = [i for i in top if i not in promoted[k]]
        if promotable:
            return promotable[0], k + 1
    return None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count, factor", [(8, 2), (9, 3), (13, 2), (16, 4)])
def test_it_promotes_as_the_published_rule_and_no_more_than_a_rung_takes(seed, count, factor):
    sizes = [count]
    while sizes[-1] >= factor:
        sizes.append(sizes[-1] // factor)
    halving = SuccessiveHalving(sizes, factor)
    scores, promoted = [{} for _ in sizes], [set() for _ in sizes]
    noise = torch.Generator().manual_seed(seed)
    worth = torch.randn(count, generator=noise).tolist()
    running, begun, trained = [], 0, [0] * len(sizes)
    while True:
        while len(running) < 3:
            expected = published_within(scores, promoted, factor, sizes)
            assert halving.more == (expected is not None)
            chosen = halving.next()
            assert (chosen and chosen[:2]) == expected
            if chosen is not None:
                index, rung, place = chosen
                promoted[rung - 1].add(index)
                assert place == len(promoted[rung - 1]) - 1
            elif begun < count:
                index, rung, begun = begun, 0, begun + 1
            else:
                break
            running.append((index, rung))
        if not running:
            break
        index, rung = running.pop(int(torch.randint(len(running), (), generator=noise)))
        trained[rung] += 1
        scores[rung][index] = worth[index] + 0.1 * rung
        halving.add(index, rung, scores[rung][index])
    assert trained == sizes  # in whatever order they ended, all rungs are full: the steps are exactly those of the plan


def published_within(scores, promoted, factor, sizes):
    """The published rule where each rung takes only so many: a full one is passed over."""
    hidden = [own if len(promoted[k]) < (sizes[k + 1] if k + 1 < len(sizes) else 0) else {} for k, own in enumerate(scores)]
    return published(hidden, promoted, factor)


def test_one_without_a_score_is_promoted_last_and_a_saved_state_goes_on():
    halving = SuccessiveHalving([4, 2, 1], 2)
    for index, score in enumerate([None, 1.0, None, 0.5]):
        halving.add(index, 0, score)
    assert halving.open(1, 0) and halving.next() == (1, 1, 0) and not halving.open(1, 0)
    restored = SuccessiveHalving([4, 2, 1], 2)
    restored.restore(halving.state())
    for one in (halving, restored):
        assert one.more and one.next() == (3, 1, 1) and not one.more and not one.open(0, 0)
        one.add(3, 1, 2.0)
        one.add(1, 1, 1.0)
        assert one.next() == (3, 2, 0) and one.next() is None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count, factor", [(8, 2), (9, 3), (27, 3), (16, 4)])
def test_a_failed_training_leaves_no_rung_short_as_long_as_there_is_a_candidate_for_it(seed, count, factor):
    """At the end each rung has as many trainings as it takes, or as many as the one below it has left unfailed."""
    sizes = [count]
    while sizes[-1] >= factor:
        sizes.append(sizes[-1] // factor)
    halving, noise = SuccessiveHalving(sizes, factor), torch.Generator().manual_seed(seed)
    running, begun, trained, whole = [], 0, [[] for _ in sizes], [set() for _ in sizes]
    while True:
        while len(running) < 3:
            chosen = halving.next()
            if chosen is None and begun == count:
                break
            running.append((begun, 0) if chosen is None else chosen[:2])
            begun += chosen is None
        if not running:
            break
        index, rung = running.pop(int(torch.randint(len(running), (), generator=noise)))
        trained[rung].append(index)
        if torch.rand((), generator=noise) < 0.3:
            halving.fail(index, rung)
            restored = SuccessiveHalving(sizes, factor)
            restored.restore(halving.state())
            halving = restored
        else:
            whole[rung].add(index)
            halving.add(index, rung, float(torch.randn((), generator=noise)))
    assert [len(rung) for rung in trained] == [count, *(min(size, len(left)) for size, left in zip(sizes[1:], whole))]
    assert all(set(rung) <= left and len(set(rung)) == len(rung) for rung, left in zip(trained[1:], whole))
    assert [halving.promoted(rung) for rung in range(len(sizes) - 1)] == [len(rung) for rung in trained[1:]]


def test_one_that_failed_is_counted_and_the_next_best_takes_its_place():
    halving = SuccessiveHalving([4, 2, 1], 2)
    halving.add(0, 0, 4.0)
    halving.fail(1, 0)
    assert halving.next() == (0, 1, 0)  # the best of two that ended
    halving.add(2, 0, 2.0)
    halving.fail(3, 0)
    assert halving.next() == (2, 1, 1) and halving.next() is None
    halving.fail(0, 1)
    assert halving.next() is None  # the other one of the rung is under way
    halving.add(2, 1, 1.0)
    assert halving.next() == (2, 2, 0)
    halving = SuccessiveHalving([8, 4, 2, 1], 2)
    for index in range(8):
        halving.add(index, 0, float(index))
    assert [halving.next() for _ in range(4)] == [(7, 1, 0), (6, 1, 1), (5, 1, 2), (4, 1, 3)]
    for index in (7, 6, 5):
        halving.fail(index, 1)
    halving.add(4, 1, 0.0)
    assert halving.next() == (4, 2, 0) and halving.next() is None  # nobody else is left
    halving.add(4, 2, 0.0)
    assert halving.next() == (4, 3, 0) and halving.next() is None


def test_ties_go_to_the_earlier_result():
    for order in itertools.permutations(range(3)):
        halving = SuccessiveHalving([3, 1], 3)
        for index in order:
            halving.add(index, 0, 1.0)
        assert halving.next() == (order[0], 1, 0)
