"""Two levels: half of a rollout's frames never reaches the weights, in no epoch, and the logits see the other half alone."""

import dataclasses

import torch
from small_space import small_space
from test_rl_learner import BASE, batch

from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.cost.table_cost import TableCost
from cosearch.rl.learner import Learner
from cosearch.space.supernet import SuperNet
from cosearch.strategies.gradient.darts import DartsOptions, DartsStrategy
from cosearch.testing.conformance import seeded
from cosearch.training.supernet_subject import SuperNetSubject
from latency_tables.devices import find_table

SPACE = small_space("conv_k3", "skip", cells=2)


class Recorder:
    """A subject that learns nothing and remembers which frames each kind of step saw."""

    held_out = True

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
