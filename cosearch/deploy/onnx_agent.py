"""An exported agent, run by onnxruntime as a board would run it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latency_tables.board.runners import import_onnxruntime, runtime_reason
from latency_tables.errors import RunFailedError, RunFolderError


class OnnxAgent:
    """A callable like a network: frames in, policy outputs and value out.

    Args:
        path: of ``agent.onnx``.
        threads: CPU threads; 0 for all cores.

    Raises:
        RunFolderError: the runtime cannot load the file.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or (os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            raise RunFolderError(
                f"{path} cannot be loaded as an agent: {runtime_reason(error)}; `cosearch export {path.parent}` writes it again"
            ) from error
        names = [entry.name for entry in self._session.get_inputs()]
        if len(names) != 1:
            raise RunFolderError(
                f"{path} cannot be loaded as an agent: it takes {len(names)} inputs, expected the observations alone; `cosearch "
                f"export {path.parent}` writes it again"
            )
        self._input = names[0]

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[batch, height, width, channels]``, uint8, or vectors ``[batch, features]``, float32.

        Returns:
            Logits ``[batch, actions]``, or means and log standard deviations ``[batch, 2 size]``; and value ``[batch]``.
        """
        outputs = dict(zip((entry.name for entry in self._session.get_outputs()), self._run(frames)))
        chosen = outputs["logits"] if "logits" in outputs else with_spread(outputs["mean"], outputs["log_std"])
        return torch.from_numpy(chosen), torch.from_numpy(outputs["value"])

    def _run(self, frames: Tensor) -> list[np.ndarray]:
        try:
            return self._session.run(None, {self._input: frames.numpy()})
        except Exception as error:  # as above
            raise RunFailedError(f"{self._path} cannot run observations {list(frames.shape)}: {runtime_reason(error)}") from error


def with_spread(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Means ``[batch, size]`` and log standard deviations ``[size]`` as policy outputs ``[batch, 2 size]``."""
    return np.concatenate([mean, np.broadcast_to(log_std, mean.shape)], axis=1)
