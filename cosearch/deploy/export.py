"""From a trained network to ``agent.onnx``: one file with the preprocessing inside, and the proof that it is the same agent.

The gate runs the exported file in ONNX Runtime on real observations, in batches of several sizes, beside the network in
torch: policy outputs and values within a tolerance, the same greedy action everywhere (of a Gaussian policy that is the mean,
and the tolerance says all). Statistics of vector observations are folded into the first layer, so that the agent takes raw
observations; the gate compares with the network that still has them apart. A file that fails is never left behind.
An agent with a memory takes it as a second input, ``memory``, and gives the next one, ``next_memory``; the gate plays whole
episodes, the memory carried from step to step and cleared where an episode begins, and compares the memory, too.
The exporter is torch's tracing one: a chain of blocks has no control flow, the result is one file of IR 8 that old runtimes on
boards read, and it needs no further package.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from cosearch.deploy.in_time import in_onnxruntime, in_torch
from cosearch.deploy.onnx_agent import with_spread
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.results.agent import MemoryRecord, ParityRecord, TensorRecord
from cosearch.space.blocks.memory import Memories, remembering
from cosearch.space.ends import FORBIDDEN, WHOLE
from cosearch.space.network import AgentNetwork
from cosearch.space.parts import Part, unpack
from latency_tables.board.runners import OnnxRunner, runtime_reason
from latency_tables.errors import MeasurementError, ParityError, RunFailedError, ShapeError
from latency_tables.text.writing import remove

MEMORY, NEXT_MEMORY = "memory", "next_memory"
OPSET = 17
TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 7, 64)
REFERENCE_BATCH = 128
PREPROCESSING = {
    "frames": "inside the graph: uint8 NHWC frames, scaled by 1/255",
    "observations": "inside the graph: raw float32 observations; their running normalisation is folded into the first layer, "
    "its mean kept apart where float32 would lose it",
    "parts": "inside the graph: images scaled by 1/255, vectors raw, their running normalisation folded into their first layer; "
    "logits of actions that action_mask forbids (0) become -1e8",
}


@dataclass(frozen=True)
class Export:
    """What is known of an exported file.

    Attributes:
        parity: comparison with the network.
        inputs, outputs: as the file declares them.
        preprocessing: what it does to an observation, in words.
        memory: what it carries from one observation to the next; None: nothing.
    """

    parity: ParityRecord
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    preprocessing: str
    memory: MemoryRecord | None = None


def export_agent(
    network: nn.Module, folder: Path, frames: np.ndarray, begins: np.ndarray | None = None, action_sizes: tuple[int, ...] = ()
) -> Export:
    """Write ``agent.onnx`` into a folder, after the file has passed the gate.

    The network is copied first: its weights, memory format, device and mode stay as they are.

    Args:
        network: uint8 frames ``[batch, height, width, channels]``, float32 vectors ``[batch, features]`` or packed parts
            ``[batch, 1, bytes]`` -> policy outputs ``[batch, outputs]``, value ``[batch]``. An ``AgentNetwork`` says itself
            whether its policy is Gaussian; any other module has logits.
        folder: an existing folder; an older agent in it is removed first, and its ``agent.json``.
        frames: real observations, as the network takes them.
        begins: of a network with a memory, see :func:`check_parity`.
        action_sizes: of several discrete actions, see there.

    Raises:
        ParityError: the file differs from the network; no ``agent.onnx`` is left.
        RunFailedError: the network cannot be exported, or the disk is full.
        ShapeError: the frames are not such observations.
    """
    check_frames(frames)
    agent = folder / "agent.onnx"
    remove(agent)
    remove(folder / "agent.json")
    model = to_onnx(network, frames.shape[1:])
    parity = check_parity(network, model, frames, begins, action_sizes=action_sizes)
    inputs, outputs = declared_interface(model)
    write_bytes_atomic(agent, model)
    size = memory_size(network)
    memory = MemoryRecord(input=MEMORY, output=NEXT_MEMORY, initial=(0.0,) * size) if size else None
    return Export(parity, inputs, outputs, PREPROCESSING[input_name(frames.shape[1:])], memory)


def to_onnx(network: nn.Module, frame_shape: tuple[int, ...]) -> bytes:
    """The network as a checked ONNX model for any batch size.

    Its input is ``frames`` (images) or ``observations`` (vectors), or there is one for each part of an observation; its outputs
    are ``logits`` and ``value``, or for a Gaussian policy ``mean``, ``log_std`` (one for each component, whatever the batch) and
    ``value``. A network with a memory has the further input ``memory`` and the further output ``next_memory``,
    ``[batch, memory_size]`` both.

    Args:
        network: as for :func:`export_agent`; not altered.
        frame_shape: ``(height, width, channels)``, ``(features,)`` or ``(1, bytes)``.

    Returns:
        The serialized model, the same bytes for the same network.

    Raises:
        RunFailedError: torch cannot export the network, or what it made is not valid.
    """
    dtype = torch.uint8 if len(frame_shape) == 3 else torch.float32
    examples = [torch.zeros((2, *frame_shape), dtype=dtype)]  # 2: a batch of 1 may be taken for a constant
    read, plain = [input_name(frame_shape)], plain_copy(network)
    traced: nn.Module = plain
    if isinstance(plain, AgentNetwork):
        plain.fold()
        apart = _is_gaussian(plain) or plain.ends.parts or plain.memory_size
        traced = _Apart(plain) if apart else plain
        if plain.ends.parts:
            read = [part.name for part in plain.ends.parts]
            examples = [torch.ones((2, *part.shape), dtype=getattr(torch, part.dtype)) for part in plain.ends.parts]
    outputs = ("mean", "log_std", "value") if _is_gaussian(plain) else ("logits", "value")
    size = memory_size(plain)
    if size:
        outputs = (*outputs, NEXT_MEMORY)
        read.append(MEMORY)
        examples.append(torch.zeros(2, size))
    batched = {name: {0: "batch"} for name in (*read, *outputs) if name != "log_std"}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore", DeprecationWarning)  # the tracing exporter is chosen on purpose
            warnings.filterwarnings("ignore", module=r"torch\.(onnx|jit)\b.*")
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # the gate tests what the tracer warns of
            torch.onnx.export(
                traced,
                tuple(examples),
                buffer,  # type: ignore[arg-type]  # the stub knows paths only; the tracing exporter takes any binary file
                dynamo=False,
                opset_version=OPSET,
                input_names=read,
                output_names=list(outputs),
                dynamic_axes=batched,
            )
        model = buffer.getvalue()
        onnx.checker.check_model(model, full_check=True)
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RunFailedError(f"the network cannot be exported as ONNX (opset {OPSET}): {runtime_reason(error)}") from error
    return model


class _Apart(nn.Module):
    """A network with inputs and outputs as the file has them: each part of an observation apart; mean and log standard deviation
    of a Gaussian policy apart, as the second is no function of the input; and the memory and the next one."""

    def __init__(self, network: AgentNetwork) -> None:
        super().__init__()
        self.network = network
        self.names = [part.name for part in network.ends.parts] or [WHOLE]

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        network, observed = self.network, dict(zip(self.names, values))
        memories = Memories(remembering(network), values[-1], None) if network.memory_size else None
        outputs = network.outputs(observed, memories)
        chosen, value = network.ends.leave(outputs, observed)
        spread = (network.ends.bounded(outputs[:, :-1]), network.ends.log_std) if _is_gaussian(network) else (chosen,)
        return (*spread, value, *(() if memories is None else (memories.vector,)))


def memory_size(network: nn.Module) -> int:
    """How many numbers a network keeps from one observation to the next; 0: it has no memory."""
    return network.memory_size if isinstance(network, AgentNetwork) else 0


def input_name(frame_shape: tuple[int, ...]) -> str:
    """``frames`` for images, ``observations`` for vectors, ``parts`` where each part is an input of its own."""
    return {3: "frames", 2: "parts"}.get(len(frame_shape), "observations")


def _is_gaussian(network: nn.Module) -> bool:
    return isinstance(network, AgentNetwork) and network.ends.policy == "gaussian"


def check_parity(
    network: nn.Module,
    model: bytes,
    frames: np.ndarray,
    begins: np.ndarray | None = None,
    *,
    action_sizes: tuple[int, ...] = (),
    tolerance: float = TOLERANCE,
) -> ParityRecord:
    """Compare an ONNX model with the network it was made from, on every observation.

    A greedy action may differ only where float32 cannot tell the two actions apart: where their logits in float64 are closer
    than the network's own float32 rounding. Such observations are counted as ``rounding_ties``.

    Args:
        network: the network; not altered.
        model: serialized model.
        frames: observations, as the network takes them; of a network with a memory in the order of time,
            ``[time * envs, *frame_shape]``.
        begins: ``[time, envs]``, bool: the step is the first of an episode; None: all are steps of one episode. Only for a
            network with a memory.
        action_sizes: numbers of logits of several discrete actions, each of which is compared; empty: they are of one.
        tolerance: largest difference of any logit, mean, log standard deviation or value, relative to the largest of the
            network's own where that is above 1.

    Raises:
        ParityError: they differ, or one of them is not finite.
        ShapeError: the frames are not such observations, or ``action_sizes`` are not those of several discrete actions.
    """
    check_frames(frames)
    plain = plain_copy(network)
    size = memory_size(plain)
    if size and begins is None:
        begins = np.zeros((len(frames), 1), np.bool_)
    logits, value, *kept = _in_torch(plain, frames) if begins is None else in_torch(plain, frames, begins)
    for name, array in zip(("means" if _is_gaussian(plain) else "logits", "value", "memory"), (logits, value, *kept)):
        if not np.isfinite(array).all():
            raise ParityError(
                f"the network's {name} are NaN or infinite on {_bad_rows(array)} of {len(frames)} observations; "
                "an agent without finite outputs is not exported. Look at the loss in metrics.jsonl"
            )
    if begins is None:
        parts = plain.ends.parts if isinstance(plain, AgentNetwork) else ()
        their_logits, their_value, sizes = _in_onnxruntime(model, frames, parts)
        their_kept: list[np.ndarray] = []
    else:
        (their_logits, their_value, *their_kept), sizes = in_onnxruntime(model, frames, begins, size)
    if their_logits.shape != logits.shape or their_value.shape != value.shape:
        raise ParityError(
            f"the exported file gives outputs {list(their_logits.shape)} and value {list(their_value.shape)}, "
            f"the network {list(logits.shape)} and {list(value.shape)}"
        )
    wanted = logits.shape[1] if isinstance(plain, AgentNetwork) and plain.ends.policy == "multi_categorical" else 0
    if sum(action_sizes) != wanted:
        raise ShapeError(f"action_sizes must add up to the {wanted} logits of several discrete actions, got {action_sizes}")
    forbidden = logits <= FORBIDDEN / 2
    if not np.array_equal(forbidden, their_logits <= FORBIDDEN / 2):
        raise ParityError(f"the exported file forbids other actions than the network over {len(frames)} observations")
    logits, their_logits = np.where(forbidden, 0.0, logits), np.where(forbidden, 0.0, their_logits)
    difference, magnitude = 0.0, 1.0
    for ours, theirs in zip((logits, value, *kept), (their_logits, their_value, *their_kept), strict=True):
        apart, largest = float(np.abs(theirs - ours).max()), max(1.0, float(np.abs(ours).max()))
        if not apart <= tolerance * largest:  # also true for NaN
            raise ParityError(
                f"the exported file differs from the network by {apart:.3g} (at most {tolerance * largest:.3g} is allowed: "
                f"{tolerance:g} of the largest output) over {len(frames)} observations; no agent was written"
            )
        difference, magnitude = max(difference, apart), max(magnitude, largest)
    logits, their_logits = np.where(forbidden, FORBIDDEN, logits), np.where(forbidden, FORBIDDEN, their_logits)
    sides = zip(_factors(logits, action_sizes), _factors(their_logits, action_sizes))
    differs = np.any([ours.argmax(1) != theirs.argmax(1) for ours, theirs in sides], axis=0)
    flipped = [] if _is_gaussian(plain) else np.flatnonzero(differs).tolist()
    exact = _exact(plain, frames, begins, flipped)
    wrong = [i for i in flipped if not _is_rounding(exact[i], logits[i], their_logits[i], action_sizes)]
    if wrong:
        raise ParityError(
            f"the exported file takes another greedy action than the network on {len(wrong)} of {len(frames)} "
            f"observations, first on number {wrong[0]}; no agent was written"
        )
    return ParityRecord(
        max_abs_difference=difference,
        greedy_agreement=1.0 - len(flipped) / len(frames),
        rounding_ties=len(flipped),
        observations=len(frames),
        tolerance=tolerance,
        magnitude=magnitude,
        batch_sizes=sizes,
        opset=opset_of(model),
        episodes=0 if begins is None else int(begins.sum()),
        bytes=len(model),
        sha256=hashlib.sha256(model).hexdigest(),
    )


def check_frames(frames: np.ndarray) -> None:
    """Raise unless these are observations, at least one: images ``[observations, height, width, channels]``, uint8, or vectors
    ``[observations, features]``, float32, or packed parts ``[observations, 1, bytes]``, uint8.

    Raises:
        ShapeError: another dtype, another number of dimensions, or none at all.
    """
    forms = {(np.dtype(np.uint8), 4), (np.dtype(np.uint8), 3), (np.dtype(np.float32), 2)}
    known = isinstance(frames, np.ndarray) and (frames.dtype, frames.ndim) in forms and frames.size > 0
    if not known or (frames.ndim == 3 and frames.shape[1] != 1):
        got = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise ShapeError(
            "the gate needs observations [observations, height, width, channels] in uint8, or "
            f"[observations, features] in float32, at least one, got {got}"
        )


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy on the CPU in float32, contiguous, in evaluation mode; the network itself stays as it is."""
    plain = copy.deepcopy(network).to("cpu", torch.float32)
    plain = plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub leaves it out
    return plain.eval().requires_grad_(False)


