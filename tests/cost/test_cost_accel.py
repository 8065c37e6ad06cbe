"""The accelerator as a cost: equal to the model's own evaluation, exact gradients, searched when due, never worse or too big."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from accel_models import evaluate, from_blocks, load_design
from accel_models.design import Chunk
from accel_models.resources import resources
from cosearch.config.accel import AccelConfig
from cosearch.cost import accelerator as accelerator_room
from cosearch.cost.accel_cost import AccelCost
from cosearch.cost.accel_table import AccelTable
from cosearch.cost.accelerator import Accelerator
from cosearch.planning.builtins import load_builtins
from cosearch.space.space import SPACES
from latency_tables.errors import DesignError, InfeasibleCandidateError, RequestError, ShapeError

SPACE = {
    "stem_channels": 8,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stage_channels": [8, 16],
    "stage_repeats": [1, 2],
    "stage_strides": [1, 2],
    "hidden": 32,
}
SMALL = AccelConfig(every_steps=100, evaluations=560, final_evaluations=560)


@pytest.fixture(scope="module")
def space():
    load_builtins()
    return SPACES.get("chain").make(SPACE, (10, 10, 4), 3)


def two_chunks():
    base = load_design("zc706")
    first, second = Chunk(16, 16, "ws", 4096, 4096, 4096), Chunk(20, 10, "os", 8192, 16384, 4096)
    return dataclasses.replace(base, name="two", chunks=(first, second))


DESIGNS = {"zc706": lambda: load_design("zc706"), "edge-npu": lambda: load_design("edge-npu"), "two": two_chunks}


def fixed(space, design, objective="latency"):
    made = Accelerator(space, design, AccelConfig(fixed=True, objective=objective), lambda number: number)
    made.begin({})
    return made


def sampled(space, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(count)]


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("objective", ["latency", "interval"])
def test_expected_at_one_hot_is_exact_is_the_models_own_evaluation(space, name, objective):
    accelerator = fixed(space, DESIGNS[name](), objective)
    metrics = ["latency_s"] + ["energy_j"] * (name == "edge-npu")
    for architecture in sampled(space, 6):
        accelerator.optimise(architecture, 560)
        ops = architecture.ops()
        chunk_of = [0] if name != "two" else accelerator.chunks_of(ops)
        flat = [chunk_of[i if name == "two" else 0] for i, group in enumerate(from_blocks(ops)) for _ in group]
        result = evaluate([layer for group in from_blocks(ops) for layer in group], accelerator.design, objective, flat)
        for metric in metrics:
            cost = AccelCost(accelerator, metric)
            expected = float(cost.expected(architecture.one_hot()))
            assert cost.exact(architecture) == pytest.approx(getattr(result, metric), rel=1e-12)
            assert expected == pytest.approx(cost.exact(architecture), rel=1e-12)
        assert accelerator.predict(ops).latency_s == pytest.approx(result.latency_s, rel=1e-12)
        assert accelerator.network(ops).interval_s == pytest.approx(result.interval_s, rel=1e-12)


def test_the_blocks_of_a_pipeline_lie_on_more_than_one_chunk(space):
    accelerator = fixed(space, two_chunks(), "interval")
    seen = set()
    for architecture in sampled(space, 6):
        accelerator.optimise(architecture, 560)
        chunks = list(accelerator.chunk_of)
        assert chunks == sorted(chunks) and len(chunks) == len(space.points) + 2
        seen |= set(chunks)
    assert seen == {0, 1}


def test_gradients_equal_central_differences(space):
    cost = AccelCost(fixed(space, load_design("edge-npu")), "energy_j")
    generator = torch.Generator().manual_seed(0)
    logits = [torch.rand(len(p.candidates), generator=generator, dtype=torch.float64, requires_grad=True) for p in space.points]

    def value(points):
        return cost.expected([torch.softmax(row, 0) for row in points])

    value(logits).backward()
    step = 1e-4
    for point, row in enumerate(logits):
        for o in range(len(row)):
            sides = []
            for sign in (1, -1):
                moved = [r.detach().clone() for r in logits]
                moved[point][o] += sign * step
                sides.append(float(value(moved)))
            assert float(row.grad[o]) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-6, abs=1e-18)


def test_identities_cost_nothing_and_weights_must_fit(space):
    cost = AccelCost(fixed(space, load_design("zc706")))
    for point, row in zip(space.points, cost.candidate_costs()):
        assert [value == 0.0 for value in row] == [spec is None for spec in point.specs]
    with pytest.raises(ShapeError, match="expected weights of lengths"):
        cost.expected([torch.ones(2)])


@pytest.mark.parametrize("many", [1, 3, "candidates"])
def test_many_distributions_at_once_cost_what_each_costs_alone(space, many):
    cost = AccelCost(fixed(space, load_design("zc706")))
    many = len(space.points[0].candidates) if many == "candidates" else many
    generator = torch.Generator().manual_seed(2)
    raw = [torch.rand(many, len(p.candidates), generator=generator, dtype=torch.float64) for p in space.points]
    weights = [torch.softmax(row, -1) for row in raw]
    alone = [float(cost.expected([row[i] for row in weights])) for i in range(many)]
    assert cost.expected(weights).tolist() == pytest.approx(alone, rel=1e-12)


def test_unknown_energy_is_refused_and_never_zero(space):
    accelerator = fixed(space, load_design("zc706"))
    with pytest.raises(RequestError, match="no constants with a source"):
        AccelCost(accelerator, "energy_j")
    with pytest.raises(RequestError, match="no constants with a source"):
        accelerator.costs("energy_j")
    assert accelerator.predict(sampled(space, 1)[0].ops()).energy_j is None
    with pytest.raises(RequestError, match="unknown metric"):
        AccelCost(accelerator, "latency_ms")


def faked(monkeypatch, *designs):
    """Design searches that give these designs in turn; returns the calls."""
    calls, waiting = [], list(designs)

    def search(layers, base, seed, **options):
        calls.append((len(layers), seed, options))
        found = waiting.pop(0)
        if found is None:
            raise InfeasibleCandidateError("nothing")
        return SimpleNamespace(design=found)

    monkeypatch.setattr(accelerator_room, "search_design", search)
    return calls


def with_array(rows, cols, size=65536):
    return dataclasses.replace(load_design("zc706"), name=f"{rows}x{cols}", chunks=(Chunk(rows, cols, "ws", size, size, size),))


def begun(space, options=SMALL, bounds=None):
    accelerator = Accelerator(space, load_design("zc706"), options, lambda number: 1000 + number)
    accelerator.begin(bounds or {})
    return accelerator


def test_a_searched_design_is_taken_where_it_is_better_and_left_where_it_is_worse(space, monkeypatch):
    calls = faked(monkeypatch, with_array(4, 4), with_array(2, 2), with_array(28, 30), None)
    accelerator = begun(space)
    accelerator._own = None  # the platform's own design would win against these
    architecture = sampled(space, 1)[0]
    first = AccelCost(accelerator).exact(architecture)
    assert accelerator.design.name == "4x4"
    assert not accelerator.optimise(architecture, 700) and accelerator.design.name == "4x4"
    assert accelerator.optimise(architecture, 700) and accelerator.design.name == "28x30"
    assert AccelCost(accelerator).exact(architecture) < first
    assert not accelerator.optimise(architecture, 700) and accelerator.searches == 4
    assert [seed for _, seed, _ in calls] == [1000, 1001, 1002, 1003]
    assert [options["evaluations"] for _, _, options in calls] == [560, 700, 700, 700]


def test_the_platforms_own_design_stands_beside_the_searched_one(space, monkeypatch):
    faked(monkeypatch, with_array(4, 4), with_array(5, 5))
    accelerator = begun(space)
    assert accelerator.optimise(sampled(space, 1)[0], 560) and accelerator.design.name == "zc706"


def test_a_search_begins_with_the_platforms_own_design_where_that_alone_keeps_a_target(space, monkeypatch):
    """The smallest network needs less energy on the platform's own array than on one of 2 x 2 elements."""
    base = load_design("edge-npu")
    wasteful = dataclasses.replace(base, name="wasteful", chunks=(dataclasses.replace(base.chunks[0], rows=2, cols=2),))
    smallest = space.best([[-macs for macs in row] for row in space.macs()]).ops()
    own, other = (AccelTable(design).predict(smallest) for design in (base, wasteful))
    assert own.energy_j < other.energy_j
    for bounds, name in (
        ({"latency_s": 1.0}, "wasteful"),
        ({"latency_s": 1.0, "energy_j": own.energy_j}, "edge-npu"),
        ({"latency_s": 1.0, "energy_j": other.energy_j}, "wasteful"),
        ({"latency_s": 1.0, "energy_j": own.energy_j / 2}, "wasteful"),
    ):
        faked(monkeypatch, wasteful)
        accelerator = Accelerator(space, base, SMALL, lambda number: number)
        accelerator.begin(bounds)
        assert accelerator.design.name == name, bounds


