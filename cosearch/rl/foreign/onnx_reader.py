"""An ONNX file of any origin as a policy: its input, layout, batch and scale are found, its outputs are tried and read.

Sources of the layouts: the export pages of stable-baselines3, rsl_rl (Isaac Lab and mjlab write with it), rl_games, and LeRobot's
pull requests on ONNX; a file that CleanRL or skrl users write with ``torch.onnx.export`` needs no page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from cosearch.record.results.agent import TensorRecord
from cosearch.rl.foreign.meanings import Meaning, meaning_of
from cosearch.rl.foreign.network import as_taken, open_session, run_rows
from cosearch.rl.foreign.normaliser import read_normaliser
from cosearch.rl.foreign.onnx_file import load_model, producer
from cosearch.rl.foreign.remembering import find_states, packed
from cosearch.rl.foreign.understood import (
    LAYOUTS,
    Normaliser,
    Policy,
    Said,
    StateFacts,
    TaskFacts,
    Understood,
    tensor_text,
    understood_in,
)
from latency_tables.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

PROBE_ROWS = 3
RESCALED = "mu"  # rl_games' name of means that it scales to the bounds outside its network, unless clip_actions is off
LAYOUT_KEY = "layout"  # in the file's own metadata, where whoever wrote it said so
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
THROUGH = ("Cast", "Transpose", "Identity", "Reshape", "Flatten", "Unsqueeze", "Squeeze")


@dataclass(frozen=True)
class _Input:
    """The input that takes the observations, and in which layouts its shape allows them."""

    name: str
    dtype: str
    batch: str
    layouts: tuple[str | None, ...]


def read_onnx(path: Path, task: TaskFacts, said: Said) -> Policy:
    """Read a policy from an ONNX file; one that `cosearch compress` wrote is what its metadata say.

    Args:
        path: of the file.
        task: that it plays.
        said: what the user says of it.

    Raises:
        ConfigError: the file is no such policy, cannot be loaded, or can be read in two ways and nobody said which; or it says
            itself what it is, and something is said of it or it plays another environment.
        ShapeError: its inputs or outputs are of another task.
    """
    model = load_model(path)
    known = understood_in(model, path)
    if known is None:
        return policy_of_model(path, model, task, said)
    _check_known(path, known, task, said)
    return Policy(known, model.SerializeToString())


def _check_known(path: Path, known: Understood, task: TaskFacts, said: Said) -> None:
    again = f"`cosearch compress POLICY --env {task.env}` with the POLICY that it was made from"
    if known.env != task.env:
        raise ConfigError(
            f"{path} was read as a policy of {known.env}, this task is {task.env}: say --env {known.env}, or {again}"
        )
    theirs, ours = ((one.frame_shape, one.num_actions, one.policy) for one in (known, task))
    if theirs != ours:
        raise ShapeError(
            f"{path} was read as a {known.policy} policy of observations {list(known.frame_shape)} and {known.num_actions} "
            f"actions, {task.env} has {list(task.frame_shape)} and {task.num_actions} ({task.policy}) here: name the task with "
            f"the same wrappers and options, or {again}"
        )
    words = ", ".join(f"--{name.replace('_', '-')}" for name, value in vars(said).items() if value is not None)
    if words:
        raise ConfigError(f"{path} says itself what it holds: leave {words} out, or {again}")


def policy_of_model(path: Path, model: onnx.ModelProto, task: TaskFacts, said: Said, origin: str | None = None) -> Policy:
    """The same of a model in memory.

    Args:
        path: of the file that it is from.
        model: with all its weights.
        task: that it plays.
        said: what the user says of it.
        origin: what wrote it; None: as it says itself.

    Raises:
        ConfigError, ShapeError: as :func:`read_onnx`.
    """
    content = model.SerializeToString()
    session = open_session(path, content)
    inputs, outputs = (tuple(_facts(entry) for entry in part) for part in (session.get_inputs(), session.get_outputs()))
    props = {entry.key: entry.value for entry in model.metadata_props}
    states = find_states(path, inputs, outputs)
    observed = tuple(entry for entry in inputs if entry.name not in {state.taken for state in states})
    taken = _input(path, observed, task, said.layout or props.get(LAYOUT_KEY))
    if taken.batch == "free" and any(state.batch_axis is None for state in states):
        taken = replace(taken, batch="one")
    normaliser = None if said.normaliser is None else read_normaliser(said.normaliser, task.frame_shape, taken.layouts)
    pixels, notes = _pixels(path, model, taken, task, said, normaliser)
    names = [entry.name for entry in outputs if entry.name not in {state.given for state in states}]
    layout, tried = _try(path, session, taken, names, task, pixels, normaliser, states)
    meaning = meaning_of(path, tried, task, said)
    squashed, factor, offset, more = _action_scale(path, model, meaning, task, said)
    if squashed and meaning.spread is not None:
        if said.acting == "sampled":
            raise ConfigError(
                f"{path}: --acting sampled with --action-scale tanh: {meaning.spread!r} is a spread before the tangent, and an "
                "agent samples after it; leave --acting out, or export the policy with its tangent inside"
            )
        more = (*more, f"{meaning.spread!r} is left aside: it is the spread before the tangent")
        meaning = replace(meaning, spread=None)
    acting = said.acting or ("sampled" if meaning.meaning in ("logits", "probabilities") else "greedy")
    if acting not in ("sampled", "greedy"):
        raise ConfigError(f"--acting must be sampled or greedy, got {said.acting!r}")
    if acting == "sampled" and meaning.meaning not in ("logits", "probabilities") and meaning.spread is None:
        raise ConfigError(
            f"{path}: gives {meaning.meaning} in {meaning.chosen!r} and no spread: nothing to sample from; leave --acting out"
        )
    known = Understood(
        origin=origin or producer(model),
        env=task.env,
        frame_shape=task.frame_shape,
        num_actions=task.num_actions,
        policy=task.policy,
        inputs=inputs,
        outputs=outputs,
        observation=taken.name,
        batch=taken.batch,
        layout=layout,
        pixels=pixels,
        normaliser=normaliser,
        chosen=meaning.chosen,
        meaning=meaning.meaning,
        spread=meaning.spread,
        spread_is_log=meaning.spread_is_log,
        value=meaning.value,
        acting=acting,
        squashed=squashed,
        action_factor=factor,
        action_offset=offset,
        first_action=task.first_action,
        states=states,
        notes=(*notes, *meaning.notes, *more),
    )
    return Policy(known, content)


def _facts(entry: NodeArg) -> TensorRecord:
    shape = tuple(size if isinstance(size, int) else str(size or "free") for size in entry.shape)
    return TensorRecord(name=entry.name, dtype=DTYPES.get(entry.type, entry.type), shape=shape)


def _input(path: Path, inputs: tuple[TensorRecord, ...], task: TaskFacts, said_layout: str | None) -> _Input:
    fitting = [entry for entry in inputs if _layouts(entry, task, said_layout)]
    if len(inputs) == 1 and not fitting:
        raise ShapeError(
            f"{path}: its input {tensor_text(inputs[0])} takes no observation of {task.env}, expected "
            f"{_wanted(task, said_layout)}. Is it a policy of this task, with the same wrappers?"
        )
    if len(inputs) != 1:
        raise ShapeError(
            f"{path}: it has {len(inputs)} inputs ({'; '.join(tensor_text(entry) for entry in inputs)}), {task.env} gives one "
            f"observation: {_wanted(task, said_layout)}. Export it with the observations alone"
        )
    (entry,) = fitting
    if entry.dtype not in DTYPES.values():
        raise ConfigError(f"{path}: its input {entry.name!r} is {entry.dtype}, expected floats or whole numbers")
    if len(entry.shape) == len(task.frame_shape):
        batch = "none"
    else:
        first = entry.shape[0]
        batch = "one" if isinstance(first, int) and first > 0 else "free"
        if batch == "one" and first != 1:
            raise ShapeError(f"{path}: its batch dimension is fixed to {first}; export it with a free one, or with 1")
    return _Input(entry.name, entry.dtype, batch, _layouts(entry, task, said_layout))


def _layouts(entry: TensorRecord, task: TaskFacts, said: str | None) -> tuple[str | None, ...]:
    """The layouts in which an input's shape can take the observations of a task; empty: in none."""
    shape, frame = entry.shape, task.frame_shape
    inner = shape[1:] if len(shape) == len(frame) + 1 else shape
    if len(inner) != len(frame):
        return ()

    def fits(wanted: tuple[int, ...]) -> bool:
        return all(not isinstance(a, int) or a < 1 or a == b for a, b in zip(inner, wanted))

    if len(frame) == 1:
        return (None,) * fits(frame)
    orders = {LAYOUTS[0]: frame, LAYOUTS[1]: (frame[2], *frame[:2])}
    return tuple(name for name, wanted in orders.items() if fits(wanted) and name == (said if said in LAYOUTS else name))


