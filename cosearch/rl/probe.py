"""What looks wrong with an environment of a user's own, found by random steps before a run begins.

What no run can live with is an error at the step that shows it (:class:`cosearch.rl.envs.CheckedEnv`). What is named here lets a
run go on, and would spoil it: observations that are not as declared, episodes that do not end, memory that grows.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from cosearch.config.env import EnvConfig
from cosearch.rl.envs import CheckedEnv, split_name
from cosearch.rl.task import make_task, random_actions

WARM_UP_STEPS, STEPS, SECONDS = 64, 512, 0.5
SURELY_GROWN = 8 * 2**20  # bytes: less may be caches that fill
PROCESSES = Path("/proc")  # Linux: `statm` of a process has its pages of memory, the second number those that are resident


def doubts(config: EnvConfig, env_steps: int) -> tuple[str, ...]:
    """What looks wrong with the environment of a task, one sentence each; nothing is looked for in families with a fixed list.

    Args:
        config: the task.
        env_steps: of the run, for what its memory would grow to.

    Raises:
        EnvironmentFailedError: it does not keep its contract.
    """
    if not split_name(config.name)[0].takes_wrappers:
        return ()
    env = make_task(config, 1, 0)
    try:
        return _found(env, env_steps)
    finally:
        env.close()


def _found(env: CheckedEnv, env_steps: int) -> tuple[str, ...]:
    stream = np.random.default_rng(0)
    ended = _play(env, stream, WARM_UP_STEPS, SECONDS)[1]
    before, (steps, later) = _resident_bytes(env.process_id), _play(env, stream, STEPS, SECONDS)
    grown = _resident_bytes(env.process_id) - before
    found = list(env.doubts)
    if env.endless and not ended and not later:
        found.append(
            f"no episode of {env.name} ended in {WARM_UP_STEPS + steps} random steps and it has no time limit: an agent may "
            "learn from one endless episode. env.wrappers=[time_limit:1000] cuts it after so many steps"
        )
    needed, here = grown / max(steps, 1) * env_steps, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if grown > SURELY_GROWN and needed > here:
        found.append(
            f"{env.name} took {grown / 2**20:,.0f} MB of memory in {steps} steps: the {env_steps:,} steps of this run would take "
            f"{needed / 1e9:,.0f} GB, this machine has {here / 1e9:,.0f} GB. Does it keep its history?"
        )
    return tuple(found)


def _play(env: CheckedEnv, stream: np.random.Generator, steps: int, seconds: float) -> tuple[int, bool]:
    """Random steps, fewer where they take longer than that many seconds; their number, and whether an episode ended."""
    began, ended = time.monotonic(), False
    for step in range(1, steps + 1):
        env.send(random_actions(env, stream))
        seen = env.receive()
        ended = ended or bool(seen.terminated.any() or seen.truncated.any())
        if time.monotonic() - began > seconds:
            return step, ended
    return steps, ended


def _resident_bytes(process_id: int) -> int:
    pages = PROCESSES / str(process_id) / "statm"
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else 0
