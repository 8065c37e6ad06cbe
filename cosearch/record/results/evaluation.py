"""What an agent's evaluation amounts to: by return, success or length, whether that solves the task, beside a random policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from cosearch.record.json_record import OMITTED

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """An evaluation. The scores, the agent's, the teacher's and the random policy's, are means of one metric.

    Attributes:
        metric: ``return``, ``success`` (share of the episodes) or ``length`` (environment steps of an episode).
        return_mean, return_ci95: mean return, and its 95 % interval over the episodes.
        length_mean: mean length of an episode, environment steps.
        success_rate: share of the episodes that succeeded; None where the environment says nothing of success.
        solved_at: the score that counts as solved; None where nobody named one.
        solved: whether the mean score reaches it.
        solved_surely: whether the lower end of its interval does, too.
        random_mean, random_ci95: score of a policy that draws its actions at random, in the same evaluation; None without a
            teacher.
        share_of_teacher: how far the score is from the random policy's (0) to the teacher's (1); None where the teacher scores no
            more than a random policy.
        share_ci95: the same of the ends of the score's interval.
    """

    metric: str
    return_mean: float
    return_ci95: Interval | None
    length_mean: float
    success_rate: float | None
    solved_at: float | None
    solved: bool | None
    solved_surely: bool | None
    random_mean: float | None
    random_ci95: Interval | None
    share_of_teacher: float | None
    share_ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class EpisodesRecord:
    """``evaluation.json``: the episodes of the exported agent's evaluation.

    Attributes:
        levels: ``test`` or ``train``.
        actions: ``greedy`` or ``sampled``.
        returns: of each episode.
        lengths: environment steps of each; empty in runs of versions that did not record them.
        successes: whether each succeeded, None where the environment does not say it; empty as above.
    """

    FILE: ClassVar[str] = "evaluation.json"

    levels: str
    actions: str
    returns: tuple[float, ...]
    lengths: tuple[int, ...] = field(default=(), metadata=OMITTED)
    successes: tuple[bool | None, ...] = field(default=(), metadata=OMITTED)

    def __post_init__(self) -> None:
        if not all(len(values) in (0, len(self.returns)) for values in (self.lengths, self.successes)):
            raise ValueError("lengths and successes must have one entry for each of returns")


def share_between(score: float, low: float, high: float) -> float | None:
    """How far a score is from a low one (0) to a high one (1); None where the high one is not higher.

    A share of a score alone means nothing where scores may be negative or do not begin at 0: 50 of a random policy's -200 and a
    teacher's 100 are nine tenths of the way.

    Args:
        score: the agent's.
        low: the random policy's.
        high: the teacher's.
    """
    return (score - low) / (high - low) if high > low else None
