"""Is the network that is best on one device wrong on the next? Read off the table, without any search.

For each ordered pair of devices the best network within the first one's target is put on the second: either it misses that one's
target, or its score is held beside that of the best network there. Each target leaves the same share of the space within it. The
best of many noisy means is too high by chance, so the best are chosen by all train seeds but one and scored by that one; the
mean over which one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cosearch.bench.benchmark import Benchmark
from cosearch.space.derivation.derive import within
from latency_tables.errors import RequestError

SHARES = (0.25, 0.5, 0.75)  # of the space's networks within a target


@dataclass(frozen=True)
class Transfer:
    """The best network of one device on another.

    Attributes:
        task, found_for, used_on: which; device names.
        partial: what the table lacks, or None.
        share: of the space that is within either device's target.
        target_s: of ``used_on``, seconds.
        latency_ratio: the network's latency there over the target, the mean over the train seeds left out.
        over: share of the choices, one a train seed left out, that miss the target.
        loss: score of the best network there less that of this one, where the target is met; None where it never is.
    """

    task: str
    found_for: str
    used_on: str
    partial: str | None
    share: float
    target_s: float
    latency_ratio: float
    over: float
    loss: float | None

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


def transfers(benchmark: Benchmark, devices: Sequence[str], shares: Sequence[float] = SHARES) -> list[Transfer]:
    """Every ordered pair of devices at every target.

    Args:
        benchmark: the task, with at least two train seeds.
        devices: names as in ``cosearch list devices``.
        shares: of the space within the targets, each in (0, 1].

    Raises:
        RequestError: the table has one train seed alone.
        MissingOpError: a device's table lacks a block of the space.
    """
    if len(benchmark.table.seeds) < 2:
        raise RequestError("one train seed cannot be left out: the table has no other")
    held_out = range(len(benchmark.table.seeds))
    rows = []
    for share in shares:
        targets = {name: float(np.quantile(benchmark.latencies_s(name), share)) for name in devices}
        best = {name: [_best(benchmark, name, targets[name], seed) for seed in held_out] for name in devices}
        for ours in devices:
            for theirs in devices:
                latencies_s = [float(benchmark.latencies_s(theirs)[number]) for number in best[ours]]
                meets = [within(latency_s, targets[theirs]) for latency_s in latencies_s]
                losses = [
                    float(benchmark.seed_scores[there, seed] - benchmark.seed_scores[here, seed])
                    for seed, here, there, met in zip(held_out, best[ours], best[theirs], meets)
                    if met
                ]
                rows.append(
                    Transfer(
                        benchmark.table.task,
                        ours,
                        theirs,
                        benchmark.table.partial,
                        share,
                        targets[theirs],
                        float(np.mean(latencies_s)) / targets[theirs],
                        1.0 - float(np.mean(meets)),
                        float(np.mean(losses)) if losses else None,
                    )
                )
    return rows


def _best(benchmark: Benchmark, device: str, target_s: float, left_out: int) -> int:
    """Number of the best network within a target by all train seeds but one."""
    inside = benchmark.feasible(device, target_s)
    means = np.delete(benchmark.seed_scores[inside], left_out, axis=1).mean(1)
    return int(inside[np.argmax(means)])


def transfer_page(rows: Sequence[Transfer], chosen: Sequence[str] = ()) -> str:
    """The figures as Markdown: one table a task and target.

    Args:
        rows: of all pairs.
        chosen: the devices that the command names; none: it takes all.
    """
    command = " ".join(["python -m cosearch bench transfer", *(f"--device {name}" for name in chosen)])
    lines = [
        "# The best network of one device on another",
        "",
        "For each device the best network within its target is taken from the tabular benchmark, without any search, and put on",
        "each other device. A cell says by how much it misses that one's target, or what score it loses (-) to the best network",
        "there. The best are chosen by all train seeds but one and scored by that one (mean over which is left out); a gain (+)",
        "is the noise of that choice. Each target leaves the same share of the space within it; `at times`: for some choices.",
        f"Made by `{command}`.",
        "",
    ]
    for task, share in dict.fromkeys((row.task, row.share) for row in rows):
        own = [row for row in rows if (row.task, row.share) == (task, share)]
        devices = list(dict.fromkeys(row.used_on for row in own))
        others = [row for row in own if row.found_for != row.used_on]
        wrong = sum(row.over > 0.5 for row in others)
        lines += [
            f"## {task}, targets that {100 * share:.0f} % of the space meets",
            "",
            *([f"**{own[0].partial.upper()}**: the best of these.", ""] if own[0].partial else []),
            f"Of {len(others)} pairs of different devices the found network misses the second one's target in {wrong}.",
            "",
            "| found for | " + " | ".join(f"on {name}" for name in devices) + " |",
            "| --- |" + " --- |" * len(devices),
        ]
        for ours in dict.fromkeys(row.found_for for row in own):
            cells = {row.used_on: _cell(row) for row in own if row.found_for == ours}
            lines.append(f"| {ours} | " + " | ".join(cells[name] for name in devices) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(row: Transfer) -> str:
    if row.found_for == row.used_on:
        return "-"
    missed = f"over by {100 * (row.latency_ratio - 1):.0f} %" if row.latency_ratio > 1 else "over at times"
    if row.loss is None:
        return missed
    return f"{round(-row.loss, 2) + 0.0:+.2f}" + (f", {missed}" if row.over else "")
