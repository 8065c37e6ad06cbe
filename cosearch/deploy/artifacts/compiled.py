"""An exported agent as a library that TVM compiled for one target: it loads with TVM's runtime alone, without compiler or model.

Compiled as the models of a TVM table are, without tuning: schedules that were searched for would be another table's rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from cosearch.deploy.artifacts.agreement import compare_outputs, outputs_of
from latency_tables.board.compilers import compile_tvm
from latency_tables.board.library import LibraryRunner
from latency_tables.errors import MeasurementError, ParityError

TOLERANCE = 1e-4  # of an output from ONNX Runtime's, both in float32: as a share of the largest, or of 1 if that is larger
COMPARED = 64
TIMER_REPEATS = 15


@dataclass(frozen=True)
class Compiled:
    """A library.

    Attributes:
        library: content of the file.
        shape, element: of its one input: sizes with the batch, and dtype.
        names: of its outputs, in their order.
    """

    library: bytes
    shape: tuple[int, ...]
    element: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class LibraryParity:
    """A library beside the ONNX file, on this machine.

    Attributes:
        max_abs_difference: of any output.
        greedy_agreement: share of observations with the same best action.
        observations: how many.
        timer_p50_s: median of TVM's own timer, seconds.
    """

    max_abs_difference: float
    greedy_agreement: float
    observations: int
    timer_p50_s: float


def with_batch(model: bytes, batch: int) -> bytes:
    """An ONNX model whose free first dimension has this size.

    Args:
        model: serialized; its first dimension of inputs and outputs has a name.
        batch: at least 1.
    """
    proto = onnx.load_model_from_string(model)
    for value in (*proto.graph.input, *proto.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_value = batch
    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto).SerializeToString()


def compile_agent(
    model: bytes,
    folder: Path,
    *,
    threads: int,
    batch: int,
    target: Mapping[str, object] | None = None,
    compiler: str | None = None,
) -> Compiled:
    """Compile an exported agent and write ``agent.so``.

    Args:
        model: the float32 ONNX file.
        folder: gets the library.
        threads: cores that the code is made for.
        batch: observations in one call.
        target: TVM's description of the board; None for this processor.
        compiler: links the library for the board, such as ``aarch64-linux-gnu-g++``; None: the one of this machine.

    Raises:
        MissingExtraError: TVM is not installed.
        MeasurementError: TVM cannot compile the model or link the library.
    """
    fixed = with_batch(model, batch)
    made, feed = compile_tvm(fixed, threads=threads, target=target)
    path = folder / "agent.so"
    options: dict[str, object] = {}
    if compiler is not None:
        from tvm.support import cc

        options["fcompile"] = cc.cross_compiler(compiler)
    try:
        made.export_library(str(path), **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise MeasurementError(f"the library of the agent cannot be linked: {str(error)[-300:]}") from error
    names = tuple(output.name for output in onnx.load_model_from_string(fixed).graph.output)
    return Compiled(path.read_bytes(), feed.shape, feed.dtype.name, names)


def check_library(
    compiled: Compiled, model: bytes, frames: np.ndarray, *, threads: int, action_sizes: tuple[int, ...] = ()
) -> LibraryParity:
    """Compare a library with the ONNX file that it was made from, on this machine.

    Args:
        compiled: for this processor.
        model: the ONNX file.
        frames: real observations.
        threads: of the runtime.
        action_sizes: of several discrete actions, see ``compare_outputs``.

    Raises:
        ParityError: an output differs.
        MeasurementError: this machine cannot run the library.
    """
    batch, frames = compiled.shape[0], frames[:COMPARED]
    runner = LibraryRunner(compiled.library, compiled.shape, compiled.element, threads=threads)
    parts: list[list[np.ndarray]] = []
    for start in range(0, len(frames), batch):
        chunk = frames[start : start + batch]
        runner.bind(np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)]))
        parts.append(runner.outputs())
    ours = {
        name: values[0] if name == "log_std" else np.concatenate(values)[: len(frames)]
        for name, values in zip(compiled.names, zip(*parts))
    }
    reference = outputs_of(model, frames)
    found = compare_outputs(reference, ours, action_sizes)
    allowed = TOLERANCE * max(1.0, *(float(np.abs(values).max()) for values in reference.values()))
    if not found.max_abs_difference <= allowed:  # also true for NaN
        raise ParityError(
            f"TVM's library differs from ONNX Runtime by {found.max_abs_difference:.3g} (at most {allowed:.3g} is allowed) "
            f"over {len(frames)} observations; it is not deployed"
        )
    timer_s = float(np.median(runner.timer(number=3, repeat=TIMER_REPEATS)))
    return LibraryParity(found.max_abs_difference, found.greedy, len(frames), timer_s)


def described(target: Mapping[str, object] | None) -> str:
    """A target as JSON text; this processor's where none is given."""
    if target is None:
        import tvm

        target = {"kind": "llvm", "mcpu": str(tvm.target.codegen.llvm_get_system_cpu())}
    return json.dumps(target, sort_keys=True)
