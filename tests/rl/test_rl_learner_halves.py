"""Two levels: half of a rollout's frames never reaches the weights, in no epoch, and the logits see the other half alone."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from small_space import small_space
from test_rl_learner import BASE, batch

from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.cost.table_cost import TableCost
from cosearch.rl.learning.lanes import Lanes
from cosearch.rl.learning.learner import Learner
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.gradient.darts import DartsOptions, DartsStrategy
from cosearch.strategies.gradient.s3nas import S3nasOptions, S3nasStrategy
from cosearch.strategies.gradient.unas import UnasOptions, UnasStrategy
from cosearch.testing.conformance import seeded
from cosearch.training.supernet_subject import SuperNetSubject
from latency_tables.devices import find_table
from latency_tables.errors import ShapeError

SPACE = small_space("conv_k3", "skip", cells=2)


class Recorder:
    """A subject that learns nothing and remembers which frames each kind of step saw."""

    held_out, held_out_levels = True, False

    def __init__(self):
        self.now, self.seen, self.scale = None, {"train": [], "held out": [], "weights": []}, torch.ones((), requires_grad=True)

    def forward(self, frames):
        self.seen[self.now] += frames[:, 0, 0, 0].tolist()
        return frames.new_zeros(len(frames), 3).float() * self.scale, frames.new_zeros(len(frames)).float() * self.scale

    def step_architecture(self, train, held_out, max_grad_norm):
        for self.now, backward in (("train", train), ("held out", held_out)):
            assert isinstance(backward(), float)

    def zero_grad(self):
        self.now = "weights"

    def extra_loss(self):
        return None

    def step(self, max_grad_norm, loss):
        return 1.0


def numbered(time=8, envs=6):
    """A rollout whose frames hold their number in every pixel."""
    rollout = batch(time, envs)
    numbers = torch.arange(time * envs, dtype=torch.uint8).view(time, envs, 1, 1, 1).expand(time, envs, 6, 6, 1)
    return dataclasses.replace(rollout, frames=numbers.contiguous())


def test_the_halves_are_disjoint_over_all_epochs_and_paths_and_cover_the_rollout():
    for seed in range(3):
        subject = Recorder()
        options = dataclasses.replace(BASE, epochs=3, minibatch=4, micro_batch=2)
        Learner(options, seeded(seed)).update(subject, [subject.forward] * 2, numbered(), None)
        weights, train, held = (set(subject.seen[key]) for key in ("weights", "train", "held out"))
        assert weights == train and not weights & held and weights | held == set(range(48)) and len(held) == 24
        assert len(subject.seen["weights"]) == len(subject.seen["held out"]) == 3 * 24  # each frame once an epoch


@pytest.mark.parametrize("paths", [1, 3])
def test_the_held_out_half_is_every_other_environment_where_these_are_on_validation_levels(paths):
    subject = Recorder()
    subject.held_out_levels = True
    options = dataclasses.replace(BASE, epochs=2, minibatch=4, micro_batch=4)
    Learner(options, seeded(0)).update(subject, [subject.forward] * paths, numbered(8, 6), None)
    weights, train, held = (set(subject.seen[key]) for key in ("weights", "train", "held out"))
    assert weights == train == {i for i in range(48) if i % 2 == 0} and held == {i for i in range(48) if i % 2}


def test_halves_that_minibatches_do_not_divide_are_seen_whole():
    """Nine frames in halves of five and four, in minibatches of up to four: three, two, and twice the same four held out."""
    subject = Recorder()
    options = dataclasses.replace(BASE, minibatch=4, micro_batch=4)
    Learner(options, seeded(0)).update(subject, [subject.forward], numbered(3, 3), None)
    weights, held = subject.seen["weights"], subject.seen["held out"]
    assert len(weights) == len(set(weights)) == 5 and set(weights) | set(held) == set(range(9))
    assert held[:4] == held[4:] and len(set(held)) == 4


def test_a_path_whose_environments_cannot_be_halved_is_refused():
    subject = Recorder()
    subject.held_out_levels = True
    with pytest.raises(ShapeError, match=r"6 environments for 2 paths cannot be halved; .* multiple of twice"):
        Learner(dataclasses.replace(BASE, minibatch=4), seeded(0)).update(subject, [subject.forward] * 2, numbered(8, 6), None)


def test_a_subject_of_one_level_sees_all_frames():
    subject = Recorder()
    subject.held_out = False
    Learner(dataclasses.replace(BASE, minibatch=4, micro_batch=4), seeded(0)).update(subject, [subject.forward], numbered(), None)
    assert sorted(subject.seen["weights"]) == list(range(48)) and not subject.seen["held out"]


def searching(order, warmup=0.0, penalised=True):
    """A supernet of twelve-pixel frames with DARTS logits."""
    cost = TableCost(SPACE, find_table("jetson"))
    penalty = DualPenalty(Constraint(cost, cost.base / 2), dual_lr=0.5, quadratic=1.0)
    supernet = SuperNet(SPACE, seeded(0))
    strategy = DartsStrategy(SPACE, DartsOptions(lr=0.05, order=order), seeded(1))
    return SuperNetSubject(
        supernet,
        strategy,
        [penalty] if penalised else [],
        paths=1,
        fresh=True,
        lr=1e-3,
        bf16=True,
        device=torch.device("cpu"),
        warmup=warmup,
    ), strategy


def frames_of(rollout):
    shape = (*rollout.actions.shape, *SPACE.frame_shape)
    return dataclasses.replace(rollout, frames=torch.randint(0, 256, shape, generator=seeded(4)).to(torch.uint8))


def learn(order, **options):
    subject, strategy = searching(order, **options)
    subject.set_progress(0.5)
    learner = Learner(dataclasses.replace(BASE, epochs=2, minibatch=8, micro_batch=8), seeded(2))
    learner.update(subject, subject.actors(), frames_of(batch(8, 4)), None)
    return [row.detach().clone() for row in strategy.arch.alpha], subject


def test_orders_warmup_and_penalty_each_change_what_the_logits_learn():
    first, subject = learn(1)
    second, warm, free = learn(2)[0], learn(1, warmup=0.9)[0], learn(1, penalised=False)[0]
    assert all(torch.isfinite(row).all() for row in (*first, *second))
    assert not torch.equal(first[0], second[0]) and not torch.equal(first[0], free[0])
    assert all(float(row.abs().sum()) == 0 for row in warm)  # in the warm-up only weights learn
    assert float(first[0][1]) > float(free[0][1])  # the penalty wants the skip
    assert subject.penalties[0].multiplier > 0  # the dual variable rose


class Drawing(Recorder):
    """Draws another minibatch of each half and takes a loss without gradients."""

    def step_architecture(self, train, held_out, max_grad_norm):
        for self.now, half in (("train", train), ("held out", held_out)):
            further = half.another()
            self.scale.grad, at_once = None, further.value()
            assert self.scale.grad is None
            assert further() == at_once == further.value() and self.scale.grad is not None
            assert half.another().value() != at_once


def test_another_minibatch_is_of_the_same_half_and_a_value_gives_no_gradient():
    for lanes in (1, 2):
        subject = Drawing()
        options = dataclasses.replace(BASE, epochs=2, minibatch=4, micro_batch=2)
        Learner(options, seeded(0), Lanes(lanes)).update(subject, [subject.forward] * 2, numbered(), None)
        train, held = (set(subject.seen[key]) for key in ("train", "held out"))
        assert train and held and train <= set(subject.seen["weights"]) and not held & set(subject.seen["weights"])


class Seldom(DartsStrategy):
    """Takes a step on every other minibatch, and is told of the gradients of the weights."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked, self.norms = 0, []

    def step_architecture(self, train, held_out, weights, step):
        self.asked += 1
        if self.asked % 2 == 0:
            super().step_architecture(train, held_out, weights, step)

    def weights_learned(self, gradient_norm):
        self.norms.append(gradient_norm)


