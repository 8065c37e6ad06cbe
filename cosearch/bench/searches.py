"""Searches on the table: any proposal strategy, the score function, and the controls that every search stands beside.

A query tells a strategy the final score of one train seed, drawn anew for each query, as a search that trains its candidates
would see it; it counts as the environment steps of that training. Every candidate is trained from scratch: weight sharing is not
simulated, ``shared_weights`` runs the searches that need it. So of the gradient strategies only the score function can run here,
which learns from a path's loss alone: the loss is the negative score. Networks that miss the target or are not in the table are
never asked for.
What a search found is judged by the mean over all train seeds, against every network that it could have found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from cosearch.bench.benchmark import Benchmark
from cosearch.config.search import StrategyConfig
from cosearch.quality import rank, regret
from cosearch.registry import unknown_name
from cosearch.seeding import Streams
from cosearch.space.derivation.shortlist import beside
from cosearch.space.space import Architecture
from cosearch.strategies.base import STRATEGIES, Evaluation, ProposalStrategy, StrategyInfo
from cosearch.strategies.gradient.score_function import ScoreFunctionStrategy
from cosearch.strategies.proposals import DRAWS
from cosearch.strategies.regression import DrawnPaths, fit_scores
from latency_tables.errors import InfeasibleTargetError, RequestError

QUERIES = 20
FROM_LOGITS = "reinforce-logits"  # derived from the learned logits; reinforce from a regression over its paths and scores
BRACKETED = "reinforce-bracket"  # its last queries compare the best by that regression and the largest networks
BRACKET = 4
PRIOR = "predictor-largest"  # its first candidates are the largest of many draws
VARIANTS = {FROM_LOGITS: "reinforce", BRACKETED: "reinforce", PRIOR: "predictor"}
PRIOR_VALUES: dict[str, object] = {"largest_of": 64}


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        strategy, task, device, seed: what was run.
        target_s: latency target, seconds.
        architecture: names of the choices that were found.
        latency_s: of the found network, seconds.
        score: its mean over the train seeds.
        regret: how far that is below the best network within the target.
        rank: its place among the networks within the target, 1 for the best.
        percentile: share of the others within the target that are no better, 0..100.
        feasible: finished networks within the target.
        queries: scores that the search was told.
        env_steps: environment steps that trainings for these queries take.
        partial: what the table lacks, or None.
    """

    strategy: str
    task: str
    device: str
    seed: int
    target_s: float
    architecture: tuple[str, ...]
    latency_s: float
    score: float
    regret: float
    rank: float
    percentile: float
    feasible: int
    queries: int
    env_steps: int
    partial: str | None

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {**asdict(self), "architecture": list(self.architecture)}


class Search:
    """One search on a benchmark: what it may ask for, and what it was told.

    Args:
        benchmark: the task.
        device: whose latencies bound the networks.
        target_s: the bound, seconds.
        seed: of the search's own draws and of the train seeds that it is told.
        queries: scores that it may ask for.

    Raises:
        InfeasibleTargetError: no finished network is within the target.
    """

    def __init__(self, benchmark: Benchmark, device: str, target_s: float, seed: int, queries: int) -> None:
        self.benchmark, self.device, self.target_s, self.seed, self.queries = benchmark, device, target_s, seed, queries
        self.feasible = benchmark.feasible(device, target_s)
        self._inside = frozenset(self.feasible.tolist())
        streams = Streams(seed)
        self.generator, self._draws = streams.torch("arch"), streams.numpy("eval")
        self.asked = 0

    def is_feasible(self, architecture: Architecture) -> bool:
        """Whether the network is in the table and within the target."""
        return self.benchmark.number(architecture) in self._inside

    def ask_score(self, architecture: Architecture) -> float:
        """The final score of one train seed."""
        self.asked += 1
        place = int(self._draws.integers(len(self.benchmark.table.seeds)))
        return float(self.benchmark.seed_scores[self.benchmark.number(architecture), place])

    def evaluation(self, architecture: Architecture) -> Evaluation:
        """What a proposal strategy is told."""
        score, latency_s = self.ask_score(architecture), self.benchmark.latency_s(architecture, self.device)
        return Evaluation(architecture, score, latency_s, env_steps=self.benchmark.env_steps)

    def best_of(self, values: np.ndarray) -> Architecture:
        """The feasible network with the largest of ``values`` ``[feasible]``, the first of equal ones."""
        return self.benchmark.architectures[int(self.feasible[int(np.argmax(values))])]

    def best_sums(self, scores: Sequence[Sequence[float]], count: int) -> list[Architecture]:
        """The feasible networks with the largest sums of their candidates' scores, one row of ``scores`` a point."""
        choices = [self.benchmark.architectures[i].choices for i in self.feasible]
        sums = np.array([sum(row[c] for row, c in zip(scores, own)) for own in choices])
        return [self.benchmark.architectures[int(self.feasible[place])] for place in np.argsort(-sums, kind="stable")[:count]]


