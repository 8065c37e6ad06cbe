"""Reversible blocks and runs: reconstruction, gradients equal to plain autograd's, and memory that does not grow with depth."""

import numpy as np
import pytest
import torch

from cosearch.planning.builtins import load_builtins
from cosearch.space.blocks.reversible import Coupling
from cosearch.space.operations import OPERATIONS, build_block
from cosearch.space.space import SPACES
from cosearch.space.supernet import Path, SuperNet, reversible_runs
from cosearch.testing.conformance import check_derived, check_operation, check_space, seeded
from latency_tables.errors import ShapeError
from latency_tables.onnx_models.blocks import build_network_model
from latency_tables.opspec import OpSpec

load_builtins()
VECTORS = ["rev_w32_relu", "rev_w64_tanh", "skip_layer"]
FRAMES = ["rev_conv_k3", "rev_conv_k5", "skip"]


def space_of(kind, depth):
    if kind == "mlp":
        return SPACES.get("mlp").make({"candidates": VECTORS, "stage_repeats": [depth], "stem_activation": "none"}, (8,), 3)
    stages = {"stage_channels": [8], "stage_repeats": [depth], "stage_strides": [1]}
    stem = {"stem_channels": 8, "stem_kernel": 3, "stem_stride": 1, "hidden": 16}
    return SPACES.get("chain").make({"candidates": FRAMES, **stages, **stem}, (10, 10, 4), 3)


def supernet_of(kind, depth):
    return SuperNet(space_of(kind, depth), seeded(1))


def frames_of(kind, batch=16):
    if kind == "mlp":
        return torch.randn(batch, 8, generator=seeded(2))
    return torch.randint(0, 256, (batch, 10, 10, 4), generator=seeded(2), dtype=torch.uint8)


def drawn(depth, candidates, *, soft=False):
    """A path through all or two candidates of each point, with weights that learn."""
    stream, active, weights = seeded(3), [], []
    for _point in range(depth):
        order = torch.randperm(3, generator=stream).tolist()[:candidates]
        active.append(tuple(order))
        weights.append(torch.softmax(torch.randn(len(order), generator=stream), 0).requires_grad_())
    return Path(tuple(active), tuple(weights), soft=soft)


def gradients(supernet, path, frames):
    outputs, value = supernet(frames, path)
    (outputs.square().sum() + value.sum()).backward()
    learned = [*path.weights, *supernet.parameters()]
    return outputs.detach(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learned]


@pytest.mark.parametrize("name", ["rev_w32_relu", "rev_w128_tanh", "rev_conv_k3", "rev_conv_k5"])
def test_candidates_have_the_shapes_and_costs_of_their_specs(name):
    check_operation(OPERATIONS.get(name))


@pytest.mark.parametrize(
    "spec",
    [
        OpSpec("revmlp", 7, 1, 1, 7, groups=2, hidden=16, activation="tanh"),
        OpSpec("revmlp", 64, 1, 1, 64, groups=4, hidden=32),
        OpSpec("revconv", 5, 6, 6, 5, kernel=3, padding=1, groups=3, activation="none"),
    ],
)
def test_a_block_gives_its_input_back_and_follows_the_equations(spec):
    block = build_block(spec, seeded(1))
    x = torch.randn(4, spec.in_channels, *([6, 6] if spec.kind == "revconv" else []), generator=seeded(2))
    with torch.no_grad():
        y = block(x)
        assert float((block.inverse(y) - x).abs().max()) < 1e-5
        parts = list(torch.tensor_split(x, spec.groups, 1))
        for k in range(spec.groups):  # the equations, part by part
            others = torch.cat(parts[:k] + parts[k + 1 :], 1)
            if spec.kind == "revmlp":
                act = torch.tanh if spec.activation == "tanh" else torch.relu
                parts[k] = parts[k] + block.outputs[k](act(block.hidden[k](others)))
            else:
                parts[k] = parts[k] + block.outputs[k](torch.relu(others))
        assert torch.allclose(torch.cat(parts, 1), y, atol=1e-6) and not torch.allclose(x, y, atol=1e-2)


