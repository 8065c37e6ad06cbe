"""Figures of ``cosearch.benchmarks.speed.int8``, as they are kept in its file."""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class AgentRow:
    """One agent in both forms.

    Attributes:
        name, env: which, and its task.
        description, params: of the network.
        random_score: mean return of an agent that knows nothing.
        score, float_score: mean returns of both forms on the same held-out levels.
        score_ci95, float_score_ci95: their intervals over the episodes.
        difference_ci95: Welch's interval of int8 minus float32.
        episodes: of each form.
        layers, float_layers: how many there are, and how many of them stay in float32.
        greedy, kl: share of equal best actions, and divergence in nats, over 1,000 held-out observations.
        bytes, float_bytes: sizes of the files.
        latency_s, float_latency_s: medians of one decision, in turns in one process.
        speed_up, speed_up_low, speed_up_high: float32 by int8, median over the rounds and extremes.
        load: of the machine, jobs a minute.
        predicted_s, float_predicted_s: of one decision by the tables; None without them, or where they lack a block.
    """

    name: str
    env: str
    description: str
    params: int
    random_score: float
    score: float
    score_ci95: Interval | None
    float_score: float
    float_score_ci95: Interval | None
    difference_ci95: Interval | None
    episodes: int
    layers: int
    float_layers: int
    greedy: float
    kl: float
    bytes: int
    float_bytes: int
    latency_s: float
    float_latency_s: float
    speed_up: float
    speed_up_low: float
    speed_up_high: float
    load: float
    predicted_s: float | None = None
    float_predicted_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """One random network: measured and predicted seconds of both forms, and the load of the machine.

    Attributes:
        latency_s, float_latency_s: measured in turns in one process.
        predicted_s, float_predicted_s: by the tables.
        load: jobs a minute.
    """

    latency_s: float
    float_latency_s: float
    predicted_s: float
    float_predicted_s: float
    load: float
