"""Searches to compare with, at equal evaluations: random, evolution, and hard-Gumbel sampling (the A3C-S and Auto-NBA family).

All draw the same genotype: the knobs (sides, and tile sizes where memory is modelled) and a dataflow for each chunk, and J - 1
cuts. ``gumbel`` is the corrected estimator (log cost minus a running mean); ``das`` is the rule as released with Auto-NBA (ICML
2021): learning rate 1e-7 and no baseline, which cannot leave random search. ``evolution+cuts`` gives evolution the exact cuts and
dataflows that the gradient search also uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from accel_models.engines.systolic import DATAFLOWS
from accel_models.searching.elites import Elites
from accel_models.searching.problem import DesignProblem

PARENTS, BATCH = 40, 20


class _Genes(NamedTuple):
    """Genotypes of B candidates: grid indices ``[B, J, N]``, dataflows ``[B, J]``, cuts ``[B, J - 1]``."""

    knobs: np.ndarray
    option: np.ndarray
    cuts: np.ndarray

    def rows(self, which: slice | np.ndarray) -> _Genes:
        """Those of some candidates."""
        return _Genes(self.knobs[which], self.option[which], self.cuts[which])


def _cuts_to_chunk(cuts: np.ndarray, layers: int) -> np.ndarray:
    """Chunk of each layer ``[B, L]`` from cut positions ``[B, J - 1]``."""
    return (np.arange(layers)[None, :, None] >= np.sort(cuts, -1)[:, None, :]).sum(-1)


def _random_genes(problem: DesignProblem, count: int, rng: np.random.Generator) -> _Genes:
    index = np.stack([rng.integers(0, len(options), (count, problem.chunks)) for options in problem.grid], -1)
    option = rng.integers(0, len(DATAFLOWS), (count, problem.chunks))
    return _Genes(index, option, rng.integers(1, len(problem.layers), (count, problem.chunks - 1)))


def random_search(problem: DesignProblem, budget: int, seed: int) -> Elites:
    """Uniform samples; not aware of the limits.

    Args:
        problem: what is searched.
        budget: evaluations.
        seed: of the samples.
    """
    rng, elites, end = np.random.default_rng(seed), Elites(8), problem.evaluations + budget
    while problem.evaluations < end:
        index, option, cuts = _random_genes(problem, min(200, end - problem.evaluations), rng)
        elites.add(problem, index, problem.score(index, _cuts_to_chunk(cuts, len(problem.layers)), option))
    return elites


def evolution(problem: DesignProblem, budget: int, seed: int, *, exact_cuts: bool = False) -> Elites:
    """Forty parents, mutation only: one or two genes of a child move to a neighbour or anywhere.

    Args:
        problem: what is searched.
        budget: evaluations.
        seed: of population and mutations.
        exact_cuts: cuts and dataflows are the best for the sides instead of genes.
    """
    rng, elites, end = np.random.default_rng(seed), Elites(8), problem.evaluations + budget
    genes = _random_genes(problem, PARENTS, rng)
    values = np.full(PARENTS, np.inf)
    children, layers = genes, len(problem.layers)
    while problem.evaluations < end:
        children = children.rows(slice(end - problem.evaluations))
        if exact_cuts:
            scored = problem.score(children.knobs)
        else:
            scored = problem.score(children.knobs, _cuts_to_chunk(children.cuts, layers), children.option)
        elites.add(problem, children.knobs, scored)
        pool = _Genes(*(np.concatenate(pair) for pair in zip(genes, children, strict=True)))
        merged = np.concatenate([values, scored.value])
        keep = np.argsort(merged, kind="stable")[:PARENTS]
        genes, values = pool.rows(keep), merged[keep]
        parents = _Genes(*(part[rng.integers(0, PARENTS, PARENTS)] for part in genes))
        children = _mutate(problem, parents, rng, exact_cuts)
    return elites


def _mutate(problem: DesignProblem, genes: _Genes, rng: np.random.Generator, exact_cuts: bool) -> _Genes:
    index, option, cuts = (part.copy() for part in genes)
    chunks, knobs = index.shape[1:]
    kinds = chunks * knobs + (0 if exact_cuts else 2 * chunks - 1)
    for b in range(len(index)):
        for _ in range(int(rng.integers(1, 3))):
            gene = int(rng.integers(kinds))
            if gene < chunks * knobs:
                j, n = divmod(gene, knobs)
                size = len(problem.grid[n])
                near = index[b, j, n] + rng.choice((-1, 1))
                index[b, j, n] = np.clip(near, 0, size - 1) if rng.random() < 0.7 else rng.integers(size)
            elif gene < chunks * knobs + chunks:
                option[b, gene - chunks * knobs] = rng.integers(len(DATAFLOWS))
            else:
                place = gene - chunks * knobs - chunks
                cuts[b, place] = np.clip(cuts[b, place] + rng.choice((-2, -1, 1, 2)), 1, len(problem.layers) - 1)
    return _Genes(index, option, cuts)


def gumbel(problem: DesignProblem, budget: int, seed: int, *, rate: float = 3e-2, baseline: bool = True) -> Elites:
    """Hard Gumbel-softmax samples of every knob; each sampled option's probability carries the cost.

    Args:
        problem: what is searched.
        budget: evaluations.
        seed: of the noise.
        rate: of Adam (betas 0.5, 0.999).
        baseline: weigh by the log cost minus its running mean; otherwise by the cost itself, relative to the first one.
    """
    source = torch.Generator().manual_seed(seed)
    elites, end, layers = Elites(8), problem.evaluations + budget, len(problem.layers)
    sizes = [len(options) for options in problem.grid] * problem.chunks + [len(DATAFLOWS)] * problem.chunks
    sizes += [layers - 1] * (problem.chunks - 1)
    logits = torch.full((len(sizes), max(sizes)), 1e-3, dtype=torch.float64)
    for row, size in enumerate(sizes):
        logits[row, size:] = -torch.inf
    logits.requires_grad_(True)
    optimiser, mean, scale = torch.optim.Adam([logits], lr=rate, betas=(0.5, 0.999)), None, None
    knobs = problem.chunks * len(problem.grid)
    while problem.evaluations < end:
        count = min(BATCH, end - problem.evaluations)
        noise = -torch.log(-torch.log(torch.rand(count, *logits.shape, generator=source, dtype=torch.float64)))
        soft = torch.softmax(torch.log_softmax(logits, -1) + noise, -1)
        chosen = soft.argmax(-1)
        genes = chosen.numpy()
        index = genes[:, :knobs].reshape(count, problem.chunks, -1)
        chunk = _cuts_to_chunk(genes[:, knobs + problem.chunks :] + 1, layers)
        scored = problem.score(index, chunk, genes[:, knobs : knobs + problem.chunks])
        elites.add(problem, index, scored)
        good = np.isfinite(scored.value)
        if not good.any():
            continue
        cost = torch.tensor(scored.value[good])
        mean = torch.log(cost).mean() if mean is None else mean
        scale = cost[0] if scale is None else scale
        weight = torch.log(cost) - mean if baseline else cost / scale
        mean = 0.95 * mean + 0.05 * torch.log(cost).mean()
        taken = soft.gather(-1, chosen.unsqueeze(-1))[..., 0][torch.tensor(good)]
        ones = (1 - taken).detach() + taken  # value 1, gradient of the probability
        optimiser.zero_grad()
        (weight * ones.prod(-1)).mean().backward()
        assert logits.grad is not None  # backward has filled it
        logits.grad[torch.isinf(logits)] = 0.0
        optimiser.step()
    return elites


METHODS: dict[str, Callable[[DesignProblem, int, int], Elites]] = {
    "random": random_search,
    "evolution": evolution,
    "evolution+cuts": lambda problem, budget, seed: evolution(problem, budget, seed, exact_cuts=True),
    "gumbel": gumbel,
    "das": lambda problem, budget, seed: gumbel(problem, budget, seed, rate=1e-7, baseline=False),
}
