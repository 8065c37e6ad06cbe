"""What makes a policy of another package a file: made once, whole or not at all, with the words that the command needs."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latency_tables.errors import MissingExtraError

CARTPOLE, PENDULUM, BREAKOUT = "gym:CartPole-v1", "gym:Pendulum-v1", "minatar:breakout"
TMAZE = "gym:cosearch.testing.tmaze:TMaze-v0"


@dataclass(frozen=True)
class PolicyFile:
    """A policy as a user has it.

    Attributes:
        path: of its file.
        env: that it plays.
        words: further words of the command.
        about: network and origin of its weights, in words.
        budget: configuration of the two stages, where the task needs another one than the benchmark's own.
    """

    path: Path
    env: str
    words: tuple[str, ...]
    about: str
    budget: tuple[str, ...] = ()


def module(name: str, package: str) -> Any:
    """A module of another package.

    Args:
        name: of the module.
        package: that it comes with, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{package} cannot be imported ({error}): pip install {package}") from error


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """A file that is there already, or is made now; one that an earlier process left half is made again.

    Args:
        path: of the file.
        make: writes it at the path that it is given.
    """
    if not path.is_file():
        torch.set_num_threads(1)
        half = path.with_name(f"half-{path.name}")
        make(half)
        os.replace(half, path)
    return path


def write_onnx(path: Path, network: nn.Module, example: Any, inputs: list[str], outputs: list[str], **how: Any) -> None:
    """A network as an ONNX file, by torch's own exporter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), example, str(path), dynamo=False, opset_version=17, input_names=inputs, output_names=outputs, **how
        )
