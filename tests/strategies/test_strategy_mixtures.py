"""RL-DARTS, DARTS and SNAS: their mixtures, both orders of DARTS against closed forms, SNAS's temperature and credit."""

import pytest
import torch
from graph_space import graph_space
from small_space import small_space
from torch import nn

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.space.derivation.derive import discretise
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.base import STRATEGIES, BilevelStrategy
from cosearch.strategies.gradient.darts import DartsOptions, DartsStrategy
from cosearch.strategies.gradient.rl_darts import RlDartsOptions, RlDartsStrategy
from cosearch.strategies.gradient.snas import SnasOptions, SnasStrategy
from cosearch.testing.conformance import example_input, seeded
from latency_tables.errors import ConfigError, UnknownNameError

SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
CELL = graph_space()


def set_logits(strategy, rows):
    with torch.no_grad():
        for logits, row in zip(strategy.arch.alpha, rows):
            logits.copy_(torch.tensor(row))


def test_rl_darts_acts_and_learns_with_the_softmax_of_all_candidates_and_starts_uniform():
    strategy = RlDartsStrategy(SPACE, RlDartsOptions(), seeded(0))
    path = strategy.sample()
    assert path.soft and path.active == ((0, 1, 2), (0, 1, 2)) and not path.weights[0].requires_grad
    assert all(torch.allclose(w, torch.full((3,), 1 / 3)) for w in path.weights)
    set_logits(strategy, [[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])
    weights = strategy.weighted(path).weights
    assert torch.equal(weights[0], torch.softmax(torch.tensor([1.0, 2.0, 3.0]), 0)) and weights[0].requires_grad
    supernet, frames = SuperNet(SPACE, seeded(1)), example_input(SPACE.stem, 2)
    supernet(frames, strategy.weighted(path))[0].square().sum().backward()
    assert all(float(logits.grad.abs().min()) > 0 for logits in strategy.arch.alpha)


def test_rl_darts_keeps_the_edges_with_the_largest_probability_of_an_operation_as_the_paper_does():
    strategy = RlDartsStrategy(CELL, RlDartsOptions(), seeded(0))
    chances = [[0.2, 0.5, 0.3], [0.5, 0.4, 0.05, 0.05], [0.1, 0.3, 0.28, 0.32], [0.05, 0.05, 0.05, 0.85]]
    set_logits(strategy, [torch.tensor(row).log().tolist() for row in chances])
    # by hand: b0 is worth 0.4 although its zero is likelier, b1 0.32, b2 0.85: b1 goes
    assert discretise(CELL, strategy.scores()).choices == (1, 1, 0, 3)
    assert [row[zero] for row, zero in zip(strategy.scores()[1:], CELL.zeros[1:])] == [0.0] * 3


class Quadratics:
    """L_train = |A w - B a|^2 / 2 and L_val = |w - c|^2 / 2 + d a, over weights w and logits a: everything in closed form."""

    def __init__(self, strategy):
        self.strategy, self.weights = strategy, [nn.Parameter(torch.tensor([0.3, -0.7])), nn.Parameter(torch.tensor([1.1]))]
        self.alpha = torch.cat([row.detach() for row in strategy.arch.alpha])
        self.a, self.b = torch.randn(4, 3, generator=seeded(1)), torch.randn(4, len(self.alpha), generator=seeded(2))
        self.c, self.d = torch.tensor([0.5, 0.2, -0.4]), torch.randn(len(self.alpha), generator=seeded(3))
        self.calls = []

    def train(self):
        self.calls.append("train")
        loss = 0.5 * (self.a @ torch.cat(self.weights) - self.b @ torch.cat(self.strategy.arch.alpha)).square().sum()
        loss.backward()
        return float(loss.detach())

    def held_out(self):
        self.calls.append("held out")
        loss = 0.5 * (torch.cat(self.weights) - self.c).square().sum() + self.d @ torch.cat(self.strategy.arch.alpha)
        loss.backward()
        return float(loss.detach())

    def gradient(self, xi):
        """d/d alpha of L_val(w - xi grad_w L_train(w, alpha), alpha), by hand."""
        w = torch.cat(self.weights).detach()
        moved = w - xi * self.a.T @ (self.a @ w - self.b @ self.alpha)
        return self.d + xi * self.b.T @ self.a @ (moved - self.c)


@pytest.mark.parametrize("order, xi", [(1, 0.3), (2, 0.3), (2, 0.01)])
def test_both_orders_of_darts_equal_the_closed_form_and_leave_the_weights_alone(order, xi):
    strategy = DartsStrategy(SPACE, DartsOptions(order=order, weight_decay=0.0), seeded(0))
    set_logits(strategy, [[0.1, -0.2, 0.4], [0.7, 0.0, -0.3]])
    problem = Quadratics(strategy)
    before = [w.detach().clone() for w in problem.weights]
    strategy.step_architecture(problem.train, problem.held_out, problem.weights, lambda g: [-xi * row for row in g])
    wanted = problem.gradient(xi if order == 2 else 0.0)
    torch.testing.assert_close(torch.cat([row.grad for row in strategy.arch.alpha]), wanted, rtol=2e-3, atol=2e-3)
    assert not torch.allclose(problem.gradient(xi), problem.gradient(0.0), rtol=5e-3, atol=5e-3)  # the orders differ here
    assert all(torch.equal(a, b) for a, b in zip(problem.weights, before))
    assert problem.calls == (["held out"] if order == 1 else ["train", "held out", "train", "train"])


def test_an_error_in_the_middle_of_the_second_order_leaves_the_weights_alone():
    strategy = DartsStrategy(SPACE, DartsOptions(order=2), seeded(0))
    problem = Quadratics(strategy)
    before = [w.detach().clone() for w in problem.weights]

    def fails():
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        strategy.step_architecture(problem.train, fails, problem.weights, lambda g: [-0.3 * row for row in g])
    assert all(torch.equal(a, b) for a, b in zip(problem.weights, before))


def test_weight_decay_of_the_logits_pulls_them_back():
    found = []
    for decay in (0.0, 0.5):
        strategy = DartsStrategy(SPACE, DartsOptions(weight_decay=decay), seeded(0))
        set_logits(strategy, [[2.0, -2.0, 0.0]] * 2)

        def flat(strategy=strategy):
            loss = 0.0 * torch.cat(strategy.arch.alpha).sum()
            loss.backward()
            return 0.0

        strategy.step_architecture(flat, flat, [], list)
        found.append(float(strategy.arch.alpha[0].detach().abs().sum()))
    assert found[1] < found[0] == 4.0


def test_only_darts_is_bilevel():
    load_builtins()
    made = {
        name: STRATEGIES.get(name).make(SPACE, STRATEGIES.get(name).options(StrategyConfig(name=name)), seeded(0))
        for name in ("rl-darts", "darts", "snas", "a3cs", "reinforce")
    }
    assert {name for name, strategy in made.items() if isinstance(strategy, BilevelStrategy)} == {"darts"}


def test_snas_draws_concrete_samples_whose_temperature_falls_linearly():
    strategy = SnasStrategy(SPACE, SnasOptions(hottest=2.0, coldest=0.1), seeded(0))
    assert strategy.arch.temperature == 2.0
    strategy.arch.anneal(0.5)
    assert strategy.arch.temperature == pytest.approx(1.05)
    path = strategy.sample()
    drawn = strategy.weighted(path)
    assert path.soft and drawn.soft and all(torch.equal(a, b.detach()) for a, b in zip(path.weights, drawn.weights))
    for weights, noise, active in zip(drawn.weights, path.noise, drawn.active):
        wanted = torch.softmax((torch.log_softmax(torch.zeros(3), 0) + noise) / 1.05, 0)
        torch.testing.assert_close(weights.detach(), wanted[list(active)])
    largest = []
    for progress in (0.0, 1.0):
        strategy.arch.anneal(progress)
        largest.append(float(torch.stack([strategy.sample().weights[0].max() for _ in range(200)]).mean()))
    assert largest[0] < 0.7 and largest[1] > 0.95  # cold samples are nearly one operation


def test_the_gap_between_a_cold_mixture_and_its_hard_path_is_small_and_a_hot_ones_is_not():
    supernet, frames, gaps = SuperNet(SPACE, seeded(1)), example_input(SPACE.stem, 4), []
    for temperature in (1.0, 0.03):
        strategy = SnasStrategy(SPACE, SnasOptions(hottest=temperature, coldest=temperature), seeded(5))
        total = 0.0
        with torch.no_grad():
            for _ in range(30):
                path = strategy.sample()
                hard = Path(tuple((active[0],) for active in path.active))  # candidates are ranked: the first is the likeliest
                total += float((supernet(frames, path)[1] - supernet(frames, hard)[1]).abs().mean())
        gaps.append(total)
    assert gaps[1] < 0.25 * gaps[0]


def test_own_options_are_checked():
    assert STRATEGIES.get("darts").options(StrategyConfig(values={"order": 2})).order == 2
    with pytest.raises(ConfigError, match="order"):
        STRATEGIES.get("darts").options(StrategyConfig(values={"order": 3}))
    with pytest.raises(ConfigError, match=r"strategy\.values\.coldest: .*greater than 0, got 0\.0"):
        STRATEGIES.get("snas").options(StrategyConfig(values={"coldest": 0.0}))
    with pytest.raises(UnknownNameError, match="order"):
        STRATEGIES.get("darts").options(StrategyConfig(values={"odrer": 2}))
