"""Readers of ONNX files and bundles for the fuzzer: each as a function of a folder for its file."""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_rule import Reader, of_file

Maker = Callable[[Path], Reader]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def onnx_agent(names: tuple[str, str], pixels: int, actions: int) -> Any:
    """An actor-critic of one layer, without an exporter: uint8 ``[batch, pixels / 4, 4, 1]`` -> two outputs."""
    from onnx import TensorProto, helper, numpy_helper

    shape = ["batch", pixels // 4, 4, 1]
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["real"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], [names[0]]),
        helper.make_node("MatMul", ["flat", "v"], [names[1]]),
    ]
    random, wide = np.random.default_rng(0), (actions, 1)
    weights = [random.normal(0, 0.1, (pixels, size)).astype(np.float32) for size in wide]
    constants = [numpy_helper.from_array(weight, name) for name, weight in zip(("w", "v"), weights, strict=True)]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in zip(names, wide, strict=True)
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)
    graph = helper.make_graph(nodes, "agent", [frames], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def onnx_teacher(folder: Path) -> Reader:
    """A user's own ONNX file as a teacher."""
    from onnx_teachers import onnx_network

    from cosearch.rl.teacher import find_teacher

    def read(path: Path) -> object:
        record = find_teacher(str(path), "e", outputs="logits", layout="channels_last")
        assert record is not None
        return record.further_sha256(), onnx_network(path, (4, 4, 1), 3, outputs="logits", layout="channels_last")

    return of_file(folder / "teacher.onnx", (onnx_agent(("logits", "value"), 16, 3).SerializeToString(),), read)


def exported(folder: Path) -> Reader:
    """``agent.onnx`` of a run, as it is played."""
    from cosearch.deploy.onnx_agent import OnnxAgent

    seed = onnx_agent(("logits", "value"), 16, 3).SerializeToString()
    return of_file(folder / "exported.onnx", (seed,), lambda path: OnnxAgent(path, threads=1))


def _contract() -> Any:
    from cosearch.deploy.bundle.contract import Contract

    return Contract(
        opset=13,
        input_name="frames",
        input_dtype="uint8",
        input_shape=("batch", 4, 4, 1),
        input_names=(),
        input_scaling="none",
        output_names=("logits", "value"),
        stored_outputs=("logits", "value"),
        rule="argmax",
        policy="categorical",
        action_names=("a", "b", "c"),
        period_s=0.02,
        tolerance=1e-3,
        environment="e",
        run="r",
        created_utc="",
        seed=0,
        network=("conv",),
        network_sha256="0",
        device="jetson",
        table_id="0",
        table_provenance="measured",
        latency_target_s=1.0,
        latency_predicted_s=0.5,
        versions={},
    )


def bundled_model(folder: Path) -> Reader:
    """The ONNX file of a bundle: its graph, its operators, and the contract inside."""
    from cosearch.deploy.bundle.contract import Contract
    from cosearch.deploy.bundle.graph import load, metadata_of, opset_of, with_actions, with_contract, with_opset, without_copies

    contract = _contract()

    def read(path: Path) -> object:
        model = without_copies(load(path.read_bytes(), path))
        inside = Contract.from_metadata(metadata_of(model), path)
        lowest = with_opset(model, None)
        return opset_of(lowest), with_actions(lowest, "greedy", inside)

    return of_file(folder / "agent.onnx", (with_contract(onnx_agent(("logits", "value"), 16, 3), contract),), read)


def _bundle(folder: Path) -> None:
    """A bundle as it lies on a device."""
    from cosearch.deploy.bundle.folder import stored_values
    from cosearch.deploy.bundle.graph import with_contract

    contract = _contract()
    (folder / "self_test").mkdir()
    content = with_contract(onnx_agent(("logits", "value"), 16, 3), contract)
    (folder / contract.model).write_bytes(content)
    (folder / "contract.json").write_bytes(_json(contract.to_json()))
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1), np.uint8)
    for name, values in stored_values(content, contract, {"observations": frames}).items():
        np.save(folder / "self_test" / f"{name}.npy", values)


def _on_the_device(folder: Path) -> tuple[Callable[[], object], type[Exception]]:
    """The bundle's own self-test, and its error."""
    from cosearch.deploy.bundle.folder import FILES

    _bundle(folder)
    sys.path.insert(0, str(FILES))
    program = importlib.import_module("run_agent")
    sys.path.remove(str(FILES))
    return (lambda: program.self_test(program.Agent(str(folder)))), program.AgentError


def contract(folder: Path) -> Reader:
    """``contract.json`` as ``deploy`` reads it."""
    from cosearch.deploy.bundle.stored import read_bundle

    (folder / "agent.onnx").write_bytes(b"")
    return of_file(folder / "contract.json", (_json(_contract().to_json()),), lambda path: read_bundle(folder))


def bundled_contract(folder: Path) -> Reader:
    """``contract.json`` as the bundle's own program reads it."""
    test, error = _on_the_device(folder)
    made = of_file(folder / "contract.json", ((folder / "contract.json").read_bytes(),), lambda path: test(), errors=(error,))
    return replace(made, name="device-contract.json")


def bundled_array(folder: Path) -> Reader:
    """A stored output as the bundle's own program reads it."""
    test, error = _on_the_device(folder)
    path = folder / "self_test" / "logits.npy"
    made = of_file(path, (path.read_bytes(),), lambda path: test(), errors=(error,))
    return replace(made, name="device-logits.npy")


def stored_array(folder: Path) -> Reader:
    """Stored observations, as ``export`` reads them."""
    from cosearch.deploy.bundle.stored import read_array

    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3), np.float32))
    return of_file(folder / "observations.npy", (buffer.getvalue(),), read_array)


MAKERS: dict[str, Maker] = {
    "teacher.onnx": onnx_teacher,
    "agent.onnx": bundled_model,
    "exported.onnx": exported,
    "contract.json": contract,
    "device-contract.json": bundled_contract,
    "device-logits.npy": bundled_array,
    "observations.npy": stored_array,
}
