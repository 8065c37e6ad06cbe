"""The fused optimiser against Adam's equations in numpy, whatever the layout of weights and gradients."""

import numpy as np
import pytest
import torch

from cosearch.rl.learning.optimiser import EPS, WeightAdam

LAYOUTS = {
    "same": lambda grad: grad,
    "contiguous": lambda grad: grad.contiguous(),
    "channels last": lambda grad: grad.contiguous(memory_format=torch.channels_last),
    "transposed": lambda grad: grad.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2),
}


def adam(weight, grads, lr, eps=EPS):
    """Kingma & Ba 2015, algorithm 1, in float64."""
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for t, grad in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad * grad
        weight = weight - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return weight


@pytest.mark.parametrize("weights", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_takes_the_steps_of_the_paper(layout, weights):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(8, 4, 3, 3, generator=generator)
    grads = [torch.randn(8, 4, 3, 3, generator=generator) for _ in range(5)]
    parameter = torch.nn.Parameter(start.clone().contiguous(memory_format=weights))
    idle = torch.nn.Parameter(torch.ones(3))
    optimiser = WeightAdam([parameter, idle], 1e-2)
    for grad in grads:
        parameter.grad = LAYOUTS[layout](grad.contiguous(memory_format=weights))
        optimiser.step()
    expected = adam(start.double().numpy(), [grad.double().numpy() for grad in grads], 1e-2)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=2e-6)
    assert torch.equal(idle.detach(), torch.ones(3))


def test_the_eps_that_is_set_is_that_of_the_next_steps():
    grads = [torch.full((3,), 1e-6 * step) for step in range(1, 4)]  # below PPO's eps, so it decides the step
    found = {}
    for eps in (EPS, 1e-8):
        parameter = torch.nn.Parameter(torch.ones(3))
        optimiser = WeightAdam([parameter], 1e-2)
        optimiser.set_eps(eps)
        for grad in grads:
            parameter.grad = grad.clone()
            optimiser.step()
        found[eps] = parameter.detach().numpy()
        np.testing.assert_allclose(found[eps], adam(np.ones(3), [grad.double().numpy() for grad in grads], 1e-2, eps), atol=1e-6)
    assert np.all(1 - found[1e-8] > 5 * (1 - found[EPS]))


def test_a_saved_state_goes_on_to_the_same_weights():
    def parameter():
        return torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))

    straight, before, after = parameter(), parameter(), parameter()
    one, two = WeightAdam([straight], 1e-2), WeightAdam([before], 1e-2)
    for step in range(6):
        straight.grad = torch.sin(torch.arange(12.0).reshape(3, 4) + step)
        one.step()
        if step < 3:
            before.grad = straight.grad.clone()
            two.step()
    three = WeightAdam([after], 1e-2)
    three.load_state_dict(two.state_dict())
    after.data.copy_(before.data)
    for step in range(3, 6):
        after.grad = torch.sin(torch.arange(12.0).reshape(3, 4) + step)
        three.step()
    assert torch.equal(after, straight)
