"""The environment steps of a run, exactly: whole rollouts in every stage, shared out among candidates without a remainder.

A stage of n steps takes as many whole rollouts as hold n. Every strategy takes the same number of them, so that runs of different
strategies with the same configuration have the same number of environment steps; `cosearch compare` relies on it. A one-shot
search pays for its scores from the same steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cosearch.config.run import Config
from cosearch.strategies.base import StrategyInfo
from cosearch.strategies.weight_sharing import Scoring
from latency_tables.errors import ConfigError

BRACKET_SHARE = 0.25  # of the retraining, for all but its last rung


def rollout_steps(config: Config) -> int:
    """Environment steps of one rollout of all environments."""
    return config.env.num_envs * config.rl.rollout_steps


def whole_rollouts(config: Config, steps: int) -> int:
    """``steps`` environment steps, rounded up to whole rollouts."""
    return -(-steps // rollout_steps(config)) * rollout_steps(config)


def retraining_steps(config: Config, *, brief: bool = False) -> int:
    """Environment steps of a retraining.

    Args:
        config: of the run.
        brief: of an architecture that follows one that measured over its target.
    """
    return math.ceil(config.budget.repair_share * config.budget.retrain_steps) if brief else config.budget.retrain_steps


def run_steps(config: Config) -> int:
    """Environment steps of a whole run: search and retraining."""
    return sum(whole_rollouts(config, steps) for steps in (config.budget.search_steps, config.budget.retrain_steps))


def search_share(config: Config) -> float:
    """Share of a run's environment steps that its search takes, 0..1."""
    return whole_rollouts(config, config.budget.search_steps) / run_steps(config)


def candidate_shares(config: Config, strategy: StrategyInfo, agents: int = 1) -> list[int]:
    """Environment steps of each candidate of a proposal strategy.

    Args:
        config: of the run.
        strategy: record of its strategy.
        agents: that are made from this search; each has at least one candidate under its own targets.

    Returns:
        Whole rollouts, as equal as they can be: the first ones get one more where they do not divide. The sum is what a
        gradient strategy's search takes.

    Raises:
        ConfigError: there are fewer rollouts than candidates.
    """
    rollout, count = rollout_steps(config), max(agents, strategy.candidates(config.strategy))
    rollouts = whole_rollouts(config, config.budget.search_steps) // rollout
    if rollouts < count:
        raise ConfigError(
            f"budget.search_steps={config.budget.search_steps} gives {rollouts} rollouts of {rollout} environment steps, too few "
            f"for {count} candidates: set strategy.candidates={rollouts}, budget.search_steps={count * rollout}, or smaller "
            "env.num_envs or rl.rollout_steps"
        )
    return [share * rollout for share in _shared_out(rollouts, count)]


