"""The part ``artifact`` of ``agent.json``: the file that is deployed, and what runs it.

Runtime, dtype, threads and batch are those of the table that priced the agent. ``onnxruntime`` loads an ONNX file, whose dtype
is inside it (int8: quantise and dequantise nodes around each operation; observations in and outputs stay as in float32). ``tvm``
loads a shared library that was compiled for one target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosearch.record.json_record import OMITTED

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ReturnRecord:
    """Returns of one form of the agent on held-out levels: their mean, its 95 % interval over the episodes, how many."""

    mean: float
    ci95: Interval | None
    episodes: int


@dataclass(frozen=True, kw_only=True)
class QuantisedRecord:
    """The int8 form beside the float32 one.

    Attributes:
        scheme: how numbers are rounded, in words.
        calibration_observations, calibration_sha256: of training levels, which the ranges were taken from; digest of their bytes.
        layers: convolutions and fully connected layers of the agent.
        float_layers: names of those that stay in float32, as the loss of the others was too large.
        layer_losses: the loss that was left with one layer alone in float32, by its name; empty where none had to be restored.
        loss_is: ``kl`` (nats an observation) or ``other actions`` (share of the observations).
        loss, loss_tolerance: over observations of training levels that took no part in the calibration.
        greedy_agreement: share of held-out observations with the same best action, 0..1.
        kl: mean divergence of the policy from the float32 one over them, nats.
        value_error: mean absolute difference of the values.
        compared_observations: how many held-out observations.
        score, float_score: both forms on the same held-out levels; in older runs layers went by them, too.
        score_difference_ci95: Welch's interval of int8 minus float32; None for fewer than two episodes.
        return_kept: whether that interval reaches zero; None without one.
        fine_tuned_steps: environment steps of the retraining that saw rounded weights and activations.
    """

    scheme: str
    calibration_observations: int
    calibration_sha256: str
    layers: int
    float_layers: tuple[str, ...]
    layer_losses: Mapping[str, float]
    loss_is: str
    loss: float
    loss_tolerance: float
    greedy_agreement: float
    kl: float
    value_error: float
    compared_observations: int
    score: ReturnRecord
    float_score: ReturnRecord
    score_difference_ci95: Interval | None
    return_kept: bool | None
    fine_tuned_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class CompiledRecord:
    """A library of TVM beside the ONNX file that it was compiled from.

    Attributes:
        target: what it was compiled for, TVM's JSON text.
        tuned: whether schedules were searched for.
        max_abs_difference, greedy_agreement, observations: against ONNX Runtime; None where this machine cannot run it.
        timer_p50_s: median of TVM's own timer on this machine, seconds; None where it cannot run it.
    """

    target: str
    tuned: bool
    max_abs_difference: float | None
    greedy_agreement: float | None
    observations: int
    timer_p50_s: float | None


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """What is deployed.

    Attributes:
        file: name in the run folder of the file that the runtime loads: ``agent.onnx``, or ``agent.so`` for TVM.
        source: name of the float32 ONNX file that it was made from; itself where that is what is deployed.
        runtime: ``onnxruntime`` or ``tvm``.
        runtime_version: that made or checked the file.
        dtype: ``float32``, ``float16`` or ``int8``.
        threads: CPU threads that the runtime is given, at least 1.
        batch: observations in one call, at least 1.
        bytes, sha256: size and digest of the file.
        quantised: of an int8 file.
        compiled: of a library.
    """

    file: str
    source: str
    runtime: str
    runtime_version: str
    dtype: str
    threads: int
    batch: int
    bytes: int
    sha256: str
    quantised: QuantisedRecord | None = field(default=None, metadata=OMITTED)
    compiled: CompiledRecord | None = field(default=None, metadata=OMITTED)

    @property
    def identity(self) -> str:
        """As in the name of a table: ``onnxruntime-int8-1t``."""
        return f"{self.runtime}-{self.dtype}-{self.threads}t"
