"""The ``chain`` space of A3C-S and A2D: stem, cells in stages with nine candidates each, fixed actor-critic head.

Fu et al., A3C-S (DAC 2021, arXiv 2106.06577) and A2D (arXiv 2012.13091). Differs from the papers in:
1. Widths, repeats, strides and the stem are configuration; the papers' exact stage table is not public.
2. No batch normalisation (see ``operations``); skip in a cell that changes shape is a strided 1x1 convolution + ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.operations import CHAIN_CANDIDATES, OPERATIONS
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class ChainConfig:
    """Shape of a chain space.

    Attributes:
        stem_channels, stem_kernel, stem_stride: the stem convolution, padded so that ``side / stride`` is kept where it is whole.
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
        ConfigError: stages of unequal lengths.
        UnknownNameError: an unknown operation.
        ShapeError: a window larger than its input.
    """
    lengths = {len(config.stage_channels), len(config.stage_repeats), len(config.stage_strides)}
    if len(lengths) != 1 or min(config.stage_repeats, default=0) < 1:
        raise ConfigError(
            "space.stage_channels, stage_repeats (each at least 1) and stage_strides need one entry a stage, got "
            f"{config.stage_channels}, {config.stage_repeats}, {config.stage_strides}"
        )
    height, width, channels = frame_shape
    padding = (config.stem_kernel - config.stem_stride + 1) // 2
    stem = OpSpec("stem", channels, height, width, config.stem_channels, config.stem_kernel, config.stem_stride, padding)
    c, h, w = stem.out_channels, stem.out_height, stem.out_width
    points = []
    for stage, (out, repeats, stride) in enumerate(zip(config.stage_channels, config.stage_repeats, config.stage_strides), 1):
        for cell in range(repeats):
            step = stride if cell == 0 else 1
            specs = tuple(OPERATIONS.get(name).make_spec(c, h, w, out, step) for name in config.candidates)
            points.append(ChoicePoint(f"stage{stage}.cell{cell + 1}", tuple(config.candidates), specs))
            c, h, w = out, (h - 1) // step + 1, (w - 1) // step + 1
    head = OpSpec("head", c, h, w, num_actions + 1, hidden=config.hidden, activation="none")
    return SearchSpace("chain", plain_values(config), tuple(frame_shape), num_actions, stem, tuple(points), head)


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
