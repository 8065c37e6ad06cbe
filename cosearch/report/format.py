"""Numbers as people read them: the only place where seconds become milliseconds or microseconds.

Every function takes ``None`` for "nobody measured this" and says so in words.
"""

from __future__ import annotations

from collections.abc import Iterable

NOT_MEASURED, NOT_KNOWN = "not measured", "not known"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def truth_text(value: bool | None) -> str:
    """``yes`` or ``no``; None: it is not known."""
    return NOT_KNOWN if value is None else "yes" if value else "no"


def time_text(time_s: float | None) -> str:
    """A latency in seconds as ms or µs with three significant digits."""
    if time_s is None:
        return NOT_MEASURED
    scale, unit = time_unit([time_s])
    return f"{significant(time_s * scale)} {unit}"


def time_unit(times_s: Iterable[float]) -> tuple[float, str]:
    """Factor and unit that suit the largest of several latencies in seconds, so that they can share one axis."""
    return (1e3, "ms") if max((abs(time) for time in times_s), default=1.0) >= 1e-3 else (1e6, "µs")


def energy_text(energy_j: float | None) -> str:
    """An energy in joules as J, mJ or µJ; energy that nobody measured is not zero."""
    if energy_j is None:
        return NOT_MEASURED
    for scale, unit in ((1.0, "J"), (1e3, "mJ"), (1e6, "µJ")):
        if abs(energy_j) * scale >= 1.0 or unit == "µJ":
            return f"{significant(energy_j * scale)} {unit}"
    raise AssertionError("the last unit takes every energy")


def duration_text(wall_s: float | None) -> str:
    """A wall time in seconds as words: 42 s, 9 min 32 s, 3 h 05 min."""
    if wall_s is None:
        return NOT_MEASURED
    total = round(wall_s)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def count_text(count: float | None) -> str:
    """A count with a prefix: 950, 213 k, 12.3 M."""
    if count is None:
        return NOT_MEASURED
    for scale, prefix in _PREFIXES:
        if abs(count) >= scale * 0.9995:  # 999.5 k and more would print as 1000 k
            return f"{significant(count / scale)} {prefix}"
    return significant(count) if count != int(count) else str(int(count))


def share_text(share: float | None) -> str:
    """A fraction in percent; small ones keep a digit."""
    if share is None:
        return NOT_MEASURED
    percent = 100 * share
    return f"{percent:.1f} %" if 0 < abs(percent) < 9.95 else f"{percent:.0f} %"


def score_text(score: float | None) -> str:
    """A score, three significant digits, never fewer than one decimal below a hundred."""
    if score is None:
        return NOT_MEASURED
    return f"{score:.0f}" if abs(score) >= 99.95 else f"{score:.1f}" if abs(score) >= 9.995 else f"{score:.2f}"


def significant(value: float) -> str:
    """Three significant digits without exponent for 0.001 to 1e6, with exponent beyond."""
    if value == 0:
        return "0"
    size = abs(value)
    if not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:.{decimals}f}"


def plain_text(value: object) -> str:
    """Any JSON value as a cell of a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_text(item) for item in value) or "empty"
    return "empty" if value in ("", {}) else str(value)
