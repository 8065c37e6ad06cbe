"""Hand-made networks of the field, each as a space of one choice: its width.

With the strategy ``largest`` such a space is a control: the published network, as wide as the target allows. A search over blocks
that is no better has found nothing that scaling a known network does not give. Widths are sixteenths of the published ones.

``nature-cnn``   Mnih et al. 2015: three convolutions (32, 64, 64), hidden layer 512; all four widths scale.
``impala-cnn``   Espeholt et al. 2018, arXiv 1802.01561: sections (16, 32, 32), hidden layer 256; the sections scale.
``impoola-cnn``  Trumpp et al. 2025, arXiv 2503.05546: the IMPALA-CNN whose head reads the mean over the last map.
``minatar-cnn``  Young & Tian 2019, arXiv 1903.03176: one convolution (16), hidden layer 128; both scale. For small frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cosearch.space.cells.graph import Node
from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.network import impala_cnn, minatar_cnn, nature_cnn
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

UNIT = 16  # a width of 16 sixteenths is the published network


@dataclass(frozen=True)
class HandMadeConfig:
    """Widths of a hand-made network.

    Attributes:
        sixteenths: candidate widths, in sixteenths of the published ones, at least 1 each.
    """

    sixteenths: tuple[int, ...] = (*range(1, 17), 18, 20, 22, 24, 28, 32)


@dataclass(frozen=True)
class HandMade:
    """One hand-made network.

    Attributes:
        name, description: for lists.
        smallest, largest: the shorter side of frames it is made for, pixels.
        make: (frame_shape, num_actions, sixteenths) -> its blocks.
    """

    name: str
    description: str
    smallest: int
    largest: int
    make: Callable[[tuple[int, ...], int, int], list[OpSpec]]

    def fits(self, frame_shape: tuple[int, ...]) -> bool:
        """Whether it is made for such frames ``(height, width, channels)``."""
        return len(frame_shape) == 3 and self.smallest <= min(frame_shape[:2]) <= self.largest


def _impala(pooled: bool) -> Callable[[tuple[int, ...], int, int], list[OpSpec]]:
    return lambda frame_shape, num_actions, k: impala_cnn(frame_shape, num_actions, (k, 2 * k, 2 * k), pooled)


HAND_MADE = {
    network.name: network
    for network in (
        HandMade(
            "nature-cnn",
            "the Nature-CNN by width",
            36,
            2**20,
            lambda frame_shape, num_actions, k: nature_cnn(frame_shape, num_actions, (2 * k, 4 * k, 4 * k), 32 * k),
        ),
        HandMade("impala-cnn", "the IMPALA-CNN by width", 1, 2**20, _impala(pooled=False)),
        HandMade("impoola-cnn", "the IMPALA-CNN by width, its head reading the mean over the last map", 5, 2**20, _impala(True)),
        HandMade(
            "minatar-cnn",
            "MinAtar's own network by width",
            3,
            31,
            lambda frame_shape, num_actions, k: minatar_cnn(frame_shape, num_actions, k, 8 * k),
        ),
    )
}


def hand_made_for(frame_shape: tuple[int, ...]) -> list[str]:
    """Names of the hand-made networks that are made for such frames.

    Args:
        frame_shape: ``(height, width, channels)``; none are made for vectors ``(features,)``.
    """
    return [network.name for network in HAND_MADE.values() if network.fits(frame_shape)]


def hand_made_space(network: HandMade, config: HandMadeConfig, frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    """The space of a hand-made network's widths.

    Args:
        network: which one.
        config: the candidate widths.
        frame_shape: ``(height, width, channels)`` of the uint8 frames.
        num_actions: discrete actions.

    Raises:
        ConfigError: frames that it is not made for, or no widths, one twice or below 1.
    """
    widths = config.sixteenths
    if not network.fits(frame_shape):
        raise ConfigError(
            f"space {network.name!r} is made for frames whose shorter side is {network.smallest} to {network.largest} pixels, "
            f"the task gives {frame_shape}; made for these: {', '.join(hand_made_for(frame_shape)) or 'none'}"
        )
    if not widths or len(set(widths)) != len(widths) or min(widths) < 1:
        raise ConfigError(f"space.values.sixteenths must be different whole numbers from 1, at least one, got {list(widths)}")
    networks = [network.make(frame_shape, num_actions, k) for k in widths]
    nodes = [Node(f"block{place}", () if place == 0 else (place - 1,), specs, (0,)) for place, specs in enumerate(zip(*networks))]
    point = ChoicePoint("width", tuple(f"{k}/{UNIT}" for k in widths))
    return SearchSpace(
        network.name,
        plain_values(config),
        tuple(frame_shape),
        num_actions,
        networks[0][0],
        (point,),
        networks[0][-1],
        tuple(nodes[1:-1]),
        ends=(nodes[0], nodes[-1]),
    )


def _entry(network: HandMade) -> SpaceEntry:
    return SpaceEntry(
        network.name,
        f"{network.description} (one choice): with the strategy largest, a control",
        lambda values, frame_shape, num_actions: hand_made_space(
            network, read_values(network.name, HandMadeConfig, values), frame_shape, num_actions
        ),
    )


for _network in HAND_MADE.values():
    SPACES.register(_entry(_network))
