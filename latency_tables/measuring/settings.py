"""How to measure: how long a visit is, how often a model is visited, when a row has converged."""

from __future__ import annotations

from dataclasses import dataclass, field

from latency_tables.board.timing import VisitPlan
from latency_tables.errors import RequestError


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads, provider, nchw: see ``OnnxRunner``.
        visit: how long one visit is.
        min_rounds, max_rounds: visits of every model, at least and at most.
        network_factor: whole networks get so many times the visits, as calibration and certificate stand on them.
        tolerance: half-width of a row's interval, relative, at which it has converged; half of it for whole networks.
        budget_s: wall time in seconds after which no new round starts. The first ``min_rounds`` are always made, and what noise
            hides so far, so that the table would lack it, is visited on, up to ``max_rounds``.
        seed: order of visits and weights of models.
        nice: priority that the core asks for.
        pin: whether the core pins itself to the least busy processors.

    Raises:
        RequestError: a value out of its range; names all of them.
    """

    threads: int = 1
    provider: str = "CPUExecutionProvider"
    nchw: bool = False
    visit: VisitPlan = field(default_factory=VisitPlan)
    min_rounds: int = 9
    max_rounds: int = 40
    network_factor: int = 2
    tolerance: float = 0.02
    budget_s: float = 240.0
    seed: int = 0
    nice: int = -10
    pin: bool = True

    def __post_init__(self) -> None:
        ranges = {  # name -> (value, lowest, highest)
            "threads": (self.threads, 1, 4096),
            "rounds": (self.min_rounds, 1, 10**6),
            "max-rounds": (self.max_rounds, self.min_rounds, 10**6),
            "tolerance": (self.tolerance, 1e-6, 1.0),
            "budget": (self.budget_s, 0.0, 1e9),
            "seed": (self.seed, 0, 2**63 - 1),
        }
        faults = [
            f"{name} must be from {low:g} to {high:g}, got {value:.6g}"
            for name, (value, low, high) in ranges.items()
            if not low <= value <= high  # also true for NaN
        ]
        if faults:
            raise RequestError("; ".join(faults))

    def least_visits(self, name: str) -> int:
        """How often a model is visited at least: single operations seldom, whole networks often."""
        if name.startswith("single-"):
            return min(3, self.min_rounds)
        return self.min_rounds * (max(1, self.network_factor) if name.startswith("net-") else 1)
