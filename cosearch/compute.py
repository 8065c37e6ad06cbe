"""Where networks are trained: the torch device that a configuration asks for."""

from __future__ import annotations

import torch

from latency_tables.errors import ConfigError


def compute_device(name: str) -> torch.device:
    """The torch device of ``compute``.

    Args:
        name: ``cpu``, ``cuda``, or ``auto``: CUDA where there is a GPU.

    Raises:
        ConfigError: ``cuda`` where torch sees no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"compute=cuda needs a GPU that torch {torch.__version__} can use, and it sees none here: set compute=auto or "
            "compute=cpu, or install a build of torch with CUDA on a machine with a GPU"
        )
    return torch.device(name)