def test_a_better_interval_does_not_break_the_latency_that_is_promised(space, monkeypatch):
    one = with_array(16, 16)
    pipeline = dataclasses.replace(one, name="two", chunks=(Chunk(12, 12, "ws", 65536, 65536, 65536),) * 2)
    architecture = sampled(space, 4)[3]
    options = dataclasses.replace(SMALL, objective="interval", chunks=2)
    faked(monkeypatch, one, pipeline)
    free = begun(space, options)
    free._own = None
    free.optimise(architecture, 560)
    slow = AccelCost(free).exact(architecture)
    faked(monkeypatch, one, pipeline)
    bound = begun(space, options)
    bound._own = None
    fast = AccelCost(bound).exact(architecture)
    assert free.design.name == "two" and slow > fast, "the pipeline must be slower for one frame for this test to mean anything"
    bound.bounds = {"latency_s": fast}
    assert not bound.optimise(architecture, 560) and AccelCost(bound).exact(architecture) == fast


def test_a_fixed_design_is_never_searched(space, monkeypatch):
    faked(monkeypatch)
    accelerator = fixed(space, load_design("zc706"))
    assert not accelerator.due(10**9)
    assert not accelerator.optimise(sampled(space, 1)[0], 560)
    assert accelerator.reference(sampled(space, 1)[0].ops(), 0).latency_s > 0
    assert accelerator.design == load_design("zc706") and accelerator.searches == 0


