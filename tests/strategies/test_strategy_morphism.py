"""The search over morphisms: its distance by recursion, its kernel by eigenvalues, its process by the textbook's formula."""

import functools
import itertools

import numpy as np
import pytest
import torch
from graph_space import graph_space
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.strategies.base import STRATEGIES, Evaluation
from cosearch.strategies.edit_distance import LAMBDA, EditDistance, coordinates, landmarks, skip_distance
from cosearch.strategies.proposal import morphism
from cosearch.strategies.proposal.morphism import MorphismOptions, MorphismSearch
from cosearch.testing.conformance import seeded
from latency_tables.errors import RequestError

CHAIN = small_space("conv_k3", "conv_k5", "mbconv_k3_e1", "mbconv_k3_e3", "skip", cells=3)
SPACES = {"chain": CHAIN, "graph": graph_space(), "mlp": mlp_space(MlpConfig(stage_repeats=(3,)), (5,), 3)}


def sample(space, count, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return [space.sample(draws) for _ in range(count)]


def by_recursion(one, other):
    """The distance as the paper defines it, each case spelled out."""
    left, right = one.ops(), other.ops()

    def change(a, b):
        if a.kind != b.kind:
            return 1.0
        pairs = ((a.out_channels, b.out_channels), (a.kernel, b.kernel), (a.expansion, b.expansion), (a.hidden + 1, b.hidden + 1))
        return max(abs(x - y) / max(x, y) for x, y in pairs)

    @functools.cache
    def layers(i, j):
        if not i or not j:
            return float(i + j)
        return min(layers(i - 1, j) + 1, layers(i, j - 1) + 1, layers(i - 1, j - 1) + change(left[i - 1], right[j - 1]))

    def skips(architecture):
        ops = architecture.ops()
        return [(i, j - i, ops[j].kind) for j, inputs in enumerate(architecture.wiring()) for i in inputs if j - i > 1]

    def pair(a, b):
        if a[2] != b[2]:
            return 1.0
        return (abs(a[0] - b[0]) + abs(a[1] - b[1])) / (max(a[0], b[0]) + max(a[1], b[1]))

    few, many = sorted((skips(one), skips(other)), key=len)
    matched = min(sum(pair(a, b) for a, b in zip(few, order)) for order in itertools.permutations(many, len(few)))
    return layers(len(left), len(right)) + LAMBDA * (matched + len(many) - len(few))


@pytest.mark.parametrize("name", SPACES)
def test_the_distance_is_that_of_a_plain_recursion(name):
    ones, others = sample(SPACES[name], 5), sample(SPACES[name], 6, seed=1)
    found = EditDistance(SPACES[name])(ones, others)
    assert found == pytest.approx(np.array([[by_recursion(a, b) for b in others] for a in ones]))
    assert EditDistance(SPACES[name])(ones, ones).diagonal() == pytest.approx(0.0)


def test_skip_connections_are_matched_for_the_least_sum():
    near, far = (0, 2, "add"), (4, 3, "add")
    assert skip_distance([near, far], [far, near]) == 0.0
    assert skip_distance([near], [far, near]) == 1.0 and skip_distance([], [near, far]) == 2.0
    assert skip_distance([near], [(0, 3, "add")]) == pytest.approx(1 / 3) and skip_distance([near], [(0, 2, "merge")]) == 1.0


@pytest.mark.parametrize("name", SPACES)
def test_the_kernel_is_positive_definite_on_trained_and_new_networks_together_and_never_farther_than_the_distance(name):
    networks = list({a.choices: a for a in sample(SPACES[name], 60, seed=4)}.values())
    distances = EditDistance(SPACES[name])(networks, networks)
    placed = coordinates(distances[:, :20], landmarks(20))
    rho = np.sqrt(((placed[:, None] - placed[None]) ** 2).sum(2))
    assert (rho <= distances + 1e-9).all()
    assert np.linalg.eigvalsh(np.exp(-(rho**2))).min() > -1e-9
    assert np.corrcoef(rho.ravel(), distances.ravel())[0, 1] > 0.6


def score(architecture):
    return float(sum((i + 1) * c for i, c in enumerate(architecture.choices)))


def told(count=6, seed=0, space=CHAIN, **options):
    strategy = MorphismSearch(space, MorphismOptions(**options), seeded(seed))
    for architecture in sample(space, count, seed=9):
        strategy.tell(Evaluation(architecture, score(architecture), 1e-3))
    return strategy


def test_the_acquisition_is_mean_and_deviation_of_the_gaussian_process():
    strategy, new = told(), sample(CHAIN, 30, seed=3)
    scores = np.array([result.score for result in strategy.results.all])
    found = strategy._fitted(list(range(6)), scores)(new)
    trained = [CHAIN.architecture(result.choices) for result in strategy.results.all]
    sets, distance = landmarks(6), EditDistance(CHAIN)
    x, y = coordinates(distance(trained, trained), sets), coordinates(distance(new, trained), sets)
    kernel = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(2))  # noqa: E731
    inverse = np.linalg.inv(kernel(x, x) + 0.1 * np.eye(6))
    mean = kernel(y, x) @ inverse @ ((scores - scores.mean()) / scores.std())
    variance = 1.0 - np.einsum("ni,ij,nj->n", kernel(y, x), inverse, kernel(y, x))
    assert found == pytest.approx(mean + 2.576 * np.sqrt(variance), abs=1e-6)


