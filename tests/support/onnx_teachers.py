"""ONNX actor-critics of several kinds, written by torch's own exporter."""

import torch
from torch import nn

from cosearch.rl.foreign.opening import open_network
from cosearch.rl.foreign.understood import Said, TaskFacts


class Flat(nn.Module):
    """One layer over all pixels, in any order of dimensions; its first output are probabilities, or logits."""

    def __init__(self, pixels, actions, probabilities=False):
        super().__init__()
        torch.manual_seed(0)
        self.policy, self.value, self.probabilities = nn.Linear(pixels, actions), nn.Linear(pixels, 1), probabilities

    def forward(self, frames):
        seen = frames.flatten(1).float() / 255
        logits = self.policy(seen)
        return logits.softmax(-1) if self.probabilities else logits, self.value(seen)


def onnx_network(path, frame_shape, actions, **said):
    """The network of a plain ONNX file, as a run of a discrete task opens it as its teacher."""
    return open_network(path, TaskFacts("e", frame_shape, actions), None, Said(**said))


def write_onnx(path, model, shape, *, free=()):
    """The model as an ONNX file for frames of that shape; ``free`` names which of its dimensions are, beside the batch.

    Args:
        path: of the file.
        model: frames -> logits, value.
        shape: of one frame.
        free: indices of free dimensions, counted with the batch.

    Returns:
        The path.
    """
    axes = {"picture": {0: "n", **{i: f"d{i}" for i in free}}}
    example = torch.zeros((2, *shape), dtype=torch.uint8)
    torch.onnx.export(
        model.eval(), (example,), str(path), dynamo=False, opset_version=17, input_names=["picture"], dynamic_axes=axes
    )
    return path
