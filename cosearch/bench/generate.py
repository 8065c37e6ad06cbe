"""Filling the table: every network of every task trained from every seed, by any number of processes, over any number of kills.

A folder holds ``settings.json`` and for each task a file of lines, one a finished training. A network is claimed by a lock on a
file of its own, which the operating system releases when the process ends, however it ends; the lines of all its seeds are
written together when it is done. Networks come in a fixed random order, so that a partial table is a uniform sample of the space.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from cosearch.bench import settings
from cosearch.bench.together import train_together
from cosearch.fleet.cluster import Cluster
from cosearch.fleet.work import Send
from cosearch.fleet.workers import Workers
from cosearch.record.durable import append_line, write_bytes_atomic
from cosearch.rl.teacher import Teacher
from latency_tables.errors import ConfigError, NonFiniteError
from latency_tables.text.reading import parse_json, read_json, read_text, shown
from latency_tables.text.writing import make_folder

ORDER_SEED = 20261129


def results_path(folder: Path, task: str) -> Path:
    """The file of a task's lines."""
    return folder / f"{task.replace(':', '-')}.jsonl"


def order(count: int) -> list[int]:
    """Indices of the networks in the order in which they are trained."""
    return [int(i) for i in np.random.default_rng(ORDER_SEED).permutation(count)]


def finished_lines(folder: Path, task: str) -> list[dict[str, object]]:
    """The lines of a task's finished trainings; a last one that a kill cut is left out.

    Raises:
        ConfigError: a line is not JSON, or does not say its network and its seed.
    """
    path = results_path(folder, task)
    if not path.exists():
        return []
    lines = read_text(path, "results of the benchmark", ConfigError).split("\n")[:-1]
    parsed = [parse_json(line, f"{path}: line {number}", ConfigError) for number, line in enumerate(lines, 1)]
    return [_of_a_training(line, f"{path}: line {number}") for number, line in enumerate(parsed, 1)]


def _of_a_training(line: object, where: str) -> dict[str, object]:
    if not isinstance(line, dict) or not all(type(line.get(key)) is int for key in ("network", "seed")):
        raise ConfigError(
            f"{where} must be an object with whole numbers network and seed, got {shown(line)}: take the line out, "
            "`cosearch bench extend --out FOLDER` trains its network again"
        )
    return line


def finished_networks(lines: Sequence[Mapping[str, object]]) -> set[object]:
    """Numbers of the networks that have a line of every seed: a kill may fall between two lines of a network."""
    seen = {(line["network"], line["seed"]) for line in lines}
    return {network for network, _ in seen if all((network, seed) in seen for seed in settings.SEEDS)}


