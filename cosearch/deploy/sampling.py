"""Architectures without a search: random ones as files, what one would cost on a device, and work lists for tables.

A work list is how the tables learn the vocabulary of a space: its distinct operations, and sampled whole networks that prove
the table. It is plain JSON, so that the tables know nothing of this package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosearch.cost.accel_table import AccelTable
from cosearch.deploy.export import check_parity, to_onnx
from cosearch.record.durable import write_bytes_atomic
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.derivation.largest import mean_macs
from cosearch.space.files import load_architecture
from cosearch.space.groups import draw
from cosearch.space.network import AgentNetwork, reference_agents
from cosearch.space.parts import pack
from cosearch.space.space import Architecture, SearchSpace
from latency_tables.errors import RequestError
from latency_tables.opspec import OpSpec
from latency_tables.table import Table
from latency_tables.text.writing import check_folder, make_folder
from latency_tables.worklists import Network

GATE_FRAMES = 4
POOL, TILT = 40, 6.0  # draws for each network asked for; how far a draw may prefer cheap or dear blocks


def write_samples(space: SearchSpace, n: int, seed: int, out: Path) -> list[Path]:
    """Write ``n`` random architectures, each as JSON and as an ONNX model with random weights; goes on where it was interrupted.

    Sample ``i`` depends on the seed and ``i`` alone: more samples leave the first ones as they were. Each model passes the
    same gate as an agent, on random frames.

    Args:
        space: architectures are drawn uniformly from it.
        n: how many, at least 1.
        seed: of the architectures and the weights, at least 0.
        out: folder, made when missing; holds ``0000.json``, ``0000.onnx`` and so on afterwards.

    Returns:
        The JSON files.

    Raises:
        RequestError: ``n`` or ``seed`` is out of range, another file is in the place of one, or the folder cannot be made;
            nothing is written.
        ParityError: a model differs from its network.
    """
    if type(n) is not int or n < 1:
        raise RequestError(f"the number of samples must be a whole number of at least 1, got {n!r}")
    names = [out / f"{i:04d}.json" for i in range(n)]
    samples = _Samples(space, seed)
    taken = [path for i, name in enumerate(names) for path in samples.others(i, name)]
    if taken:
        more = f" and {len(taken) - 1} more of the files to write" if len(taken) > 1 else ""
        raise RequestError(f"{taken[0]}{more} exists already and is not replaced; give another --out, or remove it first")
    check_folder(out)
    make_folder(out)
    for i, name in enumerate(names):
        if name.exists() and name.with_suffix(".onnx").exists():  # by the same command, which was interrupted
            continue
        write_bytes_atomic(name.with_suffix(".onnx"), samples.model(i))
        write_bytes_atomic(name, samples.text(i))
    return names


class _Samples:
    """The samples of a seed, by number."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._streams = space, Streams(seed)
        self._architectures: list[Architecture] = []

    def _architecture(self, i: int) -> Architecture:
        while len(self._architectures) <= i:
            self._architectures.append(self._space.sample(self._streams.torch("arch")))
        return self._architectures[i]

    def text(self, i: int) -> bytes:
        return json.dumps(self._architecture(i).to_dict(), indent=2).encode() + b"\n"

    def model(self, i: int) -> bytes:
        network = derive(self._architecture(i), torch.Generator().manual_seed(self._streams.derive("weights", i)))
        model = to_onnx(network, self._space.frame_shape)
        check_parity(network, model, _random_frames(self._space, i), action_sizes=self._space.action_sizes)
        return model

    def others(self, i: int, name: Path) -> list[Path]:
        """Files in the places of a sample that are not its own."""
        made = {name: self.text, name.with_suffix(".onnx"): self.model}
        there = [path for path in made if path.exists() or path.is_symlink()]
        return [path for path in there if not path.is_file() or path.read_bytes() != made[path](i)]


def _random_frames(space: SearchSpace, seed: int) -> np.ndarray:
    """Random observations of a space, of several parts packed; an action mask allows at least one action."""
    rng = np.random.default_rng(seed)

    def drawn(kind: str, shape: tuple[int, ...]) -> np.ndarray:
        if kind == "mask":
            allowed = rng.integers(0, 2, (GATE_FRAMES, *shape), np.uint8)
            allowed[np.arange(GATE_FRAMES), rng.integers(0, shape[0], GATE_FRAMES)] = 1
            return allowed
        size = (GATE_FRAMES, *shape)
        return rng.integers(0, 256, size, np.uint8) if kind == "image" else rng.normal(0, 1, size).astype(np.float32)

    if space.parts:
        return pack(space.parts, {part.name: drawn(part.kind, part.shape) for part in space.parts})
    return drawn("image" if len(space.frame_shape) == 3 else "vector", space.frame_shape)


