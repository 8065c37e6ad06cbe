"""Results of earlier tasks on the same choices, as a file that a strategy learns from before its own search.

A JSON object: ``points``, name and candidates of each choice point, and ``tasks``, of each its name, the choices of its networks
and their scores. The scores need no common scale: of each task they are standardised by whoever learns from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cosearch.space.space import SearchSpace
from cosearch.strategies.surrogate import one_hot
from latency_tables.errors import ConfigError
from latency_tables.text.reading import parse_json, read_text, shown
from latency_tables.text.writing import write_bytes_atomic

WHAT = "results of earlier tasks"


@dataclass(frozen=True)
class EarlierTask:
    """What is known of a task.

    Attributes:
        task: its name.
        choices: of each network, one candidate's index a point.
        scores: of each network, higher is better.
    """

    task: str
    choices: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class EarlierTasks:
    """The content of a file.

    Attributes:
        tasks: at least one, each of at least two networks.
        digest: SHA-256 of the file.
    """

    tasks: tuple[EarlierTask, ...]
    digest: str


class KnownTask:
    """A task of which some networks' scores are known.

    Args:
        space: the search space.
        task: the scores.
    """

    def __init__(self, space: SearchSpace, task: EarlierTask) -> None:
        scores = torch.tensor(task.scores, dtype=torch.float64)
        self.scores = ((scores - scores.mean()) / (float(scores.std(correction=0)) or 1.0)).float()
        self.networks = one_hot(space, task.choices)
        self._of = dict(zip(task.choices, self.scores.tolist()))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Networks, one-hot ``[count, features]``, and their scores ``[count]``, in standard deviations from the mean."""
        rows = torch.randint(len(self.scores), (count,), generator=generator)
        return self.networks[rows], self.scores[rows]

    def score(self, choices: tuple[int, ...]) -> float:
        """Of one network; NaN where it is not known."""
        return self._of.get(choices, float("nan"))


def points_of(space: SearchSpace) -> list[list[object]]:
    """Name and candidates of each choice point, as they stand in the file."""
    return [[point.name, list(point.candidates)] for point in space.points]


def write_tasks(path: Path, space: SearchSpace, tasks: Sequence[EarlierTask]) -> None:
    """Write a file.

    Args:
        path: the file.
        space: of all tasks.
        tasks: what is known.
    """
    rows = [{"task": one.task, "choices": one.choices, "scores": one.scores} for one in tasks]
    write_bytes_atomic(path, json.dumps({"points": points_of(space), "tasks": rows}).encode())


def read_tasks(path: Path, space: SearchSpace) -> EarlierTasks:
    """Read a file.

    Args:
        path: the file.
        space: of the search; its choices are those of the file.

    Raises:
        ConfigError: the file cannot be read, is damaged, or is of another space.
    """
    text = read_text(path, WHAT, ConfigError)
    where = f"{path}: cannot be read as {WHAT}"
    content = parse_json(text, where, ConfigError)
    if not isinstance(content, dict) or not isinstance(content.get("tasks"), list) or not content["tasks"]:
        raise ConfigError(f"{where}: expected an object with points and a list of tasks, got {shown(content)}")
    if content.get("points") != points_of(space):
        raise ConfigError(f"{where} of this search: they are of other choices, {shown(content.get('points'))}")
    sizes = [len(point.candidates) for point in space.points]
    tasks = tuple(_task(row, sizes, f"{where}: task {i}") for i, row in enumerate(content["tasks"]))
    return EarlierTasks(tasks, hashlib.sha256(text.encode()).hexdigest())


def _task(row: object, sizes: list[int], where: str) -> EarlierTask:
    values: dict[str, object] = row if isinstance(row, dict) else {}
    name, choices, scores = values.get("task"), values.get("choices"), values.get("scores")
    if not isinstance(name, str) or not isinstance(choices, list) or not isinstance(scores, list):
        raise ConfigError(f"{where}: expected its name, a list of choices and a list of scores, got {shown(row)}")
    if len(choices) != len(scores) or len(choices) < 2:
        raise ConfigError(
            f"{where}: expected two networks or more, each with a score, got {len(choices)} and {len(scores)} scores"
        )
    for one, score in zip(choices, scores):
        fits = isinstance(one, list) and len(one) == len(sizes)
        if not fits or not all(type(c) is int and 0 <= c < size for c, size in zip(one, sizes)):
            raise ConfigError(f"{where}: {shown(one)} is no network of the space, whose points have {shown(sizes)} candidates")
        if type(score) not in (int, float) or abs(score) > 1e30:
            raise ConfigError(f"{where}: {shown(score)} is no score")
    return EarlierTask(name, tuple(tuple(one) for one in choices), tuple(float(score) for score in scores))