def declared_interface(model: bytes) -> tuple[tuple[TensorRecord, ...], tuple[TensorRecord, ...]]:
    """Inputs and outputs as the file itself declares them; a free dimension is given by its name."""
    graph = onnx.load_model_from_string(model).graph

    def entries(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorRecord, ...]:
        kinds = [(value.name, value.type.tensor_type) for value in values]
        return tuple(
            TensorRecord(
                name=name,
                dtype=np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name,
                shape=tuple(d.dim_param or d.dim_value for d in kind.shape.dim),
            )
            for name, kind in kinds
        )

    return entries(graph.input), entries(graph.output)


def opset_of(model: bytes) -> int:
    """The version of the standard operators that the file declares."""
    return next(entry.version for entry in onnx.load_model_from_string(model).opset_import if entry.domain in ("", "ai.onnx"))


def _in_torch(network: nn.Module, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        parts = [
            network(torch.from_numpy(np.ascontiguousarray(frames[start : start + REFERENCE_BATCH])))
            for start in range(0, len(frames), REFERENCE_BATCH)
        ]
    return torch.cat([logits for logits, _ in parts]).numpy(), torch.cat([value for _, value in parts]).numpy()


def _in_onnxruntime(model: bytes, frames: np.ndarray, of: tuple[Part, ...]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    try:
        session = OnnxRunner(model).session
    except MeasurementError as error:
        raise ParityError(f"the exported file does not load: {error}") from error
    parts, sizes = [], []
    for start, stop in _batches(len(frames)):
        try:
            taken = np.ascontiguousarray(frames[start:stop])
            parts.append(session.run(None, unpack(of, taken) if of else {session.get_inputs()[0].name: taken}))
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            raise ParityError(
                f"the exported file cannot run a batch of {stop - start} frames: {runtime_reason(error)}"
            ) from error
        sizes.append(stop - start)
    chosen = [with_spread(part[0], part[1]) if len(part) == 3 else part[0] for part in parts]
    return np.concatenate(chosen), np.concatenate([part[-1] for part in parts]), tuple(sorted(set(sizes)))


def _batches(count: int) -> Iterator[tuple[int, int]]:
    start = 0
    for size in itertools.cycle(BATCH_SIZES):
        yield start, min(start + size, count)
        start += size
        if start >= count:
            return


def _factors(logits: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Logits ``[..., logits]`` of each discrete action."""
    return np.split(logits, np.cumsum(sizes)[:-1], axis=-1)


def _exact(plain: nn.Module, frames: np.ndarray, begins: np.ndarray | None, rows: list[int]) -> dict[int, np.ndarray]:
    """The logits of some observations in float64."""
    if not rows:
        return {}
    double = copy.deepcopy(plain).double()
    if begins is None:
        return {i: _in_torch(double, frames[i][None])[0][0] for i in rows}
    logits = in_torch(double, frames, begins)[0]
    return {i: logits[i] for i in rows}


def _is_rounding(exact: np.ndarray, logits: np.ndarray, their_logits: np.ndarray, sizes: tuple[int, ...] = ()) -> bool:
    each = zip(*(_factors(row, sizes) for row in (exact, logits, their_logits)))
    return all(abs(e[own.argmax()] - e[other.argmax()]) <= 2 * np.abs(e - own).max() for e, own, other in each)


def _bad_rows(array: np.ndarray) -> int:
    return int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
