"""Design search: limits, budgets, optima that enumeration confirms, the relaxation, the methods beside it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from accel_models import LayerShape, evaluate, load_design, load_layers, search_design
from accel_models.cost import Machine, machine_of
from accel_models.engines.systolic import DATAFLOWS
from accel_models.searching.baselines import METHODS, gumbel
from accel_models.searching.benchmark import ALL_METHODS, BEST_KNOWN, as_markdown, pipeline_problem, run_benchmark
from accel_models.searching.elites import Candidate, Elites, neighbours, resized
from accel_models.searching.methods import compare_methods
from accel_models.searching.problem import SIDES, DesignProblem, Limits
from accel_models.searching.relaxed import RelaxedDesigns, Temperatures, annealed, loss, membership, relaxed_value
from accel_models.searching.search import continuous, design_of, fixed_tile, limits_of
from latency_tables.errors import ConfigError, InfeasibleCandidateError, UnknownNameError

FEW = 2_000


def small_problem(**changes):
    options = {
        "layers": load_layers("nature"),
        "machine": Machine(16.0),
        "chunks": 2,
        "limits": Limits(200, 400),
        "objective": "interval",
    }
    return DesignProblem(**{**options, **changes})


def test_one_chunk_equals_enumeration():
    problem = pipeline_problem("impala", 1)
    pairs = np.array([[p] for p in itertools.product(range(len(SIDES)), repeat=2)])
    want = problem.score(pairs).value.min()
    assert continuous(pipeline_problem("impala", 1), FEW, 0).best.value == want


def test_what_has_too_many_elements_is_what_scores_infinite():
    problem = pipeline_problem("impala", 1)
    pairs = np.array([[p] for p in itertools.product(range(len(SIDES)), repeat=2)])
    fits = problem.has_elements(pairs)
    assert problem.evaluations == 0 and 0 < fits.sum() < len(pairs)
    assert (fits == np.isfinite(problem.score(pairs).value)).all()


def test_resized_gives_every_array_that_fits_in_a_chunks_place_and_changes_no_other():
    problem = pipeline_problem("impala", 2)
    index = np.array([[12, 12], [9, 3]])
    found = resized(problem, Candidate(1.0, index, np.zeros(1, int), np.zeros(2, int)), 1)
    room = 900 - SIDES[12] ** 2
    want = {(a, b) for a in range(len(SIDES)) for b in range(len(SIDES)) if SIDES[a] * SIDES[b] <= room} - {(9, 3)}
    assert {tuple(pair) for pair in found[:, 1]} == want and (found[:, 0] == 12).all() and len(found) == len(want)


def test_exact_score_equals_adding_up_by_hand():
    problem = small_problem(model="compute", layers=load_layers("nature")[:3])
    index = np.array([[[5, 6], [9, 3]]])
    chunk, option = np.array([[0, 0, 1]]), np.array([[0, 1]])
    rows, cols = [[SIDES[v] for v in pair] for pair in zip(*index[0], strict=True)]

    def cycles(layer, r, c, stationary):
        window, pixels = layer.R * layer.S * layer.C, layer.P * layer.Q
        high, length = (window, pixels) if stationary else (pixels, window)
        return -(-high // r) * -(-layer.K // c) * ((2 if stationary else 1) * r + c + length - 2)

    a, b, c = problem.layers
    want = max(cycles(a, rows[0], cols[0], True) + cycles(b, rows[0], cols[0], True), cycles(c, rows[1], cols[1], False))
    assert problem.score(index, chunk, option).value[0] == want and problem.evaluations == 1
    assert problem.score(index).value[0] < want, "the best cuts and dataflows are better than these"


def test_table_of_pairs_equals_the_equations():
    problem = pipeline_problem("mobilenet", 3)
    index = np.random.default_rng(0).integers(0, len(SIDES), (30, 3, 2))
    assert torch.equal(problem._looked_up(index).compute_cycles, problem.costs(problem.values(index)).compute_cycles)


@pytest.mark.parametrize(
    "model,objective", [("compute", "interval"), ("full", "interval"), ("full", "latency"), ("full", "energy")]
)
def test_cold_relaxation_equals_the_exact_score_at_integer_points(model, objective):
    machine = machine_of(load_design("edge-npu"))
    problem = small_problem(model=model, objective=objective, machine=machine, limits=Limits(10**6))
    rng = np.random.default_rng(1)
    cold = Temperatures(option=1e-3, cut=1e-3, maximum=1e-12)
    for _ in range(10):
        exact = [[n for n, v in enumerate(options) if v & (v - 1) == 0] for options in problem.grid]  # log2 without rounding
        index = np.stack([rng.choice(places, 2) for places in exact], -1)[None]
        option, cut = rng.integers(0, 3, (1, 2)), int(rng.integers(1, 6))
        chunk = (np.arange(6) >= cut).astype(int)[None]
        designs = RelaxedDesigns(
            torch.log2(problem.values(index)),
            torch.nn.functional.one_hot(torch.tensor(option), 3).double(),
            torch.tensor([[float(cut)]], dtype=torch.float64),
        )
        value, excess = relaxed_value(problem, designs, cold, "straight")
        want = problem.score(index, chunk, option).value[0]
        assert float(torch.exp(value)[0]) == pytest.approx(want, rel=1e-9) and float(excess.sum()) == 0


def test_relaxed_gradient_equals_central_differences():
    problem = small_problem()
    rng = np.random.default_rng(2)
    parts = [torch.tensor(a) for a in (rng.uniform(1, 4, (1, 2, 5)) + 0.013, rng.normal(0, 1, (1, 2, 3)), np.array([[2.7]]))]
    flat = torch.cat([p.reshape(-1) for p in parts]).requires_grad_(True)

    def value(x):
        log2, option, cuts = x[:10].reshape(1, 2, 5), x[10:16].reshape(1, 2, 3), x[16:].reshape(1, 1)
        return loss(*relaxed_value(problem, RelaxedDesigns(log2, option, cuts), annealed(0.3)))[0]

    own = torch.autograd.grad(value(flat), flat)[0]
    steps = torch.eye(17, dtype=torch.float64) * 1e-6
    numeric = torch.stack([(value(flat.detach() + s) - value(flat.detach() - s)) / 2e-6 for s in steps])
    assert torch.allclose(own, numeric, rtol=1e-4, atol=1e-8), (own, numeric)
    assert float(own.abs().min()) > 1e-6 and float(own.abs().max()) > 0.01, "every knob, option and cut must have a gradient"


def test_membership_is_a_partition_and_contiguous():
    share = membership(torch.tensor([[4.0, 2.0]], dtype=torch.float64), 6, 1e-3)[0]
    assert share.argmax(0).tolist() == [0, 0, 1, 1, 2, 2] and torch.allclose(share.sum(0), torch.ones(6, dtype=torch.float64))
    assert bool((membership(torch.tensor([[4.0, 2.0]], dtype=torch.float64), 6, 1.0) >= 0).all())


def test_penalty_is_one_sided():
    assert float(loss(torch.tensor([2.0]), torch.tensor([[0.0, 0.0]]))) == 2.0
    assert float(loss(torch.tensor([2.0]), torch.tensor([[0.5, 0.0]]))) == pytest.approx(2 + 1.5 + 7.5)


@pytest.mark.parametrize(
    "platform,chunks,objective",
    [("zc706", 3, "interval"), ("zc706", 1, "latency"), ("gemmini-like", 2, "energy"), ("eyeriss-like", 2, "interval")],
)
def test_found_designs_keep_the_limits(platform, chunks, objective):
    base = load_design(platform)
    found = search_design(load_layers("nature"), base, 0, chunks=chunks, objective=objective, evaluations=FEW)
    assert found.result.resources.over(base.platform) == [] and found.evaluations <= FEW
    assert 1 <= len(found.design.chunks) <= chunks and list(found.chunk_of) == sorted(found.chunk_of)
    again = search_design(load_layers("nature"), base, 0, chunks=chunks, objective=objective, evaluations=FEW)
    assert again.design == found.design, "same seed, same design"
    assert sorted({layer.chunk for layer in found.result.layers}) == list(range(len(found.design.chunks)))


@pytest.mark.parametrize("platform,chunks,objective", [("zc706", 1, "latency"), ("eyeriss-like", 2, "interval")])
def test_one_tile_for_each_layer_is_no_worse_than_the_one_tile_for_all_of_the_search(platform, chunks, objective):
    base = load_design(platform)
    found = search_design(load_layers("nature"), base, 0, chunks=chunks, objective=objective, evaluations=FEW)
    own_s = found.result.interval_s if objective == "interval" else found.result.latency_s
    shared_s = found.searched_value / base.platform.clock_hz
    assert 0.5 * shared_s < own_s <= shared_s * (1 + 1e-9)


def starved():
    """A platform whose small memory and slow DRAM make the tile decide."""
    base = load_design("eyeriss-like")
    return replace(base, platform=replace(base.platform, sram_limit_bytes=24_000, dram_bytes_per_s=2.5e8))


@pytest.mark.parametrize("side,inputs,outputs", [(21, 24, 24), (21, 64, 96), (15, 64, 64), (7, 100, 100)])
def test_tiles_of_layers_that_they_do_not_divide_fit_the_buffers_that_the_search_sizes(side, inputs, outputs):
    layers, base = [LayerShape("conv", "conv", 1, outputs, inputs, side, side, 3, 3, 1)], starved()
    found = search_design(layers, base, 0, objective="latency", evaluations=700)
    assert found.result.latency_s * base.platform.clock_hz <= found.searched_value * (1 + 1e-9)


def test_a_candidate_is_charged_for_its_largest_tile_and_not_for_the_average_one():
    """64 channels of 17 x 15 inputs, 16 bit, in tiles of 8 rows: the larger tile has 10 x 17 inputs and 8 x 15 sums."""
    layers, machine = [LayerShape("conv", "conv", 1, 64, 64, 15, 15, 3, 3, 1)], machine_of(starved())
    index = np.array([[[SIDES.index(10), SIDES.index(4), 0, 6, 3]]])
    bytes_each = (machine.weight_bytes, machine.activation_bytes, machine.partial_bytes)
    need = 2 * sum(int(words * size) for words, size in zip((64 * 9, 64 * 10 * 17, 8 * 15), bytes_each, strict=True))
    room, tight = (DesignProblem(layers, machine, 1, Limits(1000, None, need - less), "latency") for less in (0, 1))
    assert np.isfinite(room.score(index).value[0]) and np.isinf(tight.score(index).value[0])


def test_a_search_for_energy_finds_a_design_of_less_energy_than_the_platforms_own():
    base, layers = load_design("gemmini-like"), load_layers("nature")
    found = search_design(layers, base, 0, chunks=2, objective="energy", evaluations=FEW)
    assert found.result.energy_j < evaluate(layers, base, "energy").energy_j
    assert 0.9 * found.searched_value < found.result.energy_j <= found.searched_value * (1 + 1e-9), "the best tile of each layer"


@pytest.mark.parametrize("platform", ["edge-npu", "gemmini-like", "eyeriss-like"])
def test_the_energy_that_a_search_scores_is_that_of_the_design_it_stands_for(platform):
    """A candidate with its buffers, cuts, dataflows and tiles as a design, for ``evaluate``; the tiles divide all sizes."""
    base = load_design(platform)
    layers = [
        LayerShape("conv", "conv", 1, 32, 16, 16, 16, 3, 3, 1),
        LayerShape("dw", "dw", 32, 1, 1, 8, 8, 3, 3, 2),
        LayerShape("point", "conv", 1, 64, 32, 8, 8, 1, 1, 1),
        LayerShape("pool", "pool", 64, 1, 1, 4, 4, 2, 2, 2),
        LayerShape("fc", "fc", 1, 16, 1024, 1, 1, 1, 1, 1),
    ]
    problem = DesignProblem(layers, machine_of(base), 2, Limits(10**6), "energy")
    rng = np.random.default_rng(3)
    index = np.stack([rng.integers(0, len(options), (12, 2)) for options in problem.grid], -1)
    found = problem.score(index)
    for place, value in enumerate(found.value):
        best = Candidate(value, index[place], found.chunk[place], found.option[place])
        design = design_of(problem, best, base)
        used = np.unique(best.chunk)
        tiles = [fixed_tile(best, problem, j) for j in used]
        chunks = tuple(replace(chunk, tile=tile) for chunk, tile in zip(design.chunks, tiles, strict=True))
        placed = np.searchsorted(used, best.chunk)
        result = evaluate(layers, replace(design, chunks=chunks), "energy", placed)
        assert value == pytest.approx(result.energy_j, rel=1e-12)
        others = [
            tuple(replace(chunk, dataflow=flow) for chunk, flow in zip(chunks, flows, strict=True))
            for flows in itertools.product(DATAFLOWS, repeat=len(chunks))
        ]
        energies = [evaluate(layers, replace(design, chunks=each), "energy", placed).energy_j for each in others]
        assert value == pytest.approx(min(energies), rel=1e-12), "the best dataflows for these cuts and buffers"


def test_designs_beyond_a_limit_score_inf():
    index = np.array([[[17, 17, 3, 3, 3], [0, 0, 3, 3, 3]]])
    assert np.isinf(small_problem(limits=Limits(4096.0)).score(index).value[0])
    assert np.isfinite(small_problem(limits=Limits(4097.0)).score(index).value[0])
    assert np.isinf(small_problem(limits=Limits(5000, 100)).score(index).value[0])
    assert np.isinf(small_problem(limits=Limits(5000, None, 10_000)).score(index).value[0])


def test_nothing_within_the_limits_is_an_error():
    base = load_design("zc706")
    empty = replace(base, platform=replace(base.platform, bram18_limit=1))
    with pytest.raises(InfeasibleCandidateError, match="zc706"):
        search_design(load_layers("nature"), empty, 0, evaluations=600)


@pytest.mark.parametrize("name", list(ALL_METHODS))
def test_methods_keep_their_budget_and_find_something(name):
    problem = pipeline_problem("impala", 2)
    elites = ALL_METHODS[name](problem, 1_234, 3)
    assert problem.evaluations <= 1_234 and np.isfinite(elites.best.value)
    assert [v for _, v in elites.history] == sorted((v for _, v in elites.history), reverse=True)


def test_polish_helps_and_gradient_beats_sampling():
    found = {}
    for name in ("gradient+polish", "gradient", "random", "das"):
        runs = [ALL_METHODS[name](pipeline_problem("mobilenet", 3), FEW * 2, seed) for seed in range(2)]
        found[name] = np.mean([run.best.value for run in runs])
    assert found["gradient+polish"] < found["gradient"] < min(found["random"], found["das"])


def test_gumbel_learns_only_with_a_rate_and_baseline():
    tuned, released = (
        np.mean([gumbel(pipeline_problem("impala", 2), FEW, s, **o).best.value for s in range(4)])
        for o in ({}, {"rate": 1e-7, "baseline": False})
    )
    assert tuned < released


def test_exact_cuts_change_evolution():
    plain, cuts = (METHODS[name](pipeline_problem("mobilenet", 3), FEW, 0).best.value for name in ("evolution", "evolution+cuts"))
    assert plain != cuts


def test_neighbours_stay_on_the_grid_and_are_different():
    problem = pipeline_problem("impala", 3)
    best = continuous(problem, 700, 0).best
    around = neighbours(problem, best)
    assert around.min() >= 0 and around.max() < len(SIDES) and len(np.unique(around, axis=0)) == len(around) > 50


def test_elites_keep_the_best_different_ones():
    problem = pipeline_problem("impala", 1)
    index = np.array([[[3, 3]], [[3, 3]], [[5, 5]], [[17, 17]]])
    elites = Elites(2)
    elites.add(problem, index, problem.score(index))
    assert len(elites.members) == 2 and elites.members[0].value < elites.members[1].value


def test_comparison_has_every_method_at_equal_evaluations():
    base, layers = load_design("zc706"), load_layers("nature")
    found = search_design(layers, base, 0, evaluations=FEW)
    rows = compare_methods(layers, base, found, 0, 1, "latency", FEW)
    assert [row.method for row in rows] == ["gradient+polish", *METHODS] and all(row.evaluations <= FEW for row in rows)
    assert limits_of(base) == Limits(900, 1090, None)


def test_benchmark_table():
    rows = run_benchmark(["random"], 2, 300)
    assert len(rows) == len(BEST_KNOWN) and all(row.mean > 1 for row in rows)
    assert as_markdown(rows).count("\n") == 2 and "random" in as_markdown(rows)
    with pytest.raises(UnknownNameError, match="gradient"):
        run_benchmark(["annealing"], 1, 100)


@pytest.mark.slow
@pytest.mark.parametrize("network,chunks", list(BEST_KNOWN))
def test_every_seed_finds_the_best_known(network, chunks):
    ratios = [
        continuous(p, 20_000, seed).best.value / BEST_KNOWN[network, chunks]
        for seed in range(6)
        for p in [pipeline_problem(network, chunks)]
    ]
    assert ratios == [1.0] * 6


@pytest.mark.parametrize(
    "change", [{"objective": "speed"}, {"model": "half"}, {"chunks": 0}, {"chunks": 99}, {"objective": "energy"}]
)
def test_wrong_problems_are_refused(change):
    with pytest.raises(ConfigError):
        small_problem(**change)
    with pytest.raises(ConfigError, match="budget"):
        continuous(small_problem(), 100, 0)
