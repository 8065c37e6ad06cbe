"""Environments in a process of their own, with a limit on the time of a step.

All environments of a :class:`VectorEnv` live in one spawned process and are stepped there as they would be here, so the results
are the same. An environment that ends its process, crashes it or does not come back costs one clear message, never the command.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from cosearch.fleet.processes import UNGUARDED, WORKER, check_main_guard, unguarded
from cosearch.record.state import State
from cosearch.rl.envs import Box, EnvOptions, Step, VectorEnv
from cosearch.space.parts import Part
from latency_tables.errors import ConfigError, CosearchError, EnvironmentFailedError, RequestError

OTHER_LIMIT_S = 600.0  # of making, saving and replaying: far longer than any of them takes
Make = Callable[[str, EnvOptions], VectorEnv]


@dataclass(frozen=True)
class _Facts:
    """What does not change in the life of an environment."""

    num_envs: int
    frame_shape: tuple[int, ...]
    num_actions: int
    action_box: Box | None
    first_action: int
    exact_resume: bool
    solved_at: float | None
    endless: bool
    action_names: tuple[str, ...]
    parts: tuple[Part, ...]
    action_sizes: tuple[int, ...]


class EnvApart:
    """A vector environment in a process of its own; itself a :class:`VectorEnv`.

    Args:
        make: (game, options) -> vector environment, at the top of a module that the process can import.
        game: for ``make``.
        options: for ``make``.
        name: for messages.
        step_limit_s: seconds that one step of all environments may take.

    Raises:
        ConfigError: ``make`` cannot be sent to another process.
        EnvironmentFailedError: the environment cannot be made, or its process ended.
        RequestError: the process runs the script of this one again, see ``check_main_guard``.
    """

    def __init__(self, make: Make, game: str, options: EnvOptions, name: str, step_limit_s: float) -> None:
        check_main_guard()
        self._name, self._limit_s = name, step_limit_s
        try:
            pickle.dumps((make, game, options))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"env.step_limit_s needs a process of its own for {name}, which its family does not allow: {error}; leave it out"
            ) from error
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, name=WORKER, args=(theirs, make, game, options))
        self._process.start()
        theirs.close()  # only the process holds it now: its death shows at this end
        facts = self._answer("being made", OTHER_LIMIT_S)
        assert isinstance(facts, _Facts)
        self.num_envs, self.frame_shape, self.num_actions = facts.num_envs, facts.frame_shape, facts.num_actions
        self.action_box, self.first_action, self.exact_resume = facts.action_box, facts.first_action, facts.exact_resume
        self.solved_at, self.endless = facts.solved_at, facts.endless
        self.action_names, self.parts, self.action_sizes = facts.action_names, facts.parts, facts.action_sizes

    @property
    def process_id(self) -> int:
        """Of the environments' process."""
        return self._process.pid or 0

    @property
    def doubts(self) -> tuple[str, ...]:
        """See ``VectorEnv``: those that there are so far."""
        found = self._call("doubts")
        assert isinstance(found, tuple)
        return found

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``."""
        frames = self._call("observe")
        assert isinstance(frames, np.ndarray)
        return frames

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``. The process steps while the caller computes."""
        self._tell(("step", actions))

    def receive(self) -> Step:
        """See ``VectorEnv``.

        Raises:
            EnvironmentFailedError: the step took longer than its limit, or the process ended.
        """
        step = self._answer("a step", self._limit_s)
        assert isinstance(step, Step)
        return step

    def state(self) -> State:
        """See ``VectorEnv``."""
        state = self._call("state")
        assert isinstance(state, dict)
        return state

    def restore(self, state: State) -> Sequence[int] | None:
        """See ``VectorEnv``."""
        anew = self._call("restore", state)
        return None if anew is None else [int(i) for i in anew] if isinstance(anew, (list, tuple)) else ()

    def close(self) -> None:
        """See ``VectorEnv``: ends the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _call(self, what: str, *content: object) -> object:
        self._tell((what, *content))
        return self._answer(f"its {what}", OTHER_LIMIT_S)

    def _tell(self, message: tuple[object, ...]) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._ended("before a step") from error

    def _answer(self, what: str, limit_s: float) -> object:
        try:
            if not self._connection.poll(limit_s):
                self._process.kill()
                option = "; env.step_limit_s sets the limit" if limit_s == self._limit_s else ""
                raise EnvironmentFailedError(f"{self._name}: {what} took more than {limit_s:g} s{option}")
            kind, content = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended(f"during {what}") from error
        if kind == "error":
            if isinstance(content, EnvironmentFailedError) and self._name not in str(content):
                raise EnvironmentFailedError(f"{self._name}: {content}") from content
            raise content
        return content

    def _ended(self, when: str) -> EnvironmentFailedError | RequestError:
        self._process.join()
        if self._process.exitcode == UNGUARDED:
            return unguarded()
        return EnvironmentFailedError(f"{self._name} ended its process {when}, with exit code {self._process.exitcode}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # it is, in a process that was spawned
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _serve(connection: Connection, make: Make, game: str, options: EnvOptions) -> None:
    """The life of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        env = make(game, options)
        facts = _Facts(
            env.num_envs,
            tuple(env.frame_shape),
            env.num_actions,
            getattr(env, "action_box", None),
            getattr(env, "first_action", 0),
            env.exact_resume,
            getattr(env, "solved_at", None),
            getattr(env, "endless", False),
            *(tuple(getattr(env, name, ())) for name in ("action_names", "parts", "action_sizes")),
        )
        connection.send(("done", facts))
        while True:
            connection.send(("done", _done(env, *connection.recv())))
    except EOFError:
        return  # the parent is gone
    except CosearchError as error:
        connection.send(("error", error))
    except SystemExit as error:
        connection.send(("error", EnvironmentFailedError(f"it ended its program: SystemExit({error.code!r})")))
    except Exception as error:  # noqa: BLE001  whatever the code of an environment raises
        connection.send(("error", EnvironmentFailedError(f"{type(error).__name__}: {error}")))


def _done(env: VectorEnv, what: str, *content: object) -> object:
    if what == "step":
        (actions,) = content
        assert isinstance(actions, np.ndarray)
        env.send(actions)
        return env.receive()
    if what == "restore":
        (state,) = content
        assert isinstance(state, dict)
        anew = env.restore(state)
        return None if anew is None else list(anew)
    if what == "doubts":
        return tuple(getattr(env, "doubts", ()))
    return env.observe() if what == "observe" else env.state()
