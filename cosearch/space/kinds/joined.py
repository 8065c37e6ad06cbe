"""The ``joined`` space: an encoder for each image and one for all vectors together, their features concatenated before the head.

An image is read by a chain of cells (the ``chain`` space's), the vectors by layers of a multilayer perceptron (the ``mlp``
space's); the search chooses in all encoders at once. What an architecture costs is the sum over its encoders, the join and the
head: a device computes them one after the other. As in stable-baselines3's policies for dictionaries, the join is a plain
concatenation; here the vectors have layers of their own before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from cosearch.space.cells.graph import Node
from cosearch.space.kinds.chain import SMALL_FRAMES, ChainConfig, chain_space
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.parts import Part, encoded, frame_shape_of
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

VECTORS = "vectors"


@dataclass(frozen=True)
class JoinedConfig:
    """Shape of a joined space.

    Attributes:
        image: values of the chain of each image, see ``ChainConfig``; left out, what suits its size.
        vector: values of the layers that read all vectors, see ``MlpConfig``. Neither has a ``hidden``: the head is common.
        hidden: width of the common head's hidden layer; 0: none.
    """

    image: Mapping[str, object] = field(default_factory=dict)
    vector: Mapping[str, object] = field(default_factory=lambda: {"stage_repeats": [2]})
    hidden: int = 128


def joined_space(config: JoinedConfig, parts: tuple[Part, ...], num_actions: int) -> SearchSpace:
    """Build the space.

    Args:
        config: of the encoders and the head.
        parts: of an observation; the images and vectors are encoded, in at least two encoders.
        num_actions: discrete actions, or length of an action vector.

    Raises:
        ConfigError: the values of an encoder do not fit its observations, or are of a head.
    """
    for key, values in (("image", config.image), ("vector", config.vector)):
        if "hidden" in values:
            raise ConfigError(f"space.values.{key}.hidden: an encoder has no head; the common one has space.values.hidden")
    nodes: list[Node] = []
    points: list[ChoicePoint] = []
    ends: list[int] = []
    for group in encoded(parts):
        name = group[0].name if group[0].kind == "image" else VECTORS
        key = "image" if group[0].kind == "image" else "vector"
        try:
            encoder = _encoder(config, group, num_actions)
        except ConfigError as error:  # an encoder names its own keys: here they lie below those of the encoder
            raise ConfigError(str(error).replace("space.values.", f"space.values.{key}.")) from error
        begin, before = len(nodes), len(points)
        nodes.append(Node(f"{name}.stem", (), (encoder.stem,)))
        for node in encoder.body:
            inputs, chosen_by = tuple(begin + i for i in node.inputs), tuple(before + p for p in node.points)
            nodes.append(dataclasses.replace(node, name=f"{name}.{node.name}", inputs=inputs, points=chosen_by))
        points += [dataclasses.replace(point, name=f"{name}.{point.name}") for point in encoder.points]
        ends.append(len(nodes) - 1)
    features = 0
    for end in ends:
        spec = next(spec for spec in _made_by(nodes, end) if spec is not None)
        features += spec.out_channels * spec.out_height * spec.out_width
    join = OpSpec("join", features, 1, 1, features, groups=len(ends), activation="none")
    nodes.append(Node("join", tuple(ends), (join,)))
    head = OpSpec("head", features, 1, 1, num_actions + 1, hidden=config.hidden, activation="none")
    first, *body = nodes
    stem = first.specs[0]
    assert stem is not None  # the first encoder's
    return SearchSpace(
        "joined", plain_values(config), frame_shape_of(parts), num_actions, stem, tuple(points), head, tuple(body), parts=parts
    )


def _made_by(nodes: list[Node], end: int) -> tuple[OpSpec | None, ...]:
    """The blocks of a node, or of the one before it where all of its are the identity."""
    while all(spec is None for spec in nodes[end].specs):
        (end,) = nodes[end].inputs
    return nodes[end].specs


def _encoder(config: JoinedConfig, group: tuple[Part, ...], num_actions: int) -> SearchSpace:
    if group[0].kind == "image":
        (part,) = group
        suited = SMALL_FRAMES if min(part.shape[:2]) < 32 else {}
        values = {**suited, **config.image}
        return chain_space(read_values("joined", ChainConfig, values), part.shape, num_actions)
    return mlp_space(read_values("joined", MlpConfig, config.vector), (sum(part.shape[0] for part in group),), num_actions)


def _whole(values: Mapping[str, object], frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    raise ConfigError(f"space 'joined' joins several encoders, the task gives one observation of shape {tuple(frame_shape)}")


SPACES.register(
    SpaceEntry(
        "joined",
        "an encoder for each image and one for the vectors of a dictionary of observations, joined before the head",
        _whole,
        takes="parts",
        is_default=True,
        join=lambda values, parts, num_actions: joined_space(read_values("joined", JoinedConfig, values), parts, num_actions),
    )
)
