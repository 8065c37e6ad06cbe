"""How long a piece of work takes, in words; what would take years is refused before it begins."""

from __future__ import annotations

from latency_tables.errors import RequestError

DAY_S = 86400.0
YEAR_S = 365.25 * DAY_S
MOST_S = 10 * YEAR_S


def span_text(seconds: float) -> str:
    """A time in minutes; in days or years where that is easier to believe.

    Args:
        seconds: at least 0.
    """
    days, years = seconds / DAY_S, seconds / YEAR_S
    if days > 730:
        return f"{years:,.0f} years" if years < 1e6 else f"{years:.1g} years"
    return f"{seconds / 60:.1f} min" if days < 2 else f"{days:,.1f} days"


def check_span(words: str, count: int, each_s: float) -> float:
    """Raise where some work would not end within ten years.

    Args:
        words: what was asked for, as it was typed.
        count: how many pieces that makes.
        each_s: seconds of one.

    Returns:
        The expected seconds.

    Raises:
        RequestError: says how long it would take.
    """
    seconds = min(count, 10**300) * each_s
    if seconds > MOST_S:
        raise RequestError(f"{words} takes {span_text(seconds)}; ask for less")
    return seconds
