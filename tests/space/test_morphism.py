"""Network morphisms: each network of small spaces against all of its neighbours, run on the same frames."""

from collections import Counter
from itertools import islice

import pytest
import torch
from graph_space import graph_space
from small_space import small_space

from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.morphism import aligned, donor, inherit, preserves
from latency_tables.errors import ShapeError

CHAIN = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "mbconv_k3_e3", "mbconv_k5_e5", "skip")
CELLS = ("none", "conv_k3", "conv_k5", "residual_k3", "residual_k3+residual_k3", "mbconv_k3_e3")
MACRO = macro_space(
    MacroConfig((1,), ("k3s1", "k3s2", "k5s2"), (4, 6), (2,), ((4, 8),), CELLS, ("pooled", "flat"), (0, 8, 12)), (9, 8, 3), 4
)
MLP = mlp_space(
    MlpConfig(stem_width=6, stem_activation="relu", stage_widths=(6,), stage_repeats=(2,), candidates=(
        "linear_relu", "linear_tanh", "mlp_w32_relu", "mlp_w64_relu", "mlp_w64_tanh", "skip_layer"), hidden=8), (5,), 3
)  # fmt: skip
SPACES = {"chain": CHAIN, "macro": MACRO, "mlp": MLP, "graph": graph_space()}


def observations(space):
    draws = torch.Generator().manual_seed(5)
    if len(space.frame_shape) == 1:
        return torch.randn((6, *space.frame_shape), generator=draws)
    return torch.randint(0, 256, (6, *space.frame_shape), generator=draws).to(torch.uint8)


def trained(architecture, seed=1):
    """A network whose weights are nowhere special: as if it had learned."""
    network, draws = derive(architecture, torch.Generator().manual_seed(seed)), torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=draws))
        if network.ends.takes_vectors:
            network.ends.mean.fill_(0.3)
            network.ends.variance.fill_(2.0)
    return network


def grown(parent, child, network):
    made = derive(child, torch.Generator().manual_seed(9))
    state = network.state_dict()
    inherit(made, [None if i is None else donor(parent.ops(), state, i) for i in aligned(parent, child)], state)
    return made


def gap(parent, child):
    """Largest difference of the outputs of parent and child, as a share of the parent's largest output."""
    network = trained(parent)
    frames = observations(parent.space)
    with torch.no_grad():
        before, after = network.raw(frames), grown(parent, child, network).raw(frames)
    return float((before - after).abs().max() / before.abs().max())


def sample(space, count, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return [space.sample(draws) for _ in range(count)]


@pytest.mark.parametrize("name", SPACES)
def test_what_is_said_to_keep_the_function_keeps_it_to_float_tolerance_and_nothing_else_does(name):
    exact = Counter()
    for parent in sample(SPACES[name], 8):
        for child in islice(parent.neighbours(), 0, None, 1 if name != "macro" else 2):
            said = preserves(parent, child)
            exact[said] += 1
            same = gap(parent, child) < 2e-6
            if name == "graph":  # two edges that read the same block may be exchanged: some are equal without being morphisms
                same = same and said
            assert same == said or parent.ops() == child.ops(), (parent.choice_names, child.choice_names)
    assert exact[True] and exact[False]


def changes(space):
    """For each change of one choice, by name, in how many of the parents it keeps the function."""
    found = {}
    for parent in sample(space, 12, 3):
        for child in parent.neighbours():
            point = next(i for i, (a, b) in enumerate(zip(parent.choices, child.choices)) if a != b)
            key = parent.choice_names[point], child.choice_names[point]
            found.setdefault(key, set()).add(preserves(parent, child))
    return found


def test_wider_deeper_and_larger_kernels_are_morphisms_and_what_shrinks_is_none():
    chain, macro, mlp = changes(CHAIN), changes(MACRO), changes(MLP)
    assert chain["conv_k3", "conv_k5"] == {True} == chain["mbconv_k3_e3", "mbconv_k5_e5"] and chain["skip", "conv_k3"] == {True}
    assert chain["conv_k5", "conv_k3"] == {False} == chain["conv_k3", "mbconv_k3_e1"] and chain[
        "mbconv_k3_e1", "mbconv_k3_e3"
    ] == {False}
    assert macro["4", "6"] == {True} and macro["none", "residual_k3+residual_k3"] == {True} and macro["8", "12"] == {True}
    assert macro["6", "4"] == {False} == macro["k3s1", "k3s2"] and macro["k3s2", "k5s2"] == {True} and macro["0", "8"] == {False}
    assert mlp["mlp_w32_relu", "mlp_w64_relu"] == {True} and mlp["skip_layer", "mlp_w64_tanh"] == {True}
    assert mlp["skip_layer", "linear_tanh"] == {False} and True in mlp["skip_layer", "linear_relu"]


def test_every_weight_of_the_parent_is_in_the_child_and_new_ones_learn():
    parent, child = MACRO.architecture([0, 0, 0, 3, 1, 1]), MACRO.architecture([0, 1, 0, 3, 1, 1])
    assert parent.choice_names[1] == "4" and child.choice_names[1] == "6" and preserves(parent, child)
    made = grown(parent, child, trained(parent))
    for optimiser_step in range(2):
        made.zero_grad()
        made.raw(observations(MACRO)).square().sum().backward()
        moved = [weight.grad.abs().sum(dim=tuple(range(1, weight.dim()))) for weight in made.parameters()]
        if optimiser_step:
            assert all(bool((part > 0).any()) for part in moved)
        with torch.no_grad():
            for weight in made.parameters():
                weight.sub_(0.01 * weight.grad)
    stem = made.state_dict()["blocks.0.conv.weight"]
    assert float(stem[4:].abs().sum()) > 0  # the new filters are no zeros: what reads them learns at once


def test_another_number_of_donors_is_refused():
    network = trained(CHAIN.architecture([0, 0]))
    with pytest.raises(ShapeError, match="4 blocks, got 1"):
        inherit(network, [None], network.state_dict())
