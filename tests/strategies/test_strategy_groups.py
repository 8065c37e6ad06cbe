"""Hard-path strategies and the exact multiplier on a space with groups, and the accelerator's cost of a graph."""

import itertools
import math

import pytest
import torch
from graph_space import graph_space
from scipy.stats import kstest

from accel_models import load_design
from cosearch.config.accel import AccelConfig
from cosearch.cost.accel_cost import AccelCost
from cosearch.cost.accelerator import Accelerator
from cosearch.cost.table_cost import TableCost
from cosearch.space.groups import best, draw, marginals
from cosearch.strategies.budgeted import expected_cost, multiplier
from cosearch.strategies.gradient.one_level import OneLevelOptions, OneLevelStrategy
from cosearch.strategies.gradient.score_function import ENTROPY, ScoreFunctionOptions, ScoreFunctionStrategy
from cosearch.strategies.gradient.snas import SnasOptions, SnasStrategy
from cosearch.testing.conformance import seeded
from latency_tables.devices import find_table
from latency_tables.errors import InfeasibleTargetError

SPACE = graph_space()
EVERY = [choices for choices in itertools.product(range(3), *[range(4)] * 3) if sum(c != 0 for c in choices[1:]) == 2]
UTILITIES = [row.tolist() for row in (torch.randn(len(p.candidates), generator=seeded(i)) for i, p in enumerate(SPACE.points))]
COST = TableCost(SPACE, find_table("jetson"))


def mean_cost(beta):
    """Expected cost by enumeration of the legal architectures with weights exp(u - beta c)."""
    rows = COST.candidate_costs()
    costs = [COST.base + sum(row[c] for row, c in zip(rows, choices)) for choices in EVERY]
    logs = [sum(u[c] - beta * r[c] for u, r, c in zip(UTILITIES, rows, choices)) for choices in EVERY]
    weights = [math.exp(value - max(logs)) for value in logs]
    return sum(w * c for w, c in zip(weights, costs)) / sum(weights)


def test_the_multiplier_holds_the_mean_over_legal_architectures_at_the_target():
    rows = COST.candidate_costs()
    arguments = (UTILITIES, rows, COST.base)
    for beta in (0.0, 1e4, 1e6):
        assert expected_cost(*arguments, beta, SPACE.groups, SPACE.zeros) == pytest.approx(mean_cost(beta), rel=1e-9)
    cheapest = COST.exact(SPACE.best([[-c for c in row] for row in rows]))
    for share in (0.2, 0.6, 0.9):
        target = cheapest + share * (mean_cost(0.0) - cheapest)
        beta = multiplier(*arguments, target, SPACE.groups, SPACE.zeros)
        assert beta > 0 and mean_cost(beta) == pytest.approx(target, rel=1e-6)
    assert multiplier(*arguments, mean_cost(0.0) * 1.01, SPACE.groups, SPACE.zeros) == 0.0
    with pytest.raises(InfeasibleTargetError):
        multiplier(*arguments, cheapest * 0.999, SPACE.groups, SPACE.zeros)


@pytest.mark.parametrize(
    "strategy, wanted",
    [(OneLevelStrategy(SPACE, OneLevelOptions(active_paths=k), seeded(0)), k) for k in (1, 2, 0)]
    + [(ScoreFunctionStrategy(SPACE, ScoreFunctionOptions(), seeded(0)), 1)],
)
def test_sampled_paths_are_legal_architectures_whatever_k_is(strategy, wanted):
    for _ in range(60):
        path = strategy.sample()
        assert path.choices in EVERY
        assert [len(a) for a in path.active] == [min(wanted or 4, len(p.candidates)) for p in SPACE.points]
        assert all(len(set(a)) == len(a) for a in path.active)
    totals = [float(p.detach().sum()) for p in strategy.arch.probabilities()]
    kept = sum(1.0 - float(p.detach()[0]) for p in strategy.arch.probabilities()[1:])
    assert totals == pytest.approx([1.0] * 4, abs=1e-6) and kept == pytest.approx(2.0, abs=1e-5)


def test_the_score_function_is_unbiased_on_groups():
    """The mean over all paths of p(a) L(a) dlog p(a)/dalpha is the gradient of the enumerated expectation of L."""
    rows = [torch.tensor(row, requires_grad=True) for row in UTILITIES]
    losses = {choices: float(sum((i + 1) * c * c for i, c in enumerate(choices))) for choices in EVERY}
    logs = torch.stack([torch.stack([row[c] for row, c in zip(rows, choices)]).sum() for choices in EVERY])
    chance = torch.softmax(logs, 0)
    divergence = (chance * chance.log()).sum()  # from the uniform distribution, but for a constant
    expectation = (chance * torch.tensor([losses[c] for c in EVERY])).sum() + ENTROPY * divergence
    wanted = torch.autograd.grad(expectation, rows)
    strategy = ScoreFunctionStrategy(SPACE, ScoreFunctionOptions(lr=0.0), seeded(0))
    strategy.advantage = lambda loss: loss
    total = [torch.zeros_like(row) for row in rows]
    chances = torch.softmax(logs, 0).tolist()
    for choices, chance in zip(EVERY, chances):
        with torch.no_grad():
            for logits, row in zip(strategy.arch.alpha, rows):
                logits.copy_(row)
        strategy.arch.zero_grad()
        path = type("Drawn", (), {"choices": choices})()
        strategy.step(path, losses[choices])
        total = [t + chance * logits.grad for t, logits in zip(total, strategy.arch.alpha)]
    for found, value in zip(total, wanted):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)


