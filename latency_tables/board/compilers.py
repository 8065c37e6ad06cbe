"""Further runtimes of the measuring core: torch (eager) and TVM (compiled for the target), both optional.

Both read the same ONNX models as ONNX Runtime, so that a table differs by its runtime and nothing else. Untuned TVM is
tens of times slower than ONNX Runtime on a CPU: its table is true for untuned TVM and for nothing else, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_tables.errors import MeasurementError, MissingExtraError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from tvm.runtime import Executable

INSTALL = {"torch": "pip install torch", "tvm": "pip install 'cosearch[tvm]'"}
ELEMENTS = {1: np.float32, 2: np.uint8}


def runtime_version(runtime: str) -> str:
    """Version of an optional runtime.

    Raises:
        MissingExtraError: it is not installed.
    """
    return str(_module(runtime).__version__)


def make_runner(runtime: str, model: bytes, *, threads: int) -> Callable[[], object]:
    """A callable that runs a float32 ONNX model once, with random inputs.

    Raises:
        MissingExtraError: the runtime is not installed.
        MeasurementError: it cannot run the model.
    """
    _module(runtime)
    return TorchRunner(model, threads=threads) if runtime == "torch" else TvmRunner(model, threads=threads)


def _module(runtime: str) -> ModuleType:
    try:
        if runtime == "torch":
            import torch

            return torch
        if runtime == "tvm":
            import tvm

            return tvm
    except ImportError as error:
        raise MissingExtraError(f"{runtime} cannot be imported ({error}); install it with: {INSTALL[runtime]}") from error
    raise MeasurementError(f"unknown runtime {runtime!r}; there are torch, tvm and onnxruntime")


def _parse(model: bytes) -> ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(f"onnx cannot be imported ({error}); install it with: pip install onnx") from error
    return onnx.load_model_from_string(model)


def _random_input(graph: GraphProto) -> np.ndarray:
    entry = graph.input[0].type.tensor_type
    shape, dtype = [d.dim_value for d in entry.shape.dim], ELEMENTS[entry.elem_type]
    rng = np.random.default_rng(0)
    return rng.integers(0, 127, shape).astype(dtype) if dtype is np.uint8 else rng.normal(0, 1, shape).astype(dtype)


class TorchRunner:
    """Runs the nodes of a model one after the other with torch's functions, as eager code does."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        import torch
        from onnx import helper, numpy_helper

        torch.set_num_threads(threads)
        self._torch = torch
        graph = _parse(model).graph
        self.graph: dict[str, int] = {}
        weights = {w.name: torch.from_numpy(np.array(numpy_helper.to_array(w))) for w in graph.initializer}
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._steps = []
        for node in graph.node:
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self.graph[node.op_type] = self.graph.get(node.op_type, 0) + 1
            self._steps.append((self._function(node.op_type, attributes), list(node.input), node.output[0]))
        self._values = {**weights, self._input: torch.from_numpy(_random_input(graph))}

    def _function(self, op_type: str, a: dict[str, Any]) -> Callable[..., object]:
        f, pads = self._torch.nn.functional, a.get("pads", (0, 0))[:2]
        functions = {
            "Conv": lambda x, w, b: f.conv2d(x, w, b, a["strides"], pads, a.get("dilations", 1), a["group"]),
            "Relu": f.relu,
            "Tanh": self._torch.tanh,
            "Concat": lambda *parts: self._torch.cat(parts, a["axis"]),
            "AveragePool": lambda x: f.avg_pool2d(x, a["kernel_shape"], a["strides"], pads, count_include_pad=False),
            "Add": self._torch.add,
            "Mul": self._torch.mul,
            "MaxPool": lambda x: f.max_pool2d(x, a["kernel_shape"], a["strides"], pads),
            "Gemm": f.linear,
            "Flatten": lambda x: x.flatten(1),
            "Transpose": lambda x: x.permute(*a["perm"]),
            "Cast": lambda x: x.float(),
        }
        if op_type not in functions:
            raise MeasurementError(
                f"the torch runner has no {op_type}; it runs float32 models of latency_tables.onnx_models.blocks"
            )
        return functions[op_type]

    def __call__(self) -> object:
        values = dict(self._values)
        with self._torch.inference_mode():
            for function, inputs, output in self._steps:
                values[output] = function(*[values[name] for name in inputs])
        return values[self._output]


def tvm_modules() -> tuple[ModuleType, ModuleType]:
    """``tvm`` and ``tvm.relax``.

    Raises:
        MissingExtraError: TVM is not installed.
    """
    tvm = _module("tvm")
    from tvm import relax, rpc  # noqa: F401 - the second one registers itself as tvm.rpc

    return tvm, relax


def compile_tvm(model: bytes, *, threads: int, target: Mapping[str, object] | None = None) -> tuple[Executable, np.ndarray]:
    """An ONNX model compiled by TVM's Relax pipeline, without tuning, and a random input for it.

    Args:
        model: serialized ONNX model with one input of a fixed shape.
        threads: cores that the generated code is made for.
        target: TVM's description of the board, as JSON; this processor by default.

    Raises:
        MissingExtraError: TVM is not installed.
        MeasurementError: it cannot compile the model.
    """
    tvm, _ = tvm_modules()
    from tvm.relax.frontend.onnx import from_onnx

    try:
        parsed = _parse(model)
        feed = _random_input(parsed.graph)
        described = target or {"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()}
        module = from_onnx(parsed, keep_params_in_input=False)
        compiled = tvm.compile(module, target=tvm.target.Target({"num-cores": threads, **described}))
    except MissingExtraError:
        raise
    except Exception as error:  # neither TVM's errors nor those of damaged models have a common root
        raise MeasurementError(f"TVM cannot compile the model: {str(error)[-300:]}") from error
    return compiled, feed


class TvmRunner:
    """A model compiled for this processor; calling it runs the model once."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        os.environ["TVM_NUM_THREADS"] = str(threads)
        os.environ.setdefault("TVM_BIND_THREADS", "0")  # the measuring core has pinned itself already
        tvm, relax = tvm_modules()
        compiled, feed = compile_tvm(model, threads=threads)
        self._machine = relax.VirtualMachine(compiled, tvm.cpu())
        self._machine.set_input("main", tvm.runtime.tensor(feed))
        self.graph: dict[str, int] = {}

    def __call__(self) -> None:
        self._machine.invoke_stateful("main")

    def outputs(self) -> list[np.ndarray]:
        """The outputs of one run."""
        self()
        values = self._machine.get_outputs("main")
        return [value.numpy() for value in (values if isinstance(values, (list, tuple)) else [values])]
