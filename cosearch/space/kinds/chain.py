"""The ``chain`` space of A3C-S and A2D: stem, cells in stages with nine candidates each, fixed actor-critic head.

Fu et al., A3C-S (DAC 2021, arXiv 2106.06577) and A2D (arXiv 2012.13091). Differs from the papers in:
1. Widths, repeats, strides and the stem are configuration; the papers' exact stage table is not public.
2. No batch normalisation (see ``operations``); skip in a cell that changes shape is a strided 1x1 convolution + ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.operations import CHAIN_CANDIDATES, OPERATIONS, CandidateOp
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class ChainConfig:
    """Shape of a chain space.

    Attributes:
        stem_channels, stem_kernel, stem_stride: the stem convolution, padded so that ``side / stride`` is kept where it is whole;
            an even kernel with stride 1 makes each side one pixel longer.
        stage_channels, stage_repeats, stage_strides: one entry a stage; the first cell of a stage carries its stride.
        candidates: operation names of every cell.
        hidden: width of the head's hidden layer.
    """

    stem_channels: int = 32
    stem_kernel: int = 8
    stem_stride: int = 4
    stage_channels: tuple[int, ...] = (32, 48, 64)
    stage_repeats: tuple[int, ...] = (1, 3, 3)
    stage_strides: tuple[int, ...] = (1, 2, 2)
    candidates: tuple[str, ...] = CHAIN_CANDIDATES
    hidden: int = 128


SMALL_FRAMES = {
    "stem_channels": 16,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stage_channels": [16, 32],
    "stage_repeats": [2, 3],
    "stage_strides": [1, 2],
    "hidden": 128,
}


def chain_space(config: ChainConfig, frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    """Build the space.

    Args:
        config: widths, repeats, strides, stem.
        frame_shape: ``(height, width, channels)`` of the uint8 frames.
        num_actions: discrete actions.

    Raises:
        ConfigError: stages of unequal lengths, or a candidate that is no block on images of each cell's width.
        UnknownNameError: an unknown operation.
        ShapeError: a window larger than its input.
    """
    lengths = {len(config.stage_channels), len(config.stage_repeats), len(config.stage_strides)}
    if len(lengths) != 1 or min(config.stage_repeats, default=0) < 1:
        raise ConfigError(
            "space.values.stage_channels, stage_repeats (each at least 1) and stage_strides need one entry a stage, got "
            f"{config.stage_channels}, {config.stage_repeats}, {config.stage_strides}"
        )
    candidates = _candidates(config)
    height, width, channels = frame_shape
    padding = max(config.stem_kernel - config.stem_stride + 1, 0) // 2
    stem = OpSpec("stem", channels, height, width, config.stem_channels, config.stem_kernel, config.stem_stride, padding)
    c, h, w = stem.out_channels, stem.out_height, stem.out_width
    points = []
    for stage, (out, repeats, stride) in enumerate(zip(config.stage_channels, config.stage_repeats, config.stage_strides), 1):
        for cell in range(repeats):
            step = stride if cell == 0 else 1
            specs = tuple(entry.make_spec(c, h, w, out, step) for entry in candidates)
            points.append(ChoicePoint(f"stage{stage}.cell{cell + 1}", tuple(config.candidates), specs))
            c, h, w = out, (h - 1) // step + 1, (w - 1) // step + 1
    head = OpSpec("head", c, h, w, num_actions + 1, hidden=config.hidden, activation="none")
    return SearchSpace("chain", plain_values(config), tuple(frame_shape), num_actions, stem, tuple(points), head)


def _candidates(config: ChainConfig) -> list[CandidateOp]:
    """The operations of every cell: in a chain "no connection" cannot stand, nor what keeps a width that changes."""
    widths = (config.stem_channels, *config.stage_channels)
    changes = len(set(widths)) > 1

    def usable(entry: CandidateOp) -> bool:
        return entry.takes == "frames" and not entry.zero and not (entry.keeps_channels and changes)

    found = [OPERATIONS.get(name) for name in config.candidates]
    for entry in found:
        if not usable(entry):
            known = ", ".join(other.name for other in OPERATIONS.entries() if usable(other))
            where = f" that may change the width ({' to '.join(map(str, widths))} channels)" if changes else ""
            raise ConfigError(
                f"space.values.candidates: expected operations on images{where}, got {entry.name}; there are: {known}"
            )
    return found


def _suited(frame_shape: tuple[int, ...]) -> dict[str, object]:
    """Frames below 32 pixels start from a stem without stride and have two stages."""
    return dict(SMALL_FRAMES) if min(frame_shape[:2]) < 32 else {}


SPACES.register(
    SpaceEntry(
        "chain",
        "a chain of cells in stages, nine candidates each (A3C-S, A2D)",
        lambda values, frame_shape, num_actions: chain_space(read_values("chain", ChainConfig, values), frame_shape, num_actions),
        is_default=True,
        suited=_suited,
    )
)