def test_the_proposal_is_at_least_as_good_as_all_changes_of_the_best_trained_network_and_new():
    strategy = told()
    known = [CHAIN.architecture(result.choices) for result in strategy.results.all]
    acquisition = strategy._fitted(list(range(6)), np.array([result.score for result in strategy.results.all]))
    first = known[int(acquisition(known).argmax())]  # leaves the queue first, at probability 1
    proposed = strategy.ask()
    assert float(acquisition([proposed])[0]) >= acquisition(first.neighbours()).max() - 1e-9
    assert proposed not in known and strategy.parent in range(6)
    assert strategy.ask() != proposed


def test_the_queue_leaves_out_what_is_worse_as_it_cools():
    """With the temperature at its end from the beginning only what is better than all before it is opened."""
    looked = []
    for cooling in (0.9, 1e-5):
        strategy, seen = told(), []
        strategy.uniform.neighbours = lambda one, seen=seen: (seen.append(one.choices), one.neighbours())[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(morphism, "COOLING", cooling)
            strategy.ask()
        looked.append(len(seen))
    assert looked[1] == 1 and 3 < looked[0] <= 88  # 0.9^88 is the coldest


def test_a_candidate_inherits_the_blocks_at_the_same_places_and_nothing_where_that_is_off():
    strategy = told()
    proposed = strategy.ask()
    inheritance, parent = strategy.inherits(), CHAIN.architecture(strategy.results[strategy.parent].choices)
    theirs = {placed.node: block for block, placed in enumerate(parent.placed())}
    assert inheritance.parent == strategy.parent and len(inheritance.blocks) == len(proposed.ops())
    for at, placed in zip(inheritance.blocks, proposed.placed()):
        assert at == ((strategy.parent, theirs[placed.node]) if placed.node in theirs else None)
    alone = told(inherit=False)
    assert alone.ask() == proposed and alone.inherits() is None
    first = MorphismSearch(CHAIN, MorphismOptions(), seeded(0))
    first.ask()
    assert first.inherits() is None


def run(asks, seed=0, worth=score, **options):
    strategy = MorphismSearch(CHAIN, MorphismOptions(**options), seeded(seed))
    for _ in range(asks):
        architecture = strategy.ask()
        strategy.tell(Evaluation(architecture, worth(architecture), 1e-3))
    return [result.choices for result in strategy.results.all]


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"noise": 3.0}])
def test_each_option_changes_what_is_proposed(options):
    assert run(12) != run(12, **options)


def test_it_beats_random_search_at_equal_evaluations_and_proposes_nothing_twice():
    found = [run(20, seed) for seed in range(3)]
    assert all(len(set(one)) == 20 for one in found)
    drawn = [[a.choices for a in sample(CHAIN, 20, seed)] for seed in range(3)]
    best = [np.mean([max(score(CHAIN.architecture(c)) for c in one) for one in each]) for each in (found, drawn)]
    assert best[0] > best[1]


def test_scores_that_are_equal_or_missing_are_no_fault():
    assert len(set(run(6, worth=lambda a: 1.0))) == 6
    assert len(run(4, worth=lambda a: None)) == 4


@pytest.mark.parametrize("values", [{"beta": -1}, {"noise": 0}, {"kernel": 1}])
def test_wrong_options_are_refused(values):
    with pytest.raises(RequestError):
        STRATEGIES.get("morphism").options(StrategyConfig(name="morphism", values=values))
