"""Runs a library that TVM compiled, with TVM's runtime alone: no compiler is loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import numpy as np

from latency_tables.board.temporary import temporary_folder
from latency_tables.errors import MeasurementError, MissingExtraError

ENTRY = "main"


class LibraryRunner:
    """A library of TVM with a bound input; calling it runs it once.

    Args:
        library: content of the file.
        shape, element: of its one input: sizes with the batch, and dtype; random values (seed 0) until :meth:`bind`.
        threads: of TVM's pool.

    Raises:
        MissingExtraError: TVM is not installed.
        MeasurementError: the library is not for this processor, or takes another input.
    """

    def __init__(self, library: bytes, shape: Sequence[int], element: str, *, threads: int = 1) -> None:
        os.environ["TVM_NUM_THREADS"] = str(threads)
        os.environ.setdefault("TVM_BIND_THREADS", "0")  # the measuring core has pinned itself already
        if "tvm" not in sys.modules:
            os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
        try:
            import tvm
            from tvm.runtime.vm import VirtualMachine
        except ImportError as error:
            raise MissingExtraError(f"tvm cannot be imported ({error}); install it with: pip install 'cosearch[tvm]'") from error
        self._tvm, self._device = tvm, tvm.cpu()
        rng = np.random.default_rng(0)
        feed = rng.integers(0, 127, shape).astype(element) if element == "uint8" else rng.normal(0, 1, shape).astype(element)
        self.graph: dict[str, int] = {}
        with temporary_folder() as folder:
            path = folder / "agent.so"
            path.write_bytes(library)
            try:
                self._machine = VirtualMachine(tvm.runtime.load_module(str(path)), self._device)
                self.bind(feed)
                self()
            except Exception as error:  # TVM's errors have no common root
                raise MeasurementError(f"TVM cannot run the library: {str(error)[-300:]}") from error

    def bind(self, values: np.ndarray) -> None:
        """Make these values the input of the calls to come."""
        self._machine.set_input(ENTRY, self._tvm.runtime.tensor(np.ascontiguousarray(values)))

    def __call__(self) -> None:
        self._machine.invoke_stateful(ENTRY)

    def outputs(self) -> list[np.ndarray]:
        """The outputs of one run."""
        self()
        values = self._machine.get_outputs(ENTRY)
        return [value.numpy() for value in (values if isinstance(values, (list, tuple)) else [values])]

    def timer(self, number: int, repeat: int) -> Sequence[float]:
        """Seconds of a call by TVM's own timer: means over ``number`` calls, ``repeat`` of them."""
        timed: Callable[..., object] = self._machine.time_evaluator("invoke_stateful", self._device, number=number, repeat=repeat)
        return [float(value) for value in timed(ENTRY).results]  # type: ignore[attr-defined]  # TVM's result has no stub
