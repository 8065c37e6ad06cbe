"""CATCH: a controller and an evaluator that are told what kind of task it is by an encoder of the results so far.

Paper: Chen et al., CATCH: Context-based Meta Reinforcement Learning for Transferrable Architecture Search, ECCV 2020,
arXiv 2007.09380. Equations, with c_n = (a_n, r_n) a network and its score, in standard deviations from the mean:
  encoder    : q(z|c) ~ N(z; 0, 1) prod_n N(z; mu(c_n), sigma(c_n)),   a normal distribution of each of 16 coordinates
  evaluator  : E(a, z) learns r;   loss = (E(a, z) - r)^2 + beta KL(q(z|c) || N(0, I)),  z ~ q(z|c);  the encoder learns from it
  controller : pi(a|z), the LSTM of ``controller`` with z beside each of its inputs, learns by policy gradient from r
  proposal   : with probability epsilon a draw of the controller; else of 16 draws the one that E(., z) likes best
  result     = argmax of the score over all candidates that were told
Meta-training comes before the search: on toy tasks, whose scores are sums over the choices with normal weights, drawn anew for
each task. From up to 24 networks of a task the encoder has to tell which of the others are good. So what it learns beforehand is
what scores have in common in general: that choices add up; the rest it learns from the candidates of the search.
With ``strategy.values.tasks`` half of the tasks of each step are earlier ones, whose networks and scores that file holds; of
these only networks that meet the targets count, or the controller would learn to name what may not be proposed.
Differs from the paper in:
1. Meta-training is on toys, 150 steps of 16 tasks (``strategy.values.meta_steps``; 0: none); the paper's is on image data sets of
   few classes, with trained networks, as with ``strategy.values.tasks`` half of it is. The same space and file are always
   trained with the same random numbers. The controller learns from draws of which the earlier task knows the score.
2. q has the prior as a factor, so that it is known also before the first result. Encoder and evaluator have one hidden layer, and
   beside it a bilinear part each (choices times score, choices times z): without it 150 steps of toy tasks taught them nothing.
3. The controller learns by REINFORCE with the mean of the batch as its baseline; the paper's by PPO. During the search it takes
   one step a candidate, encoder and evaluator 5 on all results.
4. Sizes, steps, beta = 0.01 and epsilon, which falls linearly from 1 to 0.1 over the first 16 candidates, are ours: the details
   of the paper are not known to us beyond its outline.
5. Only draws that meet the targets are filtered; 16 are drawn, and those proposed before left out where others remain.
6. z is drawn from q once for each proposal; without ``strategy.values.context`` it is 0, without ``strategy.values.evaluator``
   each proposal is a draw of the controller.
7. A candidate without a finished episode counts as the worst one; one whose training failed tells nothing.
8. Candidates that are trained at once (``strategy.workers``) are asked for with what is known by then, and told in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from cosearch.config.ranges import Count, Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_list, read_state
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options, refuse_without_effect
from cosearch.strategies.controller import Controller, draw_within
from cosearch.strategies.earlier_tasks import EarlierTask, KnownTask, read_tasks
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws, read_choices
from cosearch.strategies.surrogate import Learned, one_hot, two_layers
from latency_tables.errors import ConfigError

LATENT, UNITS, HIDDEN, LR = 16, 32, 64, 0.01
TASKS, MOST_CONTEXT, ASKED, SEED = 16, 24, 16, 2020  # of the meta-training
STEPS, BETA = 5, 0.01
FIRST_EPSILON, LAST_EPSILON, EPSILON_FALLS = 1.0, 0.1, 16


@dataclass(frozen=True)
class CatchOptions:
    """Options of CATCH.

    Attributes:
        meta_steps: of the meta-training, before the first proposal; 0: none.
        tasks: file of results of earlier tasks, see ``earlier_tasks``; empty: the meta-training is on toy tasks alone.
        context: whether the encoder is used; else z is 0.
        evaluator: whether the evaluator chooses among draws; else each proposal is one draw.
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    meta_steps: Count = 150
    tasks: str = ""
    context: bool = True
    evaluator: bool = True
    draws: Positive = DRAWS


