"""Contiguous cuts against enumeration, and the identities of a pipeline."""

import itertools

import numpy as np
import pytest

from accel_models.assignment import best_assignment, chunk_times
from latency_tables.errors import ConfigError


def by_enumeration(costs, objective):
    """Smallest objective over all cuts and dataflows of one design, ``[J, L, D]``."""
    chunks, layers, options = costs.shape
    best = np.inf
    for cuts in itertools.combinations_with_replacement(range(layers + 1), chunks - 1):
        edges = [0, *cuts, layers]
        times = [min(costs[j, edges[j] : edges[j + 1], d].sum() for d in range(options)) for j in range(chunks)]
        best = min(best, max(times) if objective == "interval" else sum(times))
    return best


@pytest.mark.parametrize("objective", ["interval", "latency", "energy"])
@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
def test_cuts_equal_enumeration(objective, chunks):
    costs = np.random.default_rng(chunks).lognormal(0, 1.5, (12, chunks, 7, 3))
    got = best_assignment(costs, objective)
    assert got.value == pytest.approx([by_enumeration(one, objective) for one in costs], rel=1e-9)
    own = np.stack([[costs[b, j, place, got.option[b, j]] for place, j in enumerate(got.chunk[b])] for b in range(12)])
    times = chunk_times(own, got.chunk, chunks)
    assert (times.max(-1) if objective == "interval" else times.sum(-1)) == pytest.approx(got.value, rel=1e-9)
    assert (np.diff(got.chunk) >= 0).all(), "chunks must be contiguous and in order"


def test_objectives_differ():
    costs = np.array([[[[1.0], [1.0], [1.0], [1.0]], [[2.0], [2.0], [2.0], [2.0]]]])
    together, balanced = best_assignment(costs, "latency"), best_assignment(costs, "interval")
    assert together.chunk[0].tolist() == [0, 0, 0, 0] and together.value[0] == 4
    assert balanced.chunk[0].tolist() == [0, 0, 0, 1] and balanced.value[0] == 3
    with pytest.raises(ConfigError, match="objective"):
        best_assignment(costs, "speed")


def test_chunk_times_are_the_sums_of_their_layers():
    rng = np.random.default_rng(5)
    chunk, cycles = np.sort(rng.integers(0, 3, (20, 9)), -1), rng.random((20, 9))
    want = [[sum(c for c, j in zip(row, places, strict=True) if j == k) for k in range(3)] for row, places in zip(cycles, chunk)]
    assert chunk_times(cycles, chunk, 3) == pytest.approx(np.array(want), rel=1e-12)
    assert chunk_times(cycles, chunk, 4)[:, 3].tolist() == [0.0] * 20, "a chunk without layers takes no time"
