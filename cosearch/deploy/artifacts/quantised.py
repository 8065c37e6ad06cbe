"""An exported agent in int8: ONNX Runtime's own quantiser, ranges from observations, layers back in float32 by measured loss.

Scales are static: uint8 activations, int8 weights with one scale a channel, the form that the int8 tables price. Observations
and outputs stay as they were. Where the policy moves further than the tolerance, the layers are restored to float32 one after the
other, first the one that alone restores most. Scheme: Jacob et al. 2018; ranges of least and greatest: Krishnamoorthi 2018.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx

from cosearch.deploy.artifacts.agreement import Agreement, compare_outputs, outputs_of
from latency_tables.onnx_models.quantise import quantise_model

Entry = TypeVar("Entry")
SCHEME = "static QDQ: uint8 activations, int8 weights per channel, ranges of least and greatest"
LAYERS = ("Conv", "Gemm", "MatMul")
KL_TOLERANCE = 0.01  # nats an observation, of agents that sample
GREEDY_TOLERANCE = 0.02  # share of observations with another action, of agents that take the best one
CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Quantised:
    """An agent in int8.

    Attributes:
        model: serialized.
        float_layers: names of the layers in float32.
        agreement: with the float32 agent.
        loss: see :func:`loss_of`.
    """

    model: bytes
    float_layers: tuple[str, ...]
    agreement: Agreement
    loss: float


class Quantiser:
    """Makes int8 forms of one agent.

    Args:
        model: the float32 agent.
        calibration: observations that the ranges are taken from.
        checked: other observations, over which the forms are compared.
        greedy: whether the agent takes the best action and does not sample.
        action_sizes: of several discrete actions, see ``compare_outputs``.
    """

    def __init__(
        self, model: bytes, calibration: np.ndarray, checked: np.ndarray, *, greedy: bool, action_sizes: tuple[int, ...] = ()
    ) -> None:
        self._model, self._checked, self._greedy, self._sizes = model, checked, greedy, action_sizes
        graph = onnx.load_model_from_string(model).graph
        self.layers = tuple(node.name for node in graph.node if node.op_type in LAYERS)
        name = graph.input[0].name
        starts = range(0, len(calibration), CALIBRATION_BATCH)
        self._feeds = [{name: calibration[start : start + CALIBRATION_BATCH]} for start in starts]
        self._reference = outputs_of(model, checked)

    @property
    def tolerance(self) -> float:
        """Of the loss."""
        return GREEDY_TOLERANCE if self._greedy else KL_TOLERANCE

    def loss_of(self, agreement: Agreement) -> float:
        """What is held against the tolerance: the policy's divergence, or the share of other actions where the best is taken."""
        return 1 - agreement.greedy if self._greedy else agreement.kl

    def make(self, float_layers: tuple[str, ...] = ()) -> Quantised:
        """The int8 form with these layers in float32.

        Args:
            float_layers: names among :attr:`layers`.

        Raises:
            MeasurementError: the quantiser refuses the model.
        """
        model = self._model
        if set(float_layers) != set(self.layers):
            model = _finished(quantise_model(self._model, feeds=self._feeds, float_nodes=float_layers))
        agreement = compare_outputs(self._reference, outputs_of(model, self._checked), self._sizes)
        return Quantised(model, float_layers, agreement, self.loss_of(agreement))

    def order(self) -> list[tuple[str, float]]:
        """The layers in the order in which they are restored, each with the loss that is left with it alone in float32."""
        losses = [(name, self.make((name,)).loss) for name in self.layers]
        return sorted(losses, key=lambda pair: pair[1])

    def within_tolerance(self) -> tuple[Quantised, list[tuple[str, float]]]:
        """The form with the fewest layers in float32, restored in :meth:`order`, whose loss is within the tolerance.

        Returns:
            The form, and the order; that is empty where no layer had to be restored.
        """
        form = self.make()
        if form.loss <= self.tolerance:
            return form, []
        order = self.order()
        for count in range(1, len(order) + 1):
            form = self.make(tuple(name for name, _ in order[:count]))
            if form.loss <= self.tolerance:
                break
        return form, order


def _finished(model: bytes) -> bytes:
    """A quantised model with outputs that were never rounded, and no more operator sets and constants than its nodes use.

    Policy and value leave the head in one tensor, whose one scale would be the value's: a step of it can be worth more than the
    difference of two actions. So what follows the last layers stays as it was. The quantiser also leaves operator sets of ONNX
    Runtime's optimiser in the file.
    """
    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    outputs = [output.name for output in graph.output]
    dropped: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    todo = list(outputs)
    while todo:
        node = makers.get(name := todo.pop())
        if node is None or node.op_type in LAYERS:
            continue
        before = makers.get(node.input[0])
        if node.op_type == "DequantizeLinear" and before is not None and before.op_type == "QuantizeLinear":
            raw = before.input[0]
            renamed |= {raw: name} if name in outputs else {name: raw}
            dropped += [node, before]
            todo.append(raw)
        else:
            todo += node.input
    nodes = [node for node in graph.node if node not in dropped]
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    read = {*outputs, *(name for node in nodes for name in node.input)}  # a constant can be an output: a Gaussian's spread
    used = {"", "ai.onnx", *(node.domain for node in nodes)}
    _keep(graph.initializer, [entry for entry in graph.initializer if entry.name in read])
    _keep(proto.opset_import, [entry for entry in proto.opset_import if entry.domain in used])
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _keep(entries: MutableSequence[Entry], kept: list[Entry]) -> None:
    del entries[:]
    entries.extend(kept)


def digest_of(observations: np.ndarray) -> str:
    """SHA-256 of observations: their bytes in memory order."""
    return hashlib.sha256(np.ascontiguousarray(observations).tobytes()).hexdigest()
