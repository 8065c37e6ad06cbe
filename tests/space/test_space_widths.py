"""Shared weights of several widths: slices equal the derived network, gates equal channel masks, weights go in and out."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.hand_made import HAND_MADE, HandMadeConfig, hand_made_space
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.space.network import AgentNetwork
from cosearch.space.supernet import Path, SuperNet
from cosearch.space.widths import _sized
from cosearch.testing.conformance import example_input, seeded
from latency_tables.errors import ShapeError

CONFIG = MacroConfig(
    resolutions=(1, 2),
    stems=("k3s1", "k3s2"),
    stem_widths=(2, 4, 3),
    stage_strides=(2, 1),
    stage_widths=((3, 5), (4, 6, 2)),
    cells=("none", "conv_k3", "residual_k3+mbconv_k3_e3", "mbconv_k3_e1"),
    heads=("pooled", "flat"),
    hidden=(0, 8, 6),
)
SPACE = macro_space(CONFIG, (9, 8, 3), 4)
SIZES = [len(point.candidates) for point in SPACE.points]
NAMES = [point.name for point in SPACE.points]
FRAMES = example_input(SPACE.stem, 3)


def net(space=SPACE):
    supernet = SuperNet(space, seeded(0)).double()
    with torch.no_grad():
        for parameter in supernet.parameters():  # biases too, so that a channel too many would show
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=seeded(parameter.numel()), dtype=torch.float64))
    return supernet


def weights_for(active, seed=0):
    generator = seeded(seed)
    return tuple(torch.rand(len(each), generator=generator, dtype=torch.float64, requires_grad=True) for each in active)


def all_active(choices):
    return tuple((c, *(k for k in range(size) if k != c)) for c, size in zip(choices, SIZES))


def drawn(n):
    return [SPACE.sample(seeded(seed)) for seed in range(n)]


@pytest.mark.parametrize("architecture", drawn(25), ids=str)
def test_the_derived_network_is_the_hard_path_with_and_without_gates(architecture):
    supernet = net()
    derived = derive(architecture, seeded(1), supernet).double()
    supernet.copy_into(architecture, derived.blocks, derived.ends)  # without the rounding to float32
    assert sum(p.numel() for p in derived.parameters()) == sum(op.params for op in architecture.ops())
    wanted = derived(FRAMES)
    active = all_active(architecture.choices)
    hard = supernet(FRAMES, Path(tuple((c,) for c in architecture.choices)))
    gated = supernet(FRAMES, Path(active, weights_for(active)))
    few = supernet(FRAMES, Path(tuple(each[:2] for each in active), weights_for([each[:2] for each in active])))
    for found in (hard, gated, few):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_weights_come_back_from_a_derived_network_and_leave_the_others_alone():
    supernet = net()
    for count, architecture in enumerate(drawn(8)):
        before = {key: value.clone() for key, value in supernet.state_dict().items()}
        derived = AgentNetwork(architecture.ops(), seeded(5)).double()
        with torch.no_grad():
            for n, parameter in enumerate(derived.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=seeded(100 * count + n), dtype=torch.float64))
        supernet.copy_from(architecture, derived.blocks, derived.ends)
        changed = sum(int((value != before[key]).sum()) for key, value in supernet.state_dict().items())
        assert changed == sum(p.numel() for p in derived.parameters())
        again = derive(architecture, seeded(6), supernet).double()
        supernet.copy_into(architecture, again.blocks, again.ends)
        torch.testing.assert_close(again.state_dict(), derived.state_dict(), rtol=0, atol=0)


def test_one_set_of_weights_serves_every_width_and_size():
    widest = sum(p.numel() for p in SuperNet(SPACE, seeded(0)).parameters())
    every = {spec for node in SPACE.nodes for spec in node.specs if spec is not None}
    assert widest < 0.4 * sum(op.params for op in every)
    entry = SuperNet(SPACE, seeded(0)).body[0]
    assert [tuple(p.shape) for p in entry.parameters()] == [(5, 4, 3, 3), (5,)]


def reference(supernet, shares):
    """The network of stem, entries and pooled head at the widest, with channel masks: its loss, written out.

    ``shares``: for each width point ``[candidates]`` in place of the one-hot.
    """
    widths = {name: [int(text) for text in point.candidates] for name, point in zip(NAMES, SPACE.points) if "width" in name}

    def mask(name):
        channels = torch.arange(max(widths[name]))
        return sum(share * (channels < width) for share, width in zip(shares[name], widths[name]))[:, None, None]

    stem, first, second = (node.families[0].conv for node in (supernet.stem, supernet.body[0], supernet.body[3]))
    x = F.relu(F.conv2d(FRAMES.permute(0, 3, 1, 2).double() / 255.0, stem.weight, stem.bias, 1, 1)) * mask("stem_width")
    x = F.relu(F.conv2d(x, first.weight, first.bias, 2, 1)) * mask("stage1.width")
    x = F.relu(F.conv2d(x, second.weight, second.bias, 1, 1)) * mask("stage2.width")
    outputs = supernet.head.families[0].outputs(x.mean((2, 3)))
    return (outputs * torch.linspace(-1.0, 1.0, outputs.numel(), dtype=torch.float64).view_as(outputs)).sum()


@pytest.mark.parametrize("widths", [(0, 0, 2), (1, 1, 1), (2, 0, 0)], ids=str)
def test_gradients_of_widths_are_those_of_channel_masks(widths):
    supernet = net()
    choices = [0] * len(NAMES)
    for name, width in zip(("stem_width", "stage1.width", "stage2.width"), widths):
        choices[NAMES.index(name)] = width
    active = tuple(all_active(choices)[p] if "width" in name else (choices[p],) for p, name in enumerate(NAMES))
    weights = weights_for(active)
    logits, value = supernet(FRAMES, Path(active, weights))
    outputs = torch.cat([logits, value[:, None]], 1)
    loss = (outputs * torch.linspace(-1.0, 1.0, outputs.numel(), dtype=torch.float64).view_as(outputs)).sum()
    loss.backward()
    hot = {name: torch.eye(SIZES[p], dtype=torch.float64)[choices[p]] for p, name in enumerate(NAMES) if "width" in name}
    assert float(loss.detach()) == pytest.approx(float(reference(supernet, hot).detach()), rel=1e-12)
    for p, name in enumerate(NAMES):
        if "width" not in name:
            continue
        for k, candidate in enumerate(active[p]):
            step = 1e-6 * torch.eye(SIZES[p], dtype=torch.float64)[candidate]
            up, down = (float(reference(supernet, {**hot, name: hot[name] + sign * step}).detach()) for sign in (1, -1))
            assert float(weights[p].grad[k]) == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-7)


def test_gradients_of_operations_are_the_products_with_their_outputs():
    """dL/dg_k = <dL/dy, O_k(x)> at a cell, whichever path is derived from; here of the head, whose output is the network's."""
    supernet, head, hidden = net(), NAMES.index("head"), NAMES.index("hidden")
    choices = [0] * len(NAMES)
    active = tuple(tuple(range(size)) if p in (head, hidden) else (0,) for p, size in enumerate(SIZES))
    weights = weights_for(active)
    logits, value = supernet(FRAMES, Path(active, weights))
    (logits.sum() + value.sum()).backward()
    for p in (head, hidden):
        for k in range(SIZES[p]):
            other = SPACE.architecture([k if q == p else c for q, c in enumerate(choices)])
            derived = derive(other, seeded(1), supernet).double()
            supernet.copy_into(other, derived.blocks, derived.ends)
            wanted = float(sum(each.sum() for each in derived(FRAMES)).detach())
            assert float(weights[p].grad[k]) == pytest.approx(wanted, rel=1e-9)


