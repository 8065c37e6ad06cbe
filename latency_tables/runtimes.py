"""What the runtimes of devices can load: ONNX's operator sets by the version of ONNX Runtime, and devices that end at one."""

from __future__ import annotations

import re
from dataclasses import dataclass

FIRST_OF_OPSET = {  # of onnxruntime's compatibility table
    12: "1.3",
    13: "1.6",
    14: "1.8",
    15: "1.10",
    16: "1.11",
    17: "1.12",
    18: "1.14",
    19: "1.15",
    20: "1.17",
    21: "1.18",
}


@dataclass(frozen=True)
class RuntimeLimit:
    """The newest runtime of a device.

    Attributes:
        runtime, version: its name and version.
        opset: newest operator set that it loads.
        reason: why there is no newer one, with its source.
    """

    runtime: str
    version: str
    opset: int
    reason: str


LIMITS = {
    "jetson": RuntimeLimit("onnxruntime", "1.11", 16, "JetPack 4.6 is the last for this board (Jetson Zoo: onnxruntime 1.11)"),
}


def newest_opset(version: str) -> int | None:
    """The newest operator set that a version of ONNX Runtime loads; None where the version is none or older than any known.

    Args:
        version: such as ``1.11.1``.
    """
    parts = re.match(r"(\d+)\.(\d+)", version)
    if parts is None:
        return None
    known = [opset for opset, first in FIRST_OF_OPSET.items() if _number(first) <= (int(parts[1]), int(parts[2]))]
    return max(known, default=None)


def _number(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def limit_of(device: str, runtime: str, version: str | None) -> RuntimeLimit | None:
    """What the runtime of a device can load; None where nobody knows.

    Args:
        device: its name.
        runtime: of its table; an estimate names none that exists.
        version: of the runtime that its table was measured with; None where it was not.
    """
    if runtime == "onnxruntime" and version is not None:
        opset = newest_opset(version)
        return None if opset is None else RuntimeLimit(runtime, version, opset, "its table was measured with it")
    return LIMITS.get(device.partition("/")[0])