def test_it_is_due_every_so_many_steps(space, monkeypatch):
    faked(monkeypatch, with_array(4, 4))
    accelerator = begun(space)
    assert [step for step in range(0, 520, 40) if accelerator.due(step)] == [120, 200, 320, 400]


def test_every_candidate_fits_a_design_whose_buffers_were_made_for_a_smaller_network(space, monkeypatch):
    faked(monkeypatch, with_array(4, 4, size=1))
    accelerator = begun(space)
    (chunk,) = accelerator.design.chunks
    assert (chunk.weight_buffer_bytes, chunk.input_buffer_bytes, chunk.output_buffer_bytes) == (50, 50, 4)  # 5 x 5 in 16 bit
    assert all(value > 0 for row in AccelCost(accelerator).candidate_costs() for value in row[:-1])


def test_state_holds_everything(space, monkeypatch):
    faked(monkeypatch, with_array(4, 4), with_array(8, 8), with_array(16, 16), with_array(4, 4))
    accelerator = begun(space)
    accelerator._own = None
    accelerator.keep_as_start()
    start = accelerator.design
    accelerator.optimise(sampled(space, 1)[0], 560)
    accelerator.due(100)
    saved = json.loads(json.dumps(accelerator.state()))
    accelerator.optimise(sampled(space, 2)[1], 560)
    assert accelerator.state() != saved
    other = begun(space)
    other.restore(saved)
    assert other.state() == saved and other.design.name == "8x8" and not other.due(150) and other.due(200)
    accelerator.start_over()
    assert accelerator.design == start and accelerator.searches == 3


def test_a_state_is_these_five_plain_values_as_in_every_checkpoint_so_far(space, monkeypatch):
    faked(monkeypatch, with_array(4, 4))
    accelerator = begun(space)
    state = {
        "design": json.loads(json.dumps(with_array(16, 8).to_dict())),
        "chunk_of": [0] * len(space.nodes),
        "searches": 7,
        "next_step": 300,
        "made_for": [0] * len(space.points),
    }
    accelerator.restore(state)
    assert accelerator.state() == state and accelerator.design == with_array(16, 8)
    accelerator.searches = 11
    accelerator.return_to({**state, "made_for": None})
    assert accelerator.searches == 11 and accelerator.made_for is None and accelerator.design == with_array(16, 8)
    accelerator.start_over()
    assert accelerator.design == load_design("zc706") and accelerator.searches == 11, "nothing was kept: the platform's own"


