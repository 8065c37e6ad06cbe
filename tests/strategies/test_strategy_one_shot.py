"""Paths that a supernet learns along: uniform within the target or in all of the space, or strictly fair, counted here."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from graph_space import graph_space
from scipy.stats import chisquare
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.rl.learning.losses import MinibatchLosses
from cosearch.space.derivation.derive import Limit
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import STRATEGIES, Evaluation, Feasible
from cosearch.strategies.one_shot.single_path import FairPaths, SinglePathSearch, single_path_options
from cosearch.strategies.proposal.evolution import EvolutionOptions
from cosearch.strategies.weight_sharing import Scoring
from cosearch.testing.conformance import seeded
from cosearch.training.path_subject import PathSubject
from latency_tables.errors import ConfigError

load_builtins()
SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
UNEVEN = small_space("conv_k3", "mbconv_k3_e1", "skip", "conv_k5", "mbconv_k5_e1", cells=3)


class AtMost:
    """A target: the sum of the choices."""

    limit = Limit([[0.0, 1.0, 2.0]] * 2, 0.0, 1.0)

    def met_by(self, architecture):
        return sum(architecture.choices) <= 1


def options(**values):
    return single_path_options(StrategyConfig(name="one-shot", values=values))


def strategy(space=SPACE, seed=0, **values):
    return SinglePathSearch(space, options(**values), seeded(seed), Feasible((AtMost(),)))


@pytest.mark.parametrize("sampling, count", [("uniform", 3), ("unconstrained", 9), ("fair", 9)])
def test_paths_are_uniform_over_what_the_sampling_names(sampling, count):
    search = strategy(sampling=sampling)
    for draw in (search.playing_path, search.learning_path):
        counts = Counter(draw().choices for _ in range(900))
        assert len(counts) == count and chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("space", [SPACE, UNEVEN], ids=["three", "five"])
def test_fair_paths_use_each_candidate_equally_often_at_every_moment(space):
    paths, size = FairPaths(space, seeded(1)), len(space.points[0].candidates)
    counts = [Counter() for _ in space.points]
    assert paths.longest == size
    for drawn in range(1, 6 * size + 1):
        for count, choice in zip(counts, paths.draw().choices):
            count[choice] += 1
        for count in counts:
            every = [count[c] for c in range(size)]
            assert max(every) - min(every) <= 1 and (drawn % size or len(set(every)) == 1)


def test_in_a_group_each_kept_point_runs_through_its_candidates_but_the_zero():
    space = graph_space()
    paths, counts, kept = FairPaths(space, seeded(2)), [Counter() for _ in space.points], Counter()
    for _ in range(600):
        choices = paths.draw().choices  # a path that breaks the group raises
        kept[tuple(p for p in space.groups[0].points if choices[p] != 0)] += 1
        for p, choice in enumerate(choices):
            if p == 0 or choice != 0:
                counts[p][choice] += 1
    assert len(kept) == 3 and chisquare(list(kept.values())).pvalue > 1e-3
    for p, count in enumerate(counts):
        assert set(count) == ({0, 1, 2} if p == 0 else {1, 2, 3}) and max(count.values()) - min(count.values()) <= 1


def test_uniform_draws_break_the_balance_that_fair_ones_keep():
    search = strategy(sampling="unconstrained")
    counts = Counter(search.learning_path().choices[0] for _ in range(30))
    assert max(counts.values()) - min(counts.values()) > 1


def subject(search, space=SPACE):
    supernet = SuperNet(space, seeded(5))
    return PathSubject(supernet, search, paths=1, fresh=True, lr=1e-2, bf16=False, device=torch.device("cpu"))


def minibatch(trained, frames):
    """One minibatch of a squared loss; the path that it was learned along."""
    trained.zero_grad()
    logits, value = trained.actors()[0](frames)
    (logits.square().mean() + value.square().mean()).backward()
    drawn = trained._drawn
    trained.step(1e9, MinibatchLosses(0.0, 0.0, 0.0))
    return drawn


FRAMES = torch.randint(0, 256, (6, 12, 12, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_fair_steps_once_for_all_candidates_with_the_sum_of_their_gradients():
    trained, alone = subject(strategy(sampling="fair", seed=3)), SuperNet(SPACE, seeded(5))
    optimiser = torch.optim.Adam(alone.parameters(), lr=1e-2, eps=1e-5)
    before = [p.detach().clone() for p in trained.supernet.parameters()]
    drawn = []
    for n in range(3):
        assert all(torch.equal(a, b) for a, b in zip(before, trained.supernet.parameters())), f"a step after {n} of 3 paths"
        drawn.append(minibatch(trained, FRAMES))
    assert all(sorted(path.choices[p] for path in drawn) == [0, 1, 2] for p in range(2))
    for path in drawn:
        logits, value = alone(FRAMES, path)
        (logits.square().mean() + value.square().mean()).backward()
    optimiser.step()
    for mine, other in zip(trained.supernet.parameters(), alone.parameters()):
        assert torch.allclose(mine, other, atol=1e-6)


def test_a_uniform_path_steps_by_itself_and_touches_only_its_blocks():
    trained = subject(strategy(sampling="unconstrained"))
    before = {name: p.detach().clone() for name, p in trained.supernet.named_parameters()}
    path = minibatch(trained, FRAMES)
    moved = {name for name, p in trained.supernet.named_parameters() if not torch.equal(p, before[name])}
    used = {id(p) for p in trained.supernet.used_parameters(path)}
    assert moved and moved <= {name for name, p in trained.supernet.named_parameters() if id(p) in used}


def test_a_subject_saved_within_a_step_goes_on_as_if_it_had_not_been():
    def resumed(saved, state):
        search = strategy(sampling="fair", seed=9)
        other = subject(search)
        other.restore(saved)
        search.restore(state)
        search.fair.generator.set_state(noise)
        return other

    search = strategy(sampling="fair", seed=3)
    trained = subject(search)
    for _ in range(4):
        minibatch(trained, FRAMES)
    saved, state, noise = trained.state(), search.state(), search.fair.generator.get_state()
    other = resumed(saved, state)
    for _ in range(5):
        assert minibatch(trained, FRAMES).choices == minibatch(other, FRAMES).choices
    assert all(torch.equal(a, b) for a, b in zip(trained.supernet.parameters(), other.supernet.parameters()))


def test_what_is_not_its_own_option_is_the_proposers():
    found = options(proposals=6, scores="frames", population=2)
    assert found.of_proposer == EvolutionOptions(population=2, tournament=2) and found.scoring == Scoring(6, 0.25, "frames")
    assert options().of_proposer == STRATEGIES.get("evolution").options(StrategyConfig(name="evolution", candidates=32))
    assert options(proposer="random").proposer == STRATEGIES.get("random")


def test_it_proposes_what_its_proposer_would():
    search, alone = strategy(population=2), STRATEGIES.get("evolution")
    other = alone.make(SPACE, replace(options(population=2).of_proposer), seeded(0), Feasible((AtMost(),)))
    for _ in range(6):
        asked, expected = search.ask(), other.ask()
        assert asked == expected and sum(asked.choices) <= 1
        for each in (search, other):
            each.tell(Evaluation(asked, -float(sum(asked.choices)), 1e-3))
    assert search.best() == other.best()


@pytest.mark.parametrize("proposer, option, value", [("morphism", "inherit", False), ("fnas", "pool", False)])
@pytest.mark.parametrize("name", ["one-shot", "hurricane"])
def test_options_on_the_weights_of_candidates_are_refused_where_the_supernet_has_them(name, proposer, option, value):
    config = StrategyConfig(name=name, values={"proposer": proposer, option: value})
    with pytest.raises(ConfigError, match=f"strategy.values.{option}=False has no effect with {name}"):
        STRATEGIES.get(name).options(config)
    assert STRATEGIES.get(name).options(StrategyConfig(name=name, values={"proposer": "predictor", "pool": 8}))
