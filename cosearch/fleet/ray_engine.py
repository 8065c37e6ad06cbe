"""The engine of a cluster: Ray places pieces of work on its nodes, tries lost ones again, and carries jobs and results.

Everything that schedules, retries, stores and carries is Ray's: a piece is a task with its resources and ``TRIES - 1`` retries,
messages come through Ray's own queue, an actor on the driver's node, which may take them in another order than they were sent in
(it is an asynchronous actor): each has its number, and waits for those before it. A result is handed out once all messages of its
attempt are; those of an attempt that was lost are dropped as soon as the next one has begun. A piece that a lost driver had asked
for ends with it: Ray stops the work of a driver that is gone.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosearch.fleet.identity import Identity, check_identity, identity_here, package_folders
from cosearch.fleet.work import (
    TRIES,
    Event,
    Function,
    Lost,
    Needs,
    Sent,
    Started,
    Waits,
    Work,
    answer_of,
    ended,
    is_broken,
)
from latency_tables.errors import ConfigError, MissingExtraError, RequestError, RunFailedError

if TYPE_CHECKING:
    from types import ModuleType

LOCAL = "local"
CONNECT_S = 10.0
MOST_SENT = 100  # messages that a piece remembers before it forgets those that have arrived
PASSED_ON = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "ORT_DISABLE_TELEMETRY", "TF_CPP_MIN_LOG_LEVEL", "CUBLAS_WORKSPACE_CONFIG")


@dataclass
class _Piece:
    """A piece of work that was given to Ray.

    Attributes:
        work: what was asked for.
        number: of its submission.
        ref: of its result.
        attempt: the newest one that was heard of.
        early: of each attempt the messages that wait for those before them, by number.
        told: of each attempt how many messages were handed out or dropped.
        answer: attempt, number of its messages, and answer; None while it is under way.
    """

    work: Work
    number: int
    ref: Any
    attempt: str = ""
    early: dict[str, dict[int, tuple[str, Any]]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    answer: tuple[str, int, tuple[str, Any]] | None = None


class RayEngine:
    """An engine of tasks on a Ray cluster.

    Args:
        address: ``local``: a cluster of this machine alone, on its loopback interface, that ends with this process; else that
            of a cluster that runs already, ``HOST:PORT`` or ``auto``.
        most: pieces at once at most; None: as many as the cluster has room for.
        files: folder that each process on other machines finds as its current one; None: none.
        other_torch: see ``cosearch.fleet.identity.check_identity``.

    Raises:
        MissingExtraError: Ray is not installed.
        RequestError: there is no cluster at that address, or it has other versions of Python or Ray.
    """

    def __init__(self, address: str, *, most: int | None = None, files: Path | None = None, other_torch: bool = False) -> None:
        self._ray, self._address, self._most, self._other_torch = ray_module(address), address, most, other_torch
        self._own = identity_here()
        self._connect(files)
        self._task = self._ray.remote(_do)
        queue, scheduling = _parts()
        here = scheduling(node_id=self._ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._message = self._queue.actor.get.remote()
        self._waiting: deque[Work] = deque()
        self._pieces: dict[str, _Piece] = {}
        self._events: deque[Event] = deque()
        self._broke = set[str]()
        self._waits = set[Needs]()  # what was told that nothing has
        self._number, self._open = 0, True

    def _connect(self, files: Path | None) -> None:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if self._address == LOCAL:
            options |= {"include_dashboard": False, "runtime_env": {"env_vars": environment}}
        else:
            code = [str(folder) for folder in package_folders()]
            options["runtime_env"] = {"env_vars": environment, "py_modules": code, "excludes": ["__pycache__"]}
            if files is not None:
                options["runtime_env"]["working_dir"] = str(files)
        if self._ray.is_initialized():
            raise RequestError("Ray runs already in this process: call ray.shutdown() first")
        try:
            _answers(self._address)
            self._ray.init(address=self._address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise RequestError(
                f"--cluster {self._address}: no Ray cluster can be used there: {error}. `ray start --head` on its first machine "
                "and `ray start --address HOST:6379` on this one make one; --cluster local uses this machine alone"
            ) from error

    def submit(self, work: Work) -> None:
        """See ``Engine``.

        Raises:
            ValueError: a piece of that name is under way.
            RequestError: no node has its board; or, of a cluster of this machine alone, as many cores or GPUs. Another cluster
                may grow: what no node of it has is told once.
        """
        if work.name in self._pieces or any(work.name == other.name for other in self._waiting):
            raise ValueError(f"{work.name} is under way already")
        self._check(work)
        self._waiting.append(work)

    def _check(self, work: Work) -> None:
        needs = work.needs
        board = f"board:{needs.board}"
        if needs.board and board not in self._ray.cluster_resources():
            raise RequestError(
                f"{work.name}: no node of the cluster has the board {needs.board}; on the machine that it is attached to: "
                f"""`ray start --address HOST:6379 --resources '{{"{board}": 1}}'`"""
            )
        nodes = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
        wants = {"CPU": needs.cores, "GPU": needs.gpus, **({board: 1.0} if needs.board else {})}
        if needs in self._waits or any(all(node.get(key, 0.0) >= much for key, much in wants.items()) for node in nodes):
            return
        sizes = [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes if not needs.board or board in node]
        cores, gpus = max(sizes, key=lambda size: size[::-1] if needs.gpus else size, default=(0.0, 0.0))
        if self._address == LOCAL:
            raise RequestError(
                f"{work.name} needs {needs.cores:g} cores and {needs.gpus:g} GPUs, this machine has {cores:g} and {gpus:g}; set "
                "threads or strategy.workers lower, or give a larger cluster with --cluster ADDRESS"
            )
        self._waits.add(needs)
        reason = (
            f"it waits for a node with {needs.cores:g} cores and {needs.gpus:g} GPUs, the largest has {cores:g} and {gpus:g}: "
            "add one with `ray start --address HOST:6379`, or set threads or strategy.workers lower"
        )
        self._events.append(Waits(work.name, reason))

    def next(self, timeout_s: float | None = None) -> Event | None:
        """See ``Engine``: waits for ``timeout_s`` seconds at most."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._events:
            self._begin()
            if not self._pieces:
                return None
            under_way = {piece.ref: piece for piece in self._pieces.values() if piece.answer is None}
            left = None if until is None else max(0.0, until - time.monotonic())
            ready, _ = self._ray.wait([self._message, *under_way], num_returns=1, timeout=left)
            if not ready and left is not None:
                return None
            for ref in ready:
                if ref == self._message:
                    self._hear(*self._ray.get(ref))
                    self._message = self._queue.actor.get.remote()
                else:
                    self._end(under_way[ref])
        return self._events.popleft()

    def cancel(self, name: str) -> None:
        """See ``Engine``."""
        self._waiting = deque(work for work in self._waiting if work.name != name)
        self._events = deque(event for event in self._events if event.name != name)
        piece = self._pieces.pop(name, None)
        if piece is not None and piece.answer is None:
            self._ray.cancel(piece.ref, force=True)

    def close(self) -> None:
        """See ``Engine``; leaves the cluster."""
        if self._open:
            for name in list(self._pieces):
                self.cancel(name)
            self._ray.shutdown()
        self._waiting.clear()
        self._events.clear()
        self._open = False

    def _begin(self) -> None:
        while self._waiting and (self._most is None or len(self._pieces) < self._most):
            work = self._waiting.popleft()
            self._number += 1
            options = {**_resources(work.needs), "max_retries": TRIES - 1, "retry_exceptions": False, "name": work.name}
            if work.name in self._broke:  # Ray keeps a process for each environment: this piece gets one that is not broken
                options["runtime_env"] = {"env_vars": {"COSEARCH_TRY": str(self._number)}}
            ref = self._task.options(**options).remote(
                self._queue, (work.name, self._number), work.function, work.job, self._own, self._other_torch
            )
            self._pieces[work.name] = _Piece(work, self._number, ref)

    def _hear(self, key: tuple[str, int], attempt: str, number: int, kind: str, content: Any) -> None:
        piece = self._pieces.get(key[0])
        if piece is None or piece.number != key[1]:
            return  # of a piece that was cancelled
        early = piece.early.setdefault(attempt, {})
        early[number] = kind, content
        while piece.told[attempt] in early:
            kind, content = early.pop(piece.told[attempt])
            piece.told[attempt] += 1
            if kind == "started":
                piece.attempt = attempt
                self._events.append(Started(key[0], content))
            elif attempt == piece.attempt:
                self._events.append(Sent(key[0], content))
        self._hand_out(piece)

    def _end(self, piece: _Piece) -> None:
        exceptions = self._ray.exceptions
        try:
            piece.answer = self._ray.get(piece.ref)
        except exceptions.RayTaskError as error:  # before the function began: it cannot be imported there, for one
            piece.answer = piece.attempt, 0, ("error", RunFailedError(f"{piece.work.name} could not be begun: {error}"))
        except exceptions.RayError as error:
            del self._pieces[piece.work.name]
            said = str(error).strip().split("\n")[0]
            reason = f"its process was lost {TRIES} times, the last time: {type(error).__name__}: {said}"
            self._events.append(Lost(piece.work.name, reason))
            return
        self._hand_out(piece)

    def _hand_out(self, piece: _Piece) -> None:
        """Hand a result out where all messages of its attempt have been."""
        if piece.answer is not None and piece.told[piece.answer[0]] >= piece.answer[1]:
            event = ended(piece.work.name, piece.answer[2])
            del self._pieces[event.name]
            if is_broken(event):
                self._broke.add(event.name)
            self._events.append(event)


