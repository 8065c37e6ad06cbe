"""The weight-sharing network: forward values of the derived network, gate gradients by finite differences."""

import dataclasses

import pytest
import torch

from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.network import AgentNetwork
from cosearch.space.supernet import Path, SuperNet
from cosearch.testing.conformance import check_derived, count_macs, seeded
from latency_tables.errors import ShapeError

CONFIG = ChainConfig(
    stem_channels=4,
    stem_kernel=3,
    stem_stride=2,
    stage_channels=(4, 6),
    stage_repeats=(2, 1),
    stage_strides=(1, 2),
    candidates=("conv_k3", "mbconv_k3_e3", "mbconv_k5_e1", "skip"),
    hidden=8,
)
SPACE = chain_space(CONFIG, (9, 11, 3), 4)
FRAMES = torch.randint(0, 256, (5, 9, 11, 3), generator=seeded(0)).to(torch.uint8)


def net(dtype=torch.float32):
    """A supernet with biases: with zeros, inputs of a ReLU are exactly 0 in places, where no derivative exists."""
    supernet, generator = SuperNet(SPACE, seeded(1)), seeded(2)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1, generator=generator)
    return supernet.to(dtype)


def path_with_weights(choices, others, dtype=torch.float32):
    """Active candidate first, then ``others`` more; random weights that want gradients."""
    active, weights = [], []
    for i, c in enumerate(choices):
        rest = [k for k in range(4) if k != c][:others]
        active.append((c, *rest))
        weights.append(torch.rand(1 + others, generator=seeded(10 + i), dtype=dtype, requires_grad=True))
    return Path(tuple(active), tuple(weights))


@pytest.mark.parametrize("others", [0, 1, 3])
def test_forward_value_is_the_derived_networks_exactly_with_any_number_of_active_paths(others):
    supernet = net()
    for n in range(8):
        architecture = SPACE.sample(seeded(n))
        derived = derive(architecture, seeded(0), supernet)(FRAMES)
        gated = supernet(FRAMES, path_with_weights(architecture.choices, others))
        assert all(torch.equal(a, b) for a, b in zip(derived, gated))  # not close: equal
        with torch.no_grad():
            assert torch.equal(supernet(FRAMES, path_with_weights(architecture.choices, others))[0], derived[0])
        check_derived(supernet, architecture, FRAMES)


def soft_output(supernet, gates):
    """The mixture that the gates stand for: sum_k gate_k O_k at each point. Returns one scalar."""
    x = supernet.stem(FRAMES)
    for blocks, gate in zip(supernet.body, gates):
        x = sum(g * block(x) for g, block in zip(gate, blocks))
    return (supernet.head(x) * torch.linspace(-1, 1, 5, dtype=x.dtype)).sum()


