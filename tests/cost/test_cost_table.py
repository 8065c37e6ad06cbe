"""Expected cost of a space from a table: equal to the exact cost at one-hot weights, differentiable, never guessed."""

import itertools

import pytest
import torch
from graph_space import graph_space

from cosearch.benchmarks.speed.predict_speed import measure
from cosearch.cost.table_cost import METRICS, TableCost
from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.testing.conformance import seeded
from latency_tables.devices import find_table
from latency_tables.errors import CosearchError, MissingOpError, RequestError, ShapeError
from latency_tables.schema import Row, TableFile
from latency_tables.table import Table

CONFIG = ChainConfig(
    stem_channels=4,
    stem_kernel=3,
    stem_stride=2,
    stage_channels=(4, 6),
    stage_repeats=(2, 1),
    stage_strides=(1, 2),
    candidates=("conv_k3", "mbconv_k3_e3", "skip"),
    hidden=8,
)
TINY = chain_space(CONFIG, (12, 12, 3), 4)
PROCGEN = chain_space(ChainConfig(), (64, 64, 3), 15)
OVERHEAD_S, SCALE = 3e-5, 1.25


def table_of(space, energy=True, without=(), overhead_j=2e-6):
    """A measured table whose rows are known numbers: the n-th block costs (n + 1) * 1e-5 s and (n + 1)^2 * 1e-7 J."""
    rows = {
        op.key: Row(op.key, (n + 1) * 1e-5, (n + 1) ** 2 * 1e-7 if energy else None)
        for n, op in enumerate(space.all_ops())
        if n not in without
    }
    header = {
        "schema": 1,
        "device": {"name": "toy", "description": "toy", "runtime": "torch", "dtype": "float32", "threads": 1},
        "provenance": "synthetic",
        "table_id": "0",
        "calibration": {"overhead_s": OVERHEAD_S, "scale": SCALE, "overhead_j": overhead_j if energy else None},
    }
    return Table(TableFile(header, rows, None))