def test_all_gates_have_gradients_on_every_path():
    supernet, moved = net(), [0] * len(SIZES)
    for architecture in drawn(10):
        active = all_active(architecture.choices)
        weights = weights_for(active)
        logits, value = supernet(FRAMES, Path(active, weights))
        (logits.square().sum() + value.sum()).backward()
        assert all(weight.grad is not None and bool(torch.isfinite(weight.grad).all()) for weight in weights)
        moved = [n + int(weight.grad.abs().min() > 0) for n, weight in zip(moved, weights)]
    assert min(moved) >= 5  # now and then no pixel of three frames passes a ReLU


def blocks_of(architecture, supernet):
    """The blocks of a derived network, without the rounding to float32."""
    derived = derive(architecture, seeded(1), supernet).double()
    supernet.copy_into(architecture, derived.blocks, derived.ends)
    return list(derived.blocks)


def along(blocks, x):
    for block in blocks:
        x = block(x)
    return x


@pytest.mark.parametrize("cells", CONFIG.cells[1:])
def test_beside_no_cell_the_gate_of_a_cell_has_the_gradient_of_a_cell_of_the_active_width(cells):
    """<dL/dy, O(x)> over the channels that the width has, from networks on their own."""
    space = macro_space(replace(CONFIG, cells=("none", cells.split("+")[0])), (9, 8, 3), 4)
    supernet, at = net(space), [point.name for point in space.points].index("stage1.cells")
    for width in (0, 1):
        choices = [0, 0, 1, width, 0, 0, 0, 0, 0]
        alone = blocks_of(space.architecture(choices), supernet)
        cell = blocks_of(space.architecture([1 if p == at else c for p, c in enumerate(choices)]), supernet)[2]
        x = along(alone[:2], FRAMES).detach().requires_grad_()
        (into,) = torch.autograd.grad(along(alone[2:], x).square().sum(), x)
        wanted = float((into * cell(x)).sum().detach())
        others = {at: (0, 1), at - 1: (width, 1 - width)}
        active = tuple(others.get(p, (c,)) for p, c in enumerate(choices))
        weights = weights_for(active)
        sum(out.square().sum() for out in supernet(FRAMES, Path(active, weights))).backward()
        assert float(weights[at].grad[1]) == pytest.approx(wanted, rel=1e-9)