@pytest.mark.parametrize("choices", [(0, 1, 2), (3, 3, 0), (1, 2, 3)])
def test_gate_gradient_equals_finite_differences_of_the_mixture(choices):
    supernet = net(torch.float64)
    path = path_with_weights(choices, 3, torch.float64)
    logits, value = supernet(FRAMES, path)
    (torch.cat([logits, value[:, None]], 1) * torch.linspace(-1, 1, 5, dtype=torch.float64)).sum().backward()
    step = 1e-6
    for point in range(3):
        for k, candidate in enumerate(path.active[point]):
            found = []
            for sign in (1.0, -1.0):
                gates = torch.stack([torch.eye(4, dtype=torch.float64)[c] for c in choices])
                gates[point, candidate] += sign * step
                with torch.no_grad():
                    found.append(float(soft_output(supernet, gates)))
            wanted = (found[0] - found[1]) / (2 * step)
            assert float(path.weights[point].grad[k]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_gate_gradient_is_the_inner_product_of_the_next_activation():
    supernet = net(torch.float64)
    path = path_with_weights((0, 1, 2), 1, torch.float64)
    kept = {}
    supernet.body[2][2].register_full_backward_pre_hook(lambda module, grad: kept.update(out=grad[0]))
    seen = {}
    for k in path.active[2]:
        supernet.body[2][k].register_forward_hook(lambda module, args, out, k=k: seen.update({k: out.detach()}))
    logits, _ = supernet(FRAMES, path)
    logits.square().sum().backward()
    for k, candidate in enumerate(path.active[2]):
        assert float(path.weights[2].grad[k]) == pytest.approx(float((kept["out"] * seen[candidate]).sum()), rel=1e-10)


def test_weights_of_inactive_candidates_get_no_gradient_and_active_ones_that_do_not_count_get_zero():
    supernet = net()
    path = path_with_weights((0, 1, 2), 1)
    supernet(FRAMES, path)[0].sum().backward()
    for i, blocks in enumerate(supernet.body):
        for k, block in enumerate(blocks):
            grads = [p.grad for p in block.parameters()]
            if k == path.active[i][0]:
                assert any(float(g.abs().sum()) > 0 for g in grads)
            elif k in path.active[i]:
                assert all(float(g.abs().sum()) == 0 for g in grads)
            else:
                assert all(g is None for g in grads)
    used = supernet.used_parameters(path)
    assert {id(p) for p in supernet.parameters() if p.grad is not None} == {id(p) for p in used} and len(used) == len(
        set(map(id, used))
    )


def test_time_grows_with_the_active_candidates_not_with_all():
    supernet, calls = net(), []
    for i, blocks in enumerate(supernet.body):
        for k, block in enumerate(blocks):
            block.register_forward_hook(lambda module, args, out, at=(i, k): calls.append(at))
    path = path_with_weights((3, 1, 2), 1)
    supernet(FRAMES, path)
    assert sorted(calls) == sorted((i, k) for i, active in enumerate(path.active) for k in active)
    calls.clear()
    with torch.no_grad():
        supernet(FRAMES, path)  # acting: one path, whatever K is
    assert calls == [(0, 3), (1, 1), (2, 2)]


def test_gradients_of_the_weights_are_those_of_the_derived_network():
    supernet, architecture = net(torch.float64), SPACE.architecture([0, 1, 2])
    derived = derive(architecture, seeded(0), supernet.float()).double()
    supernet.double()
    supernet(FRAMES, path_with_weights(architecture.choices, 2, torch.float64))[0].square().sum().backward()
    derived(FRAMES)[0].square().sum().backward()
    mine = supernet.used_parameters(Path(tuple((c,) for c in architecture.choices)))
    by_shape = {id(p): p.grad for p in mine}
    theirs = [p.grad for block in (derived.blocks[0], derived.blocks[-1], *derived.blocks[1:-1]) for p in block.parameters()]
    assert len(by_shape) == len(theirs)
    for a, b in zip(by_shape.values(), theirs):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_derived_networks_size_and_work_are_the_architectures():
    architecture = SPACE.architecture([3, 1, 3])  # the first skip is an identity, the last changes the shape
    network = derive(architecture, seeded(0))
    assert len(network.blocks) == 4 and sum(p.numel() for p in network.parameters()) == sum(
        op.params for op in architecture.ops()
    )
    assert count_macs(network, FRAMES[:1]) == sum(op.macs for op in architecture.ops())
    fresh, inherited = (derive(architecture, seeded(0), source)(FRAMES)[0] for source in (None, net()))
    assert not torch.equal(fresh, inherited)


def test_derived_weights_are_a_copy():
    supernet, architecture = net(), SPACE.architecture([0, 1, 2])
    network = derive(architecture, seeded(0), supernet)
    before = network(FRAMES)[0].detach().clone()
    with torch.no_grad():
        for p in supernet.parameters():
            p.add_(1.0)
    assert torch.equal(network(FRAMES)[0], before)


def test_wrong_paths_and_networks_are_refused():
    supernet = net()
    with pytest.raises(ShapeError, match="3 points, the path 2"):
        supernet(FRAMES, Path(((0,), (1,))))
    other = AgentNetwork(SPACE.architecture([3, 0, 0]).ops(), seeded(0))
    with pytest.raises(ShapeError, match="blocks"):
        supernet.copy_into(SPACE.architecture([0, 0, 0]), other.blocks, other.ends)


def test_the_seed_fixes_the_weights():
    a, b, c = (SuperNet(SPACE, seeded(n)).state_dict() for n in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a) and any(not torch.equal(a[k], c[k]) for k in a)
    wider = SuperNet(chain_space(dataclasses.replace(CONFIG, hidden=16), (9, 11, 3), 4), seeded(1)).state_dict()
    assert torch.equal(wider["stem.conv.weight"], a["stem.conv.weight"])


def test_fresh_weights_of_a_derived_network_come_from_the_generator_alone():
    architecture = SPACE.sample(seeded(0))
    first, again, other = (list(derive(architecture, seeded(n)).parameters()) for n in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again)) and not all(torch.equal(a, b) for a, b in zip(first, other))
