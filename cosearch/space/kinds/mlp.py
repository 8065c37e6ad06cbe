"""The ``mlp`` space for vector observations: a trunk of fixed width, each layer of it chosen, then actor and critic.

A point chooses a layer (``linear``), a residual block whose hidden width is free (``mlp``: trunk -> hidden -> trunk, added to its
input), each with its activation, or nothing. Widths are searched inside the blocks and the trunk keeps its own, so the cost of an
architecture is exactly the sum over its points and shared weights need no masks. Where a stage changes the trunk's width, its
first layer carries the change: then nothing is added to the input, and ``skip_layer`` is a linear layer without activation.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.operations import MLP_CANDIDATES, OPERATIONS
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec


@dataclass(frozen=True)
class MlpConfig:
    """Shape of an mlp space.

    Attributes:
        stem_width: outputs of the fixed first layer.
        stem_activation: of that layer: ``relu``, ``tanh`` or ``none``.
        stage_widths, stage_repeats: width of the trunk and number of choice points, one entry a stage.
        candidates: operation names of every point.
        hidden: width of a hidden layer in the head; 0: none.
    """

    stem_width: int = 64
    stem_activation: str = "tanh"
    stage_widths: tuple[int, ...] = (64,)
    stage_repeats: tuple[int, ...] = (4,)
    candidates: tuple[str, ...] = MLP_CANDIDATES
    hidden: int = 0


def mlp_space(config: MlpConfig, frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    """Build the space.

    Args:
        config: widths, repeats, candidates.
        frame_shape: ``(features,)`` of the float32 vectors.
        num_actions: discrete actions, or length of an action vector.

    Raises:
        ConfigError: stages of unequal lengths, or a candidate that is made for images.
        UnknownNameError: an unknown operation.
        ShapeError: a width below 1.
    """
    if len(config.stage_widths) != len(config.stage_repeats) or min(config.stage_repeats, default=0) < 1:
        raise ConfigError(
            "space.values.stage_widths and stage_repeats (each at least 1) need one entry a stage, got "
            f"{config.stage_widths}, {config.stage_repeats}"
        )
    candidates = [OPERATIONS.get(name) for name in config.candidates]
    for entry in candidates:
        if entry.takes != "vectors":
            usable = ", ".join(other.name for other in OPERATIONS.entries() if other.takes == "vectors")
            raise ConfigError(f"space.values.candidates: {entry.name} takes images, expected operations on vectors: {usable}")
    (features,) = frame_shape
    stem = OpSpec("linear", features, 1, 1, config.stem_width, activation=config.stem_activation)
    width, points = config.stem_width, []
    for stage, (out, repeats) in enumerate(zip(config.stage_widths, config.stage_repeats), 1):
        for layer in range(1, repeats + 1):
            specs = tuple(entry.make_spec(width, 1, 1, out, 1) for entry in candidates)
            points.append(ChoicePoint(f"stage{stage}.layer{layer}", tuple(config.candidates), specs))
            width = out
    head = OpSpec("head", width, 1, 1, num_actions + 1, hidden=config.hidden, activation="none")
    return SearchSpace("mlp", plain_values(config), tuple(frame_shape), num_actions, stem, tuple(points), head)


SPACES.register(
    SpaceEntry(
        "mlp",
        "layers of a multilayer perceptron for vector observations: widths, activations, residual blocks, skips",
        lambda values, frame_shape, num_actions: mlp_space(read_values("mlp", MlpConfig, values), frame_shape, num_actions),
        takes="vectors",
        is_default=True,
    )
)
