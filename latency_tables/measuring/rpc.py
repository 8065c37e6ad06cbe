"""Measures TVM models on a board behind a TVM RPC tracker: compiled here for the board's target, run and timed there.

The same requests as those of the measuring core (``board.core``), answered through TVM's own RPC, so that the measuring loop
knows no difference. TVM's RPC is unauthenticated and executes what it is sent: keep tracker and server on loopback and
reach them through ``ssh -L``. Preempted samples cannot be told there, and no power is read.
"""

from __future__ import annotations

import math
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from latency_tables.board.compilers import compile_tvm, runtime_version, tvm_modules
from latency_tables.board.core import RequestFields
from latency_tables.board.timing import UNKNOWN_CLEAN, Visit, VisitPlan, summarise
from latency_tables.errors import MeasurementError, RequestError
from latency_tables.measuring.remote import Answer, Location, LostBoard, only
from latency_tables.text.reading import parse_json, shown

if TYPE_CHECKING:
    from tvm.relax import VirtualMachine

CONNECT_S = 10.0
SESSION_S = 3600


def read_address(text: str) -> tuple[str, int]:
    """``host:port`` as a pair.

    Raises:
        RequestError: it is something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise RequestError(f"tracker must look like 127.0.0.1:9190, got {text!r}")
    return host, int(port)


def read_tvm_target(text: str | None) -> dict[str, object] | None:
    """The board's TVM target as JSON, such as ``{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}``.

    Raises:
        RequestError: it is no JSON object with a kind.
    """
    if text is None:
        return None
    target = parse_json(text, f"tvm-target must be a JSON object, got {shown(text)}", RequestError)
    if not isinstance(target, dict) or not isinstance(target.get("kind"), str):
        raise RequestError(f'tvm-target must be a JSON object with a kind, such as {{"kind": "llvm"}}, got {shown(text)}')
    return target


class TrackerConnection:
    """One session with a device of a TVM RPC tracker.

    Args:
        location: with ``tracker``, ``tracker_key``, ``tvm_target`` and ``compiler``.

    Raises:
        MissingExtraError: TVM is not installed here.
        LostBoard: the tracker cannot be reached or has no such device.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._tvm, self._relax = tvm_modules()
        host, port = read_address(str(location.tracker))
        self._machines: dict[str, VirtualMachine] = {}
        self._sent = 0
        self._threads = 1
        try:
            socket.create_connection(
                (host, port), timeout=CONNECT_S
            ).close()  # TVM tries for a minute and leaves its sockets open
            tracker = self._tvm.rpc.connect_tracker(host, port)
            self._remote = tracker.request(location.tracker_key, session_timeout=SESSION_S)
            self._device = self._remote.cpu(0)
        except (OSError, RuntimeError, ValueError) as error:
            raise LostBoard(
                f"no device {location.tracker_key!r} at the TVM RPC tracker {location.tracker}: {str(error)[-200:]}; "
                f"start it on the board with: python3 -m tvm.exec.rpc_server --tracker HOST:PORT --key {location.tracker_key}"
            ) from error
        self._folder = tempfile.TemporaryDirectory(prefix="latency-tables-")

    def ask(self, verb: str, payload: bytes = b"", **values: Unpack[RequestFields]) -> Iterator[Answer]:
        """The answers to one request, see ``board.core.RequestFields``.

        Raises:
            LostBoard: the session ended.
            MeasurementError: the verb needs the measuring core on the board.
        """
        verbs: dict[str, Callable[[RequestFields, bytes], Iterator[Answer]]] = {
            "hello": self._hello, "load": self._load, "visit": self._visit, "state": self._state, "drop": self._drop,
        }  # fmt: skip
        if verb not in verbs:
            raise MeasurementError(
                f"TVM RPC does not support {verb} requests; use --host for a board with Python and the measuring core"
            )
        try:
            yield from verbs[verb](values, payload)
        except (OSError, RuntimeError, ValueError) as error:  # whatever TVM raises descends from one of these
            raise LostBoard(f"the TVM RPC session with {self.location.tracker_key} ended: {str(error)[-200:]}") from error

    def one(self, verb: str, payload: bytes = b"", **values: Unpack[RequestFields]) -> Answer:
        """The single answer to a request; see :meth:`ask`."""
        return only(self.ask(verb, payload, **values), verb, self.location.tracker_key)

    def close(self) -> None:
        """Give the device back to the tracker; safe to call twice."""
        self._machines.clear()
        self._remote = self._device = None
        self._folder.cleanup()

    def _hello(self, request: RequestFields, payload: bytes) -> Iterator[Answer]:
        self._threads = threads = request.get("threads", 1)
        compiled_for = self.location.tvm_target or {"kind": "llvm"}
        fixed: int | None = threads
        try:
            self._remote.get_function("runtime.config_threadpool")(1, threads)
        except (AttributeError, RuntimeError):
            fixed = None  # the server keeps its own number of threads; the header says that it was not fixed
        triple = str(compiled_for.get("mtriple", ""))
        yield {
            "fingerprint": {
                "machine": triple.split("-")[0] or None,
                "model": f"device {self.location.tracker_key} of a TVM RPC tracker",
                "cpu": compiled_for.get("mcpu"),
                "target": compiled_for,
            },
            "runtime_version": runtime_version("tvm"),
            "providers": [],
            "settings": {"threads": fixed},
            "power": None,
            "power_reason": "TVM RPC carries no power reading",
            "state": {"load": None},
        }

    def _load(self, request: RequestFields, payload: bytes) -> Iterator[Answer]:
        self._sent += 1
        library = f"model{self._sent}.so"
        name, path = request["id"], Path(self._folder.name) / library
        if "shape" in request:  # a library already, for one input of this shape
            path.write_bytes(payload)
            feed = np.zeros(request["shape"], request["element"])
        else:
            try:
                compiled, feed = compile_tvm(payload, threads=self._threads, target=self.location.tvm_target)
                compiled.export_library(str(path), **self._linker())
            except MeasurementError as error:
                yield {"id": name, "error": str(error)[:500]}
                return
        self._remote.upload(bytearray(path.read_bytes()), target=library)  # given a path, TVM leaves the file open
        machine = self._relax.VirtualMachine(self._remote.load_module(library), self._device)
        machine.set_input("main", self._tvm.runtime.tensor(feed, self._device))
        machine.invoke_stateful("main")
        path.unlink()
        self._machines[name] = machine
        yield {"id": name, "graph": {}}

    def _linker(self) -> dict[str, Callable[..., object]]:
        if self.location.compiler is None:
            return {}
        from tvm.support import cc

        return {"fcompile": cc.cross_compiler(self.location.compiler)}

    def bind(self, name: str, values: np.ndarray) -> None:
        """Make these values the input of a loaded model, of its shape and dtype.

        Raises:
            LostBoard: the session ended.
        """
        try:
            self._machines[name].set_input("main", self._tvm.runtime.tensor(np.ascontiguousarray(values), self._device))
        except (OSError, RuntimeError, ValueError) as error:
            raise LostBoard(f"the TVM RPC session with {self.location.tracker_key} ended: {str(error)[-200:]}") from error

    def outputs(self, name: str) -> list[np.ndarray]:
        """Outputs of one run of a loaded model, as arrays."""
        machine = self._machines[name]
        machine.invoke_stateful("main")
        values = machine.get_outputs("main")
        return [value.numpy() for value in (values if isinstance(values, (list, tuple)) else [values])]

    def _visit(self, request: RequestFields, payload: bytes) -> Iterator[Answer]:
        wanted, sentinel = VisitPlan.from_dict(request.get("plan", {})), request.get("sentinel", "")
        short = replace(wanted, seconds=wanted.seconds / 4, min_samples=5)
        for name in request["ids"]:
            if name not in self._machines:
                yield {"id": name, "unknown": True}
                continue
            before = self._time(sentinel, short).median_s if sentinel in self._machines else None
            seen = self._time(name, wanted)
            if before is not None:
                seen = replace(seen, sentinel_s=(before + self._time(sentinel, short).median_s) / 2)
            yield {"id": name, "visit": seen.to_dict(), "at_s": time.time()}

    def _time(self, name: str, plan: VisitPlan) -> Visit:
        machine = self._machines[name]

        def run(number: int, repeat: int) -> list[float]:
            timed = machine.time_evaluator("invoke_stateful", self._device, number=number, repeat=repeat)
            return [float(value) for value in timed("main").results]

        one_s = max(min(run(1, plan.warmup_calls)), 1e-9)
        inner = max(1, math.ceil(plan.min_sample_s / one_s))
        most = max(1, int(plan.max_seconds / (one_s * inner)))
        repeat = min(most, max(plan.min_samples, math.ceil(plan.seconds / (one_s * inner))))
        return summarise([(value, value) for value in run(inner, repeat)], inner, threads=UNKNOWN_CLEAN)

    def _state(self, request: RequestFields, payload: bytes) -> Iterator[Answer]:
        yield {"state": {"load": None}}

    def _drop(self, request: RequestFields, payload: bytes) -> Iterator[Answer]:
        for name in request["ids"]:
            self._machines.pop(name, None)
        yield {"models": len(self._machines)}