@pytest.mark.parametrize("kind", ["mlp", "chain"])
@pytest.mark.parametrize("soft, candidates", [(False, 2), (True, 3), (False, 1)])
def test_gradients_equal_those_of_plain_autograd(kind, soft, candidates):
    """In double precision, so that nothing but an error of the backward pass could make them differ."""
    depth, frames = 6, frames_of(kind)
    frames = frames.double() if kind == "mlp" else frames
    results = []
    for reference in (False, True):
        supernet = supernet_of(kind, depth).double()
        path = drawn(depth, candidates, soft=soft)
        path = Path(path.active, tuple(w.detach().double().requires_grad_() for w in path.weights), soft)
        if reference:  # the same couplings by plain autograd
            supernet.forward = plain_forward(supernet)
        results.append(gradients(supernet, path, frames))
    (mine, my_gradients), (theirs, their_gradients) = results
    assert torch.equal(mine, theirs)
    assert len(my_gradients) == len(their_gradients)
    for a, b in zip(my_gradients, their_gradients):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)
    assert any(float(g.abs().max()) > 0 for g in my_gradients[:depth]) == (candidates > 1 or any(c[0] != 2 for c in path.active))


def plain_forward(supernet):
    def forward(frames, path):
        x = supernet.stem(supernet.ends.enter(frames))
        for place, blocks in enumerate(supernet.body):
            x = supernet.coupling(place, blocks, path).forward(x)
        return supernet.ends.leave(supernet.head(x))

    return forward


def test_with_all_candidates_blocks_mixed_whole_have_the_same_value_on_one_hot_weights():
    supernet = supernet_of("mlp", 4)
    path = Path(((0, 1, 2),) * 4, tuple(torch.eye(3)[k].requires_grad_() for k in (0, 2, 1, 0)), soft=True)
    hard = Path(((0,), (2,), (1,), (0,)))
    for a, b in zip(supernet(frames_of("mlp"), path), supernet(frames_of("mlp"), hard)):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "chain"])
def test_reconstruction_through_64_blocks(kind):
    supernet, path = supernet_of(kind, 64), drawn(64, 3, soft=True)
    couplings = [supernet.coupling(p, blocks, path) for p, blocks in enumerate(supernet.body)]
    with torch.no_grad():
        x = start = supernet.stem(supernet.ends.enter(frames_of(kind)))
        for coupling in couplings:
            x = coupling.forward(x)
        for coupling in reversed(couplings):
            x = coupling.inverse(x)
    assert float((x - start).abs().max()) < 1e-4


class Kept:
    """A tensor that autograd keeps for a backward pass, and the bytes of all that are kept at this moment."""

    now = most = 0

    def __init__(self, tensor):
        self.tensor, self.bytes = tensor, tensor.nbytes
        Kept.now += self.bytes
        Kept.most = max(Kept.most, Kept.now)

    def __del__(self):
        Kept.now -= self.bytes


def most_kept(supernet, path, frames):
    """The most bytes that autograd keeps at any moment of a forward and a backward pass, parameters left out."""
    weights, Kept.now, Kept.most = {p.data_ptr() for p in supernet.parameters()}, 0, 0
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor if tensor.data_ptr() in weights else Kept(tensor),
        lambda kept: kept.tensor if isinstance(kept, Kept) else kept,
    ):
        outputs, value = supernet(frames, path)
        loss = outputs.sum() + value.sum()
        del outputs, value
        loss.backward()
    return Kept.most


