"""Blocks whose width is chosen share one set of weights, of the widest; a narrower block is a slice of them.

A hard path runs slices, as in slimmable and once-for-all networks (Yu et al. 2019, arXiv 1812.08928; Cai et al. 2020, arXiv
1908.09791): a block of ``c`` input and ``o`` output channels uses the first ``o`` filters' first ``c`` channels, a block whose
inner width follows its outer one the first inner filters, a head the first hidden units. Blocks of another kind, kernel or
stride have weights of their own; one that differs only in the size of its map has not, unless it is a flat head.

Gradients to the choices are those of the multilinear extension at the hard path, whose value stays that of the hard path:
  operation : out + sum_k g_k O_k(x)                  as for points that decide alone (see ``supernet``), g_k zero in value
  width     : out * sum_k (1[k active] + g_k) mask_k  channel masks (FBNetV2, Wan et al. 2020, arXiv 2004.05565, eq. 2)
With masks the block runs at the widest of the path's candidates; the channels beyond the active width are zero when they are
read, and their gradient says what a wider block would gain. A mixture weighs with y_k, and masks with the sum of the y_k of the
widths that have a channel; at one-hot y its value is the hard path's, whatever the order of the candidates. Masks are on what a
block makes: an identity, a pooling and the input that a residual block adds pass as they are, masked where they were made; an
inverted residual, whose ReLU comes after its sum, is masked as a whole. Differs from FBNetV2 in:
1. Inner channels of a residual block or an inverted residual: at a hard path those of the active width, without a gradient to
   the width; in a mixture those of the widest, masked like the others with shares divided by their sum.
2. Where candidates give maps of other sizes (resolution, stem) theirs are averaged (or repeated) to one size: the active
   one's, in a mixture that of the candidate of the largest weight at each point (the first of equal ones). A flat head reads
   that size alone. So the value of a mixture jumps where another size becomes the heaviest. FBNetV2 subsamples.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from cosearch.space.cells.graph import Node
from cosearch.space.operations import block_module, build_block
from latency_tables.opspec import OpSpec

SLICED = ("stem", "conv", "mbconv", "residual", "maxpool", "head")  # kinds whose weights, if any, are shared among widths
READ = {"in_channels", "in_height", "in_width"}
LAST = {"residual": "conv2", "mbconv": "project"}  # kinds with inner channels: the layer that reads them
NO_SCALES: Mapping[str, Tensor] = {}
Active = Sequence[Sequence[int]]  # for each point the active candidates, the chosen one first
Cut = dict[str, tuple[slice, ...]]


def _family(spec: OpSpec) -> OpSpec:
    """The same for all blocks that share weights: widths and, but for a flat head, sizes are left out."""
    if not _is_sliced(spec):
        return spec
    family = replace(spec, in_channels=1, out_channels=1, hidden=min(spec.hidden, 1))
    if spec.kind == "head":
        family = replace(family, out_channels=spec.out_channels)
        return replace(family, in_height=2, in_width=2, kernel=2) if spec.pools else family
    if spec.kind == "stem":
        return replace(family, in_channels=spec.in_channels)
    return replace(family, in_height=spec.kernel, in_width=spec.kernel)


def _only_reads(one: OpSpec, other: OpSpec) -> bool:
    """Whether two blocks differ in what they read alone."""
    differ = {each.name for each in fields(one) if getattr(one, each.name) != getattr(other, each.name)}
    averages = all(each.pools or each.reads_vector for each in (one, other))  # the mean over one pixel needs no pooling
    return differ <= ({*READ, "kernel"} if averages else READ)


def _cut(spec: OpSpec, c: int, o: int) -> Cut:
    """The part of each weight of the widest block that ``spec`` uses, reading ``c`` channels and making ``o``."""
    everything, first, last = slice(None), slice(c), slice(o)
    if spec.kind in ("stem", "conv"):
        return {"conv.weight": (last, first), "conv.bias": (last,)}
    if spec.kind == "maxpool":
        return {}
    if spec.kind == "residual":
        inner = slice(spec.in_channels)
        return {"conv1.weight": (inner, first), "conv1.bias": (inner,), "conv2.weight": (last, inner), "conv2.bias": (last,)}
    if spec.kind == "mbconv":
        inner = slice(spec.in_channels * spec.expansion)
        expand: Cut = {"expand.weight": (inner, first), "expand.bias": (inner,)} if spec.expansion > 1 else {}
        depthwise: Cut = {"depthwise.weight": (inner,), "depthwise.bias": (inner,)}
        return {**expand, **depthwise, "project.weight": (last, inner), "project.bias": (last,)}
    if not spec.hidden:
        return {"outputs.weight": (everything, first), "outputs.bias": (everything,)}
    hidden = slice(spec.hidden)
    return {
        "hidden.weight": (hidden, first),
        "hidden.bias": (hidden,),
        "outputs.weight": (everything, hidden),
        "outputs.bias": (everything,),
    }


def _inner_channels(spec: OpSpec) -> int:
    """Channels that the last layer of a block with several reads; 0 of any other block."""
    return 0 if spec.kind not in LAST else spec.in_channels * (spec.expansion if spec.kind == "mbconv" else 1)


def _is_sliced(spec: OpSpec) -> bool:
    return spec.kind in SLICED and (spec.groups == 1 or spec.kind == "stem")


def _first_layer(spec: OpSpec) -> str | None:
    """Name of the weight of a head that reads the map: its columns are channels x height x width."""
    return None if spec.kind != "head" else "hidden.weight" if spec.hidden else "outputs.weight"


def _flat(spec: OpSpec, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a block's weights in its own shapes."""
    name = _first_layer(spec)
    return parts if name is None else {**parts, name: parts[name].flatten(1)}


