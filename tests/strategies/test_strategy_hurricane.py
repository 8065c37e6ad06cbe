"""HURRICANE: fronts of a table made here, later layers first, what is held, and each of its two parts left out."""

import contextlib

import numpy as np
import pytest
from graph_space import graph_space
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import Limit
from cosearch.strategies.base import Evaluation, Feasible
from cosearch.strategies.one_shot.hurricane import Hurricane, device_pools, hurricane_options, later_half
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError, UnknownNameError

load_builtins()
SPACE = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "skip", cells=4)
MACS = SPACE.macs()[0]  # of each point alike
ROW = [1.0, 4.0, 2.0, 0.0]  # conv_k5 is dear; mbconv_k3_e1 is dearer than conv_k3 and smaller: no front has it


class Within:
    """A latency target on these costs."""

    limit = Limit([ROW] * 4, 0.0, 9.0)

    def met_by(self, architecture):
        return self.limit.meets(architecture.choices)


def hurricane(seed=0, **values):
    options = hurricane_options(StrategyConfig(name="hurricane", values={"proposals": 8, "proposer": "random", **values}))
    return Hurricane(SPACE, options, seeded(seed), Feasible((Within(),)))


def scored(search, count, worth=lambda a: float(a.choices[0] == 3) + float(a.choices[3] == 0)):
    found = []
    for _ in range(count):
        found.append(search.ask())
        search.tell(Evaluation(found[-1], worth(found[-1]), 1e-3))
    return found


def test_the_pools_are_the_fronts_of_the_devices_latencies():
    assert MACS[1] > MACS[0] > MACS[2] > MACS[3]
    assert device_pools(SPACE, (Within.limit,)).kept == ((0, 1, 3),) * 4
    other = Limit([[1.0, 4.0, 0.5, 0.0]] * 4, 0.0, 9.0)  # a device that runs mbconv_k3_e1 well
    assert device_pools(SPACE, (other,)).kept == ((0, 1, 2, 3),) * 4
    dear = Limit([[1.0, 4.0, 2.0, 3.0]] * 4, 0.0, 9.0)  # a skip that costs more than a convolution
    assert device_pools(SPACE, (dear,)).kept == ((0, 1),) * 4


def test_an_unknown_option_is_answered_with_all_that_are_taken():
    with pytest.raises(UnknownNameError) as refused:
        hurricane(nonsense=1)
    named = str(refused.value).split("'hurricane' itself has ")[1].split(", ")
    assert sorted(named) == ["pools", "proposals", "proposer", "sampling", "score_share", "scores", "stages"]
    for name in named:
        with contextlib.suppress(ConfigError):  # a value that it does not take: it knows the name
            hurricane(**{name: None})


def test_the_later_half_of_the_points_comes_first_and_groups_stay_whole():
    assert later_half(SPACE) == {2, 3}
    assert later_half(graph_space()) == {1, 2, 3}
    assert later_half(small_space("conv_k3", "skip", cells=1)) == frozenset()


def test_each_stage_holds_the_other_half_and_the_second_what_the_first_found():
    search = hurricane()
    largest = max(
        (SPACE.architecture(c) for c in np.ndindex(4, 4, 4, 4) if Within.limit.meets(c) and 2 not in c),
        key=lambda a: sum(MACS[c] for c in a.choices),
    )
    assert sum(MACS[c] for c in search.largest.choices) == sum(MACS[c] for c in largest.choices)
    search.begin_round(0)
    paths = [draw() for draw in (search.learning_path, search.playing_path) for _ in range(40)]
    first = scored(search, 12)
    for architecture in (*paths, *first):
        assert architecture.choices[:2] == search.largest.choices[:2] and Within.limit.meets(architecture.choices)
        assert 2 not in architecture.choices
    assert len({a.choices[2:] for a in paths}) > 2
    best = first[search.best()]
    search.begin_round(1)
    second = scored(search, 12)
    assert {a.choices[2:] for a in second} == {best.choices[2:]} and len({a.choices[:2] for a in second}) > 2
    assert search.best() >= 12 and second[search.best() - 12].choices[0] == 3


def test_a_stage_in_which_nothing_could_be_scored_holds_the_largest():
    search = hurricane()
    search.begin_round(0)
    for _ in range(3):
        search.tell(Evaluation(search.ask(), None, 1e-3, failed=True))
    search.begin_round(1)
    assert {search.ask().choices[2:] for _ in range(5)} == {search.largest.choices[2:]}


def test_each_stages_proposer_knows_how_many_it_is_asked_for():
    for stages, count in ((2, 9), (1, 18)):
        values = {"proposals": 18, "stages": stages, "proposer": "l2nas"}
        options = hurricane_options(StrategyConfig(name="hurricane", values=values))
        assert options.single_path.of_proposer.candidates == count and options.scoring.proposals == 18


def test_all_candidates_and_one_stage_are_the_comparisons():
    every = hurricane(pools="all")
    every.begin_round(0)
    assert any(2 in every.learning_path().choices for _ in range(40))
    once = hurricane(stages=1)
    once.begin_round(0)
    assert len({once.learning_path().choices[:2] for _ in range(40)}) > 3 and once.options.scoring.rounds == 1
    assert hurricane().options.scoring.rounds == 2


@pytest.mark.parametrize("sampling, count", [("fair", 3), ("uniform", 1)])
def test_its_paths_are_those_of_single_path_search_on_the_pools(sampling, count):
    search = hurricane(sampling=sampling)
    search.begin_round(0)
    assert search.paths_a_step == count
    if sampling == "fair":
        drawn = [search.learning_path().choices for _ in range(9)]
        assert all(sorted(path[p] for path in drawn) == [0, 0, 0, 1, 1, 1, 3, 3, 3] for p in (2, 3))


def test_a_saved_stage_keeps_its_pools_whatever_the_costs_are_then():
    search = hurricane()
    search.begin_round(0)
    scored(search, 4)
    state = search.state()

    class Cheaper(Within):
        limit = Limit([[3.0, 0.5, 0.2, 0.1]] * 4, 0.0, 9.0)

    other = Hurricane(SPACE, search.options, seeded(1), Feasible((Cheaper(),)))
    assert other.pools != search.pools
    other.restore(state)
    assert (other.pools, other.largest, other.within) == (search.pools, search.largest, search.within)