def _propose(search: Search, info: StrategyInfo, values: dict[str, object]) -> Architecture:
    options = info.options(StrategyConfig(name=info.name, values=values))
    strategy: ProposalStrategy = info.make(search.benchmark.space, options, search.generator, search.is_feasible)
    asked: list[Architecture] = []
    for _ in range(search.queries):
        asked.append(strategy.ask())
        strategy.tell(search.evaluation(asked[-1]))
    return asked[strategy.best()]


def _score_function(search: Search, info: StrategyInfo, *, regressed: bool, bracket: int = 1) -> Architecture:
    """Paths that miss the target are drawn again; the end is the feasible network with the largest sum of scores.

    With a bracket of three or more, as ``budget.bracket`` has it, the best by the sum and the largest networks, by
    multiply-accumulates and by both sizes, are asked for again.
    """
    space = search.benchmark.space
    strategy = info.make(space, info.options(StrategyConfig(name=info.name)), search.generator)
    if not isinstance(strategy, ScoreFunctionStrategy):
        raise RequestError(
            f"strategy {info.name!r} learns from gradients through shared weights, which no table has; of the gradient "
            "strategies the score function (reinforce) alone can run on it"
        )
    drawn = DrawnPaths(len(space.points))
    paths = search.queries - (bracket if bracket > 1 else 0)
    if paths < 1:
        raise RequestError(f"a bracket of {bracket} needs more than {bracket} queries, got {search.queries}")
    for query in range(paths):
        for _ in range(DRAWS):
            path = strategy.sample()
            architecture = space.architecture(path.choices)
            if search.is_feasible(architecture):
                break
        else:
            raise InfeasibleTargetError(f"{DRAWS} paths drawn by {info.name!r} all miss the target; ask for a higher one")
        loss = -search.ask_score(architecture)
        strategy.arch.zero_grad()
        strategy.step(path, loss)
        drawn.add(path.choices, loss, query / paths)
    fit = fit_scores(search.benchmark.sizes, drawn) if regressed else None
    found = search.best_sums(strategy.scores() if fit is None else fit.scores, bracket)
    if bracket == 1:
        return found[0]
    return max(beside(found, [_largest(search), _largest(search, weights=True)], bracket), key=search.ask_score)


def _largest(search: Search, *, macs: bool = True, weights: bool = False) -> Architecture:
    """The most multiply-accumulates within the target, weights, or of both the largest product; no score is asked for."""
    networks = [search.benchmark.architectures[i].ops() for i in search.feasible]
    sizes = np.ones(len(networks))
    if macs:
        sizes *= [sum(op.macs for op in ops) for ops in networks]
    if weights:
        sizes *= [sum(op.params for op in ops) for ops in networks]
    return search.best_of(sizes)


def _ridge(search: Search) -> Architecture:
    """A ridge regression on the choices of random networks; the end is the best by its prediction, trained or not."""
    drawn = DrawnPaths(len(search.benchmark.space.points))
    places = torch.randint(len(search.feasible), (search.queries,), generator=search.generator).tolist()
    networks = [search.benchmark.architectures[int(search.feasible[place])] for place in places]
    for network in networks:
        drawn.add(network.choices, -search.ask_score(network), 0.0)
    fit = fit_scores(search.benchmark.sizes, drawn)
    return networks[0] if fit is None else search.best_sums(fit.scores, 1)[0]  # None: all scores were equal


