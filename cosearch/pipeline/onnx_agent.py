"""An exported agent, run by onnxruntime as a board would run it."""
from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor


class OnnxAgent:
    """A callable like a network: frames in, logits and value out.

    Args:
        path: of ``agent.onnx``.
        threads: CPU threads; 0 for all cores.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it is on by default
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or (os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[batch, height, width, channels]``, uint8 -> logits ``[batch, actions]`` and value ``[batch]``."""
        logits, value = self._session.run(["logits", "value"], {"frames": frames.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(value)
