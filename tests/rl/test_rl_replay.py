"""The replay memory against brute force: sums, draws, n-step returns with both kinds of end, what is written over."""

import io

import numpy as np
import pytest
import torch

from cosearch.rl.dqn.replay import Replay
from cosearch.rl.dqn.sum_tree import SumTree
from cosearch.rl.envs import Step
from latency_tables.errors import ConfigError, NonFiniteError, ShapeError

GAMMA = 0.9


@pytest.mark.parametrize("size", [1, 2, 5, 8, 100, 1000])
def test_the_tree_is_the_sum_and_a_draw_is_a_cumulative_search(size):
    rng, tree, plain = np.random.default_rng(size), SumTree(size), np.zeros(size)
    for _ in range(20):
        at = rng.integers(0, size, 70)
        values = rng.random(70) * (rng.random(70) < 0.7)
        tree.set(at, values)
        for position, value in zip(at, values):
            plain[position] = value
        assert np.array_equal(tree.priorities, plain) and tree.total == pytest.approx(plain.sum())
        if plain.sum() > 0:
            points = rng.random(200)
            wanted = np.searchsorted(np.cumsum(plain), points * plain.sum(), side="right")
            found = tree.draw(points)
            assert (plain[found] > 0).all()
            assert np.mean(found == wanted) > 0.99  # rounding may move a point that lies on an edge


def test_a_tree_made_anew_from_its_leaves_is_the_same_bit_for_bit():
    rng, tree = np.random.default_rng(0), SumTree(77)
    for _ in range(50):
        tree.set(rng.integers(0, 77, 9), rng.random(9))
    again = SumTree(77)
    again.restore(tree.priorities.copy())
    assert np.array_equal(again._nodes, tree._nodes)


def test_the_edges_of_the_tree():
    tree = SumTree(5)
    tree.set(np.array([1, 3]), np.array([1.0, 3.0]))
    assert tree.draw(np.array([0.0, 0.2499, 0.25, 0.9999999999999999])).tolist() == [1, 1, 3, 3]
    for wrong in (np.nan, np.inf, -1.0):
        with pytest.raises(NonFiniteError, match="priorities"):
            tree.set(np.array([0]), wrong)
    assert tree.total == 4.0


