"""FNAS: a PPO controller that trains fewer networks: a critic that knows when it knows, a pool of trained blocks, and replay.

Paper: Liu et al., FNAS: Uncertainty-Aware Fast Neural Architecture Search, arXiv 2105.11694, 2021. Equations, with pi the LSTM of
``controller``, r the score of a trained network and A its distance from the mean of the scores, in their standard deviations:
  PPO         : maximise  E[ min(rho A, clip(rho, 1 - eps, 1 + eps) A) ] + h H(pi),   rho = pi(a) / pi_old(a)
  critic      : V(a) learns r;  U(a) learns |V(a) - r|, the error of V on a network that it has not seen
                where U(a) < threshold the network is not trained: r = V(a)                            (``strategy.values.skip``)
  pool        : each block starts from the trained block that is most like it, by the cosine of their encodings: there is always
                one, so that every block has a start                                                  (``strategy.values.pool``)
  off-policy  : each update also takes as many earlier networks, whose pi_old is that of their time; the clipped rho bounds what
                they can move                                                                         (``strategy.values.replay``)
  result      = argmax of the score over all candidates that were trained
Differs from the paper in:
1. Its details are not known to us beyond the abstract and the outline above: sizes, steps and thresholds are ours, chosen before
   any result was seen. V and U have one hidden layer of 64 units on one-hot choices, the controller 32; 10 Adam steps of 0.01
   after each training on all that was trained; the controller 4 epochs a batch of 4, eps = 0.2, h = 0.01.
2. U is taught with errors that V made before it learned from the network; nothing is skipped before 8 were trained.
3. At most 20 networks are skipped between two that are trained: the number of trainings is the budget here, and must be spent.
4. Only draws that meet the targets count; others are drawn again, at last uniformly.
5. An encoding is the kind of the block, and the logarithms of its widths, sides, kernel, stride and expansion; the kind weighs 4.
   A block of another kind is a hit without effect: its weights do not fit.
6. The pool holds each block of each trained network once, after a whole training. The paper's fairness gives each kind of block
   as many training steps, in a supernet; here it has as many as it was proposed.
7. A trained network's score is that of its own training, from whatever it started.
8. A candidate without a finished episode, or whose training failed, counts as the worst one.
9. Candidates that are trained at once (``strategy.workers``) are drawn from one controller, and learned from in the order told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosearch.config.ranges import NonNegative, Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_list, read_state
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import (
    STRATEGIES,
    Evaluation,
    Inheritance,
    StrategyInfo,
    always_feasible,
    own_options,
    refuse_without_effect,
)
from cosearch.strategies.controller import Controller, clipped_loss, draw_within
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws, read_choices
from cosearch.strategies.surrogate import Learned, one_hot, two_layers
from latency_tables.opspec import KINDS, OpSpec

UNITS, HIDDEN, LR, STEPS = 32, 64, 0.01, 10
BATCH, EPOCHS, ENTROPY = 4, 4, 0.01
WARM, SKIPS = 8, 20
KIND_WEIGHT = 4.0


@dataclass(frozen=True)
class FnasOptions:
    """Options of FNAS.

    Attributes:
        skip: whether the critic stands in for a training where it is sure.
        threshold: below which U is sure, in standard deviations of the scores; refused without ``skip``.
        pool: whether blocks start from the most similar trained ones.
        replay: whether updates also take earlier networks.
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    skip: bool = True
    threshold: NonNegative = 0.3
    pool: bool = True
    replay: bool = True
    draws: Positive = DRAWS

    @property
    def inherits(self) -> bool:
        """Whether candidates start from weights of earlier ones."""
        return self.pool


def fnas_options(config: StrategyConfig) -> FnasOptions:
    """The options from the section ``strategy`` of the configuration.

    Raises:
        ConfigError: a threshold for a critic that never stands in; see also ``own_options``.
    """
    options = own_options(FnasOptions, config)
    if not options.skip:
        refuse_without_effect(config, ["threshold"], "strategy.values.skip=false")
    return options


