"""Writes the bundle, ``runs/NAME/agent/``, from the files of a finished run: whole or not at all."""

from __future__ import annotations

import importlib.machinery
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cosearch.deploy.bundle.contract import CHANNELS_FIRST, Contract
from cosearch.deploy.bundle.description import describe
from cosearch.deploy.bundle.graph import (
    ACTION,
    NOISE,
    POLICY,
    bounds,
    check_actions,
    load,
    noise_size,
    obs_to_actions,
    opset_of,
    with_actions,
    with_channels_first,
    with_contract,
    with_given_inputs,
    with_opset,
    without_copies,
)
from cosearch.deploy.bundle.stored import read_array, read_bundle
from cosearch.deploy.player import read_rule
from cosearch.record.durable import one_clear_error, sync_folder, write_bytes_atomic
from cosearch.record.results.agent import AgentRecord
from cosearch.record.rundir import RunDir
from cosearch.space.parts import pack, unpack
from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import RunFolderError
from latency_tables.text.writing import make_folder

BUNDLE = "agent"
STORED = 64
BEGINS = "begins"  # of the stored observations of an agent with a memory: which are the first of an episode
RUNNER, IN_CPP = "run_agent.py", "agent.cpp"
WITHOUT_MEMORY = ("ros2_node.py", "trtexec.sh")  # programs that carry none, or never clear it
OBSERVATIONS, INPUT = "observations", "input_"  # names of stored observations: one array, or one for each part
FILES = Path(__file__).with_name("files")


@dataclass(frozen=True)
class BundleOptions:
    """What can be chosen of a bundle.

    Attributes:
        opset: of the ONNX file; None: the lowest that its graph needs.
        actions: where the action is chosen: ``outside`` of the file, or inside, ``greedy`` or ``sampled``.
    """

    opset: int | None = None
    actions: str = "outside"


AS_EXPORTED = BundleOptions()


def check_options(run: RunDir, options: BundleOptions) -> None:
    """Try the options on the exported file that is there, before a new export spends minutes.

    Args:
        run: with or without ``agent.onnx``.
        options: of its next bundle.

    Raises:
        RequestError: there is no such choice of actions for the agent, or it cannot have that opset.
        RunFolderError: ``agent.onnx`` or ``agent.json`` is damaged.
    """
    described = run.path / AgentRecord.FILE
    check_actions(options.actions, read_rule(described).rule if described.is_file() else "")
    source = run.path / "agent.onnx"
    if source.is_file() and options.opset is not None:
        with_opset(without_copies(load(source.read_bytes(), source)), options.opset)


def open_bundle(run: RunDir) -> tuple[Contract, bytes]:
    """The contract and the model of a run's bundle, once it is certain that the bundle is this run's and that its code is ours.

    A bundle is copied to a device and its runner is started there and here: from a folder that somebody else made that would be
    somebody else's code. So each file that Python could run has to be the one that this version writes.

    Args:
        run: with a bundle.

    Raises:
        RunFolderError: there is no bundle, it was made of another agent, or it holds code that this version does not write.
    """
    folder = run.path / BUNDLE
    path, again = folder / Contract.FILE, f"`cosearch export {run.path}` writes it again"
    if not path.is_file():
        raise RunFolderError(f"{run.path} has no bundle yet: `cosearch export {run.path}` writes {folder}")
    contract, model = read_bundle(folder)
    deployed = run.read(AgentRecord).deployed_sha256
    if contract.network_sha256 != deployed:
        raise RunFolderError(
            f"{folder} was made of another agent than {AgentRecord.FILE} describes (SHA-256 {contract.network_sha256[:12]} in "
            f"it, {deployed[:12]} in the record): {again}"
        )
    _check_code(folder, again)
    return contract, model


def _check_code(folder: Path, again: str) -> None:
    """Raise where a bundle holds a file that Python would run and this version does not write, or another one than it writes."""
    for path in sorted(folder.iterdir()):
        ours = FILES / path.name
        if path.is_dir() and path.name not in ("self_test", "__pycache__"):
            raise RunFolderError(f"{path} is no part of a bundle, and Python would find code in it: move it away")
        if path.is_file() and path.suffix in importlib.machinery.all_suffixes():
            if not ours.is_file():
                raise RunFolderError(f"{path} is no part of a bundle, and Python would run it: move it away")
            if path.read_bytes() != ours.read_bytes():
                raise RunFolderError(
                    f"{path} is not the program that this version of cosearch writes, and it would be run: {again}"
                )


