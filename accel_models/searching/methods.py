"""A found design beside what the other methods find with as many evaluations on the same problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accel_models.cost import machine_of
from accel_models.design import AccelDesign
from accel_models.layers import LayerShape
from accel_models.searching.baselines import METHODS
from accel_models.searching.problem import DesignProblem
from accel_models.searching.search import FoundDesign, check_budget, limits_of

SECONDS_PER_EVALUATION = 1e-3  # one core, chunks 1 to 4; for the plan only


@dataclass(frozen=True)
class MethodRow:
    """What one method found.

    Attributes:
        method: its name.
        value: cycles or joules; None if nothing feasible was found.
        evaluations: made.
        ratio: of the value to that of the gradient search.
    """

    method: str
    value: float | None
    evaluations: int
    ratio: float | None


def compare_methods(
    layers: Sequence[LayerShape],
    base: AccelDesign,
    searched: FoundDesign,
    seed: int,
    chunks: int,
    objective: str,
    evaluations: int,
    progress: Callable[[int, float], None] | None = None,
) -> list[MethodRow]:
    """One row for each method, the gradient search first.

    Args:
        layers: the network.
        base: gives platform and number formats.
        searched: result of the gradient search on the same problem.
        seed: of every method.
        chunks: J.
        objective: see ``assignment.OBJECTIVES``.
        evaluations: of every method.
        progress: called with the number of finished methods and the best value.
    """
    rows = [MethodRow("gradient+polish", searched.searched_value, searched.evaluations, 1.0)]
    for done, (name, method) in enumerate(METHODS.items(), start=1):
        problem = DesignProblem(layers, machine_of(base), chunks, limits_of(base), objective)
        best = method(problem, evaluations, seed).best
        value = None if best is None else best.value
        rows.append(MethodRow(name, value, problem.evaluations, None if value is None else value / searched.searched_value))
        if progress is not None:
            progress(done, searched.searched_value if value is None else value)
    return rows


def plan(
    base: AccelDesign, layers: Sequence[LayerShape], network: str, *, chunks: int, objective: str, evaluations: int, beside: bool
) -> dict[str, str | int]:
    """What a search would do, checked like the search itself.

    Args:
        base: gives platform and number formats.
        layers: the network.
        network: its name.
        chunks: J.
        objective: see ``assignment.OBJECTIVES``.
        evaluations: of every method.
        beside: whether the other methods run too.

    Raises:
        ConfigError: a wrong objective, number of chunks or budget.
        ShapeError: no layer takes any time.
    """
    check_budget(evaluations)
    problem = DesignProblem(layers, machine_of(base), chunks, limits_of(base), objective)
    runs = 1 + (len(METHODS) if beside else 0)
    return {
        "network": f"{network}, {len(layers)} layers",
        "platform": f"{base.platform.name}: {base.platform.description}",
        "limits": str(problem.limits),
        "chunks": chunks,
        "objective": objective,
        "evaluations": evaluations,
        "methods": runs,
        "expected_s": round(runs * evaluations * SECONDS_PER_EVALUATION),
    }
