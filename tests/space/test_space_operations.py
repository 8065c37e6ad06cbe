"""Blocks: every registered operation and the fixed agents agree with their ``OpSpec``, counted and computed independently."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork, check_chain, impala_cnn, nature_cnn, reference_agents
from cosearch.space.operations import OPERATIONS, CandidateOp, build_block
from cosearch.space.space import SPACES
from cosearch.testing.conformance import check_block, check_operation, count_macs, example_input, seeded
from latency_tables.errors import ConfigError, ShapeError
from latency_tables.opspec import OpSpec

CONV = OpSpec("conv", 3, 7, 5, 4, kernel=3, stride=2, padding=1)


@pytest.mark.parametrize("entry", OPERATIONS.entries(), ids=lambda entry: entry.name)
def test_every_registered_operation_conforms(entry):
    check_operation(entry)


@pytest.mark.parametrize(
    "spec",
    [
        CONV,
        OpSpec("conv", 4, 6, 6, 4, kernel=3, padding=1, groups=4),
        OpSpec("conv", 4, 6, 6, 8, kernel=3, padding=1, groups=2, activation="none"),
        OpSpec("stem", 3, 17, 13, 5, kernel=8, stride=4, padding=2),
        OpSpec("maxpool", 4, 9, 7, 4, kernel=3, stride=2, padding=1, activation="none"),
        OpSpec("residual", 4, 5, 7, 4, kernel=3, padding=1),
        OpSpec("head", 4, 5, 3, 7, hidden=6),
        OpSpec("head", 4, 5, 3, 7, hidden=6, activation="none"),
        OpSpec("head", 4, 5, 3, 7),
        OpSpec("head", 4, 5, 3, 7, kernel=5, hidden=6),
        OpSpec("head", 4, 3, 4, 7, kernel=4, activation="none"),
        OpSpec("stem", 3, 17, 13, 5, kernel=3, stride=2, padding=1, groups=2),
    ],
    ids=lambda spec: spec.key,
)
def test_blocks_of_every_kind_conform(spec):
    check_block(spec)


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda c, h, w, o, s: OpSpec("conv", c, h, w, o, kernel=3, stride=s), "neighbours expect"),
        (lambda c, h, w, o, s: OpSpec("conv", c, h, w, o + 1, kernel=3, stride=s, padding=1), "neighbours expect"),
        (lambda c, h, w, o, s: None, "identity"),
    ],
)
def test_an_operation_of_wrong_shape_does_not_conform(change, fault):
    with pytest.raises(AssertionError, match=fault):
        check_operation(CandidateOp("planted", "wrong on purpose", change))


def test_count_of_macs_is_the_hand_number():
    # 4 outputs x 4 x 3 positions x (3 channels x 3 x 3)
    assert count_macs(build_block(CONV, seeded(0)), example_input(CONV, 1)) == 4 * 4 * 3 * 27 == CONV.macs


def relu(x):
    return np.maximum(x, 0.0)


def dense(weight, bias, x):
    """1x1 convolution as a matrix product: nothing shared with the convolution kernels."""
    return np.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x) + bias[None, :, None, None]


def windows(x, kernel, stride, padding):
    """All windows of a padded input, ``[batch, channels, height', width', kernel, kernel]``."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


def arrays(block):
    return {key: value.double().numpy() for key, value in block.state_dict().items()}


@pytest.mark.parametrize("stride, out", [(1, 4), (2, 4), (1, 6)])
def test_inverted_residual_equals_its_formula_in_numpy(stride, out):
    spec = OpSpec("mbconv", 4, 5, 7, out, kernel=3, stride=stride, padding=1, expansion=3)
    block, x = build_block(spec, seeded(0)), example_input(spec, 2)
    w = arrays(block)
    wide = relu(dense(w["expand.weight"], w["expand.bias"], x.double().numpy()))
    deep = np.einsum("cij,bchwij->bchw", w["depthwise.weight"][:, 0], windows(wide, 3, stride, 1))
    y = dense(w["project.weight"], w["project.bias"], relu(deep + w["depthwise.bias"][None, :, None, None]))
    if stride == 1 and out == 4:
        y = y + x.double().numpy()
    np.testing.assert_allclose(block(x).detach().numpy(), relu(y), atol=1e-5)  # float32 sums of about 40 terms


