"""Weights from one network to another: exactly where the change between them allows it, else as far as shapes overlap.

Network morphism (Chen, Goodfellow and Shlens, Net2Net, ICLR 2016, arXiv 1511.05641; Wei et al., ICML 2016, arXiv 1603.01670): a
network is changed and still computes the same function. With W the weights of a block, rows its outputs and columns its inputs:
  wider  : W' = [[W, 0], [fresh, fresh]]: what was there reads nothing of what is new, new channels begin with random filters
  kernel : W' = W in the centre, 0 around it
  deeper : a new block passes its input on: residual forms with a last layer of 0, others with W' = identity; behind a ReLU
           only where theirs is one, too
Zeros in the columns of the old rows still learn, because what they multiply is not zero. Net2Net copies channels instead and
divides what reads them; zeros give the same function and no two channels that are equal for ever.
Differs from the papers in:
1. Only what a space can choose is morphed: widths, hidden units, expansions, kernels, and blocks in place of an identity.
   Skip connections are not added: in our spaces they are parts of blocks.
2. No batch normalisation has to be set to the identity: blocks have none.
3. A change that cannot keep the function (narrower, another kind of block, another stride) keeps the part of the weights that
   fits and says so: :func:`preserves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cosearch.space.network import AgentNetwork
from cosearch.space.operations import Conv, InvertedResidual, Linear, Mlp, Residual
from cosearch.space.space import Architecture
from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec

GROWING = ("stem", "conv", "mbconv", "residual", "head", "linear", "mlp", "maxpool")
ENDS_WITH_RELU = ("stem", "conv", "mbconv", "linear")  # kinds whose activation is their last step


@dataclass(frozen=True)
class Donor:
    """A trained block.

    Attributes:
        spec: its shapes.
        weights: by the names of its module.
    """

    spec: OpSpec
    weights: Mapping[str, Tensor]


def donor(ops: Sequence[OpSpec], weights: Mapping[str, Tensor], block: int) -> Donor:
    """A block of a trained network.

    Args:
        ops: blocks of the network.
        weights: state of its ``AgentNetwork``.
        block: index of the block.
    """
    prefix = f"blocks.{block}."
    return Donor(ops[block], {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)})


def inherit(network: AgentNetwork, donors: Sequence[Donor | None], ends: Mapping[str, Tensor]) -> None:
    """Give a network the weights of trained blocks.

    Args:
        network: with its first weights; what has no counterpart keeps them.
        donors: one a block; None: a new block, which passes its input on where it can.
        ends: state of a trained network, of which the parts that surround the blocks are taken.

    Raises:
        ShapeError: another number of donors than blocks.
    """
    if len(donors) != len(network.blocks):
        raise ShapeError(f"the network has {len(network.blocks)} blocks, got {len(donors)} donors")
    with torch.no_grad():
        for spec, block, from_block in zip(network.ops, network.blocks, donors):
            if from_block is None:
                _pass_on(spec, block)
            elif from_block.spec.kind == spec.kind:
                _overlay(spec, block, from_block)
    network.ends.load_state_dict({key.removeprefix("ends."): ends[key] for key in ends if key.startswith("ends.")})


def aligned(parent: Architecture, child: Architecture) -> tuple[int | None, ...]:
    """For each block of the child the block of the parent at the same place of the space; None where it had none there."""
    at = {placed.node: index for index, placed in enumerate(parent.placed())}
    return tuple(at.get(placed.node) for placed in child.placed())


def preserves(parent: Architecture, child: Architecture) -> bool:
    """Whether a child with :func:`aligned` donors computes what its parent computes, up to rounding."""
    old, new, origin = parent.placed(), child.placed(), list(aligned(parent, child))
    positive: list[bool] = []  # of each block, whether its outputs are never negative
    for index, block in enumerate(new):
        place = origin[index]
        ends_with_relu = block.spec.kind in ENDS_WITH_RELU and block.spec.activation == "relu"
        positive.append(ends_with_relu or (block.spec.kind == "add" and all(positive[i] for i in block.inputs)))
        sources = [origin[i] for i in block.inputs]
        if place is None:
            if len(sources) != 1 or not _passes_on(block.spec, positive[block.inputs[0]]):
                return False
            origin[index] = sources[0]  # its output is what it reads
        elif list(old[place].inputs) != sources or not _grows(old[place].spec, block.spec):
            return False
    return True


def _grows(old: OpSpec, new: OpSpec) -> bool:
    """Whether a block can hold the function of another of its kind in its first channels."""
    if new == old:
        return True
    sizes = {name: getattr(old, name) for name in ("in_channels", "out_channels", "hidden", "expansion", "kernel", "padding")}
    if new.kind != old.kind or new.kind not in GROWING or replace(new, **sizes) != old or (new.groups > 1 and new.kind != "stem"):
        return False
    more, sided = new.kernel - old.kernel, new.kind not in ("head", "maxpool")
    return (
        new.in_channels >= old.in_channels
        and new.out_channels >= old.out_channels
        and new.hidden >= old.hidden
        and (new.hidden == 0) == (old.hidden == 0)
        and (new.expansion == old.expansion or new.expansion > old.expansion > 1)
        and (more == 0 or (sided and more > 0 and more % 2 == 0))
        and new.padding - old.padding == (more // 2 if sided else 0)
        and new.sums_input == old.sums_input
    )


def _passes_on(spec: OpSpec, positive: bool) -> bool:
    """Whether a new block can compute the identity of its input, which is ``positive`` where it is never negative."""
    keeps_sign = spec.activation == "none" or (spec.activation == "relu" and positive)
    if spec.kind == "residual" or (spec.kind == "mlp" and spec.sums_input):
        return True
    if spec.kind == "mbconv":
        return spec.sums_input and keeps_sign
    same = spec.in_channels == spec.out_channels
    if spec.kind == "conv":
        return same and keeps_sign and spec.groups == spec.stride == 1 and spec.kernel == 2 * spec.padding + 1
    return spec.kind == "linear" and same and keeps_sign


def _pass_on(spec: OpSpec, block: nn.Module) -> None:
    """Make a block compute the identity where it can; one that cannot keeps its first weights."""
    last: nn.Module | None = None
    if isinstance(block, Residual):
        last = block.conv2
    elif isinstance(block, InvertedResidual) and block.sums:
        last = block.project
    elif isinstance(block, Mlp) and block.sums:
        last = block.outputs
    if last is not None:
        for weight in last.parameters():
            weight.zero_()
    elif isinstance(block, Conv) and spec.in_channels == spec.out_channels and spec.groups == spec.stride == 1:
        nn.init.dirac_(block.conv.weight)
    elif isinstance(block, Linear) and spec.in_channels == spec.out_channels:
        nn.init.eye_(block.linear.weight)


def _overlay(spec: OpSpec, block: nn.Module, from_block: Donor) -> None:
    """Put the donor's weights into the first rows and columns of a block's; the rest of those rows becomes 0."""
    if spec.kind == "head" and bool(spec.hidden) != bool(from_block.spec.hidden):
        return
    for name, mine in block.named_parameters():
        theirs = from_block.weights.get(name)
        if theirs is None:
            continue
        one, other = mine.detach(), theirs.to(mine.dtype)
        if spec.kind == "head" and name == ("hidden.weight" if spec.hidden else "outputs.weight"):
            one, other = one.view(len(one), *_map(spec)), other.view(len(other), *_map(from_block.spec))
            if one.shape[2:] != other.shape[2:]:
                continue  # another map: its columns mean something else
        if one.dim() == other.dim():
            _overlap(one, other)
    for name, kept in block.named_buffers():  # numbers that travel with the weights, such as a temperature
        if name in from_block.weights and from_block.weights[name].shape == kept.shape:
            kept.copy_(from_block.weights[name])


def _map(spec: OpSpec) -> tuple[int, int, int]:
    """Channels, height and width of what the first layer of a head reads."""
    return (spec.in_channels, 1, 1) if spec.pools else (spec.in_channels, spec.in_height, spec.in_width)


def _overlap(mine: Tensor, theirs: Tensor) -> None:
    """Copy what fits, in place: the first rows and columns, the centre of the kernels ``[rows, columns, height, width]``."""
    rows = min(len(mine), len(theirs))
    if mine.dim() == 1:
        mine[:rows] = theirs[:rows]
        return
    columns = min(mine.shape[1], theirs.shape[1])
    mine[:rows] = 0.0
    inner, outer = mine[:rows, :columns], theirs[:rows, :columns]
    for axis in range(2, mine.dim()):
        few = min(inner.shape[axis], outer.shape[axis])
        inner = inner.narrow(axis, (inner.shape[axis] - few) // 2, few)
        outer = outer.narrow(axis, (outer.shape[axis] - few) // 2, few)
    inner.copy_(outer)
