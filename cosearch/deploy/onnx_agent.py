"""An exported agent, run by onnxruntime as a board would run it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latency_tables.board.runners import import_onnxruntime, runtime_reason
from latency_tables.errors import RunFailedError, RunFolderError, ShapeError


class OnnxAgent:
    """A callable like a network: frames in, policy outputs and value out; with :meth:`unroll` where it has a memory.

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
        if len(names) != 1 and names[1:] != ["memory"]:
            raise RunFolderError(
                f"{path} cannot be loaded as an agent: it takes {len(names)} inputs, expected the observations, and the memory "
                f"where it has one; `cosearch export {path.parent}` writes it again"
            )
        self._input = names[0]
        self.memory_size: int = self._session.get_inputs()[1].shape[1] if len(names) == 2 else 0

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[batch, height, width, channels]``, uint8, or vectors ``[batch, features]``, float32.

        Returns:
            Logits ``[batch, actions]``, or means and log standard deviations ``[batch, 2 size]``; and value ``[batch]``.
        """
        outputs = self._run(frames)
        return torch.from_numpy(_chosen(outputs)), torch.from_numpy(outputs["value"])

    def unroll(self, frames: Tensor, memory: Tensor, begins: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """One step of an agent with a memory, see ``AgentNetwork.unroll``.

        Args:
            frames: ``[batch, ...]``, as for a call.
            memory: ``[batch, memory_size]``.
            begins: ``[1, batch]`` is refused. None: the memory is as it is; the file takes one step at a time.

        Raises:
            ShapeError: ``begins`` is given.
        """
        if begins is not None:
            raise ShapeError("an exported agent takes one step at a time: clear its memory where an episode begins")
        outputs = self._run(frames, memory)
        kept = torch.from_numpy(outputs["next_memory"])
        return torch.from_numpy(_chosen(outputs)), torch.from_numpy(outputs["value"]), kept

    def _run(self, frames: Tensor, memory: Tensor | None = None) -> dict[str, np.ndarray]:
        feed = {self._input: frames.numpy(), **({} if memory is None else {"memory": memory.numpy()})}
        try:
            found = self._session.run(None, feed)
            return dict(zip((entry.name for entry in self._session.get_outputs()), found))
        except Exception as error:  # as above
            raise RunFailedError(f"{self._path} cannot run observations {list(frames.shape)}: {runtime_reason(error)}") from error


def _chosen(outputs: dict[str, np.ndarray]) -> np.ndarray:
    """The policy outputs among those of a file."""
    return outputs["logits"] if "logits" in outputs else with_spread(outputs["mean"], outputs["log_std"])


def with_spread(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Means ``[batch, size]`` and log standard deviations ``[size]`` as policy outputs ``[batch, 2 size]``."""
    return np.concatenate([mean, np.broadcast_to(log_std, mean.shape)], axis=1)
