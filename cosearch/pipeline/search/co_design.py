"""The accelerator in a run: when its design is searched again, and what a run keeps of it."""

from __future__ import annotations

from collections.abc import Callable

from cosearch.cost.accelerator import Accelerator
from cosearch.record.json_record import from_json
from cosearch.record.results.architecture import AcceleratorRecord
from cosearch.record.results.summary import AcceleratorSummary
from cosearch.record.rundir import RunDir
from cosearch.space.space import Architecture
from cosearch.strategies.relaxation import learned

FILE = "accelerator.json"


def search_again(
    accelerator: Accelerator | None,
    step: int,
    scores: list[list[float]],
    most_likely: Callable[[list[list[float]]], Architecture],
) -> None:
    """Between two updates: search the accelerator for the current network where that is due.

    Args:
        accelerator: None where the device is no accelerator.
        step: of the search.
        scores: of the candidates; while they are all alike nothing is learned yet, and the first design stays.
        most_likely: (scores) -> the network.
    """
    if accelerator is not None and learned(scores, accelerator.space.zeros) and accelerator.due(step):
        accelerator.optimise(most_likely(scores), accelerator.options.evaluations)


def progress_of(accelerator: Accelerator | None) -> dict[str, int]:
    """Metrics of a step."""
    return {} if accelerator is None else {"accel_searches": accelerator.searches}


def settle(accelerator: Accelerator, architecture: Architecture, run: RunDir) -> AcceleratorRecord:
    """The last and longest search, for the derived network; the design is written in the format that `accel_models` reads.

    Args:
        accelerator: of the run.
        architecture: the derived network.
        run: gets ``accelerator.json``.

    Returns:
        Design, limits and the network on it, for ``architecture.json``.
    """
    accelerator.optimise(architecture, accelerator.options.final_evaluations)
    run.write_json(FILE, accelerator.design.to_dict())
    return from_json(AcceleratorRecord, accelerator.record(architecture.ops()), run.path / FILE)


def in_short(accelerator: Accelerator, architecture: Architecture) -> AcceleratorSummary:
    """The accelerator's figures for the summary.

    Args:
        accelerator: of the run.
        architecture: the derived network.
    """
    network = accelerator.network(architecture.ops())
    resources = network.resources
    return AcceleratorSummary(
        design=FILE,
        fixed=accelerator.options.fixed,
        objective=accelerator.objective,
        chunks=len(accelerator.design.chunks),
        searches=accelerator.searches,
        frames_per_s=network.frames_per_s,
        single_frame_per_s=1.0 / network.latency_s,
        elements=resources.elements,
        dsp=resources.dsp,
        bram18=resources.bram18,
        sram_bytes=resources.sram_bytes,
        area_mm2=resources.area_mm2,
    )
