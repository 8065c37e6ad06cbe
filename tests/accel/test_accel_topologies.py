"""Topologies of SCALE-Sim as networks of the accelerator models."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_models.layers import LayerShape, load_layers
from latency_tables.errors import DesignError

HEAD = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"


def layers(tmp_path, text):
    path = tmp_path / "net.csv"
    path.write_text(text)
    return load_layers(path)


def test_convolutions_as_the_tool_writes_them(tmp_path):
    found = layers(tmp_path, HEAD + "Conv1, 224, 224, 11, 11, 3, 96, 4,\nFC6 ,1 ,1 ,1 ,1 ,9216 ,4096 ,1 ,\n")
    assert found == [
        LayerShape("Conv1", "conv", 1, 96, 3, 55, 55, 11, 11, 4),  # ceil((224 - 11 + 4) / 4)
        LayerShape("FC6", "conv", 1, 4096, 9216, 1, 1, 1, 1, 1),
    ]


def test_rows_whose_name_has_dp_are_depthwise_as_in_the_tool(tmp_path):
    """It runs such a row once a channel, each time with all its filters."""
    text = HEAD + "Conv2_DP, 34, 34, 3, 3, 96, 1, 1,\nDP3, 18, 18, 3, 3, 8, 2, 1,\nConv_dp, 18, 18, 3, 3, 8, 2, 1,\n"
    assert layers(tmp_path, text) == [
        LayerShape("Conv2_DP", "dw", 96, 1, 1, 32, 32, 3, 3, 1),
        LayerShape("DP3", "conv", 8, 2, 1, 16, 16, 3, 3, 1),
        LayerShape("Conv_dp", "conv", 1, 2, 8, 16, 16, 3, 3, 1),
    ]


def test_matrix_products(tmp_path):
    (found,) = layers(tmp_path, "Layer, M, N, K,\nqk, 128, 64, 32,\n")
    assert found == LayerShape("qk", "conv", 1, 64, 32, 128, 1, 1, 1) and found.macs == 128 * 64 * 32


@given(*[st.integers(1, 40)] * 2, *[st.integers(1, 7)] * 3, *[st.integers(1, 64)] * 2)
@settings(deadline=None, max_examples=60)
def test_positions_are_those_that_the_tool_counts(tmp_path_factory, height, width, filter_height, filter_width, stride, c, k):
    text = HEAD + f"a, {height}, {width}, {filter_height}, {filter_width}, {c}, {k}, {stride},\n"
    rows, columns = (math.ceil((a - b + stride) / stride) for a, b in ((height, filter_height), (width, filter_width)))
    if min(rows, columns) < 1:
        with pytest.raises(DesignError, match="larger than its input"):
            layers(tmp_path_factory.mktemp("t"), text)
        return
    (found,) = layers(tmp_path_factory.mktemp("t"), text)
    assert (found.P, found.Q, found.macs) == (rows, columns, rows * columns * filter_height * filter_width * c * k)


@pytest.mark.parametrize(
    "text, words",
    [
        (HEAD.replace("Channels, ", "") + "a, 8, 8, 3, 3, 8, 1,\n", "the column channels is missing"),
        (HEAD.replace("Strides,", "Strides, Sparsity,") + "a, 8, 8, 3, 3, 4, 8, 1, 1:4,\n", "unknown column 'sparsity'"),
        (HEAD.replace("Strides", "Stride Height, Stride Width") + "a, 8, 8, 3, 3, 4, 8, 1, 2,\n", "one stride here, got 1 and 2"),
        (HEAD + "a, 8, 8, 3, 3, 0, 8, 1,\n", "channels must be a whole number"),
        (HEAD + "a, 8, 8, 3, 3, 1e9, 8, 1,\n", "channels must be a whole number"),
        (HEAD, "at least one row"),
        ("Layer, M, N, K\nq, 1, 2, -3\n", "k must be a whole number"),
    ],
)
def test_what_is_no_such_layer_is_refused(text, words, tmp_path):
    with pytest.raises(DesignError, match=words):
        layers(tmp_path, text)
