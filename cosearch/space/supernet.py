"""The weight-sharing network: every candidate of every point, one active path forward, K paths backward.

A3C-S and Auto-NBA (arXiv 2106.06577, 2106.06575): forward A^{l+1} = O_active(A^l); backward
dL/dgate_k = <dL/dA^{l+1}, O_k(A^l)> for the K sampled candidates. The value of a gate is exactly 1 for the active path and 0
for the others, so that the forward pass is the derived network's, bit for bit; only gradients flow through the gates.
Time and memory grow with K, not with the number of candidates.

The other form is the continuous mixture of DARTS (arXiv 1806.09055): out = sum_k w_k O_k(x), for which the forward value is no
network of the space. Then every candidate is computed and kept for the backward pass: time and memory grow with the number of
candidates, five- to ninefold.

Where consecutive points have no candidate but reversible blocks and ``skip``, the activations between them are not kept but
computed again in the backward pass: memory does not grow with their number (``reversible``, arXiv 2105.14669).

Where widths are chosen, blocks that differ in width alone share weights and the gates of a width are channel masks: ``widths``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosearch.space.blocks.memory import Memories, Remembering, remembering, run_block
from cosearch.space.blocks.reversible import Coupling, Reversible, is_reversible, through
from cosearch.space.ends import AgentEnds
from cosearch.space.operations import build_block
from cosearch.space.space import Architecture, Node, SearchSpace
from cosearch.space.widths import SharedNode
from latency_tables.errors import ShapeError


@dataclass(frozen=True)
class Path:
    """A sampled path.

    Attributes:
        active: for each point the candidate indices that are computed; the first one gives the forward value.
        weights: for each point ``[len(active)]``, differentiable in the architecture logits; None outside training.
        soft: the value is the mixture of the active candidates with these weights, also without gradients.
        noise: for each point ``[num_candidates]``, what it was drawn with, so that its weights can be computed again after each
            step; empty where nothing was drawn.

    Raises:
        ShapeError: a soft path without weights.
    """

    active: tuple[tuple[int, ...], ...]
    weights: tuple[Tensor, ...] | None = None
    soft: bool = False
    noise: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        if self.soft and self.weights is None:
            raise ShapeError("a soft path is a mixture: it needs the weights of its candidates, got none")

    @property
    def choices(self) -> tuple[int, ...]:
        """The candidate of each point that gives the forward value."""
        return tuple(indices[0] for indices in self.active)


class SuperNet(nn.Module):
    """All candidate blocks of a space, shared by its architectures.

    Args:
        space: the search space.
        generator: CPU generator of the first weights.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        self.ends = AgentEnds(space.stem, space.head, space.policy, space.parts)
        self.stem: nn.Module
        self.head: nn.Module
        if space.shares_widths:
            if any(node.inputs != ((place - 1,) if place else ()) for place, node in enumerate(space.nodes)):
                raise ShapeError(f"space {space.name!r} has branches and chosen widths; weights are shared along a chain only")
            self.stem, *inner, self.head = (SharedNode(node, generator) for node in space.nodes)
            self.body = nn.ModuleList(inner)
        else:
            self.stem = build_block(space.stem, generator)
            self.body = nn.ModuleList(
                nn.ModuleList(nn.Identity() if spec is None else build_block(spec, generator) for spec in node.specs)
                for node in space.body
            )
            self.head = build_block(space.head, generator)
        self.runs = {} if space.shares_widths else reversible_runs(space)
        self._remembering = remembering(self)

    @property
    def memory_size(self) -> int:
        """How many numbers all candidate blocks together keep from one observation to the next; 0: the space has no memory."""
        return sum(block.size for block in self._remembering)

    def unroll(self, frames: Tensor, memory: Tensor, begins: Tensor | None, path: Path) -> tuple[Tensor, Tensor, Tensor]:
        """Policy outputs and values along a path, for one step or a segment of steps; see ``AgentNetwork.unroll``.

        Without gradients all candidates of a point remember what they would have read, so that each has its memory when a path
        takes it; with gradients those that the path computes start from there.

        Args:
            frames: ``[time * envs, *frame_shape]``, in the order of time.
            memory: ``[envs, memory_size]``, before the first step.
            begins: ``[time, envs]``, bool, or None.
            path: which candidates are computed.
        """
        memories = Memories(self._remembering, memory, begins)
        outputs, value = self(frames, path, memories)
        return outputs, value, memories.vector

    def forward(self, frames: Tensor, path: Path, memories: Memories | None = None) -> tuple[Tensor, Tensor]:
        """Policy outputs and value along a path.

        Args:
            frames: ``[batch, height, width, channels]``, uint8, ``[batch, features]``, float32, or ``[batch, 1, bytes]``, uint8.
            path: which candidates are computed.
            memories: of the blocks that remember, see :meth:`unroll`; None: the space has none.

        Returns:
            Policy outputs ``[batch, outputs]`` and value ``[batch]``, equal to the derived network's.

        Raises:
            ShapeError: the path has another number of points than the space, or leads nowhere.
        """
        if len(path.active) != len(self.space.points):
            raise ShapeError(f"the space has {len(self.space.points)} points, the path {len(path.active)}")
        observed = self.ends.apart(frames)
        entering = iter(self.ends.entries(observed))
        if self.space.shares_widths:
            return self.ends.leave(self._along(next(entering), path), observed)
        values: list[Tensor | None] = [self.stem(next(entering))]
        slots, after = self._slots, 0
        for place, (node, blocks) in enumerate(zip(self.space.body, slots)):
            if not node.inputs:
                values.append(blocks[0](next(entering)))
                continue
            if place in self.runs:
                after = self.runs[place]
                couplings = [self.coupling(n.points[0], slots[i], path) for i, n in self._between(place, after)]
                before = values[node.inputs[0]]
                values += [None] * (after - place - 1)  # which nothing but the run reads
                values.append(None if before is None else through(couplings, before))
            if place < after:
                continue
            sources = [source for source in (values[i] for i in node.inputs) if source is not None]
            if not sources:
                values.append(None)
            elif not node.points:
                alone = len(sources) == 1 and node.specs[0] is not None
                if alone:
                    values.append(run_block(blocks[0], sources[0], memories))
                else:
                    values.append(sum(sources[1:], sources[0]) if node.specs[0] is None else blocks[0](*sources))
            else:
                (point,) = node.points
                weights = None if path.weights is None else path.weights[point]
                zero = self.space.points[point].zero
                values.append(_gated(blocks, path.active[point], weights, sources[0], zero, path.soft, memories))
        if values[-1] is None:
            raise ShapeError("the path leaves no way from the stem to the head")
        return self.ends.leave(self.head(values[-1]), observed)

    def _between(self, begin: int, end: int) -> list[tuple[int, Node]]:
        return list(enumerate(self.space.body))[begin:end]

    def coupling(self, point: int, blocks: nn.ModuleList, path: Path) -> Coupling:
        """What is active at a point of a run.

        Args:
            point: index of the choice point.
            blocks: of its candidates.
            path: with weights, or without.
        """
        active, weights = path.active[point], None if path.weights is None else path.weights[point]
        coefficients: list[Tensor | None]
        if path.soft and weights is not None:
            coefficients = list(weights)
        elif weights is None or not torch.is_grad_enabled():
            active, coefficients = active[:1], [None]
        else:
            gates = weights - weights.detach()  # exactly 0 forward, identity backward
            coefficients = [1.0 + gates[0], *gates[1:]]
        kept = [(blocks[index], weight) for index, weight in zip(active, coefficients)]
        found = [(block, weight) for block, weight in kept if isinstance(block, Reversible)]
        return Coupling(tuple(block for block, _ in found), tuple(weight for _, weight in found))

    def _along(self, x: Tensor, path: Path) -> Tensor:
        """Outputs of the head along a path of a space whose blocks of several widths share weights."""
        if path.soft and path.weights is not None:
            path = _heaviest_first(path)
            base, weights = list(path.choices), path.weights or ()
            for p, widths in ((p, widths) for node in self._shared for p, widths in node.widths.items()):
                base[p] = max(path.active[p], key=widths.__getitem__)
            for node in self._shared:
                x = node.mixed(x, path.active, weights, base)
            return x
        if path.weights is not None and torch.is_grad_enabled():
            for node in self._shared:
                x = node.gated(x, path.active, path.weights)
            return x
        for node in self._shared:
            x = node.run(node.node.candidate(path.choices), x)
        return x

    @property
    def _shared(self) -> list[SharedNode]:
        """All nodes of a space whose blocks of several widths share weights."""
        return [node for node in (self.stem, *self.body, self.head) if isinstance(node, SharedNode)]

    @property
    def _slots(self) -> list[nn.ModuleList]:
        """For each node of the body the blocks of its candidates."""
        return [blocks for blocks in self.body if isinstance(blocks, nn.ModuleList)]

    def used_parameters(self, path: Path) -> list[nn.Parameter]:
        """The parameters that a path touches, in a stable order."""
        if self.space.shares_widths:
            path = _heaviest_first(path) if path.soft else path
            inside = [p for node in self._shared for p in node.touched(path.active, path.soft)]
            return [*self.ends.parameters(), *inside]
        active = [path.active[node.points[0]] if node.points else (0,) for node in self.space.body]
        parts = [self.ends, self.stem, self.head, *(blocks[k] for blocks, indices in zip(self._slots, active) for k in indices)]
        return [p for part in parts for p in part.parameters()]

    def copy_into(self, architecture: Architecture, blocks: nn.ModuleList, ends: AgentEnds) -> None:
        """Copy the shared weights of an architecture's path into its derived network.

        Args:
            architecture: of this net's space.
            blocks: modules in the order of ``architecture.ops()``.
            ends: what surrounds them.
        """
        if self.space.shares_widths:
            for (node, candidate), theirs in zip(self._placed(architecture, blocks), blocks):
                theirs.load_state_dict(node.weights(candidate))
        else:
            for mine, theirs in self._pairs(architecture, blocks):
                theirs.load_state_dict(mine.state_dict())
        ends.load_state_dict(self.ends.state_dict())

    def copy_from(self, architecture: Architecture, blocks: nn.ModuleList, ends: AgentEnds) -> None:
        """Copy the weights of a derived network into the shared weights of its path.

        Args:
            architecture: of this net's space.
            blocks: modules in the order of ``architecture.ops()``.
            ends: what surrounds them.
        """
        if self.space.shares_widths:
            for (node, candidate), theirs in zip(self._placed(architecture, blocks), blocks):
                node.take(candidate, theirs.state_dict())
        else:
            for mine, theirs in self._pairs(architecture, blocks):
                mine.load_state_dict(theirs.state_dict())
        self.ends.load_state_dict(ends.state_dict())

    def _placed(self, architecture: Architecture, blocks: nn.ModuleList) -> list[tuple[SharedNode, int]]:
        shared = self._shared
        mine = [(shared[placed.node], placed.candidate) for placed in architecture.placed()]
        if len(mine) != len(blocks):
            raise ShapeError(f"the architecture has {len(mine)} blocks, the network {len(blocks)}")
        return mine

    def _pairs(self, architecture: Architecture, blocks: nn.ModuleList) -> list[tuple[nn.Module, nn.Module]]:
        all_blocks: list[list[nn.Module]] = [[self.stem], *(list(slot) for slot in self._slots), [self.head]]
        mine = [all_blocks[placed.node][placed.candidate] for placed in architecture.placed()]
        if len(mine) != len(blocks):
            raise ShapeError(f"the architecture has {len(mine)} blocks, the network {len(blocks)}")
        return list(zip(mine, blocks))


