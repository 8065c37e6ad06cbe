"""One-shot search: a supernet trained along single paths that are drawn uniformly, then a search that its weights score.

Papers: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling (SPOS), ECCV 2020, arXiv 1904.00420;
Chu et al., FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search, ICCV 2021, arXiv 1907.01845.
SPOS on the agents of two Atari games: Mazyavkina et al., arXiv 2011.14632.
Equations, with A the space, W the shared weights, W(a) those along path a, L the training loss, f a score on validation levels:
  weights      W* = argmin_W  E_{a ~ Gamma(A)} L(a, W(a)):   one path a minibatch, drawn from the fixed distribution Gamma
  ``uniform``         Gamma is uniform over the architectures that meet the targets
  ``unconstrained``   Gamma is uniform over A
  ``fair``            strict fairness: each point runs through its m candidates in random orders, without replacement; the
                      gradients of m paths are added up before one step of the weights, so that in it every candidate learns once
  architecture a* = argmax f(a, W*(a))  over the proposals of ``proposer``, all of which meet the targets
The weights are not changed while proposals are scored, so that all of them meet the same weights and the same games.
Differs from the papers in:
1. L is the loss of the agent's training (PPO, A2C or DQN, with the teacher's terms), f the mean return on validation levels
   (``scores=episodes``) or minus the loss that a path is credited with on held-out frames (``scores=frames``): advantage over
   the paths that played them, and divergence from the teacher. The papers have one loss on images and an accuracy.
2. The environment steps of validation are paid for from the search's own (``score_share``), in equal parts a proposal, each
   played in few environments so that episodes have time to end; the images of the papers' validation set cost nothing.
3. ``uniform`` keeps every target, SPOS ("uniform constraint sampling") a range of multiply-accumulates. Draws that miss a target
   cost no environment steps.
4. Any proposal strategy proposes (``proposer``). The default is the aging evolution of this package with sizes for tens of
   proposals (``evolution``), where SPOS has one with crossover, 50 members and 20 generations, and FairNAS has NSGA-II.
5. No network here has batch normalisation, whose statistics SPOS computes anew for each proposal.
6. Several paths step the environments of one rollout (``strategy.paths_per_rollout``), and minibatches are learned along paths of
   their own by importance weights (``strategy.update_path=fresh``), except with A2C, which has none.
7. ``fair``: the m paths learn from m minibatches that follow each other, where FairNAS gives all of them the same images. Where
   points have different numbers of candidates, m is the largest and the others begin new orders in between: counts of a
   point's candidates never differ by more than one. In a group of points of which k are kept, the k are drawn uniformly, and
   each runs through its candidates but the zero. With A2C, or ``strategy.update_path=acting``, fairness holds among the paths
   that act: each has as many minibatches, and each minibatch is a step.
8. The supernet is trained once, for the share of the steps that scoring leaves; learning rate and distillation are the run's.
9. The agent goes on from the weights that the search trained (``budget.retrain_init=inherit``); the papers train what they found
   from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from cosearch.config.ranges import Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read_list, read_state
from cosearch.space.groups import grouped
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import (
    STRATEGIES,
    Evaluation,
    Feasible,
    ProposalStrategy,
    StrategyInfo,
    always_feasible,
    own_options,
    refuse_without_effect,
)
from cosearch.strategies.proposals import UniformDraws, read_choices
from cosearch.strategies.weight_sharing import ScoreBy, Scoring
from latency_tables.errors import ConfigError, UnknownNameError

WEIGHTS = {"morphism": ("inherit",), "fnas": ("pool",)}  # options on the weights that a proposer's candidates begin with
Sampling = Literal["uniform", "unconstrained", "fair"]


@dataclass(frozen=True)
class OwnOptions:
    """Options of one-shot search itself; whatever else ``strategy.values`` has is the proposer's.

    Attributes:
        sampling: see the equations.
        proposer: name of the proposal strategy.
        proposals: architectures that are scored.
        score_share: share of the search's environment steps that scoring takes.
        scores: what a score is, see the equations.
    """

    sampling: Sampling = "uniform"
    proposer: str = "evolution"
    proposals: Positive = 32
    score_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    scores: ScoreBy = "episodes"


@dataclass(frozen=True)
class SinglePathOptions:
    """Options of one-shot search.

    Attributes:
        sampling: see the equations.
        proposer: record of the proposal strategy.
        of_proposer: its options.
        scoring: what is scored.
    """

    sampling: Sampling
    proposer: StrategyInfo
    of_proposer: object
    scoring: Scoring


def single_path_options(config: StrategyConfig, rounds: int = 1, further: Sequence[str] = ()) -> SinglePathOptions:
    """The options from the section ``strategy`` of the configuration.

    Args:
        config: the section.
        rounds: searches that share the proposals, each with a proposer of its own.
        further: names of options that the strategy has beside these, for messages.

    Raises:
        UnknownNameError: no such proposer, or a key of ``strategy.values`` that neither has.
        ConfigError: a value is invalid, or the proposer is none that learns from scores.
    """
    names = [field.name for field in fields(OwnOptions)]
    own = own_options(OwnOptions, replace(config, values={k: v for k, v in config.values.items() if k in names}))
    proposer = STRATEGIES.get(own.proposer)
    if proposer.kind != "proposal" or "candidates" in proposer.unused:
        able = [info.name for info in STRATEGIES.entries() if info.kind == "proposal" and "candidates" not in info.unused]
        raise ConfigError(
            f"strategy.values.proposer={own.proposer} proposes no candidates to be scored: choose one of {', '.join(able)}"
        )
    rest = {key: value for key, value in config.values.items() if key not in names}
    refuse_without_effect(
        config, WEIGHTS.get(proposer.name, ()), f"{config.name}, which scores candidates with the supernet's weights"
    )
    asked = -(-own.proposals // rounds)
    try:
        of_proposer = proposer.options(replace(config, name=proposer.name, candidates=asked, values=rest))
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}; {config.name!r} itself has {', '.join([*names, *further])}") from error
    scoring = Scoring(own.proposals, own.score_share, own.scores)
    return SinglePathOptions(own.sampling, proposer, of_proposer, scoring)


class FairPaths:
    """Paths that use each candidate of a point once before any of them again.

    Args:
        space: the search space.
        generator: CPU generator of the orders.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        self.space, self.generator = space, generator
        inside = grouped(space.groups)
        self._candidates = [
            [c for c in range(len(point.candidates)) if p not in inside or c != point.zero]
            for p, point in enumerate(space.points)
        ]
        self._left: list[list[int]] = [[] for _ in space.points]  # candidates to come in the present order of each point

    @property
    def longest(self) -> int:
        """m: candidates of the point that has most."""
        return max((len(candidates) for candidates in self._candidates), default=1)

    def draw(self) -> Architecture:
        """The next path."""
        dropped: dict[int, int] = {}
        for group in self.space.groups:
            order = torch.randperm(len(group.points), generator=self.generator).tolist()
            for p in (group.points[i] for i in order[group.keep :]):
                zero = self.space.points[p].zero
                dropped |= {} if zero is None else {p: zero}
        return self.space.architecture([dropped[p] if p in dropped else self._next(p) for p in range(len(self._left))])

    def _next(self, point: int) -> int:
        left, candidates = self._left[point], self._candidates[point]
        if not left:
            left += [candidates[i] for i in torch.randperm(len(candidates), generator=self.generator).tolist()]
        return left.pop()

    def state(self) -> State:
        """What is left of the present orders."""
        return {"left": [list(left) for left in self._left]}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self._left = [list(read_choices(left)) for left in read_list(state, "left", list)]