@dataclass(frozen=True)
class Sample:
    """What the controller learns from.

    Attributes:
        choices: of the architecture.
        value: its score, or the critic's.
        log_p: log pi of the controller that drew it.
    """

    choices: tuple[int, ...]
    value: float
    log_p: float


def encoding(spec: OpSpec) -> Tensor:
    """What blocks are compared by: ``[features]``."""
    sizes = (spec.in_channels, spec.out_channels, spec.in_height, spec.in_width, spec.kernel, spec.stride, spec.expansion)
    kind = [KIND_WEIGHT * (spec.kind == name) for name in KINDS]
    return torch.tensor([*kind, *(float(size) for size in torch.tensor([*sizes, spec.hidden + 1]).log2())])


def most_similar(blocks: Sequence[OpSpec], pool: Sequence[OpSpec]) -> list[int]:
    """For each block the one of the pool with the largest cosine of the encodings, the last of equal ones."""
    ours, theirs = (torch.nn.functional.normalize(torch.stack([encoding(op) for op in ops]), dim=1) for ops in (blocks, pool))
    return [len(pool) - 1 - int(row.flip(0).argmax()) for row in (ours @ theirs.T).mul(1e6).round()]


class Fnas:
    """A PPO controller with critic, pool and replay.

    Args:
        space: the search space.
        options: see :class:`FnasOptions`.
        generator: CPU generator of the first weights and of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: FnasOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.space, self.options, self.generator = space, options, generator
        self.controller = Controller(space, UNITS, generator)
        features = sum(len(point.candidates) for point in space.points)
        self.value, self.doubt = (Learned(two_layers(features, HIDDEN, 1, generator), LR) for _ in range(2))
        self.policy = Learned(self.controller, LR)
        self.samples: list[Sample] = []
        self.learned = 0  # samples of updates that were made
        self.pending: list[tuple[tuple[int, ...], float]] = []  # asked for and not told, with their log pi
        self.errors: list[tuple[tuple[int, ...], float]] = []  # of V, before it learned
        self.last: tuple[int, ...] = ()
        self.skipped = 0

    def ask(self) -> Architecture:
        """The controller's next draw of which the critic is not sure.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        for skipped in range(SKIPS + 1):
            proposed, _ = draw_within(self.controller, self.uniform)
            log_p = self._log_p(proposed.choices)
            if (
                skipped == SKIPS
                or len(self.results) < WARM
                or not self.options.skip
                or self._net(self.doubt, [proposed.choices]) >= self.options.threshold
            ):
                break
            center, spread = self._unit()
            self.skipped += 1
            self._collect(Sample(proposed.choices, center + spread * self._net(self.value, [proposed.choices]), log_p))
        self.last = proposed.choices
        self.pending.append((proposed.choices, log_p))
        return proposed

    def inherits(self) -> Inheritance | None:
        """For each block of the last proposal the most similar one of all that were trained; None while there is none."""
        trained = self.results.trained()
        if not self.options.pool or not trained:
            return None
        owners, pool = [], []
        for i in trained:
            ops = self.space.architecture(self.results[i].choices).ops()
            owners += [(i, block) for block in range(len(ops))]
            pool += ops
        blocks = tuple(owners[place] for place in most_similar(self.space.architecture(self.last).ops(), pool))
        return Inheritance(blocks[0][0], blocks)

    def tell(self, result: Evaluation) -> None:
        """Record a result; the critic learns, and the controller where a batch is full."""
        self.results.add(result)
        choices = result.architecture.choices
        center, spread = self._unit()
        score = self._scores()[-1]
        self.errors.append((choices, abs(self._net(self.value, [choices]) - (score - center) / spread)))
        if self.options.skip:
            self._teach_critic()
        place = next((i for i, (one, _) in enumerate(self.pending) if one == choices), None)
        log_p = self._log_p(choices) if place is None else self.pending.pop(place)[1]
        self._collect(Sample(choices, score, log_p))

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, samples and networks."""
        return {
            **self.results.state(),
            **{name: learned.state() for name, learned in self._learners()},
            "samples": [[list(one.choices), one.value, one.log_p] for one in self.samples],
            "pending": [[list(choices), log_p] for choices, log_p in self.pending],
            "errors": [[list(choices), error] for choices, error in self.errors],
            "learned": self.learned,
            "last": list(self.last),
            "skipped": self.skipped,
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.results.restore(state)
        for name, learned in self._learners():
            learned.restore(read_state(state, name))
        self.samples = [
            Sample(read_choices(choices), float(value), float(log_p))
            for choices, value, log_p in read_list(state, "samples", list)
        ]
        self.pending, self.errors = (
            [(read_choices(choices), float(value)) for choices, value in read_list(state, key, list)]
            for key in ("pending", "errors")
        )
        self.learned, self.skipped = read(state, "learned", int), read(state, "skipped", int)
        self.last = read_choices(state.get("last"))

    def _learners(self) -> tuple[tuple[str, Learned], ...]:
        return ("policy", self.policy), ("value", self.value), ("doubt", self.doubt)

    def _scores(self) -> list[float]:
        """The score of each result; the worst one where there is none."""
        known = [result.score for result in self.results.all if result.score is not None]
        least = min(known, default=0.0)
        return [least if result.score is None else result.score for result in self.results.all]

    def _unit(self) -> tuple[float, float]:
        """Mean and standard deviation of the scores; 1 where they are equal."""
        scores = torch.tensor(self._scores(), dtype=torch.float64)
        return float(scores.mean()), float(scores.std(correction=0)) or 1.0

    def _log_p(self, choices: tuple[int, ...]) -> float:
        with torch.no_grad():
            return float(self.controller.of(torch.tensor([choices])).log_p)

    def _net(self, learned: Learned, choices: Sequence[tuple[int, ...]]) -> float:
        with torch.no_grad():
            return float(learned.module(one_hot(self.space, choices)))

    def _teach_critic(self) -> None:
        center, spread = self._unit()
        targets = [(result.choices, (score - center) / spread) for result, score in zip(self.results.all, self._scores())]
        for learned, pairs in ((self.value, targets), (self.doubt, self.errors)):
            x, y = one_hot(self.space, [one for one, _ in pairs]), torch.tensor([[value] for _, value in pairs])

            def loss(learned: Learned = learned, x: Tensor = x, y: Tensor = y) -> Tensor:
                return (learned.module(x) - y).square().mean()

            learned.learn(loss, STEPS)

    def _collect(self, sample: Sample) -> None:
        """Keep a sample; a full batch is an update."""
        self.samples.append(sample)
        fresh, earlier = self.samples[self.learned :], self.samples[: self.learned]
        if len(fresh) < BATCH:
            return
        batch = list(fresh)
        if self.options.replay and earlier:
            batch += [earlier[i] for i in torch.randint(len(earlier), (BATCH,), generator=self.generator).tolist()]
        values = torch.tensor([one.value for one in self.samples], dtype=torch.float64)
        advantage = (torch.tensor([one.value for one in batch], dtype=torch.float64) - values.mean()) / (values.std() or 1.0)
        choices, old = torch.tensor([one.choices for one in batch]), torch.tensor([one.log_p for one in batch])

        def loss() -> Tensor:
            drawn = self.controller.of(choices)
            return clipped_loss(drawn.log_p, old, advantage.float()) - ENTROPY * drawn.entropy.mean()

        self.policy.learn(loss, EPOCHS)
        self.learned = len(self.samples)


STRATEGIES.register(
    StrategyInfo(
        "fnas",
        "a PPO controller whose critic may stand in for a training; a pool of trained blocks; replay",
        "Liu et al., FNAS, 2021, arXiv 2105.11694",
        "proposal",
        False,
        True,
        Fnas,
        fnas_options,
        ("candidate_init",),
        any_order=True,
    )
)
