"""The benchmark's data as files: one a task, text that is read with limits, whole or absent, with a digest of its content.

First line: a JSON object with everything but the results, and the SHA-256 of the rest of the file. Each further line: the number
of a network, then for each seed ``[score, spread, curve]``. Latencies are not in it: the devices' tables give them when asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosearch.bench import generate, settings
from cosearch.record.durable import write_bytes_atomic
from cosearch.space.space import MAX_TASK_SIZE
from latency_tables.errors import ConfigError, RequestError
from latency_tables.text.reading import parse_json, read_text, shown
from latency_tables.text.writing import make_folder

DATA = Path(__file__).parent / "data"
FORMAT = "cosearch-bench-1"
WHAT = "a table of the benchmark"


@dataclass(frozen=True)
class SeedResult:
    """The training of one network from one seed.

    Attributes:
        score: mean return of the final evaluation; None: the training failed.
        spread: standard deviation of those returns.
        curve: mean return of the last 100 training episodes after each rollout; None before the first has ended. Of a
            training that failed it may be empty.
    """

    score: float | None
    spread: float
    curve: tuple[float | None, ...]


@dataclass(frozen=True)
class Table:
    """The results of one task.

    Attributes:
        task: environment.
        frame_shape, num_actions: of the environment; with the settings' choices they make the space.
        points: name and candidates of each choice point: network ``i`` is the ``i``-th combination, the last point fastest.
        networks: how many there are; finished or not.
        seeds: train seeds, one result of each network each.
        steps: environment steps of a training at each point of its curve.
        episodes: of each final evaluation.
        settings_sha256: see ``settings.digest``.
        results: of the finished networks, by number.
        teacher_sha256: of the weights that every training distils from; None: there are none, or an earlier version wrote it.
        blocks_sha256: see ``settings.blocks_digest``.
    """

    task: str
    frame_shape: tuple[int, ...]
    num_actions: int
    points: tuple[tuple[str, tuple[str, ...]], ...]
    networks: int
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    episodes: int
    settings_sha256: str
    results: Mapping[int, tuple[SeedResult, ...]]
    teacher_sha256: str | None = None
    blocks_sha256: str = settings.FIRST_BLOCKS

    @property
    def partial(self) -> str | None:
        """``partial: k of n``; None for a whole table."""
        return None if len(self.results) == self.networks else f"partial: {len(self.results)} of {self.networks} networks"


def table_path(task: str, folder: Path = DATA) -> Path:
    """Where the table of a task lies."""
    return folder / f"{task.replace(':', '-')}.jsonl"


def shipped_tasks(folder: Path = DATA) -> list[str]:
    """The tasks of the settings that have a table in a folder."""
    return [task for task in settings.TASKS if table_path(task, folder).exists()]


def pack(results: Path, task: str) -> Table:
    """A table of the networks that are finished in a folder of :func:`cosearch.bench.generate.extend`.

    Args:
        results: the folder.
        task: of the settings.

    Raises:
        ConfigError: the folder belongs to other settings, or to another teacher.
        RequestError: nothing is finished there.
    """
    if not generate.results_path(results, task).exists():  # and the folder, which may be a wrong one, is not made
        raise _nothing(results, task)
    teacher = generate.begin(results, [task]).get(task)
    found: dict[int, dict[int, SeedResult]] = {}
    lines = generate.finished_lines(results, task)
    for count, line in enumerate(lines, 1):
        where = f"{generate.results_path(results, task)}, line {count}"
        network, seed = _whole(line.get("network"), where), _whole(line.get("seed"), where)
        row = [line.get("score"), line.get("std", 0.0), line.get("curve", [])]
        found.setdefault(network, {})[seed] = _result(row, where, settings.rollouts())
    finished = generate.finished_networks(lines)
    whole = {n: tuple(own[seed] for seed in settings.SEEDS) for n, own in sorted(found.items()) if n in finished}
    if not whole:
        raise _nothing(results, task)
    frame_shape, num_actions = settings.shape_of(task)
    space = settings.space_for(frame_shape, num_actions)
    frames = settings.TOTAL_STEPS // settings.rollouts()
    return Table(
        task,
        frame_shape,
        num_actions,
        tuple((point.name, point.candidates) for point in space.points),
        space.size,
        settings.SEEDS,
        tuple(frames * (i + 1) for i in range(settings.rollouts())),
        settings.EPISODES,
        settings.digest(),
        whole,
        None if teacher is None else str(teacher),
        settings.blocks_digest(),
    )


def _nothing(results: Path, task: str) -> RequestError:
    return RequestError(f"{results} has no finished network of {task}: `cosearch bench extend --out {results}` trains them")


def write_table(table: Table, path: Path) -> None:
    """Write a table, whole or not at all.

    Raises:
        RunFailedError: the disk refuses; what was there is intact.
    """
    rows = [
        json.dumps([number, *([own.score, own.spread, list(own.curve)] for own in results)], separators=(",", ":"))
        for number, results in sorted(table.results.items())
    ]
    rest = "".join(f"{row}\n" for row in rows)
    header = {
        "format": FORMAT,
        "task": table.task,
        "frame_shape": list(table.frame_shape),
        "num_actions": table.num_actions,
        "points": [[name, list(candidates)] for name, candidates in table.points],
        "networks": table.networks,
        "seeds": list(table.seeds),
        "steps": list(table.steps),
        "episodes": table.episodes,
        "settings_sha256": table.settings_sha256,
        "blocks_sha256": table.blocks_sha256,
        **({} if table.teacher_sha256 is None else {"teacher_sha256": table.teacher_sha256}),
        "sha256": hashlib.sha256(rest.encode()).hexdigest(),
    }
    make_folder(path.parent)
    write_bytes_atomic(path, (json.dumps(header) + "\n" + rest).encode())


def read_table(path: Path) -> Table:
    """Read and check a table.

    Raises:
        ConfigError: missing, damaged, cut, or no such table; says where.
    """
    first, _, rest = read_text(path, WHAT, ConfigError).partition("\n")
    header = parse_json(first, f"{path}: cannot be read as {WHAT}", ConfigError)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ConfigError(f"{path}: expected {WHAT} of the format {FORMAT!r}, got {shown(header)}")
    if hashlib.sha256(rest.encode()).hexdigest() != header.get("sha256"):
        raise ConfigError(f"{path}: its content is not what its first line says (SHA-256): it was cut or changed; get it again")
    where = f"{path}, line 1"
    points = tuple((_text(p[0], where), tuple(_text(c, where) for c in _list(p[1], where))) for p in _pairs(header, where))
    numbers = {key: tuple(_whole(v, where) for v in _list(header.get(key), where)) for key in ("frame_shape", "seeds", "steps")}
    networks, num_actions = _whole(header.get("networks"), where), _whole(header.get("num_actions"), where)
    sizes = [*numbers["frame_shape"], num_actions]
    if len(sizes) != 4 or not all(1 <= size <= MAX_TASK_SIZE for size in sizes) or not numbers["seeds"] or not numbers["steps"]:
        raise ConfigError(
            f"{where}: expected a frame_shape of three sizes and num_actions, from 1 to {MAX_TASK_SIZE}, seeds and steps, got "
            f"{shown({**numbers, 'num_actions': num_actions})}"
        )
    results = {}
    for count, line in enumerate(rest.splitlines(), 2):
        at = f"{path}, line {count}"
        row = _list(parse_json(line, at, ConfigError), at)
        number = _whole(row[0] if row else None, at)
        if number >= networks or number in results:
            raise ConfigError(f"{at}: network {number} is there twice, or is none of the {networks}")
        results[number] = tuple(_result(_list(own, at), at, len(numbers["steps"])) for own in row[1:])
        if len(results[number]) != len(numbers["seeds"]):
            raise ConfigError(f"{at}: expected one result a seed, {len(numbers['seeds'])}, got {len(results[number])}")
    return Table(
        _text(header.get("task"), where),
        numbers["frame_shape"],
        num_actions,
        points,
        networks,
        numbers["seeds"],
        numbers["steps"],
        _whole(header.get("episodes"), where),
        _text(header.get("settings_sha256"), where),
        results,
        _text(header["teacher_sha256"], where) if "teacher_sha256" in header else None,
        _text(header.get("blocks_sha256", settings.FIRST_BLOCKS), where),
    )


def _pairs(header: Mapping[str, object], where: str) -> list[Sequence[object]]:
    pairs = [_list(pair, where) for pair in _list(header.get("points"), where)]
    if any(len(pair) != 2 for pair in pairs):
        raise ConfigError(f"{where}: expected points as pairs of a name and its candidates, got {shown(pairs)}")
    return list(pairs)


def _result(row: Sequence[object], where: str, looks: int) -> SeedResult:
    if len(row) != 3:
        raise ConfigError(f"{where}: expected score, spread and curve, got {shown(row)}")
    score, spread, curve = row
    points = tuple(None if value is None else _number(value, where) for value in _list(curve, where))
    if len(points) != looks and (points or score is not None):
        raise ConfigError(f"{where}: expected a curve of {looks} points (where the training failed, or none), got {len(points)}")
    return SeedResult(None if score is None else _number(score, where), _number(spread, where), points)


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: expected a number, got {shown(value)}")
    return float(value)


def _whole(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{where}: expected a whole number of at least 0, got {shown(value)}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: expected text, got {shown(value)}")
    return value


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list, got {shown(value)}")
    return value
