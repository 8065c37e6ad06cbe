"""Every registered strategy finds a toy's best architecture and resumes exactly; the shipped registry is complete."""

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from graph_space import graph_space
from small_space import small_space

from cosearch.planning.builtins import load_builtins
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.strategies.base import STRATEGIES, UNUSED, Feasible, StrategyInfo
from cosearch.strategies.gradient.one_level import OneLevelStrategy
from cosearch.strategies.proposal.random_search import RandomSearch
from cosearch.strategies.relaxation import ArchitectureLogits
from cosearch.testing.any_order_conformance import check_any_order
from cosearch.testing.one_shot_conformance import check_one_shot_strategy
from cosearch.testing.strategy_conformance import (
    check_finds_best,
    check_follows_cost,
    check_gradient_strategy,
    check_proposal_strategy,
    default_options,
)

load_builtins()

ROOT = Path(__file__).resolve().parents[2]
SPACE = small_space("conv_k3", "mbconv_k3_e1", "skip")
TABLE = [[0.5, -1.0, 0.4], [-1.2, 0.6, 0.3]]  # best: 1 and 0


CONTROLLERS = ("catch", "deephyper", "fnas", "l2nas")  # train networks of their own: on further spaces in the slow suite
MIXTURES = ("darts-prime", "idarts", "ms-darts", "radars", "rl-darts", "unas")  # as ``darts`` and ``snas``, and as slow: the same


def of_kind(kind, slow=()):
    infos = [i for i in STRATEGIES.entries() if i.kind == kind]
    cases = [pytest.param(i, id=i.name, marks=[pytest.mark.slow] if i.name in slow else []) for i in infos]
    return pytest.mark.parametrize("info", cases)


@of_kind("gradient")
def test_every_gradient_strategy_conforms(info):
    check_gradient_strategy(info, SPACE, TABLE)


@of_kind("gradient", slow=MIXTURES)
def test_every_gradient_strategy_conforms_on_a_graph(info):
    space = graph_space()
    table = [[0.4, -1.0, 0.5], [0.5, 0.9, -0.8, 0.6], [-0.2, 0.8, 0.9, 0.7], [0.4, -1.2, 0.6, 0.5]]  # keeps b0 and b2
    check_gradient_strategy(info, space, table)


MACRO = macro_space(
    MacroConfig((1,), ("k3s1", "k3s2"), (4, 6), (2,), ((4, 8),), ("none", "conv_k3", "residual_k3"), ("pooled", "flat"), (0, 8)),
    (12, 12, 3),
    4,
)
MACRO_TABLE = [[0.4, -1.0], [-0.9, 0.5], [0.6, -0.8], [0.5, -1.1, 0.4], [-0.7, 0.6], [0.5, -0.9]]


@of_kind("gradient", slow=MIXTURES)
def test_every_gradient_strategy_conforms_where_widths_and_stem_are_chosen(info):
    check_gradient_strategy(info, MACRO, MACRO_TABLE)


@of_kind("proposal", slow=CONTROLLERS)
def test_every_proposal_strategy_conforms_where_widths_and_stem_are_chosen(info):
    check_proposal_strategy(info, MACRO, lambda a: -sum(row[c] for row, c in zip(MACRO_TABLE, a.choices)))


@of_kind("proposal")
def test_every_proposal_strategy_conforms(info):
    check_proposal_strategy(info, SPACE, lambda a: -sum(row[c] for row, c in zip(TABLE, a.choices)))


@of_kind("proposal", slow=(*CONTROLLERS, "predictor"))
def test_every_proposal_strategy_conforms_on_a_graph(info):
    space = graph_space()
    check_proposal_strategy(info, space, lambda a: -sum((i + 1) * c for i, c in enumerate(a.choices)))


ANY_ORDER = [info for info in STRATEGIES.entries() if info.any_order]


def test_the_strategies_that_no_process_waits_for_are_those_of_the_guide():
    named = {"random", "evolution", "predictor", "monas", "morphism", "fnas", "catch", "deephyper"}
    assert {info.name for info in ANY_ORDER} == named


@pytest.mark.parametrize(
    "info", [pytest.param(i, id=i.name, marks=[pytest.mark.slow] if i.name == "deephyper" else []) for i in ANY_ORDER]
)
def test_every_strategy_that_declares_it_may_be_told_in_any_order(info):
    assert info.kind == "proposal"
    check_any_order(info, SPACE, lambda a: -sum(row[c] for row, c in zip(TABLE, a.choices)))


def test_a_strategy_that_depends_on_the_order_and_does_not_repeat_it_is_found():
    def make(*arguments):
        strategy = RandomSearch(*arguments)
        strategy.best = lambda: 0 if strategy.results[0].failed else len(strategy.results) - 1
        return strategy

    bad = dataclasses.replace(STRATEGIES.get("random"), name="bad", make=make)
    with pytest.raises(AssertionError, match="best"):
        check_any_order(bad, SPACE, lambda a: -float(sum(a.choices)))


