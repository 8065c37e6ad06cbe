"""One stage in progress: stopping after any update and going on equals never having stopped, weights and log alike."""

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from small_stages import CPU, SHAPES, TMAZE, config_of, flat, go, make, teacher_for, toys  # noqa: F401  a fixture

from cosearch.compute import compute_device
from cosearch.rl.teacher import Teacher, load_network
from cosearch.seeding import Streams
from cosearch.training.algorithms import make_training
from latency_tables.errors import NonFiniteError

CASES = [
    pytest.param("procgen:starpilot", "supernet", True, marks=pytest.mark.slow),
    pytest.param("procgen:starpilot", "network", True, marks=pytest.mark.slow),
    pytest.param("minatar:breakout", "supernet", False, marks=pytest.mark.slow),
    pytest.param("minatar:breakout", "network", False, marks=pytest.mark.slow),
    pytest.param("toy:limit", "supernet", True, marks=pytest.mark.slow),
    (TMAZE, "supernet", True),  # paths and a teacher with a memory, episodes that lie across the stop
    pytest.param(TMAZE, "network", True, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("env, kind, taught", CASES)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(env, kind, taught, tmp_path):
    if env.startswith("minatar"):
        pytest.importorskip("minatar", reason="MinAtar is not installed")
    teacher = teacher_for(env, tmp_path) if taught else None
    whole, _ = make(env, kind, teacher)
    wanted = go(whole, 5)
    first, streams = make(env, kind, teacher)
    log = go(first, 2)
    buffer = io.BytesIO()
    torch.save({"training": first.state(), "streams": streams.state_dict()}, buffer)
    go(first, 1)  # what happens after the checkpoint is lost with the process
    buffer.seek(0)
    saved = torch.load(buffer)
    second, streams = make(env, kind, teacher)
    go(second, 1)
    streams.load_state_dict(saved["streams"])
    second.restore(saved["training"])
    log += go(second, 3)
    assert log == wanted and log[-1]["step"] == 160
    mine, theirs = flat(second.state()), flat(whole.state())
    assert len(mine) == len(theirs) > 10 and all(torch.equal(a, b) for a, b in zip(mine, theirs))


def test_the_threads_end_even_where_the_environments_do_not(monkeypatch):
    training, _ = make("toy:limit", "network")
    ended = []

    def stuck():
        raise KeyboardInterrupt

    monkeypatch.setattr(training.stage.env, "close", stuck)
    monkeypatch.setattr(training.stage.lanes, "close", lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt):
        training.close()
    assert ended == [True]


def test_a_state_is_a_copy_that_training_does_not_move():
    for kind in ("network", "supernet"):
        training, _ = make("toy:limit", kind)
        go(training, 1)
        state = training.state()
        kept = [t.clone() for t in flat(copy.deepcopy(state))]
        go(training, 1)
        assert all(torch.equal(a, b) for a, b in zip(kept, flat(state)))
        training.restore(state)
        go(training, 1)
        assert all(torch.equal(a, b) for a, b in zip(kept, flat(state)))


def test_the_seed_fixes_a_run_and_two_stages_play_different_games():
    one, same = (make("toy:limit", "network")[0] for _ in range(2))
    assert go(one, 2) == go(same, 2)
    streams = Streams(3)
    other = make_training(one.stage.config, one.stage.subject, streams, None, total_steps=320, env_index=1)
    assert (other.stage.env.observe() != make("toy:limit", "network")[0].stage.env.observe()).any()


def test_steps_learning_rate_and_distillation_follow_the_progress(tmp_path):
    training, _ = make("toy:limit", "network", teacher_for("toy:limit", tmp_path), steps=96)
    log = go(training, 3)
    assert training.finished and training.progress == 1.0 and [line["step"] for line in log] == [32, 64, 96]
    lr, low = training.stage.config.rl.lr, training.stage.config.rl.lr_end_fraction * training.stage.config.rl.lr
    wanted = [lr - done / 96 * (lr - low) for done in (0, 32, 64)]
    assert 0 < low < lr / 10 and [line["lr"] for line in log] == pytest.approx(wanted)
    assert [line["distill_weight"] for line in log] == pytest.approx([1.0, 1 - 0.5 / 3, 1 - 1 / 3])
    assert training.stage.subject.optimiser.param_groups[0]["lr"] == pytest.approx(wanted[-1])
    assert {"distill_actor", "distill_critic", "teacher_agreement"} <= set(log[0])


@pytest.mark.parametrize("hold, wanted", [(0.25, [1.0, 0.9, 0.5]), (1.0, [1.0, 1.0, 1.0])])
def test_the_learning_rate_is_held_before_it_falls(hold, wanted):
    config = config_of("toy:limit", lr_hold_fraction=hold, lr_end_fraction=0.1)
    training, _ = make("toy:limit", "network", config=config, steps=96)
    assert [line["lr"] / training.stage.config.rl.lr for line in go(training, 3)] == pytest.approx(wanted)


def test_the_teachers_reward_scale_is_used_and_its_weights_stay(tmp_path):
    teacher = teacher_for("toy:limit", tmp_path)
    frames = torch.randint(0, 256, (8, *SHAPES["toy:limit"][0]), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = [output.clone() for output in teacher.forward(frames)]
    taught, _ = make("toy:limit", "network", teacher)
    alone, _ = make("toy:limit", "network")
    log = go(taught, 2)
    assert taught.rounds.collector.scale.std == 2.0 != alone.rounds.collector.scale.std
    after = teacher.forward(frames)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(output.requires_grad for output in after)  # its weights are frozen: nothing of it takes part in the gradient
    assert go(alone, 2)[1]["entropy"] != log[1]["entropy"] and "distill_actor" not in go(alone, 1)[0]


def test_rewards_are_scaled_by_returns_of_their_own_discount_where_it_is_given():
    config = config_of("toy:limit")
    short = replace(config, rl=replace(config.rl, reward_gamma=0.1))
    runs = {name: make("toy:limit", "network", config=values)[0] for name, values in (("own", config), ("short", short))}
    logs = {name: go(training, 2) for name, training in runs.items()}
    assert runs["own"].rounds.collector.scale.gamma == config.rl.discount and runs["short"].rounds.collector.scale.gamma == 0.1
    assert runs["own"].rounds.collector.gamma == runs["short"].rounds.collector.gamma == config.rl.discount  # the learner's stays
    assert runs["short"].rounds.collector.scale.std < runs["own"].rounds.collector.scale.std  # returns of fewer rewards vary less
    assert logs["own"][0]["loss_value"] != logs["short"][0]["loss_value"]


def test_teacher_labels_are_its_outputs_and_a_perfect_student_has_no_divergence(tmp_path):
    teacher = teacher_for("toy:limit", tmp_path)
    training, _ = make("toy:limit", "network", teacher)
    rollout = training.rounds.collector.collect([teacher.forward])
    teacher.label(rollout)
    logits, value = load_network(teacher.record)(rollout.frames.flatten(0, 1))  # read from its file once more
    torch.testing.assert_close(rollout.teacher_policy.flatten(0, 1), torch.log_softmax(logits, -1))
    torch.testing.assert_close(rollout.teacher_value, value.view(8, 4))
    torch.testing.assert_close(rollout.teacher_policy.gather(-1, rollout.actions[..., None])[..., 0], rollout.log_prob)
    torch.testing.assert_close(rollout.teacher_value, rollout.value)
    surer = Teacher(teacher.record, device=torch.device("cpu"), bf16=False, temperature=0.5)
    surer.label(rollout)
    squared = torch.softmax(logits, -1).square()
    torch.testing.assert_close(rollout.teacher_policy.flatten(0, 1).exp(), squared / squared.sum(-1, keepdim=True))
    torch.testing.assert_close(surer.log_probs(rollout.frames.flatten(0, 1)), rollout.teacher_policy.flatten(0, 1))
    assert torch.equal(surer.plays(rollout.frames.flatten(0, 1))[0], teacher.plays(rollout.frames.flatten(0, 1))[0])


def test_a2c_makes_one_pass():
    training, _ = make("toy:limit", "network", config=config_of("toy:limit", algorithm="a2c"))
    assert training.rounds.learner.options.epochs == 1 and training.rounds.learner.options.algorithm == "a2c"
    assert make("toy:limit", "network")[0].rounds.learner.options.epochs == 2


def test_warmup_trains_weights_only():
    training, _ = make("toy:limit", "supernet")
    training.stage.subject.warmup = 0.5
    weights = [p.detach().clone() for p in training.stage.subject.supernet.parameters()]
    go(training, 4)
    assert all((row == row[0]).all() for row in training.stage.subject.strategy.arch.alpha)
    assert training.stage.subject.penalties[0].multiplier == 0.0
    assert any(not torch.equal(a, b) for a, b in zip(weights, training.stage.subject.supernet.parameters()))
    go(training, 3)
    assert any((row != row[0]).any() for row in training.stage.subject.strategy.arch.alpha)


def test_the_price_of_a_missed_target_lowers_the_expected_latency():
    training, _ = make("toy:limit", "supernet", fast=True)
    log = go(training, 10)
    assert log[-1]["cost_multiplier"] > log[0]["cost_multiplier"] > 0
    assert log[-1]["latency_expected_s"] < log[0]["latency_expected_s"]
    assert sum(log[0]["arch_probabilities"][0]) == pytest.approx(1.0, abs=1e-5) and log[0]["temperature"] > log[-1]["temperature"]


def test_half_precision_trains():
    for kind in ("network", "supernet"):
        log = go(make("toy:limit", kind, config=config_of("toy:limit", bf16=True))[0], 2)
        assert all(math.isfinite(line[key]) for line in log for key in ("loss_policy", "loss_value", "grad_norm"))


def test_weights_that_are_not_finite_stop_the_run():
    training, _ = make("toy:limit", "network")
    with torch.no_grad():
        next(training.stage.subject.network.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        training.advance()


def test_compute_device():
    assert compute_device("cpu") == CPU and compute_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
