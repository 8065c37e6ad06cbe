"""Several controllers learn at once, each from its own evaluations, and share what they learn as soon as they have it.

Paper: Balaprakash et al., Scalable Reinforcement-Learning-Based Neural Architecture Search for Cancer Deep Learning Research,
SC 2019, arXiv 1909.00311; constants of the code of DeepHyper. Equations, with theta the server's parameters of the LSTM of
``controller``, theta_j those that controller j fetched last, and A the scores of its batch less their mean, in their standard
deviations:
  batch of j : architectures drawn with theta_j; when the last of them is told,
  update     : 4 Adam steps of 0.001 on E[ min(rho A, clip(rho, 0.8, 1.2) A) ] + 0.01 H, rho = pi(a) / pi_j(a); their sum: delta_j
  a3c        : theta <- theta + delta_j at once, and j fetches theta: nobody waits, and theta_j may be old
  a2c        : when each controller has a delta, theta <- theta + their mean, and all fetch theta
  cache      : an architecture that was evaluated is not evaluated again; its score counts in the batch once more
  result     = argmax of the score over all candidates that were told
With several processes (``strategy.workers``) results are told as trainings end, whatever was asked for first, and the next
candidate is asked for at once, so that no process waits for another.
Differs from the paper in:
1. Processes of one machine, two controllers and batches of 4; the paper's are up to 1,024 nodes, a controller for each some tens
   of them, and a batch as large as the nodes of a controller. All controllers live in the process of the search.
2. Controllers send the change of their four steps, not gradients; Adam begins anew with each batch, at the same step of 0.001
   throughout (the released code lets it fall linearly).
3. No network for the value of a state: the baseline of a batch is its mean. Its discounts (gamma and lambda) act within one
   sequence, whose only reward is its last.
4. Asks go to the controllers in turn. In ``a2c`` one whose batch is full goes on drawing with the old parameters, for its next
   batch, where the paper's waits.
5. At most 20 draws in a row are answered by the cache; then a candidate is trained again.
6. Only draws that meet the targets count; others are drawn again, at last uniformly. The paper has no target.
7. A candidate without a finished episode, or whose training failed, has the score of the worst one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cosearch.config.ranges import Positive
from cosearch.config.search import StrategyConfig
from cosearch.record.state import State, read, read_list
from cosearch.space.space import Architecture, SearchSpace
from cosearch.strategies.base import STRATEGIES, Evaluation, StrategyInfo, always_feasible, own_options, refuse_without_effect
from cosearch.strategies.controller import Controller, clipped_loss, draw_within
from cosearch.strategies.proposals import DRAWS, Results, UniformDraws, read_choices
from cosearch.strategies.surrogate import Learned
from latency_tables.errors import RunFolderError

UNITS, LR, EPOCHS, ENTROPY, HITS = 32, 0.001, 4, 0.01, 20
Parameters = dict[str, Tensor]
Drawn = tuple[tuple[int, ...], float, float]  # choices, log pi of the controller that drew them, score


@dataclass(frozen=True)
class DeepHyperOptions:
    """Options of the controllers.

    Attributes:
        mode: ``a3c``, each controller's change is taken over at once, or ``a2c``, all of them together.
        agents: controllers.
        batch: results of one update of a controller.
        cache: whether an architecture that was evaluated is not evaluated again.
        draws: attempts to draw one architecture that meets the target before giving up.
    """

    mode: Literal["a3c", "a2c"] = "a3c"
    agents: Positive = 2
    batch: Annotated[int, Field(ge=2)] = 4
    cache: bool = True
    draws: Positive = DRAWS


class DeepHyper:
    """Controllers and their server.

    Args:
        space: the search space.
        options: see :class:`DeepHyperOptions`.
        generator: CPU generator of the first weights and of all draws.
        is_feasible: whether an architecture meets the targets.
    """

    def __init__(
        self,
        space: SearchSpace,
        options: DeepHyperOptions,
        generator: torch.Generator,
        is_feasible: Callable[[Architecture], bool] = always_feasible,
    ) -> None:
        self.uniform, self.results = UniformDraws(space, generator, is_feasible, options.draws), Results()
        self.options, self.controller = options, Controller(space, UNITS, generator)
        self.server = self._parameters()
        self.fetched = [self.server for _ in range(options.agents)]
        self.batches: list[list[Drawn]] = [[] for _ in range(options.agents)]
        self.changes: list[Parameters | None] = [None for _ in range(options.agents)]  # that wait for the others'
        self.pending: list[tuple[int, int, tuple[int, ...], float]] = []  # ask, controller, choices, log pi
        self.asked = self.hits = 0

    def ask(self) -> Architecture:
        """A draw of the controller whose turn it is.

        Raises:
            InfeasibleTargetError: no architecture was found that meets the target.
        """
        agent = self.asked % self.options.agents
        for hits in range(HITS + 1):
            self.controller.load_state_dict(self.fetched[agent])
            proposed, _ = draw_within(self.controller, self.uniform)
            with torch.no_grad():
                log_p = float(self.controller.of(torch.tensor([proposed.choices])).log_p)
            known = [i for i, result in enumerate(self.results.all) if result.choices == proposed.choices]
            if not known or not self.options.cache or hits == HITS:
                break
            self.hits += 1
            self._collect(agent, (proposed.choices, log_p, self._score(known[-1])))
        self.pending.append((self.asked, agent, proposed.choices, log_p))
        self.asked += 1
        return proposed

    def tell(self, result: Evaluation) -> None:
        """Record a result in the batch of the controller that drew it; without ``asked`` it answers the oldest proposal.

        Raises:
            ValueError: no such proposal waits for its result.
        """
        waiting = [ask for ask, *_ in self.pending]
        if not waiting or result.asked not in (None, *waiting):
            raise ValueError(f"a result of proposal {result.asked}, but those that wait for one are {waiting}")
        _, agent, choices, log_p = self.pending.pop(0 if result.asked is None else waiting.index(result.asked))
        self.results.add(result)
        self._collect(agent, (choices, log_p, self._score(len(self.results) - 1)))

    def best(self) -> int:
        """Index of the highest score, see ``Results``."""
        return self.results.best()

    def state(self) -> State:
        """All results, the parameters of server and controllers, and their batches."""
        return {
            **self.results.state(),
            "server": self.server,
            "fetched": list(self.fetched),
            "batches": [[[list(choices), log_p, score] for choices, log_p, score in batch] for batch in self.batches],
            "changes": [{} if change is None else change for change in self.changes],
            "pending": [[ask, agent, list(choices), log_p] for ask, agent, choices, log_p in self.pending],
            "asked": self.asked,
            "hits": self.hits,
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`.

        Raises:
            RunFolderError: the state is damaged.
        """
        self.results.restore(state)
        self.server, self.fetched = _tensors(state.get("server")), [_tensors(one) for one in read_list(state, "fetched", dict)]
        self.batches = [
            [(read_choices(choices), float(log_p), float(score)) for choices, log_p, score in batch]
            for batch in read_list(state, "batches", list)
        ]
        self.changes = [_tensors(change) or None for change in read_list(state, "changes", dict)]
        self.pending = [
            (int(ask), int(agent), read_choices(choices), float(log_p))
            for ask, agent, choices, log_p in read_list(state, "pending", list)
        ]
        self.asked, self.hits = read(state, "asked", int), read(state, "hits", int)

    def _parameters(self) -> Parameters:
        return {key: value.detach().clone() for key, value in self.controller.state_dict().items()}

    def _score(self, index: int) -> float:
        """The score of a result; that of the worst one where it has none."""
        known = [result.score for result in self.results.all if result.score is not None]
        score = self.results[index].score
        return min(known, default=0.0) if score is None else score

    def _collect(self, agent: int, drawn: Drawn) -> None:
        """Add to a controller's batch; a full one is an update, unless its last change still waits."""
        self.batches[agent].append(drawn)
        if len(self.batches[agent]) < self.options.batch or self.changes[agent] is not None:
            return
        self.changes[agent] = self._change(agent)
        self.batches[agent] = []
        changes = [change for change in self.changes if change is not None]
        if self.options.mode == "a3c" or len(changes) == self.options.agents:
            self.server = {
                key: value + torch.stack([change[key] for change in changes]).mean(0) for key, value in self.server.items()
            }
            for each in [agent] if self.options.mode == "a3c" else range(self.options.agents):
                self.fetched[each], self.changes[each] = self.server, None

    def _change(self, agent: int) -> Parameters:
        """What the controller's steps on its batch change."""
        self.controller.load_state_dict(self.fetched[agent])
        choices = torch.tensor([one for one, _, _ in self.batches[agent]])
        old, scores = (torch.tensor(column, dtype=torch.float32) for column in list(zip(*self.batches[agent]))[1:])
        advantage = (scores - scores.mean()) / (float(scores.std(correction=0)) or 1.0)

        def loss() -> Tensor:
            drawn = self.controller.of(choices)
            return clipped_loss(drawn.log_p, old, advantage) - ENTROPY * drawn.entropy.mean()

        Learned(self.controller, LR).learn(loss, EPOCHS)
        return {key: value - self.fetched[agent][key] for key, value in self._parameters().items()}


def _tensors(saved: object) -> Parameters:
    if not isinstance(saved, dict) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise RunFolderError(f"the saved state should have the parameters of a controller, it has {type(saved).__name__}")
    return {str(key): value.clone() for key, value in saved.items()}


def deephyper_options(config: StrategyConfig) -> DeepHyperOptions:
    """The options from the section ``strategy`` of the configuration."""
    options = own_options(DeepHyperOptions, config)
    before = options.agents * (options.batch - 1) + 1  # results until the first controller has a batch
    if config.candidates <= before:
        beside = f"strategy.candidates={config.candidates}: no controller learns before {before} results"
        refuse_without_effect(config, ["mode"], beside)
    return options


STRATEGIES.register(
    StrategyInfo(
        "deephyper",
        "several controllers learn at once, and from each result as soon as its training ends",
        "Balaprakash et al., SC 2019, arXiv 1909.00311",
        "proposal",
        False,
        True,
        DeepHyper,
        deephyper_options,
        any_order=True,
    )
)
