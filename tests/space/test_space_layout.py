"""Operations fast for channels-last memory: equal to the library's, bit for bit or to rounding, used where they should be."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cosearch.space.cells.layout import IN_CACHE, MaxPool, flat_linear, flatten, scaled
from cosearch.testing.conformance import seeded


def frames(shape, dtype, last=True):
    x = torch.randn(shape, generator=seeded(0)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("shape", [(3, 16, 12, 8), (2, 5, 7, 6), (1, 1, 2, 2)])
def test_maxima_are_the_librarys(shape, last, dtype):
    x = frames(shape, dtype, last)
    with torch.inference_mode():
        found = MaxPool(3, 2, 1)(x)
        assert torch.equal(found, F.max_pool2d(x, 3, 2, 1)) and torch.equal(x, frames(shape, dtype, last))
    assert torch.equal(MaxPool(2, 2)(x), F.max_pool2d(x, 2, 2))


def test_maxima_of_negative_numbers_know_no_padding_and_gradients_are_the_librarys():
    x = -frames((2, 3, 4, 4), torch.float32).abs() - 1.0
    with torch.no_grad():
        assert MaxPool(3, 2, 1)(x).max() < 0
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    MaxPool(3, 2, 1)(mine).square().sum().backward()
    F.max_pool2d(theirs, 3, 2, 1).square().sum().backward()
    assert torch.equal(mine.grad, theirs.grad)


def test_a_flattened_gradient_has_the_tensors_own_order():
    x = frames((4, 3, 5, 2), torch.float32)
    weights = torch.randn(4, 30, generator=seeded(1))
    results = []
    for function in (flatten, lambda t: t.flatten(1)):
        at = x.clone(memory_format=torch.preserve_format).requires_grad_()
        seen = []
        inner = at * 1.0
        inner.register_hook(seen.append)
        (function(inner) * weights).sum().backward()
        results.append((function(inner).detach(), at.grad, seen[0].is_contiguous(memory_format=torch.channels_last)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert [result[2] for result in results] == [True, False]


@pytest.mark.parametrize("batch, moved", [(9, "weights"), (8, "features")])
def test_a_layer_on_features_is_the_librarys_whichever_of_the_two_is_moved(batch, moved, monkeypatch):
    layer = nn.Linear(30, 8)
    x, calls = frames((batch, 3, 5, 2), torch.float32), []
    monkeypatch.setattr("cosearch.space.cells.layout.flatten", lambda t: calls.append("features") or flatten(t))
    results = []
    for function in (lambda t: flat_linear(t, layer), lambda t: layer(t.flatten(1))):
        at = x.clone(memory_format=torch.preserve_format).requires_grad_()
        layer.zero_grad()
        found = function(at)
        found.square().sum().backward()
        results.append((found.detach(), at.grad, layer.weight.grad.clone(), layer.bias.grad.clone()))
    for mine, theirs in zip(*results):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert (calls or ["weights"]) == [moved]
    with torch.no_grad():
        assert torch.equal(flat_linear(x, layer), layer(x.flatten(1)))


@pytest.mark.parametrize("shape", [(3, 10, 10, 4), (40, 64, 64, 3), (0, 4, 4, 1), (1, 512, 300, 1)])
def test_scaled_bytes_are_what_autocast_makes_of_them(shape):
    frames = torch.randint(0, 256, shape, generator=seeded(0)).to(torch.uint8)
    plain = frames.to(torch.float32) * (1.0 / 255.0)
    assert torch.equal(scaled(frames, torch.float32), plain)
    assert torch.equal(scaled(frames, torch.float64), frames.to(torch.float64) * (1.0 / 255.0))
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled(frames, torch.float32)
    assert found.dtype == torch.bfloat16 and torch.equal(found, plain.to(torch.bfloat16))
    assert (frames.numel() > IN_CACHE) == (shape[1] >= 64)


def test_the_exporter_sees_the_librarys_pooling(tmp_path):
    import onnx

    path = tmp_path / "pool.onnx"
    with torch.no_grad():
        torch.onnx.export(nn.Sequential(MaxPool(3, 2, 1)), (torch.zeros(1, 2, 4, 4),), str(path), dynamo=False)
    assert [node.op_type for node in onnx.load(path).graph.node] == ["MaxPool"]
