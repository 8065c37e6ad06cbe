"""An exported agent, run by onnxruntime as a board would run it."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosearch.space.parts import Part, unpack
from latency_tables.board.runners import import_onnxruntime, runtime_reason
from latency_tables.errors import RunFailedError, RunFolderError, ShapeError

MEMORY = "memory"  # the input of what an agent with a memory carries


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
        self._inputs = [entry for entry in self._session.get_inputs() if entry.name != MEMORY]
        kept = [entry for entry in self._session.get_inputs() if entry.name == MEMORY]
        forms = {(entry.type, len(entry.shape)) for entry in self._inputs}
        if len(self._inputs) != 1 and not forms <= {("tensor(uint8)", 4), ("tensor(uint8)", 2), ("tensor(float)", 2)}:
            raise RunFolderError(
                f"{path} cannot be loaded as an agent: it takes {len(self._inputs)} inputs, expected the observations, and the "
                f"memory where it has one; `cosearch export {path.parent}` writes it again"
            )
        self.memory_size: int = kept[0].shape[1] if kept else 0

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[batch, height, width, channels]``, uint8, vectors ``[batch, features]``, float32, or packed parts
        ``[batch, 1, bytes]``, uint8, in the order of the file's inputs.

        Returns:
            Logits ``[batch, actions]``, or means and log standard deviations ``[batch, 2 size]``; and value ``[batch]``.
        """
        outputs = self._run(frames)
        return torch.from_numpy(_chosen(outputs)), torch.from_numpy(outputs["value"])

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        """The parts of an observation that the inputs of the file are."""
        kinds = {"tensor(float)": "vector", "tensor(uint8)": "mask"}
        return tuple(
            Part(entry.name, "image" if len(entry.shape) == 4 else kinds[entry.type], tuple(entry.shape[1:]))
            for entry in self._inputs
        )

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
        try:
            feed = unpack(self._parts, frames.numpy()) if frames.dim() == 3 else {self._inputs[0].name: frames.numpy()}
            feed |= {} if memory is None else {MEMORY: memory.numpy()}
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
