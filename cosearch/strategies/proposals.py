"""What proposal strategies are put together from: the book of their results, and uniform draws that meet the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cosearch.record.state import State, read, read_list
from cosearch.space.derivation.largest import size_of
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import Evaluation
from latency_tables.errors import InfeasibleTargetError, RequestError, RunFolderError

DRAWS = 200_000  # attempts to draw one architecture that meets the target


@dataclass(frozen=True)
class Result:
    """What is kept of an evaluation.

    Attributes:
        choices: of the architecture.
        score: mean return, or None where no episode ended.
        cost_s: latency, seconds.
        failed: its training failed.
    """

    choices: tuple[int, ...]
    score: float | None
    cost_s: float
    failed: bool = False

    @property
    def worth(self) -> float:
        """The score for comparisons: none is worse than any."""
        return float("-inf") if self.score is None else self.score


class Results:
    """All that a strategy was told, in order."""

    def __init__(self) -> None:
        self.all: list[Result] = []

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> Result:
        return self.all[index]

    def add(self, told: Evaluation) -> None:
        """Record an evaluation."""
        self.all.append(Result(told.architecture.choices, told.score, told.cost_s, told.failed))

    def trained(self, begin: int = 0) -> list[int]:
        """Indices of the results from ``begin`` on whose training did not fail."""
        return [index for index in range(begin, len(self.all)) if not self.all[index].failed]

    def best(self) -> int:
        """Index of the highest score, the first of equal ones; a candidate without a finished episode counts as the worst.

        Raises:
            RequestError: nothing was told, or nothing but failures.
        """
        trained = self.trained()
        if not trained:
            raise RequestError("the search was told no result yet of a candidate that could be trained, so it has no best one")
        return max(trained, key=lambda index: self.all[index].worth)

    def state(self) -> State:
        """All results."""
        return {
            "results": [[list(result.choices), result.score, result.cost_s] for result in self.all],
            "failed": [index for index, result in enumerate(self.all) if result.failed],
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`; one of before failures were recorded has none."""
        failed = set(read_list(state, "failed", int)) if "failed" in state else set()
        self.all = []
        for index, row in enumerate(read_list(state, "results", list)):
            choices, score, cost = row
            if not (score is None or isinstance(score, float | int)):
                raise RunFolderError(f"the saved state has the score {score!r} of a candidate, a number or nothing was expected")
            self.all.append(Result(read_choices(choices), score, read({"cost_s": cost}, "cost_s", float), index in failed))


class UniformDraws:
    """Uniform draws among the architectures that meet the target.

    Args:
        space: the search space.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets.
        attempts: how many draws may miss the target before it is given up.
    """

    def __init__(
        self,
        space: SearchSpace,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool],
        attempts: int = DRAWS,
    ) -> None:
        self.space, self.generator, self.is_feasible, self.attempts = space, generator, is_feasible, attempts

    def draw(self) -> Architecture:
        """One of the space.

        Raises:
            InfeasibleTargetError: none was found in ``attempts`` attempts.
        """
        for _ in range(self.attempts):
            drawn = self.space.sample(self.generator)
            if self.is_feasible(drawn):
                return drawn
        raise InfeasibleTargetError(
            f"{self.attempts} random architectures of space {self.space.name!r} all miss the "
            "target; ask for a higher objective.latency_target_s"
        )

    def largest_of(self, count: int) -> Architecture:
        """Of so many draws the largest, the first of equal ones, see ``size_of``; errors as for :meth:`draw`."""
        return max((self.draw() for _ in range(count)), key=size_of)

    def neighbours(self, centre: Architecture) -> list[Architecture]:
        """Those of an architecture (one other choice at one point) that meet the target."""
        return [near for near in centre.neighbours() if self.is_feasible(near)]

    def one_of(self, architectures: list[Architecture]) -> Architecture:
        """One of these; where there are none, one of the space.

        Raises:
            InfeasibleTargetError: see :meth:`draw`.
        """
        if not architectures:
            return self.draw()
        return architectures[int(torch.randint(len(architectures), (), generator=self.generator))]


def read_choices(saved: object) -> tuple[int, ...]:
    """Choices as a saved state holds them.

    Raises:
        RunFolderError: they are no list of whole numbers.
    """
    return tuple(read_list({"choices": saved}, "choices", int))