def _heaviest_first(path: Path) -> Path:
    """A mixture with the candidate of the largest weight first at each point, the others by index; its noise is left out.

    Args:
        path: soft, with weights.
    """
    active, weights = [], []
    for indices, row in zip(path.active, path.weights or ()):
        values = row.tolist()
        largest = max(range(len(indices)), key=lambda k: (values[k], -indices[k]))
        order = sorted(range(len(indices)), key=lambda k: (k != largest, indices[k]))
        active.append(tuple(indices[k] for k in order))
        weights.append(row[order])
    return Path(tuple(active), tuple(weights), soft=True)


def reversible_runs(space: SearchSpace) -> dict[int, int]:
    """Runs of nodes of the body whose candidates are all reversible, each read by the next alone.

    Args:
        space: the search space.

    Returns:
        Index of the first node of a run in the body -> index after its last one.
    """
    readers: dict[int, int] = {}
    for node in space.body:
        for source in node.inputs:
            readers[source] = readers.get(source, 0) + 1
    runs: dict[int, int] = {}
    begin = None
    for place, node in enumerate(space.body):
        fits = len(node.points) == 1 and len(node.inputs) == 1 and is_reversible(node.specs)
        goes_on = begin is not None and node.inputs == (place,) and readers[place] == 1  # values are numbered from the stem on
        if not fits:
            begin = None
        elif begin is None or not goes_on:
            begin = place
        if begin is not None:
            runs[begin] = place + 1
    return runs