def test_duals_rise_only_where_the_logits_took_a_step_and_the_norm_is_that_before_clipping(monkeypatch):
    told = []
    monkeypatch.setattr(DualPenalty, "update", lambda self, expected: told.append(expected))
    subject, _ = searching(1)
    strategy = Seldom(SPACE, DartsOptions(), seeded(1))
    subject = SuperNetSubject(
        subject.supernet,
        strategy,
        subject.penalties,
        paths=1,
        fresh=True,
        lr=1e-3,
        bf16=False,
        device=torch.device("cpu"),
        warmup=0.0,
    )
    options = dataclasses.replace(BASE, epochs=2, minibatch=4, micro_batch=4, max_grad_norm=1e-3)
    report = Learner(options, seeded(2)).update(subject, subject.actors(), frames_of(batch(8, 4)), None)
    assert strategy.asked == len(strategy.norms) == 8 and len(told) == 4
    assert sum(strategy.norms) / 8 == pytest.approx(report["grad_norm"]) and min(strategy.norms) > 1e-3


class Along(DartsStrategy):
    """Compares losses along paths with those of the strategy's own."""

    def step_architecture(self, train, held_out, weights, step):
        for half in (train, held_out):
            hard = Path(((0,), (1,)))
            own, other = half.loss(self.sample()), half.loss(hard)
            assert own != other
            for parameter in (*weights, *self.arch.alpha):
                parameter.grad = None
            found = half()
            assert found >= own - 1e-4  # of the held-out half with its penalty
            assert half(self.sample()) == found and all(alpha.grad is not None for alpha in self.arch.alpha)
            assert half.another().loss(hard) != other