def _wanted(task: TaskFacts, said: str | None) -> str:
    if len(task.frame_shape) == 1:
        return f"[batch, {task.frame_shape[0]}]"
    h, w, c = task.frame_shape
    order = f", in the order {said}" if said in LAYOUTS else ""
    return f"[batch, {h}, {w}, {c}] or [batch, {c}, {h}, {w}]: the frames of this environment{order}"


def _pixels(
    path: Path, model: onnx.ModelProto, taken: _Input, task: TaskFacts, said: Said, normaliser: Normaliser | None
) -> tuple[int | None, tuple[str, ...]]:
    """Largest value of a pixel that the file takes, and what was concluded."""
    if len(task.frame_shape) == 1:
        if said.pixels is not None:
            raise ConfigError(f"--pixels has no effect: the observations of {task.env} are vectors; leave it out")
        return None, ()
    if said.pixels not in (None, 1, 255):
        raise ConfigError(f"--pixels must be 255 or 1, got {said.pixels}")
    if said.pixels == 1 and not taken.dtype.startswith("float"):
        raise ConfigError(f"{path}: --pixels 1, but its input is {taken.dtype}, which has nothing between 0 and 1; leave it out")
    if said.pixels is not None or not taken.dtype.startswith("float") or normaliser is not None:
        return said.pixels or 255, ()
    if _divides_by_255(model.graph, taken.name):
        return 255, (f"{taken.name!r} takes pixels from 0 to 255: the graph divides them by 255 first",)
    raise ConfigError(
        f"{path}: its input {taken.name!r} takes images as {taken.dtype}, from 0 to 255 or from 0 to 1? Say "
        "--pixels 255 or --pixels 1 (`cosearch compress FILE --env TASK` asks for it and writes a file that says so)"
    )


