"""The recurrent controller: its probabilities sum to one over the legal architectures, and its draws have them."""

import itertools
from collections import Counter

import pytest
import torch
from graph_space import graph_space
from small_space import small_space

from cosearch.strategies.controller import TOGETHER, TRIES, Controller, draw_within
from cosearch.strategies.proposals import UniformDraws
from cosearch.testing.conformance import seeded
from latency_tables.errors import InfeasibleTargetError

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
GRAPH = graph_space()


def kept(space, group, choices):
    return sum(choices[p] != space.zeros[p] for p in group.points)


def legal(space):
    every = itertools.product(*(range(len(point.candidates)) for point in space.points))
    return [choices for choices in every if all(kept(space, group, choices) == group.keep for group in space.groups)]


def controller(space, context=0):
    made = Controller(space, 8, seeded(1), context)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(8.0)  # away from uniform
    return made


@pytest.mark.parametrize("space", [SPACE, GRAPH], ids=["chain", "graph"])
def test_its_probabilities_are_those_of_its_draws_and_sum_to_one_over_the_legal_architectures(space):
    made, all_of_them = controller(space), legal(space)
    known = made.of(torch.tensor(all_of_them))
    shares = known.log_p.detach().exp()
    assert float(shares.sum()) == pytest.approx(1.0, abs=1e-5) and float(shares.max() / shares.min()) > 3.0
    drawn = made.draw(4000, seeded(2))
    counts = Counter(map(tuple, drawn.choices.tolist()))
    assert set(counts) <= set(all_of_them)
    for choices, share in zip(all_of_them, shares.tolist()):
        assert abs(counts[choices] / 4000 - share) < 5 * (share / 4000) ** 0.5 + 1e-3, choices
    again = made.of(drawn.choices)
    assert torch.allclose(again.log_p, drawn.log_p, atol=1e-5)
    entropy = float(-(shares * known.log_p.detach()).sum())  # its mean over the draws: each point's, after what came before
    assert float(drawn.entropy.mean()) == pytest.approx(entropy, abs=0.03)


def test_a_context_changes_what_is_drawn():
    made = controller(SPACE, context=2)
    choices = torch.tensor([[0, 1]] * 2)
    one, other = made.of(choices, torch.tensor([[0.0, 0.0], [1.0, -1.0]])).log_p.tolist()
    assert abs(one - other) > 1e-3


def test_what_misses_the_target_is_handed_back_and_a_uniform_draw_stands_in():
    uniform = UniformDraws(SPACE, seeded(3), lambda a: a.choices[0] == 2)
    made = Controller(SPACE, 8, seeded(1))
    found, missed = draw_within(made, uniform)
    assert found.choices[0] == 2 and all(choices[0] != 2 for choices in missed)
    with torch.no_grad():
        made.heads[0].bias[2] = -1e4  # it never draws what would be in time
    found, missed = draw_within(made, uniform)
    assert found.choices[0] == 2 and len(missed) == TOGETHER * TRIES
    with pytest.raises(InfeasibleTargetError):
        draw_within(made, UniformDraws(SPACE, seeded(3), lambda a: False, attempts=5))
