"""The ``macro`` space: what decides latency and score of a small agent, searched together.

Input resolution, stem (kernel and stride), its width, width and cells of each stage, head (pooled or flattened, hidden width) are
choice points.
A stage is a strided 3x3 convolution to the stage's width, followed by a chosen sequence of cells that keep the shape: how many
there are is part of the choice, so no network has two names for want of a cell. The first block of a stage depends on the width
before it and on its own, and every size on the stem's stride: such blocks are decided by several points together.
The name is the field's: a macro space varies the whole network where a micro space varies a repeated cell (Zoph et al. 2018,
arXiv 1707.07012). Blocks: convolutions and inverted residuals as in ``chain``; residual blocks and pooled heads as in the
IMPALA-CNN (Espeholt et al. 2018, arXiv 1802.01561) and Impoola (Trumpp et al. 2025, arXiv 2503.05546). Nothing is normalised.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cosearch.space.cells.graph import Node
from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.operations import OPERATIONS
from cosearch.space.space import MAX_ENUMERABLE, SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

NO_CELLS = "none"
Sizes = tuple[int, int]  # height, width


@dataclass(frozen=True)
class MacroConfig:
    """Candidates of every choice; what has one candidate is fixed and no choice point,
    but the first where everything has one.

    Attributes:
        resolutions: sides of the squares of pixels that are averaged into one, inside the network; 1: frames as they are.
        stems: kernel and stride of the stem, e.g. ``k3s1``; padded so that ``side / stride`` is kept where it is whole; an even
            kernel with stride 1 makes each side one pixel longer.
        stem_widths: channels of the stem.
        stage_strides: stride of each stage's first convolution.
        stage_widths: channels, for each stage its candidates.
        cells: what may follow a stage's first convolution: ``none``, or names of operations joined by ``+``; ``residual_k3`` is
            the IMPALA-CNN's residual block.
        heads: ``pooled`` (the mean over the last map) and ``flat`` (all of it).
        hidden: width of the head's hidden layer; 0: none.
    """

    resolutions: tuple[int, ...] = (1, 2)
    stems: tuple[str, ...] = ("k3s1", "k3s2", "k5s2", "k8s4")
    stem_widths: tuple[int, ...] = (4, 8, 16, 32)
    stage_strides: tuple[int, ...] = (2, 2)
    stage_widths: tuple[tuple[int, ...], ...] = ((8, 16, 32), (8, 16, 32))
    cells: tuple[str, ...] = ("none", "conv_k3", "conv_k5", "residual_k3", "residual_k3+residual_k3", "mbconv_k3_e3")
    heads: tuple[Literal["pooled", "flat"], ...] = ("pooled", "flat")
    hidden: tuple[int, ...] = (0, 64, 256)


SMALL_FRAMES = {
    "resolutions": [1],
    "stems": ["k3s1", "k3s2"],
    "stem_widths": [4, 8, 16],
    "stage_strides": [2],
    "stage_widths": [[8, 16, 32]],
    "cells": ["none", "conv_k3", "conv_k5", "residual_k3", "mbconv_k3_e3"],
    "heads": ["pooled", "flat"],
    "hidden": [0, 32, 128],
}


@dataclass(frozen=True)
class _Knobs:
    """Everything that may be chosen, by name: what can be taken for it."""

    values: Mapping[str, tuple[object, ...]]

    @property
    def searched(self) -> list[str]:
        """Those with several candidates; where none has, the first, so that a fixed network is a space of one choice."""
        return [name for name, values in self.values.items() if len(values) > 1] or list(self.values)[:1]

    @property
    def points(self) -> tuple[ChoicePoint, ...]:
        """A choice point for each that is searched."""
        return tuple(ChoicePoint(name, tuple(str(value) for value in self.values[name])) for name in self.searched)

    def node(self, name: str, inputs: tuple[int, ...], knobs: Sequence[str], make: Callable[..., OpSpec | None]) -> Node:
        """A node whose block ``make`` gives for the values of some knobs, each combination once."""
        searched = self.searched
        chosen = [knob for knob in knobs if knob in searched]
        specs = tuple(make(*values) for values in itertools.product(*(self.values[knob] for knob in knobs)))
        return Node(name, inputs, specs, tuple(map(searched.index, chosen)), tuple(len(self.values[knob]) for knob in chosen))


def macro_space(config: MacroConfig, frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    """Build the space.

    Args:
        config: the candidates.
        frame_shape: ``(height, width, channels)`` of the uint8 frames.
        num_actions: discrete actions.

    Raises:
        ConfigError: no candidates for a choice, one twice, stages of unequal numbers, or a cell that does not keep its shape.
        UnknownNameError: an unknown operation in a cell.
        ShapeError: a window larger than its input, or a size below 1.
    """
    stages = range(1, len(config.stage_strides) + 1)
    if not stages or len(config.stage_widths) != len(stages):
        raise ConfigError(
            "space.values.stage_strides and stage_widths need one entry a stage, at least one, got "
            f"{config.stage_strides}, {config.stage_widths}"
        )
    for key in ("resolutions", "stems", "stem_widths", "stage_widths", "cells", "heads", "hidden"):
        given = getattr(config, key)
        for candidates in given if key == "stage_widths" else (given,):
            if not candidates or len(set(candidates)) != len(candidates):
                raise ConfigError(f"space.values.{key} needs at least one candidate and each once, got {list(candidates)}")
    values: dict[str, tuple[object, ...]] = {
        "resolution": config.resolutions,
        "stem": config.stems,
        "stem_width": config.stem_widths,
    }
    for stage, widths in zip(stages, config.stage_widths):
        values |= {f"stage{stage}.width": widths, f"stage{stage}.cells": config.cells}
    values |= {"head": config.heads, "hidden": config.hidden}
    size = math.prod(map(len, values.values()))
    if size > MAX_ENUMERABLE:
        raise ConfigError(f"a macro space has at most {MAX_ENUMERABLE:,} architectures, got {size:,}; leave candidates out")
    knobs = _Knobs(values)
    sequences = {name: _cells(name) for name in config.cells}
    stems = {(shrink, name): _stem(name, shrink, frame_shape) for shrink in config.resolutions for name in config.stems}

    def side(shrink: int, stem: str, before: int) -> Sizes:
        """Height and width in front of a stage, counted from 0."""
        sizes = stems[shrink, stem].out_height, stems[shrink, stem].out_width
        for stride in config.stage_strides[:before]:
            sizes = (sizes[0] - 1) // stride + 1, (sizes[1] - 1) // stride + 1
        return sizes

    def stem_block(shrink: int, stem: str, out: int) -> OpSpec:
        return replace(stems[shrink, stem], out_channels=out)

    def entry(stage: int) -> Callable[..., OpSpec]:
        stride = config.stage_strides[stage - 1]
        return lambda shrink, stem, c, o: OpSpec("conv", c, *side(shrink, stem, stage - 1), o, kernel=3, stride=stride, padding=1)

    def cell(stage: int, place: int) -> Callable[..., OpSpec | None]:
        def make(shrink: int, stem: str, c: int, name: str) -> OpSpec | None:
            sequence = sequences[name]
            return sequence[place](c, *side(shrink, stem, stage)) if place < len(sequence) else None

        return make

    def head(shrink: int, stem: str, c: int, form: str, hidden: int) -> OpSpec:
        h, w = side(shrink, stem, len(stages))
        return OpSpec("head", c, h, w, num_actions + 1, kernel=max(h, w) if form == "pooled" else 1, hidden=hidden)

    first = knobs.node("stem", (), ("resolution", "stem", "stem_width"), stem_block)
    body: list[Node] = []
    before = "stem_width"
    for stage in stages:
        body.append(
            knobs.node(f"stage{stage}.entry", (len(body),), ("resolution", "stem", before, f"stage{stage}.width"), entry(stage))
        )
        before = f"stage{stage}.width"
        for place in range(max(map(len, sequences.values()))):
            names = ("resolution", "stem", before, f"stage{stage}.cells")
            body.append(knobs.node(f"stage{stage}.cell{place + 1}", (len(body),), names, cell(stage, place)))
    last = knobs.node("head", (len(body),), ("resolution", "stem", before, "head", "hidden"), head)
    ends = first.specs[0], last.specs[0]
    assert ends[0] is not None and ends[1] is not None, "a stem and a head are blocks"
    return SearchSpace(
        "macro",
        plain_values(config),
        tuple(frame_shape),
        num_actions,
        ends[0],
        knobs.points,
        ends[1],
        tuple(body),
        ends=(first, last),
    )


def _stem(name: str, shrink: int, frame_shape: tuple[int, ...]) -> OpSpec:
    """The stem of a name, with one channel."""
    read = re.fullmatch(r"k(\d+)s(\d+)", name)
    if not read:
        raise ConfigError(f"space.values.stems: expected kernel and stride as k3s1, got {name!r}")
    kernel, stride = map(int, read.groups())
    height, width, channels = frame_shape
    padding = max(kernel - stride + 1, 0) // 2
    return OpSpec("stem", channels, height, width, 1, kernel=kernel, stride=stride, padding=padding, groups=shrink)


def _residual(c: int, h: int, w: int) -> OpSpec:
    return OpSpec("residual", c, h, w, c, kernel=3, padding=1)


def _cells(name: str) -> list[Callable[[int, int, int], OpSpec]]:
    """(channels, height, width) -> block, of each cell of a sequence."""

    def cell(part: str) -> Callable[[int, int, int], OpSpec]:
        if part == "residual_k3":
            return _residual
        operation = None if part == NO_CELLS else OPERATIONS.get(part)
        if operation is None or operation.takes != "frames" or operation.make_spec(1, 8, 8, 1, 1) is None:
            raise ConfigError(f"space.values.cells: {part} of {name!r} is no block on images; `none` stands for no cell")

        def make(c: int, h: int, w: int) -> OpSpec:
            spec = operation.make_spec(c, h, w, c, 1)
            assert spec is not None, f"{part} is a block at one size and none at another"
            return spec

        return make

    return [] if name == NO_CELLS else [cell(part) for part in name.split("+")]


def _suited(frame_shape: tuple[int, ...]) -> dict[str, object]:
    """Frames below 32 pixels keep their size in the stem or halve it, and have one stage."""
    return dict(SMALL_FRAMES) if min(frame_shape[:2]) < 32 else {}


SPACES.register(
    SpaceEntry(
        "macro",
        "the whole network: resolution, stem, its width, width and cells of each stage, head",
        lambda values, frame_shape, num_actions: macro_space(read_values("macro", MacroConfig, values), frame_shape, num_actions),
        suited=_suited,
        for_students=True,
    )
)
