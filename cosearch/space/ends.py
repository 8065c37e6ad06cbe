"""What surrounds the blocks of every agent, shared by supernet, derived network, teacher and reference.

Before the first block: vectors are normalised by running statistics (images need none, the stem scales them). They are buffers,
so that they travel with the weights through checkpoints, derivation and teacher files; they cost nothing on a device, because
the export folds them into the first layer. Where a mean is so many standard deviations away that float32 would lose the signal in
the fold, the mean stays a subtraction of its own. No clipping follows: it could not be folded. After the last block: the head's
outputs become policy outputs and value; a Gaussian policy has a log standard deviation here that does not depend on the state,
and where its agent learned bounded actions its means go through a hyperbolic tangent between the bounds.
Where an observation has parts they are taken apart here, and its action mask makes the logits of forbidden actions -1e8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cosearch.space.parts import MASK, Part, encoded
from latency_tables.errors import NonFiniteError, ShapeError
from latency_tables.opspec import OpSpec

Bounds = tuple[tuple[float, float], ...]  # for each component of an action half of its range, and the middle
POLICIES = ("categorical", "gaussian", "multi_categorical")
FORBIDDEN = -1e8  # logit of an action that the mask forbids: its probability is exactly 0, and 0 times its logarithm is 0
LEAST_ALLOWED = FORBIDDEN / 2  # no logit or action value of an allowed action is below it
WHOLE = "observation"  # name of a frame that has no parts
STILL = 2.0**-22  # a standard deviation below this share of its mean is two roundings of float32: a feature that stands still
STILL_VARIANCE = 1e-30  # beside a mean of about 0: the unit of an observation is nobody's business above 1e-15 of it
LEAST_VARIANCE = 1e-4  # of networks that were saved before the floor was relative
FOLDED_DEVIATIONS = 256.0  # a mean of more standard deviations is not folded: the sum would lose 8 of the 24 bits of float32


def observations_of(frame_shape: Sequence[int]) -> str:
    """``frames`` for images ``(height, width, channels)``, ``vectors`` for ``(features,)``, ``parts`` for ``(1, bytes)``."""
    return {1: "vectors", 2: "parts"}.get(len(frame_shape), "frames")


class AgentEnds(nn.Module):
    """Observations in, policy outputs and value out.

    Args:
        first: the first block; ``stem`` takes images, any other kind vectors.
        head: the last block, whose outputs are one an action or component, then the value.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``.
        parts: of an observation; empty: it is an image or a vector itself.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    relative: Tensor

    def __init__(self, first: OpSpec, head: OpSpec, policy: str, parts: Sequence[Part] = ()) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise ShapeError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
        self.policy, self.parts, self.scales = policy, tuple(parts), True
        self.bounds: Bounds | None = None  # a mean m of a Gaussian policy is then middle + half tanh(m)
        size = sum(part.shape[0] for part in parts if part.kind == "vector")
        size = size if parts else 0 if first.kind == "stem" else first.in_channels
        self.takes_vectors = size > 0
        if self.takes_vectors:
            self.register_buffer("mean", torch.zeros(size))
            self.register_buffer("variance", torch.ones(size))
            self.register_buffer("count", torch.zeros(()))
            self.register_buffer("relative", torch.ones(()))  # 0: of a version whose floor of the variance was absolute
            self.register_load_state_dict_pre_hook(_with_old_floor)
        if policy == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(head.out_channels - 1))

    def apart(self, frames: Tensor) -> dict[str, Tensor]:
        """The parts of frames ``[batch, *frame_shape]`` by name; of one without parts itself."""
        return split(self.parts, frames) if self.parts else {WHOLE: frames}

    def entries(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """What the first block of each encoder reads: images as they are, all vectors together and normalised.

        Args:
            values: see :meth:`apart`.
        """
        if not self.parts:
            return [self.enter(values[WHOLE]) if self.takes_vectors else values[WHOLE]]
        entries = []
        for group in encoded(self.parts):
            together = [values[part.name] for part in group]
            joined = together[0] if len(together) == 1 else torch.cat(together, -1)
            entries.append(joined if group[0].kind == "image" else self.enter(joined))
        return entries

    def enter(self, vectors: Tensor) -> Tensor:
        """Vectors ``[batch, features]`` with about zero mean and unit variance; as they are once that is folded into a layer."""
        if not self.takes_vectors:
            return vectors
        return (vectors - self.mean) * self.scale() if self.scales else vectors - self.mean

    def leave(self, outputs: Tensor, values: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Outputs of the head ``[batch, n + 1]`` -> policy outputs and value ``[batch]``.

        Args:
            outputs: ``[batch, n + 1]``, or ``[batch, n + 1, quantiles]``, see ``quantile_head``.
            values: see :meth:`apart`; logits of actions that their mask forbids become -1e8. None: nothing is forbidden.

        Returns:
            Logits ``[batch, n]``, or means and log standard deviations ``[batch, 2 n]``; value.
        """
        chosen, value = outputs[:, :-1], outputs[:, -1]
        if self.policy == "gaussian" and chosen.shape[1] == len(self.log_std):  # else the head gives its own
            chosen = torch.cat([self.bounded(chosen.float()), self.log_std.expand(len(chosen), -1)], -1)
        mask = None if values is None else values.get(MASK)
        if mask is not None:
            allowed = mask.bool() if chosen.dim() == 2 else mask.bool()[..., None]  # else all quantiles of an action together
            chosen = torch.where(allowed, chosen, FORBIDDEN)
        return chosen, value

    def bounded(self, means: Tensor) -> Tensor:
        """Means of a Gaussian policy ``[batch, n]``: as they are, or between the bounds of the actions."""
        if self.bounds is None:
            return means
        half, middle = (means.new_tensor(column) for column in zip(*self.bounds))
        return middle + half * means.tanh()

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
            frames: ``[..., *frame_shape]``.

        Raises:
            NonFiniteError: their squares do not fit into float32.
        """
        if not self.takes_vectors:
            return
        if self.parts:
            values = split(self.parts, frames.reshape(-1, *frames.shape[-2:]))
            frames = torch.cat([values[part.name] for part in self.parts if part.kind == "vector"], -1)
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


def split(parts: Sequence[Part], frames: Tensor) -> dict[str, Tensor]:
    """The parts of frames ``[batch, 1, bytes]``, uint8, by name: ``[batch, *shape]``, uint8 or float32."""
    found, begin = {}, 0
    for part in parts:
        rows = frames[:, 0, begin : begin + part.bytes].clone(memory_format=torch.contiguous_format)
        if part.kind == "vector":
            rows = rows.view(torch.float32)
        found[part.name] = rows.view(len(frames), *part.shape)
        begin += part.bytes
    return found


def _with_old_floor(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    """A saved network that does not say how its variances were bounded had the absolute floor."""
    if f"{prefix}mean" in state:
        state.setdefault(f"{prefix}relative", torch.zeros(()))
