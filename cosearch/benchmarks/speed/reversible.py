"""Memory and time of a supernet's step by depth: reversible blocks, the same blocks kept whole, and with checkpoints.

``python -m cosearch.benchmarks.speed.reversible`` runs forward and backward passes of the mixture of all candidates of each
depth, each in a process of its own, and writes ``reversible.json`` beside this file and the table of ``docs/guide/spaces.md``.
What autograd keeps is the most bytes that it holds for a backward pass at any moment, weights left out; resident memory is the
peak of the process after the network was made. Checkpoints (Chen et al. 2016, arXiv 1604.06174) keep the input of each point.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import default_space
from cosearch.record.json_record import from_json
from cosearch.space.space import SPACES
from cosearch.space.supernet import Path as Chosen
from cosearch.space.supernet import SuperNet
from latency_tables.errors import RunFailedError

OUT, PAGE = Path(__file__).with_suffix(".json"), DOCS / "guide" / "spaces.md"
load_builtins()
VECTORS, IMAGES = (default_space(observations).name for observations in ("vectors", "frames"))
CANDIDATES = {VECTORS: ["rev_w32_relu", "rev_w64_tanh", "skip_layer"], IMAGES: ["rev_conv_k3", "rev_conv_k5", "skip"]}
DEPTHS, FORMS, BATCHES = (4, 16, 64), ("reversible", "plain", "checkpoints"), {VECTORS: 2048, IMAGES: 64}
PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # of glibc
CHAIN = {"stem_channels": 16, "stem_kernel": 3, "stem_stride": 1, "stage_channels": [16], "stage_strides": [1], "hidden": 32}


@dataclass(frozen=True)
class Row:
    """One depth in one form.

    Attributes:
        space: ``mlp`` or ``chain``.
        form: one of :data:`FORMS`.
        depth: choice points.
        kept_bytes: the most that autograd keeps at any moment, weights left out.
        resident_bytes: peak of the process above what it had before the step.
        step_s: of one forward and backward pass, seconds of the processor; the least of three.
    """

    space: str
    form: str
    depth: int
    kept_bytes: int
    resident_bytes: int
    step_s: float


class Kept:
    """Bytes that autograd keeps, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, size: int) -> None:
        """Count so many more, or fewer."""
        self.now += size
        self.most = max(self.most, self.now)


class Held:
    """A tensor that is kept, counted until it is let go.

    Args:
        tensor: what is kept, ``[...]``.
        count: where it is counted.
    """

    def __init__(self, tensor: Tensor, count: Kept) -> None:
        self.tensor, self._count = tensor, count
        count.add(tensor.nbytes)

    def __del__(self) -> None:
        self._count.add(-self.tensor.nbytes)


def forward(supernet: SuperNet, frames: Tensor, path: Chosen, form: str) -> Tensor:
    """A loss ``[]`` of a supernet whose points are all reversible.

    Args:
        supernet: of the space.
        frames: ``[batch, ...]``.
        path: with weights.
        form: one of :data:`FORMS`; all give the same loss.
    """
    if form == "reversible":
        outputs, value = supernet(frames, path)
        return outputs.square().sum() + value.sum()
    x = supernet.stem(supernet.ends.enter(frames))
    for point, blocks in enumerate(supernet.body):
        assert isinstance(blocks, nn.ModuleList)  # of the candidates
        coupling = supernet.coupling(point, blocks, path)
        x = checkpoint(coupling.forward, x, use_reentrant=False) if form == "checkpoints" else coupling.forward(x)
    outputs, value = supernet.ends.leave(supernet.head(x))
    return outputs.square().sum() + value.sum()


def measured(space: str, form: str, depth: int) -> Row:
    """One depth in one form, in this process.

    Args:
        space, form, depth: see :class:`Row`.
    """
    torch.set_num_threads(1)
    generator, batch = torch.Generator().manual_seed(0), BATCHES[space]
    values: dict[str, object] = {"candidates": CANDIDATES[space], "stage_repeats": [depth]}
    if space == VECTORS:
        made, frames = SPACES.get(space).make(values, (8,), 3), torch.randn(batch, 8, generator=generator)
    else:
        made = SPACES.get(space).make({**CHAIN, **values}, (16, 16, 4), 3)
        frames = torch.randint(0, 256, (batch, 16, 16, 4), generator=generator, dtype=torch.uint8)
    supernet, count = SuperNet(made, generator), Kept()
    own = {parameter.data_ptr() for parameter in supernet.parameters()}
    weights = tuple(torch.full((3,), 1 / 3, requires_grad=True) for _ in range(depth))
    path = Chosen(((0, 1, 2),) * depth, weights, soft=True)
    for parameter in supernet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(3):
        begun = time.process_time()
        forward(supernet, frames, path, form).backward()
        times.append(time.process_time() - begun)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor if tensor.data_ptr() in own else Held(tensor, count),
        lambda held: held.tensor if isinstance(held, Held) else held,
    ):
        forward(supernet, frames, path, form).backward()
    return Row(space, form, depth, count.most, 1024 * (after - before), min(times))


def _apart(space: str, form: str, depth: int) -> Row:
    """The same in processes of its own: once for the memory, once for the time.

    For the memory every tensor has pages of its own (``PAGES``), which go back when it is let go: the heap of the C library keeps
    what fell free between what is still held, and grows by that.
    """
    return replace(_child(space, form, depth, PAGES), step_s=_child(space, form, depth, {}).step_s)


def _child(space: str, form: str, depth: int, environment: dict[str, str]) -> Row:
    words = [sys.executable, "-m", "cosearch.benchmarks.speed.reversible", "--only", f"{space},{form},{depth}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise RunFailedError(f"{' '.join(words)} failed: {done.stderr[-500:]}")
    return from_json(Row, json.loads(done.stdout), "the measuring process")


def markdown(rows: list[Row]) -> str:
    """The table of the documentation."""
    lines = [
        "| space, frames | form | kept for the backward pass, MB at depths 4, 16, 64 | resident, MB | a step, CPU s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for space, batch in BATCHES.items():
        for form in FORMS:
            found = [row for row in rows if (row.space, row.form) == (space, form)]
            kept, resident = (
                ", ".join(f"{v / 1e6:.0f}" for v in each) for each in zip(*((r.kept_bytes, r.resident_bytes) for r in found))
            )
            lines.append(f"| {space}, {batch:,} | {form} | {kept} | {resident} | {', '.join(f'{r.step_s:.2f}' for r in found)} |")
    return "\n".join(lines)


def main(
    only: Annotated[str, typer.Option(help="SPACE,FORM,DEPTH: measure one in this process and print it.")] = "",
    out: Annotated[Path, typer.Option(help="The result; the page of the documentation is written with the default.")] = OUT,
) -> None:
    """Measure, print, save."""
    if only:
        space, form, depth = only.split(",")
        typer.echo(json.dumps(asdict(measured(space, form, int(depth)))))
        return
    rows = [_apart(space, form, depth) for space in BATCHES for form in FORMS for depth in DEPTHS]
    typer.echo(markdown(rows))
    keep(
        {"rows": [asdict(row) for row in rows]}, out, PAGE if out == OUT else out.with_suffix(".md"), "reversible", markdown(rows)
    )


if __name__ == "__main__":
    program(main)
