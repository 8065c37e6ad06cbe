"""Spaces with branches, shared choices, zeros and groups, against brute force over every legal architecture."""

import itertools
import math

import numpy as np
import pytest
import torch
from graph_space import NAMES, graph_space

from cosearch.cost.table_cost import TableCost
from cosearch.space.cells.graph import Group, Node, place_blocks
from cosearch.space.derivation.derive import Limit, discretise
from cosearch.space.groups import draw, log_probability, marginals
from cosearch.space.network import AgentNetwork
from cosearch.space.space import ChoicePoint, SearchSpace
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.base import mean_entropy
from cosearch.testing.conformance import check_derived, example_input, seeded
from latency_tables.devices import find_table
from latency_tables.errors import InfeasibleTargetError, ShapeError
from latency_tables.opspec import OpSpec

SPACE = graph_space()
FRAMES = example_input(SPACE.stem, 3)


def legal(space):
    """All legal choices, by trying everything."""
    found = []
    for choices in itertools.product(*(range(len(point.candidates)) for point in space.points)):
        kept = [sum(choices[p] != space.points[p].zero for p in group.points) for group in space.groups]
        if kept == [group.keep for group in space.groups]:
            found.append(choices)
    return found


EVERY = legal(SPACE)


def random_rows(seed, scale=2.0):
    return [scale * torch.randn(len(point.candidates), generator=seeded(seed + i)) for i, point in enumerate(SPACE.points)]


def weight_of(choices, rows):
    return math.exp(sum(float(row[c]) for row, c in zip(rows, choices)))


def test_size_and_validation_are_those_of_the_enumeration():
    assert SPACE.size == len(EVERY) == 3 * 3 * 9
    assert graph_space(keep=1).size == len(legal(graph_space(keep=1))) == 3 * 3 * 3
    for choices in itertools.product(*(range(len(point.candidates)) for point in SPACE.points)):
        if choices in EVERY:
            assert SPACE.architecture(choices).choices == choices
        else:
            with pytest.raises(ShapeError, match="exactly 2 of"):
                SPACE.architecture(choices)


@pytest.mark.parametrize("space", [SPACE, graph_space(1), graph_space(keep=1)], ids=["two cells", "one cell", "keeps one"])
def test_derived_networks_are_the_hard_paths_for_every_architecture(space):
    supernet, known = SuperNet(space, seeded(0)), set(space.all_ops())
    for choices in legal(space):
        architecture = space.architecture(choices)
        assert set(architecture.ops()) <= known
        check_derived(supernet, architecture, FRAMES)


def test_the_network_computes_the_graph():
    supernet = SuperNet(SPACE, seeded(1))
    names = {node.name: blocks for node, blocks in zip(SPACE.body, supernet.body)}
    with torch.no_grad():  # a = conv3, b keeps input-conv5 and A-skip
        x = supernet.stem(FRAMES)
        for copy in range(2):
            a = names[f"{copy}.a"][1](x)
            x = a + (names[f"{copy}.b0"][3](x) + a)
        out = supernet.head(x)
        logits, value = supernet(FRAMES, Path(((1,), (3,), (1,), (0,))))
    assert torch.equal(logits, out[:, :-1]) and torch.equal(value, out[:, -1])


def test_expected_cost_is_the_mean_over_all_architectures_and_exact_at_one_hot():
    table = find_table("jetson")
    cost, rows = TableCost(SPACE, table), random_rows(0)
    exact = [cost.exact(SPACE.architecture(choices)) for choices in EVERY]
    for choices, value in zip(EVERY, exact):
        architecture = SPACE.architecture(choices)
        assert float(cost.expected(architecture.one_hot())) == pytest.approx(value, rel=1e-12)
        assert value == pytest.approx(table.predict(architecture.ops()).latency_s, rel=1e-12)
    weights = np.array([weight_of(choices, rows) for choices in EVERY])
    wanted = float(weights @ np.array(exact) / weights.sum())
    found = cost.expected([p.double() for p in marginals(rows, SPACE.groups, SPACE.zeros)])
    assert float(found) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("keep", [2, 3])