class Tape:
    """Every step that a memory was given, kept in plain lists: the oracle."""

    def __init__(self, replay, seed=0, ends=0.3):
        self.replay, self.rng, self.ends = replay, np.random.default_rng(seed), ends
        self.rows, self.shown = [], 0

    def frame(self):
        self.shown += 1
        return np.array([[[self.shown % 251, self.shown // 251]]], dtype=np.uint8)

    def add(self, steps):
        n = self.replay.num_envs
        for _ in range(steps):
            frames = np.stack([self.frame() for _ in range(n)]) if not self.rows else self.rows[-1]["next"]
            kind = np.where(self.rng.random(n) < self.ends, self.rng.integers(1, 3, n), 0)
            after = np.stack([self.frame() for _ in range(n)])
            last = {i: self.frame() for i in np.flatnonzero(kind == 2).tolist()}
            step = Step(after, self.rng.standard_normal(n).astype(np.float32), kind == 1, kind == 2, last)
            actions = self.rng.integers(0, 4, n)
            labels = None if self.replay.labels is None else self.rng.random((n, 4)).astype(np.float32)
            self.replay.add(frames, actions, step, step.reward, labels)
            self.rows.append(
                {
                    "frames": frames,
                    "next": after,
                    "kind": kind,
                    "reward": step.reward,
                    "actions": actions,
                    "last": last,
                    "labels": labels,
                }
            )

    def outcome(self, t, env):
        """Return, discount and frame of the transition at row ``t``, by walking along the tape."""
        total, factor = 0.0, 1.0
        for k in range(self.replay.n_step):
            row = self.rows[t + k]
            total += factor * float(row["reward"][env])
            factor *= GAMMA
            if row["kind"][env] == 1:
                return total, 0.0, None
            if row["kind"][env] == 2:
                return total, factor, row["last"][env]
        return total, factor, self.rows[t + self.replay.n_step]["frames"][env]


def memory(capacity=60, envs=3, n_step=3, exponent=0.5, labels=0):
    return Replay(capacity, envs, (1, 1, 2), n_step=n_step, gamma=GAMMA, exponent=exponent, labels=labels)


@pytest.mark.parametrize("n_step", [1, 2, 5])
@pytest.mark.parametrize("steps", [12, 20, 47])
def test_every_transition_that_can_be_drawn_is_the_tapes(n_step, steps):
    replay = memory(n_step=n_step, labels=4)
    tape = Tape(replay, seed=n_step)
    tape.add(steps)
    rows = range(max(0, steps - replay.times), steps - n_step)
    open_positions = sorted(t % replay.times * 3 + env for t in rows for env in range(3))
    assert np.flatnonzero(replay.tree.priorities).tolist() == open_positions and replay.ready == len(open_positions)
    for t in rows:
        for env in range(3):
            returns, discount, frame = replay.outcome(np.array([t % replay.times * 3 + env]))
            wanted = tape.outcome(t, env)
            assert returns[0] == pytest.approx(wanted[0], abs=1e-6) and discount[0] == pytest.approx(wanted[1])
            assert wanted[2] is None or np.array_equal(frame[0], wanted[2])
    batch = replay.draw(64, 0.5, np.random.default_rng(1))
    first = steps - steps % replay.times
    for i, position in enumerate(batch.positions.tolist()):
        row, env = divmod(position, 3)
        t = first + row if first + row < steps else first + row - replay.times
        assert np.array_equal(batch.frames[i].numpy(), tape.rows[t]["frames"][env])
        assert batch.actions[i] == tape.rows[t]["actions"][env]
        assert np.array_equal(batch.teacher_policy[i].numpy(), tape.rows[t]["labels"][env])
    cut = sum(int((tape.rows[t]["kind"] == 2).sum()) for t in range(max(0, steps - replay.times), steps))
    assert len(replay.last_frames) == cut  # those of rows that were written over are gone


def test_draws_follow_the_priorities_and_the_weights_undo_them():
    replay = memory(capacity=90, exponent=0.7)
    Tape(replay).add(33)
    ready = np.flatnonzero(replay.tree.priorities)
    errors = np.random.default_rng(1).random(len(ready)) * 3
    replay.learned(ready, errors)
    share = (errors + 1e-6) ** 0.7
    share /= share.sum()
    rng, counts, value, total = np.random.default_rng(2), np.zeros(90), np.arange(90) ** 1.5, 0.0
    for _ in range(400):
        batch = replay.draw(32, 1.0, rng)
        np.add.at(counts, batch.positions, 1)
        total += float((batch.weights.numpy() * value[batch.positions]).sum() / batch.weights.numpy().sum())
        assert batch.weights.max() == 1.0
    assert counts[ready] / counts.sum() == pytest.approx(share, abs=0.004)
    assert total / 400 == pytest.approx(value[ready].mean(), rel=0.05)  # beta = 1: as if drawn uniformly
    found = replay.draw(8, 0.4, rng)
    wanted = (share[np.searchsorted(ready, found.positions)] * len(ready)) ** -0.4
    assert found.weights.numpy() == pytest.approx(wanted / wanted.max(), rel=1e-5)


def test_exponent_0_draws_all_alike_and_new_transitions_have_the_highest_priority():
    alike, replay = memory(exponent=0.0), memory(exponent=1.0)
    for one in (alike, replay):
        tape = Tape(one)
        tape.add(10)
        one.learned(np.flatnonzero(one.tree.priorities), np.linspace(0.1, 5.0, one.ready))
        tape.add(1)
    assert set(alike.tree.priorities[alike.tree.priorities > 0]) == {1.0}
    newest = (11 - 1 - replay.n_step) * 3 + np.arange(3)
    assert replay.tree.priorities[newest] == pytest.approx([5.0 + 1e-6] * 3)
    assert replay.tree.priorities.max() == pytest.approx(5.0 + 1e-6)


@pytest.mark.parametrize("steps", [9, 50])
def test_a_restored_memory_goes_on_bit_for_bit(steps):
    replay = memory(labels=4)
    tape = Tape(replay)
    tape.add(steps)
    some = np.flatnonzero(replay.tree.priorities)[::2]
    replay.learned(some, np.linspace(0, 9, len(some)))
    buffer = io.BytesIO()
    torch.save(replay.state(), buffer)
    buffer.seek(0)
    other = memory(labels=4)
    Tape(other, seed=9).add(31)  # what it held before is gone
    other.restore(torch.load(buffer, weights_only=True))
    for one in (replay, other):
        following = Tape(one, seed=7)
        following.rows = list(tape.rows)
        following.add(7)
    rng = [np.random.default_rng(3) for _ in range(2)]
    one, two = replay.draw(40, 0.6, rng[0]), other.draw(40, 0.6, rng[1])
    assert np.array_equal(one.positions, two.positions)
    for key in ("frames", "next_frames", "actions", "returns", "discounts", "weights", "teacher_policy"):
        assert torch.equal(getattr(one, key), getattr(two, key))
    with pytest.raises(ShapeError, match="replay"):
        memory(envs=2, labels=4).restore(replay.state())


def test_a_frame_is_held_once_and_too_small_a_memory_is_refused():
    replay = memory(capacity=3000)
    assert replay.frames.nbytes == 3000 * 2
    with pytest.raises(ConfigError, match=r"dqn\.replay to at least 15"):
        memory(capacity=14)