def candidate_rungs(config: Config, strategy: StrategyInfo, agents: int = 1) -> list[list[int]]:
    """Environment steps of each training of a proposal strategy's candidates, by rung of the successive halving.

    Args:
        config, strategy, agents: see :func:`candidate_shares`.

    Returns:
        For each rung the steps of its trainings in the order begun; one rung without a ``strategy.reduction_factor``. A
        candidate that reaches rung k has trained for about ``factor ** k`` times the steps of one that ended in rung 0. The sum
        is that of the shares; with ``strategy.frames=shared``, where those of a rung have theirs in common, that of one on each.

    Raises:
        ConfigError: there are fewer rollouts than trainings, or fewer candidates than the factor.
    """
    factor, shared = strategy.reduction_factor(config.strategy), config.strategy.frames == "shared"
    rollout, all_steps = rollout_steps(config), whole_rollouts(config, config.budget.search_steps)
    count = max(agents, strategy.candidates(config.strategy))
    shares = [all_steps] * count if shared else candidate_shares(config, strategy, agents)
    if factor == 1:
        return [shares]
    sizes = [count]
    while sizes[-1] >= factor:
        sizes.append(sizes[-1] // factor)
    if len(sizes) == 1:
        raise ConfigError(
            f"strategy.reduction_factor={factor} of {count} candidates leaves none to train on: set strategy.candidates={factor} "
            "or more, or a smaller factor"
        )
    spans = [1, *(factor**rung - factor ** (rung - 1) for rung in range(1, len(sizes)))]
    whole = sum(spans) if shared else sum(size * span for size, span in zip(sizes, spans))
    total = all_steps // rollout
    if total < whole:
        raise ConfigError(
            f"budget.search_steps={config.budget.search_steps} gives {total} rollouts of {rollout} environment steps, too few "
            f"for {count} candidates with strategy.reduction_factor={factor}, which take {whole}: set budget.search_steps="
            f"{whole * rollout}, or smaller strategy.candidates, env.num_envs or rl.rollout_steps"
        )
    rungs = [[total * span // whole] * size for size, span in zip(sizes[:-1], spans)]
    if shared:
        before = sum(rung[0] for rung in rungs)
        return [[step * rollout for step in rung] for rung in (*rungs, [total - before] * sizes[-1])]
    last = _shared_out(total - sum(map(sum, rungs)), sizes[-1])
    return [[share * rollout for share in rung] for rung in (*rungs, last)]


@dataclass(frozen=True)
class OneShotRound:
    """One round of a one-shot search.

    Attributes:
        train_steps: environment steps that the supernet learns from, before its scores.
        scored_steps: environment steps of each proposal that is scored then.
    """

    train_steps: int
    scored_steps: tuple[int, ...]


def one_shot_rounds(config: Config, scoring: Scoring, agents: int = 1) -> list[OneShotRound]:
    """The rounds of a one-shot search. Training takes whole rollouts, each score whole steps of all environments.

    Args:
        config: of the run.
        scoring: what the strategy scores.
        agents: that are made from this search; each has at least one proposal under its own targets in each round.

    Returns:
        Shares as equal as they can be, the first ones one larger where they do not divide. The sum is what any other strategy's
        search takes.

    Raises:
        ConfigError: too few rollouts for the rounds, or too few steps or proposals for the scores.
    """
    rollout, count = rollout_steps(config), scoring.rounds
    rollouts = whole_rollouts(config, config.budget.search_steps) // rollout
    scored = max(count, round(scoring.share * rollouts))
    if rollouts - scored < count:
        raise ConfigError(
            f"budget.search_steps={config.budget.search_steps} gives {rollouts} rollouts of {rollout} environment steps, of "
            f"which scoring takes {scored}: too few to train the supernet {count} times: set budget.search_steps to at least "
            f"{2 * count * rollout}, a smaller strategy.values.score_share, or smaller env.num_envs or rl.rollout_steps"
        )
    found = []
    for train, score, proposals in zip(*(_shared_out(total, count) for total in (rollouts - scored, scored, scoring.proposals))):
        steps = score * config.rl.rollout_steps
        if not agents <= proposals <= steps:
            raise ConfigError(
                f"strategy.values.proposals={scoring.proposals} in {count} rounds gives {proposals} for one of them, which has "
                f"{steps} steps of all environments for its scores and {agents} agents: set strategy.values.proposals to "
                f"{count * agents} to {count * (scored // count) * config.rl.rollout_steps}"
            )
        each = _shared_out(steps, proposals)
        found.append(OneShotRound(train * rollout, tuple(share * config.env.num_envs for share in each)))
    return found


def _shared_out(total: int, count: int) -> list[int]:
    """``total`` in ``count`` parts, the first ones one larger where it does not divide."""
    each, more = divmod(total, count)
    return [each + (index < more) for index in range(count)]


@dataclass(frozen=True)
class Rung:
    """One round of successive halving: so many candidates are trained for so many environment steps each."""

    candidates: int
    steps: int


def bracket_rungs(config: Config, candidates: int) -> list[Rung]:
    """The retraining as successive halving; its last rung is the long training of the one candidate that is left.

    The rungs before it take equal steps, ``BRACKET_SHARE`` of the retraining together as far as whole rollouts allow, and leave
    half of their candidates, rounded up (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943). All steps together are those
    of the retraining of one architecture.

    Args:
        config: of the run.
        candidates: that there are, at least 1.

    Raises:
        ConfigError: too few steps for so many candidates.
    """
    rollout = rollout_steps(config)
    total = whole_rollouts(config, config.budget.retrain_steps) // rollout
    counts = [candidates]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // 2))
    short = counts[:-1]
    each = [max(1, int(BRACKET_SHARE * total / len(short)) // count) for count in short]
    last = total - sum(count * rollouts for count, rollouts in zip(short, each))
    if last < 1:
        raise ConfigError(
            f"budget.retrain_steps={config.budget.retrain_steps} gives {total} rollouts of {rollout} environment steps, too few "
            f"for budget.bracket={candidates}, which takes {total - last} before one candidate is left: set a smaller "
            "budget.bracket or more budget.retrain_steps"
        )
    return [*(Rung(count, rollouts * rollout) for count, rollouts in zip(short, each)), Rung(1, last * rollout)]
