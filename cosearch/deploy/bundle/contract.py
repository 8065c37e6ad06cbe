"""``contract.json``: what a deployed agent takes, what it gives, how to act on it, and what it was made from and for.

The same record lies inside the ONNX file, in its ``metadata_props``: one entry a field, each value as JSON. A program in any
language that has only the file can read it there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from cosearch.record.json_record import OMITTED, from_json, to_json
from latency_tables.errors import RunFolderError
from latency_tables.text.reading import OWN_DIGITS, parse_json

FORMAT = 1
CHANNELS_FIRST = "channels_first"


@dataclass(frozen=True, kw_only=True)
class InputPart:
    """One input of an agent whose observations have several parts, as the environment gives it.

    Attributes:
        name: of the input.
        kind: ``image``, ``vector`` or ``mask`` (not 0 for an action that is allowed).
        dtype: of its values.
        shape: of one observation; of an image in the order of ``layout``.
        layout: ``channels_last`` or ``channels_first``.
        low, high: bounds of an image of floats, which the file makes bytes of; None for other parts.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = "channels_last"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a deployed agent takes and gives.

    Attributes:
        format: of this record.
        model: name of the file beside it.
        runtime, dtype, threads: what runs it, and how its latency was predicted.
        opset: lowest version of ONNX's operators that it needs.
        input_name, input_dtype: of the observations.
        input_shape: ``batch`` and the shape of one observation: height, width and channels in the order of
            ``environment_layout``; or features.
        input_names: of the components of a vector; empty for images.
        environment_layout: of images, as the environment gives them and the file takes them: ``channels_last`` or
            ``channels_first``.
        input_scaling: what the file itself does to an observation, in words.
        output_names: of the outputs, in their order.
        stored_outputs: those of them that the self-test compares.
        inputs: of an observation of several parts all of them; empty where there is one input.
        policy: ``categorical`` (discrete actions), ``multi_categorical`` (vectors of whole numbers) or ``gaussian`` (vectors).
        rule: ``sample`` from the policy, or ``argmax``.
        action_names: of the actions, or of the components of an action vector.
        action_sizes: number of values of each component of a vector of whole numbers; empty for other actions.
        first_action: the environment's own number of the first discrete action.
        action_low, action_high: bounds that an action vector is clipped to, None where there is none; empty for discrete actions.
        action_scale, action_shift: the environment's action is scale times the policy's plus shift, then clipped.
        action_output: the output that holds the action; empty where the action is chosen outside of the file.
        noise_input: the input that takes random numbers; empty where there is none.
        noise_size: numbers for each observation: 1 from a uniform distribution over [0, 1), or one for each component of a vector
            of whole numbers, or one standard normal for each component of an action vector.
        memory_input: the input that takes what the agent carries from one observation to the next; empty where it has no memory.
        memory_output: the output that gives it for the next observation.
        memory_initial: its numbers at the first observation of an episode.
        period_s: control period that it was timed at, seconds.
        tolerance: largest difference of an output on the device, as a share of the largest stored one, or of 1 if that is larger.
        environment: the task.
        run, created_utc, seed: of the run that made it.
        network: names of the chosen candidates.
        network_sha256: of the exported file before this record was put in.
        device, table_id, table_provenance: what its latency was predicted for and by.
        latency_target_s, latency_predicted_s: of one decision, seconds.
        versions: of what made it.
    """

    FILE: ClassVar[str] = "contract.json"

    format: int = FORMAT
    model: str = "agent.onnx"
    runtime: str = "onnxruntime"
    dtype: str = "float32"
    threads: int = 1
    opset: int
    input_name: str
    input_dtype: str
    input_shape: tuple[object, ...]
    input_names: tuple[str, ...]
    inputs: tuple[InputPart, ...] = ()
    environment_layout: str = "channels_last"
    input_scaling: str
    output_names: tuple[str, ...]
    stored_outputs: tuple[str, ...]
    policy: str
    rule: str
    action_names: tuple[str, ...]
    action_sizes: tuple[int, ...] = ()
    first_action: int = 0
    action_low: tuple[float | None, ...] = ()
    action_high: tuple[float | None, ...] = ()
    action_scale: tuple[float, ...] = ()
    action_shift: tuple[float, ...] = ()
    action_output: str = ""
    noise_input: str = ""
    noise_size: int = 0
    memory_input: str = field(default="", metadata=OMITTED)
    memory_output: str = field(default="", metadata=OMITTED)
    memory_initial: tuple[float, ...] = field(default=(), metadata=OMITTED)
    period_s: float
    tolerance: float
    environment: str
    run: str
    created_utc: str
    seed: int
    network: tuple[str, ...]
    network_sha256: str
    device: str
    table_id: str
    table_provenance: str
    latency_target_s: float
    latency_predicted_s: float
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """The content of the file."""
        return to_json(self)

    @classmethod
    def from_json(cls, content: object, file: Path | str) -> Self:
        """The record in the content of a file.

        Args:
            content: a JSON object.
            file: where it came from, for the message.

        Raises:
            RunFolderError: it is no such record; names the key.
        """
        return from_json(cls, content, file)

    def to_metadata(self) -> dict[str, str]:
        """One entry a field for the ``metadata_props`` of an ONNX file, each value as JSON."""
        return {name: json.dumps(value, allow_nan=False) for name, value in self.to_json().items()}

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str], file: Path | str) -> Self:
        """The record in the ``metadata_props`` of an ONNX file; entries of other names are left out.

        Args:
            entries: by name, each value as JSON.
            file: where they came from, for the message.

        Raises:
            RunFolderError: they are no such record; names the entry.
        """
        content: dict[str, object] = {}
        for key in (each.name for each in dataclasses.fields(cls)):
            if key in entries:
                try:
                    content[key] = parse_json(entries[key], "it", RunFolderError, digits=OWN_DIGITS)
                except RunFolderError as error:
                    text = entries[key][:80]
                    raise RunFolderError(f"{file}: its metadata {key} must be JSON, got {text!r}") from error
        return cls.from_json(content, file)
