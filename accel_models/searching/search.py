"""Design search by gradient: relaxed starts in parallel, projected and scored exactly on the way, then a discrete polish.

``search_design`` is the whole thing for a platform; ``continuous`` is the method on any ``problem.DesignProblem``. Every relaxed
and every exact evaluation counts, so that methods compare at equal numbers of evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from accel_models.cost import Machine, machine_of
from accel_models.design import AccelDesign, Chunk
from accel_models.engines.systolic import DATAFLOWS
from accel_models.evaluation import NetworkResult, evaluate
from accel_models.layers import LayerShape
from accel_models.resources import dsp_per_multiplier
from accel_models.searching.division import divide
from accel_models.searching.elites import Candidate, Elites, mutated, neighbours, resized
from accel_models.searching.problem import WHOLE, DesignProblem, Limits
from accel_models.searching.relaxed import RelaxedDesigns, annealed, loss, relaxed_value
from latency_tables.errors import ConfigError, InfeasibleCandidateError

STARTS, PROJECT_EVERY, POLISH_SHARE, ELITES, MOVES = 20, 25, 0.5, 24, 40
DIVIDE_SHARE = 0.25  # of the evaluations left, for a division that need not prove anything (chunks with tiles)
RESIZE_SHARE = 0.5  # of the moves after the descents: another array for one chunk
PER_ROUND = STARTS * (PROJECT_EVERY + 3)  # evaluations up to a projection and in it
RATE, CUT_RATE, TOP_LOG2 = 0.05, 0.2, (6.0, 6.0, 10.0, 10.0, 10.0)


@dataclass(frozen=True)
class FoundDesign:
    """Result of a search.

    Attributes:
        design: whole numbers, within all limits.
        result: the network on it, with the best tile for each layer.
        chunk_of: chunk of each layer.
        searched_value: score in the search, cycles or joules (each chunk's own tile for all layers).
        evaluations: made.
        history: ``(evaluations, best value)`` at each improvement.
    """

    design: AccelDesign
    result: NetworkResult
    chunk_of: tuple[int, ...]
    searched_value: float
    evaluations: int
    history: tuple[tuple[int, float], ...]


def check_budget(budget: int) -> None:
    """Raise unless so many evaluations are enough for one round of the gradient search.

    Raises:
        ConfigError: they are not.
    """
    if budget < PER_ROUND:
        raise ConfigError(f"the budget must be at least {PER_ROUND} evaluations, got {budget}")


def continuous(
    problem: DesignProblem,
    budget: int,
    seed: int,
    *,
    polish_share: float = POLISH_SHARE,
    progress: Callable[[int, float], None] | None = None,
) -> Elites:
    """Gradient search with exact projections on the way, then a discrete polish.

    Args:
        problem: what is searched.
        budget: evaluations, relaxed and exact together; never exceeded.
        seed: of the starts and the polish.
        polish_share: share of the budget for the polish; 0 switches it off.
        progress: called with evaluations and best value.

    Raises:
        ConfigError: the budget is smaller than one projection.
    """
    check_budget(budget)
    rng = np.random.default_rng(seed)
    designs = _starts(problem, rng)
    optimiser = torch.optim.Adam(
        [{"params": [designs.log2, designs.option], "lr": RATE}, {"params": [designs.cuts], "lr": CUT_RATE}]
    )
    top = torch.tensor(TOP_LOG2[: designs.log2.shape[-1]], dtype=torch.float64)
    elites, end = Elites(ELITES), problem.evaluations + budget
    basins = [Elites(1) for _ in range(STARTS)]
    rounds = max(1, int(budget * (1 - polish_share)) // PER_ROUND)
    for step in range(rounds * PROJECT_EVERY):
        optimiser.zero_grad()
        value, excess = relaxed_value(problem, designs, annealed(step / (rounds * PROJECT_EVERY)))
        loss(value, excess).sum().backward()
        optimiser.step()
        with torch.no_grad():
            designs.log2.copy_(torch.minimum(designs.log2.clamp(min=0.0), top))
            designs.cuts.clamp_(0.0, float(len(problem.layers)))
        if (step + 1) % PROJECT_EVERY == 0:
            _project(problem, designs, elites, basins)
            if progress is not None:
                progress(problem.evaluations, elites.best.value if elites.best else float("inf"))
    if polish_share > 0:
        polish(problem, elites, end, rng, starts=[b.best for b in basins if b.best is not None], progress=progress)
    return elites


def _starts(problem: DesignProblem, rng: np.random.Generator) -> RelaxedDesigns:
    knobs = len(problem.grid)
    log2 = rng.uniform(0.0, 5.0, (STARTS, problem.chunks, knobs))
    cuts = np.sort(rng.uniform(0.0, len(problem.layers), (STARTS, problem.chunks - 1)), -1)
    option = np.zeros((STARTS, problem.chunks, len(DATAFLOWS)))
    return RelaxedDesigns(*(torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (log2, option, cuts)))


def _project(problem: DesignProblem, designs: RelaxedDesigns, elites: Elites, basins: list[Elites]) -> None:
    """Round to the grid and score, as it is and with the larger side of every chunk one and two options smaller."""
    index = problem.nearest(designs.log2.detach().numpy())
    for shrink in range(3):
        tried = index.copy()
        larger = tried[..., :2].argmax(-1)[..., None]
        np.put_along_axis(tried, larger, np.maximum(np.take_along_axis(tried, larger, -1) - shrink, 0), -1)
        scores = problem.score(tried)
        elites.add(problem, tried, scores)
        for start, basin in enumerate(basins):
            basin.add(problem, tried[start : start + 1], scores.only(start))


def polish(
    problem: DesignProblem,
    elites: Elites,
    end: int,
    rng: np.random.Generator,
    *,
    starts: Sequence[Candidate] = (),
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Discrete search: descent through full neighbourhoods from the best starts and elites, then larger moves of the elites.

    For the interval, layers and elements of the best candidate are first divided anew among the chunks (``division``). Without
    tiles that covers all knobs: once it has proved that nothing better exists, the polish ends. A larger move gives
    one chunk of an elite another array, or moves one to three knobs; what improves is descended from again. Candidates with too
    many processing elements are left out before they are scored.

    Args:
        problem: what is searched.
        elites: at least one; improved in place.
        end: value of ``problem.evaluations`` at which to stop.
        rng: of the mutations and samples.
        starts: candidates of different basins, descended from in order of their value.
        progress: called with evaluations and best value.
    """
    waiting = sorted(starts, key=lambda c: c.value)
    seen, divided = set[bytes](), set[bytes]()
    while problem.evaluations < end and elites.members:
        best = elites.members[0]
        fresh = next((c for c in (best, *waiting) if c.index.tobytes() not in seen), None)
        if problem.objective == "interval" and fresh is not best and best.index.tobytes() not in divided:
            divided.add(best.index.tobytes())
            every_knob = problem.model == "compute"
            share = 1.0 if every_knob else DIVIDE_SHARE
            proved = divide(problem, elites, best, problem.evaluations + int((end - problem.evaluations) * share))
            if proved and every_knob:
                return
        elif fresh is not None:
            _descend(problem, elites, fresh, end, rng, seen)
        else:
            weights = 1.0 / np.arange(1, len(elites.members) + 1)
            parents = rng.choice(len(elites.members), size=MOVES, p=weights / weights.sum())
            tried = np.empty((0, *elites.members[0].index.shape), dtype=int)
            if rng.random() < RESIZE_SHARE:
                tried = resized(problem, elites.members[parents[0]], int(rng.integers(problem.chunks)))
                tried = tried[rng.permutation(len(tried))[:MOVES]]
            if not len(tried):
                tried = mutated(problem, np.stack([elites.members[i].index for i in parents]), rng)
                fits = problem.has_elements(tried)
                tried = tried[fits] if fits.any() else tried
            tried = tried[: end - problem.evaluations]
            elites.add(problem, tried, problem.score(tried))
        if progress is not None:
            progress(problem.evaluations, elites.members[0].value)


def _descend(
    problem: DesignProblem, elites: Elites, start: Candidate, end: int, rng: np.random.Generator, seen: set[bytes]
) -> None:
    """Move to a better neighbour as soon as a handful has one, until none is left or the budget ends."""
    current: Candidate | None = start
    while current is not None and current.index.tobytes() not in seen:
        seen.add(current.index.tobytes())
        around = neighbours(problem, current)
        around = around[problem.has_elements(around)]
        around, here = around[rng.permutation(len(around))], Elites(1, [current])
        for begin in range(0, len(around), MOVES):
            tried = around[begin : begin + min(MOVES, end - problem.evaluations)]
            if not len(tried):
                return
            scores = problem.score(tried)
            elites.add(problem, tried, scores)
            here.add(problem, tried, scores)
            if here.best is not current:
                break
        current = here.best


def limits_of(base: AccelDesign) -> Limits:
    """What a platform leaves for the chunks of designs with the number formats of ``base``."""
    platform = base.platform
    if platform.kind == "fpga":
        assert platform.dsp_limit is not None, "an FPGA without it is refused by Platform"
        return Limits(platform.dsp_limit / dsp_per_multiplier(base.multiplier_bits, platform.dsp_kind), platform.bram18_limit)
    assert platform.pe_limit is not None, "an ASIC without it is refused by Platform"
    return Limits(platform.pe_limit, None, platform.sram_limit_bytes)


def search_design(
    layers: Sequence[LayerShape],
    base: AccelDesign,
    seed: int = 0,
    *,
    chunks: int = 1,
    objective: str = "latency",
    evaluations: int = 20_000,
    progress: Callable[[int, float], None] | None = None,
) -> FoundDesign:
    """The best accelerator for a fixed network within the limits of a platform.

    Args:
        layers: the network, in order.
        base: gives platform (limits, clock, DRAM), number formats and options; its chunks are not used.
        seed: from 0 to 2**63 - 1; same seed, same design.
        chunks: J, pipeline stages.
        objective: ``latency`` (one frame in flight), ``interval`` (full pipeline) or ``energy``.
        evaluations: relaxed and exact together.
        progress: called with evaluations and best value.

    Raises:
        InfeasibleCandidateError: no design within the limits was found.
        ShapeError: no layer takes any time.
        ConfigError: a wrong objective, number of chunks or budget.
    """
    machine: Machine = machine_of(base)
    problem = DesignProblem(layers, machine, chunks, limits_of(base), objective)
    elites = continuous(problem, evaluations, seed, progress=progress)
    if elites.best is None:
        raise InfeasibleCandidateError(
            f"no design with {chunks} chunks within the limits of {base.platform.name} was found in "
            f"{evaluations} evaluations; ask for fewer chunks or more evaluations"
        )
    design = design_of(problem, elites.best, base)
    result = evaluate(layers, design, objective)
    over = result.resources.over(base.platform)
    if over:
        raise InfeasibleCandidateError(f"the design found exceeds {base.platform.name}: {'; '.join(over)}")
    return FoundDesign(
        design, result, tuple(row.chunk for row in result.layers), elites.best.value, problem.evaluations, tuple(elites.history)
    )


def design_of(problem: DesignProblem, candidate: Candidate, base: AccelDesign) -> AccelDesign:
    """The design that a candidate stands for; each layer will get its best tile in these buffers.

    Args:
        problem: with model ``full``.
        candidate: in grid indices.
        base: gives everything but the chunks.
    """
    values = problem.values(candidate.index[None])
    held = problem.held(problem.costs(values), candidate.chunk[None])
    chunks = []
    for j in range(problem.chunks):
        if not (candidate.chunk == j).any():
            continue  # a chunk without layers is not built
        rows, cols = (int(v) for v in values[0, j, :2])
        weights, inputs, outputs = (int(h[0, j]) for h in held)
        chunks.append(Chunk(rows, cols, DATAFLOWS[candidate.option[j]], weights, inputs, outputs))
    return replace(base, name=f"{base.platform.name}-searched", chunks=tuple(chunks))


def fixed_tile(candidate: Candidate, problem: DesignProblem, chunk: int) -> tuple[int, int, int, int]:
    """The buffer tile that a candidate's chunk was scored with: k, c, p, and whole columns."""
    k, c, p = (int(v) for v in problem.values(candidate.index[None])[0, chunk, 2:])
    return k, c, p, WHOLE
