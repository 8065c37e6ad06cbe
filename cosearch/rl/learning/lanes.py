"""Data-parallel threads within one process: measured faster than several threads in each operation.

The operations of a small network take tens of microseconds, too short to be shared by cores; two halves of a batch are not. What
lanes compute is dealt out and put together in a fixed order, so a run repeats bit for bit on the same number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
SHARE = 64  # frames of a lane below which its operations are too short


class Lanes:
    """``count`` threads, of which the caller's is the first.

    Args:
        count: at least 1; 1 starts no thread.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        threads = torch.get_num_threads()  # of an operation: each thread must be told
        self._pool = ThreadPoolExecutor(count - 1, "lane", torch.set_num_threads, (threads,)) if count > 1 else None

    def run(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``[function(item) for item in items]``, item i in lane ``i % count``, those of a lane in order.

        Args:
            function: sets its own gradient and inference mode: they belong to a thread.
            items: any number.

        Raises:
            Exception: the first one of the first lane that raised; all lanes have ended by then.
        """
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]

        def several(part: Sequence[Item]) -> list[Result]:
            return [function(item) for item in part]

        others = [self._pool.submit(several, items[lane :: self.count]) for lane in range(1, min(self.count, len(items)))]
        try:
            parts = [several(items[:: self.count])]
        finally:
            wait(others)
        parts += [future.result() for future in others]
        return [parts[i % self.count][i // self.count] for i in range(len(items))]

    def submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Start ``function`` in a lane that is not the caller's. With one lane it runs immediately."""
        if self._pool is not None:
            return self._pool.submit(function, item)
        future: Future[Result] = Future()
        future.set_result(function(item))
        return future

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def lanes_for(threads: int, minibatch: int) -> int:
    """How many lanes a training gets: one a thread, but at least :data:`SHARE` frames of a minibatch each.

    Args:
        threads: CPU threads.
        minibatch: frames of one optimiser step.
    """
    return max(1, min(threads, minibatch // SHARE))


class Labelling:
    """A teacher's outputs for a rollout in the making: other lanes compute them while the first one plays.

    Args:
        forward: frames ``[batch, ...]`` -> logits ``[batch, actions]``, values ``[batch]``.
        lanes: where.
        chunk: frames of one forward pass.
    """

    def __init__(self, forward: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], lanes: Lanes, chunk: int) -> None:
        self._forward, self._lanes, self._chunk = forward, lanes, chunk
        self._given: list[tuple[torch.Tensor, Future[tuple[torch.Tensor, torch.Tensor]]]] = []

    def frames(self, flat: torch.Tensor, known: int) -> None:
        """More frames are known.

        Args:
            flat: all frames of the rollout, ``[time * envs, ...]``; the same memory at each call.
            known: how many of them are.
        """
        while len(self._given) < known // self._chunk or (known == len(flat) and len(self._given) * self._chunk < known):
            part = flat[len(self._given) * self._chunk :][: self._chunk]
            self._given.append((part, self._lanes.submit(self._label, part)))

    def _label(self, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode():
            return self._forward(part)

    def result(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Outputs of the chunks in order; the caller computes those that no lane has begun."""
        mine = {i: self._label(part) for i, (part, future) in reversed(list(enumerate(self._given))) if future.cancel()}
        return [mine[i] if i in mine else future.result() for i, (_, future) in enumerate(self._given)]
