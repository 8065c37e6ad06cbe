"""What is done to an exported ONNX file for its bundle: lowest opset, the choice of the action inside, the contract inside.

The opset of a file is the version of the operators that it is read with. An operator that has not changed since an earlier
version means the same there, so a file can say the newest of its operators' own versions without any other change: a runtime on
an old board reads it, and computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cosearch.deploy.bundle.contract import CHANNELS_FIRST, Contract, InputPart
from latency_tables.errors import RequestError, RunFolderError

ACTIONS = ("outside", "greedy", "sampled")
ACTION, NOISE = "action", "noise"
POLICY, OBS, MANY_ACTIONS = "policy.onnx", "obs", "actions"
AI_ONNX = ("", "ai.onnx")
BELOW_1 = np.nextafter(np.float32(1), np.float32(0))  # times a sum it is below that sum, rounded too


def load(model: bytes, file: object) -> onnx.ModelProto:
    """The parsed model.

    Args:
        model: serialized.
        file: where it came from, for the message.

    Raises:
        RunFolderError: it is no valid model.
    """
    try:
        parsed = onnx.load_model_from_string(model)
        onnx.checker.check_model(parsed)
    except Exception as error:  # protobuf's errors and those of the checker have no common root
        raise RunFolderError(
            f"{file} is no valid ONNX file: {str(error)[:200]}; `cosearch export RUN` writes it again"
        ) from error
    return parsed


def without_copies(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without its ``Identity`` nodes, which the exporter writes where two layers have equal weights.

    Args:
        model: a parsed model; not altered. A copy that is an output of the graph stays.
    """
    changed, outputs = onnx.ModelProto(), {output.name for output in model.graph.output}
    changed.CopyFrom(model)
    copies = [node for node in changed.graph.node if node.op_type == "Identity" and node.output[0] not in outputs]
    source: dict[str, str] = {}
    for node in copies:  # in the graph's order, so the source of a copy of a copy is known
        source[node.output[0]] = source.get(node.input[0], node.input[0])
        changed.graph.node.remove(node)
    for node in changed.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = source.get(name, name)
    return changed


def needed_opset(model: onnx.ModelProto) -> int:
    """The lowest opset that means the same for every node of the model.

    Args:
        model: a parsed model.
    """
    now = opset_of(model)
    return max(
        onnx.defs.get_schema(node.op_type, now, node.domain).since_version for node in model.graph.node if node.domain in AI_ONNX
    )


def opset_of(model: onnx.ModelProto) -> int:
    """The opset that a model declares.

    Args:
        model: a parsed model.
    """
    return next(int(entry.version) for entry in model.opset_import if entry.domain in AI_ONNX)


def with_opset(model: onnx.ModelProto, opset: int | None) -> onnx.ModelProto:
    """The same computation, declared for another opset, with the oldest file format (IR version) of that opset.

    Args:
        model: a parsed model; not altered.
        opset: None: the lowest that the graph needs.

    Raises:
        RequestError: the graph needs a newer one, or ONNX's converter cannot reach it.
    """
    least, now = needed_opset(model), opset_of(model)
    wanted = least if opset is None else opset
    if wanted < least:
        newest = {n.op_type for n in model.graph.node if onnx.defs.get_schema(n.op_type, now, n.domain).since_version == least}
        raise RequestError(
            f"opset {wanted} is too old for the agent: {', '.join(sorted(newest))} needs {least}; give that or a newer one"
        )
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if wanted > now:
        try:
            changed = onnx.version_converter.convert_version(model, wanted)
        except (RuntimeError, ValueError) as error:
            raise RequestError(f"ONNX cannot convert the agent from opset {now} to {wanted}: {str(error)[:200]}") from error
    used = {node.domain for node in changed.graph.node}
    others = [(entry.domain, entry.version) for entry in changed.opset_import if entry.domain not in AI_ONNX]
    del changed.opset_import[:]  # tools leave sets behind that no node is of
    kept = [helper.make_opsetid(domain, version) for domain, version in others if domain in used]
    changed.opset_import.extend([helper.make_opsetid("", wanted), *kept])
    changed.ir_version = helper.find_min_ir_version_for(list(changed.opset_import), ignore_unknown=True)
    return changed


