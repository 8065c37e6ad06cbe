"""How long does it take to cost many architectures from a table, with gradients with respect to every path weight?

``python -m cosearch.benchmarks.speed.predict_speed`` draws random path weights for 10,000 architectures of the default space,
computes the expected latency of each with its gradients, and the exact latency of 10,000 sampled architectures one by one;
printed are the seconds, and the largest relative difference between the two ways on the sampled ones (one-hot weights).
"""

from __future__ import annotations

import json
import time
from typing import Annotated

import torch
import typer
from torch.nn import functional as F

from cosearch.benchmarks.results import program
from cosearch.cost.table_cost import TableCost
from cosearch.seeding import Streams
from cosearch.space.kinds.chain import ChainConfig, chain_space
from latency_tables.devices import find_table

FRAME, ACTIONS = (64, 64, 3), 15


def measure(device: str, many: int) -> dict[str, object]:
    """Seconds for ``many`` architectures.

    Args:
        device: with a table of the default space.
        many: architectures.

    Returns:
        ``architectures``, ``expected_with_gradients_s``, ``exact_one_by_one_s`` and ``largest_difference`` (a fraction).
    """
    space = chain_space(ChainConfig(), FRAME, ACTIONS)
    cost = TableCost(space, find_table(device))
    generator = Streams(0).torch("arch")
    logits = [torch.randn(many, len(p.candidates), generator=generator, requires_grad=True) for p in space.points]
    sampled = [space.sample(generator) for _ in range(many)]
    start = time.perf_counter()
    expected = cost.expected([torch.softmax(x, -1) for x in logits])
    gradients = torch.autograd.grad(expected.sum(), logits)
    middle = time.perf_counter()
    exact = torch.tensor([cost.exact(a) for a in sampled], dtype=torch.float64)
    end = time.perf_counter()
    if not all(bool((g != 0).any()) for g in gradients):
        raise RuntimeError("a choice point has no gradient")
    choices = torch.tensor([a.choices for a in sampled])
    hot = [F.one_hot(choices[:, i], len(p.candidates)).double() for i, p in enumerate(space.points)]
    return {
        "device": device,
        "architectures": many,
        "expected_with_gradients_s": middle - start,
        "exact_one_by_one_s": end - middle,
        "largest_difference": float((cost.expected(hot) / exact - 1).abs().max()),
    }


def main(
    device: Annotated[str, typer.Option(help="A device with a table of the default space.")] = "x86-server",
    many: Annotated[int, typer.Option(min=1, help="Architectures.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for a machine.")] = False,
) -> None:
    """Measure and print."""
    found = measure(device, many)
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    program(main)
