"""Words on a score: what it is the mean of, whether it solves the task, where it lies from a random policy's to the teacher's."""

from __future__ import annotations

from cosearch.record.results.evaluation import EvaluationRecord, Interval
from cosearch.report.format import score_text

METRIC_LABELS = {"return": "Score", "success": "Success rate", "length": "Steps of an episode"}


def metric_label(found: EvaluationRecord | None) -> str:
    """What the score is the mean of, as the label of a tile.

    Args:
        found: the evaluation; None in runs of versions that did not record it.
    """
    return METRIC_LABELS["return" if found is None else found.metric]


def teacher_text(teacher: float | None, found: EvaluationRecord | None, score_ci95: Interval | None) -> str:
    """The teacher's score, the random policy's, and the interval of the share between them.

    Args:
        teacher: its score; None without one.
        found: the evaluation; without a random policy's score in it the share is counted from 0.
        score_ci95: interval of the agent's score.
    """
    if teacher is None:
        return "no teacher"
    text, shares = f"teacher {score_text(teacher)}", None
    if found is not None and found.random_mean is not None:
        text += f", random policy {score_text(found.random_mean)}"
        shares = found.share_ci95
    elif teacher > 0 and score_ci95 is not None:
        shares = (score_ci95[0] / teacher, score_ci95[1] / teacher)
    return text if shares is None else f"{text}; 95 %: {100 * shares[0]:.0f} to {100 * shares[1]:.0f} %"


def solved_text(found: EvaluationRecord | None) -> str:
    """Whether the task is solved, after a semicolon; empty where nobody named the score that counts as solved.

    Args:
        found: the evaluation; None in runs of versions that did not record it.
    """
    if found is None or found.solved is None:
        return ""
    sure = ", not over the whole interval" if found.solved and found.solved_surely is False else ""
    return f"; {'solved' if found.solved else 'not solved'}: {score_text(found.solved_at)} counts{sure}"