def with_channels_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for images with their channels first, ``[batch, channels, height, width]``, which its first node turns.

    Args:
        model: a parsed model; not altered. Its first input is ``[batch, height, width, channels]``.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    entry = changed.graph.input[0]
    batch, height, width, channels = list(entry.type.tensor_type.shape.dim)
    turned = f"{entry.name}_channels_last"
    for node in changed.graph.node:
        node.input[:] = [turned if name == entry.name else name for name in node.input]
    changed.graph.node.insert(0, helper.make_node("Transpose", [entry.name], [turned], name="turn", perm=[0, 2, 3, 1]))
    sizes = [dim.dim_param or dim.dim_value for dim in (batch, channels, height, width)]
    entry.CopyFrom(helper.make_tensor_value_info(entry.name, entry.type.tensor_type.elem_type, sizes))
    return changed


def with_given_inputs(model: onnx.ModelProto, inputs: Sequence[InputPart]) -> onnx.ModelProto:
    """The model for parts of observations as the environment gives them: images with their channels first are turned, and floats
    become bytes, by its first nodes.

    Args:
        model: a parsed model; not altered. Its inputs are images ``[batch, height, width, channels]``, uint8, vectors and masks.
        inputs: the parts.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for part in inputs:
        if part.low is None and part.layout == "channels_last":
            continue
        (entry,) = (value for value in changed.graph.input if value.name == part.name)
        inside, first = f"{part.name}_bytes", []
        for node in changed.graph.node:
            node.input[:] = [inside if name == part.name else name for name in node.input]
        name = part.name
        if part.low is not None and part.high is not None:
            for op, value in (("Sub", part.low), ("Mul", 255.0 / (part.high - part.low))):
                constant, made = f"{part.name}_{op.lower()}", f"{part.name}_{op.lower()}_done"
                changed.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), constant))
                first.append(helper.make_node(op, [name, constant], [made], name=f"{made}_node"))
                name = made
            bounds_of = []
            for word, bound in (("least", 0.0), ("most", 255.0)):
                changed.graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), f"{part.name}_{word}"))
                bounds_of.append(f"{part.name}_{word}")
            for op, further in (("Round", []), ("Clip", bounds_of), ("Cast", [])):
                made = f"{part.name}_{op.lower()}_done"
                node = helper.make_node(op, [name, *further], [made], name=f"{made}_node")
                if op == "Cast":
                    node.attribute.append(helper.make_attribute("to", int(TensorProto.UINT8)))
                first.append(node)
                name = made
        if part.layout == CHANNELS_FIRST:
            first.append(helper.make_node("Transpose", [name], [inside], name=f"{part.name}_turn", perm=[0, 2, 3, 1]))
        else:
            first[-1].output[0] = inside
        for place, node in enumerate(first):
            changed.graph.node.insert(place, node)
        kind = TensorProto.FLOAT if part.low is not None else TensorProto.UINT8
        batch = entry.type.tensor_type.shape.dim[0].dim_param or "batch"
        entry.CopyFrom(helper.make_tensor_value_info(part.name, kind, [batch, *part.shape]))
    return changed


def with_actions(model: onnx.ModelProto, actions: str, rule: Contract) -> onnx.ModelProto:
    """The model with an output ``action``: the environment's action, chosen inside the graph.

    Greedy: the best action, or the mean. Sampled: with an input ``noise``. Discrete: ``[batch, 1]``, uniform over [0, 1); the
    first action whose cumulative probability exceeds it. Vectors of whole numbers: ``[batch, factors]``, the same for each.
    Vectors: ``[batch, size]``, standard normal; mean plus noise times standard deviation. Vectors are scaled, shifted and clipped
    as the contract says.

    Args:
        model: a parsed model; not altered.
        actions: one of :data:`ACTIONS`; ``outside`` changes nothing.
        rule: policy, bounds and scales.

    Raises:
        RequestError: another word, or ``sampled`` for an agent that takes its best action.
    """
    check_actions(actions, rule.rule)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if actions == "outside":
        return changed
    parts = _Parts(changed)
    discrete, size = rule.policy != "gaussian", noise_size(rule)
    if actions == "sampled":
        changed.graph.input.append(helper.make_tensor_value_info(NOISE, TensorProto.FLOAT, ["batch", size]))
    if discrete:
        if rule.action_sizes:
            _each_factor(parts, rule.action_sizes, sampled=actions == "sampled")
            changed.graph.output.append(helper.make_tensor_value_info(ACTION, TensorProto.INT64, ["batch", size]))
            return changed
        found = _drawn(parts) if actions == "sampled" else parts.add("ArgMax", ["logits"], axis=1, keepdims=0)
        parts.add("Add", [found, parts.constant(np.array(rule.first_action, np.int64))], ACTION)
        changed.graph.output.append(helper.make_tensor_value_info(ACTION, TensorProto.INT64, ["batch"]))
        return changed
    chosen = "mean"
    if actions == "sampled":
        chosen = parts.add("Add", ["mean", parts.add("Mul", [parts.add("Exp", ["log_std"]), NOISE])])
    scaled = parts.add("Mul", [chosen, parts.constant(np.array(rule.action_scale, np.float32))])
    shifted = parts.add("Add", [scaled, parts.constant(np.array(rule.action_shift, np.float32))])
    low, high = bounds(rule)
    parts.add("Min", [parts.add("Max", [shifted, parts.constant(low)]), parts.constant(high)], ACTION)
    changed.graph.output.append(helper.make_tensor_value_info(ACTION, TensorProto.FLOAT, ["batch", size]))
    return changed


def check_actions(actions: str, rule: str) -> None:
    """Raise unless the actions of an agent can be chosen so.

    Args:
        actions: one of :data:`ACTIONS`.
        rule: how the agent acts: ``sample`` or ``argmax``.

    Raises:
        RequestError: another word, or ``sampled`` for an agent that takes its best action.
    """
    if actions not in ACTIONS:
        raise RequestError(f"actions must be one of {', '.join(ACTIONS)}, got {actions!r}")
    if actions == "sampled" and rule == "argmax":
        raise RequestError("this agent takes its best action and draws none: give --actions greedy or outside, got sampled")


def obs_to_actions(model: onnx.ModelProto, rule: Contract) -> bytes:
    """The agent as controllers of robots take it: one input ``obs``, ``[1, features]``, one output ``actions``, ``[1, size]``.

    The names and the fixed batch are those of Isaac Lab's exporter; the ONNX controller of ros2_control takes a file with one
    input and one output of float32 and no free dimension. The actions are the environment's own: the means, scaled, shifted and
    clipped.

    Args:
        model: a parsed model of a Gaussian policy; not altered.
        rule: its contract.

    Returns:
        The serialized model, with the contract in its ``metadata_props``.
    """
    acting = with_actions(model, "greedy", rule)
    acting.graph.ClearField("value_info")
    kept = onnx.utils.Extractor(acting).extract_model([rule.input_name], [ACTION])
    names = {rule.input_name: OBS, ACTION: MANY_ACTIONS}
    for node in kept.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    for value in (*kept.graph.input, *kept.graph.output):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_value = 1
    kept.graph.ClearField("value_info")
    opset = needed_opset(kept)
    return with_contract(
        with_opset(kept, opset),
        replace(
            rule,
            model=POLICY,
            opset=opset,
            input_name=OBS,
            input_shape=(1, *rule.input_shape[1:]),
            output_names=(MANY_ACTIONS,),
            stored_outputs=(),
            action_output=MANY_ACTIONS,
        ),
    )


def bounds(rule: Contract) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of an action vector, ``[size]`` each, float32; infinite where there is none.

    Args:
        rule: has them.
    """
    low = np.array([-np.inf if value is None else value for value in rule.action_low], np.float64)
    high = np.array([np.inf if value is None else value for value in rule.action_high], np.float64)
    with np.errstate(over="ignore"):  # a bound beyond float32 is none
        return low.astype(np.float32), high.astype(np.float32)


