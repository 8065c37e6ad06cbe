"""What soft actor-critic can learn: one vector in, a vector between finite bounds out, nothing remembered."""

from __future__ import annotations

from cosearch.config.run import Config
from cosearch.rl.task import make_task
from cosearch.space.space import SearchSpace
from latency_tables.errors import ConfigError


def check_sac(config: Config, space: SearchSpace) -> None:
    """Raise where ``rl.algorithm=sac`` cannot learn a task, or the networks of a space.

    Args:
        config: with that algorithm.
        space: of the task.

    Raises:
        ConfigError: discrete actions, an action without bounds, images, observations of several parts, or chosen heads.
    """
    name = config.env.name
    if space.policy != "gaussian":
        raise ConfigError(
            f"rl.algorithm=sac learns action vectors between bounds, {name} has discrete actions: use rl.algorithm=dqn "
            "(one of some actions) or rl.algorithm=ppo"
        )
    if space.parts or len(space.frame_shape) != 1:
        seen = "observations of several parts" if space.parts else "images as observations"
        raise ConfigError(f"rl.algorithm=sac learns from one vector, {name} has {seen}: use rl.algorithm=ppo")
    if space.shares_widths:
        raise ConfigError(
            f"rl.algorithm=sac learns in a head of its own, and space {space.name!r} chooses the head: use rl.algorithm=ppo, or "
            "space.name=mlp"
        )
    env = make_task(config.env, 1, 0)
    env.close()
    if env.action_box is None or not env.action_box.is_finite:
        raise ConfigError(
            f"rl.algorithm=sac scales its actions to their bounds, and {name} has actions without: use rl.algorithm=ppo, or "
            "bound them with a wrapper of env.wrappers (gymnasium's RescaleAction or ClipAction)"
        )