def test_the_input_that_a_residual_block_adds_is_masked_once():
    """Against the network written out with one mask on the entry and one on what the residual block adds."""
    space = macro_space(replace(CONFIG, cells=("residual_k3",), stage_strides=(2,), stage_widths=((3, 5),)), (9, 8, 3), 4)
    names = [point.name for point in space.points]
    supernet = net(space)
    stem, entry, block = supernet.stem.families[0].conv, supernet.body[0].families[0].conv, supernet.body[1].families[0]
    at, narrow = names.index("stage1.width"), torch.arange(5) < 3
    active = tuple((0, 1) if p == at else (0,) for p in range(len(names)))
    weights = weights_for(active)
    sum(out.square().sum() for out in supernet(FRAMES, Path(active, weights))).backward()

    def read(x):  # blocks pass gradients of what a mask hides
        return torch.cat([F.relu(x[:, :3]), x[:, 3:]], 1)

    shares = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    mask = (shares[0] * narrow + shares[1])[:, None, None]
    x = F.relu(F.conv2d(FRAMES.permute(0, 3, 1, 2).double() / 255.0, stem.weight[:2], stem.bias[:2], 1, 1))
    x = F.relu(F.conv2d(x, entry.weight[:, :2], entry.bias, 2, 1)) * mask
    inner = F.relu(F.conv2d(read(x), block.conv1.weight[:3], block.conv1.bias[:3], 1, 1))
    x = x + F.conv2d(inner, block.conv2.weight[:, :3], block.conv2.bias, 1, 1) * mask
    supernet.head.families[0].outputs(read(x).mean((2, 3))).square().sum().backward()
    torch.testing.assert_close(weights[at].grad, shares.grad, rtol=1e-10, atol=1e-10)


def one_hot(active, choices):
    return tuple(torch.tensor([float(k == c) for k in each], dtype=torch.float64) for each, c in zip(active, choices))


def spaces():
    shapes = {"nature-cnn": (36, 36, 1), "impala-cnn": (9, 8, 3), "impoola-cnn": (9, 8, 3), "minatar-cnn": (9, 8, 3)}
    made = [hand_made_space(HAND_MADE[name], HandMadeConfig((1, 3, 2)), shape, 4) for name, shape in shapes.items()]
    return [SPACE, macro_space(replace(CONFIG, cells=CONFIG.cells[::-1]), (9, 8, 3), 4), *made]


