"""The kinds of strategy and their record. A strategy never imports the RL code: it is handed what it needs.

``gradient``: holds architecture logits, samples paths, takes a step when gradients have reached its logits.
``proposal``: proposes architectures and is told how each one did.
``one-shot``: draws the paths that a supernet learns along, then proposes what its weights score (``weight_sharing``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from cosearch.config.search import DeriveBy, StrategyConfig
from cosearch.record.state import State
from cosearch.registry import Registry, unknown_name
from cosearch.space.derivation.derive import Limit
from cosearch.space.space import Architecture
from cosearch.space.supernet import Path
from cosearch.strategies.minibatch import Minibatch, WeightStep
from latency_tables.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

GRADIENT_ONLY = (
    "paths_per_rollout",
    "update_path",
    "active_paths",
    "temperature_start",
    "temperature_end",
    "lr",
    "target_form",
    "warmup_fraction",
    "warmup_factor",
    "derive_by",
    "store",
)
PROPOSAL_ONLY = ("candidates", "candidate_init", "workers", "order", "reduction_factor", "judge_by", "frames")
PATHS = ("paths_per_rollout", "update_path")  # of the gradient strategies' keys those that tell how any supernet is trained
UNUSED = {
    "gradient": PROPOSAL_ONLY,
    "proposal": GRADIENT_ONLY,
    "one-shot": (*(key for key in GRADIENT_ONLY if key not in PATHS), *PROPOSAL_ONLY),
}  # kind -> keys of the section ``strategy`` without effect
Options = TypeVar("Options", bound="DataclassInstance")


@dataclass(frozen=True)
class StrategyInfo:
    """Registry record of a strategy.

    Attributes:
        name, description: for lists.
        paper: citation.
        kind: ``gradient``, ``proposal`` or ``one-shot``.
        needs_differentiable_cost: whether the costs must give gradients; checked when the plan is made.
        uses_teacher: whether its search distils from the teacher; else the teacher acts in retraining only.
        make: (space, options, generator) -> the strategy; of the other kinds (space, options, generator, is_feasible),
            where is_feasible is a :class:`Feasible`: only what meets the targets may be proposed.
        options: (section ``strategy`` of the configuration) -> the options; see :func:`own_options`.
        ignores: keys of the configuration's section ``strategy``, beside those of the other kinds, that have no effect with it;
            setting one is refused. Without ``paths_per_rollout`` one path acts, without ``target_form`` targets are penalties,
            without ``candidates`` one candidate has the whole budget.
        derive_by: what its architecture is derived from where ``strategy.derive_by`` does not say it; ``scores`` where it draws
            no single paths.
        any_order: results of a proposal strategy may be told in another order than they were asked for, each with its
            ``Evaluation.asked``; told again in that order, it proposes the same again. So with several workers it is told of each
            training as it ends, and asked for the next one at once, see ``turns``; without it there is a barrier.
        learns_from_results: (section ``strategy``) -> whether what it proposes depends on how earlier ones did (proposals).
        own_penalty: a missed target has a penalty of the strategy's own form (``minibatch.HasPenalty``): no dual variable.
    """

    name: str
    description: str
    paper: str
    kind: str
    needs_differentiable_cost: bool
    uses_teacher: bool
    make: Callable[..., Any]
    options: Callable[[StrategyConfig], object]
    ignores: tuple[str, ...] = ()
    derive_by: DeriveBy = "scores"
    any_order: bool = False
    own_penalty: bool = False
    learns_from_results: Callable[[StrategyConfig], bool] = lambda config: True

    @property
    def unused(self) -> tuple[str, ...]:
        """Keys of the section ``strategy`` without effect: those it ignores and those of the other kinds of strategy."""
        return (*self.ignores, *UNUSED[self.kind])

    def paths(self, config: StrategyConfig) -> int:
        """How many paths share the environments of one rollout."""
        return 1 if "paths_per_rollout" in self.unused else config.paths_per_rollout

    def candidates(self, config: StrategyConfig) -> int:
        """How many candidates share the budget of the search."""
        return 1 if "candidates" in self.unused else config.candidates

    def reduction_factor(self, config: StrategyConfig) -> int:
        """Of how many candidates one trains on; 1: all have equal shares."""
        return 1 if "reduction_factor" in self.unused else config.reduction_factor

    def derived_by(self, config: StrategyConfig) -> DeriveBy:
        """What the architecture of its search is derived from."""
        return self.derive_by if "derive_by" in self.unused or config.derive_by is None else config.derive_by

    def holds_target(self, config: StrategyConfig) -> bool:
        """Whether the first target bounds the sampled distribution, exactly at each rollout's beginning; else it is a penalty."""
        return "target_form" not in self.unused and config.target_form == "multiplier"


