"""What a checkpoint of a proposal search holds of each candidate: asked for, in training, trained, told."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from torch import Tensor

from cosearch.config.search import JudgeBy
from cosearch.cost.accelerator import SavedAccelerator
from cosearch.pipeline.checkpoint import State
from cosearch.strategies.base import Inheritance


class Outcome(TypedDict):
    """How the training of a candidate ended, with the metrics of its updates that are not in the log yet.

    One that failed has no weights, and says why. One that trained on names the environments whose episodes began anew.
    """

    score: float | None
    divergence: NotRequired[float]
    env_steps: int
    weights: bytes | None
    lines: list[State]
    paused: NotRequired[bytes]
    failure: NotRequired[str]
    anew: NotRequired[list[int]]


class Item(TypedDict):
    """A candidate that was asked for, as a checkpoint holds it; while it trains with its training, then with its outcome.

    One that trains on has its rung, its place among those of that rung, its steps before, and what it was paused with.
    ``learned`` says whether the weights that it starts from have learned in the training of an earlier one.
    """

    index: int
    choices: list[int]
    latency_s: float
    accelerator: SavedAccelerator | None
    searches: dict[str, int]
    energy_j: NotRequired[float | None]
    memory_bytes: NotRequired[float | None]
    inherited: NotRequired[tuple[int, list[tuple[int, int] | None]]]
    learned: NotRequired[bool]
    start: NotRequired[bytes | None]
    rung: NotRequired[int]
    place: NotRequired[int]
    before: NotRequired[int]
    paused: NotRequired[bytes]
    training: NotRequired[State]
    streams: NotRequired[State]
    outcome: NotRequired[Outcome]


class Told(TypedDict):
    """What the strategy was told of a candidate."""

    choices: list[int]
    score: float | None
    divergence: NotRequired[float]
    latency_s: float
    env_steps: int
    failure: NotRequired[str]
    inherited_from: NotRequired[list[int]]
    asked: NotRequired[int]
    rung: NotRequired[int]
    stopped: NotRequired[str]


class Best(TypedDict):
    """The best candidate so far, with its weights and the design that it was trained on."""

    choices: list[int]
    weights: dict[str, Tensor]
    accelerator: SavedAccelerator | None


def worth(judge_by: JudgeBy, outcome: Outcome | Told) -> float | None:
    """What a candidate is compared by, the higher the better; None where it has none.

    Args:
        judge_by: ``strategy.judge_by``.
        outcome: of its training.
    """
    if judge_by == "score":
        return outcome["score"]
    return -outcome["divergence"] if "divergence" in outcome else None


def inheritance_of(item: Item) -> Inheritance | None:
    """Where the first weights of a candidate come from; None: from its own random numbers."""
    saved = item.get("inherited")
    return None if saved is None else Inheritance(saved[0], tuple(saved[1]))


def outcome_record(ended: State, lines: list[State]) -> Outcome:
    """The record of a training's end.

    Args:
        ended: see ``cosearch.training.candidates.outcome_of``.
        lines: metrics of its updates that are not in the log yet.
    """
    outcome: Outcome = {"score": ended["score"], "env_steps": ended["env_steps"], "weights": ended["weights"], "lines": lines}
    if ended.get("divergence") is not None:
        outcome["divergence"] = ended["divergence"]
    if "paused" in ended:
        outcome["paused"] = ended["paused"]
    if "failure" in ended:
        outcome["failure"] = ended["failure"]
    if "anew" in ended:
        outcome["anew"] = ended["anew"]
    return outcome
