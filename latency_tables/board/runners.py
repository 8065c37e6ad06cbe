"""Runs an ONNX model with ONNX Runtime the way it is deployed, and measures whole networks.

Telemetry is off before the runtime is imported, threads are explicit, idle threads do not spin, inputs and outputs are
bound once. A provider that the runtime would replace by another is an error. Runs on the board (Python 3.8 syntax).
"""

from __future__ import annotations

import collections
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from latency_tables.board.timing import Paced, VisitPlan, is_clean, paced, take_samples
from latency_tables.errors import MeasurementError, MissingExtraError

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
}


def import_onnxruntime() -> ModuleType:
    """The runtime, imported with its telemetry off.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"onnxruntime cannot be imported ({error}); install it with: pip install onnxruntime") from error
    return onnxruntime


class OnnxRunner:
    """A session with bound inputs and outputs; calling it runs the model once.

    Args:
        model: serialized model, or the path of one.
        feed: arrays by input name; absent inputs are random (seed 0), with free dimensions set to 1.
        threads: intra-op threads; inter-op is 1, execution sequential.
        provider: execution provider by name.
        nchw: keep the plain layout on x86 too, as the runtime does on Arm.

    Raises:
        MeasurementError: the runtime refuses the model or the provider.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        feed: Mapping[str, np.ndarray] | None = None,
        *,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
        nchw: bool = False,
    ) -> None:
        ort = import_onnxruntime()
        if provider not in ort.get_available_providers():
            raise MeasurementError(
                f"onnxruntime {ort.__version__} has no {provider} here; it has: {', '.join(ort.get_available_providers())}"
            )
        folder = tempfile.TemporaryDirectory(prefix="latency-tables-")
        optimized = os.path.join(folder.name, "optimized.onnx")
        options = self._options(ort, threads, provider, nchw)
        options.optimized_model_filepath = optimized
        try:
            source = bytes(model) if isinstance(model, (bytes, bytearray)) else str(model)
            self.session = ort.InferenceSession(source, options, providers=[provider])
            self.graph = op_histogram(Path(optimized).read_bytes()) if os.path.exists(optimized) else {}
        except Exception as error:  # the runtime raises a dozen classes of its own without a common root
            raise MeasurementError(f"onnxruntime cannot load the model on {provider}: {str(error)[:300]}") from error
        finally:
            folder.cleanup()
        if self.session.get_providers()[0] != provider:
            raise MeasurementError(f"asked for {provider}, onnxruntime took {self.session.get_providers()[0]}")
        self.threads = threads
        self.feed = self._fill(dict(feed or {}))
        self._binding = self.session.io_binding()
        for name, array in self.feed.items():
            self._binding.bind_cpu_input(name, array)
        for output in self.session.get_outputs():
            self._binding.bind_output(output.name, "cpu")

    @staticmethod
    def _options(ort: ModuleType, threads: int, provider: str, nchw: bool) -> SessionOptions:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if nchw:
            options.add_session_config_entry("optimization.disable_specified_optimizers", "NchwcTransformer")
        return options

    def _fill(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        arrays = {}
        for entry in self.session.get_inputs():
            dtype = TYPES.get(entry.type)
            shape = [size if isinstance(size, int) else 1 for size in entry.shape]
            if entry.name in feed:
                arrays[entry.name] = np.ascontiguousarray(feed.pop(entry.name))
            elif dtype is None:
                raise MeasurementError(f"input {entry.name} has type {entry.type}; give an array for it in feed")
            elif np.issubdtype(dtype, np.integer):
                arrays[entry.name] = rng.integers(0, 127, shape).astype(dtype)
            else:
                arrays[entry.name] = rng.normal(0, 1, shape).astype(dtype)
        if feed:
            raise MeasurementError(f"the model has no input {', '.join(sorted(feed))}; it has {', '.join(arrays)}")
        return arrays

    def __call__(self) -> None:
        self.session.run_with_iobinding(self._binding)

    def outputs(self) -> list[np.ndarray]:
        """The outputs of one run, copied."""
        self()
        return [np.array(value) for value in self._binding.copy_outputs_to_cpu()]


def op_histogram(model: bytes) -> dict[str, int]:
    """Node types of a serialized ONNX model and how often each occurs, without the ``onnx`` package.

    Reads the protobuf wire format: field 7 of the model is the graph, its field 1 a node, field 4 of that its type.
    """
    counts: collections.Counter = collections.Counter()
    for graph in _fields(model, 7):
        for node in _fields(graph, 1):
            counts.update(name.decode() for name in _fields(node, 4))
    return dict(sorted(counts.items()))


def _fields(data: bytes, wanted: int) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            size, at = _varint(data, at)
            if tag >> 3 == wanted:
                found.append(data[at : at + size])
            at += size
        else:
            at += 8 if kind == 1 else 4
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


@dataclass(frozen=True)
class Measurement:
    """A whole network timed on this machine; seconds.

    Attributes:
        latency_s: the table's statistic: median over rounds of the clean median, back to back.
        p50_s, p90_s, p99_s, min_s: of all back-to-back samples, clean or not.
        clean_share: share of samples that were not preempted, or None with several threads.
        samples_s: the raw samples of all rounds.
        paced: the same at a control period with sleeps, or None if it was not asked for.
        context: clock, warm-up, statistic, runtime, version, provider, threads, machine, graph.
    """

    latency_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    min_s: float
    clean_share: float | None
    samples_s: tuple[float, ...]
    paced: Paced | None
    context: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object."""
        return asdict(self)


def measure_network(
    model: bytes | str | Path,
    feed: Mapping[str, np.ndarray] | None = None,
    *,
    threads: int = 1,
    provider: str = "CPUExecutionProvider",
    rounds: int = 5,
    seconds: float = 2.0,
    period_s: float | None = 0.02,
    paced_seconds: float = 2.0,
) -> Measurement:
    """Time a whole network: back to back, and at a control period with sleeps between.

    Args:
        model, feed, threads, provider: see :class:`OnnxRunner`.
        rounds, seconds: so many visits, so long in total, back to back.
        period_s: control period in seconds; None leaves the paced mode out.
        paced_seconds: how long the paced mode runs.

    Raises:
        MeasurementError: the runtime refuses the model.
    """
    runner = OnnxRunner(model, feed, threads=threads, provider=provider)
    plan = VisitPlan(seconds=seconds / rounds, warmup_s=0.05)
    walls: list[float] = []
    medians: list[float] = []
    clean: list[bool] = []
    for _ in range(rounds):
        samples, inner = take_samples(runner, plan)
        flags = [threads > 1 or is_clean(wall * inner, cpu * inner) for wall, cpu in samples]
        kept = [wall for (wall, _), good in zip(samples, flags) if good] if sum(flags) >= 4 else [wall for wall, _ in samples]
        walls += [wall for wall, _ in samples]
        clean += flags
        medians.append(float(np.median(kept)))
    p50, p90, p99 = (float(v) for v in np.percentile(walls, (50, 90, 99)))
    context = {
        "clock": "perf_counter_ns",
        "warmup_s": plan.warmup_s,
        "rounds": rounds,
        "round_medians_s": medians,
        "statistic": "latency_s is the median over rounds of the clean median",
        "runtime": "onnxruntime",
        "runtime_version": import_onnxruntime().__version__,
        "provider": provider,
        "threads": threads,
        "machine": platform.machine(),
        "system": platform.system(),
        "graph": runner.graph,
    }
    rhythm = None if period_s is None else paced(runner, period_s=period_s, seconds=paced_seconds)
    share = None if threads > 1 else sum(clean) / len(clean)
    return Measurement(float(np.median(medians)), p50, p90, p99, min(walls), share, tuple(walls), rhythm, context)