STRATEGIES: Registry[StrategyInfo] = Registry("strategy", entry_point_group="cosearch.strategies")


def own_options(kind: type[Options], config: StrategyConfig, **shared: object) -> Options:
    """Options from what strategies share and from the strategy's own ``strategy.values``.

    Args:
        kind: a dataclass of options; its annotations are checked.
        config: the section ``strategy``.
        **shared: options that come from the section's own keys; ``strategy.values`` cannot set these.

    Raises:
        UnknownNameError: ``strategy.values`` has a key that is no option of the strategy's own.
        ConfigError: one of its values is invalid.
    """
    own = [field.name for field in fields(kind) if field.name not in shared]
    for key in config.values:
        if key not in own:
            raise unknown_name(
                "option",
                f"strategy.values.{key}",
                [f"strategy.values.{name}" for name in own],
                f"Strategy {config.name!r} has {', '.join(own) or 'no options'} of its own",
            )
    try:
        return TypeAdapter(kind).validate_python({**shared, **config.values})
    except ValidationError as error:
        lines = [
            f"strategy.values.{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r}" for item in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from error


def refuse_without_effect(config: StrategyConfig, names: Iterable[str], beside: str) -> None:
    """Raise where options of the strategy's own are set that have no effect beside another one.

    Args:
        config: the section ``strategy``.
        names: of the options.
        beside: the other one as it is set, such as ``strategy.values.skip=false``.

    Raises:
        ConfigError: one of them is in ``strategy.values``.
    """
    for name in (name for name in names if name in config.values):
        raise ConfigError(f"strategy.values.{name}={config.values[name]} has no effect with {beside}; leave it out")


class Architectures(Protocol):
    """The distribution over architectures that a gradient strategy learns; ``relaxation.ArchitectureLogits`` is one."""

    def set_tilt(self, tilt: list[list[float]]) -> None:
        """Subtract this from the logits wherever paths are drawn and weighted: one value a candidate of each point."""

    def probabilities(self) -> list[Tensor]:
        """For each point ``[num_candidates]``, differentiable."""

    def anneal(self, progress: float) -> None:
        """Set the temperature, if there is one, for ``progress`` 0..1 of the search."""

    def zero_grad(self) -> None:
        """Clear the gradients of the logits."""


class SupernetStrategy(Protocol):
    """What all gradient strategies have: their logits learn while the supernet's weights do."""

    @property
    def arch(self) -> Architectures:
        """The architecture distribution, which the strategy owns."""

    def sample(self) -> Path:
        """Draw a path without weights, or a soft one with constant weights; the noise is kept with it."""

    def weighted(self, path: Path) -> Path:
        """The same path with weights that are differentiable in the logits."""

    def scores(self) -> list[list[float]]:
        """For each point one score a candidate, for the constrained discretisation."""

    def metrics(self) -> dict[str, object]:
        """Declared metrics."""

    def state(self) -> State:
        """Everything, as tensors and plain values."""

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""


class GradientStrategy(SupernetStrategy, Protocol):
    """Strategies whose logits learn on each minibatch of the weights: through the weights of its path, or from its loss."""

    def step(self, path: Path, loss: float) -> None:
        """One optimiser step on the logits, after the backward pass of a minibatch along ``path``.

        Args:
            path: what the minibatch was learned along.
            loss: what the path is credited with, lower is better: minus its return as far as the minibatch tells, and its
                divergence from the teacher; not the loss that its weights were trained on, whose policy term is clipped.
        """


@runtime_checkable
class BilevelStrategy(SupernetStrategy, Protocol):
    """Strategies whose logits learn from held-out experience, between the steps of the weights.

    Half of a rollout's frames train the weights, the other half the logits.
    """

    def step_architecture(self, train: Minibatch, held_out: Minibatch, weights: Sequence[nn.Parameter], step: WeightStep) -> None:
        """One optimiser step on the logits, or none. Leaves weights unchanged; their gradients are unspecified.

        Args:
            train: the minibatch of the training half that the weights learn from next.
            held_out: a minibatch of the other half, with the penalties of the targets.
            weights: of the supernet.
            step: the step that the weights' own optimiser would take next, clipped as in training; it takes none.
        """


@dataclass(frozen=True)
class Inheritance:
    """Which trained candidates the first weights of a candidate come from; the search keeps weights by evaluation.

    Attributes:
        parent: index of the evaluation whose architecture was changed; what surrounds its blocks (the normalisation of vectors)
            comes from it, too.
        blocks: for each block of the candidate, in order of execution, the index of an evaluation and of a block of its network;
            None: a new block, which passes its input on where it can. See ``cosearch.space.morphism``.
    """

    parent: int
    blocks: tuple[tuple[int, int] | None, ...]

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Indices of all evaluations whose weights are needed, in ascending order."""
        return tuple(sorted({self.parent, *(at[0] for at in self.blocks if at is not None)}))


@dataclass(frozen=True)
class Evaluation:
    """How a proposed architecture did.

    Attributes:
        architecture: what was trained.
        score: the higher the better: mean return, or with ``strategy.judge_by=divergence`` minus the divergence from the teacher,
            nats; None where there is none or the training failed.
        cost_s: its latency on the device, seconds.
        failed: its training failed (a loss that is not finite): it has no weights, and cannot be the best.
        asked: which proposal it answers, from 0; None: the oldest that was not answered yet.
        energy_j: predicted, joules; None where the device has no energies.
        memory_bytes: predicted peak of the process that runs it, bytes; None where nobody predicts it.
        env_steps: environment steps that its training took.
        inherited: where its first weights came from; None: from its own random numbers. Unless it failed, the weights that it
            ended with may be named by the ``Inheritance`` of a later one.
    """

    architecture: Architecture
    score: float | None
    cost_s: float
    failed: bool = False
    asked: int | None = None
    energy_j: float | None = None
    memory_bytes: float | None = None
    env_steps: int = 0
    inherited: Inheritance | None = None


class ProposalStrategy(Protocol):
    """Strategies that propose whole architectures. Several may be asked for before the first of them is told."""

    def ask(self) -> Architecture:
        """The next architecture to train; it meets the targets."""

    def tell(self, result: Evaluation) -> None:
        """How it did; told in the order in which they were asked, unless the strategy's record has ``any_order``."""

    def best(self) -> int:
        """Index of the best evaluation told so far, never of a failed one; asked for only where there is one that is not."""

    def state(self) -> State:
        """Everything, as tensors and plain values."""

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""


@runtime_checkable
class InheritingStrategy(ProposalStrategy, Protocol):
    """Proposal strategies whose candidates start from weights of earlier ones."""

    def inherits(self) -> Inheritance | None:
        """Where the first weights of the architecture that was asked for last come from; None: they are its own."""


@runtime_checkable
class SaysInherits(Protocol):
    """Options of an :class:`InheritingStrategy` that can switch it off."""

    @property
    def inherits(self) -> bool:
        """Whether candidates start from weights of earlier ones."""


class Bound(Protocol):
    """One target of a run, as a proposal strategy sees it; ``cosearch.cost.constraint.Constraint`` is one."""

    @property
    def limit(self) -> Limit:
        """The target as a limit of the derivation, at the present costs of the candidates."""

    def met_by(self, architecture: Architecture) -> bool:
        """Whether an architecture meets it."""


@dataclass(frozen=True)
class Feasible:
    """The check whether an architecture meets every target, which also gives the targets as limits.

    Attributes:
        bounds: the targets; none: every architecture is feasible.
    """

    bounds: tuple[Bound, ...] = ()

    @property
    def limits(self) -> tuple[Limit, ...]:
        """For a derivation, at the present costs of the candidates; an accelerator's change while it is searched."""
        return tuple(bound.limit for bound in self.bounds)

    def __call__(self, architecture: Architecture) -> bool:
        """Whether an architecture meets every target."""
        return all(bound.met_by(architecture) for bound in self.bounds)


class TargetsInTurn:
    """The check for a search that several agents are made from: each candidate is asked for under one agent's targets.

    Args:
        each: one check an agent.
    """

    def __init__(self, each: tuple[Feasible, ...]) -> None:
        self.each, self._present = each, each[0]

    def take_turn(self, count: int) -> None:
        """Go by the targets of one agent until the next call.

        Args:
            count: candidates before this one: each agent has its turn.
        """
        self._present = self.each[count % len(self.each)]

    @property
    def limits(self) -> tuple[Limit, ...]:
        """See :class:`Feasible`."""
        return self._present.limits

    def __call__(self, architecture: Architecture) -> bool:
        """Whether an architecture meets the targets of the agent whose turn it is."""
        return self._present(architecture)


def always_feasible(architecture: Architecture) -> bool:
    """The check of a search without a target: every architecture meets it."""
    return True


def mean_entropy(probabilities: Sequence[Tensor]) -> float:
    """Mean over the points of the entropy of their candidate distribution, in nats; 0 log 0 counts as 0."""
    return float(torch.stack([-(torch.special.xlogy(p, p)).sum() for p in probabilities]).mean())
