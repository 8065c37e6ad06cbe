"""The sections ``space`` and ``strategy`` of the configuration: what is searched, and how."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from cosearch.config.ranges import KNOWN_KEYS_ONLY, Count, Fraction, Positive, PositiveFloat

DeriveBy = Literal["scores", "regression"]
JudgeBy = Literal["score", "divergence"]
Frames = Literal["own", "shared"]


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class SpaceConfig:
    """The search space.

    Attributes:
        name: registry name of the kind of space; ``auto``: the one for the task's observations (images: chain, vectors: mlp).
        values: fields of that space's own configuration that differ from its defaults, e.g. ``space.values.hidden=64``.
    """

    name: str = "auto"
    values: dict[str, object] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class StrategyConfig:
    """The search method.

    Attributes:
        name: registry name; `cosearch list strategies`.
        paths_per_rollout: paths that share the environments of one rollout (gradient and one-shot strategies).
        update_path: ``fresh``: each minibatch is learned along a newly drawn path; ``acting``: along the one that acted, as
            ``rl.algorithm=a2c`` always does: its gradient has no importance weights.
        active_paths: K of the backward pass: 2 in the released code of its authors, 1 gives no credit; 0 for all (``a3cs``).
        temperature_start, temperature_end: of the architecture samples (``a3cs``, ``a2d``).
        lr: Adam learning rate of the architecture logits.
        target_form: ``multiplier``: the target bounds the expected cost of what is sampled, exactly at the beginning of each
            rollout; ``penalty``: a loss with a dual variable.
        warmup_fraction: first share of the search in which only weights are trained.
        warmup_factor: the sampled distribution may cost this many times the target during that share (``multiplier``).
        candidates: architectures that share the budget in whole rollouts (proposal strategies).
        candidate_init: ``scratch``: a candidate is trained from weights of its own; ``shared``: from those of a supernet along
            its path, which keeps what the candidate learned (proposal strategies).
        workers: processes that train candidates at once (proposals). A strategy that may be told in any order is told of each as
            its training ends and asked for the next; any other is asked for so many and told when the last of them has ended.
        reduction_factor: successive halving: of the candidates that trained for equal steps the best one in so many trains on, to
            so many times the steps, all together for the same number; 1: all have equal shares (proposals).
        judge_by: what candidates are compared by: ``score``, the mean return of their last training episodes, or ``divergence``,
            how little their policy diverges from the teacher's, which tells networks apart after far fewer steps (proposals).
        frames: what candidates learn from: ``own``, each from those that it plays, or ``shared``: all that train for equal steps
            train at once, play a share of the environments each, and learn the teacher's policy and values from all frames, and
            nothing from rewards; so each has the steps of the whole search (proposals whose candidates are named beforehand).
        order: what ``order.json`` of an earlier run holds, to be repeated whatever ends first (proposals in any order).
        derive_by: what the architecture is derived from: ``scores``, the learned logits, or ``regression``, of the losses of all
            drawn paths on their choices (gradient strategies that draw single paths); null: the strategy's own way.
        store: folder of earlier runs: the search begins with the shared weights of the one whose task is nearest by Fisher
            distance; empty: with weights of its own (gradient strategies).
        values: the strategy's own options, e.g. ``strategy.values.population=8``.
    """

    name: str = "reinforce"
    paths_per_rollout: Positive = 4
    update_path: Literal["fresh", "acting"] = "fresh"
    active_paths: Count = 2
    temperature_start: PositiveFloat = 3.0
    temperature_end: PositiveFloat = 0.3
    lr: PositiveFloat = 0.02
    target_form: Literal["multiplier", "penalty"] = "multiplier"
    warmup_fraction: Fraction = 0.3
    warmup_factor: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 1.0
    derive_by: DeriveBy | None = None
    candidates: Positive = 4
    candidate_init: Literal["scratch", "shared"] = "scratch"
    workers: Positive = 1
    reduction_factor: Annotated[int, Field(ge=1, le=64)] = 1
    judge_by: JudgeBy = "score"
    frames: Frames = "own"
    order: tuple[Annotated[int, Field(ge=-1)], ...] = ()
    store: str = ""
    values: dict[str, object] = dataclasses.field(default_factory=dict)
