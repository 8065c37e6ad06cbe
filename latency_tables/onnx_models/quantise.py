"""Makes the int8 form of a model: static QDQ, uint8 activations, int8 weights per channel.

The QDQ form and not QOperator, which drops ReLUs that a skip connection also reads and so changes results. Ranges come
from random inputs for a table, which times graphs and not accuracy; an agent is quantised with real observations.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.board.runners import TYPES, import_onnxruntime
from latency_tables.board.temporary import temporary_folder
from latency_tables.errors import MeasurementError

if TYPE_CHECKING:
    from onnxruntime import NodeArg

FRAMES_TO_CALIBRATE = 4


class _Inputs:
    """What the quantiser reads: one feed a call, then None."""

    def __init__(self, feeds: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next feed."""
        return next(self._feeds, None)


def quantise_model(
    model: bytes,
    *,
    seed: int = 0,
    feeds: Sequence[Mapping[str, np.ndarray]] | None = None,
    float_nodes: Sequence[str] = (),
) -> bytes:
    """The int8 QDQ form of a float32 ONNX model.

    Args:
        model: serialized; without ``feeds`` its shapes must be fixed.
        seed: of random inputs.
        feeds: inputs by name, as the model takes them, that the ranges of its tensors are taken from; None: random ones.
        float_nodes: names of nodes that stay in float32.

    Raises:
        MeasurementError: the quantiser refuses the model.
    """
    ort = import_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    if feeds is None:
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(seed)
        feeds = [{entry.name: _random(rng, entry) for entry in session.get_inputs()} for _ in range(FRAMES_TO_CALIBRATE)]
    level = logging.getLogger().level
    with temporary_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantiser's own advice; what it made is looked at as a graph histogram
        plain, ready, done = (folder / name for name in ("plain.onnx", "ready.onnx", "done.onnx"))
        plain.write_bytes(model)
        logging.getLogger().setLevel(logging.ERROR)
        try:
            shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(ready), str(done), _Inputs(feeds), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=list(float_nodes),
            )  # fmt: skip
        except (ValueError, RuntimeError, TypeError, KeyError) as error:
            raise MeasurementError(f"onnxruntime cannot quantise the model: {str(error)[:300]}") from error
        finally:
            logging.getLogger().setLevel(level)
        return done.read_bytes()


def _random(rng: np.random.Generator, entry: NodeArg) -> np.ndarray:
    dtype = TYPES[entry.type]
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, 255, entry.shape).astype(dtype)
    return rng.normal(0, 1, entry.shape).astype(dtype)
