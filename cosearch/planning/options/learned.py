"""Whether a training of a run begins with weights that have learned, by which its exploration begins."""

from __future__ import annotations

from cosearch.planning.request import Request
from cosearch.strategies.base import SaysInherits


def begins_learned(request: Request) -> bool:
    """Whether the retraining, or a later candidate of the search, begins with weights that have learned."""
    budget = request.config.budget
    return (budget.retrain_steps > 0 and budget.retrain_init == "inherit") or _candidates_inherit(request)


def _candidates_inherit(request: Request) -> bool:
    """Whether candidates that are asked for after the first result start from weights that have learned."""
    strategy, section = request.strategy, request.config.strategy
    if strategy.kind != "proposal" or strategy.candidates(section) <= section.workers:
        return False
    options = strategy.options(section)
    switched_off = isinstance(options, SaysInherits) and not options.inherits
    return section.candidate_init == "shared" or (hasattr(strategy.make, "inherits") and not switched_off)


def explores_less(request: Request) -> bool:
    """Whether the probability of a random action changes in a training that takes some time for it."""
    dqn = request.config.dqn
    return dqn.epsilon_start != dqn.epsilon_end or (begins_learned(request) and dqn.epsilon_inherited != dqn.epsilon_end)
