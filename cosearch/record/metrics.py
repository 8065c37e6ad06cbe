"""``metrics.jsonl``: what a run logs, each quantity declared here once with its unit and meaning.

One JSON object a line, appended whole and synchronised. A key that is not declared is refused, so that a typing error
cannot open a second curve. A number is finite or null: null means "not known", and NaN never gets into a log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cosearch.record.durable import append_line, write_bytes_atomic
from cosearch.registry import unknown_name
from latency_tables.errors import NonFiniteError, RunFolderError
from latency_tables.text.reading import OWN_DIGITS, parse_json

STAGES = ("teacher", "search", "retrain")
REQUIRED = ("stage", "step", "wall_s")
Line = dict[str, object]  # one line of the log


@dataclass(frozen=True)
class Metric:
    """A declared quantity.

    Attributes:
        unit: SI unit, or what is counted; ``-`` for words, ``1`` for ratios and scores.
        meaning: one line.
        kind: ``number`` (finite or null), ``count``, ``text``, or ``rows`` (a list of lists of numbers).
    """

    unit: str
    meaning: str
    kind: str = "number"


METRICS = {
    "stage": Metric("-", "part of the run: search or retrain; teacher, where a teacher is trained", "text"),
    "step": Metric("environment steps", "environment steps so far in this stage", "count"),
    "wall_s": Metric("s", "compute time spent on the run so far, carried across resumes"),
    "score_train": Metric(
        "1", "mean return of the last 100 training episodes, of all before there are so many; null: none has ended"
    ),
    "episodes": Metric("episodes", "training episodes that ended so far in this stage", "count"),
    "loss_policy": Metric(
        "1", "clipped or plain policy-gradient loss, mean of the update; with SAC the actor's, imitation included"
    ),
    "loss_value": Metric("1", "loss of the value estimate, mean of the update"),
    "entropy": Metric("nat", "entropy of the policy's action distribution"),
    "kl_policy": Metric("nat", "approximate KL divergence of the policy from the one that acted"),
    "clip_fraction": Metric("1", "share of the samples whose probability ratio was clipped"),
    "explained_variance": Metric("1", "share of the returns' variance that the value estimate explains"),
    "q_mean": Metric(
        "1",
        "highest action value, with SAC the smaller critic's of the action taken; mean of the update, "
        "in units of the rewards that are learned from",
    ),
    "entropy_weight": Metric("1", "temperature of soft actor-critic: weight of the entropy beside the values, in their unit"),
    "epsilon": Metric("1", "probability of a random action at the end of the update"),
    "replay_frames": Metric("frames", "frames in the replay memory", "count"),
    "updates": Metric("optimiser steps", "optimiser steps so far in this stage", "count"),
    "grad_norm": Metric("1", "norm of the gradient before clipping"),
    "lr": Metric("1", "learning rate of the network weights"),
    "distill_actor": Metric(
        "nat",
        "KL divergence of the student's policy from the teacher's; with SAC half the squared distance of their actions, no unit",
    ),
    "distill_critic": Metric(
        "1", "half of the mean squared error between the values of student and teacher, in units of scaled rewards"
    ),
    "distill_weight": Metric("1", "weight of the distillation losses at this step"),
    "teacher_agreement": Metric("1", "share of the observations on which student and teacher prefer the same action"),
    "temperature": Metric("1", "temperature of the architecture samples"),
    "arch_entropy": Metric("nat", "mean entropy of the choice points"),
    "latency_expected_s": Metric("s", "latency expected under the architecture distribution"),
    "latency_argmax_s": Metric("s", "latency of the most probable architecture, or of the candidate that the line is about"),
    "energy_expected_j": Metric("J", "energy of one inference expected under the architecture distribution; null: unknown"),
    "file_expected_bytes": Metric("bytes", "size of the deployed file expected under the architecture distribution"),
    "memory_expected_bytes": Metric("bytes", "peak memory of its process expected under the architecture distribution"),
    "cost_multiplier": Metric("1", "weight of the cost in the objective, adapted or fixed"),
    "accel_searches": Metric("searches", "searches of the accelerator so far", "count"),
    "steps_per_s": Metric("environment steps / s", "speed since the last line"),
    "score_eval": Metric("1", "mean return of the evaluation episodes"),
    "score_eval_ci95_low": Metric("1", "lower end of the 95 % interval of score_eval"),
    "score_eval_ci95_high": Metric("1", "upper end of the 95 % interval of score_eval"),
    "arch_probabilities": Metric("1", "for each choice point the probability of each candidate", "rows"),
    "score_shared": Metric(
        "1", "score of one architecture with the weights of the supernet: mean return, or minus a loss; null: not finite"
    ),
    "candidate": Metric("-", "identifier of the architecture that the line is about", "text"),
    "agent": Metric("-", "whose target the update went by, in a run that makes several agents", "text"),
}


OF_A_TARGET = (  # in a search for several agents these are of the one whose turn it is (``agent``), on its device
    "latency_expected_s",
    "latency_argmax_s",
    "energy_expected_j",
    "file_expected_bytes",
    "memory_expected_bytes",
    "cost_multiplier",
    "arch_probabilities",
)


def checked_metrics(values: Mapping[str, object]) -> Line:
    """The same values as plain Python numbers, lists and text.

    Args:
        values: declared keys only; at least ``stage``, ``step`` and ``wall_s``. Numbers may be scalars of torch or numpy.

    Raises:
        UnknownNameError: a key is not declared, or the stage is none of :data:`STAGES`.
        NonFiniteError: a number is NaN or infinite.
        TypeError: a value is not of its declared kind.
        ValueError: a required key is missing.
    """
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise ValueError(f"each line of metrics.jsonl needs {', '.join(REQUIRED)}; {', '.join(missing)} missing in {values!r}")
    for key in values:
        if key not in METRICS:
            raise unknown_name("metric", key, METRICS, "Each metric is declared in cosearch/record/metrics.py")
    if values["stage"] not in STAGES:
        raise unknown_name("stage", str(values["stage"]), STAGES, f"There are {', '.join(STAGES)}")
    return {key: _plain(key, METRICS[key].kind, value) for key, value in values.items()}


def _plain(key: str, kind: str, value: object) -> object:
    if kind == "rows" and value is not None:
        rows = value.tolist() if hasattr(value, "tolist") else value
        if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (list, tuple)) for row in rows):
            raise TypeError(f"metric {key} must be a list of lists of numbers, got {value!r}")
        return [[_plain(f"{key}[{i}][{j}]", "number", cell) for j, cell in enumerate(row)] for i, row in enumerate(rows)]
    if hasattr(value, "item"):  # a scalar of torch or numpy
        value = value.item()
    if kind == "text":
        if not isinstance(value, str):
            raise TypeError(f"metric {key} must be text, got {value!r}")
        return value
    if kind == "count" and (type(value) is not int or value < 0):
        raise TypeError(f"metric {key} must be a whole number of at least 0, got {value!r}")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"metric {key} must be a number or None, got {value!r}")
    if not math.isfinite(value):
        raise NonFiniteError(f"metric {key} is {value}: the run has diverged; lower the learning rate or the cost weight")
    return value


def number(line: Mapping[str, object], key: str) -> float | None:
    """A quantity of a line; None where it is absent or not known.

    Args:
        line: of the log.
        key: name of a metric that is a number or a count.
    """
    value = line.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def append_metrics(path: Path, values: Mapping[str, object]) -> None:
    """Check one line and append it, synchronised to the disk.

    Args:
        path: ``metrics.jsonl``.
        values: see :func:`checked_metrics`, which also says what is raised.

    Raises:
        RunFailedError: the disk is full; the earlier lines are intact.
    """
    append_line(path, json.dumps(checked_metrics(values), allow_nan=False))


def read_metrics(path: Path) -> list[Line]:
    """All whole lines in order; empty when there is no file yet. An unfinished last line is left out.

    Raises:
        RunFolderError: a line is not a JSON object with stage and step.
    """
    return [record for record, _ in _lines(path)]


def truncate_metrics(path: Path, step: int, stage: str) -> int:
    """Cut off what was logged after a checkpoint, so that the resumed run logs it again without a double.

    Everything behind the last line of ``stage`` with at most ``step`` steps goes, whatever its stage. Where the stage
    has no such line, everything from its first line on goes. So log a step first and save its checkpoint after.

    Args:
        path: ``metrics.jsonl``.
        step: environment steps of the stage at the checkpoint.
        stage: stage of the checkpoint.

    Returns:
        How many lines were cut off, an unfinished last one included.

    Raises:
        RunFolderError: the log cannot be read.
        RunFailedError: the disk refuses the write; the old log is intact.
        UnknownNameError: there is no such stage.
    """
    if stage not in STAGES:
        raise unknown_name("stage", stage, STAGES, f"There are {', '.join(STAGES)}")
    if not path.exists():
        return 0
    lines = _lines(path)
    own = [i for i, (record, _) in enumerate(lines) if record["stage"] == stage]
    before = [i for i in own if (at := number(lines[i][0], "step")) is not None and at <= step]
    keep = before[-1] + 1 if before else own[0] if own else len(lines)
    kept = b"".join(raw for _, raw in lines[:keep])
    content = path.read_bytes()
    if kept == content:
        return 0
    write_bytes_atomic(path, kept)
    return len(lines) - keep + (not content.endswith(b"\n"))


def _lines(path: Path) -> list[tuple[Line, bytes]]:
    """Each whole line as record and as bytes."""
    if not path.exists():
        return []
    whole = []
    for place, raw in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not raw.endswith(b"\n"):
            break  # a writer was killed inside its last line
        try:
            record = parse_json(raw.decode(), "it", RunFolderError, digits=OWN_DIGITS)
            if not isinstance(record, dict) or record["stage"] not in STAGES or type(record["step"]) is not int:
                raise ValueError("stage or step is wrong")
        except (RunFolderError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path}:{place} is not a line of metrics ({error}); mend or remove that line") from error
        whole.append((record, raw))
    return whole