def test_marginals_are_never_below_zero_and_their_entropy_is_a_number(keep):
    """A zero's share is that of the sets without its point, which has no rounding below 0."""
    generator, groups = seeded(0), (Group((0, 1, 2), keep),)
    for _ in range(2000):
        scale = float(12.0 * torch.rand((), generator=generator))
        rows = [scale * torch.randn(5, generator=generator) for _ in range(3)]
        found = marginals(rows, groups, (4, 4, 4))
        assert min(float(row.min()) for row in found) >= 0.0 and math.isfinite(mean_entropy(found))
        assert all(float(row.sum()) == pytest.approx(1.0, abs=1e-6) for row in found)


def test_marginals_and_log_probabilities_are_those_of_the_enumeration():
    rows = random_rows(5)
    weights = {choices: weight_of(choices, rows) for choices in EVERY}
    total, found = sum(weights.values()), marginals(rows, SPACE.groups, SPACE.zeros)
    for p, row in enumerate(found):
        for c, value in enumerate(row):
            wanted = sum(w for choices, w in weights.items() if choices[p] == c) / total
            assert float(value) == pytest.approx(wanted, abs=1e-6)
    for choices, weight in weights.items():
        found = float(log_probability(choices, rows, SPACE.groups, SPACE.zeros))
        assert found == pytest.approx(math.log(weight / total), abs=1e-5)


def test_samples_follow_the_distribution():
    rows, generator, n = random_rows(7, 1.0), seeded(0), 6000
    counts = dict.fromkeys(EVERY, 0)
    for _ in range(n):
        counts[tuple(draw(rows, SPACE.groups, SPACE.zeros, generator))] += 1
    weights = {choices: weight_of(choices, rows) for choices in EVERY}
    total = sum(weights.values())
    statistic = sum((counts[c] - n * w / total) ** 2 / (n * w / total) for c, w in weights.items())
    assert statistic < 80 + 5 * math.sqrt(2 * 80)  # chi-square, 80 degrees of freedom
    assert all(SPACE.sample(seeded(n)).choices in counts for n in range(50))


def test_neighbours_are_legal_mutual_and_reach_everything():
    graph = {choices: {a.choices for a in SPACE.architecture(choices).neighbours()} for choices in EVERY}
    assert all(found <= set(EVERY) and own not in found for own, found in graph.items())
    assert all(own in graph[other] for own, found in graph.items() for other in found)
    reached, todo = {EVERY[0]}, [EVERY[0]]
    while todo:
        todo += (fresh := graph[todo.pop()] - reached)
        reached |= fresh
    assert reached == set(EVERY)


def test_units_may_be_exchanged_between_architectures():
    assert SPACE.units == ((0,), (1, 2, 3))
    for one, other in itertools.product(EVERY[::7], EVERY[::11]):
        for unit in SPACE.units:
            mixed = tuple(other[p] if p in unit else one[p] for p in range(4))
            assert mixed in EVERY and SPACE.architecture(mixed).choices == mixed


@pytest.mark.parametrize("seed", range(12))
def test_discretisation_with_groups_equals_brute_force(seed):
    stream = np.random.default_rng(seed)
    scores, costs = ([list(stream.normal(size=len(p.candidates))) for p in SPACE.points] for _ in range(2))
    for row, point in zip(costs, SPACE.points):
        row[:] = [abs(c) for c in row]
        if point.zero is not None:
            row[point.zero] = 0.0
    value = {c: sum(row[i] for row, i in zip(scores, c)) for c in EVERY}
    assert discretise(SPACE, scores).choices == max(value, key=value.get)
    totals = {c: 0.3 + sum(row[i] for row, i in zip(costs, c)) for c in EVERY}
    for share in (0.0, 0.1, 0.5, 1.0):
        target = float(np.quantile(list(totals.values()), share))
        found = discretise(SPACE, scores, Limit(costs, 0.3, target))
        assert totals[found.choices] <= target * (1 + 1e-12)
        assert value[found.choices] == pytest.approx(max(v for c, v in value.items() if totals[c] <= target), abs=1e-6)
    with pytest.raises(InfeasibleTargetError, match=f"{min(totals.values()):.6g}"):
        discretise(SPACE, scores, Limit(costs, 0.3, min(totals.values()) * 0.99))