def _divides_by_255(graph: onnx.GraphProto, name: str) -> bool:
    """Whether the first computation on an input is a division by 255."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    carried = {name}
    for node in graph.node:
        if not carried.intersection(node.input):
            continue
        if node.op_type in THROUGH:
            carried.update(node.output)
        elif node.op_type in ("Div", "Mul"):
            factor = next((constants[other] for other in node.input if other in constants), np.zeros(()))
            wanted = 255.0 if node.op_type == "Div" else 1 / 255
            return factor.size == 1 and abs(float(factor.ravel()[0]) / wanted - 1) < 1e-3
        else:
            return False
    return False


def draws(frame_shape: tuple[int, ...], rows: int) -> np.ndarray:
    """Plain observations to try a file on: black, black and white, random images; or standard normal vectors.

    Args:
        frame_shape: of one.
        rows: how many.

    Returns:
        ``[rows, *frame_shape]``.
    """
    rng = np.random.default_rng(0)
    if len(frame_shape) == 1:
        return rng.normal(0.0, 1.0, (rows, *frame_shape)).astype(np.float32)
    images = rng.integers(0, 256, (rows, *frame_shape), np.uint8)
    images[0], images[1] = 0, 255 * (images[1] % 2)
    return images


def _try(
    path: Path,
    session: InferenceSession,
    taken: _Input,
    names: list[str],
    task: TaskFacts,
    pixels: int | None,
    normaliser: Normaliser | None,
    states: tuple[StateFacts, ...],
) -> tuple[str | None, dict[str, np.ndarray]]:
    """The one layout in which the file runs, and its outputs on plain observations."""
    observations = draws(task.frame_shape, PROBE_ROWS)
    ran: dict[str | None, dict[str, np.ndarray]] = {}
    fault: ConfigError | None = None
    for layout in taken.layouts:
        fed = as_taken(observations, normaliser, pixels=pixels, layout=layout, dtype=np.dtype(taken.dtype))
        try:
            memory = packed(states, np.zeros((PROBE_ROWS, sum(math.prod(state.inner) for state in states))), taken.batch)
            ran[layout] = run_rows(session, path, taken.name, names, fed, taken.batch, memory)
        except ConfigError as error:
            fault = error
    if not ran and fault is not None:
        raise fault
    if len(ran) > 1:
        h, w, c = task.frame_shape
        raise ConfigError(
            f"{path}: takes frames in either order, [batch, {h}, {w}, {c}] or [batch, {c}, {h}, {w}], and does not say "
            "which one it means. Say --layout channels_last or channels_first (distill.layout=channels_last or "
            "distill.layout=channels_first)"
        )
    return next(iter(ran.items()))


def _action_scale(
    path: Path, model: onnx.ModelProto, meaning: Meaning, task: TaskFacts, said: Said
) -> tuple[bool, tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Whether the means are still to be squashed, factors and offsets to the agent's own action, and what was concluded."""
    if task.box is None:
        if said.action_scale is not None:
            raise ConfigError(f"--action-scale has no effect: the actions of {task.env} are discrete; leave it out")
        return False, (), (), ()
    if said.action_scale not in (None, "environment", "unit", "tanh"):
        raise ConfigError(f"--action-scale must be environment, unit or tanh, got {said.action_scale!r}")
    low, high = np.array(task.box.low), np.array(task.box.high)
    notes: tuple[str, ...] = ()
    scale = said.action_scale
    if scale is None and meaning.chosen == "mean" and _is_agent(model.graph):
        return False, (), (), ("'mean' is read as that of an agent.onnx: in the agent's own units",) * task.box.is_scaled
    if scale is None:
        ends_in_tanh = _ends_in_tanh(model.graph, meaning.chosen)
        bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
        is_unit = bounded and bool((low == -1).all() and (high == 1).all())
        if meaning.chosen.lower().rpartition(".")[2] == RESCALED and task.box.is_finite and not is_unit and not ends_in_tanh:
            raise ConfigError(
                f"{path}: is {meaning.chosen!r} in the units of {task.env}, from {low.tolist()} to {high.tolist()}, or do -1 and "
                "1 stand for these bounds? The file does not tell: say --action-scale unit (as rl_games trains by default) or "
                "--action-scale environment"
            )
        scale = "unit" if ends_in_tanh and bounded and not is_unit else "environment"
        if scale == "unit":
            notes = (f"{meaning.chosen!r} ends in a hyperbolic tangent: -1 and 1 stand for the bounds of the action",)
    theirs = np.array([(1.0, 0.0)] * task.num_actions)
    if scale in ("unit", "tanh"):
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ConfigError(
                f"{path}: --action-scale {scale} needs bounds, {task.env} has none: {low.tolist()} to {high.tolist()}"
            )
        theirs = np.stack([(high - low) / 2, (high + low) / 2], 1)
    ours = np.array(task.box.scaling)
    factor, offset = theirs[:, 0] / ours[:, 0], (theirs[:, 1] - ours[:, 1]) / ours[:, 0]
    plain = bool((factor == 1).all() and (offset == 0).all())
    return scale == "tanh", () if plain else tuple(factor.tolist()), () if plain else tuple(offset.tolist()), notes


def _is_agent(graph: onnx.GraphProto) -> bool:
    """Whether it has the inputs and outputs of this project's own export of a Gaussian policy, alone or in a bundle."""
    ranks = {entry.name: len(entry.type.tensor_type.shape.dim) for entry in graph.output if entry.name != "action"}
    known = ranks == {"mean": 2, "log_std": 1, "value": 1}
    return known and [entry.name for entry in graph.input] in (["observations"], ["frames"])


def _ends_in_tanh(graph: onnx.GraphProto, name: str) -> bool:
    made = {output: node for node in graph.node for output in node.output}
    while name in made and made[name].op_type in (*THROUGH, "Clip"):
        name = made[name].input[0]
    return name in made and made[name].op_type == "Tanh"
