"""The differentiable stand-in for a design's score: real-valued knobs, mixed option costs, soft cuts, a soft maximum.

Numeric knobs are log2 variables and rounding is left out; dataflows are *costs* mixed by softmax weights (parameter values are
never mixed); J - 1 real cut points make the chunks, so that they stay contiguous. With cold temperatures at integer points the
value equals the exact score (a test holds it).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accel_models.searching.problem import DesignProblem


@dataclass(frozen=True)
class Temperatures:
    """Sharpness of the relaxation; the defaults of :func:`annealed` go from smooth to sharp."""

    option: float
    cut: float
    maximum: float


def annealed(done: float) -> Temperatures:
    """Temperatures after a share ``done`` of the search, from 0 to 1."""
    return Temperatures(option=2.0 * (1 - done) + 0.2 * done, cut=max(0.15, 1.5 * (1 - done)), maximum=0.3 * (1 - done) + 0.02)


@dataclass
class RelaxedDesigns:
    """B relaxed designs; leaves of the graph.

    Attributes:
        log2: ``[B, J, N]`` log2 of the knobs.
        option: ``[B, J, 3]`` dataflow logits.
        cuts: ``[B, J - 1]`` positions between 0 and L.
    """

    log2: Tensor
    option: Tensor
    cuts: Tensor


def membership(cuts: Tensor, layers: int, temperature: float) -> Tensor:
    """Share of each layer in each chunk, ``[B, J, L]``; sums to 1 over J.

    Args:
        cuts: ``[B, J - 1]``, any order.
        layers: L.
        temperature: width of a cut in layers.
    """
    ordered = torch.sort(cuts, dim=-1).values.unsqueeze(-1)
    place = torch.arange(layers, dtype=cuts.dtype) + 0.5
    past = torch.sigmoid((place - ordered) / temperature)
    edge = torch.ones(cuts.shape[0], 1, layers, dtype=cuts.dtype)
    return torch.cat([edge, past], 1) - torch.cat([past, torch.zeros_like(edge)], 1)


def relaxed_value(
    problem: DesignProblem, designs: RelaxedDesigns, heat: Temperatures, rounding: str = "smooth"
) -> tuple[Tensor, Tensor]:
    """Log of the soft score, and by how much the limits are exceeded; counts B evaluations.

    Args:
        problem: what is searched.
        designs: B relaxed designs.
        heat: temperatures.
        rounding: ``smooth`` or ``straight``.

    Returns:
        ``[B]`` log score and ``[B, limits]`` shares above 1 of each limit (0 where it is kept).
    """
    problem.evaluations += designs.log2.shape[0]
    values = torch.exp2(designs.log2)
    costs = problem.costs(values, rounding)
    share = membership(designs.cuts, len(problem.layers), heat.cut)
    held = None
    if costs.buffer_bytes is not None:
        held = tuple((h * share).amax(-1).clamp(min=1.0) for h in costs.buffer_bytes)
        if problem.objective == "energy":
            costs = problem.costs(values, rounding, held)
    weights = torch.softmax(designs.option / heat.option, -1).unsqueeze(2)
    per_chunk = ((problem.target(costs) * weights).sum(-1) * share).sum(-1)
    floor = per_chunk.detach().amax(-1, keepdim=True) * 1e-12
    if problem.objective == "interval":
        logs = torch.log(per_chunk + floor)
        if costs.dram_bytes is not None:
            moved = ((costs.dram_bytes * weights).sum(-1) * share).sum((-1, -2)) / problem.machine.dram_bytes_per_cycle
            logs = torch.cat([logs, torch.log(moved).unsqueeze(-1)], -1)
        value = heat.maximum * torch.logsumexp(logs / heat.maximum, -1)
    else:
        value = torch.log(per_chunk.sum(-1))
    used = (values[..., 0] * values[..., 1]).sum(-1) / problem.limits.elements
    excess = [torch.relu(used - 1)]
    if held is not None:
        memory = problem.memory(values, held, rounding)
        if memory is not None:
            excess.append(torch.relu(memory - 1))
    return value, torch.stack(excess, -1)


def loss(value: Tensor, excess: Tensor) -> Tensor:
    """``[B]`` log score plus the penalty ``3 e + 30 e^2`` for each exceeded limit."""
    return value + (3.0 * excess + 30.0 * excess**2).sum(-1)
