"""RADARS: the bound holds at every step, by the formula and as autograd measures it; the agent drops what is bad."""

import dataclasses

import numpy as np
import pytest
import torch
from small_space import small_space

from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.space.space import SPACES
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.base import STRATEGIES
from cosearch.strategies.gradient.radars import RadarsOptions, RadarsStrategy, kept_bytes
from cosearch.testing.conformance import seeded
from cosearch.testing.strategy_conformance import optimise, toy_loss
from latency_tables.errors import ConfigError
from latency_tables.opspec import OpSpec

load_builtins()
SPACE = SPACES.get("mlp").make({"stage_repeats": [3]}, (8,), 3)
SMALL = small_space("conv_k3", "mbconv_k3_e1", "skip")


def strategy(space=SPACE, seed=3, **options):
    return RadarsStrategy(space, RadarsOptions(**options), seeded(seed))


def measured_bytes(supernet, path, frames):
    """What autograd keeps after the forward pass through the body, storages once, weights left out."""
    own, kept = {p.data_ptr() for p in supernet.parameters()}, {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        supernet(frames, path)
    return sum(size for size, _ in kept.values())


def test_bytes_by_hand():
    """A linear layer 64 -> 64 reads 64, writes 64 and is weighed: 64. A residual block of 32: 64 + 32 + 32 + 64 + 64."""
    names = list(SPACE.points[0].candidates)
    active = [[names.index("linear_relu")], [names.index("mlp_w32_tanh"), names.index("skip_layer")], [names.index("skip_layer")]]
    assert kept_bytes(SPACE, active) == 4 * (3 * 64) + 4 * (64 + 32 + 32 + 64 + 64)
    assert SPACE.points[0].specs[0] == OpSpec("linear", 64, 1, 1, 64)


@pytest.mark.parametrize("pruning", ["agent", "random"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_bound_holds_at_every_step(pruning, share):
    bound = share * kept_bytes(SPACE, [range(9)] * 3)
    table = np.random.default_rng(0).normal(size=(3, 9)).tolist()
    for active in optimise(strategy(pruning=pruning, memory_share=share), lambda _, path: toy_loss(path, table), 60):
        assert kept_bytes(SPACE, active) <= bound
        assert all(8 in row for row in active)  # skip keeps nothing and is never dropped


@pytest.mark.parametrize("kind", ["mlp", "chain"])
def test_the_bound_holds_as_autograd_measures_it(kind):
    if kind == "mlp":
        space, frames = SPACE, torch.randn(256, 8, generator=seeded(1))
    else:
        space = SPACES.get("chain").make({"stage_channels": [8], "stage_repeats": [3], "stage_strides": [1]}, (16, 16, 4), 3)
        frames = torch.randint(0, 256, (64, 16, 16, 4), generator=seeded(1), dtype=torch.uint8)
    supernet, searched = SuperNet(space, seeded(1)), strategy(space, memory_share=0.4)
    skips = Path(tuple((point.candidates.index("skip_layer" if kind == "mlp" else "skip"),) for point in space.points))
    ends = measured_bytes(supernet, skips, frames)
    kept = measured_bytes(supernet, searched.weighted(searched.sample()), frames) - ends
    everything = Path(searched.pruning.all)
    whole = measured_bytes(supernet, searched.weighted(everything), frames) - ends
    assert 0 < kept <= len(frames) * searched.pruning.bound
    assert whole <= len(frames) * kept_bytes(space, everything.active) and kept < 0.55 * whole


def test_a_bound_below_the_least_candidates_is_refused_with_what_is_needed():
    space = SPACES.get("mlp").make({"candidates": ["linear_relu", "mlp_w32_relu", "mlp_w64_relu"], "stage_repeats": [2]}, (8,), 3)
    with pytest.raises(ConfigError, match=r"memory_share=0\.1 .* needs 0\.25 ") as refused:
        strategy(space, memory_share=0.1)  # 192 of 192 + 256 + 320
    assert "ask for that" in str(refused.value)
    strategy(space, memory_share=0.25)


@pytest.mark.slow  # ten searches of each kind
def test_the_agent_learns_what_to_drop_and_uniform_drops_do_not():
    found = {"agent": [], "random": []}
    for seed in range(4):
        table = np.random.default_rng(seed).normal(size=(3, 9)).tolist()
        best = sum(map(min, table))
        for pruning, losses in found.items():
            searched = strategy(seed=seed, pruning=pruning, memory_share=0.3, episode=2)
            optimise(searched, lambda _, path, table=table: toy_loss(path, table), 400)
            losses.append(sum(min(row[c] for c in left) for row, left in zip(table, searched.active)) - best)
    assert np.mean(found["agent"]) < 0.5 * np.mean(found["random"])


def test_drops_have_the_probability_that_the_agent_gives_them():
    searched = strategy(SMALL, memory_share=0.75)
    with torch.no_grad():
        for theta in searched.theta:
            theta.copy_(torch.tensor([0.7, -0.4, 0.0]))
    first = [searched._drawn()[0] for _ in range(2000)]
    left = searched.pruning.may_drop(searched.pruning.all)
    chances = np.exp([-float(searched.theta[p][c].detach()) for p, c in left])
    for drop, chance in zip(left, chances / chances.sum()):
        assert abs(first.count(drop) / 2000 - chance) < 4 * (chance * (1 - chance) / 2000) ** 0.5
    searched._begin([left[0]])
    assert float(searched._log_probability().detach()) == pytest.approx(float(np.log(chances[0] / chances.sum())), abs=1e-6)


def test_the_subspace_is_settled_after_its_share_of_the_search():
    for fraction, wanted in ((0.01, 2), (0.5, 51)):
        searched, steps = strategy(prune_fraction=fraction, memory_share=0.4), 0
        while not searched.settled:
            searched.arch.anneal(steps / 100)
            searched.step(searched.sample(), 0.0)
            steps += 1
        assert steps == wanted
    before = searched.active
    for _ in range(20):
        searched.step(searched.sample(), 1.0)
    assert searched.active == before


def test_minibatches_of_one_rollout_that_learn_along_one_path_are_credited_to_its_subspace():
    """As with A2C: one path acts, every minibatch learns along it, and only then comes the next."""
    searched, told = strategy(memory_share=0.4, episode=4), []
    plain = searched._learn
    searched._learn = lambda loss: told.append((loss, searched.active)) or plain(loss)
    acted = []
    for rollout in range(3):
        path = searched.sample()
        acted.append(path.active)
        for _ in range(10):
            searched.step(searched.weighted(path), float(rollout))
            assert searched.active == path.active
    assert len(set(acted)) == 3 and told == [(0.0, acted[0]), (1.0, acted[1])]


@pytest.mark.parametrize(
    "value, words", [(0.3, "above strategy.warmup_fraction=0.3"), (0.1, "above"), (1.0, "less than 1"), (0.0, "greater than 0")]
)
def test_a_share_after_which_nothing_could_be_settled_is_refused(value, words):
    config = StrategyConfig(name="radars", warmup_fraction=0.3, values={"prune_fraction": value})
    with pytest.raises(ConfigError, match=words):
        STRATEGIES.get("radars").options(config)
    assert STRATEGIES.get("radars").options(dataclasses.replace(config, warmup_fraction=1.0, values={"prune_fraction": 0.5}))


def test_scores_are_alike_until_logits_learn():
    searched = strategy(memory_share=0.4)
    path = searched.sample()
    assert {value for row in searched.scores() for value in row} == {0.0}
    searched.step(path, 1.0)
    assert any(value == 0.0 for row in searched.scores() for value in row) and any(value > 0.0 for value in searched.scores()[0])


def test_before_logits_learn_each_minibatch_has_a_subspace_of_its_own():
    searched = strategy(memory_share=0.4)
    assert len({searched.sample().active for _ in range(8)}) == 8
    once = strategy(memory_share=0.4, pruning="random")
    assert len({once.sample().active for _ in range(8)}) == 1


@pytest.mark.parametrize(
    "changes",
    [{"memory_share": 0.9}, {"pruning": "random"}, {"agent_lr": 0.9}, {"episode": 9}, {"prune_fraction": 0.1}, {"lr": 0.5}],
)
def test_every_option_changes_the_search(changes):
    table = np.random.default_rng(0).normal(size=(3, 9)).tolist()

    def searched(options):
        made = RadarsStrategy(SPACE, options, seeded(3))
        return optimise(made, lambda _, path: toy_loss(path, table), 60), made.scores()

    default = STRATEGIES.get("radars").options(StrategyConfig(name="radars"))
    assert searched(default) != searched(dataclasses.replace(default, **changes)) and searched(default) == searched(default)


@pytest.mark.parametrize("name", ["agent_lr", "episode", "prune_fraction"])
def test_what_the_agent_learns_by_is_refused_where_nothing_learns(name):
    options, values = STRATEGIES.get("radars").options, {"agent_lr": 0.1, "episode": 2, "prune_fraction": 0.5}
    with pytest.raises(ConfigError, match=rf"{name}=\S+ has no effect with strategy\.values\.pruning=random"):
        options(StrategyConfig(name="radars", values={"pruning": "random", name: values[name]}))
    assert getattr(options(StrategyConfig(name="radars", values={name: values[name]})), name) == values[name]
