"""The one-hot cost is the exact cost: every registered space x every shipped table and accelerator design x every metric.

Whether a table knows a space is counted here from its rows; where it does not, it must say so and never guess. The exact cost is
held against a sum of its own: a table's prediction of the network's blocks, an accelerator's evaluation of its layers.
"""

import dataclasses
from functools import cache

import pytest

from accel_models import evaluate, from_blocks, load_design
from accel_models.design import Chunk, design_names
from cosearch.config.accel import AccelConfig
from cosearch.cost.accel_cost import AccelCost
from cosearch.cost.accelerator import Accelerator
from cosearch.cost.table_cost import METRICS, TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import derive
from cosearch.space.parts import Part, frame_shape_of
from cosearch.space.space import SPACES
from cosearch.testing.conformance import seeded
from latency_tables.devices import list_devices, load_table
from latency_tables.errors import MissingOpError, RequestError

load_builtins()
NAMES = [entry.name for entry in SPACES.entries()]
TASKS = {"frames": ((64, 64, 3), 15), "vectors": ((8,), 4)}  # those that the shipped work lists were made for
TASKS["parts"] = ((TASKS["frames"][0], TASKS["vectors"][0]), 15)  # both of them in one observation
TABLES = {f"{record.path.parent.name}/{record.path.stem}": record.path for record in list_devices()}
EXACT = {"rel": 1e-12, "abs": 0}  # rounding of a sum of some fifty terms; no absolute slack, costs are small numbers


def build(entry, values, shape, num_actions):
    """A space; for one that takes parts, ``shape`` is that of an image and that of a vector."""
    if entry.takes != "parts":
        return entry.build(values, shape, num_actions, "categorical")
    image, vector = shape
    parts = Part("camera", "image", image), Part("state", "vector", vector)
    return entry.build(values, frame_shape_of(parts), num_actions, "categorical", parts)


load_table = cache(load_table)


@cache
def default_space(name):
    entry = SPACES.get(name)
    return build(entry, {}, *(((10, 10, 4), 6) if name == "minatar-cnn" else TASKS[entry.takes]))


def small_space(name):
    """One that every shipped design has room for, in a moment."""
    values = {
        "chain": {"stem_channels": 4, "stem_kernel": 3, "stem_stride": 1, "stage_channels": [4, 6], "stage_repeats": [1, 1],
                  "stage_strides": [1, 2], "hidden": 8},
        "cell": {"depths": [4, 6], "normal_cells": 1, "nodes": 2, "operations": "darts", "scaffold": "standard", "hidden": 8},
        "mlp": {"stem_width": 8, "stage_widths": [8, 6], "stage_repeats": [1, 1]},
        "macro": {"stems": ["k3s1", "k3s2"], "stem_widths": [4, 6], "stage_strides": [2], "stage_widths": [[4, 6]],
                  "hidden": [0, 8]},
    }  # fmt: skip
    values["joined"] = {
        "image": {key: value for key, value in values["chain"].items() if key != "hidden"},
        "vector": values["mlp"],
        "hidden": 8,
    }
    entry = SPACES.get(name)
    frames = ((36, 36, 3) if name == "nature-cnn" else (12, 12, 3)), 4
    tasks = {"frames": frames, "vectors": ((5,), 3), "parts": (((12, 12, 3), (5,)), 4)}
    return build(entry, values.get(name, {}), *tasks[entry.takes])


def own_key(table, op):
    """The row of a trained (float32) block: in the table's dtype."""
    return dataclasses.replace(op, dtype=table.device.dtype).key


def knows(table, space, metric):
    """Whether the table has what the metric needs: a row with it for every block, or the model of an estimate."""
    estimates = table.header.get("model") is not None and table.device.dtype == "float32"
    if metric == "energy_j" and table.overhead_j is None:
        return False
    return estimates or all(
        (row := table.rows.get(own_key(table, op))) is not None and getattr(row, metric) is not None for op in space.all_ops()
    )


