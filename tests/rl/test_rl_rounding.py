"""Training with int8 rounding: values by hand, gradients that pass, and the same outputs as the quantised file."""

import numpy as np
import pytest
import torch

from cosearch.deploy.artifacts.agreement import outputs_of
from cosearch.deploy.artifacts.quantised import Quantiser
from cosearch.deploy.export import to_onnx
from cosearch.space.network import AgentNetwork
from cosearch.training.rounding import (
    layers_of,
    observed_ranges,
    round_from_now_on,
    round_no_more,
    rounded_input,
    rounded_weight,
)
from latency_tables.opspec import OpSpec

FRAMES = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), np.uint8)


def network(middle="mbconv"):
    ops = [
        OpSpec("stem", 3, 12, 12, 6, 3, 1, 1),
        OpSpec(middle, 6, 12, 12, 6, 3, 1, 1, expansion=3 if middle == "mbconv" else 1),
        OpSpec("conv", 6, 12, 12, 6, 3, 1, 1),
        OpSpec("head", 6, 12, 12, 4, hidden=8),
    ]
    net = AgentNetwork(ops, torch.Generator().manual_seed(0)).eval()
    net.blocks[3].outputs.weight.data.mul_(30)  # a new agent has hardly a preference; a trained one has
    return net


def test_values_are_rounded_to_the_steps_of_their_ranges():
    weight = torch.tensor([[1.27, -0.504, 0.006], [0.0, 0.0, 0.0], [-2.54, 2.0, 0.011]])
    assert rounded_weight(weight).numpy() == pytest.approx(
        np.array([[1.27, -0.5, 0.01], [0, 0, 0], [-2.54, 2.0, 0.02]]), abs=1e-6
    )
    x = torch.tensor([-1.0, -0.1, 0.0, 0.0124, 1.0, 9.0], requires_grad=True)
    rounded = rounded_input(x, -0.51, 2.04)  # a step of 0.01, zero is step 51
    assert rounded.detach().numpy() == pytest.approx([-0.51, -0.1, 0.0, 0.01, 1.0, 2.04], abs=1e-6)
    rounded.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]  # straight through, and none where it was clipped


@pytest.mark.parametrize("middle, share", [("conv", 0.25), ("mbconv", 0.6)])  # the file also rounds what a sum adds
def test_a_rounded_network_gives_what_the_int8_file_gives(middle, share):
    net = network(middle)
    model = to_onnx(net, (12, 12, 3))
    float_outputs = outputs_of(model, FRAMES)["logits"]
    file_outputs = outputs_of(Quantiser(model, FRAMES, FRAMES, greedy=False).make().model, FRAMES)["logits"]
    ranges = observed_ranges(net, FRAMES)
    assert set(ranges) == set(layers_of(net)) and all(low <= 0 <= high for low, high in ranges.values())
    assert ranges["blocks.0.conv"] == (pytest.approx(FRAMES.min() / 255), pytest.approx(FRAMES.max() / 255))
    names, values = list(net.state_dict()), [value.clone() for value in net.state_dict().values()]
    round_from_now_on(net, ranges)
    with torch.no_grad():
        rounded = net(torch.from_numpy(FRAMES))[0].numpy()
    moved = np.abs(float_outputs - file_outputs).mean()
    assert moved > 0 and np.abs(rounded - file_outputs).mean() < share * moved
    assert list(net.state_dict()) == names and all(map(torch.equal, net.state_dict().values(), values))
    round_no_more(net)
    with torch.no_grad():
        assert net(torch.from_numpy(FRAMES))[0].numpy() == pytest.approx(float_outputs, abs=1e-5)


def test_every_weight_learns_through_the_rounding():
    net = network().train()
    round_from_now_on(net, observed_ranges(net, FRAMES))
    logits, value = net(torch.from_numpy(FRAMES))
    (logits.square().sum() + value.square().sum()).backward()
    assert all(parameter.grad is not None and float(parameter.grad.abs().sum()) > 0 for parameter in net.parameters())
