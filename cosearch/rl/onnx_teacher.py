"""A user's own agent as a teacher: an ONNX file, frames in, logits and value out, run by onnxruntime.

The file is probed, nothing is guessed: one input of uint8 frames, channels last or first, with a free batch dimension; one output
of action logits and one of values. Where two readings fit (frames in either order, outputs that may be probabilities) the user
names one. Scaling belongs into the graph. What the values mean (discount, divisor of the rewards) no file says: the user gives
it, or the critic is not distilled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from latency_tables.board.runners import import_onnxruntime, runtime_reason
from latency_tables.errors import ConfigError, ShapeError
from latency_tables.reading import shown

PROBE_FRAMES = 3
LAYOUTS = {"channels_last": False, "channels_first": True}
LAYOUT_KEY = "layout"  # in the file's own metadata, where whoever wrote it said so
SUMS_TO_ONE = 1e-3  # probabilities in float16 do
LEAST_PROBABILITY = 1e-8  # whose logarithm is still finite


def external_files(path: Path) -> list[str]:
    """Names of the files beside an ONNX file in which its larger tensors lie, as it names them; none where all lie inside.

    Raises:
        ConfigError: the file cannot be read as ONNX.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has error classes of its own, which share no root with Python's
        raise ConfigError(f"{path}: cannot be read as an ONNX teacher: {runtime_reason(error)}") from error
    return sorted({entry.value for tensor in _tensors(model.graph) for entry in tensor.external_data if entry.key == "location"})


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph: initialisers, constants, and those of the graphs inside its nodes."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


