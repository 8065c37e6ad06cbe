"""Agent networks: a list of blocks and their wiring made into one torch module, and the fixed reference agents of the field.

The same class is the derived agent, the teacher and the reference: they differ in their list of blocks only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cosearch.space.blocks.memory import Memories, remembering, run_block
from cosearch.space.cells.graph import chain_wiring, check_wiring
from cosearch.space.ends import AgentEnds
from cosearch.space.operations import Linear, build_block
from cosearch.space.parts import Part, encoded, single_shape
from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec
from latency_tables.worklists import Network


class AgentNetwork(nn.Module):
    """Actor and critic over a graph of blocks.

    Args:
        ops: stem first (a ``linear`` block where observations are vectors), head last, in order of execution.
        generator: CPU generator of the first weights.
        wiring: for each block the indices of the blocks that it reads; None: each reads the one before.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``, see :class:`AgentEnds`.
        parts: of an observation, see :class:`AgentEnds`; blocks that read no other one read them in order.

    Raises:
        ShapeError: two blocks do not fit.
    """

    def __init__(
        self,
        ops: Sequence[OpSpec],
        generator: torch.Generator,
        wiring: Sequence[Sequence[int]] | None = None,
        policy: str = "categorical",
        parts: Sequence[Part] = (),
    ) -> None:
        super().__init__()
        wiring = ops.wiring if wiring is None and isinstance(ops, Network) else wiring
        self.wiring = chain_wiring(len(ops)) if wiring is None else tuple(tuple(inputs) for inputs in wiring)
        check_wiring(ops, self.wiring)
        self.ops = tuple(ops)
        self.ends = AgentEnds(ops[0], ops[-1], policy, parts)
        self._entries = [index for index, inputs in enumerate(self.wiring) if not inputs]
        wanted = len(encoded(parts)) if parts else 1
        if len(self._entries) != wanted:
            raise ShapeError(f"{len(self._entries)} blocks read observations that have {wanted} parts to read")
        self.blocks = nn.ModuleList(build_block(op, generator) for op in ops)
        reads = [i for inputs in self.wiring for i in inputs]
        self._last = {i: index for index, inputs in enumerate(self.wiring) for i in inputs}  # the last block that reads each
        if set(reads) != set(range(len(ops) - 1)):
            raise ShapeError(f"blocks {sorted(set(range(len(ops) - 1)) - set(reads))} are read by none")
        self._remembering = remembering(self)

    @property
    def memory_size(self) -> int:
        """How many numbers the network keeps from one observation to the next; 0: it has no memory."""
        return sum(block.size for block in self._remembering)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Policy outputs and value of a network without a memory.

        Args:
            frames: ``[batch, height, width, channels]``, uint8, ``[batch, features]``, float32, or ``[batch, 1, bytes]``, uint8.

        Returns:
            Logits ``[batch, actions]``, or means and log standard deviations ``[batch, 2 size]``; and value ``[batch]``.
        """
        observed = self.ends.apart(frames)
        return self.ends.leave(self.outputs(observed), observed)

    def unroll(self, frames: Tensor, memory: Tensor, begins: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Policy outputs and values of a network with a memory, for one step or a segment of steps.

        Args:
            frames: ``[time * envs, *frame_shape]``, in the order of time.
            memory: ``[envs, memory_size]``, before the first step; zeros where an episode begins.
            begins: ``[time, envs]``, bool: the step is the first of an episode; None: one step, memory as it is.

        Returns:
            Policy outputs ``[time * envs, outputs]``, values ``[time * envs]``, and the memory ``[envs, memory_size]`` after it.
        """
        memories = Memories(self._remembering, memory, begins)
        observed = self.ends.apart(frames)
        outputs, value = self.ends.leave(self.outputs(observed, memories), observed)
        return outputs, value, memories.vector

    def raw(self, frames: Tensor) -> Tensor:
        """Outputs of the head: ``[batch, actions + 1]``."""
        return self.outputs(self.ends.apart(frames))

    def outputs(self, observed: Mapping[str, Tensor], memories: Memories | None = None) -> Tensor:
        """Outputs of the head: ``[batch, actions + 1]``.

        Args:
            observed: see :meth:`AgentEnds.apart`.
            memories: of its blocks where it has any.
        """
        values = {i: self.blocks[i](read) for i, read in zip(self._entries, self.ends.entries(observed), strict=True)}
        for index, inputs in enumerate(self.wiring):
            if not inputs:
                continue
            if len(inputs) == 1:
                values[index] = run_block(self.blocks[index], values[inputs[0]], memories)
            else:
                values[index] = self.blocks[index](*(values[i] for i in inputs))
            for i in inputs:
                if self._last[i] == index:
                    values.pop(i, None)  # read for the last time: its memory is free
        return values[len(self.blocks) - 1]

    def fold(self) -> None:
        """Put the normalisation of vectors into the first layer, for the export; images need none."""
        for index in self._entries:
            first = self.blocks[index]
            if isinstance(first, Linear):
                self.ends.fold_into(first.linear)


def check_chain(ops: Sequence[OpSpec]) -> None:
    """Raise unless the blocks, each reading the one before, form a network.

    Raises:
        ShapeError: see :func:`cosearch.space.cells.graph.check_wiring`.
    """
    check_wiring(ops, chain_wiring(len(ops)))


def impala_cnn(
    frame_shape: tuple[int, ...], num_actions: int, widths: Sequence[int] = (16, 32, 32), pooled: bool = False
) -> list[OpSpec]:
    """Blocks of the IMPALA-CNN (Espeholt et al. 2018), the reference agent of Procgen.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        widths: channels of the three sections.
        pooled: the head reads the mean over the last map instead of all of it (Impoola-CNN, Trumpp et al. 2025,
            arXiv 2503.05546).
    """
    h, w, c = frame_shape
    ops: list[OpSpec] = []
    for i, width in enumerate(widths):
        ops.append(OpSpec("stem" if i == 0 else "conv", c, h, w, width, kernel=3, padding=1, activation="none"))
        ops.append(OpSpec("maxpool", width, h, w, width, kernel=3, stride=2, padding=1, activation="none"))
        c, h, w = width, ops[-1].out_height, ops[-1].out_width
        ops += [OpSpec("residual", c, h, w, c, kernel=3, padding=1)] * 2
    return [*ops, OpSpec("head", c, h, w, num_actions + 1, kernel=max(h, w) if pooled else 1, hidden=256)]


def nature_cnn(
    frame_shape: tuple[int, ...], num_actions: int, widths: Sequence[int] = (32, 64, 64), hidden: int = 512
) -> list[OpSpec]:
    """Blocks of the Nature-CNN (Mnih et al. 2015), for frames of at least 36 x 36.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        widths: channels of the three convolutions.
        hidden: width of the hidden layer.

    Raises:
        ShapeError: the frames are too small.
    """
    h, w, c = frame_shape
    ops = [OpSpec("stem", c, h, w, widths[0], kernel=8, stride=4)]
    for width, kernel, stride in zip(widths[1:], (4, 3), (2, 1)):
        last = ops[-1]
        ops.append(OpSpec("conv", last.out_channels, last.out_height, last.out_width, width, kernel=kernel, stride=stride))
    last = ops[-1]
    return [
        *ops,
        OpSpec("head", last.out_channels, last.out_height, last.out_width, num_actions + 1, hidden=hidden, activation="none"),
    ]


def mlp(frame_shape: tuple[int, ...], num_actions: int, widths: Sequence[int] = (64, 64)) -> list[OpSpec]:
    """Blocks of the fixed agent for vectors: tanh layers, actor and critic on one trunk (Schulman et al. 2017, section 6.1).

    Args:
        frame_shape: ``(features,)``.
        num_actions: discrete actions, or length of an action vector.
        widths: of the layers.
    """
    sizes = [*frame_shape, *widths]
    layers = [OpSpec("linear", a, 1, 1, b, activation="tanh") for a, b in pairwise(sizes)]
    return [*layers, OpSpec("head", sizes[-1], 1, 1, num_actions + 1, activation="none")]


def minatar_cnn(frame_shape: tuple[int, ...], num_actions: int, width: int = 16, hidden: int = 128) -> list[OpSpec]:
    """Blocks of MinAtar's own network (Young & Tian 2019): one convolution 3x3 of 16 channels, one layer of 128.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        width: channels of the convolution.
        hidden: width of the layer.
    """
    h, w, c = frame_shape
    stem = OpSpec("stem", c, h, w, width, kernel=3)
    return [stem, OpSpec("head", width, stem.out_height, stem.out_width, num_actions + 1, hidden=hidden, activation="none")]


def cnn_and_mlp(parts: Sequence[Part], num_actions: int) -> Network:
    """Blocks of the fixed agent for observations of several parts, in the form of stable-baselines3's policies for dictionaries.

    A small convolutional network for each image, a tanh layer of 64 for all vectors, joined, then a layer of 128.

    Args:
        parts: of an observation.
        num_actions: discrete actions, or length of an action vector.
    """
    ops: list[OpSpec] = []
    wiring: list[tuple[int, ...]] = []
    ends: list[int] = []
    for group in encoded(parts):
        if group[0].kind == "image":
            shape = group[0].shape
            blocks = (nature_cnn if min(shape[:2]) >= 36 else minatar_cnn)(shape, num_actions)[:-1]
        else:
            blocks = mlp((sum(part.shape[0] for part in group),), num_actions, (64,))[:-1]
        for number, op in enumerate(blocks):
            wiring.append((len(ops) - 1,) if number else ())
            ops.append(op)
        ends.append(len(ops) - 1)
    features = sum(ops[end].out_channels * ops[end].out_height * ops[end].out_width for end in ends)
    join = OpSpec("join", features, 1, 1, features, groups=len(ends), activation="none")
    head = OpSpec("head", features, 1, 1, num_actions + 1, hidden=128, activation="none")
    return Network.of([*ops, join, head], [*wiring, tuple(ends), (len(ops),)])


def fixed_agents(frame_shape: tuple[int, ...], num_actions: int, parts: Sequence[Part] = ()) -> dict[str, Sequence[OpSpec]]:
    """All fixed agents that fit these frames, by name: the reference agents, and networks that only serve as teachers.

    Args:
        frame_shape, num_actions, parts: see :func:`reference_agents`.
    """
    agents, shape = reference_agents(frame_shape, num_actions, parts), single_shape(frame_shape, parts)
    if shape is not None and len(shape) == 3 and min(shape[:2]) < 32:
        agents["minatar-cnn"] = minatar_cnn(shape, num_actions)
    return agents


def reference_agents(frame_shape: tuple[int, ...], num_actions: int, parts: Sequence[Part] = ()) -> dict[str, Sequence[OpSpec]]:
    """The fixed agents that fit these observations, by name; the first one is what latency targets are shares of.

    Args:
        frame_shape: ``(height, width, channels)`` of images, ``(features,)`` of vectors, or ``(1, bytes)`` of parts.
        num_actions: discrete actions, of several factors all together; or length of an action vector.
        parts: of an observation; empty: it is an image or a vector itself.

    Returns:
        Their blocks; where those are no chain a ``Network`` with its wiring.
    """
    shape = single_shape(frame_shape, parts)
    if shape is None:
        return {"cnn-and-mlp": cnn_and_mlp(parts, num_actions)}
    if len(shape) == 1:
        return {"mlp-64x64": mlp(shape, num_actions)}
    agents: dict[str, Sequence[OpSpec]] = {"impala-cnn": impala_cnn(shape, num_actions)}
    if min(shape[:2]) >= 36:
        agents["nature-cnn"] = nature_cnn(shape, num_actions)
    return agents