def test_stem_scales_bytes_and_head_flattens_in_channel_order():
    stem = OpSpec("stem", 2, 5, 4, 3, kernel=1)
    block, frames = build_block(stem, seeded(0)), example_input(OpSpec("stem", 2, 5, 4, 3), 2)
    w = arrays(block)
    wanted = relu(dense(w["conv.weight"], w["conv.bias"], frames.numpy().transpose(0, 3, 1, 2) / 255.0))
    np.testing.assert_allclose(block(frames).detach().numpy(), wanted, atol=1e-6)
    head = OpSpec("head", 3, 5, 4, 3, hidden=8)
    block, x = build_block(head, seeded(1)), example_input(head, 2)
    w = arrays(block)
    hidden = relu(relu(x.double().numpy()).reshape(2, -1) @ w["hidden.weight"].T + w["hidden.bias"])
    np.testing.assert_allclose(block(x).detach().numpy(), hidden @ w["outputs.weight"].T + w["outputs.bias"], atol=1e-5)


def test_stem_averages_squares_of_pixels_and_head_its_map():
    stem = OpSpec("stem", 2, 6, 5, 3, kernel=1, groups=2)
    block, frames = build_block(stem, seeded(0)), example_input(stem, 2)
    w, x = arrays(block), frames.numpy().transpose(0, 3, 1, 2) / 255.0
    small = np.stack([[x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)) for j in range(2)] for i in range(3)])
    wanted = relu(dense(w["conv.weight"], w["conv.bias"], small.transpose(2, 3, 0, 1)))
    np.testing.assert_allclose(block(frames).detach().numpy(), wanted, atol=1e-6)
    head = OpSpec("head", 3, 5, 4, 3, kernel=5)
    block, x = build_block(head, seeded(1)), example_input(head, 2)
    w = arrays(block)
    wanted = relu(x.double().numpy()).mean((2, 3)) @ w["outputs.weight"].T + w["outputs.bias"]
    np.testing.assert_allclose(block(x).detach().numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["stem", "conv", "mbconv", "head"])
def test_activation_on_differs_from_off(kind):
    on = OpSpec(kind, 3, 6, 6, 3, kernel=1, hidden=4)
    off = dataclasses.replace(on, activation="none")
    x = example_input(on, 4)
    a, b = (build_block(spec, seeded(0))(x).detach() for spec in (on, off))
    assert not torch.equal(a, b)
    if kind != "head":
        assert torch.equal(a, F.relu(b))


def test_first_policy_is_nearly_uniform_and_the_value_is_not_flat():
    head = OpSpec("head", 8, 4, 4, 16, hidden=64)
    out = build_block(head, seeded(0))(example_input(head, 256)).detach()
    spread = torch.softmax(out[:, :-1], -1).mul(15)
    assert spread.min() > 0.8 and spread.max() < 1.25
    assert out[:, -1].std() > 0.3
    weight = build_block(head, seeded(0)).outputs.weight.detach()
    gram = weight[:-1] @ weight[:-1].T
    torch.testing.assert_close(gram, 1e-4 * torch.eye(15), atol=1e-8, rtol=0)  # rows orthogonal, gain 0.01
    assert float(weight[-1].norm()) == pytest.approx(1.0, abs=1e-5)


def test_weights_of_the_impala_cnn_are_glorots_and_those_of_others_he():
    for name, weight in AgentNetwork(impala_cnn((64, 64, 3), 15), seeded(0)).state_dict().items():
        if weight.dim() > 1 and "outputs" not in name:
            fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
            bound = (6.0 / (fan_in + fan_out)) ** 0.5
            assert 0.9 * bound < float(weight.abs().max()) <= bound
            assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
    stem = build_block(OpSpec("stem", 3, 64, 64, 32, kernel=8, stride=4, padding=2), seeded(0)).conv.weight.detach()
    assert float(stem.std()) == pytest.approx((2.0 / (3 * 64)) ** 0.5, rel=0.05)


def test_layers_before_a_tanh_are_orthogonal_and_others_of_one_width_near_the_identity():
    def weight(activation, features):
        return build_block(OpSpec("linear", features, 1, 1, 64, activation=activation), seeded(0)).linear.weight.detach()

    for features in (17, 64):
        tanh = weight("tanh", features)
        torch.testing.assert_close(
            tanh.T @ tanh, 2.0 * torch.eye(features), atol=1e-5, rtol=0
        )  # orthogonal columns, gain sqrt(2)
    assert float((weight("relu", 64) - torch.eye(64)).diagonal().mean()) == pytest.approx(0.0, abs=0.03)


