"""What is made of a run's agent for its device: the form that the device's table priced, checked before anything is searched."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from cosearch.planning.device.hardware import Hardware
from cosearch.space.space import SearchSpace
from latency_tables.board.compilers import tvm_modules
from latency_tables.errors import RequestError
from latency_tables.table import Table
from latency_tables.text.reading import shown

TRIPLE = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_.]+){1,3}")  # of a processor, such as aarch64-linux-gnu; never a path


@dataclass(frozen=True)
class ArtifactPlan:
    """The form of the exported agent.

    Attributes:
        runtime: ``onnxruntime`` or ``tvm``.
        dtype: ``float32`` or ``int8``.
        threads: CPU threads of the runtime.
        batch: observations in one call.
        target: TVM's description of the board; None for this processor.
        compiler: links TVM's code for the board; None: the one of this machine.
    """

    runtime: str = "onnxruntime"
    dtype: str = "float32"
    threads: int = 1
    batch: int = 1
    target: Mapping[str, object] | None = None
    compiler: str | None = None

    @property
    def identity(self) -> str:
        """As in the name of a table: ``onnxruntime-int8-1t``."""
        return f"{self.runtime}-{self.dtype}-{self.threads}t"


def check_parts(artifact: ArtifactPlan, space: SearchSpace) -> None:
    """Raise where the agents of a space cannot have the form of their device.

    Args:
        artifact: the form.
        space: the search space of the task.

    Raises:
        RequestError: observations of several parts, and a form of one input.
    """
    if space.parts and (artifact.runtime, artifact.dtype) != ("onnxruntime", "float32"):
        raise RequestError(
            f"observations of several parts ({', '.join(part.name for part in space.parts)}) are exported for ONNX Runtime in "
            f"float32 only, the device's table is of {artifact.identity}: choose its table of onnxruntime-float32"
        )


def plan_artifact(hardware: Hardware) -> ArtifactPlan:
    """The form that the hardware priced. Estimates, torch's tables and accelerators have no runtime of their own: float32 for
    ONNX Runtime on one thread, or in an estimate's dtype.

    Args:
        hardware: of the run.

    Raises:
        RequestError: no such form can be made here.
        MissingExtraError: TVM is needed and not installed.
    """
    if not isinstance(hardware, Table):
        return ArtifactPlan()
    device = hardware.device
    runtime = "tvm" if device.runtime == "tvm" else "onnxruntime"
    if device.dtype == "float16":
        raise RequestError(
            f"the table of {device.table_name} is of float16, and no agent is exported in it: ONNX Runtime on x86 computes "
            "such a file in float32. Search on the device's float32 or int8 table"
        )
    if runtime == "onnxruntime":
        return ArtifactPlan(runtime, device.dtype, device.threads, hardware.batch)
    if device.dtype != "float32":
        raise RequestError(
            f"the table of {device.table_name} is of {device.dtype}, and agents for TVM are compiled in float32: search on the "
            "device's TVM table of float32, or on ONNX Runtime's of int8"
        )
    software = hardware.header.get("software")
    if isinstance(software, dict) and software.get("tuned"):
        raise RequestError(
            f"the table of {device.table_name} is of tuned code, and agents for TVM are compiled without tuning: its latencies "
            "would not be theirs. Measure one of such code: `python -m latency_tables measure --runtime tvm --out TABLE.jsonl`"
        )
    tvm_modules()
    host = hardware.header.get("host")
    target = host.get("target") if isinstance(host, dict) else None
    compiler = None
    if isinstance(target, dict) and target.get("mtriple"):
        if not TRIPLE.fullmatch(str(target["mtriple"])):  # a program of this name is started
            raise RequestError(
                f"the table of {device.table_name} names the target {shown(target['mtriple'])}, which is no processor such as "
                "aarch64-linux-gnu: measure the table again with --tvm-target"
            )
        compiler = f"{target['mtriple']}-g++"
        if shutil.which(compiler) is None:
            raise RequestError(
                f"an agent for {target['mtriple']} needs {compiler}, which links what TVM compiles, and it is not here: install "
                f"it (Debian: apt install g++-{target['mtriple']})"
            )
    return ArtifactPlan(
        runtime, device.dtype, device.threads, hardware.batch, target if isinstance(target, dict) else None, compiler
    )
