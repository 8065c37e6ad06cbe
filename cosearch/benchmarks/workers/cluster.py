"""Several Ray nodes on one machine: the same runs as without, at which cost, and while something is killed every minute.

``python -m cosearch.benchmarks.workers.cluster equal`` makes one comparison in local processes and on a cluster of as many nodes,
turn about (local, cluster, cluster, local, each with half of the seeds), so that a machine whose speed drifts favours neither,
and compares every run. ``chaos`` makes a comparison again and again on such a cluster while a worker, a node, the driver or the
whole cluster is killed at random moments, and compares every run with that of an undisturbed one. Both write their part of
``cluster.json`` beside this file and their table of ``docs/evidence/cluster.md``. The nodes are of Ray's own test cluster.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program, saved
from cosearch.benchmarks.workers.cluster_runs import Meter, compared, differences, table, under
from latency_tables.errors import RunFailedError, RunFolderError

OUT, PAGE = Path(__file__).with_suffix(".json"), DOCS / "evidence" / "cluster.md"
STRATEGIES = ("random", "largest", "reinforce")
TASK = ("--env", "gym:CartPole-v1", "--preset", "smoke", "--strategies", ",".join(STRATEGIES))
WORDS = (
    *("distill.teacher=none", "budget.eval_episodes=8", "budget.checkpoint_interval_s=2"),
    *("env.num_envs=8", "rl.rollout_steps=64", "rl.minibatch=128"),
)
KINDS = ("worker", "node", "driver", "cluster")
NODE: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@dataclass(frozen=True)
class Equal:
    """The same comparison in local processes and on a cluster.

    Attributes:
        nodes: Ray nodes of one core, and local processes.
        runs: of each side.
        timed_runs: of each side, those that the times are of.
        search_steps, retrain_steps: of each run.
        equal: runs that are the same.
        files: what was compared.
        local_s, cluster_s: time of each side's commands, seconds.
        local_cpu_s, cluster_cpu_s: processor time of all processes of each side, those of Ray included, seconds.
        efficiency: ``local_s / cluster_s``.
        cpu_efficiency: ``local_cpu_s / cluster_cpu_s``.
        versions: of Ray and torch.
    """

    nodes: int
    runs: int
    timed_runs: int
    search_steps: int
    retrain_steps: int
    equal: int
    files: tuple[str, ...]
    local_s: float
    cluster_s: float
    local_cpu_s: float
    cluster_cpu_s: float
    efficiency: float
    cpu_efficiency: float
    versions: dict[str, str]


@dataclass
class Chaos:
    """Comparisons while something is killed.

    Attributes:
        nodes: Ray nodes of one core.
        wall_s: how long, seconds.
        kills: by kind.
        drivers: times that the command was started.
        rounds: comparisons that were finished.
        runs: of all of them.
        finished, doubled, equal: runs that ended, that have a step twice in their log, and that are as the undisturbed ones.
        work_s: seconds of work that the finished runs hold, by their own clocks.
        lost_s: ``nodes * wall_s - work_s``: work done again, and time in which a node, a worker or the command was being started.
        failures: what a run or a command said.
    """

    nodes: int
    wall_s: float = 0.0
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    drivers: int = 0
    rounds: int = 0
    runs: int = 0
    finished: int = 0
    doubled: int = 0
    equal: int = 0
    work_s: float = 0.0
    lost_s: float = 0.0
    failures: list[str] = field(default_factory=list)


def command(folder: Path, seeds: int, steps: tuple[int, int], *words: str) -> list[str]:
    """The command of a comparison.

    Args:
        folder: of it.
        seeds: of each strategy.
        steps: of search and retraining.
        *words: further options.
    """
    budget = (f"budget.search_steps={steps[0]}", f"budget.retrain_steps={steps[1]}")
    place = ("--runs", str(folder.parent), "--name", folder.name, "--quiet")
    return [sys.executable, "-m", "cosearch", "compare", *TASK, "--seeds", str(seeds), *place, *words, *WORDS, *budget]


def environment() -> dict[str, str]:
    """Of every process: one thread each, Ray on loopback, and this checkout's code from any folder."""
    own = {
        "OMP_NUM_THREADS": "1",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    return {**os.environ, **own, "PYTHONPATH": str(Path(__file__).parents[3])}


class Nodes:
    """A cluster of this machine: a head without cores, and nodes of one core.

    Args:
        count: nodes.
    """

    def __init__(self, count: int) -> None:
        os.environ.update(environment())
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
        self._nodes: list[Any] = []
        self._disks: list[tempfile.TemporaryDirectory[str]] = []
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self._cluster.address)

    def add(self) -> None:
        """Start a node, with a folder of its own, as that of a machine is: where it is killed the others' files stay."""
        disk = tempfile.TemporaryDirectory(prefix="ray-node-", ignore_cleanup_errors=True)
        self._disks.append(disk)
        self._nodes.append(self._cluster.add_node(num_cpus=1, temp_dir=disk.name, **NODE))

    def replace(self, generator: random.Random) -> None:
        """Kill a node with all its processes, and start another one."""
        node = self._nodes.pop(generator.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self.add()

    def stop(self) -> None:
        """Kill them all."""
        self._cluster.shutdown()
        for disk in self._disks:
            disk.cleanup()


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """A cluster inside the ``with`` block."""
    cluster = Nodes(count)
    try:
        yield cluster
    finally:
        cluster.stop()


def finish(words: Sequence[str]) -> None:
    """Do a command.

    Raises:
        RunFailedError: it failed.
    """
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailedError(f"{' '.join(words[1:])}: {done.stderr[-2000:]}")


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    import ray
    import torch

    return {"ray": ray.__version__, "torch": torch.__version__, "python": sys.version.split()[0]}


def equal(count: int, seeds: int, steps: tuple[int, int], keep_in: Path | None) -> None:
    """Bit-equal runs, and the efficiency against as many local processes.

    Args:
        count: nodes of one core, and local processes.
        seeds: of each strategy.
        steps: of search and retraining of each run.
        keep_in: folder that keeps the runs; half of the seeds that a side holds already is not made again, and timed on neither.

    Raises:
        RunFolderError: both sides hold all runs already, so nothing is left to be timed.
    """
    place = keep_in or Path(tempfile.mkdtemp(prefix="cosearch-cluster-"))
    folders = {side: place / side / "runs" / "comparison" for side in ("local", "cluster")}
    wall, cpu = dict.fromkeys(folders, 0.0), dict.fromkeys(folders, 0.0)
    halves = [half for half in (range(seeds // 2), range(seeds // 2, seeds)) if half]
    timed = [half for half in halves if not any(begun(folder, half) for folder in folders.values())]
    if not timed:
        raise RunFolderError(f"{place} holds runs of both halves of the seeds: give another folder with --keep-in, to time them")
    meter = Meter()
    with nodes(count) as cluster:
        options = {"local": ("--jobs", str(count)), "cluster": ("--cluster", cluster.address)}
        for half, sides in zip(halves, (("local", "cluster"), ("cluster", "local"))):
            for side in sides:
                began, began_cpu = time.monotonic(), meter.cpu_s
                finish(command(folders[side], half.stop, steps, *options[side]))
                if half in timed:
                    wall[side] += time.monotonic() - began
                    cpu[side] += meter.cpu_s - began_cpu
    meter.stop()
    names = [f"{strategy}-s{seed}" for strategy in STRATEGIES for seed in range(seeds)]
    faults = {name: differences(folders["local"] / name, folders["cluster"] / name) for name in names}
    for name, found in faults.items():
        if found:
            typer.echo(f"{name}: {'; '.join(found)}", err=True)
    result = Equal(
        nodes=count,
        runs=len(names),
        timed_runs=len(STRATEGIES) * sum(map(len, timed)),
        search_steps=steps[0],
        retrain_steps=steps[1],
        equal=sum(not found for found in faults.values()),
        files=compared(folders["local"] / names[-1]),
        local_s=round(wall["local"], 1),
        cluster_s=round(wall["cluster"], 1),
        local_cpu_s=round(cpu["local"], 1),
        cluster_cpu_s=round(cpu["cluster"], 1),
        efficiency=round(wall["local"] / wall["cluster"], 3),
        cpu_efficiency=round(cpu["local"] / cpu["cluster"], 3),
        versions=versions(),
    )
    if keep_in is None:
        shutil.rmtree(place)
    write("equal", asdict(result))


def begun(folder: Path, seeds: range) -> bool:
    """Whether a folder has a run of some seeds already."""
    return any((folder / f"{one}-s{seed}").exists() for one in STRATEGIES for seed in seeds)


def chaos(minutes: float, count: int, seeds: int, steps: tuple[int, int], seed: int, keep_in: Path | None) -> None:
    """Every 20 to 60 s a worker, a node, the driver or the whole cluster is killed.

    Args:
        minutes: how long something is killed; then the last comparison ends.
        count: nodes of one core.
        seeds: of each strategy.
        steps: of search and retraining of each run.
        seed: of what is killed, and when.
        keep_in: folder that keeps the runs, and may hold the undisturbed ones of ``equal``.
    """
    place = keep_in or Path(tempfile.mkdtemp(prefix="cosearch-cluster-"))
    generator, result, names = random.Random(seed), Chaos(count), [f"{one}-s{s}" for one in STRATEGIES for s in range(seeds)]
    quiet = place / "local" / "runs" / "comparison"
    finish(command(quiet, seeds, steps, "--jobs", str(count)))
    cluster, began = Nodes(count), time.monotonic()
    try:
        until, next_kill = began + 60 * minutes, began + generator.uniform(20, 60)
        while time.monotonic() < until or not result.rounds:
            folder = place / f"round{result.rounds}" / "runs" / "comparison"
            log = (place / "stderr").open("w+", encoding="utf-8")
            driver, ended = None, None
            while ended != 0:
                if driver is None:
                    words = command(folder, seeds, steps, "--cluster", cluster.address)
                    driver = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=log)
                    result.drivers += 1
                time.sleep(0.2)
                ended = driver.poll()
                if ended is not None:
                    if ended not in (0, -signal.SIGKILL):
                        log.seek(0)
                        result.failures.append(f"driver {result.drivers}, exit code {ended}: {log.read()[-300:]}")
                    driver = None
                elif until > time.monotonic() >= next_kill:
                    kind = generator.choices(KINDS, (4, 2, 2, 1))[0]
                    next_kill = time.monotonic() + generator.uniform(20, 60)
                    cluster = kill(kind, cluster, driver, count, generator, result)
            result.rounds += 1
            judge(folder, quiet, names, result)
            result.wall_s = round(time.monotonic() - began, 1)
            result.work_s = round(result.work_s + work_s(folder, names), 1)
            result.lost_s = round(count * result.wall_s - result.work_s, 1)
            write(
                "chaos",
                {**asdict(result), "seed": seed, "search_steps": steps[0], "retrain_steps": steps[1], "versions": versions()},
            )
    finally:
        cluster.stop()
        if keep_in is None:
            shutil.rmtree(place, ignore_errors=True)


def kill(
    kind: str, cluster: Nodes, driver: subprocess.Popen[bytes], count: int, generator: random.Random, result: Chaos
) -> Nodes:
    """Kill something; the cluster that there is afterwards."""
    if kind == "worker":
        workers = under("ray::the run")
        if not workers:
            return cluster
        os.kill(generator.choice(workers), signal.SIGKILL)
    elif kind == "node":
        cluster.replace(generator)
    elif kind == "driver":
        driver.kill()
    else:
        driver.kill()
        cluster.stop()
        cluster = Nodes(count)
    result.kills[kind] += 1
    return cluster


def work_s(folder: Path, names: Sequence[str]) -> float:
    """Seconds of work that runs hold, by their own clocks: what was lost is not among them."""
    return sum(float(json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))["wall_s"]) for name in names)


def judge(folder: Path, quiet: Path, names: Sequence[str], result: Chaos) -> None:
    """Compare the runs of a comparison with the undisturbed ones."""
    for name in names:
        path = folder / name
        result.runs += 1
        summary = path / "summary.json"
        result.finished += summary.is_file()
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [(line["stage"], line["step"]) for line in lines]
        result.doubled += len(steps) != len(set(steps))
        found = differences(quiet / name, path)
        result.equal += not found
        if found:
            result.failures.append(f"{name}: {'; '.join(found)}"[:300])


def write(part: str, content: dict[str, object]) -> None:
    """Write one result among those of its part, which are told apart by nodes, steps and seed, and their table."""
    whole = saved(OUT)
    of = ("nodes", "search_steps", "retrain_steps", "seed")
    others = [other for other in whole.get(part, []) if [other.get(key) for key in of] != [content.get(key) for key in of]]
    whole[part] = [*others, content]
    keep(whole, OUT, PAGE, f"cluster-{part}", table(whole[part]))
    typer.echo(json.dumps(content, indent=1))


def main(
    part: Annotated[str, typer.Argument(help="equal or chaos.")],
    nodes_: Annotated[int, typer.Option("--nodes", min=1, help="Ray nodes of one core.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Of each strategy.")] = 4,
    search_steps: Annotated[int, typer.Option(help="Of each run.")] = 4096,
    retrain_steps: Annotated[int, typer.Option(help="Of each run.")] = 2048,
    minutes: Annotated[float, typer.Option(min=0.1, help="chaos: how long something is killed.")] = 30.0,
    seed: Annotated[int, typer.Option(help="chaos: of what is killed, and when.")] = 0,
    keep_in: Annotated[Path | None, typer.Option(help="Folder that keeps the runs.")] = None,
) -> None:
    """Runs of a cluster of this machine: equal to local ones, also while parts of it are killed."""
    steps = search_steps, retrain_steps
    if part == "equal":
        equal(nodes_, seeds, steps, keep_in)
    elif part == "chaos":
        chaos(minutes, nodes_, seeds, steps, seed, keep_in)
    else:
        raise typer.BadParameter(f"expected equal or chaos, got {part!r}")


if __name__ == "__main__":
    program(main)
