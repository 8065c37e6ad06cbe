"""A user's own agent as a teacher: an ONNX file, frames in, logits and value out, run by onnxruntime.

The file is probed, nothing is guessed: one input of uint8 frames, channels last or first, with a free batch dimension; one output
of action logits and one of values. Scaling belongs into the graph. What the values mean (discount, divisor of the rewards) no
file says: the user gives it, or the critic is not distilled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latency_tables.board.runners import import_onnxruntime
from latency_tables.errors import ConfigError, ShapeError

PROBE_FRAMES = 3


class OnnxNetwork:
    """An ONNX actor-critic as a callable.

    Args:
        path: the file.
        frame_shape: ``(height, width, channels)`` of the run's environment.
        num_actions: of the run's environment.

    Raises:
        ConfigError: the file cannot be loaded, or its input is not uint8.
        ShapeError: inputs or outputs of other shapes than such an agent's.
    """

    def __init__(self, path: Path, frame_shape: tuple[int, ...], num_actions: int) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            raise ConfigError(f"{path}: cannot be loaded as an ONNX teacher: {str(error)[:300]}") from error
        self._path, self._frame_shape, self._actions = path, tuple(frame_shape), num_actions
        self._input, self._channels_first = self._find_input()
        self._logits, self._value = self._find_outputs()

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[batch, height, width, channels]``, uint8 -> logits ``[batch, actions]`` and value ``[batch]``."""
        outputs = self._run(np.ascontiguousarray(frames.numpy()))
        return torch.from_numpy(outputs[self._logits]), torch.from_numpy(outputs[self._value].reshape(len(frames)))

    def _run(self, frames: np.ndarray) -> list[np.ndarray]:
        fed = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)) if self._channels_first else frames
        try:
            return [np.asarray(part, dtype=np.float32) for part in self._session.run(None, {self._input: fed})]
        except Exception as error:  # as above
            raise ConfigError(f"{self._path}: cannot run {len(frames)} frames: {str(error)[:300]}") from error

    def _find_input(self) -> tuple[str, bool]:
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
            if len(shape) == 4 and all(isinstance(a, str) or a is None or a == b for a, b in zip(shape[1:], wanted))
        ]
        if not orders:
            raise ShapeError(
                f"{self._path}: its input {frames.name!r} has the shape {shape}, expected [batch, {h}, {w}, {c}] or "
                f"[batch, {c}, {h}, {w}]: the frames of this environment"
            )
        if isinstance(shape[0], int) and shape[0] > 0:
            raise ShapeError(f"{self._path}: its batch dimension is fixed to {shape[0]}; export it with a free one")
        return frames.name, orders[0]

    def _find_outputs(self) -> tuple[int, int]:
        probe = np.zeros((PROBE_FRAMES, *self._frame_shape), dtype=np.uint8)
        outputs = self._run(probe)
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
            raise ConfigError(f"{self._path}: its outputs are NaN or infinite on black frames")
        return logits[0], values[0]