def test_the_soft_form_is_the_mixture_with_and_without_gradients():
    space = graph_space(1)
    supernet = SuperNet(space, seeded(3)).double()
    weights = tuple(torch.softmax(row.double(), 0).requires_grad_() for row in random_rows(11))
    path = Path(tuple(tuple(range(len(p.candidates))) for p in space.points), weights, soft=True)
    logits, _ = supernet(FRAMES, path)
    blocks = {node.name: node_blocks for node, node_blocks in zip(space.body, supernet.body)}

    def mixed(name, row, x):
        parts = [x, x, *(block(x) for block in blocks[name][-2:])][-len(row) :]
        parts = [torch.zeros_like(x), *parts[1:]] if len(row) == 4 else parts
        return sum(w * part for w, part in zip(row, parts))

    x = supernet.stem(FRAMES)
    a = mixed("0.a", weights[0], x)
    b = mixed("0.b0", weights[1], x) + mixed("0.b1", weights[2], a) + mixed("0.b2", weights[3], a)
    wanted = supernet.head(a + b)[:, :-1]
    torch.testing.assert_close(logits, wanted, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(supernet(FRAMES, path)[0], logits)
    logits.square().sum().backward()
    assert all(w.grad is not None and float(w.grad[0 if i == 0 else 1 :].abs().min()) > 0 for i, w in enumerate(weights))
    assert all(float(w.grad[0]) == 0 for w in weights[1:])  # a zero's output is nothing, whatever its weight


def test_graphs_that_do_not_hold_together_are_refused():
    ends = (OpSpec("stem", 3, 6, 5, 4, 3, 1, 1), OpSpec("head", 4, 6, 5, 3, hidden=8))

    def make(points, body, groups=()):
        return SearchSpace("bad", {}, (6, 5, 3), 2, ends[0], points, ends[1], tuple(body), groups)

    point, free = ChoicePoint("p", ("none", "skip"), zero=0), ChoicePoint("q", ("skip",))
    with pytest.raises(ShapeError, match="earlier"):
        make((free,), [Node("a", (1,), (None,), (0,))])
    with pytest.raises(ShapeError, match="decide no node"):
        make((free,), [Node("a", (0,), (None,))])
    with pytest.raises(ShapeError, match="one block for each candidate"):
        make((point,), [Node("a", (0,), (None,), (0,))])
    with pytest.raises(ShapeError, match="zero and another"):
        make((free,), [Node("a", (0,), (None,), (0,))], (Group((0,), 1),))
    with pytest.raises(ShapeError, match="from 1 to all"):
        make((point,), [Node("a", (0,), (None, None), (0,))], (Group((0,), 2),))
    with pytest.raises(ShapeError, match="must be one of its"):
        ChoicePoint("p", ("none", "skip"), zero=2)
    dead = make((point,), [Node("a", (0,), (None, None), (0,))])
    with pytest.raises(ShapeError, match="no way"):
        dead.architecture([0]).ops()
    with pytest.raises(ShapeError, match="no way"):
        SuperNet(dead, seeded(0))(FRAMES, Path(((0,),)))
    with pytest.raises(ShapeError, match="reads 2 blocks"):
        place_blocks(SPACE.nodes, (0, 0, 1, 0), SPACE.zeros)
    ops, wiring = SPACE.architecture(EVERY[0]).ops(), SPACE.architecture(EVERY[0]).wiring()
    with pytest.raises(ShapeError, match="earlier blocks"):
        AgentNetwork(ops, seeded(0), [(), *([len(ops)] for _ in ops[1:])])
    with pytest.raises(ShapeError, match="read by none"):
        AgentNetwork([ops[0], OpSpec("conv", 4, 6, 5, 4), ops[-1]], seeded(0), [(), (0,), (0,)])
    assert wiring[0] == () and NAMES[SPACE.points[1].zero] == "none"