def test_losses_along_paths_on_both_halves():
    subject, _ = searching(1)
    subject.strategy = subject.bilevel = Along(SPACE, DartsOptions(), seeded(1))
    Learner(dataclasses.replace(BASE, epochs=1, minibatch=8, micro_batch=4), seeded(2)).update(
        subject, subject.actors(), frames_of(batch(8, 4)), None
    )


def test_in_a_search_no_expected_cost_is_needed_and_the_dual_variable_follows_what_was_drawn(monkeypatch):
    cost = TableCost(SPACE, find_table("jetson"))
    penalty = DualPenalty(Constraint(cost, cost.base / 2), dual_lr=0.5, quadratic=1.0)
    strategy = UnasStrategy(SPACE, UnasOptions(), seeded(1))
    subject = SuperNetSubject(
        SuperNet(SPACE, seeded(0)),
        strategy,
        [penalty],
        paths=2,
        fresh=True,
        lr=1e-3,
        bf16=True,
        device=torch.device("cpu"),
        warmup=0.0,
    )
    monkeypatch.setattr(TableCost, "expected", lambda self, weights: pytest.fail("an expected cost was asked for"))
    told = []
    monkeypatch.setattr(DualPenalty, "update", lambda self, value: told.append(value))
    learner = Learner(dataclasses.replace(BASE, epochs=1, minibatch=4, micro_batch=2), seeded(2))
    learner.update(subject, subject.actors(), frames_of(batch(8, 4)), None)
    every = {round(cost.exact(SPACE.architecture(z)), 12) for z in itertools.product(range(2), repeat=2)}
    assert len(told) == 4 and {round(value, 12) for value in told} <= every
    assert all(float(alpha.detach().abs().sum()) > 0.0 for alpha in strategy.arch.alpha)


def test_a_strategy_with_a_penalty_of_its_own_moves_no_dual_variable(monkeypatch):
    cost = TableCost(SPACE, find_table("jetson"))
    penalty = DualPenalty(Constraint(cost, cost.base / 2), dual_lr=0.5, quadratic=1.0)
    monkeypatch.setattr(DualPenalty, "loss", lambda self, expected: pytest.fail("the dual penalty was taken"))
    strategy = S3nasStrategy(SPACE, S3nasOptions(warmup=0.0), seeded(1))
    subject = SuperNetSubject(
        SuperNet(SPACE, seeded(0)),
        strategy,
        [penalty],
        paths=1,
        fresh=True,
        lr=1e-3,
        bf16=True,
        device=torch.device("cpu"),
        warmup=0.0,
    )
    chosen = SPACE.architecture(strategy.arch.chosen())
    relative = cost.exact(chosen) / (cost.base / 2)
    assert strategy.relative is not None and strategy.relative(chosen) == [relative]  # what its scaling goes by
    assert float(subject.extra_loss().detach()) == pytest.approx(15.0 * np.log1p(100.0 * (relative - 1.0)), rel=1e-5)
    before = [alpha.detach().clone() for alpha in strategy.arch.alpha]
    options = dataclasses.replace(BASE, epochs=1, minibatch=8, micro_batch=8)
    Learner(options, seeded(2)).update(subject, subject.actors(), frames_of(batch(8, 4)), None)
    assert penalty.multiplier == 0.0
    assert all(
        float(alpha.detach()[1]) < float(old[1]) for alpha, old in zip(strategy.arch.alpha, before)
    )  # the target is far away
