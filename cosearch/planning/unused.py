"""Options that a run would not look at are refused."""

from __future__ import annotations

from typing import Any

from cosearch.config.agent import DistillConfig, DqnConfig, RlConfig
from cosearch.config.run import Config
from cosearch.config.search import StrategyConfig
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from latency_tables.errors import ConfigError

SHARED = ("algorithm", "rollout_steps", "max_grad_norm", "bf16")  # of section rl, with dqn


def refuse_unused(config: Config, strategy: StrategyInfo) -> None:
    """Raise when an option is set that the strategy does not use.

    Raises:
        ConfigError: names it, and what to do.
    """
    strategy.options(config.strategy)  # raises where an option of its own is wrong
    for key in strategy.unused:
        value, default = getattr(config.strategy, key), getattr(StrategyConfig(), key)
        if value != default:
            users = [info.name for info in STRATEGIES.entries() if key not in info.unused]
            raise ConfigError(
                f"strategy.{key}={value} has no effect with strategy {strategy.name!r}; leave it out (it is "
                f"{default}), or choose a strategy that uses it: {', '.join(users)}"
            )


def refuse_ignored(config: Config) -> None:
    """Raise when an option is set that the algorithm would not look at.

    Raises:
        ConfigError: names it, and what to do.
    """
    algorithm = config.rl.algorithm
    if algorithm != "dqn":
        for key, value in _set(config.dqn, DqnConfig()):
            raise ConfigError(
                f"dqn.{key}={value} has no effect with rl.algorithm={algorithm}; leave it out, or set rl.algorithm=dqn"
            )
        return
    for key, value in _set(config.rl, RlConfig()):
        if key not in SHARED:
            also = f"; the DQN has dqn.{key}" if hasattr(config.dqn, key) else ""
            raise ConfigError(
                f"rl.{key}={value} has no effect with rl.algorithm=dqn; leave it out (it is {getattr(RlConfig(), key)}){also}"
            )
    if config.distill.critic not in (0.0, DistillConfig().critic):
        raise ConfigError(
            f"distill.critic={config.distill.critic} has no effect with rl.algorithm=dqn: its values have another "
            "reward scale and discount than the teacher's. Leave it out"
        )


def _set(section: Any, default: Any) -> list[tuple[str, Any]]:
    values = [(key, getattr(section, key)) for key in default.__dataclass_fields__]
    return [(key, value) for key, value in values if value != getattr(default, key)]