def test_a_strategy_whose_proposals_depend_on_the_clock_or_are_not_saved_is_found():
    moments = itertools.count()

    def make(space, options, generator, is_feasible):
        strategy = RandomSearch(space, options, generator, is_feasible)
        strategy.ask = lambda: space.architecture([next(moments) % 3, 0])
        return strategy

    bad = dataclasses.replace(STRATEGIES.get("random"), name="bad", make=make)
    with pytest.raises(AssertionError, match="told again in the same order, it proposes others"):
        check_any_order(bad, SPACE, lambda a: -float(sum(a.choices)), candidates=11)


def test_a_strategy_that_keeps_nothing_of_what_it_draws_with_is_found():
    def make(space, options, generator, is_feasible):
        strategy = RandomSearch(space, options, generator, is_feasible)
        plain = strategy.restore

        def restore(state):
            plain(state)
            strategy.ask = lambda: space.architecture([0, 0])

        strategy.restore = restore
        return strategy

    bad = dataclasses.replace(STRATEGIES.get("random"), name="bad", make=make)
    with pytest.raises(AssertionError, match="resumed, and told in the same order"):
        check_any_order(bad, SPACE, lambda a: -float(sum(a.choices)), candidates=11)


@pytest.mark.parametrize(
    "info", [i for i in STRATEGIES.entries() if i.kind == "proposal" and i.name != "largest"], ids=lambda info: info.name
)
def test_every_proposal_strategy_finds_the_enumerated_best_of_a_toy(info):
    check_finds_best(info, SPACE, lambda a: -sum(row[c] for row, c in zip(TABLE, a.choices)), asks=30)


def test_a_strategy_that_never_proposes_the_best_is_found():
    with pytest.raises(AssertionError, match="the best there is"):  # the control looks at no score
        check_finds_best(STRATEGIES.get("largest"), SPACE, lambda a: float(sum(a.choices)), asks=5)


SAMPLINGS = pytest.mark.parametrize("sampling", ["uniform", "unconstrained", "fair"])


@SAMPLINGS
@of_kind("one-shot")
def test_every_one_shot_strategy_conforms(info, sampling):
    check_one_shot_strategy(
        info, SPACE, lambda a: -sum(row[c] for row, c in zip(TABLE, a.choices)), values={"sampling": sampling}
    )


@SAMPLINGS
@of_kind("one-shot")
def test_every_one_shot_strategy_conforms_on_a_graph(info, sampling):
    space = graph_space()
    check_one_shot_strategy(
        info, space, lambda a: -sum((i + 1) * c for i, c in enumerate(a.choices)), values={"sampling": sampling}
    )


@of_kind("one-shot")
def test_every_one_shot_strategy_conforms_where_widths_and_stem_are_chosen(info):
    check_one_shot_strategy(info, MACRO, lambda a: -sum(row[c] for row, c in zip(MACRO_TABLE, a.choices)))


PROPOSERS = [info.name for info in STRATEGIES.entries() if info.kind == "proposal" and "candidates" not in info.unused]


@pytest.mark.parametrize("name, proposer", [*(("one-shot", proposer) for proposer in PROPOSERS), ("hurricane", "l2nas")])
def test_any_proposer_may_be_scored_with_shared_weights(name, proposer):
    values = {"proposer": proposer, "proposals": 8}
    info = STRATEGIES.get(name)
    check_one_shot_strategy(info, SPACE, lambda a: -sum(row[c] for row, c in zip(TABLE, a.choices)), values=values)


def test_every_strategy_is_of_a_known_kind_and_has_a_source():
    assert {info.kind for info in STRATEGIES.entries()} == set(UNUSED) and {"a3cs", "a2d", "random"} <= set(STRATEGIES.names())
    for info in STRATEGIES.entries():
        options = default_options(info)
        assert info.paper and dataclasses.is_dataclass(options), info.name
        assert type(options).__dataclass_params__.frozen, f"{info.name}: its options can be changed during a search"


@pytest.mark.parametrize(
    "fault, text",
    [
        (lambda strategy: setattr(strategy, "restore", lambda state: None), "another way"),
        (lambda strategy: setattr(strategy, "step", lambda path, loss: None), "the best is"),
        (
            lambda strategy: setattr(
                strategy.arch, "probabilities", lambda: [p * 2 for p in ArchitectureLogits.probabilities(strategy.arch)]
            ),
            "probabilities",
        ),
    ],
)
def test_a_broken_strategy_does_not_conform(fault, text):
    def make(space, options, generator):
        strategy = OneLevelStrategy(space, options, generator)
        fault(strategy)
        return strategy

    bad = StrategyInfo("bad", "broken", "none", "gradient", True, False, make, STRATEGIES.get("a3cs").options)
    with pytest.raises(AssertionError, match=text):
        check_gradient_strategy(bad, SPACE, TABLE)