@pytest.mark.parametrize("space", spaces(), ids=lambda space: f"{space.name}-{space.points[-3:][0].candidates[0]}")
def test_a_mixture_of_one_hot_weights_is_the_hard_path_whatever_the_order(space):
    supernet, frames = net(space), example_input(space.stem, 3)
    for seed in range(25):
        choices = space.sample(seeded(seed)).choices
        hard = supernet(frames, Path(tuple((c,) for c in choices)))
        indices = tuple(tuple(range(len(point.candidates))) for point in space.points)
        chosen_first = tuple((c, *(k for k in each if k != c)) for each, c in zip(indices, choices))
        for active in (indices, tuple(each[::-1] for each in indices), chosen_first):
            mixed = supernet(frames, Path(active, one_hot(active, choices), soft=True))
            torch.testing.assert_close(mixed, hard, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", range(6))
def test_the_value_of_a_mixture_does_not_depend_on_the_order_of_its_candidates(seed):
    supernet, generator = net(), seeded(seed)
    active = tuple(tuple(range(size)) for size in SIZES)
    weights = weights_for(active, seed)
    orders = [torch.randperm(size, generator=generator).tolist() for size in SIZES]
    again = tuple(weight[order] for weight, order in zip(weights, orders))
    wanted, found = (
        supernet(FRAMES, Path(each, rows, soft=True)) for each, rows in ((active, weights), (tuple(map(tuple, orders)), again))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(sum(out.square().sum() for out in each), weights) for each in (wanted, found)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_a_mixture_of_widths_masks_outputs_and_inner_channels_with_the_sums_of_the_shares():
    """Written out, for weights that do not sum to 1: those of inner channels are divided by their sum."""
    space = macro_space(replace(CONFIG, cells=("residual_k3",), stage_strides=(2,), stage_widths=((3, 5),)), (9, 8, 3), 4)
    supernet, names = net(space), [point.name for point in space.points]
    stem, entry, block = supernet.stem.families[0].conv, supernet.body[0].families[0].conv, supernet.body[1].families[0]
    at = names.index("stage1.width")
    active = tuple((0, 1) if p == at else (0,) for p in range(len(names)))
    weights = tuple(torch.tensor([0.5, 0.3] if p == at else [1.0], dtype=torch.float64) for p in range(len(names)))
    mask = torch.tensor([0.8, 0.8, 0.8, 0.3, 0.3], dtype=torch.float64)[:, None, None]
    x = F.relu(F.conv2d(FRAMES.permute(0, 3, 1, 2).double() / 255.0, stem.weight[:2], stem.bias[:2], 1, 1))
    x = F.relu(F.conv2d(x, entry.weight[:, :2], entry.bias, 2, 1)) * mask
    inner = F.relu(F.conv2d(F.relu(x), block.conv1.weight, block.conv1.bias, 1, 1)) * mask / 0.8
    x = x + F.conv2d(inner, block.conv2.weight, block.conv2.bias, 1, 1) * mask
    wanted = supernet.head.families[0].outputs(F.relu(x).mean((2, 3)))
    logits, value = supernet(FRAMES, Path(active, weights, soft=True))
    torch.testing.assert_close(torch.cat([logits, value[:, None]], 1), wanted, rtol=1e-11, atol=1e-11)


def test_a_mixture_computes_an_operation_that_several_candidates_begin_with_once():
    """Written out: the first block has the shares of both sequences, the second that of the longer one."""
    cells = ("none", "residual_k3", "residual_k3+residual_k3")
    space = macro_space(replace(CONFIG, cells=cells, stage_strides=(2,), stage_widths=((3,),)), (9, 8, 3), 4)
    supernet, at = net(space), [point.name for point in space.points].index("stage1.cells")
    active = tuple((0, 1, 2) if p == at else (0,) for p in range(len(space.points)))
    weights = tuple(torch.tensor([0.5, 0.3, 0.1] if p == at else [1.0], dtype=torch.float64) for p in range(len(active)))
    stem, entry = supernet.stem.families[0].conv, supernet.body[0].families[0].conv
    x = F.relu(F.conv2d(FRAMES.permute(0, 3, 1, 2).double() / 255.0, stem.weight[:2], stem.bias[:2], 1, 1))
    x = F.relu(F.conv2d(x, entry.weight[:, :2], entry.bias, 2, 1))
    for node, share in ((supernet.body[1], 0.4), (supernet.body[2], 0.1)):
        x = (0.9 - share) * x + share * node.families[0](x)
    wanted = supernet.head.families[0].outputs(F.relu(x).mean((2, 3)))
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        logits, value = supernet(FRAMES, Path(active, weights, soft=True))
    torch.testing.assert_close(torch.cat([logits, value[:, None]], 1), wanted, rtol=1e-11, atol=1e-11)
    assert sum(event.name == "aten::convolution" for event in seen.events()) == 2 + 2 * 2


@pytest.mark.parametrize("size", [(4, 6), (6, 9), (8, 3), (2, 3), (5, 4), (1, 1)])
def test_a_map_of_another_size_is_averaged_or_repeated_as_by_pooling(size):
    frames = torch.randn((2, 3, 2, 3), dtype=torch.float64, generator=seeded(0), requires_grad=True)
    found, wanted = _sized(frames, size), F.adaptive_avg_pool2d(frames, size)
    assert found.shape[2:] == size
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-15)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=seeded(1))
    gradients = [torch.autograd.grad((each * weights).sum(), frames) for each in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-13)


