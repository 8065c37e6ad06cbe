"""How a rollout is cut into minibatches: the fewest that are within the size, as equal as they can be, every frame in one."""

from __future__ import annotations

from torch import Tensor

from latency_tables.errors import ConfigError


def cut(drawn: Tensor, size: int, each: int = 1) -> tuple[Tensor, ...]:
    """Cut what is drawn into minibatches of at most ``size``, whose sizes differ by one at most.

    Args:
        drawn: ``[count]``, frames, or environments with all their steps; in the order of the minibatches.
        size: at least 1.
        each: frames of what is drawn.

    Raises:
        ConfigError: a minibatch would hold one frame.
    """
    _check(len(drawn), size, each)
    return drawn.tensor_split(-(-len(drawn) // size))


def check_minibatches(steps: int, envs: int, minibatch: int, *, whole: bool = False) -> None:
    """Raise where a minibatch would hold one frame: its advantages are divided by their deviation, which takes two.

    Args:
        steps: of each environment in a rollout.
        envs: environments of one path.
        minibatch: ``rl.minibatch``, at least 1.
        whole: environments are drawn with all their steps, as of a policy with a memory; else frames are.

    Raises:
        ConfigError: says what to set.
    """
    each = steps if whole else 1
    _check(steps * envs // each, max(1, minibatch // each), each)


def _check(count: int, size: int, each: int) -> None:
    def least(size: int) -> int:
        return count // -(-count // size) * each

    if least(size) < 2:
        larger = next((more * each for more in range(size + 1, count + 1) if least(more) > 1), None)
        raise ConfigError(
            f"minibatches of up to {size * each} of {count * each} frames: one would hold a single frame, and advantages are "
            "divided by their deviation, which takes two: set "
            + ("rl.rollout_steps=2" if larger is None else f"rl.minibatch={larger}")
        )