class SharedNode(nn.Module):
    """The blocks of one node, each family of widths with one set of weights.

    Args:
        node: of a space; it reads one node.
        generator: CPU generator of the first weights.
    """

    def __init__(self, node: Node, generator: torch.Generator) -> None:
        super().__init__()
        self.node = node
        families = list(dict.fromkeys(_family(spec) for spec in node.specs if spec is not None))
        self.family_of = [None if spec is None else families.index(_family(spec)) for spec in node.specs]
        members = [[s for s in node.specs if s is not None and _family(s) == family] for family in families]
        self.widest = [
            replace(
                several[0], **{name: max(getattr(s, name) for s in several) for name in ("in_channels", "out_channels", "hidden")}
            )
            for several in members
        ]
        self.families = nn.ModuleList(build_block(spec, generator) for spec in self.widest)
        roles = [self._role(axis) for axis in range(len(node.points))]
        self.width_points = tuple(p for p, role in zip(node.points, roles) if role == "width")
        self.operation_points = tuple(p for p, role in zip(node.points, roles) if role == "operation")
        self.inner_points = tuple(
            p for axis, p in enumerate(node.points) if p not in self.operation_points and self._changes_inner(axis)
        )
        self.widths = {p: self._channels(node.points.index(p)) for p in self.width_points}
        self._forms: dict[
            tuple[int, OpSpec], nn.Module
        ] = {}  # modules without weights, each thread's own: a call lends them some

    def _changes_inner(self, axis: int) -> bool:
        """Whether a point decides how many inner channels some block has."""
        for combination, spec in zip(itertools.product(*map(range, self.node.sizes)), self.node.specs):
            first = self.node.specs[
                self.node.candidate(dict(zip(self.node.points, (*combination[:axis], 0, *combination[axis + 1 :]))))
            ]
            if spec is not None and first is not None and _inner_channels(spec) != _inner_channels(first):
                return True
        return False

    def _role(self, axis: int) -> str:
        """What a point decides here: the ``operation``, its ``width``, or only what it ``reads``."""
        role = "reads"
        place = list(itertools.product(*map(range, self.node.sizes)))
        for index, combination in enumerate(place):
            first = self.node.candidate(dict(zip(self.node.points, (*combination[:axis], 0, *combination[axis + 1 :]))))
            one, other = self.node.specs[first], self.node.specs[index]
            if one == other or (one is not None and other is not None and _only_reads(one, other)):
                continue
            if one is None or other is None or one.kind == "head" or self.family_of[first] != self.family_of[index]:
                return "operation"
            role = "width"
        return role

    def _channels(self, axis: int) -> list[int]:
        """Output channels of each candidate of a point that decides the width."""
        made = [0] * self.node.sizes[axis]
        for combination, spec in zip(itertools.product(*map(range, self.node.sizes)), self.node.specs):
            made[combination[axis]] = max(made[combination[axis]], 0 if spec is None else spec.out_channels)
        return made

    def weights(self, candidate: int) -> dict[str, Tensor]:
        """The weights that a candidate's block uses, cut from the shared ones, in the shapes of the block on its own."""
        spec = self._block(candidate)
        return _flat(spec, self._parts(candidate, spec.in_channels, spec.out_channels))

    def take(self, candidate: int, weights: Mapping[str, Tensor]) -> None:
        """Copy the weights of a candidate's block on its own into the shared ones."""
        spec = self._block(candidate)
        with torch.no_grad():
            for key, mine in self._parts(candidate, spec.in_channels, spec.out_channels).items():
                mine.copy_(weights[key].reshape(mine.shape))

    def _block(self, candidate: int) -> OpSpec:
        spec = self.node.specs[candidate]
        assert spec is not None, "an identity has no weights"
        return spec

    def _parts(self, candidate: int, c: int, o: int) -> dict[str, Tensor]:
        """Views of the shared weights for a block that reads ``c`` channels and makes ``o``; those of a flat head as maps."""
        family, spec = self.family_of[candidate], self._block(candidate)
        assert family is not None, "a block has a family"
        mine: dict[str, Tensor] = dict(self.families[family].named_parameters())
        if not _is_sliced(spec):
            return mine
        name = _first_layer(spec)
        if name is not None:
            mine[name] = mine[name].unflatten(1, (-1, *((1, 1) if spec.pools else (spec.in_height, spec.in_width))))
        return {key: mine[key][part] for key, part in _cut(spec, c, o).items()}

    def run(self, candidate: int, x: Tensor, out_channels: int | None = None, scales: Mapping[str, Tensor] = NO_SCALES) -> Tensor:
        """The block of a candidate, or ``x`` where it is an identity.

        Args:
            candidate: index of the block.
            x: what it reads, ``[batch, channels, height, width]`` or a stem's frames; channels beyond its own must be zero.
            out_channels: how many it makes, at least its own; None: its own, of an ``x`` that has no others.
            scales: factors of some of its weights by name, each of a shape that fits.

        Returns:
            Its output; its own channels are those of the block alone.
        """
        spec = self.node.specs[candidate]
        if spec is None:
            return x
        if out_channels is None or spec.kind == "head":
            out_channels = spec.out_channels
        c = spec.in_channels if spec.kind == "stem" else x.shape[1]
        narrow = not _is_sliced(spec) or (spec.kind == "mbconv" and spec.expansion == 1)
        if narrow and (c, out_channels) != (spec.in_channels, spec.out_channels):
            made = self.run(candidate, x[:, : spec.in_channels], None, scales)
            return F.pad(made, (0, 0, 0, 0, 0, out_channels - made.shape[1]))
        form, parts = spec, _flat(spec, self._parts(candidate, c, out_channels))
        parts = {**parts, **{name: parts[name] * scale.to(parts[name].dtype) for name, scale in scales.items()}}
        if c != spec.in_channels and spec.kind == "residual":
            inner = F.conv2d(_relu_of_masked(x), parts["conv1.weight"], parts["conv1.bias"], padding=spec.padding)
            return x + F.conv2d(F.relu(inner), parts["conv2.weight"], parts["conv2.bias"], padding=spec.padding)
        if c != spec.in_channels and spec.kind == "head":
            x = _relu_of_masked(x) if spec.activation == "relu" else x
            form = replace(spec, in_channels=c, activation="none")
        elif c != spec.in_channels and spec.kind == "conv":
            form = replace(spec, in_channels=c)
        place = threading.get_ident(), form
        if place not in self._forms:
            self._forms[place] = block_module(form)
        return functional_call(self._forms[place], parts, (x,))

    def gated(self, x: Tensor, active: Active, weights: Sequence[Tensor]) -> Tensor:
        """The value of the chosen candidates, with gradients to the weights of all active ones.

        Args:
            x: what the node reads, ``[batch, channels, height, width]``, the channels of the widest active candidate, or frames.
            active: for each point of the space its active candidates.
            weights: for each point ``[active]``.
        """
        chosen, width = [several[0] for several in active], self.width(active)
        gates = {p: weights[p] - weights[p].detach() for p in (*self.operation_points, *self.width_points)}  # zero in value
        shares = list(weights)
        for p in self.width_points:
            shares[p] = gates[p] + (torch.arange(len(gates[p]), device=gates[p].device) == 0)
        own = 1.0 + torch.stack([gates[p][0] for p in self.operation_points]).sum() if self.operation_points else None
        total = self._part(chosen, x, width, own, self._mask(chosen, active, shares, width))
        for p in self.operation_points:
            for k, other in enumerate(active[p][1:], 1):
                choices = _with(chosen, p, other)
                part = self._part(choices, x, width, gates[p][k], self._mask(choices, active, shares, width))
                total = total + _sized(part, total.shape[2:])
        return total

    def mixed(self, x: Tensor, active: Active, weights: Sequence[Tensor], base: Sequence[int]) -> Tensor:
        """The mixture of all active candidates with these weights; it computes each operation once, at the widest.

        Args:
            x: ``[batch, channels, height, width]`` or frames, as for :meth:`gated`.
            active, weights: as for :meth:`gated`; the first combination of operations gives the size of the map.
            base: for each point the widest active candidate, or the first where it decides no width.
        """
        width, shares = self.width(active), dict[tuple[OpSpec | None, ...], Tensor | None]()
        first = dict[tuple[OpSpec | None, ...], list[int]]()  # choices of the first combination of each operation
        for several in itertools.product(*(range(len(active[p])) for p in self.operation_points)):
            chosen, share = list(base), None
            for p, k in zip(self.operation_points, several):
                chosen[p], share = active[p][k], weights[p][k] if share is None else share * weights[p][k]
            operation = tuple(self._every(chosen, active))
            before = shares.get(operation)
            shares[operation] = share if before is None or share is None else before + share
            first.setdefault(operation, chosen)
        totals = dict[tuple[int, ...], Tensor]()  # of the maps of each size: large ones are slow to add and to resize
        for operation, chosen in first.items():
            inner = self._inner(chosen, active, weights)
            part = self._part(chosen, x, width, shares[operation], self._mask(chosen, active, weights, width), inner)
            size = tuple(part.shape[2:])
            totals[size] = totals[size] + part if size in totals else part
        total, *others = totals.values()
        for other in others:
            total = total + _sized(other, total.shape[2:])
        return total

    def _every(self, chosen: Sequence[int], active: Active) -> Iterator[OpSpec | None]:
        """The blocks of these choices for all active candidates of the points that decide a width."""
        free = (*self.width_points, *self.inner_points)
        for several in itertools.product(*(active[p] if p in free else (chosen[p],) for p in self.node.points)):
            yield self.node.specs[self.node.candidate(dict(zip(self.node.points, several)))]

    def _part(
        self,
        chosen: Sequence[int],
        x: Tensor,
        width: int | None,
        share: Tensor | None,
        mask: Tensor | None,
        inner: Tensor | None = None,
    ) -> Tensor:
        """The block of these choices times its share; what it makes times ``mask`` ``[width]``, inner channels by ``inner``."""
        candidate = self.node.candidate(chosen)
        spec, scales = self.node.specs[candidate], dict[str, Tensor]()
        if inner is not None and spec is not None:
            scales[f"{LAST[spec.kind]}.weight"] = inner[:, None, None].to(x.device)
        if mask is not None and spec is not None and spec.kind == "residual":
            rows, mask = mask.to(x.device), None
            scales["conv2.bias"] = rows
            scales["conv2.weight"] = rows[:, None, None, None] * scales.get("conv2.weight", 1.0)
        made = self.run(candidate, x, width, scales)
        factor = share if mask is None else mask[:, None, None] if share is None else share * mask[:, None, None]
        return made if factor is None else made * factor.to(made.device, made.dtype)

    def _mask(self, chosen: Sequence[int], active: Active, shares: Sequence[Tensor], width: int | None) -> Tensor | None:
        """``[width]``: of each channel the shares of the active widths that have it; None: there is nothing to mask."""
        spec = self.node.specs[self.node.candidate(chosen)]
        if spec is None or width is None or spec.kind in ("head", "maxpool"):
            return None
        if not self.width_points and spec.out_channels == width:
            return None
        return self._sum_of_shares(lambda spec: spec.out_channels, width, self.width_points, chosen, active, shares)

    def _inner(self, chosen: Sequence[int], active: Active, weights: Sequence[Tensor]) -> Tensor | None:
        """``[inner channels]``: of each the shares of the active widths that have it, out of all; None where all have it."""
        spec = self.node.specs[self.node.candidate(chosen)]
        if spec is None or spec.kind not in LAST or not self.inner_points:
            return None
        found = self._sum_of_shares(_inner_channels, _inner_channels(spec), self.inner_points, chosen, active, weights)
        return found / torch.stack([weights[p].sum() for p in self.inner_points]).prod()

    def _sum_of_shares(
        self,
        count: Callable[[OpSpec], int],
        channels: int,
        points: Sequence[int],
        chosen: Sequence[int],
        active: Active,
        shares: Sequence[Tensor],
    ) -> Tensor:
        """``[channels]``: of each the products of the shares at ``points``, summed over the blocks that have it."""
        device = shares[0].device
        place, total = torch.arange(channels, device=device), torch.zeros(channels, device=device)
        for several in itertools.product(*(range(len(active[p])) for p in points)):
            choices, share = list(chosen), torch.ones((), device=device)
            for p, k in zip(points, several):
                choices[p], share = active[p][k], share * shares[p][k]
            total = total + share * (place < count(self._block(self.node.candidate(choices))))
        return total

    def width(self, active: Active) -> int | None:
        """Output channels of the widest active candidate; None where every one is an identity."""
        free = (*self.width_points, *self.operation_points)
        every = itertools.product(*(active[p] if p in free else active[p][:1] for p in self.node.points))
        specs = [self.node.specs[self.node.candidate(dict(zip(self.node.points, each)))] for each in every]
        return max((spec.out_channels for spec in specs if spec is not None), default=None)

    def touched(self, active: Active, soft: bool) -> Iterator[nn.Parameter]:
        """The parameters that a path with these active candidates touches.

        Args:
            active: for each point of the space its active candidates.
            soft: the path is a mixture, see :meth:`mixed`.
        """
        chosen = [several[0] for several in active]
        several = [_with(chosen, p, other) for p in self.operation_points for other in active[p]]
        if soft:
            free = itertools.product(*(active[p] if p in self.operation_points else active[p][:1] for p in self.node.points))
            each = [dict(zip(self.node.points, one)) for one in free]
            known = {self.family_of[self.node.candidate(one)] for one in each}
        else:
            known = {self.family_of[self.node.candidate(one)] for one in (chosen, *several)}
        for family in sorted(f for f in known if f is not None):
            yield from self.families[family].parameters()


def _relu_of_masked(x: Tensor) -> Tensor:
    """ReLU that passes gradients at zero, where a mask has put channels that a wider block would make."""
    return torch.where(x == 0, x, F.relu(x))


def _with(choices: Sequence[int], point: int, candidate: int) -> list[int]:
    return [candidate if p == point else c for p, c in enumerate(choices)]


def _sized(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map averaged (or repeated) to a size; a vector as it is."""
    if x.shape[2:] == tuple(size):
        return x
    if all(wanted % side == 0 for wanted, side in zip(size, x.shape[2:])):
        return F.interpolate(x, (size[0], size[1]))  # each pixel repeated: the same as pooling, several times as fast
    return F.adaptive_avg_pool2d(x, (size[0], size[1]))