def predict_architecture(path: Path, table: Table | AccelTable) -> dict[str, Any]:
    """What the architecture in a file would cost on a device, by operation.

    Args:
        path: a file as :func:`write_samples` or a run writes it.
        table: of the device; the network is predicted in the table's dtype.

    Returns:
        Plain JSON: ``latency_s``, ``energy_j`` (or None), ``power_times_time_j`` (what the trivial model says, or None),
        ``overhead_s``, ``interval`` (``[low_s, high_s]`` or None), ``provenance``, ``device``, ``runtime``, ``dtype``,
        ``threads``, ``table_id``, ``macs``, ``params``, ``architecture`` (the chosen operations), and ``operations``, a list
        with ``name``, ``key``, ``latency_s``, ``energy_j``, ``macs``, ``params``, whose seconds add up to
        ``latency_s - overhead_s``.

    Raises:
        ConfigError: the file is not an architecture.
        MissingOpError: the table lacks one of its operations.
    """
    architecture = load_architecture(path)
    ops = table.cast(architecture.ops())
    found = table.predict(ops)
    rows = [
        {"name": name, "key": key, "latency_s": latency, "energy_j": energy, "macs": op.macs, "params": op.params}
        for name, op, (key, latency, energy) in zip(_names(architecture), ops, found.operations)
    ]
    device = table.device
    return {
        "latency_s": found.latency_s,
        "energy_j": found.energy_j,
        "power_times_time_j": found.power_times_time_j,
        "overhead_s": found.overhead_s,
        "interval": None if found.interval is None else list(found.interval),
        "provenance": found.provenance,
        "device": device.name,
        "runtime": device.runtime,
        "dtype": device.dtype,
        "threads": device.threads,
        "table_id": table.table_id,
        "macs": sum(op.macs for op in ops),
        "params": sum(op.params for op in ops),
        "architecture": list(architecture.choice_names),
        "operations": rows,
    }


def prediction_text(result: dict[str, Any]) -> str:
    """A result of :func:`predict_architecture` for people: one line an operation with its share, then the total.

    Args:
        result: what :func:`predict_architecture` returned.
    """
    width = max(len(row["name"]) for row in result["operations"])
    lines = [
        f"{row['name']:<{width}}  {row['latency_s'] * 1e3:9.4f} ms  {row['latency_s'] / result['latency_s']:6.1%}"
        for row in result["operations"]
    ]
    energy, simple = (
        "unknown" if result[name] is None else f"{result[name] * 1e3:.4g} mJ" for name in ("energy_j", "power_times_time_j")
    )
    return "\n".join(
        [
            *lines,
            f"{'overhead':<{width}}  {result['overhead_s'] * 1e3:9.4f} ms  {result['overhead_s'] / result['latency_s']:6.1%}",
            f"{'total':<{width}}  {result['latency_s'] * 1e3:9.4f} ms  {result['provenance']} for {result['device']} "
            f"({result['runtime']}, {result['dtype']}, {result['threads']} thread{'s' * (result['threads'] > 1)})",
            f"energy {energy} an inference (constant power times time: {simple})",
            f"{result['params']:,} parameters, {result['macs']:,} MACs",
        ]
    )


def spread_networks(space: SearchSpace, n: int, generator: torch.Generator) -> list[Architecture]:
    """Different random architectures from the whole range of a space's work, and not from its middle alone.

    Uniform draws crowd around the mean: the fastest and the slowest networks, which a target asks for, hardly occur. Here each
    draw of a pool prefers cheap or dear blocks by a tilt of its own, and one draw is taken from each of ``n`` equal steps of
    log MACs between the cheapest and the dearest of the pool (the nearest unused one where a step is empty).

    Args:
        space: the search space.
        n: how many, at least 1 and at most the size of the space.
        generator: source of the randomness.

    Returns:
        ``n`` architectures in order of their steps.

    Raises:
        RequestError: the space has fewer architectures.
    """
    if not 1 <= n <= space.size:
        raise RequestError(f"space {space.name!r} has {space.size} architectures, {n} different ones were asked for")
    work = [torch.tensor(row).argsort().argsort() for row in mean_macs(space)]
    ranks = [2 * w / max(1, len(w) - 1) - 1 for w in work]
    pool: dict[tuple[int, ...], Architecture] = {}
    draws = 0
    while draws < POOL * n or len(pool) < n:
        tilt = TILT * (2 * torch.rand((), generator=generator) - 1) if draws < POOL * n else 0.0
        if space.groups:
            chosen = draw([tilt * r for r in ranks], space.groups, space.zeros, generator)
        else:
            chosen = [int(torch.multinomial(torch.softmax(tilt * r, 0), 1, generator=generator)) for r in ranks]
        pool.setdefault(tuple(chosen), space.architecture(chosen))
        draws += 1
    different: dict[tuple[OpSpec, ...], Architecture] = {}  # a skip here or there may make the same network
    for architecture in pool.values():
        different.setdefault(tuple(architecture.ops()), architecture)
    kept = different.values() if len(different) >= n else pool.values()
    rest = sorted(((float(np.log(sum(op.macs for op in a.ops()))), a) for a in kept), key=lambda pair: pair[0])
    low, high = rest[0][0], rest[-1][0]
    found = []
    for step in torch.rand(n, generator=generator).add(torch.arange(n)).div(n).tolist():
        nearest = min(range(len(rest)), key=lambda i: abs(rest[i][0] - low - step * (high - low)))
        found.append(rest.pop(nearest)[1])
    return found