@pytest.mark.parametrize(
    "fault, text",
    [
        (lambda strategy: setattr(strategy, "restore", lambda state: None), "resumed, best"),
        (lambda strategy: setattr(strategy, "best", lambda: 1), "best"),
        (lambda strategy: setattr(strategy, "ask", lambda: SPACE.architecture([0, 0])), "does not meet the target"),
        (
            lambda strategy: setattr(strategy, "learning_path", lambda: small_space("skip").architecture([0, 0])),
            "not a path of the space",
        ),
    ],
)
def test_a_broken_one_shot_strategy_does_not_conform(fault, text):
    info = STRATEGIES.get("one-shot")

    def make(*arguments):
        strategy = info.make(*arguments)
        fault(strategy)
        return strategy

    with pytest.raises(AssertionError, match=text):
        check_one_shot_strategy(dataclasses.replace(info, make=make), SPACE, lambda a: -float(sum(a.choices)))


COSTS = [[0.7, 1.6, 0.2], [0.5, 1.1, 1.9]]  # cheapest: 2 and 0


@pytest.mark.parametrize("info", STRATEGIES.entries(), ids=lambda info: info.name)
def test_every_strategy_finds_the_cheapest_where_nothing_but_the_cost_counts(info):
    check_follows_cost(info, SPACE, COSTS)


def test_a_strategy_that_does_not_look_at_the_cost_does_not_conform():
    blind = dataclasses.replace(STRATEGIES.get("random"), make=lambda *rest: RandomSearch(*rest[:3], Feasible()))
    with pytest.raises(AssertionError, match=r"only \(2, 0\) meets the target"):
        check_follows_cost(blind, SPACE, COSTS)
    a3cs = STRATEGIES.get("a3cs")

    def make(*arguments):
        strategy = OneLevelStrategy(*arguments)
        even = [torch.full((3,), 1 / 3, requires_grad=True) for _ in range(2)]
        strategy.arch.probabilities = lambda: even
        return strategy

    with pytest.raises(AssertionError, match="the cheapest is"):
        check_follows_cost(dataclasses.replace(a3cs, make=make), SPACE, COSTS)


@pytest.mark.slow
def test_every_gradient_strategy_searches_the_same_in_another_process():
    first, second = (
        subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **seed},
        ).stdout.splitlines()
        for seed in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    )
    assert [line.split()[0] for line in first] == [info.name for info in STRATEGIES.entries() if info.kind == "gradient"]
    assert all(line.count("(") > 10 for line in first) and first == second


OTHER_PROCESS = """
import sys
sys.path[:0] = ["", "tests/strategies", "tests/support"]
from test_strategy_conformance import *
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import optimise, toy_loss
for info in STRATEGIES.entries():
    if info.kind == "gradient":
        strategy = info.make(SPACE, default_options(info), seeded(3))
        print(info.name, optimise(strategy, lambda s, p: toy_loss(p, TABLE), 25), strategy.scores())
"""


@pytest.mark.slow
def test_every_proposal_strategy_proposes_the_same_in_another_process():
    code = (
        "import sys\nsys.path[:0] = ['', 'tests/strategies', 'tests/support']\nfrom test_strategy_conformance import *\n"
        "from cosearch.strategies.base import Evaluation, Feasible\nfrom cosearch.testing.conformance import seeded\n"
        "for info in STRATEGIES.entries():\n    if info.kind != 'proposal':\n        continue\n"
        "    strategy = info.make(MACRO, default_options(info), seeded(3), Feasible())\n    for n in range(10):\n"
        "        asked = strategy.ask()\n        print(info.name, asked.choices)\n"
        "        strategy.tell(Evaluation(asked, -sum(row[c] for row, c in zip(MACRO_TABLE, asked.choices)), 1e-3))\n"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first == second and first.count("(") == 10 * sum(info.kind == "proposal" for info in STRATEGIES.entries())


@pytest.mark.parametrize(
    "fault, text",
    [
        (lambda strategy: setattr(strategy, "best", lambda: 0), "best"),  # the first one fails
        (lambda strategy: setattr(strategy, "restore", lambda state: None), "resumed"),
    ],
)
def test_a_proposal_strategy_that_takes_a_failed_candidate_does_not_conform(fault, text):
    def make(*arguments):
        strategy = RandomSearch(*arguments)
        fault(strategy)
        return strategy

    options = STRATEGIES.get("evolution").options

    bad = StrategyInfo("bad", "broken", "none", "proposal", False, False, make, options)
    with pytest.raises(AssertionError, match=text):
        check_proposal_strategy(bad, SPACE, lambda a: 1.0 if text == "best" else -float(sum(a.choices)))
