"""``Layer``: one primitive of a block, as a device executes it; ``Block``: what the primitives of a block are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Layer:
    """One primitive that a device executes as one kernel: the unit of rooflines and accelerator models.

    ``kind`` is ``conv``, ``dw`` (depthwise), ``fc``, ``pool``, ``add``, ``relu`` (also
    any other map or copy of elements) or ``cast``. Sizes follow the
    accelerator literature: C input channels, K output channels, H x W input, R x S kernel, P x Q output.
    """

    name: str
    kind: str
    C: int
    K: int
    H: int
    W: int
    R: int
    S: int
    stride: int
    pad: int
    P: int
    Q: int

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of one inference, batch 1."""
        if self.kind in ("conv", "fc"):
            return self.K * self.C * self.R * self.S * self.P * self.Q
        return self.K * self.R * self.S * self.P * self.Q if self.kind == "dw" else 0

    @property
    def params(self) -> int:
        """Weights and biases."""
        if self.kind in ("conv", "fc"):
            return self.K * self.C * self.R * self.S + self.K
        return self.K * self.R * self.S + self.K if self.kind == "dw" else 0

    @property
    def elements_in(self) -> int:
        """Input elements read, batch 1 (both summands of an ``add``)."""
        return self.C * self.H * self.W * (2 if self.kind == "add" else 1)

    @property
    def elements_out(self) -> int:
        """Output elements written, batch 1."""
        return self.K * self.P * self.Q


class Block(Protocol):
    """The fields of an ``OpSpec`` that its primitives depend on, each as ``OpSpec`` documents it."""

    @property
    def kind(self) -> str:
        """Name of the kind, see ``opspec.KINDS``."""

    @property
    def in_channels(self) -> int:
        """Input channels."""

    @property
    def in_height(self) -> int:
        """Input height."""

    @property
    def in_width(self) -> int:
        """Input width."""

    @property
    def out_channels(self) -> int:
        """Output channels."""

    @property
    def out_height(self) -> int:
        """Output height."""

    @property
    def out_width(self) -> int:
        """Output width."""

    @property
    def kernel(self) -> int:
        """Side of the window."""

    @property
    def stride(self) -> int:
        """Stride of the window."""

    @property
    def padding(self) -> int:
        """Padding on each side."""

    @property
    def groups(self) -> int:
        """Groups of a convolution, or number of inputs of a join."""

    @property
    def expansion(self) -> int:
        """Widening factor."""

    @property
    def hidden(self) -> int:
        """Width of the hidden layer, or 0."""

    @property
    def activation(self) -> str:
        """Name of the activation, or ``none``."""

    @property
    def reads_vector(self) -> bool:
        """Whether the input is a vector."""
