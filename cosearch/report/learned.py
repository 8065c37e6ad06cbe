"""What was learned from the teacher: whether a search's shared weights had learned anything, and which policy of it.

The first is what its ranking of networks rests on. It is measured by the divergence of the policies along the drawn paths from
the teacher's, which needs no other run to compare with. Searches that found good networks ended with 9 to 23 % of what they
began with, searches that were no better than random draws with 56 to 80 % (``docs/evidence/whole-searches.md``); the bound
between them was chosen on these.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from cosearch.record.metrics import Line, number
from cosearch.report.data import Run, flatten

UPDATES = 10  # at least: below, the first and the last tenth are no two things
MOST_LEFT = 0.5


def divergence_left(lines: Sequence[Line]) -> float | None:
    """Share of the divergence from the teacher that was left at the end of the search.

    Args:
        lines: of ``metrics.jsonl``, in order.

    Returns:
        The mean over the last tenth of the updates of the shared weights, over that of the first update: 0 or more. None for
        fewer than ``UPDATES`` of them, without a teacher that is distilled, and where candidates were trained by themselves.
    """
    shared = [line for line in lines if line["stage"] == "search" and "candidate" not in line]
    seen = [value for line in shared if (value := number(line, "distill_actor")) is not None]
    if len(seen) < UPDATES or seen[0] <= 0.0:
        return None
    return fmean(seen[-(len(seen) // UPDATES) :]) / seen[0]


def hardly_learned(run: Run) -> float | None:
    """The share of the divergence that was left, where that is more than ``MOST_LEFT``: the ranking then says little.

    Args:
        run: of any strategy.

    Returns:
        None where less was left, where :func:`divergence_left` is None, and where the actor's divergence was not learned from
        (``distill.actor=0``): then it need not fall.
    """
    weight = dict(flatten(run.record.config)).get("distill.actor")
    left = divergence_left(run.metrics)
    return left if weight and left is not None and left > MOST_LEFT else None


def tempered_teacher(run: Run) -> str:
    """What a share of the teacher's score does not say, where the agent learned another policy than the one that was scored.

    Args:
        run: with a teacher.

    Returns:
        One sentence; empty where ``distill.temperature`` is 1, or the actor was not learned from.
    """
    config = dict(flatten(run.record.config))
    temperature = config.get("distill.temperature", 1.0)
    if temperature == 1.0 or not config.get("distill.actor"):
        return ""
    return (
        f"The agent learned its teacher's policy at temperature {temperature}, and the teacher's score is of its policy as it "
        "is: a higher score than the teacher's does not say that the agent knows more."
    )
