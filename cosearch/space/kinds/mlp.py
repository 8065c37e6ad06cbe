"""The ``mlp`` space for vector observations: a trunk of fixed width, each layer of it chosen, then actor and critic.

A point chooses a layer (``linear``), a residual block whose hidden width is free (``mlp``: trunk -> hidden -> trunk, added to its
input), each with its activation, or nothing. Widths are searched inside the blocks and the trunk keeps its own, so the cost of an
architecture is exactly the sum over its points and shared weights need no masks. Where a stage changes the trunk's width, its
first layer carries the change: then nothing is added to the input, and ``skip_layer`` is a linear layer without activation.
Between the last layer and the head a block may remember what came before (``memory``): its own point where there are several
candidates, a fixed block where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.space.cells.graph import Node
from cosearch.space.kinds.values import plain_values, read_values
from cosearch.space.operations import MLP_CANDIDATES, OPERATIONS, CandidateOp
from cosearch.space.space import SPACES, ChoicePoint, SearchSpace, SpaceEntry
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

NO_MEMORY = "none"


@dataclass(frozen=True)
class MlpConfig:
    """Shape of an mlp space.

    Attributes:
        stem_width: outputs of the fixed first layer.
        stem_activation: of that layer: ``relu``, ``tanh`` or ``none``.
        stage_widths, stage_repeats: width of the trunk and number of choice points, one entry a stage.
        candidates: operation names of every point.
        hidden: width of a hidden layer in the head; 0: none.
        memory: what may stand before the head: ``none``, cells (``gru_w32``, ``lstm_w64``) or stacked features (``stack_k4``).
    """

    stem_width: int = 64
    stem_activation: str = "tanh"
    stage_widths: tuple[int, ...] = (64,)
    stage_repeats: tuple[int, ...] = (4,)
    candidates: tuple[str, ...] = MLP_CANDIDATES
    hidden: int = 0
    memory: tuple[str, ...] = (NO_MEMORY,)


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
    blocks = memory_blocks(config.memory, width)
    if len(blocks) > 1:
        points.append(ChoicePoint("memory", config.memory, blocks))
    head = OpSpec("head", width, 1, 1, num_actions + 1, hidden=config.hidden, activation="none")
    body = [Node(point.name, (place,), point.specs, (place,)) for place, point in enumerate(points)]
    if len(blocks) == 1 and blocks[0] is not None:
        body.append(Node("memory", (len(body),), blocks))
    values = plain_values(config)
    if config.memory == (NO_MEMORY,):
        values.pop("memory")  # so a space without a memory describes itself as it did before there was any
    return SearchSpace("mlp", values, tuple(frame_shape), num_actions, stem, tuple(points), head, tuple(body))


def memory_blocks(names: tuple[str, ...], width: int) -> tuple[OpSpec | None, ...]:
    """The block of each candidate for the memory, None for ``none``.

    Args:
        names: of ``space.values.memory``.
        width: of the vector that it reads.

    Raises:
        ConfigError: none, one twice, or one that remembers nothing.
        UnknownNameError: no such operation.
    """
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"space.values.memory needs at least one candidate and each once, got {list(names)}")
    blocks = [None if name == NO_MEMORY else OPERATIONS.get(name).make_spec(width, 1, 1, width, 1) for name in names]
    for name, block in zip(names, blocks):
        if name != NO_MEMORY and (block is None or not block.memory):
            known = ", ".join(other.name for other in OPERATIONS.entries() if _remembers(other))
            raise ConfigError(f"space.values.memory: {name} remembers nothing, expected {NO_MEMORY} or one of {known}")
    return tuple(blocks)


def _remembers(entry: CandidateOp) -> bool:
    block = entry.make_spec(8, 1, 1, 8, 1) if entry.takes == "vectors" else None
    return block is not None and block.memory > 0


SPACES.register(
    SpaceEntry(
        "mlp",
        "layers of a multilayer perceptron for vector observations: widths, activations, residual blocks, skips, a memory",
        lambda values, frame_shape, num_actions: mlp_space(read_values("mlp", MlpConfig, values), frame_shape, num_actions),
        takes="vectors",
        is_default=True,
        with_memory={"memory": ["gru_w16", "gru_w32", "gru_w64"]},
    )
)