def judged(search: Search, strategy: str, found: Architecture, env_steps: int) -> Outcome:
    """What a search found, against every network within the target.

    Args:
        search: which asked its queries.
        strategy: its name.
        found: the network.
        env_steps: that the search took.

    Raises:
        RequestError: the network is not in the table.
    """
    benchmark = search.benchmark
    score, scores = benchmark.score(found), benchmark.scores[search.feasible]
    place = rank(score, scores)
    return Outcome(
        strategy,
        benchmark.table.task,
        search.device,
        search.seed,
        search.target_s,
        found.choice_names,
        benchmark.latency_s(found, search.device),
        score,
        regret(score, scores),
        place,
        100.0 * (1.0 - (place - 1.0) / max(1, len(scores) - 1)),
        len(scores),
        search.asked,
        env_steps,
        benchmark.table.partial,
    )


CONTROLS: dict[str, Callable[[Search], Architecture]] = {
    "largest": _largest,
    "largest-weights": partial(_largest, macs=False, weights=True),
    "largest-both": partial(_largest, weights=True),
    "ridge": _ridge,
}


def runnable(queries: int | None = None) -> list[str]:
    """Names of all that can run on a table: controls, proposal strategies, the score function.

    Args:
        queries: with so many; a last bracket alone takes ``BRACKET``. None: with any number.
    """
    proposals = [info.name for info in STRATEGIES.entries() if info.kind == "proposal" and info.name not in CONTROLS]
    names = [*CONTROLS, *proposals, "reinforce", *VARIANTS]
    return [name for name in names if name != BRACKETED or queries is None or queries > BRACKET]


def run_search(
    benchmark: Benchmark, strategy: str, device: str, *, target_s: float | None = None, seed: int = 0, queries: int = QUERIES
) -> Outcome:
    """Run one search on the table.

    Args:
        benchmark: the task.
        strategy: one of :func:`runnable`.
        device: name as in ``cosearch list devices``.
        target_s: latency target, seconds; None: half of the space is within it.
        seed: of the search.
        queries: scores that it may ask for; ``largest`` asks for none.

    Raises:
        UnknownNameError: no such strategy or device.
        RequestError: a strategy that needs shared weights, fewer than one query, or a target that is no positive number.
        InfeasibleTargetError: no finished network is within the target.
        MissingOpError: the device's table lacks a block of the space.
    """
    if queries < 1:
        raise RequestError(f"a search needs at least one query, got {queries}")
    if target_s is not None and not 0.0 < target_s < math.inf:
        raise RequestError(f"the latency target (--latency-target-ms) must be finite and above 0, got {target_s * 1e3:g} ms")
    bound = benchmark.default_target_s(device) if target_s is None else target_s
    search = Search(benchmark, device, bound, seed, queries)
    if strategy in CONTROLS:
        found = CONTROLS[strategy](search)
    else:
        name = VARIANTS.get(strategy, strategy)
        info = next((info for info in STRATEGIES.entries() if info.name == name), None)
        if info is None:
            raise unknown_name("strategy", strategy, runnable(), f"On a table there are {', '.join(runnable())}")
        if info.kind == "one-shot":
            raise RequestError(
                f"strategy {info.name!r} scores its proposals with shared weights, which no table has: `cosearch bench search` "
                "makes its searches; on a table its proposers run by themselves"
            )
        bracket = BRACKET if strategy == BRACKETED else 1
        gradient = info.kind == "gradient"
        found = (
            _score_function(search, info, regressed=strategy != FROM_LOGITS, bracket=bracket)
            if gradient
            else _propose(search, info, PRIOR_VALUES if strategy == PRIOR else {})
        )
    return judged(search, strategy, found, search.asked * benchmark.env_steps)