def _gated(
    blocks: nn.ModuleList,
    active: Sequence[int],
    weights: Tensor | None,
    x: Tensor,
    zero: int | None,
    soft: bool,
    memories: Memories | None,
) -> Tensor | None:
    """The value of a slot that reads ``x``; None where nothing but its zero is active."""
    present = [(k, index) for k, index in enumerate(active) if index != zero]
    if memories is not None and not torch.is_grad_enabled():
        _remember(blocks, active if soft else active[:1], x, memories)
    if soft and weights is not None:
        parts = [run_block(blocks[index], x, memories) * weights[k].to(x.dtype) for k, index in present]
        return sum(parts[1:], parts[0]) if parts else None
    if weights is None or not torch.is_grad_enabled():
        return None if active[0] == zero else run_block(blocks[active[0]], x, memories)
    gates = weights - weights.detach()  # exactly 0 forward, identity backward
    total = None
    for k, index in present:
        part = run_block(blocks[index], x, memories)
        part = part * ((1.0 + gates[k]) if k == 0 else gates[k]).to(part.dtype)
        total = part if total is None else total + part
    return total


def _remember(blocks: nn.ModuleList, active: Sequence[int], x: Tensor, memories: Memories) -> None:
    """Let the candidates that are not active see what they would have read."""
    for index, block in enumerate(blocks):
        if index not in active and isinstance(block, Remembering):
            memories.run(block, x)
