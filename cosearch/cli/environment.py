"""Process settings that must be in place before torch or onnxruntime are imported."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def prepare_process() -> None:
    """Set what only works before the heavy imports; values that the user has set are kept.

    ``OMP_WAIT_POLICY=passive``: waiting threads sleep instead of burning a core that the environments need (measured: 60 % more
    throughput as soon as anything else runs). ``ORT_DISABLE_TELEMETRY``: nothing leaves the machine.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_memory()


def keep_memory() -> bool:
    """Let the C library keep large blocks for the next use instead of handing each back to the system.

    Every activation of a network is such a block: handed back, its pages are cleared and mapped anew at the next operation
    (measured: 145,000 page faults for an update of 4,096 frames; without them a Nature-CNN trains 18 to 20 % faster).

    Returns:
        Whether it did: only with the GNU C library, and not where the user has set ``MALLOC_...`` variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return all([set_option(M_MMAP_THRESHOLD, 1 << 30), set_option(M_TRIM_THRESHOLD, (1 << 31) - 1)])


def find_modules_here() -> None:
    """Let environments lie in the current folder, as ``python -m cosearch`` does: last, so that nothing there hides a package."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def as_typed(text: str) -> str:
    """A message whose commands can be typed as this program was started: ``python -m cosearch`` needs no script on the path."""
    started = Path(sys.argv[0]) if sys.argv else Path()
    return text.replace("`cosearch ", "`python -m cosearch ") if started.parts[-2:] == ("cosearch", "__main__.py") else text