class OnnxNetwork:
    """An ONNX actor-critic as a callable.

    Args:
        path: the file.
        frame_shape: ``(height, width, channels)`` of the run's environment.
        num_actions: of the run's environment.
        outputs: ``logits`` or ``probabilities``; None: logits, unless they look like probabilities.
        layout: ``channels_last`` or ``channels_first``; None: whichever the file can run.

    Raises:
        ConfigError: the file cannot be loaded, its input is not uint8, or it can be read in two ways and nobody said which.
        ShapeError: inputs or outputs of other shapes than such an agent's.
    """

    def __init__(
        self,
        path: Path,
        frame_shape: tuple[int, ...],
        num_actions: int,
        *,
        outputs: str | None = None,
        layout: str | None = None,
    ) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            raise ConfigError(f"{path}: cannot be loaded as an ONNX teacher: {runtime_reason(error)}") from error
        self._path, self._frame_shape, self._actions = path, tuple(frame_shape), num_actions
        self._input, orders = self._find_input(layout or self._session.get_modelmeta().custom_metadata_map.get(LAYOUT_KEY))
        self._channels_first, tried = self._find_order(orders)
        self._logits, self._value = self._find_outputs(tried)
        self._are_probabilities = self._find_meaning(tried[self._logits], outputs)

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[batch, height, width, channels]``, uint8 -> logits ``[batch, actions]`` and value ``[batch]``."""
        outputs = self._run(np.ascontiguousarray(frames.numpy()), self._channels_first)
        logits = torch.from_numpy(outputs[self._logits])
        if self._are_probabilities:
            logits = logits.clamp(min=LEAST_PROBABILITY).log()
        return logits, torch.from_numpy(outputs[self._value].reshape(len(frames)))

    def _run(self, frames: np.ndarray, channels_first: bool) -> list[np.ndarray]:
        fed = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)) if channels_first else frames
        try:
            return [np.asarray(part, dtype=np.float32) for part in self._session.run(None, {self._input: fed})]
        except Exception as error:  # as above
            raise ConfigError(f"{self._path}: cannot run {len(frames)} frames: {runtime_reason(error)}") from error

    def _find_input(self, said: str | None) -> tuple[str, list[bool]]:
        """Name of the input, and the orders of the frames that its shape allows."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise ShapeError(f"{self._path}: an ONNX teacher has one input, the frames; got {[i.name for i in inputs]}")
        frames = inputs[0]
        if frames.type != "tensor(uint8)":
            raise ConfigError(
                f"{self._path}: its input {frames.name!r} is {frames.type}, expected tensor(uint8): the frames as "
                "they are; put the scaling (x / 255) into the graph"
            )
        h, w, c = self._frame_shape
        shape = list(frames.shape)
        orders = [
            first
            for first, wanted in ((False, [h, w, c]), (True, [c, h, w]))
            if first == LAYOUTS.get(said or "", first)
            and len(shape) == 4
            and all(isinstance(a, str) or a is None or a == b for a, b in zip(shape[1:], wanted))
        ]
        if not orders:
            raise ShapeError(
                f"{self._path}: its input {frames.name!r} has the shape {shape}, expected [batch, {h}, {w}, {c}] or "
                f"[batch, {c}, {h}, {w}]: the frames of this environment" + (f", in the order {said}" if said in LAYOUTS else "")
            )
        if isinstance(shape[0], int) and shape[0] > 0:
            raise ShapeError(f"{self._path}: its batch dimension is fixed to {shape[0]}; export it with a free one")
        return frames.name, orders

    def _find_order(self, orders: list[bool]) -> tuple[bool, list[np.ndarray]]:
        """The one order in which the file runs, and its outputs on black and on random frames."""
        draws = np.random.default_rng(0).integers(0, 256, (PROBE_FRAMES, *self._frame_shape), np.uint8)
        draws[0], draws[1] = 0, 255 * (draws[1] % 2)
        ran: dict[bool, list[np.ndarray]] = {}
        for order in orders:
            try:
                ran[order] = self._run(draws, order)
            except ConfigError:
                if not ran and order == orders[-1]:
                    raise
        if len(ran) > 1:
            h, w, c = self._frame_shape
            raise ConfigError(
                f"{self._path}: takes frames in either order, [batch, {h}, {w}, {c}] or [batch, {c}, {h}, {w}], and does not say "
                "which one it means. Say distill.layout=channels_last or distill.layout=channels_first"
            )
        return next(iter(ran.items()))

    def _find_meaning(self, outputs: np.ndarray, said: str | None) -> bool:
        """Whether the outputs are probabilities."""
        look_so = bool((outputs >= 0).all() and np.allclose(outputs.sum(1), 1.0, atol=SUMS_TO_ONE)) and self._actions > 1
        if said is None and look_so:
            raise ConfigError(
                f"{self._path}: its outputs are never negative and sum to 1, as probabilities do and logits do not. Say "
                "distill.outputs=probabilities (their logarithm is taken), or distill.outputs=logits"
            )
        if said == "probabilities" and not look_so:
            raise ConfigError(
                f"{self._path}: distill.outputs=probabilities, but its outputs for {PROBE_FRAMES} frames are "
                f"{'negative' if (outputs < 0).any() else f'sums of {shown(outputs.sum(1).round(3).tolist())}'}; leave it out"
            )
        return said == "probabilities"

    def _find_outputs(self, outputs: list[np.ndarray]) -> tuple[int, int]:
        names = [output.name for output in self._session.get_outputs()]
        shapes: dict[str, list[int]] = {name: list(part.shape) for name, part in zip(names, outputs)}
        logits = [i for i, part in enumerate(outputs) if part.shape == (PROBE_FRAMES, self._actions)]
        values = [i for i, part in enumerate(outputs) if part.size == PROBE_FRAMES and part.shape[0] == PROBE_FRAMES]
        values = [i for i in values if i not in logits or len(logits) > 1]
        if len(logits) != 1 or len(values) != 1:
            raise ShapeError(
                f"{self._path}: for {PROBE_FRAMES} frames its outputs have the shapes {shapes}, expected one of "
                f"[{PROBE_FRAMES}, {self._actions}], the logits of this environment's {self._actions} actions, and "
                f"one of [{PROBE_FRAMES}] or [{PROBE_FRAMES}, 1], the value"
            )
        if not all(np.isfinite(outputs[i]).all() for i in (*logits, *values)):
            raise ConfigError(f"{self._path}: its outputs are NaN or infinite on black or random frames")
        return logits[0], values[0]