def rewrite_bundle(run: RunDir, options: BundleOptions) -> Path:
    """Write a run's bundle again with other options, and the observations that it has stored.

    Args:
        run: with a bundle.
        options: of the new one.

    Returns:
        The folder.

    Raises:
        RequestError: the agent cannot have that opset.
        RunFolderError: the stored observations are damaged.
        RunFailedError: the disk refuses a file.
    """
    folder, (rule, begins) = run.path / BUNDLE / "self_test", (describe(run), None)
    if rule.inputs:
        parts = read_rule(run.path / AgentRecord.FILE).parts
        values = {part.name: part.taken(read_array(folder / f"{INPUT}{part.name}.npy")) for part in parts}
        return write_bundle(run, pack(parts, values), options)
    stored = read_array(folder / "observations.npy")
    if rule.memory_input:
        begins = read_array(folder / f"{BEGINS}.npy").astype(np.bool_)[:, None]
    turned = rule.environment_layout == CHANNELS_FIRST
    return write_bundle(run, np.moveaxis(stored, 1, -1) if turned else stored, options, begins=begins)


def write_bundle(
    run: RunDir, observations: np.ndarray, options: BundleOptions = AS_EXPORTED, *, begins: np.ndarray | None = None
) -> Path:
    """Write the bundle of a finished run; an older one is replaced when the new one is complete.

    Args:
        run: has ``agent.onnx``, ``agent.json``, ``run.json`` and ``summary.json``.
        observations: real ones, ``[observations, *frame_shape]``; 64 of them are stored, in the environment's own layout, with
            what the file makes of them; of several parts each part.
        options: opset of the file, and where the action is chosen.
        begins: of an agent with a memory: ``[time, envs]``, bool, which of the observations, then ``[time * envs,
            *frame_shape]``, are the first of an episode; the first 64 steps of one environment are stored. None: it has none.

    Returns:
        The folder.

    Raises:
        RunFolderError: a file of the run is missing or damaged.
        RequestError: the agent cannot have that opset, or there is no such choice of actions.
        RunFailedError: the disk refuses a file.
    """
    artifact = run.read(AgentRecord).artifact
    named = "agent.onnx" if artifact is None else artifact.file
    source = run.path / (artifact.source if artifact is not None and artifact.runtime == "tvm" else named)
    if not source.is_file():
        raise RunFolderError(f"{run.path} has no {source.name} yet: `cosearch resume {run.path}` goes on to the export")
    rule = describe(run)
    exported = without_copies(load(source.read_bytes(), source))
    if rule.environment_layout == CHANNELS_FIRST:
        exported, observations = with_channels_first(exported), np.moveaxis(observations, -1, 1)
    model = with_opset(with_actions(with_given_inputs(exported, rule.inputs), options.actions, rule), options.opset)
    contract = _completed(rule, opset_of(model), tuple(output.name for output in model.graph.output), options)
    content = with_contract(model, contract)
    files = {contract.model: content, Contract.FILE: (json.dumps(contract.to_json(), indent=1) + "\n").encode()}
    if contract.policy == "gaussian" and len(contract.input_shape) == 2 and not contract.memory_input and not contract.inputs:
        files[POLICY] = obs_to_actions(exported, rule)
    if contract.memory_input:
        flags = np.zeros((len(observations), 1), np.bool_) if begins is None else begins
        stored = stored_episode(content, contract, observations[:: flags.shape[1]][:STORED], flags[:STORED, 0])
    else:
        chosen = observations[:: max(1, len(observations) // STORED)][:STORED]
        seen = {OBSERVATIONS: chosen}
        if contract.inputs:
            parts = read_rule(run.path / AgentRecord.FILE).parts
            apart = unpack(parts, chosen)
            seen = {f"{INPUT}{part.name}": part.given(apart[part.name]) for part in parts}
        stored = stored_values(content, contract, seen)
    for name, values in stored.items():
        files[f"self_test/{name}.npy"] = _npy(values)
    programs = [RUNNER]
    if not contract.inputs and not contract.action_sizes:  # more than one of either is what the others do not know
        programs += [IN_CPP, *([] if contract.memory_input else WITHOUT_MEMORY)]
    files |= {name: (FILES / name).read_bytes() for name in programs}
    return _write(run.path, files)


def _completed(rule: Contract, opset: int, names: tuple[str, ...], options: BundleOptions) -> Contract:
    discrete, sampled = rule.policy != "gaussian", options.actions == "sampled"
    return replace(
        rule,
        opset=opset,
        output_names=names,
        stored_outputs=tuple(name for name in names if name != ACTION or not discrete),
        action_output=ACTION if ACTION in names else "",
        noise_input=NOISE if sampled else "",
        noise_size=noise_size(rule) if sampled else 0,
    )


def stored_values(
    model: bytes, contract: Contract, observations: Mapping[str, np.ndarray], memory: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What the self-test compares: observations, the file's outputs for each (with zeros as noise), and greedy actions.

    Args:
        model: the bundle's file.
        contract: of it.
        observations: ``[observations, ...]`` as ``observations``, as the contract's ``input_shape`` says; of several parts each
            as ``input_`` and its name.
        memory: ``[observations, size]``, of an agent that has one.

    Returns:
        The observations, ``actions`` and each of ``contract.stored_outputs``, ``[observations, ...]``.
    """
    session = OnnxRunner(model, threads=contract.threads).session
    feed = {part.name: np.ascontiguousarray(observations[f"{INPUT}{part.name}"]) for part in contract.inputs}
    feed = feed or {contract.input_name: np.ascontiguousarray(observations[OBSERVATIONS])}
    if contract.noise_input:
        count = len(next(iter(observations.values())))
        feed[contract.noise_input] = np.zeros((count, contract.noise_size), np.float32)
    if memory is not None:
        feed[contract.memory_input] = memory
    found: dict[str, np.ndarray] = dict(zip(contract.output_names, session.run(list(contract.output_names), feed)))
    if "log_std" in found:
        found["log_std"] = np.broadcast_to(found["log_std"], found["mean"].shape).copy()
    stored = {name: found[name] for name in contract.stored_outputs}
    return {**observations, "actions": _greedy(found, contract), **stored}


def stored_episode(model: bytes, contract: Contract, observations: np.ndarray, begins: np.ndarray) -> dict[str, np.ndarray]:
    """As :func:`stored_values`, of an agent with a memory: step by step, from a cleared memory.

    Args:
        model, contract: see there.
        observations: ``[time, ...]``, of one environment.
        begins: ``[time]``, bool: the step is the first of an episode.

    Returns:
        What :func:`stored_values` returns, and ``begins``, uint8.
    """
    initial = np.array([contract.memory_initial], np.float32)
    memory, rows = initial, []
    for observation, begin in zip(observations, begins):
        memory = initial if begin else memory
        rows.append(stored_values(model, contract, {OBSERVATIONS: observation[None]}, memory))
        memory = rows[-1][contract.memory_output]
    return {BEGINS: begins.astype(np.uint8), **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]}}


def _greedy(found: dict[str, np.ndarray], contract: Contract) -> np.ndarray:
    if contract.action_sizes:
        factors = np.split(found["logits"], np.cumsum(contract.action_sizes)[:-1], axis=1)
        return np.stack([factor.argmax(axis=1) for factor in factors], axis=1)
    if contract.policy == "categorical":
        return found["logits"].argmax(axis=1) + contract.first_action
    scale, shift = np.array(contract.action_scale), np.array(contract.action_shift)
    return np.clip(scale * found["mean"].astype(np.float64) + shift, *bounds(contract)).astype(np.float32)


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def _write(parent: Path, files: dict[str, bytes]) -> Path:
    folder, draft = parent / BUNDLE, parent / f".{BUNDLE}.draft"
    with one_clear_error(folder):
        shutil.rmtree(draft, ignore_errors=True)
        make_folder(draft / "self_test")
        for name, content in files.items():
            write_bytes_atomic(draft / name, content)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        sync_folder(parent)
    return folder
