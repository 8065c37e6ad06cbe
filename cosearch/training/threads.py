"""Threads of torch's kernels."""

from __future__ import annotations

import os

import torch


def set_threads(count: int) -> None:
    """Threads of torch's kernels; 0: all cores."""
    torch.set_num_threads(count or os.cpu_count() or 1)