def check(cost, architecture, wanted):
    exact = cost.exact(architecture)
    assert exact == pytest.approx(wanted, **EXACT) and exact > 0
    assert float(cost.expected(architecture.one_hot())) == pytest.approx(exact, **EXACT)
    chosen = sum(row[c] for row, c in zip(cost.candidate_costs(), architecture.choices, strict=True))
    chosen += sum(factor.at(architecture.choices) for factor in cost.joint_costs())
    assert cost.base + chosen == pytest.approx(exact, **EXACT)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("path", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("name", NAMES)
def test_with_every_table(name, path, metric):
    space, table = default_space(name), load_table(path)
    if not knows(table, space, metric):
        with pytest.raises((MissingOpError, RequestError), match=r"latency_tables measure|no energy_j"):
            TableCost(space, table, metric)
        return
    cost = TableCost(space, table, metric)
    seen = set()
    for n in range(40):
        architecture = space.sample(seeded(n))
        check(cost, architecture, getattr(table.predict(architecture.ops()), metric))
        if table.header.get("model") is None and metric == "latency_s":
            rows = sum(table.rows[own_key(table, op)].latency_s for op in architecture.ops())
            assert cost.exact(architecture) == pytest.approx(table.overhead_s + table.scale * rows, **EXACT)
        seen.add(cost.exact(architecture))
    least = 1 if name == "minatar-cnn" else 4  # two layers, whose launches bound them on a fast board whatever their width
    assert len(seen) > least, "architectures must differ in their cost for this to mean anything"


def test_every_space_has_tables_for_every_metric_and_every_table_a_space():
    known = {
        (name, key, metric)
        for name in NAMES
        for key, path in TABLES.items()
        for metric in METRICS
        if knows(load_table(path), default_space(name), metric)
    }
    assert {(name, metric) for name, _, metric in known} == {(name, metric) for name in NAMES for metric in METRICS}
    assert {key for _, key, _ in known} == set(TABLES)
    assert len(TABLES) >= 11 and len(NAMES) >= 3
    estimated = {key for key, path in TABLES.items() if load_table(path).header.get("model") is not None}
    assert {key for name, key, _ in known if name == "joined"} == estimated, "no measured table has a row of the join so far"


@pytest.mark.parametrize("name", NAMES)
def test_the_derived_networks_operations_are_those_that_are_costed(name):
    space = default_space(name)
    architecture = space.sample(seeded(3))
    assert list(derive(architecture, seeded(0)).ops) == architecture.ops()


def designs():
    base = load_design("edge-npu")
    first, second = Chunk(16, 16, "ws", 4096, 4096, 4096), Chunk(20, 10, "os", 8192, 16384, 4096)
    shipped = {name: load_design(name) for name in design_names()}
    return {**shipped, "pipeline": dataclasses.replace(base, name="pipeline", chunks=(first, second))}


@pytest.mark.parametrize("objective", ["latency", pytest.param("interval", marks=pytest.mark.slow)])
@pytest.mark.parametrize("design", designs().values(), ids=designs())
@pytest.mark.parametrize("name", NAMES)
def test_with_every_accelerator(name, design, objective):
    space = small_space(name)
    accelerator = Accelerator(space, design, AccelConfig(fixed=True, objective=objective), lambda number: number)
    accelerator.begin({})
    costs = [AccelCost(accelerator, metric) for metric in metrics_of(accelerator)]
    chunks = set()
    for n in range(5):
        architecture = space.sample(seeded(n))
        accelerator.optimise(architecture, 560)
        ops, chunk_of = architecture.ops(), accelerator.chunks_of(architecture.ops())
        groups = from_blocks(ops)
        flat = [chunk for chunk, group in zip(chunk_of, groups, strict=True) for _ in group]
        result = evaluate([layer for group in groups for layer in group], design, objective, flat)
        for cost in costs:
            check(cost, architecture, getattr(result, cost.metric))
        chunks |= set(chunk_of)
    assert chunks == ({0, 1} if len(design.chunks) > 1 and objective == "interval" else chunks)


def metrics_of(accelerator):
    """The metrics that its platform has constants for; the energy of another platform is refused."""
    (layers,) = from_blocks([accelerator.space.stem])
    if evaluate(layers, accelerator.base).energy_j is not None:
        return METRICS
    with pytest.raises(RequestError, match="no constants with a source"):
        AccelCost(accelerator, "energy_j")
    return METRICS[:1]


def test_accelerators_have_every_metric_between_them():
    space = small_space("mlp")
    found = {
        name: metrics_of(Accelerator(space, design, AccelConfig(fixed=True), lambda number: number))
        for name, design in designs().items()
    }
    assert set(found.values()) == {METRICS, METRICS[:1]} and len(found) >= 6
