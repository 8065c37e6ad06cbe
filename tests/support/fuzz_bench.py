"""Readers of the benchmark's files for the fuzzer: each as a function of a folder for its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fuzz_rule import Reader, of_file

Maker = Callable[[Path], Reader]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def bench_table(folder: Path) -> Reader:
    """A table of the benchmark, its digest made right, and what is asked of one."""
    from bench_table import made_table

    from cosearch.bench.benchmark import Benchmark
    from cosearch.bench.table import write_table

    def remade(content: bytes) -> bytes:
        first, _, rest = content.partition(b"\n")
        try:
            header = json.loads(first)
            header["sha256"] = hashlib.sha256(rest).hexdigest()
            return _json(header) + b"\n" + rest
        except (ValueError, TypeError, RecursionError):
            return content

    path = folder / "minatar-breakout.jsonl"
    write_table(made_table(lambda number, seed: float(number + seed), numbers=(0, 5)), path)

    def read(path: Path) -> object:
        bench = Benchmark("minatar:breakout", folder)
        return bench.table.partial, bench.env_steps, bench.finished, bench.scores

    return of_file(path, (path.read_bytes(),), read, remade=remade)


def bench_results(folder: Path) -> Reader:
    """Results of the benchmark in the making, and the table that is packed from them."""
    from cosearch.bench import generate, settings
    from cosearch.bench.table import pack

    (folder / "settings.json").write_bytes(_json({"digest": settings.digest()}))
    curve = [None, *[0.5] * (settings.rollouts() - 1)]
    line = {"network": 3, "score": 1.0, "std": 0.5, "curve": curve, "episodes": 128, "cpu_s": 1.0}
    seed = b"".join(_json(line | {"seed": seed}) + b"\n" for seed in settings.SEEDS)
    path = generate.results_path(folder, "minatar:breakout")

    def read(path: Path) -> object:
        generate.keep_lines(folder, "minatar:breakout", 3, seed.decode().splitlines())
        return pack(folder, "minatar:breakout")

    return replace(of_file(path, (seed,), read), name="bench-results.jsonl")


def bench_settings(folder: Path) -> Reader:
    """Settings of the benchmark's results."""
    from cosearch.bench import generate, settings

    seed = _json({"digest": settings.digest(), "training": {}})
    return of_file(folder / "settings.json", (seed,), lambda path: generate.begin(folder))


def earlier_tasks(folder: Path) -> Reader:
    """Results of earlier tasks, and what a search learns from them."""
    from small_space import small_space

    from cosearch.strategies.earlier_tasks import EarlierTask, KnownTask, read_tasks, write_tasks
    from cosearch.testing.conformance import seeded

    space, path = small_space("conv_k3", "skip", cells=2), folder / "tasks.json"
    write_tasks(
        path, space, [EarlierTask("one", ((0, 1), (1, 1)), (2.0, -1.5)), EarlierTask("two", ((0, 0), (1, 0)), (1.0, 1.0))]
    )

    def read(path: Path) -> object:
        return [KnownTask(space, task).draw(3, seeded(0)) for task in read_tasks(path, space).tasks]

    return of_file(path, (path.read_bytes(),), read)


MAKERS: dict[str, Maker] = {
    "minatar-breakout.jsonl": bench_table,
    "bench-results.jsonl": bench_results,
    "settings.json": bench_settings,
    "tasks.json": earlier_tasks,
}
