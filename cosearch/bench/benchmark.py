"""Queries of the table, in the manner of NAS-Bench-201 (an architecture, a train seed) and HPO-RL-Bench (a score at each budget).

NAS-Bench-201: Dong and Yang, ICLR 2020, arXiv 2001.00326. HPO-RL-Bench: Shala et al., AutoML 2024; it tabulates hyper-parameters
and sizes of multilayer perceptrons, as ARLBench (Becktepe et al. 2024, arXiv 2409.18827) does. For convolutional agents with the
latencies of devices we found none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosearch.bench import settings
from cosearch.bench.table import DATA, SeedResult, Table, read_table, shipped_tasks, table_path
from cosearch.registry import unknown_name
from cosearch.space.derivation.derive import within
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.devices import find_table, list_devices
from latency_tables.errors import ConfigError, InfeasibleTargetError, MissingOpError, RequestError
from latency_tables.opspec import Device


@dataclass(frozen=True)
class Optimum:
    """The best finished network within a target.

    Attributes:
        architecture: which.
        score: its mean over the train seeds.
        latency_s: on the device, seconds.
        feasible: finished networks within the target.
    """

    architecture: Architecture
    score: float
    latency_s: float
    feasible: int


class Benchmark:
    """One task's table, with the latencies of every device that prices its networks.

    Args:
        task: environment, see ``tasks()``.
        folder: of the tables; left out, the shipped ones.

    Attributes:
        table: as it was read.
        space: the search space; an :class:`Architecture` of it is what is asked for.
        architectures: all of the space, in the order of the table.
        sizes: candidates of each point.

    Raises:
        UnknownNameError: there is no table of the task.
        ConfigError: the table is damaged, or of another task than its file's name says, or of another space than this version's.
    """

    def __init__(self, task: str, folder: Path = DATA) -> None:
        if not table_path(task, folder).exists():
            raise unknown_name("task", task, tasks(folder), f"{folder} has tables of {', '.join(tasks(folder)) or 'no task'}")
        self.table: Table = read_table(table_path(task, folder))
        if self.table.task != task:
            raise ConfigError(
                f"{table_path(task, folder)} is the table of {self.table.task}, not of {task}: name it "
                f"{table_path(self.table.task, folder).name}, or get the table of {task}"
            )
        self.space: SearchSpace = settings.space_for(self.table.frame_shape, self.table.num_actions)
        points = tuple((point.name, point.candidates) for point in self.space.points)
        if points != self.table.points or self.space.size != self.table.networks:
            raise ConfigError(f"{table_path(task, folder)} was made for other choices than this version's: {self.table.points}")
        if self.table.blocks_sha256 != settings.blocks_digest():
            raise ConfigError(f"{table_path(task, folder)} was made with other blocks behind its choices than this version's")
        self.architectures = settings.architectures(self.space)
        self.sizes = [len(point.candidates) for point in self.space.points]
        self._latencies: dict[str, np.ndarray] = {}

    @property
    def env_steps(self) -> int:
        """Environment steps of one whole training: what a query of a score costs a search that would have to train."""
        return self.table.steps[-1]

    @functools.cached_property
    def finished(self) -> np.ndarray:
        """``[networks]``, bool: which networks are in the table."""
        return np.isin(np.arange(self.table.networks), list(self.table.results))

    @functools.cached_property
    def seed_scores(self) -> np.ndarray:
        """``[networks, seeds]``: final scores; a training that failed counts as the worst of all, what is unfinished is NaN."""
        scores = np.full((self.table.networks, len(self.table.seeds)), np.nan)
        for number, results in self.table.results.items():
            scores[number] = [-np.inf if own.score is None else own.score for own in results]
        worst = np.min(scores[np.isfinite(scores)], initial=np.inf)
        return np.where(np.isneginf(scores), worst, scores)

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """``[networks]``: mean over the train seeds of the final scores; NaN where the network is not finished."""
        return self.seed_scores.mean(1)

    def number(self, architecture: Architecture) -> int:
        """Place of an architecture in the table."""
        return int(np.ravel_multi_index(architecture.choices, self.sizes))

    def score(self, architecture: Architecture) -> float:
        """Mean over the train seeds of an architecture's final scores, as searches are judged by it: see :attr:`seed_scores`.

        Raises:
            RequestError: the network is not finished.
        """
        self._results(architecture, None)
        return float(self.scores[self.number(architecture)])

    def failed_seeds(self, architecture: Architecture) -> tuple[int, ...]:
        """Train seeds from which an architecture's training failed.

        Raises:
            RequestError: the network is not finished.
        """
        results = self._results(architecture, None)
        return tuple(seed for seed, own in zip(self.table.seeds, results) if own.score is None)

    def query(self, architecture: Architecture, seed: int | None = None, step: int | None = None) -> float | None:
        """What training an architecture gave.

        Args:
            architecture: of the space.
            seed: one of the table's train seeds; None: the mean of all whose training did not fail.
            step: environment steps at which the training was looked at, one of ``table.steps``; None: the final evaluation.

        Returns:
            Mean return: of the final evaluation's episodes, or of the last 100 training episodes at ``step``; None where the
            training failed, or no episode had ended by then.

        Raises:
            RequestError: the network is not finished, or there is no such seed or step.
        """
        results = self._results(architecture, seed)
        if step is None:
            return _mean([own.score for own in results])
        if step not in self.table.steps:
            raise RequestError(f"the training was looked at after {', '.join(map(str, self.table.steps))} steps, not {step}")
        place = self.table.steps.index(step)
        return _mean([own.curve[place] if own.curve else None for own in results])

    def curve(self, architecture: Architecture, seed: int | None = None) -> list[tuple[int, float | None]]:
        """Environment steps and the training score there; arguments and errors as for :meth:`query`."""
        return [(step, self.query(architecture, seed, step)) for step in self.table.steps]

    def latency_s(self, architecture: Architecture, device: str) -> float:
        """Seconds of one inference, from the device's table.

        Args:
            architecture: of the space.
            device: name as in ``cosearch list devices``.

        Raises:
            UnknownNameError: no such device.
            MissingOpError: its table lacks a block.
        """
        return float(self.latencies_s(device)[self.number(architecture)])

    def latencies_s(self, device: str) -> np.ndarray:
        """``[networks]``: seconds of one inference of each network; errors as for :meth:`latency_s`."""
        if device not in self._latencies:
            table = find_table(device)
            self._latencies[device] = np.array([table.predict(one.ops()).latency_s for one in self.architectures])
        return self._latencies[device]

    def default_target_s(self, device: str) -> float:
        """The target where none is given, seconds: half of all networks of the space are within it."""
        return float(np.median(self.latencies_s(device)))

    def feasible(self, device: str, target_s: float) -> np.ndarray:
        """Numbers of the finished networks within a target, seconds.

        Raises:
            InfeasibleTargetError: there are none.
        """
        latencies = self.latencies_s(device)
        inside = np.flatnonzero(self.finished & np.array([within(value, target_s) for value in latencies]))
        if not len(inside):
            least = float(latencies[self.finished].min())
            raise InfeasibleTargetError(
                f"no finished network takes {target_s:.4g} s on {device}: the fastest takes {least:.4g} s"
            )
        return inside

    def optimum(self, device: str, target_s: float) -> Optimum:
        """The finished network with the best mean score within a target, seconds; errors as for :meth:`feasible`."""
        inside = self.feasible(device, target_s)
        best = int(inside[np.argmax(self.scores[inside])])
        return Optimum(self.architectures[best], float(self.scores[best]), float(self.latencies_s(device)[best]), len(inside))

    def devices(self) -> list[str]:
        """Names of the tables, a device's own ones apart, that price every network of the space."""
        names = []
        for listed in list_devices():
            name = Device(listed.name, listed.description, listed.runtime, listed.dtype, listed.threads).table_name
            try:
                self.latencies_s(name)
            except MissingOpError:
                continue
            names.append(name)
        return names

    def _places(self, seed: int | None) -> list[int]:
        if seed is None:
            return list(range(len(self.table.seeds)))
        if seed not in self.table.seeds:
            raise RequestError(f"the table has train seeds {', '.join(map(str, self.table.seeds))}, not {seed}")
        return [self.table.seeds.index(seed)]

    def _results(self, architecture: Architecture, seed: int | None) -> list[SeedResult]:
        number = self.number(architecture)
        if number not in self.table.results:
            raise RequestError(
                f"network {number}, {'/'.join(architecture.choice_names)}, is not in the table ({self.table.partial}): "
                "`cosearch bench extend --out DIR` trains what is missing"
            )
        return [self.table.results[number][place] for place in self._places(seed)]


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def tasks(folder: Path = DATA) -> list[str]:
    """The tasks that have a table."""
    return shipped_tasks(folder)


def benchmarks(folder: Path = DATA) -> list[Benchmark]:
    """Every task's benchmark that a folder of tables has, at least one.

    Raises:
        RequestError: it has no table.
        ConfigError: as for :class:`Benchmark`.
    """
    found = [Benchmark(task, folder) for task in tasks(folder)]
    if not found:
        raise RequestError(
            f"{folder} has no table of the benchmark: `cosearch bench extend --out DIR`, `cosearch bench pack DIR --out TABLES`"
        )
    return found