def _do(
    queue: Any, key: tuple[str, int], function: Function, job: Any, driver: Identity, other_torch: bool
) -> tuple[str, int, tuple[str, Any]]:
    """A piece of work on a node: its attempt, how many messages it sent, and its answer."""
    import ray  # it is here: this is one of its tasks

    attempt, count, sent = uuid.uuid4().hex, 0, list[Any]()

    def put(kind: str, content: Any) -> None:
        nonlocal count
        if len(sent) > MOST_SENT:
            sent[:] = ray.wait(sent, num_returns=len(sent), timeout=0)[1]
        sent.append(queue.actor.put_nowait.remote((key, attempt, count, kind, content)))
        count += 1

    def arrived() -> None:  # asks again and again: Ray gives the core of a task that waits to another one
        while len(ray.wait(sent, num_returns=len(sent), timeout=0)[0]) < len(sent):
            time.sleep(0.002)
        sent.clear()

    put("started", f"{os.uname().nodename}, process {os.getpid()}")
    arrived()
    try:
        check_identity(driver, other_torch=other_torch)
        answer = answer_of(function, job, lambda message: put("message", message))
    except ConfigError as error:
        answer = ("error", error)
    arrived()
    return attempt, count, answer


def _resources(needs: Needs) -> dict[str, Any]:
    """What Ray is to keep for a piece."""
    return {
        "num_cpus": needs.cores,
        "num_gpus": needs.gpus,
        "memory": needs.memory_bytes or None,
        "resources": {f"board:{needs.board}": 1} if needs.board else {},
    }


def ray_module(address: str) -> ModuleType:
    """Ray, told to report nothing to anybody; a cluster that this process starts also stays on its loopback interface.

    Such a cluster also asks for a token that only this process and those that it starts have. One that was started elsewhere
    has its own settings.

    Args:
        address: of the cluster.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:  # Ray reads these when it is imported
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # as on those systems: its address is 127.0.0.1
        os.environ.setdefault("RAY_worker_niceness", "0")  # as processes without Ray; Ray's default leaves them what others leave
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "--cluster needs Ray: `pip install 'cosearch[ray]'`, here and on every machine of the cluster"
        ) from error
    # it would print what it did about lost processes among our results; there is no option for this
    ray._private.worker.print_to_stdstream = lambda *words, **options: None
    return ray


def _answers(address: str) -> None:
    """Look whether anybody answers at ``HOST:PORT``: Ray would try for minutes, silently."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


def _parts() -> tuple[Any, Any]:
    """Ray's queue and its placement on one node."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return Queue, NodeAffinitySchedulingStrategy