def test_the_output_layer_computes_in_float32_under_autocast():
    head = OpSpec("head", 3, 5, 4, 3, hidden=8)
    block, x = build_block(head, seeded(1)), example_input(head, 2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = block(x)
        features = F.relu(block.hidden(F.relu(x).flatten(1)))
    assert features.dtype == torch.bfloat16 and found.dtype == torch.float32
    exact = features.double() @ block.outputs.weight.double().T + block.outputs.bias.double()
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=1e-6)
    assert not torch.equal(found, found.bfloat16().float())  # what it would be without


def test_reference_agents_have_the_published_parameter_counts():
    # counted by hand from the papers' layer lists: 64x64x3 frames, 15 actions, one value
    widths, channels, side, params = (16, 32, 32), 3, 64, 0
    for width in widths:
        params += width * channels * 9 + width + 4 * (width * width * 9 + width)
        channels, side = width, side // 2
    params += side * side * channels * 256 + 256 + 256 * 16 + 16
    impala = AgentNetwork(impala_cnn((64, 64, 3), 15), seeded(0))
    assert sum(p.numel() for p in impala.parameters()) == params == sum(op.params for op in impala.ops) == 626_256
    nature = AgentNetwork(nature_cnn((84, 84, 4), 6), seeded(0))
    assert sum(p.numel() for p in nature.parameters()) == 1_687_719  # Mnih et al. with a value beside six actions
    assert nature.ops[-1].in_height == 7 and nature.ops[-1].in_channels == 64


@pytest.mark.parametrize("frame_shape", [(64, 64, 3), (10, 10, 4), (37, 50, 1), (84, 84, 4)])
def test_reference_agents_run_on_the_frames_they_are_offered_for(frame_shape):
    agents = reference_agents(frame_shape, 5)
    assert ("nature-cnn" in agents) == (min(frame_shape[:2]) >= 36)
    for ops in agents.values():
        logits, value = AgentNetwork(ops, seeded(0))(torch.zeros(2, *frame_shape, dtype=torch.uint8))
        assert logits.shape == (2, 5) and value.shape == (2,)
    with pytest.raises(ShapeError):
        nature_cnn((20, 64, 3), 5)


def test_a_list_of_blocks_that_is_no_network_is_refused():
    ops = nature_cnn((64, 64, 3), 5)
    for broken, text in (
        (ops[1:], "starts with a stem"),
        (ops[:-1], "ends with a head"),
        ([ops[0], *ops[2:]], "takes"),
        ([], "stem"),
    ):
        with pytest.raises(ShapeError, match=text):
            check_chain(broken)


@pytest.mark.parametrize(
    "candidates, widths, text",
    [
        (("conv_k3", "none"), (16,), "expected operations on images, got none; there are: .*conv_k3.*max_pool_3x3"),
        (("mlp_w32_relu",), (16,), "expected operations on images, got mlp_w32_relu"),
        (("max_pool_3x3", "skip"), (16, 32), r"may change the width \(16 to 16 to 32 channels\), got max_pool_3x3; there are: "),
    ],
)
def test_a_chain_refuses_what_is_no_block_of_a_chain(candidates, widths, text):
    load_builtins()
    values = {"stem_channels": 16, "stage_channels": widths, "stage_repeats": (2,) * len(widths)}
    values |= {"stage_strides": (2,) * len(widths), "candidates": candidates}
    with pytest.raises(ConfigError, match=text) as error:
        SPACES.get("chain").make(values, (40, 40, 4), 3)
    usable = str(error.value).partition("there are: ")[2].split(", ")
    assert not {"none", "mlp_w32_relu"} & set(usable) and ("max_pool_3x3" in usable) == (len(widths) == 1)
    space = SPACES.get("chain").make({**values, "candidates": usable}, (40, 40, 4), 3)
    for choice in range(len(usable)):  # each of those named makes a network
        network = derive(space.architecture([choice] * len(space.points)), torch.Generator().manual_seed(0))
        assert network(torch.zeros((2, 40, 40, 4), dtype=torch.uint8))[0].shape == (2, 3)
