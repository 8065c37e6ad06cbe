"""One seed, many named streams of random numbers, all of them saved with the run.

Each use has its own stream (environments, weights, architecture, actions, minibatches, evaluation), seeded from the
SHA-256 digest of the run's seed and the stream's name. So drawing more numbers in one place changes nothing in another,
and a stream that is added later leaves the old ones as they were. The global generators of torch, numpy and ``random``
are never used; :meth:`Streams.as_global` lends a stream to library code that knows only the global one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from cosearch.registry import unknown_name
from latency_tables.errors import ConfigError
from latency_tables.text.reading import parse_json, shown

STREAMS = {
    "env": "seeds of the training environments",
    "weights": "initial weights",
    "arch": "samples of the architecture distribution",
    "actions": "actions of the policy",
    "minibatch": "order of the minibatches",
    "eval": "environments and actions of evaluations",
    "accel": "searches of the accelerator",
}


def derived_seed(seed: int, name: str, bits: int) -> int:
    """The leading ``bits`` bits of SHA-256 over ``seed`` and ``name``: the same on every platform and version.

    Args:
        seed: the seed of the run.
        name: what the derived seed is for.
        bits: 1 to 256.

    Returns:
        An integer in ``[0, 2**bits)``.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest, "big") >> (256 - bits)


class Streams:
    """All random numbers of a run.

    Args:
        seed: the seed of the run, 0 or more.
        names: the streams there are; a name that is not among them is refused, so that a typing error cannot open a
            second stream beside the one that was meant.

    Raises:
        ConfigError: the seed is not a whole number of at least 0.
    """

    def __init__(self, seed: int, names: Sequence[str] = tuple(STREAMS)) -> None:
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"seed must be a whole number of at least 0, got {seed!r}")
        self.seed = seed
        self._torch = {name: torch.Generator("cpu").manual_seed(derived_seed(seed, f"torch:{name}", 63)) for name in names}
        self._numpy = {name: np.random.default_rng(derived_seed(seed, f"numpy:{name}", 128)) for name in names}

    def torch(self, name: str) -> torch.Generator:
        """The CPU generator of one stream: the same object each time, so that numbers go on where they ended.

        Raises:
            UnknownNameError: no stream has that name.
        """
        return self._torch[self._known(name)]

    def numpy(self, name: str) -> np.random.Generator:
        """The numpy generator of one stream: the same object each time, independent of :meth:`torch`.

        Raises:
            UnknownNameError: no stream has that name.
        """
        return self._numpy[self._known(name)]

    def derive(self, name: str, index: int = 0) -> int:
        """A seed of 31 bits for a program that wants a plain number; always the same for one run, name and index.

        Args:
            name: one of the streams.
            index: which of several, such as the number of an environment.

        Raises:
            UnknownNameError: no stream has that name.
        """
        return derived_seed(self.seed, f"derive:{self._known(name)}:{index}", 31)

    @contextmanager
    def as_global(self, name: str) -> Iterator[None]:
        """Lend the stream to torch's global CPU generator inside the ``with`` block, as for constructors of layers.

        Afterwards the stream stands where the block left it, and the global generator where it was before.

        Raises:
            UnknownNameError: no stream has that name.
        """
        stream = self.torch(name)
        before = torch.get_rng_state()
        torch.set_rng_state(stream.get_state())
        try:
            yield
        finally:
            stream.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def state_dict(self) -> dict[str, Any]:
        """The state of every stream: tensors, text and integers only."""
        return {
            "seed": self.seed,
            "torch": {name: generator.get_state() for name, generator in self._torch.items()},
            "numpy": {name: json.dumps(generator.bit_generator.state) for name, generator in self._numpy.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every stream where :meth:`state_dict` found it; changes nothing when they are other streams.

        Args:
            state: what :meth:`state_dict` returned, in this process or another.

        Raises:
            ConfigError: the state belongs to another seed or to other streams, or is damaged.
        """
        if state["seed"] != self.seed:
            raise ConfigError(f"the saved random streams belong to seed {state['seed']}, this run has seed {self.seed}")
        for kind in ("torch", "numpy"):
            if set(state[kind]) != set(self._torch):
                raise ConfigError(
                    f"the saved random streams are {', '.join(sorted(state[kind]))}; this version has "
                    f"{', '.join(sorted(self._torch))}. Resume with the version that run.json names"
                )
        try:
            for name, stream in self._torch.items():
                stream.set_state(state["torch"][name])
            for name, generator in self._numpy.items():
                generator.bit_generator.state = _numpy_state(state["numpy"][name])
        except (ConfigError, RuntimeError, TypeError, ValueError, KeyError, OverflowError) as error:  # of torch and numpy
            raise ConfigError(f"the saved random stream {name} is damaged: {type(error).__name__}: {str(error)[:200]}") from error

    def _known(self, name: str) -> str:
        if name not in self._torch:
            raise unknown_name("random stream", name, self._torch, f"There are {', '.join(self._torch)}")
        return name


def _numpy_state(text: object) -> dict[str, object]:
    saved = parse_json(str(text), "the saved random stream", ConfigError)
    if not isinstance(saved, dict):
        raise TypeError(f"expected an object, got {shown(saved)}")
    parts = saved.get("state")
    numbers = [value for name, value in saved.items() if name not in ("state", "bit_generator")]
    numbers += list(parts.values()) if isinstance(parts, dict) else [parts]
    if not all(type(value) is int and 0 <= value < 2**128 for value in numbers):
        raise TypeError(f"expected whole numbers of at most 128 bits, got {shown(numbers)}")
    return saved
