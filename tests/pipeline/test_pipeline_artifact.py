"""Runs for a table of another runtime, dtype or thread count than ONNX Runtime in float32 on one thread."""

import pytest

from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.strategies.base import STRATEGIES
from cosearch.testing.conformance import seeded
from latency_tables.devices import find_table
from latency_tables.errors import MissingOpError

load_builtins()
TVM, INT8 = "x86-server/tvm-float32-1t", "x86-server/onnxruntime-int8-1t"


def plan_for(device, *words):
    return make_plan(resolve_task(preset="smoke", overrides=[f"device={device}", "env.name=procgen:coinrun", *words]))


@pytest.mark.parametrize("device, dtype, words", [(INT8, "int8", ()), (TVM, "float32", ("objective.latency_target_s=0.002",))])
def test_a_run_on_such_a_table_costs_its_architectures_by_its_rows(device, dtype, words):
    """The search's cost, the derived list and the table's own rows agree, and the target holds in that table."""
    plan, table = plan_for(device, *words), find_table(device)
    assert plan.hardware.device.table_name == device and plan.record("").device.dtype == dtype
    cost = plan.constraints[0].cost
    for number in range(5):
        architecture = plan.space.sample(seeded(number))
        rows = [table.rows[op.key.replace("float32", dtype)].latency_s for op in architecture.ops()]
        wanted = table.overhead_s + table.scale * sum(rows)
        assert cost.exact(architecture) == pytest.approx(wanted, rel=1e-12)
        assert float(cost.expected(architecture.one_hot())) == pytest.approx(wanted, rel=1e-12)
        assert plan.hardware.predict(architecture.ops()).latency_s == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", [info.name for info in STRATEGIES.entries()])
def test_every_strategy_plans_on_an_int8_table(name):
    plan = plan_for(INT8, f"strategy.name={name}", *(["distill.teacher=none"] if name == "radars" else []))
    assert plan.strategy.name == name and plan.counts.feasible > 0


def test_a_target_that_is_a_share_of_an_agent_without_rows_names_both_ways_out():
    with pytest.raises(MissingOpError, match=r"share of impala-cnn.*--runtime tvm --op stem-3x64x64.*--latency-target-ms"):
        plan_for(TVM)
    assert list(plan_for(TVM, "objective.latency_target_s=0.002").references) == []