def noise_size(rule: Contract) -> int:
    """Random numbers that an action takes.

    Args:
        rule: the contract.
    """
    return len(rule.action_low) if rule.policy == "gaussian" else len(rule.action_sizes) or 1


def _each_factor(parts: _Parts, sizes: Sequence[int], *, sampled: bool) -> None:
    """The output ``action`` ``[batch, factors]``, one number from the logits of each factor."""

    def slice_of(tensor: str, begin: int, end: int) -> str:
        return parts.add("Slice", [tensor, *(parts.constant(np.array([value], np.int64)) for value in (begin, end, 1))])

    begin, chosen = 0, []
    for factor, size in enumerate(sizes):
        logits = slice_of("logits", begin, begin + size)
        begin += size
        if sampled:
            found = _drawn(parts, logits, slice_of(NOISE, factor, factor + 1))
        else:
            found = parts.add("ArgMax", [logits], axis=1, keepdims=0)
        chosen.append(parts.add("Unsqueeze", [found, parts.constant(np.array([1], np.int64))]))
    parts.add("Concat", chosen, ACTION, axis=1)


def _drawn(parts: _Parts, logits: str = "logits", noise: str = NOISE) -> str:
    """Number of the first action whose cumulative probability exceeds the noise, which is kept below 1: there is always one."""
    noise = parts.add("Min", [noise, parts.constant(np.array(BELOW_1))])
    reached = parts.add("CumSum", [parts.add("Softmax", [logits], axis=1), parts.constant(np.array(1, np.int64))])
    last = parts.add("Slice", [reached, *(parts.constant(np.array([value], np.int64)) for value in (-1, 2**31 - 1, 1))])
    below = parts.add("Not", [parts.add("Less", [parts.add("Mul", [noise, last]), reached])])
    counted = parts.add("Cast", [below], to=TensorProto.INT64)
    return parts.add("ReduceSum", [counted, parts.constant(np.array([1], np.int64))], keepdims=0)


class _Parts:
    """Adds nodes and constants with names of their own to a model.

    Args:
        model: is altered.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph, self._count = model.graph, 0

    def _name(self) -> str:
        self._count += 1
        return f"choice_{self._count}"

    def add(self, op_type: str, inputs: list[str], output: str = "", **attributes: int) -> str:
        """Add a node; returns the name of its output."""
        output = output or self._name()
        node = helper.make_node(op_type, inputs, [output], name=f"choose_{output}")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._graph.node.append(node)
        return output

    def constant(self, value: np.ndarray) -> str:
        """Add a constant; returns its name."""
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def with_contract(model: onnx.ModelProto, contract: Contract) -> bytes:
    """The serialized model with the contract in its ``metadata_props``; other entries stay.

    Args:
        model: a parsed model; not altered.
        contract: what to put in.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    helper.set_model_props(changed, {**metadata_of(changed), **contract.to_metadata()})
    onnx.checker.check_model(changed, full_check=True)
    return changed.SerializeToString(deterministic=True)


def metadata_of(model: onnx.ModelProto) -> Mapping[str, str]:
    """The ``metadata_props`` of a model.

    Args:
        model: a parsed model.
    """
    return {entry.key: entry.value for entry in model.metadata_props}
