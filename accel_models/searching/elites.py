"""The best different candidates seen in a search, and the moves that change one a little."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accel_models.searching.problem import DesignProblem, Scores


@dataclass(frozen=True)
class Candidate:
    """One scored design in grid indices."""

    value: float
    index: np.ndarray
    chunk: np.ndarray
    option: np.ndarray


@dataclass
class Elites:
    """At most ``size`` different feasible candidates, best first, and the course of the best value.

    Attributes:
        history: ``(evaluations, best value)`` at each improvement.
    """

    size: int
    members: list[Candidate] = field(default_factory=list)
    history: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best(self) -> Candidate | None:
        """The best one, or None if nothing feasible was seen."""
        return self.members[0] if self.members else None

    def add(self, problem: DesignProblem, index: np.ndarray, scores: Scores) -> None:
        """Take in a batch of scored candidates ``[B, J, N]``."""
        known = {member.index.tobytes() for member in self.members}
        limit = self.members[-1].value if len(self.members) >= self.size else np.inf
        for b in np.argsort(scores.value, kind="stable"):
            value = float(scores.value[b])
            if not value < limit:
                break
            if index[b].tobytes() not in known:
                known.add(index[b].tobytes())
                self.members.append(Candidate(value, index[b].copy(), scores.chunk[b].copy(), scores.option[b].copy()))
        before = self.history[-1][1] if self.history else np.inf
        self.members.sort(key=lambda member: member.value)
        del self.members[self.size :]
        if self.members and self.members[0].value < before:
            self.history.append((problem.evaluations, self.members[0].value))


def neighbours(problem: DesignProblem, candidate: Candidate) -> np.ndarray:
    """All candidates one change away, ``[M, J, N]``.

    A change is one or two grid steps of one knob, a trade of one or two steps between two knobs, two chunks exchanged, or the
    sides of one array exchanged.
    """
    top = np.array([len(options) - 1 for options in problem.grid])
    flat = candidate.index.reshape(-1)
    highest = np.tile(top, candidate.index.shape[0])
    places, moved = range(len(flat)), []
    for i in places:
        moved += [{i: step} for step in (-2, -1, 1, 2)]
        moved += [{i: up, j: down} for j in places if j != i for up, down in ((1, -1), (1, -2), (2, -1))]
    out = []
    for change in moved:
        new = flat.copy()
        for place, step in change.items():
            new[place] += step
        if (new >= 0).all() and (new <= highest).all():
            out.append(new.reshape(candidate.index.shape))
    for j in range(candidate.index.shape[0]):
        turned = candidate.index.copy()
        turned[j, :2] = turned[j, 1::-1]
        out.append(turned)
        for other in range(j):
            exchanged = candidate.index.copy()
            exchanged[[j, other]] = exchanged[[other, j]]
            out.append(exchanged)
    return np.unique(np.stack(out), axis=0)


def resized(problem: DesignProblem, candidate: Candidate, chunk: int) -> np.ndarray:
    """The candidate with every other array that fits in the place of one chunk's, ``[M, J, N]``.

    Args:
        problem: what is searched.
        candidate: keeps its other chunks.
        chunk: the one that changes.
    """
    sides = np.stack(np.meshgrid(*(np.arange(len(options)) for options in problem.grid[:2]), indexing="ij"), -1).reshape(-1, 2)
    new = np.repeat(candidate.index[None], len(sides), axis=0)
    new[:, chunk, :2] = sides
    return new[problem.has_elements(new) & (new != candidate.index).any((1, 2))]


def mutated(problem: DesignProblem, parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three knobs of each parent moved by one or two grid steps; ``[B, J, N]``."""
    top = np.array([len(options) - 1 for options in problem.grid])
    new = parents.copy()
    for child in new:
        for _ in range(int(rng.integers(1, 4))):
            j, n = int(rng.integers(child.shape[0])), int(rng.integers(child.shape[1]))
            child[j, n] = np.clip(child[j, n] + rng.choice((-2, -1, 1, 2)), 0, top[n])
    return new
