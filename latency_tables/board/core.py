"""The measuring core on a board: requests in on stdin, one JSON line a result out on stdout, log on stderr.

A request is a 4-byte big-endian length, a JSON object of that length with the ``verb``, its fields (:class:`RequestFields`)
and the length ``payload`` of the model, and then the model. The core is started by ``measuring.remote`` over a pipe or
SSH, listens nowhere and ends with its input. It knows nothing of tables: the host chooses what to visit and in which
order, so a lost connection loses at most the visits under way.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TextIO, TypedDict

from latency_tables.board.runners import CPU, runtime_reason
from latency_tables.board.sensors import PowerSource, average_power, find_power_source, fingerprint, machine_state, read_text
from latency_tables.board.timing import UNKNOWN_CLEAN, VisitPlan, paced, visit
from latency_tables.errors import CosearchError

MAX_REQUEST_BYTES = 2**20
MAX_MODEL_BYTES = 2**28
SKIPPED_BYTES = 2**20  # of a model that is too long, at once


class RequestFields(TypedDict, total=False):
    """The fields of a request.

    ``hello``: ``runtime``, ``threads``, ``provider``, ``nchw`` (see ``OnnxRunner``), ``nice`` (wished priority), ``pin``
    (to the least busy processors). ``load``: ``id``, ``batch`` (where the model leaves it free), and of a library of TVM the
    ``shape`` and ``element`` (dtype) of its input. ``visit``: ``ids``, ``plan`` (see ``VisitPlan``), ``sentinel`` (a
    model timed around each visit). ``paced``: ``ids``, ``period_s``, ``seconds``, ``lead_s`` (see ``timing.paced``).
    ``energy``: ``ids``, ``seconds``, and ``root`` (of the file system with the sensors). ``drop``: ``ids``. ``state`` and
    ``memory`` (the peak of this process): nothing.
    """

    runtime: str
    threads: int
    provider: str
    nchw: bool
    nice: int
    pin: bool
    id: str
    batch: int
    shape: list[int]
    element: str
    ids: list[str]
    plan: dict[str, object]
    sentinel: str
    period_s: float
    seconds: float
    lead_s: float
    root: str


class RequestHandler:
    """Answers the requests of one connection and holds the models that were loaded through it."""

    def __init__(self) -> None:
        self.models: dict[str, Callable[[], object]] = {}
        self.threads = 1
        self.runtime = "onnxruntime"
        self.provider = CPU
        self.nchw = False

    def answer(self, verb: str, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        """The answers to one request; the last one has ``end`` true."""
        verbs: dict[str, Callable[[RequestFields, bytes], Iterator[dict[str, object]]]] = {
            "hello": self._hello,
            "load": self._load,
            "visit": self._visit,
            "paced": self._paced,
            "energy": self._energy,
            "state": self._state,
            "memory": self._memory,
            "drop": self._drop,
        }
        if verb not in verbs:
            yield {"error": f"unknown verb {verb!r}; known: {', '.join(sorted(verbs))}"}
        else:
            yield from verbs[verb](request, payload)
        yield {"end": True}

    def _hello(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        self.threads = int(request.get("threads", 1))
        self.runtime = request.get("runtime", "onnxruntime")
        self.provider = request.get("provider", CPU)
        self.nchw = request.get("nchw", False)
        fixed = {
            "nice": _be_nice(int(request["nice"])) if "nice" in request else None,
            "cores": _pin(self.threads) if request.get("pin") else None,
        }
        version, providers = self._versions()
        source, rail = find_power_source()
        yield {
            "fingerprint": fingerprint(),
            "runtime_version": version,
            "providers": providers,
            "settings": fixed,
            "power": None if source is None else source.name,
            "power_reason": rail,
            "state": machine_state(),
        }

    def _versions(self) -> tuple[str, list[str]]:
        if self.runtime != "onnxruntime":
            from latency_tables.board.compilers import runtime_version

            return runtime_version(self.runtime), []
        from latency_tables.board.runners import import_onnxruntime

        ort = import_onnxruntime()
        return ort.__version__, ort.get_available_providers()

    def _runner(self, request: RequestFields, payload: bytes) -> Callable[[], object]:
        if "shape" in request:
            from latency_tables.board.library import LibraryRunner

            return LibraryRunner(payload, request["shape"], request["element"], threads=self.threads)
        if self.runtime != "onnxruntime":
            from latency_tables.board.compilers import make_runner

            return make_runner(self.runtime, payload, threads=self.threads)
        from latency_tables.board.runners import OnnxRunner

        batch = request.get("batch", 1)
        return OnnxRunner(payload, threads=self.threads, provider=self.provider, nchw=self.nchw, batch=batch)

    def _load(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        name = request["id"]
        try:
            runner = self._runner(request, payload)
            runner()
        except Exception as error:  # noqa: BLE001  the runtimes' own classes have no common root
            own = isinstance(error, CosearchError)
            yield {"id": name, "error": str(error)[:500] if own else f"{type(error).__name__}: {runtime_reason(error)}"}
            return
        self.models[name] = runner
        yield {"id": name, "graph": getattr(runner, "graph", {})}

    def _visit(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        plan = VisitPlan.from_dict(request.get("plan", {}))
        sentinel = self.models.get(request.get("sentinel", ""))
        threads = self.threads if self.provider == CPU else UNKNOWN_CLEAN  # the thread waits for another processor
        for name in request["ids"]:
            if name not in self.models:
                yield {"id": name, "unknown": True}
                continue
            seen = visit(self.models[name], plan, threads=threads, sentinel=sentinel)
            yield {"id": name, "visit": seen.to_dict(), "at_s": time.time()}

    def _paced(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        for name in request["ids"]:
            if name not in self.models:
                yield {"id": name, "unknown": True}
                continue
            seen = paced(
                self.models[name],
                period_s=float(request["period_s"]),
                seconds=float(request["seconds"]),
                lead_s=float(request.get("lead_s", 0.0)),
            )
            yield {"id": name, "paced": seen.to_dict()}

    def _energy(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        source, reason = find_power_source(request.get("root", "/"))
        for name in request["ids"]:
            if name not in self.models:
                yield {"id": name, "unknown": True}
            elif source is None:
                yield {"id": name, "energy_j": None, "reason": reason}
            else:
                yield {"id": name, **_energy_of(source, self.models[name], float(request["seconds"]))}

    def _state(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        yield {"state": machine_state()}

    def _memory(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield {"peak_bytes": most if sys.platform == "darwin" else most * 1024}

    def _drop(self, request: RequestFields, payload: bytes) -> Iterator[dict[str, object]]:
        for name in request["ids"]:
            self.models.pop(name, None)
        yield {"models": len(self.models)}


def _energy_of(source: PowerSource, call: Callable[[], object], seconds: float) -> dict[str, object]:
    before = average_power(source, lambda: time.sleep(0.01), seconds / 2)
    busy = average_power(source, call, seconds)
    after = average_power(source, lambda: time.sleep(0.01), seconds / 2)
    if before is None or busy is None or after is None:
        return {"energy_j": None, "reason": "the sensor stopped answering"}
    idle_w = (before.power_w + after.power_w) / 2
    above_w = busy.power_w - idle_w
    if above_w <= 0:
        return {"energy_j": None, "reason": f"power under load ({busy.power_w:.3f} W) is not above idle ({idle_w:.3f} W)"}
    return {
        "energy_j": above_w * busy.window_s / busy.calls,
        "idle_w": idle_w,
        "power_w": busy.power_w,
        "samples": busy.samples,
        "calls": busy.calls,
    }


def _be_nice(level: int) -> int | None:
    try:
        return os.nice(level - os.nice(0))
    except OSError:
        return None  # not allowed; the header records that it was not fixed


def _pin(threads: int) -> list[int] | None:
    """Pin to the cores that were least busy during a fifth of a second; None where that is not possible."""

    def idle() -> dict[int, float]:
        lines = [
            line.split() for line in (read_text("/proc/stat") or "").splitlines() if line.startswith("cpu") and line[3].isdigit()
        ]
        return {int(parts[0][3:]): float(parts[4]) for parts in lines}

    try:
        allowed = os.sched_getaffinity(0)
        before = idle()
        time.sleep(0.2)
        gained = {core: value - before[core] for core, value in idle().items() if core in allowed and core in before}
        chosen = sorted(sorted(gained, key=lambda core: -gained[core])[:threads])
        if not chosen:
            return None
        os.sched_setaffinity(0, chosen)
        return chosen
    except (OSError, AttributeError, KeyError):
        return None


def serve(requests: BinaryIO, answers: TextIO) -> None:
    """Answer requests until the input ends."""
    handler = RequestHandler()
    while True:
        head = requests.read(4)
        if len(head) < 4:
            return
        size = struct.unpack(">I", head)[0]
        if size > MAX_REQUEST_BYTES:
            _write(answers, [{"error": f"a request of {size} bytes: expected at most {MAX_REQUEST_BYTES}"}, {"end": True}])
            return
        text = requests.read(size)
        if len(text) < size:
            return  # the connection was cut
        message = json.loads(text)
        verb, count = str(message.pop("verb", "")), int(message.pop("payload", 0))
        if not 0 <= count <= MAX_MODEL_BYTES:
            _write(answers, [{"error": f"a model of {count} bytes: expected at most {MAX_MODEL_BYTES}"}, {"end": True}])
            while count > 0 and requests.read(min(count, SKIPPED_BYTES)):
                count -= SKIPPED_BYTES
            continue
        payload = requests.read(count)
        if len(payload) < count:
            return
        _write(answers, handler.answer(verb, message, payload))


def _write(answers: TextIO, lines: Iterable[dict[str, object]]) -> None:
    for line in lines:
        answers.write(json.dumps(line, sort_keys=True) + "\n")
        answers.flush()


def main() -> None:
    """Serve this process's stdin; whatever a library prints goes to stderr and not between the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
