"""Collects ONNX nodes and weights into a checked model, with ``onnx.helper``: no torch, random weights from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.board.core import MAX_MODEL_BYTES
from latency_tables.errors import ShapeError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, ValueInfoProto

OPSET = 17  # whose operators the nodes are written for; a model declares the oldest that means the same
LEAST_OPSET = 13  # of quantisation per channel
FRAMES = "frames"
OUTPUTS = "outputs"
MEMORY, NEXT_MEMORY = "memory", "next_memory"


class TooLargeError(ShapeError):
    """A model whose weights are more than a measuring core takes; it is refused before they take the memory."""


class GraphBuilder:
    """Collects nodes and weights; ``value`` names the tensor that the next block reads.

    Weights are normal with the variance that keeps activations of order one, so that no denormal number slows a run; their
    methods raise TooLargeError where all of them together are more than ``MAX_MODEL_BYTES``.
    """

    def __init__(self, seed: int) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.value = ""
        self.flat = False  # the value is a vector [batch, features] and no feature map
        self._rng = np.random.default_rng(seed)
        self._count = self._drawn_bytes = 0
        self.sides: list[str] = []  # further tensors that a block in its context reads
        self.kept: list[tuple[int, int]] = []  # shapes of what blocks keep from one call to the next

    def node(self, op_type: str, inputs: Sequence[str], **attributes: int | list[int]) -> str:
        """Append one node; its output becomes ``value``."""
        self._count += 1
        self.value = f"v{self._count}"
        name = f"{op_type.lower()}{self._count}"
        made = self._helper.make_node(op_type, list(inputs), [self.value], name=name)
        made.attribute.extend(self._helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(made)
        return self.value

    def cell(self, op_type: str, inputs: Sequence[str], states: int, **attributes: int) -> list[str]:
        """Append a recurrent cell that takes one step; returns its states, ``[1, batch, hidden]`` each."""
        self._count += 1
        found = [f"v{self._count}_{number}" for number in range(states)]
        made = self._helper.make_node(op_type, list(inputs), ["", *found], name=f"{op_type.lower()}{self._count}")
        made.attribute.extend(self._helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(made)
        return found

    def remember(self, batch: int, size: int) -> str:
        """A further input of the model, ``[batch, size]``: what a block has kept."""
        self.kept.append((batch, size))
        return f"{MEMORY}{len(self.kept)}"

    def keep(self, value: str) -> None:
        """Make a tensor the output that belongs to the last :meth:`remember`."""
        made = self._helper.make_node("Identity", [value], [f"{NEXT_MEMORY}{len(self.kept)}"], name=f"keep{len(self.kept)}")
        self.nodes.append(made)

    def normal(self, shape: tuple[int, ...], fan_in: int) -> str:
        """A constant tensor of normal numbers with the variance 1 / ``fan_in``."""
        return self._drawn(fan_in**-0.5, shape)

    def _drawn(self, deviation: float, shape: tuple[int, ...]) -> str:
        self._drawn_bytes += 4 * math.prod(shape)
        if self._drawn_bytes > MAX_MODEL_BYTES:
            raise TooLargeError(
                f"more than {MAX_MODEL_BYTES // 2**20} MiB of weights, the most that is built and measured: "
                f"the next tensor is {' x '.join(map(str, shape))}"
            )
        return self.weight(self._rng.normal(0, deviation, shape).astype(np.float32))

    def weight(self, array: np.ndarray) -> str:
        """Append one constant tensor and name it."""
        name = f"w{len(self.weights)}"
        self.weights.append(self._numpy.from_array(array, name))
        return name

    def conv(
        self, channels: int, out: int, *, kernel: int = 1, stride: int = 1, pad: int = 0, groups: int = 1, dilation: int = 1
    ) -> str:
        """Convolution with bias of ``value``."""
        fan_in = channels // groups * kernel * kernel
        weights = self._drawn((2 / fan_in) ** 0.5, (out, channels // groups, kernel, kernel))
        bias = self._drawn(0.01, (out,))
        return self.node(
            "Conv",
            [self.value, weights, bias],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
            **({"dilations": [dilation] * 2} if dilation > 1 else {}),
        )

    def linear(self, inputs: int, out: int) -> str:
        """Fully connected layer with bias of ``value``."""
        weights, bias = self._drawn((2 / inputs) ** 0.5, (out, inputs)), self._drawn(0.01, (out,))
        return self.node("Gemm", [self.value, weights, bias], transB=1)

    def relu(self, active: bool = True) -> str:
        """ReLU of ``value``, or nothing."""
        return self.node("Relu", [self.value]) if active else self.value

    def activate(self, activation: str) -> str:
        """``none``, ``relu`` or ``tanh`` of ``value``."""
        return self.node("Tanh", [self.value]) if activation == "tanh" else self.relu(activation == "relu")

    def scale_frames(self) -> str:
        """uint8 NHWC frames to float NCHW in [0, 1]."""
        self.node("Transpose", [self.value], perm=[0, 3, 1, 2])
        self.node("Cast", [self.value], to=1)
        return self.node("Mul", [self.value, self.weight(np.array(1 / 255, dtype=np.float32))])

    def sink(self, side: int) -> str:
        """Context after a block: pooling that reads one pixel a channel."""
        return self.node("MaxPool", [self.value], kernel_shape=[1, 1], strides=[side, side])

    def finish(
        self,
        input_name: str,
        input_shape: Sequence[int],
        input_type: int,
        output_shape: Sequence[int],
        further: Sequence[tuple[str, Sequence[int], int]] = (),
    ) -> bytes:
        """The serialized model, checked; ``further`` are name, shape and type of more inputs."""
        from onnx import TensorProto, checker, defs

        last = self.nodes[-1]
        last.output[0] = OUTPUTS
        graph = self._helper.make_graph(
            self.nodes,
            "network",
            [
                self._helper.make_tensor_value_info(input_name, input_type, list(input_shape)),
                *(self._helper.make_tensor_value_info(name, element, list(shape)) for name, shape, element in further),
                *self._of_memory(MEMORY),
            ],
            [self._helper.make_tensor_value_info(OUTPUTS, TensorProto.FLOAT, list(output_shape)), *self._of_memory(NEXT_MEMORY)],
            self.weights,
        )
        needed = max(defs.get_schema(node.op_type, OPSET).since_version for node in self.nodes)
        opset = self._helper.make_opsetid("", max(LEAST_OPSET, needed))
        model = self._helper.make_model(graph, opset_imports=[opset], producer_name="latency_tables")
        model.ir_version = self._helper.find_min_ir_version_for([opset])
        checker.check_model(model)
        return model.SerializeToString()

    def _of_memory(self, name: str) -> list[ValueInfoProto]:
        """Inputs or outputs for what the blocks keep."""
        from onnx import TensorProto

        kept = enumerate(self.kept, 1)
        return [self._helper.make_tensor_value_info(f"{name}{number}", TensorProto.FLOAT, shape) for number, shape in kept]