def test_the_main_device_has_a_cost_for_the_default_space():
    architecture = PROCGEN.sample(seeded(0))
    table = find_table("jetson")
    assert TableCost(PROCGEN, table).exact(architecture) == pytest.approx(table.predict(architecture.ops()).latency_s, rel=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_every_architecture_of_a_small_space_has_the_closed_form(metric):
    table = table_of(TINY)
    cost, number = TableCost(TINY, table, metric), {op.key: n for n, op in enumerate(TINY.all_ops())}
    for choices in itertools.product(range(3), repeat=3):
        architecture = TINY.architecture(choices)
        numbers = [number[op.key] + 1 for op in derive(architecture, seeded(0)).ops]  # of the network that is built
        wanted = (
            OVERHEAD_S + SCALE * 1e-5 * sum(numbers)
            if metric == "latency_s"
            else 2e-6 + SCALE * 1e-7 * sum(n * n for n in numbers)
        )
        assert cost.exact(architecture) == pytest.approx(wanted, rel=1e-12)
        assert float(cost.expected(architecture.one_hot())) == pytest.approx(wanted, rel=1e-12)
        prediction = table.predict(architecture.ops())
        assert getattr(prediction, metric) == pytest.approx(wanted, rel=1e-12)


def test_expected_is_the_mean_over_the_distribution_by_enumeration():
    cost, generator = TableCost(TINY, table_of(TINY)), seeded(1)
    weights = [torch.softmax(torch.randn(3, generator=generator, dtype=torch.float64), 0) for _ in range(3)]
    mean = sum(
        float(weights[0][a] * weights[1][b] * weights[2][c]) * cost.exact(TINY.architecture([a, b, c]))
        for a, b, c in itertools.product(range(3), repeat=3)
    )
    assert float(cost.expected(weights)) == pytest.approx(mean, rel=1e-12)


def test_gradient_equals_central_differences_and_the_candidate_costs():
    cost = TableCost(TINY, table_of(TINY))
    logits = [torch.randn(3, generator=seeded(n), dtype=torch.float64).requires_grad_() for n in range(3)]

    def expected():
        return cost.expected([torch.softmax(row, 0) for row in logits])

    expected().backward()
    for row in logits:
        for k in range(3):
            ends = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    row[k] += sign * 1e-5
                    ends.append(float(expected()))
                    row[k] -= sign * 1e-5
            assert float(row.grad[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-13)
    weights = [torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    cost.expected(weights).backward()
    for weight, row in zip(weights, cost.candidate_costs()):
        assert weight.grad.tolist() == pytest.approx(row, rel=1e-12)


def test_identity_costs_nothing_and_every_other_candidate_something():
    costs = TableCost(TINY, table_of(TINY)).candidate_costs()
    assert [row[2] for row in costs[:2]] == [0.0, 0.0] and costs[2][2] > 0  # the last skip changes the shape
    assert all(value > 0 for row in costs for value in row[:2])


def test_weights_keep_their_dtype_and_must_fit():
    cost = TableCost(TINY, table_of(TINY))
    assert cost.expected([torch.full((3,), 1 / 3)] * 3).dtype == torch.float32
    for weights in ([torch.ones(3)] * 2, [torch.ones(3), torch.ones(3), torch.ones(2)]):
        with pytest.raises(ShapeError, match=r"\[3, 3, 3\]"):
            cost.expected(weights)


def test_a_missing_row_raises_wherever_it_is():
    for n, op in enumerate(TINY.all_ops()):
        with pytest.raises(MissingOpError) as caught:
            TableCost(TINY, table_of(TINY, without=(n,)))
        assert op.key in str(caught.value) and "python -m latency_tables measure" in str(caught.value)


def test_a_row_that_could_not_run_raises():
    table = table_of(TINY)
    key = TINY.all_ops()[2].key
    table.rows[key] = Row(key, None, None, "unsupported", {"reason": "no kernel"})
    with pytest.raises(MissingOpError, match="no kernel"):
        TableCost(TINY, table)


def test_unknown_energy_raises_and_is_never_zero():
    for table in (table_of(TINY, energy=False), table_of(TINY, overhead_j=None)):
        assert TableCost(TINY, table).base > 0  # its latency is there
        with pytest.raises(RequestError, match="no energy_j") as caught:
            TableCost(TINY, table, "energy_j")
        assert "power sensor" in str(caught.value)
    table = table_of(TINY)
    key = TINY.head.key
    table.rows[key] = Row(key, table.rows[key].latency_s, None)
    with pytest.raises(CosearchError, match="no energy_j"):
        TableCost(TINY, table, "energy_j")


def test_unknown_metric_is_refused():
    with pytest.raises(RequestError, match="latency_s, energy_j"):
        TableCost(TINY, table_of(TINY), "power_w")


def test_the_sums_of_branches_cost_the_same_in_every_architecture():
    space, generator = graph_space(), torch.Generator().manual_seed(1)
    cost = TableCost(space, table_of(space))
    for _ in range(5):
        architecture = space.sample(generator)
        assert float(cost.expected(architecture.one_hot())) == pytest.approx(cost.exact(architecture), rel=1e-6)


def test_messages_say_what_was_expected_and_what_came():
    with pytest.raises(RequestError, match=r"^unknown metric 'power_w': expected one of latency_s, energy_j$"):
        TableCost(TINY, table_of(TINY), "power_w")
    with pytest.raises(ShapeError, match=r"^expected weights of lengths \[3, 3, 3\], got \[3, 2\]$"):
        TableCost(TINY, table_of(TINY)).expected([torch.ones(3), torch.ones(2)])
    with pytest.raises(RequestError) as caught:
        TableCost(TINY, table_of(TINY, energy=False), "energy_j")
    assert str(caught.value) == (
        "table 'toy' has no energy_j: its device could not measure energy. "
        "Search without an energy target, or measure on a board with a power sensor"
    )


def test_a_space_of_other_frames_or_dtype_is_missing_from_a_measured_table():
    with pytest.raises(MissingOpError):
        TableCost(chain_space(CONFIG, (16, 12, 3), 4), table_of(TINY))
    table = table_of(TINY)
    table.header["device"]["dtype"] = "int8"
    with pytest.raises(MissingOpError, match="int8"):
        TableCost(TINY, Table(TableFile(table.header, {}, None)))


def test_many_architectures_cost_at_once_what_they_cost_one_by_one():
    cost = TableCost(TINY, table_of(TINY))
    generator = torch.Generator().manual_seed(0)
    sizes = [len(p.candidates) for p in TINY.points]
    logits = [torch.randn(5, size, generator=generator, dtype=torch.float64, requires_grad=True) for size in sizes]
    many = cost.expected([torch.softmax(x, -1) for x in logits])
    one_by_one = [cost.expected([torch.softmax(x[i], -1) for x in logits]) for i in range(5)]
    assert many.shape == (5,) and torch.allclose(many, torch.stack(one_by_one), rtol=1e-14, atol=0)
    gradients = torch.autograd.grad(many.sum(), logits)
    alone = torch.autograd.grad(one_by_one[3], logits)
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)
    assert all(torch.allclose(g[3], a[3], rtol=1e-12, atol=0) for g, a in zip(gradients, alone, strict=True))
    with pytest.raises(ShapeError):
        cost.expected([torch.ones(5, 2) for _ in TINY.points])


def test_ten_thousand_architectures_with_gradients_take_less_than_a_second():
    found = measure("x86-server", 10_000)
    assert found["expected_with_gradients_s"] < 1 and found["largest_difference"] < 1e-12