class Networks(nn.Module):
    """Encoder, evaluator and controller.

    Args:
        space: the search space.
        generator: CPU generator of the first weights.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__()
        features = sum(len(point.candidates) for point in space.points)
        self.encoder = two_layers(2 * features + 1, HIDDEN, 2 * LATENT, generator)
        self.evaluator = two_layers(features + LATENT, HIDDEN, 1, generator)
        self.told, self.worth = (nn.Parameter(torch.randn(features, LATENT, generator=generator) / LATENT**0.5) for _ in range(2))
        self.controller = Controller(space, UNITS, generator, LATENT)

    def posterior(self, networks: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(z|c), ``[tasks, latent]`` each.

        Args:
            networks: ``[tasks, context, features]``, one-hot choices; a context of 0 gives the prior.
            scores: ``[tasks, context]``, in standard deviations from the mean.
        """
        credited = networks * scores[..., None]
        encoded = self.encoder(torch.cat([networks, credited, scores[..., None]], -1))
        mean, precision = encoded[..., :LATENT] + credited @ self.told, encoded[..., LATENT:].clamp(-6.0, 6.0).exp()
        total = 1.0 + precision.sum(1)
        return (mean * precision).sum(1) / total, 1.0 / total

    def predict(self, networks: Tensor, z: Tensor) -> Tensor:
        """E(a, z), ``[tasks, asked]``.

        Args:
            networks: ``[tasks, asked, features]``, one-hot choices.
            z: ``[tasks, latent]``.
        """
        repeated = z[:, None].expand(-1, networks.shape[1], -1)
        alone = self.evaluator(torch.cat([networks, repeated], -1))[..., 0]
        return alone + ((networks @ self.worth) * repeated).sum(-1)

    def loss(self, context: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        """Of encoder and evaluator, ``[]``.

        Args:
            context, asked: networks and scores, as for :meth:`posterior` and :meth:`predict`.
            noise: ``[tasks, latent]``, normal.
        """
        mean, variance = self.posterior(*context)
        errors = self.predict(asked[0], mean + variance.sqrt() * noise) - asked[1]
        divergence = 0.5 * (mean.square() + variance - 1.0 - variance.log()).sum(1)
        return errors.square().mean() + BETA * divergence.mean()


class ToyTasks:
    """Tasks whose scores are sums over the choices; a space's choices are drawn uniformly.

    Args:
        space: the search space.
        generator: CPU generator of tasks and networks.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        self.space, self.generator = space, generator
        self.features = sum(len(point.candidates) for point in space.points)

    def weights(self, tasks: int) -> Tensor:
        """New tasks, ``[tasks, features]``; a sum over one network's choices has variance 1."""
        return torch.randn(tasks, self.features, generator=self.generator) / len(self.space.points) ** 0.5

    def networks(self, tasks: int, count: int) -> Tensor:
        """Uniform draws, one-hot ``[tasks, count, features]``."""
        drawn = [self.space.sample(self.generator).choices for _ in range(tasks * count)]
        return one_hot(self.space, drawn).view(tasks, count, self.features)

    def scores(self, networks: Tensor, weights: Tensor) -> Tensor:
        """``[tasks, count]``.

        Args:
            networks: ``[tasks, count, features]``, one-hot choices.
            weights: ``[tasks, features]``.
        """
        return (networks * weights[:, None]).sum(-1)


def _advantages(reached: Tensor) -> Tensor:
    """``[tasks]``: scores ``[tasks]`` above their mean, 0 where a score is NaN."""
    known = ~reached.isnan()
    return torch.where(known, reached - reached[known].mean(), torch.zeros(())) if known.any() else torch.zeros_like(reached)


@functools.lru_cache(maxsize=8)
def meta_trained(space: SearchSpace, steps: int, earlier: tuple[EarlierTask, ...] = ()) -> dict[str, Tensor]:
    """Weights of the networks after the meta-training; they depend on the arguments alone.

    Args:
        space: the search space.
        steps: of Adam.
        earlier: tasks that take the place of half of the toys.
    """
    generator = torch.Generator().manual_seed(SEED)
    networks, tasks = Networks(space, generator), ToyTasks(space, generator)
    learned = Learned(networks, LR)
    pool = tasks.networks(1, 512)[0]  # of all tasks: drawing networks costs more than learning from them
    known_tasks = [KnownTask(space, task) for task in earlier]
    for _ in range(steps):
        weights = tasks.weights(TASKS)
        count = int(torch.randint(MOST_CONTEXT + 1, (), generator=generator))
        context, asked = (pool[torch.randint(len(pool), (TASKS, size), generator=generator)] for size in (count, ASKED))
        known, wanted = (context, tasks.scores(context, weights)), (asked, tasks.scores(asked, weights))
        places = torch.randint(len(known_tasks), (TASKS // 2,), generator=generator).tolist() if known_tasks else []
        taken = [known_tasks[place] for place in places]
        for row, task in enumerate(taken):
            for networks_of, scores_of in (known, wanted):
                networks_of[row], scores_of[row] = task.draw(networks_of.shape[1], generator)
        noise = torch.randn(TASKS, LATENT, generator=generator)
        with torch.no_grad():
            mean, variance = networks.posterior(*known)
            z = mean + variance.sqrt() * noise
        drawn = networks.controller.draw(TASKS, generator, z).choices
        reached = tasks.scores(one_hot(space, drawn.tolist())[:, None], weights)[:, 0]
        for row, task in enumerate(taken):
            reached[row] = task.score(tuple(drawn[row].tolist()))
        advantages = _advantages(reached)

        def loss(
            known: tuple[Tensor, Tensor] = known,
            wanted: tuple[Tensor, Tensor] = wanted,
            noise: Tensor = noise,
            z: Tensor = z,
            drawn: Tensor = drawn,
            advantages: Tensor = advantages,
        ) -> Tensor:
            gradient = -(advantages * networks.controller.of(drawn, z).log_p).mean()
            return networks.loss(known, wanted, noise) + gradient

        learned.learn(loss)
    return {key: value.detach().clone() for key, value in networks.state_dict().items()}


class Catch:
    """See the head of the file.

    Args:
        space: the search space.
        options: see :class:`CatchOptions`.
        generator: CPU generator of all draws.
        is_feasible: whether an architecture meets the targets.

    Raises:
        ConfigError: the file of earlier tasks cannot be read, is of another space, or has no task of which two networks meet
            the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: CatchOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.space, self.options, self.generator = space, options, generator
        self.earlier = read_tasks(Path(options.tasks), space) if options.tasks else None
        if self.earlier is not None:
            self._within(self.earlier.tasks)  # raises before the first proposal, not at it
        self.networks = Networks(space, torch.Generator().manual_seed(SEED))
        self.learned = Learned(self.networks, LR)
        self.ready = False
        self.pending: list[tuple[tuple[int, ...], Tensor]] = []  # asked for and not told, with their z
        self.asked: list[tuple[int, ...]] = []

    def ask(self) -> Architecture:
        """A draw of the controller, or the one of several that the evaluator likes best.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
            ConfigError: nor are there two of an earlier task, under the targets of another agent than the first.
        """
        if not self.ready:
            earlier = () if self.earlier is None else self._within(self.earlier.tasks)
            self.networks.load_state_dict(meta_trained(self.space, self.options.meta_steps, earlier))
            self.ready = True
        z = self.latent()
        count = len(self.asked)
        epsilon = max(LAST_EPSILON, FIRST_EPSILON - (FIRST_EPSILON - LAST_EPSILON) * count / EPSILON_FALLS)
        own = float(torch.rand((), generator=self.generator)) < epsilon or not self.options.evaluator
        drawn = [] if own else self._several(z)
        drawn = drawn or [draw_within(self.networks.controller, self.uniform, z)[0]]
        fresh = [one for one in drawn if one.choices not in set(self.asked)] or drawn
        proposed = fresh[int(self._predicted(fresh, z).argmax())] if len(fresh) > 1 else fresh[0]
        self.pending.append((proposed.choices, z))
        self.asked.append(proposed.choices)
        return proposed

    def latent(self) -> Tensor:
        """A draw of z from q(z | the results so far), ``[latent]``; 0 without the context."""
        if not self.options.context:
            return torch.zeros(LATENT)
        noise = torch.randn(1, LATENT, generator=self.generator)
        with torch.no_grad():
            mean, variance = self.networks.posterior(*self._context())
        return (mean + variance.sqrt() * noise)[0]

    def tell(self, result: Evaluation) -> None:
        """Record a result; all three networks learn, unless its training failed."""
        self.results.add(result)
        choices = result.architecture.choices
        place = next((i for i, (one, _) in enumerate(self.pending) if one == choices), None)
        z = torch.zeros(LATENT) if place is None else self.pending.pop(place)[1]
        if result.failed:
            return
        networks, scores = self._context()
        noise = torch.randn(STEPS, 1, LATENT, generator=self.generator)
        for step in noise if self.options.context else torch.zeros_like(noise):
            self.learned.learn(partial(self._loss, networks, scores, step))
        advantage, taken = float(scores[0, -1]), torch.tensor([choices])
        self.learned.learn(lambda: -advantage * self.networks.controller.of(taken, z[None]).log_p[0])

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, the networks, and what is asked for."""
        return {
            **self.results.state(),
            "networks": self.learned.state(),
            "ready": self.ready,
            "tasks": "" if self.earlier is None else self.earlier.digest,
            "pending": [[list(choices), z.clone()] for choices, z in self.pending],
            "asked": [list(choices) for choices in self.asked],
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`.

        Raises:
            ConfigError: the file of earlier tasks is another one now.
        """
        digest = "" if self.earlier is None else self.earlier.digest
        before = read(state, "tasks", str) if "tasks" in state else ""  # not in the checkpoints of earlier versions
        if before != digest:
            raise ConfigError(
                f"strategy.values.tasks={self.options.tasks} was {before[:12]} (SHA-256) when this search began and is "
                f"{digest[:12]} now: give the file back, or start a new run"
            )
        self.results.restore(state)
        self.learned.restore(read_state(state, "networks"))
        self.ready = read(state, "ready", bool)
        self.pending = [(read_choices(choices), z) for choices, z in read_list(state, "pending", list)]
        self.asked = [read_choices(choices) for choices in read_list(state, "asked", list)]

    def _within(self, tasks: tuple[EarlierTask, ...]) -> tuple[EarlierTask, ...]:
        """The earlier tasks, of each the networks that meet the targets; those without two of them are left out."""
        found = []
        for task in tasks:
            rows = zip(task.choices, task.scores)
            kept = [(one, score) for one, score in rows if self.uniform.is_feasible(self.space.architecture(one))]
            if len(kept) > 1:
                found.append(EarlierTask(task.task, tuple(one for one, _ in kept), tuple(score for _, score in kept)))
        if not found:
            raise ConfigError(
                f"strategy.values.tasks={self.options.tasks} has no earlier task of which two networks meet the targets: "
                "leave it out, or give a higher target"
            )
        return tuple(found)

    def _several(self, z: Tensor) -> list[Architecture]:
        """Those of ``ASKED`` draws that meet the target."""
        rows = self.networks.controller.draw(ASKED, self.generator, z.expand(ASKED, -1)).choices.tolist()
        return [one for one in map(self.space.architecture, rows) if self.uniform.is_feasible(one)]

    def _context(self) -> tuple[Tensor, Tensor]:
        """Networks and standardised scores of the results whose training did not fail, one task; see ``Networks.posterior``."""
        results = [self.results[i] for i in self.results.trained()]
        if not results:
            features = sum(len(point.candidates) for point in self.space.points)
            return torch.zeros(1, 0, features), torch.zeros(1, 0)
        least = min((one.score for one in results if one.score is not None), default=0.0)
        scores = torch.tensor([least if one.score is None else one.score for one in results], dtype=torch.float64)
        scores = (scores - scores.mean()) / (float(scores.std(correction=0)) or 1.0)
        return one_hot(self.space, [one.choices for one in results])[None], scores.float()[None]

    def _loss(self, networks: Tensor, scores: Tensor, noise: Tensor) -> Tensor:
        """Of encoder and evaluator on the results so far; without the context z is 0."""
        if self.options.context:
            return self.networks.loss((networks, scores), (networks, scores), noise)
        return (self.networks.predict(networks, noise) - scores).square().mean()

    def _predicted(self, architectures: list[Architecture], z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.networks.predict(one_hot(self.space, [one.choices for one in architectures])[None], z[None])[0]


def _options(config: StrategyConfig) -> CatchOptions:
    options = own_options(CatchOptions, config)
    if options.meta_steps == 0:
        refuse_without_effect(config, ["tasks"], "strategy.values.meta_steps=0")
    return options


STRATEGIES.register(
    StrategyInfo(
        "catch",
        "controller and evaluator that an encoder of the results tells the kind of task; meta-trained on toy tasks",
        "Chen et al., CATCH, ECCV 2020, arXiv 2007.09380",
        "proposal",
        False,
        True,
        Catch,
        _options,
        any_order=True,
    )
)
