"""An ONNX file as bytes that can be trusted to be one: size, structure, external data, operators and weights are checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from latency_tables.board.runners import runtime_reason
from latency_tables.errors import ConfigError

MOST_BYTES = 2**31 - 1  # of a protobuf, and so of an ONNX file with its weights inside
STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # domains whose operators ONNX Runtime has
PRODUCERS = {"pytorch": "torch.onnx", "skl2onnx": "skl2onnx", "tf2onnx": "tf2onnx"}


def load_model(path: Path) -> onnx.ModelProto:
    """The model with all its weights, those of files beside it too.

    Args:
        path: of the ONNX file.

    Raises:
        ConfigError: there is no such file, it is too large, is no ONNX file, lacks a file beside it, needs an operator that ONNX
            Runtime does not have, or a weight is NaN or damaged.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    _check_size(path, path.stat().st_size)
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has error classes of its own, which share no root with Python's
        raise ConfigError(
            f"{path}: cannot be loaded as ONNX, {len(content)} bytes that begin with {content[:8]!r}: {runtime_reason(error)}. "
            "It is cut off or of another kind; export it again"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise ConfigError(f"{path}: expected an ONNX model, got a file without operators or outputs; export it again")
    beside = external_names(model)
    if beside:
        _check_size(path, len(content) + sum(_size_beside(path, name) for name in beside))
        try:
            onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ConfigError(f"{path}: its weights in {', '.join(beside)} cannot be read: {runtime_reason(error)}") from error
    _check_operators(path, model)
    _check_weights(path, model.graph)
    return model


def external_files(path: Path) -> list[str]:
    """Names of the files beside an ONNX file in which its larger tensors lie, as it names them; none where all lie inside.

    Raises:
        ConfigError: the file cannot be read as ONNX.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has error classes of its own, which share no root with Python's
        raise ConfigError(f"{path}: cannot be read as an ONNX teacher: {runtime_reason(error)}") from error
    return external_names(model)


def external_names(model: onnx.ModelProto) -> list[str]:
    """Names of the files in which tensors of a model lie, as it names them."""
    return sorted({entry.value for tensor in _tensors(model.graph) for entry in tensor.external_data if entry.key == "location"})


def producer(model: onnx.ModelProto) -> str:
    """What wrote the file, as it says."""
    name = model.producer_name
    return f"ONNX, written by {PRODUCERS.get(name, name)} {model.producer_version}".rstrip() if name else "ONNX"


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph, and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph: initialisers, constants, and those of the graphs inside its nodes."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _check_size(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise ConfigError(
            f"{path}: {size / 1e9:.2f} GB with its weights, at most {MOST_BYTES / 1e9:.2f} GB can be read. A policy of this size "
            "is not what this command is for; is it the right file?"
        )


def _size_beside(path: Path, name: str) -> int:
    beside = path.parent / name
    if not beside.is_file():
        raise ConfigError(f"{path}: its weights lie in {beside.name}, which is not beside it; copy both files into one folder")
    return beside.stat().st_size


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    known = {*STANDARD, *(function.domain for function in model.functions)}
    others = sorted({f"{node.domain}::{node.op_type}" for node in nodes_of(model.graph) if node.domain not in known})
    if others:
        raise ConfigError(
            f"{path}: needs the custom operator{'s' * (len(others) > 1)} {', '.join(others)}, expected the standard ones of "
            "ONNX, which ONNX Runtime has on every board. Export it again with that part written in standard operators"
        )


def _check_weights(path: Path, graph: onnx.GraphProto) -> None:
    for tensor in _tensors(graph):
        if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            continue
        try:
            array = onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path}: the weight {tensor.name!r} has the shape {list(tensor.dims)} and other numbers than that: {error}. The "
                "file is damaged; export it again"
            ) from error
        if np.isnan(array).any():
            raise ConfigError(
                f"{path}: the weight {tensor.name!r} {list(array.shape)} has {int(np.isnan(array).sum())} NaN: the training that "
                "made it had diverged; take an earlier checkpoint"
            )
