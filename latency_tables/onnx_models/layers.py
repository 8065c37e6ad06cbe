"""Builds ONNX models of single primitives, alone and in plain layout: how naive tables are made, for comparison only."""

from __future__ import annotations

from latency_tables.onnx_models.builder import FRAMES, GraphBuilder
from latency_tables.opspec import Layer


def build_layer_model(layer: Layer, *, batch: int = 1, seed: int = 0) -> bytes:
    """ONNX model of one isolated primitive, plain layout in and out: how naive tables are made, for comparison only."""
    from onnx import TensorProto

    graph = GraphBuilder(seed)
    graph.value = FRAMES
    shape: tuple[int, ...] = (batch, layer.C, layer.H, layer.W)
    out: tuple[int, ...] = (batch, layer.K, layer.P, layer.Q)
    kind = TensorProto.FLOAT
    if layer.kind == "cast":
        shape, kind = (batch, layer.H, layer.W, layer.C), TensorProto.UINT8
        graph.scale_frames()
    elif layer.kind == "fc":
        shape, out = (batch, layer.C), (batch, layer.K)
        graph.linear(layer.C, layer.K)
        graph.relu()
    elif layer.kind == "pool":
        graph.node("MaxPool", [graph.value], kernel_shape=[layer.R, layer.S], strides=[layer.stride] * 2, pads=[layer.pad] * 4)
    elif layer.kind == "relu":
        graph.relu()
    elif layer.kind == "add":
        graph.node("Add", [graph.value, graph.value])
    else:
        groups = layer.K if layer.kind == "dw" else 1
        graph.conv(layer.C, layer.K, kernel=layer.R, stride=layer.stride, pad=layer.pad, groups=groups)
        graph.relu()
    return graph.finish(FRAMES, shape, kind, out)
