"""Lanes: results in order, errors of any lane, the same gradients and labels however many there are, and they resume exactly."""

import dataclasses
import threading

import pytest
import torch
from small_stages import config_of, flat, go, make, teacher_for, toys  # noqa: F401  the toys are registered for a test
from test_rl_learner import BASE, CPU, batch, network

from cosearch.config.run import resolve
from cosearch.rl.learning.lanes import SHARE, Labelling, Lanes, lanes_for
from cosearch.rl.learning.learner import Distillation, Learner, micro_batch_for
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.seeding import Streams
from cosearch.testing.conformance import seeded
from cosearch.training.algorithms import make_training


@pytest.fixture(params=[1, 2, 3])
def lanes(request):
    made = Lanes(request.param)
    yield made
    made.close()


def test_results_come_in_order_and_each_lane_keeps_its_own(lanes):
    seen = {}

    def work(item):
        seen.setdefault(threading.get_ident(), []).append(item)
        return item * item

    assert lanes.run(work, range(7)) == [n * n for n in range(7)] and lanes.run(work, []) == []
    assert seen[threading.get_ident()][:2] == [0, lanes.count] and lanes.submit(work, 5).result() == 25


def test_an_error_of_any_lane_is_raised_when_all_have_ended(lanes):
    done = []

    def work(item):
        if item in (1, 2):
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ValueError, match=r"1|2"):
        lanes.run(work, range(6))
    before = len(done)
    assert lanes.run(lambda item: item, [4, 5]) == [4, 5] and len(done) == before


def gradients(count, micro_batch, distillation=None):
    class Spy(NetworkSubject):
        def step(self, max_grad_norm, loss):
            self.found = [p.grad.clone() for p in self.network.parameters()]
            return 1.0

    spy, lanes = Spy(network(), lr=1e-3, bf16=False, device=CPU), Lanes(count)
    report = Learner(dataclasses.replace(BASE, micro_batch=micro_batch), seeded(0), lanes).update(
        spy, spy.actors(), batch(), distillation
    )
    lanes.close()
    return spy.found, report


@pytest.mark.parametrize("count, micro_batch", [(2, 24), (2, 5), (3, 4), (30, 24)])
def test_lanes_add_up_to_the_whole_minibatch(count, micro_batch):
    whole, report = gradients(1, 24, Distillation(0.7, 0.3))
    parts, other = gradients(count, micro_batch, Distillation(0.7, 0.3))
    for a, b in zip(whole, parts):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert other == pytest.approx(report, rel=1e-4, abs=1e-6)
    again, _ = gradients(count, micro_batch, Distillation(0.7, 0.3))
    assert all(torch.equal(a, b) for a, b in zip(parts, again))


def test_labels_are_the_same_bits_however_many_lanes_and_whenever_frames_become_known(tmp_path, lanes):
    teacher = teacher_for("toy:limit", tmp_path)
    frames = torch.randint(0, 256, (50, 6, 6, 1), generator=seeded(0)).to(torch.uint8)
    wanted = Labelling(teacher.forward, Lanes(), 8)
    wanted.frames(frames, 50)
    found = Labelling(teacher.forward, lanes, 8)
    for known in (3, 9, 25, 50):
        found.frames(frames, known)
    results = found.result()
    assert [len(part[0]) for part in results] == [8] * 6 + [2]
    for mine, theirs in zip(results, wanted.result()):
        assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])


@pytest.mark.parametrize("kind", ["network", pytest.param("supernet", marks=pytest.mark.slow)])
def test_a_training_with_two_lanes_resumes_bit_for_bit_and_differs_from_one_by_rounding(kind, tmp_path):
    teacher = teacher_for("toy:limit", tmp_path)

    def training(count):
        made, streams = make("toy:limit", kind, teacher)
        made.stage.lanes = made.rounds.learner.lanes = Lanes(count)
        return made, streams

    whole, _ = training(2)
    wanted = go(whole, 4)
    first, streams = training(2)
    log = go(first, 2)
    state, noise = first.state(), streams.state_dict()
    second, streams = training(2)
    streams.load_state_dict(noise)
    second.restore(state)
    log += go(second, 2)
    assert log == wanted
    assert all(torch.equal(a, b) for a, b in zip(flat(second.state()), flat(whole.state())))
    alone = go(training(1)[0], 1)[0]
    for key in ("loss_policy", "loss_value", "distill_actor", "entropy"):
        assert alone[key] == pytest.approx(wanted[0][key], rel=1e-3, abs=1e-5), key


def test_threads_become_lanes_as_far_as_a_minibatch_can_be_shared():
    assert [lanes_for(threads, 128) for threads in (1, 2, 8)] == [1, 2, 2] and lanes_for(4, SHARE - 1) == 1
    before = torch.get_num_threads()
    try:
        for threads, minibatch, wanted in ((2, 128, (2, 1)), (4, 128, (2, 2)), (2, 16, (1, 2)), (1, 128, (1, 1))):
            config = resolve(
                options={
                    "threads": threads,
                    "rl.minibatch": minibatch,
                    "env.name": "toy:limit",
                    "env.num_envs": 4,
                    "distill.teacher": "none",
                }
            )
            made = make_training(
                config, NetworkSubject(network(), lr=1e-3, bf16=False, device=CPU), Streams(0), None, total_steps=10
            )
            assert (made.stage.lanes.count, torch.get_num_threads()) == wanted
            made.close()
    finally:
        torch.set_num_threads(before)


def test_micro_batches_grow_as_frames_shrink():
    assert [micro_batch_for((side, side, 3)) for side in (84, 64, 32, 10)] == [128, 128, 512, 1024]