def test_all_weights_of_a_mixture_have_gradients():
    supernet, active = net(), tuple(tuple(range(size)) for size in SIZES)
    weights = weights_for(active)
    sum(out.square().sum() for out in supernet(FRAMES, Path(active, weights, soft=True))).backward()
    assert all(float(weight.grad.abs().min()) > 0 for weight in weights)


@pytest.mark.parametrize("soft", [False, True])
def test_used_parameters_are_those_with_a_gradient(soft):
    for architecture in drawn(8):
        supernet = net()
        active = tuple(each[:2] for each in all_active(architecture.choices))
        for path in (Path(active, weights_for(active), soft), Path(tuple((c,) for c in architecture.choices))):
            supernet.zero_grad(set_to_none=True)
            sum(out.square().sum() for out in supernet(FRAMES, path)).backward()
            with_gradient = {id(p) for p in supernet.parameters() if p.grad is not None}
            used = supernet.used_parameters(path)
            assert {id(p) for p in used} == with_gradient and len(used) == len(with_gradient)


def test_every_choice_of_each_point_changes_the_network():
    supernet, same = net(), {(p, pair): 0 for p, size in enumerate(SIZES) for pair in itertools.combinations(range(size), 2)}
    for base in (found.choices for found in drawn(6)):
        for point, size in enumerate(SIZES):
            outputs = [
                supernet(FRAMES, Path(tuple((c,) for c in [*base[:point], k, *base[point + 1 :]])))[0].detach()
                for k in range(size)
            ]
            for one, other in itertools.combinations(range(size), 2):
                same[point, (one, other)] += torch.allclose(outputs[one], outputs[other], rtol=1e-9, atol=0)
    assert max(same.values()) < 4  # now and then no pixel of three frames passes the ReLUs that tell two of them apart


def test_threads_may_run_paths_at_once():
    supernet, frames = net(), FRAMES.repeat(100, 1, 1, 1)
    paths = [Path(tuple((c,) for c in architecture.choices)) for architecture in drawn(2)] * 4
    with torch.no_grad():
        wanted = [supernet(frames, path) for path in paths]

    def several(path):
        with torch.no_grad():
            return [supernet(frames, path) for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        for same, outputs in zip(wanted, pool.map(several, paths), strict=True):
            for each in outputs:
                torch.testing.assert_close(each, same, rtol=0, atol=0)


def test_building_it_leaves_the_global_generator_alone_and_branches_are_refused():
    before = torch.get_rng_state()
    supernet = SuperNet(SPACE, seeded(0))
    supernet(FRAMES, Path(tuple((0,) for _ in SIZES)))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(
        SuperNet(SPACE, seeded(0)).state_dict()["stem.families.0.conv.weight"], supernet.stem.families[0].conv.weight
    )
    with pytest.raises(ShapeError, match="points"):
        supernet(FRAMES, Path(((0,),)))
