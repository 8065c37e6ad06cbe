"""One measurement from request to table file: what ``python -m latency_tables measure`` does, as a function.

Either a whole work list makes a new table, or single operations are added to an existing one. An interrupted job leaves
``FILE.journal`` behind, and the same request goes on from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from latency_tables.errors import RequestError, TableError
from latency_tables.header import measured_batch, read_device
from latency_tables.measuring.compose import compose_table
from latency_tables.measuring.identity import check_same_place, recorded_place
from latency_tables.measuring.journal import Journal
from latency_tables.measuring.loop import Measurer
from latency_tables.measuring.plan import EMPTY, MeasurePlan, make_plan
from latency_tables.measuring.remote import READINGS, Location
from latency_tables.measuring.settings import Settings
from latency_tables.opspec import DTYPE_BYTES, Device, OpSpec
from latency_tables.schema import Row, TableFile, read_table, write_table
from latency_tables.text.fields import object_of
from latency_tables.text.spans import check_span
from latency_tables.text.writing import check_destination, make_folder, one_clear_error, remove
from latency_tables.worklists import WorkList, join_worklists, load_worklist, make_worklist

SECONDS_A_VISIT = 0.05
MAX_BATCH, MAX_READING_S = 4096, 3600.0
RUNTIMES = {"onnxruntime": ("float32", "int8"), "torch": ("float32",), "tvm": ("float32", "int8")}  # dtypes that each can run
WORKLISTS = ("chain", "references")


@dataclass(frozen=True)
class MeasureRequest:
    """What to measure, and where.

    Attributes:
        out: the table file.
        device, description: name and words for the header; the description defaults to what the machine says.
        worklists: shipped names or files; the networks of the first one calibrate and certify. Empty: ``WORKLISTS``.
        keys: if given, only these operations, added to the table at ``out``, which has no usable row of them; the other
            options of a whole table are refused then.
        runtime, dtype, batch: part of the table's identity. The settings' ``provider`` and ``nchw`` go with onnxruntime only.
        provenance: ``measured``, or ``synthetic`` under emulation.
        again: replace an existing table.
        energy_seconds: time of the power reading a model under load, and as long again idle, where the board has a sensor; 0
            leaves energy out.
        period_s: also call each whole network once in so many seconds, with sleeps between, as a control loop does; those that a
            work list drew uniformly are left out.
        paced_seconds: so long for each network.
        location, settings: where and how.

    Raises:
        RequestError: a value out of its range, or one that has no effect; names all of them.
    """

    out: Path
    device: str = "this"
    description: str = ""
    worklists: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    runtime: str = "onnxruntime"
    dtype: str = "float32"
    batch: int = 1
    provenance: str = "measured"
    again: bool = False
    energy_seconds: float = 2.0
    period_s: float | None = None
    paced_seconds: float = 1.0
    location: Location = field(default_factory=Location)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        faults = []
        if self.runtime not in RUNTIMES:
            faults.append(f"runtime must be one of {', '.join(RUNTIMES)}, got {self.runtime!r}")
        dtypes = RUNTIMES.get(self.runtime, tuple(DTYPE_BYTES))
        if self.dtype not in dtypes:
            faults.append(f"dtype must be one of {', '.join(dtypes)} with runtime {self.runtime}, got {self.dtype!r}")
        if self.provenance not in ("measured", "synthetic"):
            faults.append(f"provenance of a measurement must be measured or synthetic, got {self.provenance!r}")
        if not 1 <= self.batch <= MAX_BATCH:
            faults.append(f"batch must be from 1 to {MAX_BATCH}, got {self.batch:.6g}")
        if not 0 <= self.energy_seconds <= MAX_READING_S:
            faults.append(f"energy-seconds must be from 0 to {MAX_READING_S:g}, got {self.energy_seconds:g}")
        if self.location.tracker is not None and (self.runtime != "tvm" or self.period_s is not None):
            faults.append("a tracker needs runtime tvm, and no period-s: calls at a period need the measuring core on the board")
        idle = [name for name in ("provider", "nchw") if getattr(self.settings, name) != getattr(Settings, name)]
        if self.runtime != "onnxruntime" and idle:
            faults.append(
                f"{' and '.join(idle)} would have no effect with runtime {self.runtime}: leave it out, or take onnxruntime"
            )
        whole = {"worklist": self.worklists, "description": self.description, "period-s": self.period_s, "again": self.again}
        unread = [name for name, value in whole.items() if value]
        if self.keys and unread:
            faults.append(f"{' and '.join(unread)} would have no effect with op, which adds rows to a table: leave it out")
        if self.period_s is not None and not 0 < self.period_s <= 10:
            faults.append(f"period-s must be above 0 and at most 10 seconds, got {self.period_s:g}")
        if not self.device or "/" in self.device:
            faults.append(f"device must be a name without slashes, got {self.device!r}")
        if faults:
            raise RequestError("; ".join(faults))

    def work(self) -> WorkList:
        """The operations and networks to measure.

        Raises:
            TableError: the work list is not valid, or a key is not an operation.
        """
        if self.keys:
            ops = [OpSpec.from_key(key) for key in self.keys]
            wrong = [op.key for op in ops if op.dtype != self.dtype or op.batch != self.batch]
            if wrong:
                raise RequestError(
                    f"{wrong[0]} is not of dtype {self.dtype} and batch {self.batch}; give --dtype and --batch as in the key"
                )
            return make_worklist("single operations", ops, [])
        lists = [load_worklist(name) for name in self.worklists or WORKLISTS]
        return join_worklists(lists).cast(dtype=self.dtype, batch=self.batch)

    def plan(self) -> MeasurePlan:
        """All models to time."""
        return make_plan(self.work(), seed=self.settings.seed)


def preview(request: MeasureRequest) -> dict[str, object]:
    """What a request would do: models, rows, networks and expected time.

    Raises:
        RequestError: it would not end within ten years.
        TableError: the work list is not valid, or a key is not an operation.
    """
    plan = request.plan()
    visits = sum(request.settings.least_visits(name) for name in plan.builders)
    base_s = check_span(f"rounds={request.settings.min_rounds} of {len(plan.builders)} models", visits, SECONDS_A_VISIT)
    if request.period_s is not None:
        base_s += request.paced_seconds * len(plan.calibration + plan.certificate)
    readings = f"energy-seconds={request.energy_seconds:g} of {len(_read_models(plan))} models"
    energy_s = check_span(readings, len(_read_models(plan)), READINGS * request.energy_seconds)
    return {
        "device": request.device,
        "host": request.location.host or request.location.tracker or "this machine",
        "runtime": request.runtime,
        "dtype": request.dtype,
        "threads": request.settings.threads,
        "batch": request.batch,
        "rows": len(plan.rows),
        "models": len(plan.builders),
        "calibration_networks": len(plan.calibration),
        "certificate_networks": len(plan.certificate),
        "expected_s_at_least": round(base_s, 1),
        "expected_s_at_most": round(max(base_s, request.settings.budget_s) + base_s / 2, 1),
        "expected_energy_s_with_a_sensor": round(energy_s, 1),
        "out": str(request.out),
    }


def run(
    request: MeasureRequest, *, progress: Callable[[int, int, str], None] = lambda done, total, text: None, command: str = ""
) -> TableFile:
    """Measure and write the table; resumes an interrupted run of the same request.

    Raises:
        TableError: a table is there already, or another measurement's journal, or the table to add to does not fit.
        RequestError: another process measures into the same file, or something that is no regular file is there.
        RunFailedError: the disk refuses the file.
        MeasurementError: the measurement failed; what was measured is kept.
    """
    out = request.out
    request.work()
    check_destination(out)  # now, not after the measurement
    _existing(request)
    make_folder(out.parent)
    lock = FileLock(str(out) + ".lock")
    with one_clear_error(out):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RequestError(f"another process is measuring into {out}; wait for it or choose another file") from error
    try:
        existing = _existing(request)  # again: until the lock was taken another process may have written it
        table = _measure(request, progress, command, None if existing is None else _estimator_of(existing))
        if existing is not None:
            table = _merged(existing, table)
        write_table(out, table)
        remove(Path(str(out) + ".journal"))
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # the table is whole; an empty lock file left behind is in nobody's way
            Path(str(out) + ".lock").unlink(missing_ok=True)
    return table


def _existing(request: MeasureRequest) -> TableFile | None:
    begun = Path(str(request.out) + ".journal").exists()
    if request.keys:
        existing = read_table(request.out)
        device = read_device(existing.header["device"], str(request.out))
        asked = _named(request.device, request.runtime, request.dtype, request.settings.threads, request.batch)
        have = _named(device.name, device.runtime, device.dtype, device.threads, measured_batch(existing.header) or 1)
        if asked != have or existing.header["provenance"] != request.provenance:
            raise TableError(
                f"{request.out} is a {existing.header['provenance']} table of {have}, "
                f"asked to add {request.provenance} rows of {asked}"
            )
        there = [key for key in request.keys if key in _usable(existing)]
        if there and not begun:
            raise TableError(
                f"{request.out} has a row of {there[0]}, which its certificate may stand on: leave this op out. To measure it "
                "anew, measure the whole table: give its work lists (--worklist) and --again in place of --op"
            )
        return existing
    if request.out.exists() and not request.again and not begun:
        raise TableError(f"{request.out} is there already; give --again to replace it, or another --out")
    return None


def _named(device: str, runtime: str, dtype: str, threads: int, batch: int) -> str:
    return f"({device}, {runtime}, {dtype}, {threads} thread{'s' * (threads > 1)}, batch {batch})"


def _measure(
    request: MeasureRequest, progress: Callable[[int, int, str], None], command: str, estimator: str | None
) -> TableFile:
    plan = request.plan()
    settings = dataclasses.asdict(request.settings)
    for changeable in ("budget_s", "max_rounds", "min_rounds", "tolerance", "nice", "pin"):
        settings.pop(changeable)
    identity = {
        "plan": plan.plan_id,
        "device": request.device,
        "runtime": request.runtime,
        "dtype": request.dtype,
        "host": request.location.host,
        "tracker": request.location.tracker,
        "provenance": request.provenance,
        "settings": settings,
        "readings": {
            "energy_seconds": request.energy_seconds,
            "period_s": request.period_s,
            "paced_seconds": request.paced_seconds,
        },
    }
    journal = Journal(Path(str(request.out) + ".journal"), identity)
    try:
        measurer = Measurer(plan, request.location, request.settings, journal, runtime=request.runtime, progress=progress)
        measurer.run()
        if request.energy_seconds > 0 and measurer.hello.power:
            measurer.energies(sorted(_read_models(plan) - set(journal.failed)), seconds=request.energy_seconds)
        if request.period_s is not None:
            running = [name for name, _ in (*plan.calibration, *plan.certificate) if name not in journal.failed]
            measurer.paced(running, period_s=request.period_s, seconds=request.paced_seconds)
        seen = measurer.measured()
        words = request.description or _words(seen.hello.fingerprint)
        device = Device(request.device, words, request.runtime, request.dtype, request.settings.threads)
        return compose_table(
            plan,
            seen,
            request.settings,
            device,
            space=request.work().space,
            command=command,
            provenance=request.provenance,
            estimator=estimator,
        )
    finally:
        journal.close()


def _read_models(plan: MeasurePlan) -> set[str]:
    """The models whose power is read where there is a sensor."""
    networks = {name for name, _ in (*plan.calibration, *plan.certificate)}
    return {EMPTY, *networks, *(name for row in plan.rows for name in (row.more, row.less) if name)}


def _words(fingerprint: Mapping[str, object]) -> str:
    model = (
        fingerprint.get("model")
        or f"{fingerprint.get('cores')} {'virtual ' * bool(fingerprint.get('virtual'))}cores, "
        f"{fingerprint.get('machine')}, {fingerprint.get('cpu')}"
    )
    isa = fingerprint.get("isa")
    return f"{model} ({', '.join(map(str, isa))})" if isinstance(isa, list) and isa else f"{model}"


def _estimator_of(existing: TableFile) -> str:
    """What operations are added by: the table's own, or the median, which ``paired`` is where no network is timed beside them."""
    return "min" if _part(existing, "calibration").get("estimator") == "min" else "median"


def _merged(existing: TableFile, added: TableFile) -> TableFile:
    old, new = recorded_place(existing.header), recorded_place(added.header)
    check_same_place(old, new, what="the table", advice="measure the whole table again")
    before = existing.header.get("additions", [])
    estimator = _part(added, "calibration").get("estimator")
    addition = {"created_utc": added.header["created_utc"], "keys": sorted(added.rows), "estimator": estimator}
    additions = [*(before if isinstance(before, list) else []), addition]
    rows = {**existing.rows, **added.rows, **_usable(existing)}  # a certificate may stand on them
    return TableFile({**existing.header, "additions": additions}, rows, existing.certificate)


def _usable(table: TableFile) -> dict[str, Row]:
    return {key: row for key, row in table.rows.items() if row.latency_s is not None}


def _part(table: TableFile, name: str) -> Mapping[str, object]:
    """An object inside the header; empty where it is absent."""
    return object_of(table.header.get(name, {}), f"the header's {name}", "what was recorded")
