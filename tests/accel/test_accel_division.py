"""Exact division of layers and elements among chunks, against a programme over every cut and every array."""

import numpy as np
import pytest

from accel_models import load_design, load_layers
from accel_models.cost import machine_of
from accel_models.searching.benchmark import BEST_KNOWN, pipeline_problem
from accel_models.searching.division import ARRAYS, ELEMENTS, Runs, divide
from accel_models.searching.elites import Candidate, Elites
from accel_models.searching.problem import SIDES, DesignProblem, Limits
from accel_models.searching.search import continuous, polish


def smallest_interval(problem):
    """By trial of every interval that some array has on some layers: fewest elements over all cuts, nothing left out."""
    sides = np.stack(np.meshgrid(range(len(SIDES)), range(len(SIDES)), indexing="ij"), -1).reshape(-1, 1, 2)
    table = problem.costs(problem.values(sides)).compute_cycles[:, 0].numpy()  # [A, L, 3]
    elements = np.array([SIDES[a] * SIDES[b] for a, b in sides[:, 0]])
    runs = {(i, e): table[:, i:e].sum(1).min(-1) for i in range(table.shape[1]) for e in range(i + 1, table.shape[1] + 1)}

    def possible(interval):
        smallest = {run: elements[cycles <= interval].min(initial=10**9) for run, cycles in runs.items()}
        need = {0: 0}
        for _ in range(problem.chunks):
            grown = dict(need)
            for (i, e), count in smallest.items():
                if i in need:
                    grown[e] = min(grown.get(e, 10**9), need[i] + count)
            need = dict(grown)
        return need.get(table.shape[1], 10**9) <= problem.limits.elements

    values = np.unique(np.concatenate(list(runs.values())))
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if possible(values[middle]) else (middle + 1, high)
    return values[low]


def anything(problem, value):
    return Candidate(value, np.zeros((problem.chunks, len(problem.grid)), dtype=int), np.zeros(1, int), np.zeros(1, int))


@pytest.mark.parametrize("network,chunks", list(BEST_KNOWN))
def test_best_known_is_the_optimum_and_the_division_proves_it(network, chunks):
    problem = pipeline_problem(network, chunks)
    want, elites = smallest_interval(problem), Elites(1)
    assert want == BEST_KNOWN[network, chunks]
    assert divide(problem, elites, anything(problem, 2.0 * want), 20_000) and elites.best.value == want
    assert problem.evaluations < 20_000
    assert divide(problem, Elites(1), anything(problem, want), 10**9), "nothing below the optimum"


def test_a_run_may_be_empty():
    layers, machine = load_layers("nature")[:2], pipeline_problem("impala", 1).machine
    two, one = (DesignProblem(layers, machine, j, Limits(e), "interval", "compute") for j, e in ((2, 9.0), (1, 8.0)))
    elites = Elites(1)
    assert divide(two, elites, anything(two, 1e12), 10**6)
    assert elites.best.value == smallest_interval(one), "eight elements for both layers and one for nothing are the best of nine"


@pytest.mark.parametrize("model", ["compute", "full"])
def test_no_array_does_more_than_one_product_an_element_and_cycle(model):
    for network in ("impala", "mobilenet"):
        layers = [layer for layer in load_layers(network) if layer.macs]
        problem = DesignProblem(layers, machine_of(load_design("zc706")), 1, Limits(900), "interval", model)
        index = np.full((len(ARRAYS), 1, len(problem.grid)), 4)
        index[:, 0, :2] = ARRAYS
        cycles = problem.exact_costs(index).latency_cycles[:, 0].numpy()
        assert (cycles * ELEMENTS[:, None, None] >= np.array([layer.macs for layer in layers])[None, :, None]).all()


def test_every_pair_looked_at_and_every_division_scored_is_counted(monkeypatch):
    looked, scored = [], []
    advance, score = Runs.advance, DesignProblem.score

    def counted(runs, run):
        if np.isnan(runs.seen[run]):
            looked.append((run, int(runs.place[run])))
        return advance(runs, run)

    monkeypatch.setattr(Runs, "advance", counted)
    monkeypatch.setattr(DesignProblem, "score", lambda self, index: scored.append(len(index)) or score(self, index))
    problem = pipeline_problem("impala", 3)
    assert divide(problem, Elites(4), anything(problem, 50_000.0), 10**9)
    assert problem.evaluations == len(looked) + sum(scored) and len(set(looked)) == len(looked) > 500 and scored


@pytest.mark.parametrize("end", [1, 50, 333])
def test_the_end_is_kept(end):
    problem = pipeline_problem("mobilenet", 4)
    assert not divide(problem, Elites(4), anything(problem, 40_000.0), end) and problem.evaluations == end


def test_with_tiles_what_is_found_keeps_them_and_the_limits():
    base = load_design("zc706")
    problem = DesignProblem(load_layers("impala"), machine_of(base), 3, Limits(900, 1090), "interval")
    index = np.array([[[4, 4, 5, 5, 6], [4, 4, 5, 5, 6], [3, 3, 6, 5, 4]]])
    start, found = Elites(1), Elites(24)
    start.add(problem, index, problem.score(index))
    assert Runs(problem, start.best, start.best.value).alike == [0, 0, 2], "what is known of one tile says nothing of another"
    divide(problem, found, start.best, 5_000)
    assert found.best.value < start.best.value and (found.best.index[:, 2:] == index[0, :, 2:]).all()
    assert np.isfinite(problem.score(found.best.index[None]).value[0])


def test_the_polish_ends_with_the_proof_and_divides_only_for_the_interval():
    problem = pipeline_problem("impala", 3)
    elites = continuous(problem, 20_000, 0)
    assert elites.best.value == BEST_KNOWN["impala", 3] and problem.evaluations < 20_000
    slow = DesignProblem(problem.layers, problem.machine, 3, problem.limits, "latency", "compute")
    first, begin = Elites(24), np.full((1, 3, 2), 5)
    first.add(slow, begin, slow.score(begin))
    polish(slow, first, 3_000, np.random.default_rng(0))
    assert slow.evaluations == 3_000
