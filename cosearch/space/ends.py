"""What surrounds the blocks of every agent, shared by supernet, derived network, teacher and reference.

Before the first block: vectors are normalised by running statistics (images need none, the stem scales them). They are buffers,
so that they travel with the weights through checkpoints, derivation and teacher files; they cost nothing on a device, because
the export folds them into the first layer. Where a mean is so many standard deviations away that float32 would lose the signal in
the fold, the mean stays a subtraction of its own. No clipping follows: it could not be folded. After the last block: the head's
outputs become policy outputs and value; a Gaussian policy has a log standard deviation here that does not depend on the state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latency_tables.errors import NonFiniteError, ShapeError
from latency_tables.opspec import OpSpec

POLICIES = ("categorical", "gaussian")
STILL = 2.0**-22  # a standard deviation below this share of its mean is two roundings of float32: a feature that stands still
STILL_VARIANCE = 1e-30  # beside a mean of about 0: the unit of an observation is nobody's business above 1e-15 of it
LEAST_VARIANCE = 1e-4  # of networks that were saved before the floor was relative
FOLDED_DEVIATIONS = 256.0  # a mean of more standard deviations is not folded: the sum would lose 8 of the 24 bits of float32


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
    relative: Tensor

    def __init__(self, first: OpSpec, head: OpSpec, policy: str) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise ShapeError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
        self.policy, self.takes_vectors, self.scales = policy, first.kind != "stem", True
        if self.takes_vectors:
            self.register_buffer("mean", torch.zeros(first.in_channels))
            self.register_buffer("variance", torch.ones(first.in_channels))
            self.register_buffer("count", torch.zeros(()))
            self.register_buffer("relative", torch.ones(()))  # 0: of a version whose floor of the variance was absolute
            self.register_load_state_dict_pre_hook(_with_old_floor)
        if policy == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(head.out_channels - 1))

    def enter(self, frames: Tensor) -> Tensor:
        """Images as they are; vectors ``[batch, features]`` with about zero mean and unit variance."""
        if not self.takes_vectors:
            return frames
        return (frames - self.mean) * self.scale() if self.scales else frames - self.mean

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
        """``[features]``: one over the standard deviation; 0 for a feature that stands still, which says nothing."""
        least = (STILL * self.mean).square().clamp(min=STILL_VARIANCE)
        scale = torch.where(self.variance > least, self.variance.rsqrt(), 0.0)
        return torch.where(self.relative > 0, scale, self.variance.clamp(min=LEAST_VARIANCE).rsqrt())

    @torch.no_grad()
    def see(self, frames: Tensor) -> None:
        """Take observations into the running statistics (Chan et al. 1979, eq. 1.5a and b); images are passed over.

        Until the first call mean 0 and variance 1 are used; they leave no trace in the statistics.

        Args:
            frames: ``[..., features]``.

        Raises:
            NonFiniteError: their squares do not fit into float32.
        """
        if not self.takes_vectors:
            return
        seen = frames.reshape(-1, frames.shape[-1]).to(self.mean.device, torch.float64)
        mean, variance, count = (buffer.double() for buffer in (self.mean, self.variance, self.count))
        n, total = len(seen), count + len(seen)
        moved = seen.mean(0) - mean
        sums = variance * count + seen.var(0, unbiased=False) * n + moved.square() * count * n / total
        if not bool((sums / total < torch.finfo(torch.float32).max).all()):
            raise NonFiniteError(
                "observations cannot be normalised: their squares do not fit into float32, the largest is "
                f"{float(seen.abs().max()):.3g}. Give them in a larger unit (gymnasium's TransformObservation)"
            )
        self.mean.copy_(mean + moved * n / total)
        self.variance.copy_(sums / total)
        self.count.copy_(total)

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Put the normalisation of vectors into the layer that reads them; the function stays the same.

        None is left here, or, where a mean is more than 256 standard deviations away, its subtraction alone.
        """
        if not self.takes_vectors:
            return
        weight = layer.weight.double() * self.scale().double()
        layer.weight.copy_(weight)
        if float((self.mean * self.scale()).abs().max()) > FOLDED_DEVIATIONS:
            self.scales = False
            return
        layer.bias.copy_(layer.bias.double() - weight @ self.mean.double())
        self.takes_vectors = False


def _with_old_floor(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    """A saved network that does not say how its variances were bounded had the absolute floor."""
    if f"{prefix}mean" in state:
        state.setdefault(f"{prefix}relative", torch.zeros(()))
