"""The environment steps of a run, exactly: whole rollouts in every stage, shared out among candidates without a remainder.

A stage of n steps takes as many whole rollouts as hold n. Every strategy takes the same number of them, so that runs of different
strategies with the same configuration have the same number of environment steps; `cosearch compare` relies on it.
"""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.strategies.base import StrategyInfo
from latency_tables.errors import ConfigError


def rollout_steps(config: Config) -> int:
    """Environment steps of one rollout of all environments."""
    return config.env.num_envs * config.rl.rollout_steps


def whole_rollouts(config: Config, steps: int) -> int:
    """``steps`` environment steps, rounded up to whole rollouts."""
    return -(-steps // rollout_steps(config)) * rollout_steps(config)


def run_steps(config: Config) -> int:
    """Environment steps of a whole run: search and retraining."""
    return sum(whole_rollouts(config, steps) for steps in (config.budget.search_steps, config.budget.retrain_steps))


def search_share(config: Config) -> float:
    """Share of a run's environment steps that its search takes, 0..1."""
    return whole_rollouts(config, config.budget.search_steps) / run_steps(config)


def candidate_shares(config: Config, strategy: StrategyInfo) -> list[int]:
    """Environment steps of each candidate of a proposal strategy.

    Args:
        config: of the run.
        strategy: record of its strategy.

    Returns:
        Whole rollouts, as equal as they can be: the first ones get one more where they do not divide. The sum is what a
        gradient strategy's search takes.

    Raises:
        ConfigError: there are fewer rollouts than candidates.
    """
    rollout, count = rollout_steps(config), strategy.candidates(config.strategy)
    rollouts = whole_rollouts(config, config.budget.search_steps) // rollout
    if rollouts < count:
        raise ConfigError(
            f"budget.search_steps={config.budget.search_steps} gives {rollouts} rollouts of {rollout} environment steps, too few "
            f"for {count} candidates: set strategy.candidates={rollouts}, budget.search_steps={count * rollout}, or smaller "
            "env.num_envs or rl.rollout_steps"
        )
    each, more = divmod(rollouts, count)
    return [(each + (index < more)) * rollout for index in range(count)]
