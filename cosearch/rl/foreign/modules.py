"""A torch ``state_dict`` in safetensors, and the class that it belongs to: ``--module PACKAGE.MODULE:CLASS``.

The class is the user's own code, imported because the user names it. It is made without arguments (a function that returns the
module does as well) and called with a batch of observations as the task gives them: float32 vectors, or uint8 images with the
channels last, or as ``--layout`` says. It returns a tensor, a tuple of them, or a dictionary by name.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cosearch.rl.foreign.onnx_reader import policy_of_model
from cosearch.rl.foreign.understood import Policy, Said, TaskFacts
from latency_tables.errors import ConfigError, RequestError

OPSET = 17
OBSERVATION = "observation"


def read_state_dict(path: Path, task: TaskFacts, said: Said) -> Policy:
    """Read a policy from a ``state_dict`` and its class.

    Args:
        path: the ``.safetensors`` file.
        task: that it plays.
        said: names the class.

    Raises:
        RequestError: no class is named.
        ConfigError: class and weights do not fit each other, a weight is NaN, or it is no policy of the task.
    """
    if said.module is None:
        raise RequestError(f"{path} holds weights alone: say whose, --module PACKAGE.MODULE:CLASS")
    network = _made(said.module)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: cannot be read as safetensors: {' '.join(str(error).split())[:200]}") from error
    check_finite(path, weights)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: its weights are not those of {said.module}: {' '.join(str(error).split())[:400]}. Name the class that they "
            "were saved from, with the sizes that it had"
        ) from error
    names = _output_names(network, task)
    model = exported(path, network, task.frame_shape, names, layout=said.layout)
    return policy_of_model(path, model, task, said, f"torch state_dict of {said.module}")


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise where a weight is NaN.

    Args:
        path: for the message.
        weights: by name.

    Raises:
        ConfigError: one is.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and bool(weight.isnan().any()):
            raise ConfigError(
                f"{path}: the weight {name!r} {list(weight.shape)} has {int(weight.isnan().sum())} NaN: the training that made "
                "it had diverged; take an earlier checkpoint"
            )


def exported(
    path: Path, network: nn.Module, frame_shape: tuple[int, ...], names: list[str], *, layout: str | None = None
) -> onnx.ModelProto:
    """A network as an ONNX model for any batch size.

    Args:
        path: for messages.
        network: observations ``[batch, *frame_shape]`` -> outputs.
        frame_shape: of the task.
        names: of the outputs, in order.
        layout: ``channels_first``: the network takes images so.

    Raises:
        ConfigError: torch cannot export it.
    """
    shape = frame_shape if len(frame_shape) == 1 or layout != "channels_first" else (frame_shape[2], *frame_shape[:2])
    example = torch.zeros((2, *shape), dtype=torch.float32 if len(shape) == 1 else torch.uint8)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(),
                (example,),
                buffer,  # type: ignore[arg-type]  # the stub knows paths only; the tracing exporter takes any binary file
                dynamo=False,
                opset_version=OPSET,
                input_names=[OBSERVATION],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in (OBSERVATION, *names) if name != "log_std"},
            )
    except (RuntimeError, ValueError, TypeError, AttributeError, onnx.checker.ValidationError) as error:
        raise ConfigError(f"{path}: cannot be made an ONNX model: {' '.join(str(error).split())[:300]}") from error
    return onnx.load_model_from_string(buffer.getvalue())


def _made(where: str) -> nn.Module:
    module_name, colon, name = where.partition(":")
    if not colon:
        raise RequestError(f"--module must be PACKAGE.MODULE:CLASS, e.g. mypkg.nets:Policy, got {where!r}")
    try:
        maker = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise RequestError(
            f"--module {where}: there is no module {error.name!r} in {Path.cwd()} or among the installed packages. Go to its "
            "folder, or name that folder: PYTHONPATH=FOLDER before the command"
        ) from error
    except AttributeError as error:
        raise RequestError(f"--module {where}: {module_name} has no {name!r}") from error
    try:
        network = maker()
    except Exception as error:  # whatever the user's own code raises
        raise ConfigError(
            f"--module {where}: cannot be made without arguments: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"--module {where} gives {type(network).__name__}, expected a torch.nn.Module")
    return network


def _output_names(network: nn.Module, task: TaskFacts) -> list[str]:
    """Names of what the network returns: its own keys, or by position."""
    shape = task.frame_shape
    example = torch.zeros((2, *shape), dtype=torch.float32 if len(shape) == 1 else torch.uint8)
    with torch.no_grad():
        try:
            found = network.eval()(example)
        except Exception as error:  # whatever the user's own code raises
            raise ConfigError(
                f"the module cannot take observations {list(example.shape)} of {task.env} in {example.dtype}: "
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            ) from error
    if isinstance(found, Mapping):
        return [str(key) for key in found]
    return [f"output{i}" for i in range(len(found) if isinstance(found, (tuple, list)) else 1)]