def test_best_and_draw_agree_where_the_distribution_is_sharp():
    rows = [100.0 * torch.tensor(row) for row in UTILITIES]
    assert tuple(draw(rows, SPACE.groups, SPACE.zeros, seeded(0))) == tuple(best(UTILITIES, SPACE.groups, SPACE.zeros))


def test_an_accelerators_cost_of_a_graph_is_that_of_its_network():
    options = AccelConfig(every_steps=100, evaluations=560, final_evaluations=560)
    accelerator = Accelerator(SPACE, load_design("zc706"), options, lambda number: 1000 + number)
    accelerator.begin({})
    cost = AccelCost(accelerator)
    for choices in EVERY[::5]:
        architecture = SPACE.architecture(choices)
        exact = cost.exact(architecture)
        assert float(cost.expected(architecture.one_hot())) == pytest.approx(exact, rel=1e-12)
        accelerator.made_for = None
        blocks = accelerator.predict(architecture.ops()).latency_s
        assert exact == pytest.approx(blocks, rel=1e-12)  # one chunk: blocks one after another, sums included
    rows = [torch.tensor(row, dtype=torch.float64) for row in UTILITIES]
    costs, found = cost.candidate_costs(), marginals(rows, SPACE.groups, SPACE.zeros)
    assert float(cost.expected(found)) == pytest.approx(
        cost.base + sum(float(p @ torch.tensor(row, dtype=torch.float64)) for p, row in zip(found, costs)), rel=1e-12
    )


def enumerated(logits):
    """Marginals by enumeration of the legal architectures, for each point ``[candidates]``, differentiable."""
    logs = torch.stack([torch.stack([row[c] for row, c in zip(logits, choices)]).sum() for choices in EVERY])
    chances = torch.softmax(logs, 0)
    return [
        torch.stack([chances[[n for n, choices in enumerate(EVERY) if choices[p] == c]].sum() for c in range(len(row))])
        for p, row in enumerate(logits)
    ]


def skewed(strategy):
    """The strategy with these logits, which perturbed and maximised under the constraint would give other frequencies."""
    with torch.no_grad():
        for mine, row in zip(strategy.arch.alpha, UTILITIES):
            mine.copy_(1.5 * torch.tensor(row))
    return strategy


SAMPLERS = {
    "a3cs": lambda: OneLevelStrategy(SPACE, OneLevelOptions(), seeded(3)),
    "snas": lambda: SnasStrategy(SPACE, SnasOptions(), seeded(3)),
    "reinforce": lambda: ScoreFunctionStrategy(SPACE, ScoreFunctionOptions(), seeded(3)),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in ("a3cs", "snas") else []) for n in SAMPLERS])
def test_paths_are_drawn_from_the_distribution_that_prices(name):
    strategy, draws = skewed(SAMPLERS[name]()), 3000
    counts = [torch.zeros(len(row)) for row in UTILITIES]
    for _ in range(draws):
        for row, c in zip(counts, strategy.sample().choices):
            row[c] += 1
    wanted = enumerated([1.5 * torch.tensor(row) for row in UTILITIES])
    for found, price, row in zip(counts, strategy.arch.probabilities(), wanted):
        torch.testing.assert_close(price.detach(), row, rtol=1e-4, atol=1e-6)
        assert float(((found - draws * row) ** 2 / (draws * row)).sum()) < 21.1  # chi-square, 3 degrees: p = 0.0001


def test_the_noise_of_each_point_is_gumbel_and_its_largest_candidate_the_drawn_one():
    strategy = skewed(SAMPLERS["a3cs"]())
    log_p = [row.log() for row in enumerated([1.5 * torch.tensor(row) for row in UTILITIES])]
    paths = [strategy.sample() for _ in range(1500)]
    for point, row in enumerate(log_p):
        noise = torch.stack([path.noise[point] for path in paths])
        for k in range(len(row)):  # the distribution function of a Gumbel variable, at every sample of each candidate
            assert kstest(noise[:, k].numpy(), "gumbel_r").pvalue > 1e-4
        assert (row + noise).argmax(1).tolist() == [path.choices[point] for path in paths]
        ranked = [(row + each).argsort(descending=True)[:2].tolist() for each in noise]
        assert ranked == [list(path.active[point]) for path in paths]


def test_weights_of_a_path_have_the_gradient_of_concrete_samples_of_the_marginals():
    strategy = skewed(SAMPLERS["a3cs"]())
    strategy.arch.temperature, path = 0.8, strategy.sample()
    worth = [torch.randn(len(row), generator=seeded(n)).double() for n, row in enumerate(UTILITIES)]

    def total(logits):
        rows = zip(enumerated(logits), path.noise, path.active, worth)
        return sum(
            (torch.softmax((p.log() + noise.double()) / 0.8, 0)[list(active)] * values[list(active)]).sum()
            for p, noise, active, values in rows
        )

    logits = [(1.5 * torch.tensor(row)).double().requires_grad_() for row in UTILITIES]
    wanted = torch.autograd.grad(total(logits), logits)
    weights = strategy.weighted(path).weights
    found = sum((w * values[list(active)]).sum() for w, active, values in zip(weights, path.active, worth))
    for mine, row in zip(torch.autograd.grad(found, strategy.arch.alpha), wanted):
        torch.testing.assert_close(mine.double(), row, rtol=1e-3, atol=1e-5)


def test_edges_that_are_all_kept_have_no_share_of_their_zero_and_finite_gradients():
    space = graph_space(keep=3)
    strategy = OneLevelStrategy(space, OneLevelOptions(active_paths=0), seeded(0))
    path = strategy.sample()
    assert all(c != 0 for c in path.choices[1:])
    sum(w.square().sum() for w in strategy.weighted(path).weights).backward()
    assert all(torch.isfinite(alpha.grad).all() for alpha in strategy.arch.alpha)
