"""What can go wrong inside a run, done to a child of ``pipeline_runs`` at a chosen moment; a game in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from typing import Any, ClassVar

import gymnasium
import numpy as np

GAME = "ChildGame-v0"


def play(pipe: Any) -> None:
    """The process of a :class:`ChildGame`: an episode of 12 steps; the action that equals the lit column pays 1."""
    stream, count, lit = np.random.default_rng(0), 0, 0
    for word, value in iter(pipe.recv, None):
        if word == "reset":
            stream, count = np.random.default_rng(value), 0
        reward, count = float(word == "step" and value == lit), count + 1
        lit = int(stream.integers(3))
        frame = np.zeros((32, 32, 1), np.uint8)
        frame[:, lit * 10 : lit * 10 + 10] = 255
        pipe.send((frame, reward, count > 12))


class ChildGame(gymnasium.Env):
    """A Gymnasium environment whose game lives in a process of its own, as some simulators do."""

    observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 1), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)
    processes: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=play, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.processes.append(self.process)

    def _ask(self, word: str, value: int) -> Any:
        self.pipe.send((word, value))
        return self.pipe.recv()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """A new episode."""
        return self._ask("reset", seed)[0], {}

    def step(self, action: int) -> Any:
        """One step."""
        frame, reward, over = self._ask("step", action)
        return frame, reward, over, False, {}

    def close(self) -> None:
        """End the process."""
        self.process.terminate()


def register() -> None:
    """Make the game known to Gymnasium."""
    gymnasium.register(GAME, "pipeline_faults:ChildGame", disable_env_checker=True)


def nan_loss() -> None:
    """The value loss is NaN from now on."""
    from cosearch.rl.learning import losses

    original = losses.value_loss
    losses.value_loss = lambda *args: original(*args) * float("nan")


def _broken(change: Any) -> None:
    from cosearch.rl.env_families.procgen import ProcgenEnv

    original = ProcgenEnv.receive
    ProcgenEnv.receive = lambda self: change(original(self))


def env_raises() -> None:
    """The engine raises at its next step."""

    def change(step: Any) -> Any:
        raise RuntimeError("the engine died")

    _broken(change)


def wrong_shape() -> None:
    """Frames lose a row."""
    _broken(lambda step: replace(step, frames=step.frames[:, 1:]))


def wrong_dtype() -> None:
    """Frames become floating-point numbers."""
    _broken(lambda step: replace(step, frames=step.frames.astype(np.float32)))


def nan_reward() -> None:
    """A reward is NaN."""
    _broken(lambda step: replace(step, reward=np.full_like(step.reward, np.nan)))


def killed_games() -> None:
    """One game's process is killed from outside."""
    alive = [process for process in ChildGame.processes if process.is_alive()]
    os.kill(alive[0].pid, signal.SIGKILL)
    alive[0].join()


FAULTS = {fault.__name__: fault for fault in (nan_loss, env_raises, wrong_shape, wrong_dtype, nan_reward, killed_games)}