def test_found_designs_keep_within_tight_limits_and_repeat(space):
    base = load_design("zc706")
    small = dataclasses.replace(base, platform=dataclasses.replace(base.platform, dsp_limit=40, bram18_limit=60))
    designs = []
    for _ in range(2):
        accelerator = Accelerator(space, small, SMALL, lambda number: 7 + number)
        accelerator.begin({})
        accelerator.optimise(sampled(space, 1)[0], 560)
        used = resources(accelerator.design)
        assert used.dsp <= 40 and used.bram18 <= 60 and accelerator.searches == 2
        designs.append(accelerator.design)
    assert designs[0] == designs[1]


def test_what_cannot_be_built_is_one_clear_message(space, monkeypatch):
    base = load_design("zc706")
    too_big = dataclasses.replace(base, platform=dataclasses.replace(base.platform, dsp_limit=100))
    with pytest.raises(DesignError, match="900 DSP, the limit is 100"):
        fixed(space, too_big)
    with pytest.raises(DesignError, match="does not hold every candidate"):
        fixed(space, with_array(4, 4, size=8))
    faked(monkeypatch, None)
    useless = Accelerator(space, with_array(4, 4, size=8), SMALL, lambda number: number)
    with pytest.raises(DesignError, match="no design within the limits of zc706 holds the smallest network"):
        useless.begin({})
    faked(monkeypatch, None)
    assert begun(space).design.name == "zc706", "the platform's own design holds it"


def test_a_design_answers_as_a_table_does(space):
    table = AccelTable(load_design("edge-npu"))
    ops = sampled(space, 1)[0].ops()
    found = table.predict(ops)
    assert found.provenance == table.provenance == "modelled" and found.interval is None and found.overhead_s == 0.0
    assert found.latency_s == pytest.approx(sum(latency for _, latency, _ in found.operations))
    assert found.energy_j == pytest.approx(sum(energy for _, _, energy in found.operations))
    assert [key for key, _, _ in found.operations] == [op.key for op in ops]
    assert table.table_id != AccelTable(load_design("zc706")).table_id


def test_a_reference_agent_gets_a_search_of_its_own_seed_and_the_better_design(space, monkeypatch):
    ops = sampled(space, 1)[0].ops()
    calls = faked(monkeypatch, with_array(4, 4), with_array(2, 2), with_array(28, 30, size=1 << 17))
    accelerator = begun(space)
    slow = accelerator.reference(ops, 3)
    assert slow == AccelTable(load_design("zc706")).predict(ops), "the platform's own design is better than 2 x 2"
    assert calls[1][1:] == (1000 + 1_000_003, {**calls[0][2], "chunks": 1, "evaluations": SMALL.final_evaluations})
    assert accelerator.searches == 1 and accelerator.design.name == "4x4"
    accelerator.base = dataclasses.replace(accelerator.base, chunks=(Chunk(2, 2, "ws", 65536, 65536, 65536),))
    fast = accelerator.reference(ops, 4)
    assert fast.latency_s < slow.latency_s * 1.5 and fast != AccelTable(accelerator.base).predict(ops)


def test_what_a_design_search_is_asked_for(space, monkeypatch):
    calls = faked(monkeypatch, with_array(4, 4))
    accelerator = begun(space, dataclasses.replace(SMALL, objective="interval", chunks=2))
    smallest = space.best([[-macs for macs in row] for row in space.macs()])
    layers = len([layer for group in from_blocks(smallest.ops()) for layer in group])
    assert calls == [(layers, 1000, {"chunks": 2, "objective": "interval", "evaluations": 560})]
    assert accelerator.made_for == smallest.choices and accelerator.bounds == {}
    assert accelerator.table.objective == "interval" and accelerator.table_id == AccelTable(load_design("zc706")).table_id
