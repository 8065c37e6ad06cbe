"""The part ``artifact`` of ``agent.json``: the file that is deployed, and what runs it.

Runtime, dtype, threads and batch are those of the table that priced the agent. ``onnxruntime`` loads an ONNX file, whose dtype
is inside it (int8: quantise and dequantise nodes around each operation; observations in and outputs stay as in float32). ``tvm``
loads a shared library that was compiled for one target.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        target: what TVM compiled for, its JSON text; None for other runtimes.
        tuned: whether TVM searched schedules; None for other runtimes.
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
    target: str | None = None
    tuned: bool | None = None

    @property
    def identity(self) -> str:
        """As in the name of a table: ``onnxruntime-int8-1t``."""
        return f"{self.runtime}-{self.dtype}-{self.threads}t"