class SinglePathSearch:
    """Paths for the weights of a supernet, and a proposal strategy that they score.

    Args:
        space: the search space.
        options: see :class:`SinglePathOptions`.
        generator: CPU generator of all draws, the proposer's among them.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: SinglePathOptions,
        generator: torch.Generator,
        is_feasible: Feasible,
    ) -> None:
        self.uniform = UniformDraws(space, generator, is_feasible if options.sampling == "uniform" else always_feasible)
        self.fair = FairPaths(space, generator) if options.sampling == "fair" else None
        self.proposer: ProposalStrategy = options.proposer.make(space, options.of_proposer, generator, is_feasible)

    @property
    def paths_a_step(self) -> int:
        """Of ``fair`` m, else one."""
        return 1 if self.fair is None else self.fair.longest

    def playing_path(self) -> Architecture:
        """A uniform draw.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target (``uniform``).
        """
        return self.uniform.draw()

    def learning_path(self) -> Architecture:
        """The next path of the orders, or a uniform draw; see :meth:`playing_path`."""
        return self.uniform.draw() if self.fair is None else self.fair.draw()

    def ask(self) -> Architecture:
        """The proposer's next architecture."""
        return self.proposer.ask()

    def tell(self, result: Evaluation) -> None:
        """How it did with the shared weights."""
        self.proposer.tell(result)

    def best(self) -> int:
        """Index of the best evaluation told so far, as the proposer has it."""
        return self.proposer.best()

    def state(self) -> State:
        """The orders and the proposer."""
        return {"proposer": self.proposer.state(), **({} if self.fair is None else {"fair": self.fair.state()})}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.proposer.restore(read_state(state, "proposer"))
        if self.fair is not None:
            self.fair.restore(read_state(state, "fair"))


STRATEGIES.register(
    StrategyInfo(
        "one-shot",
        "a supernet trained along uniformly drawn paths, then proposals of any proposal strategy scored with its weights",
        "Guo et al., ECCV 2020, arXiv 1904.00420; Chu et al., ICCV 2021, arXiv 1907.01845",
        "one-shot",
        False,
        True,
        SinglePathSearch,
        single_path_options,
    )
)
