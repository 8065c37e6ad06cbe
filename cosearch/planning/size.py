"""Sizes out of reason: what no machine like this can hold in memory, or finish within years, is refused before anything is made.

Both are lower bounds, so nothing that could work is refused: of the memory the arrays that surely live at once, of the time the
steps at a speed that no environment here reaches.
"""

from __future__ import annotations

import math
import os

import numpy as np

from cosearch.config.run import Config
from cosearch.rl.envs import frame_dtype
from latency_tables.errors import ConfigError
from latency_tables.text.spans import MOST_S, span_text

STEPS_PER_S = 1e6  # of all environments together, learning included; the fastest measured here is below a tenth of it
ENV_BYTES = 1024  # of one environment beside its frame: the smallest Gymnasium object is larger


def check_size(config: Config, frame_shape: tuple[int, ...], *, train_steps: int | None = None) -> None:
    """Raise where a run would surely not fit into this machine's memory, or not end within ten years.

    Args:
        config: the configuration.
        frame_shape: ``(height, width, channels)``, or ``(features,)``.
        train_steps: environment steps of the training; None: those of the budget.

    Raises:
        ConfigError: names each size with what it would take.
    """
    here = memory_bytes()
    faults = [
        f"{words} needs at least {_bytes_text(needed)} of memory, this machine has {_bytes_text(here)}"
        for words, needed in _memory(config, frame_shape).items()
        if needed > here
    ]
    faults += [
        f"{words} takes {span_text(seconds)} at {STEPS_PER_S:,.0f} steps a second, which is faster than any machine does it"
        for words, seconds in _times(config, train_steps).items()
        if seconds > MOST_S
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def memory_bytes() -> int:
    """Physical memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory(config: Config, frame_shape: tuple[int, ...]) -> dict[str, float]:
    """Bytes that surely live at once, by the words that ask for them."""
    frame = float(math.prod(frame_shape) * np.dtype(frame_dtype(frame_shape)).itemsize)
    envs, steps = config.env.num_envs, config.rl.rollout_steps
    needed = {
        f"env.num_envs={envs}": envs * (frame + ENV_BYTES),
        f"env.num_envs={envs} with rl.rollout_steps={steps}": float(envs) * steps * frame,
        f"budget.parity_frames={config.budget.parity_frames}": config.budget.parity_frames * frame,
        f"budget.eval_episodes={config.budget.eval_episodes}": config.budget.eval_episodes * 8.0,
    }
    if config.rl.algorithm == "dqn":
        needed[f"dqn.replay={config.dqn.replay}"] = config.dqn.replay * frame
    if config.rl.algorithm == "sac":
        needed[f"sac.replay={config.sac.replay}"] = config.sac.replay * frame
    return needed


def _times(config: Config, train_steps: int | None) -> dict[str, float]:
    """Seconds at the least, by the words that ask for them."""
    budget = config.budget
    steps = (
        {"steps": train_steps}
        if train_steps is not None
        else {
            "budget.search_steps": budget.search_steps,
            "budget.retrain_steps": budget.retrain_steps,
        }
    )
    times = {f"{name}={count}": count / STEPS_PER_S for name, count in steps.items()}
    times[f"budget.eval_episodes={budget.eval_episodes}"] = budget.eval_episodes / STEPS_PER_S
    times[f"budget.measure_s={budget.measure_s:g}"] = budget.measure_s
    return times


def _bytes_text(count: float) -> str:
    for unit, size in (("EB", 1e18), ("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1e21 else f"{count:.2g} bytes"
    return f"{count / 1e6:,.3g} MB"
