"""HURRICANE: candidates chosen for the device, then one-shot search of the later layers, and of the earlier ones.

Paper: Zhang, Yang, Jiang, Zhu, Liu, Fast Hardware-Aware Neural Architecture Search, CVPR Workshops 2020, arXiv 1910.11609.
Equations, with t(l, o) the device's latency of candidate o at point l, m(l, o) its multiply-accumulates:
  pool     C_l = { o : no other o' has t(l, o') <= t(l, o) and m(l, o') >= m(l, o) with one of them strict }
  stage 1  one-shot search (``single_path``) of the later half of the points from their pools, the earlier half held at e
  stage 2  the same over the earlier half, the later half held at what stage 1 found; the supernet learns on
The result is the best proposal of the last stage. Operations that the device runs badly are left out, and later layers come first
because they matter more; each stage searches about the root of the number of architectures.
``pools=all`` and ``stages=1`` are the comparisons: every candidate (one pool for all devices), all layers at once.
Differs from the paper in:
1. Its abstract is what was read: pools that suit the hardware, and a two-stage search on single-path training. The rule of the
   pool (the Pareto front of latency and multiply-accumulates), the halves and their order are this package's reading.
2. e, and what is held of a stage that found nothing, is the largest architecture of the pools that meets the targets
   (``largest``): so that stage 1 has the share of the target that such a network leaves its later layers. The candidates of the
   largest architecture of the space are in the pools as well, so that some architecture of the pools meets the targets.
3. Where several points decide the cost of a block, t is the mean over the others' candidates.
4. Halves are of the points in their order, a group of points (a cell's edges) whole in one of them. Cells that repeat have no
   later layers: there the halves are of the cell's edges.
5. Both stages have equal shares of the training, the scores and the proposals. The paper saves 30 % of the training.
6. What differs from single-path search in ``single_path`` differs here too. Each stage has a proposer of its own, which knows no
   result of the stage before it.
7. One device and target: agents of several would need stages of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch

from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_list, read_state
from cosearch.space.derivation.derive import Limit
from cosearch.space.derivation.largest import largest
from cosearch.space.derivation.pools import Pools, fronts
from cosearch.space.factors import MeanCosts
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Bound, Evaluation, Feasible, StrategyInfo, own_options
from cosearch.strategies.one_shot.single_path import SinglePathOptions, SinglePathSearch, single_path_options
from cosearch.strategies.proposals import Results, read_choices
from cosearch.strategies.weight_sharing import Scoring


@dataclass(frozen=True)
class OwnOptions:
    """Options of HURRICANE itself; whatever else ``strategy.values`` has is one-shot search's or its proposer's.

    Attributes:
        pools: ``device``: the fronts; ``all``: every candidate.
        stages: 2, or 1 for all layers at once.
    """

    pools: Literal["device", "all"] = "device"
    stages: Literal[1, 2] = 2


@dataclass(frozen=True)
class HurricaneOptions:
    """Options of HURRICANE.

    Attributes:
        own: its own.
        single_path: of the search of each stage.
        scoring: of all stages.
    """

    own: OwnOptions
    single_path: SinglePathOptions
    scoring: Scoring


def hurricane_options(config: StrategyConfig) -> HurricaneOptions:
    """The options from the section ``strategy`` of the configuration.

    Raises:
        UnknownNameError, ConfigError: see ``single_path_options``.
    """
    names = [field.name for field in fields(OwnOptions)]
    own = own_options(OwnOptions, replace(config, values={k: v for k, v in config.values.items() if k in names}))
    rest = {k: v for k, v in config.values.items() if k not in names}
    single_path = single_path_options(replace(config, values=rest), own.stages, names)
    return HurricaneOptions(own, single_path, replace(single_path.scoring, rounds=own.stages, one_agent=True))


@dataclass(frozen=True)
class BoundWithin:
    """A target of the whole space as one of a smaller space.

    Attributes:
        pools: the smaller space.
        bound: of the whole space.
    """

    pools: Pools
    bound: Bound

    @property
    def limit(self) -> Limit:
        """See ``Bound``."""
        return self.pools.limit(self.bound.limit)

    def met_by(self, architecture: Architecture) -> bool:
        """See ``Bound``."""
        return self.bound.met_by(self.pools.whole(architecture))


def device_pools(space: SearchSpace, limits: tuple[Limit, ...]) -> Pools:
    """The front of each point, and the candidates of the largest architecture that meets the limits.

    Args:
        space: the search space.
        limits: the latency's first; none: every candidate costs nothing, and the largest of each point is its front.
    """
    shares = [torch.full((len(point.candidates),), 1.0 / len(point.candidates)).double().numpy() for point in space.points]
    means = None if not limits else MeanCosts(limits[0].costs, limits[0].factors)
    costs = [
        [0.0] * len(point.candidates) if means is None else means.of(p, shares).tolist() for p, point in enumerate(space.points)
    ]
    most = largest(space, *limits, by="macs")
    kept = tuple(tuple(sorted({*front, choice})) for front, choice in zip(fronts(space, costs), most.choices))
    return Pools(space, kept)


def later_half(space: SearchSpace) -> frozenset[int]:
    """The points of the later half, each group whole; of an odd number of units the later half has one less."""
    units = sorted(space.units)
    return frozenset(p for unit in units[-(len(units) // 2) :] for p in unit) if len(units) > 1 else frozenset()


class Hurricane:
    """Device pools, and a single-path search for each of two stages.

    Args:
        space: the search space.
        options: see :class:`HurricaneOptions`.
        generator: CPU generator of all draws.
        is_feasible: the targets.
    """

    def __init__(self, space: SearchSpace, options: HurricaneOptions, generator: torch.Generator, is_feasible: Feasible) -> None:
        self.space, self.options, self.generator, self.is_feasible = space, options, generator, is_feasible
        limits = is_feasible.limits
        every = tuple(tuple(range(len(point.candidates))) for point in space.points)
        self.pools = device_pools(space, limits) if options.own.pools == "device" else Pools(space, every)
        smaller = self.pools.smaller
        inside = [self.pools.limit(limit) for limit in limits]
        self.largest = self.pools.whole(largest(smaller, *inside, by="macs"))
        self.results, self.stage, self.before = Results(), 0, 0  # results of the stages before this one
        self.within, self.search = self._search(self.pools)

    def _search(self, pools: Pools) -> tuple[Pools, SinglePathSearch]:
        bounds = tuple(BoundWithin(pools, bound) for bound in self.is_feasible.bounds)
        return pools, SinglePathSearch(pools.smaller, self.options.single_path, self.generator, Feasible(bounds))

    @property
    def paths_a_step(self) -> int:
        """See ``OneShotStrategy``."""
        return self.search.paths_a_step

    def begin_round(self, index: int) -> None:
        """Search the later half, or with what that found the earlier half.

        Args:
            index: of the stage, from 0.
        """
        held = self.largest.choices
        if self.results.trained(self.before):
            held = self.results[self.before + self.search.best()].choices
        self.stage, self.before = index, len(self.results)
        self.within, self.search = self._search(self._pools_of(held))

    def _pools_of(self, held: tuple[int, ...]) -> Pools:
        """The pools of the present stage: single candidates where the other stage's choices are held."""
        if self.options.own.stages == 1:
            return self.pools
        later = later_half(self.space)
        free = later if self.stage == 0 else frozenset(range(len(held))) - later
        return Pools(self.space, tuple(kept if p in free else (held[p],) for p, kept in enumerate(self.pools.kept)))

    def playing_path(self) -> Architecture:
        """See ``OneShotStrategy``."""
        return self.within.whole(self.search.playing_path())

    def learning_path(self) -> Architecture:
        """See ``OneShotStrategy``."""
        return self.within.whole(self.search.learning_path())

    def ask(self) -> Architecture:
        """The next architecture of this stage."""
        return self.within.whole(self.search.ask())

    def tell(self, result: Evaluation) -> None:
        """Record a result, and tell it to this stage's proposer."""
        self.results.add(result)
        inside = [kept.index(c) for kept, c in zip(self.within.kept, result.architecture.choices)]
        asked = None if result.asked is None else result.asked - self.before
        self.search.tell(replace(result, architecture=self.within.smaller.architecture(inside), asked=asked))

    def best(self) -> int:
        """Index of the best evaluation of this stage: those before it were scored with younger weights."""
        return self.before + self.search.best()

    def state(self) -> State:
        """All results, the stage with its candidates, and its search."""
        return {
            **self.results.state(),
            "stage": self.stage,
            "before": self.before,
            "pools": [list(kept) for kept in self.pools.kept],
            "largest": list(self.largest.choices),
            "kept": [list(kept) for kept in self.within.kept],
            "search": self.search.state(),
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        self.stage, self.before = read(state, "stage", int), read(state, "before", int)
        self.pools, within = (
            Pools(self.space, tuple(read_choices(kept) for kept in read_list(state, key, list))) for key in ("pools", "kept")
        )
        self.largest = self.space.architecture(read_list(state, "largest", int))
        self.within, self.search = self._search(within)
        self.search.restore(read_state(state, "search"))


STRATEGIES.register(
    StrategyInfo(
        "hurricane",
        "one-shot search of candidates that suit the device: the later layers first, then the earlier ones",
        "Zhang et al., CVPR Workshops 2020, arXiv 1910.11609",
        "one-shot",
        False,
        True,
        Hurricane,
        hurricane_options,
    )
)