def begin(folder: Path, tasks: Sequence[str] = settings.TASKS) -> dict[str, object]:
    """Make the folder, or check that it belongs to this benchmark.

    Args:
        folder: of the results.
        tasks: that are worked on: each has the teacher that its results were begun with.

    Returns:
        For each task SHA-256 of the weights of its teacher, or None; empty in a folder of an earlier version, which wrote none.

    Raises:
        ConfigError: its results were made with other settings, or distilled from another teacher.
    """
    path, own = folder / "settings.json", (settings.digest(), settings.blocks_digest())
    if path.exists():
        values = read_json(path, "settings of the benchmark", ConfigError)
        if not isinstance(values, dict) or (values.get("digest"), values.get("blocks", settings.FIRST_BLOCKS)) != own:
            raise ConfigError(f"{folder} holds results of other settings than this version's; give another folder with --out")
        teachers = values.get("teachers", {})
        if not isinstance(teachers, dict):
            raise ConfigError(f"{path}: expected teachers as an object of tasks, got {shown(teachers)}")
        for task in tasks:
            here = settings.teacher_sha256(task)
            if teachers.get(task, here) != here:
                raise ConfigError(
                    f"{folder} holds results of {task} from a teacher whose weights have the SHA-256 {str(teachers[task])[:12]}, "
                    f"here it is {str(here)[:12]}: give another folder with --out"
                )
        return teachers
    teachers = {task: settings.teacher_sha256(task) for task in settings.TASKS}
    content = {"digest": own[0], "blocks": own[1], "training": settings.TRAINING, "teachers": teachers}
    make_folder(folder)
    write_bytes_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
    return teachers


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has the lock on a file, which it makes; held inside the ``with`` block, or until the process ends."""
    make_folder(path.parent)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def extend(folder: Path, tasks: Sequence[str], tell: Callable[[str], None], limit: int | None = None) -> int:
    """Train what is missing.

    Args:
        folder: of the results.
        tasks: in this order.
        tell: gets one line a network.
        limit: networks that this process trains at most; None: all.

    Returns:
        Networks that this process trained.

    Raises:
        ConfigError: the folder belongs to other settings, or to another teacher.
        UnknownNameError: one of the tasks is none of the benchmark.
    """
    for task in tasks:
        settings.training_config(task)  # before any work
    begin(folder, tasks)
    torch.set_num_threads(1)
    trained = 0
    for task in tasks:
        networks = settings.architectures(settings.make_space(task))
        for index in order(len(networks)):
            if limit is not None and trained >= limit:
                return trained
            with claimed(folder / "claims" / f"{task.replace(':', '-')}-{index:04d}") as mine:
                if not mine or index in finished_networks(finished_lines(folder, task)):
                    continue
                started = time.perf_counter()
                lines = train_network(task, index)
                keep_lines(folder, task, index, lines)
            trained += 1
            done = len(finished_networks(finished_lines(folder, task)))
            tell(f"{task} network {index}: {time.perf_counter() - started:.1f} s, {done} of {len(networks)} done")
    return trained


def extend_on_cluster(
    folder: Path, tasks: Sequence[str], tell: Callable[[str], None], cluster: Cluster, limit: int | None = None
) -> int:
    """Train what is missing on a cluster, one network a piece of work; this process alone writes the folder.

    Args:
        folder: of the results.
        tasks: in this order.
        tell: gets one line a network.
        cluster: where they are trained.
        limit: networks at most; None: all.

    Returns:
        Networks that were trained; one whose process was lost three times is not among them, the next command tries it again.

    Raises:
        ConfigError: the folder belongs to other settings, or to another teacher.
        UnknownNameError: one of the tasks is none of the benchmark.
        RequestError: there is no such cluster.
    """
    for task in tasks:
        settings.training_config(task)
    begin(folder, tasks)
    missing: list[tuple[str, int]] = []
    for task in tasks:
        there = finished_networks(finished_lines(folder, task))
        networks = settings.architectures(settings.make_space(task))
        missing += [(task, index) for index in order(len(networks)) if index not in there]
    missing = missing[:limit]
    trained = 0

    def done(number: int, lines: list[str]) -> None:
        nonlocal trained
        task, index = missing[number]
        keep_lines(folder, task, index, lines)
        trained += 1
        tell(f"{task} network {index}: {trained} of {len(missing)} done")

    def lost(number: int, reason: str) -> None:
        task, index = missing[number]
        tell(f"{task} network {index} is left out: {reason}")

    with Workers(train_network_there, cluster.engine(None)) as workers:
        workers.run(
            missing,
            name=lambda number: "{} network {}".format(*missing[number]),
            sent=lambda *_: None,
            done=done,
            lost=lost,
            waits=lambda number, reason: tell("{} network {}: {}".format(*missing[number], reason)),
        )
    return trained


def train_network_there(job: tuple[str, int], send: Send) -> list[str]:
    """Train one network on a machine of a cluster, with one thread; see :func:`train_network`.

    Args:
        job: task and number of the network.
        send: gets nothing.
    """
    torch.set_num_threads(1)
    return train_network(*job)


def keep_lines(folder: Path, task: str, index: int, lines: Sequence[str]) -> None:
    """Append the lines of a network; some may be there: a kill or a full disk came between two of them."""
    with _alone(folder / "claims" / "writing"):
        there = {(line["network"], line["seed"]) for line in finished_lines(folder, task)}
        for line in lines:
            if (index, json.loads(line)["seed"]) not in there:
                append_line(results_path(folder, task), line)


def train_network(task: str, index: int) -> list[str]:
    """Train one network from every seed: one line of JSON a seed.

    A training whose loss is not finite ends all seeds; then each is trained alone, and those that fail have no score.
    """
    config = settings.training_config(task)
    record = settings.teacher_of(task)
    teacher = None if record is None else Teacher(record, device=torch.device("cpu"), bf16=config.rl.bf16)
    ops = settings.architectures(settings.make_space(task))[index].ops()
    groups: list[Sequence[int]] = [settings.SEEDS]
    lines: list[str] = []
    while groups:
        seeds = groups.pop(0)
        started = time.process_time()
        try:
            results = train_together(config, ops, seeds, teacher, total_steps=settings.TOTAL_STEPS, episodes=settings.EPISODES)
        except NonFiniteError as error:
            if len(seeds) > 1:
                groups = [[seed] for seed in seeds]
            else:
                lines.append(json.dumps({"network": index, "seed": seeds[0], "failure": str(error)[:200]}))
            continue
        cpu_s = (time.process_time() - started) / len(seeds)
        for seed, result in zip(seeds, results, strict=True):
            curve = [None if value is None else round(value, 3) for value in result.curve]
            values = {"network": index, "seed": seed, "curve": curve, "score": round(float(np.mean(result.returns)), 4)}
            spread = round(float(np.std(result.returns)), 3)
            lines.append(json.dumps({**values, "std": spread, "episodes": len(result.returns), "cpu_s": round(cpu_s, 2)}))
    return lines


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    make_folder(path.parent)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
