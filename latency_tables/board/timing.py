"""Times a callable: visits, clean samples, percentiles.

A *visit* warms up, then times calls for a short while. Wall time and the thread's CPU time are read around each sample:
where the thread waited (wall - CPU above 1 us and 1 %) it was preempted, and the sample is dropped for that cause and
not by percentile. With more than one thread, and where the thread waits for another processor, CPU time cannot tell, so
nothing is dropped. A table's value comes
from the clean medians of several visits in random order.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

CLEAN_FLOOR_S = 1e-6
CLEAN_SHARE_OF_WALL = 0.01
MIN_CLEAN = 4
UNKNOWN_CLEAN = 2  # more than one thread: :func:`summarise` drops nothing and claims nothing about preemption


@dataclass(frozen=True)
class VisitPlan:
    """How long one visit lasts.

    Attributes:
        seconds: time of the timed part.
        min_samples: at least so many samples, however long they take.
        max_seconds: stop there even with fewer samples.
        warmup_calls, warmup_s: at least so many calls, and so long.
        min_sample_s: shorter calls are repeated inside one sample until it lasts this long.
    """

    seconds: float = 0.025
    min_samples: int = 8
    max_seconds: float = 20.0
    warmup_calls: int = 3
    warmup_s: float = 0.003
    min_sample_s: float = 2e-5

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> VisitPlan:
        """The plan that :meth:`to_dict` wrote; what it does not name has its default.

        Raises:
            TypeError: it is something else.
        """
        return cls(**_numbers(cls, values, "a plan of a visit"))


@dataclass(frozen=True)
class Visit:
    """What one visit saw, seconds a call.

    Attributes:
        median_s: clean median (all samples where fewer than four are clean).
        low_s, high_s: 95 % interval of that median by order statistics.
        min_s, p10_s, p90_s, p99_s: of all samples.
        samples, inner: number of samples, and calls inside each.
        clean_share: share of samples that were not preempted; None where nothing tells (see above).
        sentinel_s: what a fixed model took just before and after, or None.
    """

    median_s: float
    low_s: float
    high_s: float
    min_s: float
    p10_s: float
    p90_s: float
    p99_s: float
    samples: int
    inner: int
    clean_share: float | None
    sentinel_s: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Visit:
        """The visit that :meth:`to_dict` wrote.

        Raises:
            TypeError: it is something else.
        """
        return cls(**_numbers(cls, values, "a visit"))

    def at(self, reference_s: float) -> Visit:
        """The same visit as on a machine whose sentinel takes ``reference_s`` seconds; itself without a sentinel."""
        if not self.sentinel_s:
            return self
        times = {f.name: getattr(self, f.name) * reference_s / self.sentinel_s for f in fields(self) if f.name.endswith("_s")}
        return replace(self, **times)


def take_samples(
    call: Callable[[], object],
    plan: VisitPlan,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
    cpu_clock: Callable[[], int] = time.thread_time_ns,
) -> tuple[list[tuple[float, float]], int]:
    """Warm up, then time ``call``.

    Returns:
        ``[(wall_s, cpu_s), ...]`` a call, and the number of calls inside each sample.
    """
    start = clock()
    calls = 0
    while calls < plan.warmup_calls or (clock() - start) < plan.warmup_s * 1e9:
        call()
        calls += 1
    one = clock()
    call()
    one_s = max((clock() - one) * 1e-9, 1e-9)
    inner = max(1, math.ceil(plan.min_sample_s / one_s))
    repeats = range(inner)
    samples: list[tuple[float, float]] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        elapsed = 0.0
        while (elapsed < plan.seconds or len(samples) < plan.min_samples) and elapsed < plan.max_seconds:
            cpu_before = cpu_clock()
            before = clock()
            for _ in repeats:
                call()
            after = clock()
            cpu_after = cpu_clock()
            samples.append(((after - before) * 1e-9 / inner, (cpu_after - cpu_before) * 1e-9 / inner))
            elapsed = (after - start) * 1e-9
    finally:
        if collecting:
            gc.enable()
    return samples, inner


def is_clean(wall_s: float, cpu_s: float) -> bool:
    """Whether a sample (seconds of wall and CPU time) was not preempted: it waited less than 1 us or 1 % of its time."""
    return wall_s - cpu_s < max(CLEAN_FLOOR_S, CLEAN_SHARE_OF_WALL * wall_s)


def summarise(samples: Sequence[tuple[float, float]], inner: int, *, threads: int = 1) -> Visit:
    """The statistics of one visit.

    Args:
        samples: ``(wall_s, cpu_s)`` each.
        inner: calls inside one sample.
        threads: with more than one (:data:`UNKNOWN_CLEAN`), no sample can be told to be preempted.
    """
    walls = np.array([wall for wall, _ in samples], dtype=np.float64)
    clean = walls
    share: float | None = None
    if threads == 1:
        flags = np.array([is_clean(wall * inner, cpu * inner) for wall, cpu in samples])
        share = float(flags.mean())
        if flags.sum() >= MIN_CLEAN:
            clean = walls[flags]
    low, high = median_interval(clean)
    p10, p90, p99 = (float(v) for v in np.percentile(walls, (10, 90, 99)))
    return Visit(float(np.median(clean)), low, high, float(walls.min()), p10, p90, p99, len(walls), inner, share)


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % interval of a median by order statistics (normal approximation of the binomial ranks).

    Returns:
        ``(low, high)``; the extremes where there are too few values for ranks inside them.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count = len(ordered)
    half = 1.96 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - half) - 1)
    high = min(count - 1, math.ceil(count / 2 + half))
    return float(ordered[low]), float(ordered[high])


def visit(
    call: Callable[[], object], plan: VisitPlan, *, threads: int = 1, sentinel: Callable[[], object] | None = None
) -> Visit:
    """One visit of a callable, with short ones of a sentinel before and after."""
    if sentinel is None:
        return summarise(*take_samples(call, plan), threads=threads)
    short = replace(plan, seconds=plan.seconds / 4, min_samples=5)
    before = summarise(*take_samples(sentinel, short), threads=threads).median_s
    seen = summarise(*take_samples(call, plan), threads=threads)
    after = summarise(*take_samples(sentinel, short), threads=threads).median_s
    return replace(seen, sentinel_s=(before + after) / 2)


@dataclass(frozen=True)
class Paced:
    """Calls at a fixed period with sleeps between, as a control loop makes them; seconds.

    Attributes:
        missed: calls that had not ended when the next one was due.
    """

    period_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    samples: int
    missed: int

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Paced:
        """What :meth:`to_dict` wrote.

        Raises:
            TypeError: it is something else.
        """
        return cls(**_numbers(cls, values, "paced calls"))


def paced(
    call: Callable[[], object],
    *,
    period_s: float,
    seconds: float,
    lead_s: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Paced:
    """Call once a period and sleep between, for ``seconds`` (at least five periods).

    With ``lead_s`` seconds it wakes so much earlier, makes one call that is not timed, which brings the model's data and code
    back into the caches, and waits for the moment without sleeping.
    """
    count = max(5, int(seconds / period_s))
    call()
    walls: list[float] = []
    missed = 0
    due = clock() + period_s
    for _ in range(count):
        wait = due - lead_s - clock()
        if wait > 0:
            sleep(wait)
        if lead_s:
            call()
            while clock() < due:
                pass
        before = clock()
        call()
        after = clock()
        walls.append(after - before)
        due += period_s
        if after > due:
            missed += 1
            due = after + period_s  # the missed slot is not made up for
    p50, p90, p99 = (float(v) for v in np.percentile(walls, (50, 90, 99)))
    return Paced(period_s, p50, p90, p99, float(max(walls)), len(walls), missed)


def _numbers(record: type, values: object, what: str) -> dict[str, Any]:
    """A JSON object as keyword arguments of a record of numbers of at least 0; null only where the record allows it."""
    if not isinstance(values, dict):
        raise TypeError(f"{what} must be a JSON object of numbers, got {values!r:.80}")
    kinds = {f.name: str(f.type) for f in fields(record)}  # as they are written: an annotation is text here
    for name, value in values.items():
        kind = kinds.get(name, "absent")
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
        if not (type(value) is int and value >= 0 if kind == "int" else number or (value is None and "None" in kind)):
            raise TypeError(f"{what}: {name!r:.40} must be {'a whole number' if kind == 'int' else 'a number'} of at least 0")
    return values
