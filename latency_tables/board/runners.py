"""Runs an ONNX model with ONNX Runtime the way it is deployed.

Telemetry is off before the runtime is imported, threads are explicit, idle threads do not spin. On the CPU a call is
``session.run`` with arrays, as the program of an agent calls it: bound inputs and outputs save some 6 us of Python and of
allocation, which no agent's user is spared. On other providers they are bound once, as copies to the device would be timed. A
provider that the runtime would replace by another is an error.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.board.temporary import temporary_folder
from latency_tables.errors import MeasurementError, MissingExtraError

if TYPE_CHECKING:
    from onnxruntime import IOBinding, SessionOptions

CPU = "CPUExecutionProvider"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
}


def import_onnxruntime() -> ModuleType:
    """The runtime, imported with its telemetry off.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"onnxruntime cannot be imported ({error}); install it with: pip install onnxruntime") from error
    return onnxruntime


def runtime_reason(error: Exception, letters: int = 300) -> str:
    """What the runtime says, at most about so many letters: it begins with the kind of its error and ends with the reason.

    Args:
        error: of the runtime; its classes have no root in common.
        letters: between the two, signatures of its own functions are left out.
    """
    text = " ".join(str(error).split())
    return text if len(text) <= letters else f"{text[: letters // 4]} ... {text[-(3 * letters) // 4 :]}"


class OnnxRunner:
    """A session with its inputs; calling it runs the model once.

    Args:
        model: serialized model, or the path of one.
        feed: arrays by input name; absent inputs are random (seed 0), with free dimensions set to ``batch``.
        threads: intra-op threads; inter-op is 1, execution sequential.
        provider: execution provider by name.
        nchw: keep the plain layout on x86 too, as the runtime does on Arm.
        batch: size of free dimensions.

    Attributes:
        graph: node types of the graph that the runtime made, and how often each occurs; empty on other providers than the CPU.

    Raises:
        MeasurementError: the runtime refuses the model or the provider.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        feed: Mapping[str, np.ndarray] | None = None,
        *,
        threads: int = 1,
        provider: str = CPU,
        nchw: bool = False,
        batch: int = 1,
    ) -> None:
        ort = import_onnxruntime()
        if provider not in ort.get_available_providers():
            raise MeasurementError(
                f"onnxruntime {ort.__version__} has no {provider} here; it has: {', '.join(ort.get_available_providers())}"
            )
        options = self._options(ort, threads, provider, nchw)
        with temporary_folder() as folder:
            optimized = folder / "optimized.onnx"
            if provider == CPU:  # the runtime refuses to write a graph that another provider has compiled
                options.optimized_model_filepath = str(optimized)
            try:
                source = bytes(model) if isinstance(model, (bytes, bytearray)) else str(model)
                self.session = ort.InferenceSession(source, options, providers=[provider])
                self.graph = op_histogram(optimized.read_bytes()) if optimized.exists() else {}
            except Exception as error:  # the runtime raises a dozen classes of its own without a common root
                raise MeasurementError(f"onnxruntime cannot load the model on {provider}: {runtime_reason(error)}") from error
        if self.session.get_providers()[0] != provider:
            raise MeasurementError(f"asked for {provider}, onnxruntime took {self.session.get_providers()[0]}")
        self.threads = threads
        self.feed = self._fill(dict(feed or {}), batch)
        self._binding = None if provider == CPU else self._bound()

    def _bound(self) -> IOBinding:
        binding = self.session.io_binding()
        for name, array in self.feed.items():
            binding.bind_cpu_input(name, array)
        for output in self.session.get_outputs():
            binding.bind_output(output.name, "cpu")
        return binding

    @staticmethod
    def _options(ort: ModuleType, threads: int, provider: str, nchw: bool) -> SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if nchw:
            options.add_session_config_entry("optimization.disable_specified_optimizers", "NchwcTransformer")
        return options

    def _fill(self, feed: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        arrays = {}
        for entry in self.session.get_inputs():
            dtype = TYPES.get(entry.type)
            shape = [size if isinstance(size, int) else batch for size in entry.shape]
            if entry.name in feed:
                arrays[entry.name] = np.ascontiguousarray(feed.pop(entry.name))
            elif dtype is None:
                raise MeasurementError(f"input {entry.name} has type {entry.type}; give an array for it in feed")
            elif np.issubdtype(dtype, np.integer):
                arrays[entry.name] = rng.integers(0, 127, shape).astype(dtype)
            else:
                arrays[entry.name] = rng.normal(0, 1, shape).astype(dtype)
        if feed:
            raise MeasurementError(f"the model has no input {', '.join(sorted(feed))}; it has {', '.join(arrays)}")
        return arrays

    def __call__(self) -> None:
        if self._binding is None:
            self.session.run(None, self.feed)
        else:
            self.session.run_with_iobinding(self._binding)

    def outputs(self) -> list[np.ndarray]:
        """The outputs of one run, copied."""
        if self._binding is None:
            return [np.array(value) for value in self.session.run(None, self.feed)]
        self()
        return [np.array(value) for value in self._binding.copy_outputs_to_cpu()]


def op_histogram(model: bytes) -> dict[str, int]:
    """Node types of a serialized ONNX model and how often each occurs, without the ``onnx`` package.

    Reads the protobuf wire format: field 7 of the model is the graph, its field 1 a node, field 4 of that its type.
    """
    counts: collections.Counter = collections.Counter()
    for graph in _fields(model, 7):
        for node in _fields(graph, 1):
            counts.update(name.decode() for name in _fields(node, 4))
    return dict(sorted(counts.items()))


def _fields(data: bytes, wanted: int) -> list[bytes]:
    values, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            if tag >> 3 == wanted:
                values.append(data[at : at + size])
            at += size
        else:
            at += 8 if kind == 1 else 4
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
