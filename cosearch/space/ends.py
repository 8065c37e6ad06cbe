"""What surrounds the blocks of every agent, shared by supernet, derived network, teacher and reference.

Before the first block: vectors are normalised by running statistics (images need none, the stem scales them). They are buffers,
so that they travel with the weights through checkpoints, derivation and teacher files; they cost nothing on a device, because
the export folds them into the first layer. No clipping follows: it could not be folded. After the last block: the head's
outputs become policy outputs and value; a Gaussian policy has a log standard deviation here that does not depend on the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec

POLICIES = ("categorical", "gaussian")
LEAST_VARIANCE = 1e-4  # of an observation that hardly moves, in its own squared units


def observations_of(frame_shape: Sequence[int]) -> str:
    """``frames`` for images ``(height, width, channels)``, ``vectors`` for ``(features,)``."""
    return "vectors" if len(frame_shape) == 1 else "frames"


class AgentEnds(nn.Module):
    """Observations in, policy outputs and value out.

    Args:
        first: the first block; ``stem`` takes images, any other kind vectors.
        head: the last block, whose outputs are one an action or component, then the value.
        policy: ``categorical`` or ``gaussian``.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, first: OpSpec, head: OpSpec, policy: str) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise ShapeError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
        self.policy, self.takes_vectors = policy, first.kind != "stem"
        if self.takes_vectors:
            self.register_buffer("mean", torch.zeros(first.in_channels))
            self.register_buffer("variance", torch.ones(first.in_channels))
            self.register_buffer("count", torch.zeros(()))
        if policy == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(head.out_channels - 1))

    def enter(self, frames: Tensor) -> Tensor:
        """Images as they are; vectors ``[batch, features]`` with about zero mean and unit variance."""
        return (frames - self.mean) * self.scale() if self.takes_vectors else frames

    def leave(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the head ``[batch, n + 1]`` -> policy outputs and value ``[batch]``.

        Returns:
            Logits ``[batch, n]``, or means and log standard deviations ``[batch, 2 n]``; value.
        """
        chosen, value = outputs[:, :-1], outputs[:, -1]
        if self.policy == "gaussian":
            chosen = torch.cat([chosen.float(), self.log_std.expand(len(chosen), -1)], -1)
        return chosen, value

    def scale(self) -> Tensor:
        """``[features]``: one over the standard deviation."""
        return self.variance.clamp(min=LEAST_VARIANCE).rsqrt()

    @torch.no_grad()
    def see(self, frames: Tensor) -> None:
        """Take observations into the running statistics (Chan et al. 1979, eq. 1.5a and b); images are passed over.

        Until the first call mean 0 and variance 1 are used; they leave no trace in the statistics.

        Args:
            frames: ``[..., features]``.
        """
        if not self.takes_vectors:
            return
        seen = frames.reshape(-1, frames.shape[-1]).to(self.mean.device, torch.float64)
        mean, variance, count = (buffer.double() for buffer in (self.mean, self.variance, self.count))
        n, total = len(seen), count + len(seen)
        moved = seen.mean(0) - mean
        sums = variance * count + seen.var(0, unbiased=False) * n + moved.square() * count * n / total
        self.mean.copy_(mean + moved * n / total)
        self.variance.copy_(sums / total)
        self.count.copy_(total)

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Put the normalisation of vectors into the layer that reads them, and leave none here; the function stays the same."""
        if not self.takes_vectors:
            return
        weight = layer.weight.double() * self.scale().double()
        layer.bias.copy_(layer.bias.double() - weight @ self.mean.double())
        layer.weight.copy_(weight)
        self.takes_vectors = False