@pytest.mark.parametrize("kind", ["mlp", pytest.param("chain", marks=pytest.mark.slow)])
def test_what_is_kept_for_the_backward_pass_does_not_grow_with_depth(kind):
    measured = {}
    for depth in (4, 64):
        path, frames = drawn(depth, 3, soft=True), frames_of(kind, batch=64)
        measured[depth] = most_kept(supernet_of(kind, depth), path, frames)
        kept = supernet_of(kind, depth)
        kept.forward = plain_forward(kept)
        measured["plain", depth] = most_kept(kept, path, frames)
    assert measured[64] <= 1.02 * measured[4]  # the weights of the paths are a number each
    assert measured["plain", 64] > 10 * measured["plain", 4] > 10 * measured[4]


def test_runs_end_where_a_width_changes_or_a_candidate_is_not_reversible():
    space = SPACES.get("mlp").make({"candidates": VECTORS, "stage_widths": [64, 32], "stage_repeats": [2, 3]}, (8,), 3)
    assert reversible_runs(space) == {0: 2, 3: 5}  # the third point changes the width
    mixed = SPACES.get("mlp").make({"candidates": ["rev_w32_relu", "linear_relu"], "stage_repeats": [3]}, (8,), 3)
    assert reversible_runs(mixed) == {} == reversible_runs(SPACES.get("mlp").make({}, (8,), 3))
    check_space(SPACES.get("mlp"), {"candidates": VECTORS, "stage_widths": [64, 32], "stage_repeats": [2, 3]}, (8,), 3, samples=2)
    deep = space_of("chain", 3)
    check_derived(SuperNet(deep, seeded(1)), deep.sample(seeded(4)), frames_of("chain"))


def test_a_weight_that_changes_before_the_backward_pass_is_noticed():
    supernet, path = supernet_of("mlp", 3), drawn(3, 2)
    outputs, _ = supernet(frames_of("mlp"), path)
    with torch.no_grad():
        supernet.body[1][path.active[1][0] % 2].outputs[0].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_in_bfloat16_parts_stay_float32():
    supernet, path = supernet_of("mlp", 12), drawn(12, 3, soft=True)
    with torch.autocast("cpu", torch.bfloat16):
        _, mine = gradients(supernet, path, frames_of("mlp"))
    other, again = supernet_of("mlp", 12), drawn(12, 3, soft=True)
    other.forward = plain_forward(other)
    with torch.autocast("cpu", torch.bfloat16):
        _, theirs = gradients(other, again, frames_of("mlp"))
    mine, theirs = (torch.cat([g.flatten() for g in each]) for each in (mine, theirs))
    assert float((mine - theirs).norm() / theirs.norm()) < 0.02


@pytest.mark.parametrize(
    "spec", [("revmlp", 64, 1, 1, 64, 1, 1, 0, 2, 1, 32, "relu"), ("revconv", 6, 5, 5, 6, 3, 1, 1, 3, 1, 0, "none")]
)
def test_onnx_form_runs_with_the_spec_of_its_shapes(spec):
    onnxruntime = pytest.importorskip("onnxruntime")
    op = OpSpec(*spec)
    session = onnxruntime.InferenceSession(build_network_model([op, op]), providers=["CPUExecutionProvider"])
    shape = (1, op.in_channels) if op.kind == "revmlp" else (1, op.in_channels, op.in_height, op.in_width)
    (out,) = session.run(None, {"frames": np.random.default_rng(0).normal(size=shape).astype(np.float32)})
    assert out.shape == shape and np.isfinite(out).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 1},
        {"groups": 9},
        {"hidden": 0},
        {"out_channels": 6},
        {"kernel": 3, "padding": 1, "in_height": 3, "in_width": 3},
    ],
)
def test_blocks_that_are_not_reversible_are_refused(changes):
    values = {"kind": "revmlp", "in_channels": 8, "in_height": 1, "in_width": 1, "out_channels": 8, "groups": 2, "hidden": 4}
    OpSpec(**values)
    with pytest.raises(ShapeError, match="revmlp"):
        OpSpec(**values | changes)


def test_a_point_of_skips_alone_passes_its_input_on():
    coupling, x = Coupling((), ()), torch.randn(2, 4)
    assert coupling.forward(x) is x is coupling.inverse(x)
