"""What was understood of a policy's file: the one record that all readers fill, that the file carries, and that plays it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from cosearch.record.json_record import OMITTED, from_json, to_json
from cosearch.record.results.agent import TensorRecord
from cosearch.rl.envs import Box
from latency_tables.errors import ConfigError, RunFolderError

KEY = "cosearch.policy"  # of the file's own metadata
MEANINGS = ("logits", "probabilities", "action values", "action", "mean")
ACTION_SCALES = ("environment", "unit", "tanh")
LAYOUTS = ("channels_last", "channels_first")


@dataclass(frozen=True)
class TaskFacts:
    """What a task gives to a policy and takes from it.

    Attributes:
        env: name of the environment.
        frame_shape: ``(height, width, channels)`` of images, or ``(features,)`` of vectors.
        num_actions: discrete actions, or length of an action vector.
        box: bounds of action vectors; None for discrete actions.
        first_action: the environment's own number of action 0.
        action_sizes: of the factors of a vector of whole numbers; empty for other actions.
    """

    env: str
    frame_shape: tuple[int, ...]
    num_actions: int
    box: Box | None = None
    first_action: int = 0
    action_sizes: tuple[int, ...] = ()

    @property
    def policy(self) -> str:
        """``categorical`` or ``gaussian``."""
        return "categorical" if self.box is None else "gaussian"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the user says of a file that the file itself does not tell; None: nothing.

    Attributes:
        outputs: one of ``MEANINGS``, and after a colon the name of that output where several could be it.
        layout: of the images that it takes, one of ``LAYOUTS``.
        pixels: largest value of a pixel that it takes, 255 or 1.
        action_scale: one of ``ACTION_SCALES``.
        acting: ``sampled`` or ``greedy``.
        normaliser: file with the statistics of the observations.
        module: ``PACKAGE.MODULE:CLASS`` that a ``state_dict`` belongs to.
    """

    outputs: str | None = None
    layout: str | None = None
    pixels: int | None = None
    action_scale: str | None = None
    acting: str | None = None
    normaliser: Path | None = None
    module: str | None = None

    @property
    def meaning(self) -> str | None:
        """What is said of the outputs, without the name."""
        return None if self.outputs is None else self.outputs.partition(":")[0].replace("-", " ")

    @property
    def output_name(self) -> str | None:
        """The name of that output; None: none is said."""
        return None if self.outputs is None else self.outputs.partition(":")[2] or None


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """Statistics of the observations that a policy was trained with: ``clip((x - mean) / deviation)``.

    Attributes:
        mean, deviation: one number a feature, or one for all.
        clip: largest absolute value after it; None: none.
        source: where they are from.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    clip: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class StateFacts:
    """One part of a recurrent policy's memory; it is zero where an episode begins.

    Attributes:
        taken, given: names of the input that takes it and of the output that gives the next one.
        dtype: numpy's name.
        shape: as the file declares it; a free dimension, that of the batch, by its name.
    """

    taken: str
    given: str
    dtype: str
    shape: tuple[object, ...]

    @property
    def batch_axis(self) -> int | None:
        """Which dimension is that of the batch; None: it is fixed to 1."""
        return next((axis for axis, size in enumerate(self.shape) if not isinstance(size, int)), None)

    @property
    def inner(self) -> tuple[int, ...]:
        """The other dimensions."""
        return tuple(size for size in self.shape if isinstance(size, int))


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What a policy's file takes, gives and means.

    Attributes:
        origin: kind of file, and the package that wrote it where the file says so.
        env: the environment that it plays.
        frame_shape, num_actions, policy: of that environment.
        inputs, outputs: as the file declares them.
        observation: name of the input that takes the observations.
        batch: ``free``; ``one``: its first dimension is fixed to 1; ``none``: it takes one observation without a batch dimension.
        layout: order of the images that it takes; None for vectors.
        pixels: largest value of a pixel that it takes; None for vectors.
        normaliser: applied before it; None: none, or one inside it.
        chosen: name of the output that chooses the action.
        meaning: of that output: ``logits``, ``probabilities``, ``action values``, ``action`` or ``mean``.
        spread: name of the output with the standard deviations of a Gaussian; None: it has none.
        spread_is_log: these are logarithms.
        value: name of the output with the state's value; None: it has none.
        acting: how it plays: ``sampled`` or ``greedy``.
        squashed: the hyperbolic tangent is still to be taken of its means.
        action_factor, action_offset: the agent's action is ``factor * x + offset`` of its own, one for each component.
        first_action: number of its first discrete action.
        states: parts of its memory; empty: it has none.
        notes: what was concluded from the file and not said by anybody, in words.
    """

    origin: str
    env: str
    frame_shape: tuple[int, ...]
    num_actions: int
    policy: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    observation: str
    batch: str
    layout: str | None
    pixels: int | None
    normaliser: Normaliser | None
    chosen: str
    meaning: str
    spread: str | None
    spread_is_log: bool
    value: str | None
    acting: str
    squashed: bool = field(default=False, metadata=OMITTED)
    action_factor: tuple[float, ...] = field(default=(), metadata=OMITTED)
    action_offset: tuple[float, ...] = field(default=(), metadata=OMITTED)
    first_action: int = field(default=0, metadata=OMITTED)
    states: tuple[StateFacts, ...] = field(default=(), metadata=OMITTED)
    notes: tuple[str, ...] = field(default=(), metadata=OMITTED)

    @property
    def teaches_by(self) -> str:
        """``distribution``, or ``actions`` where the file gives no more."""
        if self.meaning in ("logits", "probabilities"):
            return "distribution"
        return "distribution" if self.spread is not None else "actions"


def tensor_text(entry: TensorRecord) -> str:
    """An input or output in words: ``obs: float32 [batch, 4]``."""
    return f"{entry.name}: {entry.dtype} [{', '.join(map(str, entry.shape))}]"


@dataclass(frozen=True)
class Policy:
    """A policy of any origin, ready to play.

    Attributes:
        understood: what its graph takes and gives.
        content: the graph, one serialized ONNX model with all its weights.
    """

    understood: Understood
    content: bytes

    def stored(self) -> bytes:
        """The model with what was understood in its own metadata: one file that a run can learn from."""
        model = onnx.load_model_from_string(self.content)
        kept = {entry.key: entry.value for entry in model.metadata_props}
        onnx.helper.set_model_props(model, {**kept, KEY: json.dumps(to_json(self.understood))})
        return model.SerializeToString()


def understood_in(model: onnx.ModelProto, path: Path) -> Understood | None:
    """What the metadata of a file say was understood of it; None for a file that `cosearch compress` did not write.

    Raises:
        ConfigError: its metadata are damaged.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    if text is None:
        return None
    try:
        return from_json(Understood, json.loads(text), path)
    except (ValueError, RunFolderError) as error:
        raise ConfigError(
            f"{path}: its metadata {KEY!r} cannot be read: {error}. Write it again: `cosearch compress POLICY --env ENV`"
        ) from error
