"""Roofline estimate: what an operation would cost on a board nobody measured, from public figures.

One inference costs ``overhead + sum over kernels``. A kernel costs ``max(launch, work)`` or ``launch + work``, where work is
``max(FLOPs / (peak * utilisation), bytes / (bandwidth * utilisation))``: ``combine`` is ``max`` where launches overlap with
execution (a GPU fed by a slow CPU: small networks are bound by launches) and ``sum`` where one core does both. The
specification gives the source of each constant, or says "assumed". An estimate stays an estimate: ``provenance`` of such a
table is never ``measured``. Williams et al., 2009 (roofline).
"""

from __future__ import annotations

from dataclasses import dataclass

from latency_tables.errors import TableError
from latency_tables.opspec import DTYPE_BYTES, Layer, OpSpec
from latency_tables.text.fields import number, object_of, text_of

CONSTANTS = {
    "launch_s": "seconds to start one kernel",
    "peak_flops": "floating-point operations per second, one multiply-accumulate is two",
    "utilisation_conv": "share of the peak that a convolution reaches",
    "utilisation_dw": "share of the peak that a depthwise convolution reaches",
    "utilisation_fc": "share of the peak that a fully connected layer reaches",
    "bandwidth_bytes_per_s": "memory bandwidth",
    "utilisation_bandwidth": "share of the bandwidth that a kernel reaches",
    "power_w": "power above idle while it computes, or null",
}
COMBINE = ("max", "sum")


@dataclass(frozen=True)
class Roofline:
    """The constants of one device; see :data:`CONSTANTS` for what they are."""

    combine: str
    launch_s: float
    peak_flops: float
    utilisation_conv: float
    utilisation_dw: float
    utilisation_fc: float
    bandwidth_bytes_per_s: float
    utilisation_bandwidth: float
    power_w: float | None = None

    @classmethod
    def from_dict(cls, model: object) -> Roofline:
        """Read ``header["model"]``: ``{"kind", "combine", "constants": {name: {"value", "source"}}}``.

        Raises:
            TableError: a constant is absent, out of range or without a source.
        """
        if not isinstance(model, dict) or model.get("kind") != "roofline" or model.get("combine") not in COMBINE:
            raise TableError(f"model must be an object of kind roofline with combine {' or '.join(COMBINE)}, got {model!r:.80}")
        constants = model.get("constants")
        if not isinstance(constants, dict) or set(constants) != set(CONSTANTS):
            raise TableError(f"model.constants must be exactly {', '.join(CONSTANTS)}, got {constants!r:.80}")
        values: dict[str, float] = {}
        for name, constant in constants.items():
            where = f"model.constants.{name}"
            entry = object_of(constant, where, "value and source")
            text_of(entry, "source", where)
            if name != "power_w" or entry.get("value") is not None:
                high = 1.0 if name.startswith("utilisation") else 1e18
                values[name] = number(entry.get("value"), where, low=0, high=high, positive=name != "launch_s")
        return cls(model["combine"], **values)

    def kernel_s(self, layer: Layer, *, dtype: str = "float32", batch: int = 1) -> float:
        """Seconds of one kernel."""
        share = {"conv": self.utilisation_conv, "dw": self.utilisation_dw, "fc": self.utilisation_fc}.get(layer.kind)
        compute = 2 * batch * layer.macs / (self.peak_flops * share) if share else 0.0
        size = DTYPE_BYTES[dtype]
        moved = size * (batch * (layer.elements_in + layer.elements_out) + layer.params)
        memory = moved / (self.bandwidth_bytes_per_s * self.utilisation_bandwidth)
        parts = (compute, memory)
        return max(self.launch_s, *parts) if self.combine == "max" else self.launch_s + max(parts)

    def latency_s(self, op: OpSpec) -> float:
        """Seconds of a fused block: the sum of its kernels."""
        return sum(self.kernel_s(layer, dtype=op.dtype, batch=op.batch) for layer in op.layers())
