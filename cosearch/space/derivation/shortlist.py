"""The few best architectures of a space under its limits, each another network: what a short comparison begins with."""

from __future__ import annotations

from collections.abc import Sequence

from cosearch.space.derivation.derive import Limit, discretise
from cosearch.space.derivation.largest import largest
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.errors import InfeasibleTargetError

MOST_TRIES = 20  # architectures looked at for each place on the list: many choices may build one network


def shortlist(space: SearchSpace, scores: Sequence[Sequence[float]], *limits: Limit, count: int) -> list[Architecture]:
    """The architectures with the highest scores, and in the last places the largest networks; no network twice.

    The last places are those of the free rules, so that what the scores find is compared with them: the most
    multiply-accumulates within the limits and, on a list of three or more, the largest product of them and the weights. Where a
    rule's network is among the best already, the next best has its place.

    Args:
        space: the search space.
        scores: for each point one score a candidate.
        *limits: bounds that hold together.
        count: length of the list, at least 1; shorter where fewer networks meet the limits, or ``MOST_TRIES`` times as many
            architectures build too few.

    Returns:
        The best first; the first one is what ``discretise`` gives.

    Raises:
        InfeasibleTargetError: no architecture meets the limits.
    """
    found = [discretise(space, scores, *limits)]
    if count == 1:
        return found
    seen = list(found)
    while len(found) < count and len(seen) < MOST_TRIES * count:
        try:
            following = discretise(space, scores, *limits, without=seen)
        except InfeasibleTargetError:
            break
        seen.append(following)
        if _new(following, found):
            found.append(following)
    rules = [largest(space, *limits, by="macs"), *([largest(space, *limits, by="both")] if count > 2 else [])]
    return beside(found, rules, count)


def beside(found: Sequence[Architecture], rules: Sequence[Architecture], count: int) -> list[Architecture]:
    """The first of a list, and those of the rules that are not among them in its last places; no network twice.

    Args:
        found: different networks, the best first.
        rules: fewer than ``count``.
        count: length of the list that is made, shorter where there are too few.
    """
    last: list[Architecture] = []
    for rule in rules:
        if _new(rule, [*found[: count - len(rules)], *last]):
            last.append(rule)
    return [*[one for one in found if _new(one, last)][: count - len(last)], *last]


def _new(architecture: Architecture, others: Sequence[Architecture]) -> bool:
    built = (architecture.ops(), architecture.wiring())
    return all((other.ops(), other.wiring()) != built for other in others)