def write_worklist(
    space: SearchSpace,
    path: Path,
    networks: int = 60,
    seed: int = 0,
    uniform: int = 0,
    further: Sequence[OpSpec] = (),
    others: Sequence[SearchSpace] = (),
) -> None:
    """Write the work list of a space: every distinct operation, and random whole networks, all different.

    Args:
        space: the search space.
        path: JSON file, replaced if it exists.
        networks: how many whole networks from the whole range of work, see :func:`spread_networks`.
        seed: of the networks.
        uniform: how many more, drawn uniformly, for the certificate alone.
        further: operations besides the space's own: of the same space on other tasks, of reference agents.
        others: the same kind of space on other tasks: their operations, and as many networks of all of them together again.

    Raises:
        RequestError: the space has fewer architectures than networks are asked for.
    """
    if networks < 0 or uniform < 0 or networks + uniform > space.size:
        raise RequestError(
            f"space {space.name!r} has {space.size} architectures, {networks + uniform} different ones were asked "
            f"for; ask for 0 to {space.size}"
        )
    generator = Streams(seed).torch("arch")
    chosen = {a.choices: a for a in spread_networks(space, networks, generator)} if networks else {}
    drawn: dict[tuple[int, ...], Architecture] = {}
    while len(drawn) < uniform:
        architecture = space.sample(generator)
        if architecture.choices not in chosen:
            drawn.setdefault(architecture.choices, architecture)
    groups = {"networks": [a.network() for a in chosen.values()], "uniform": [a.network() for a in drawn.values()]}
    for number, other in enumerate(others):
        share = networks // len(others) + (number < networks % len(others))
        groups["networks"] += [a.network() for a in spread_networks(other, share, generator)] if share else []
    lists = {
        name: "[\n" + ",\n".join(map(_network_text, group)) + "\n]"
        for name, group in groups.items()
        if group or name == "networks"
    }
    ops = list(dict.fromkeys([*space.all_ops(), *(op for other in others for op in other.all_ops()), *further]))
    write_bytes_atomic(path, _worklist_text(space.name, ops, **lists))


def write_references(frame_shape: tuple[int, int, int], num_actions: int, path: Path) -> None:
    """Write the work list of the fixed reference agents: their operations, and each whole network by its name.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        path: JSON file, replaced if it exists.
    """
    agents = reference_agents(frame_shape, num_actions)
    ops = list(dict.fromkeys(op for blocks in agents.values() for op in blocks))
    body = [f"{json.dumps(name)}: {_line_list(blocks)}" for name, blocks in agents.items()]
    write_bytes_atomic(path, _worklist_text("references", ops, "{\n" + ",\n".join(body) + "\n}"))


def reference_models(frame_shape: tuple[int, int, int], num_actions: int, seed: int = 0) -> dict[str, bytes]:
    """The reference agents as ONNX models with random weights, for measuring them beside an agent.

    Args:
        frame_shape: ``(height, width, channels)``.
        num_actions: discrete actions.
        seed: of the weights.
    """
    streams = Streams(seed)
    return {
        name: to_onnx(AgentNetwork(blocks, torch.Generator().manual_seed(streams.derive("weights", i))), frame_shape)
        for i, (name, blocks) in enumerate(reference_agents(frame_shape, num_actions).items())
    }


def _names(architecture: Architecture) -> list[str]:
    nodes = architecture.space.nodes
    chosen = architecture.choice_names
    return [
        " ".join([node.name, *(chosen[point] for point in node.points)])
        for placed in architecture.placed()
        for node in [nodes[placed.node]]
    ]


def _network_text(network: Network) -> str:
    blocks = _line_list(network)
    return blocks if network.wiring is None else f'{{"ops": {blocks},\n "wiring": {json.dumps(network.wiring)}}}'


def _line_list(ops: Sequence[OpSpec]) -> str:
    return "[" + ",\n ".join(json.dumps(op.to_dict()) for op in ops) + "]"  # one operation a line: readable under git diff


def _worklist_text(space: str, ops: Sequence[OpSpec], networks: str, uniform: str = "") -> bytes:
    more = f',\n"uniform":\n{uniform}' if uniform else ""
    return f'{{"space": {json.dumps(space)},\n"ops":\n{_line_list(ops)},\n"networks":\n{networks}{more}\n}}\n'.encode()
