"""Policies with a memory: what is learned from equals what was played, over ends and time limits; labels; resume."""

import copy

import numpy as np
import pytest
import torch

from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import evaluate, score_within
from cosearch.rl.heldout import HeldOut
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.memory import Carried, RecurrentActor, recurrent
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.rl.teacher import Teacher, save_teacher
from cosearch.space.network import AgentNetwork
from cosearch.testing.conformance import seeded
from latency_tables.errors import ShapeError
from latency_tables.opspec import OpSpec

load_builtins()
CPU, TASK = torch.device("cpu"), "gym:cosearch.testing.tmaze:TMaze-v0"
KINDS = {
    "gru": {"hidden": 6, "activation": "none"},
    "lstm": {"hidden": 5, "activation": "none"},
    "stack": {"groups": 3, "activation": "tanh"},
    "linear": {"activation": "tanh"},
}


def network(kind="gru", seed=0):
    ops = [OpSpec("linear", 2, 1, 1, 8, activation="tanh"), OpSpec(kind, 8, 1, 1, 8, **KINDS[kind])]
    made = AgentNetwork([*ops, OpSpec("head", 8, 1, 1, 4, activation="none")], seeded(seed))
    made.ends.see(torch.randn(50, 2, generator=seeded(9)))
    with torch.no_grad():
        made.blocks[2].outputs.weight.normal_(0, 0.7, generator=seeded(seed + 1))  # a policy that depends on what it reads
    return made


def env(envs=4, seed=0, length=3):
    return make_env(TASK, EnvOptions(envs, seed, kwargs={"length": length}))


def collector(envs=4, steps=40, **more):
    scale = RewardScale(envs, 0.9, 1.0)
    return Collector(env(envs, **more), steps, gamma=0.9, lam=0.8, scale=scale, generator=seeded(1))


def options(**changes):
    return LearnerOptions(**{"epochs": 1, "minibatch": 160, "micro_batch": 160, "max_grad_norm": 1e9, **changes})


class Spy(NetworkSubject):
    """Keeps the gradients of the last step and never moves."""

    def step(self, max_grad_norm, found):
        self.gradients = [p.grad.clone() for p in self.network.parameters()]
        return 1.0


@pytest.mark.parametrize("kind", ["gru", "lstm", "stack"])
def test_a_rollout_that_is_learned_from_gives_what_it_gave_when_it_was_played(kind):
    """Two rollouts: the second one begins in the middle of episodes. Ratio 1, and every value the same."""
    subject, game = Spy(network(kind), lr=1e-3, bf16=False, device=CPU), collector()
    (actor,) = subject.actors()
    for number in range(2):
        rollout = game.collect([actor])
        begins, memory = rollout.segments.begins, rollout.segments.memory
        assert begins[1:-1].any(0).all() and not begins[0].any() and bool(memory.any()) == (number == 1)
        outputs, value, _ = actor.unroll(rollout.frames.flatten(0, 1), memory, begins[:-1])
        parameters = rollout.policy.read(outputs)
        log_prob = rollout.policy.log_prob(parameters, rollout.actions.flatten()).view(rollout.log_prob.shape)
        torch.testing.assert_close(log_prob, rollout.log_prob, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(value.view(rollout.value.shape), rollout.value, rtol=1e-5, atol=1e-6)
        terms = Learner(options(), seeded(2)).update(subject, [actor], rollout, None)
        assert terms["kl_policy"] == pytest.approx(0.0, abs=1e-6) and terms["clip_fraction"] == 0.0
        others = actor.unroll(rollout.frames.flatten(0, 1), memory * 0, begins[:-1] & False)[1]
        assert not torch.allclose(others.view(rollout.value.shape), rollout.value, atol=1e-3)  # without ends it is not


def test_values_behind_a_time_limit_and_behind_a_rollout_are_of_the_memory_there():
    """By hand, step by step, with a policy that only walks so that every episode is cut."""
    net = network()
    with torch.no_grad():
        net.blocks[2].outputs.bias.copy_(torch.tensor([1e3, -1e3, -1e3, 0.0]))
    rollout = collector(envs=1, steps=20, length=3).collect([RecurrentActor(net.memory_size, net.unroll)])
    memory, values, after = torch.zeros(1, 6), [], []
    for t, frame in enumerate(rollout.frames):
        _, value, memory = net.unroll(frame, memory)
        values.append(float(value.detach()))
        after.append(memory)
        memory = memory * (not rollout.segments.begins[t + 1])
    assert rollout.segments.begins[:, 0].nonzero().flatten().tolist() == [16]  # four times the shortest way, 3 + 1 steps
    walls = torch.tensor([[0.0, 1.0]])
    at_limit, at_end = (float(net.unroll(walls, m)[1].detach()) for m in (after[15], after[19]))
    trace, wanted = 0.0, np.zeros(20)
    for t in reversed(range(20)):
        following = 0.9 * (at_limit if t == 15 else at_end if t == 19 else values[t + 1])
        trace = following - values[t] + (0.0 if t == 15 else 0.9 * 0.8 * trace)
        wanted[t] = trace
    np.testing.assert_allclose(rollout.advantage[:, 0], wanted, atol=1e-5)


def test_the_gradients_are_those_of_each_environment_unrolled_alone():
    """Micro-batches of single environments, minibatches of all: the same gradient as one plain loop over everything."""
    subject, game = Spy(network("lstm"), lr=1e-3, bf16=False, device=CPU), collector(steps=12)
    (actor,) = subject.actors()
    game.collect([actor])
    rollout = game.collect([actor])
    g = seeded(3)
    rollout.teacher_policy = torch.log_softmax(torch.randn(12, 4, 3, generator=g), -1)
    rollout.teacher_value = torch.randn(12, 4, generator=g)
    learner = Learner(options(algorithm="a2c", minibatch=48, micro_batch=12, value_clip=False), seeded(0))
    learner.update(subject, [actor], rollout, Distillation(0.7, 0.3))
    net, advantage = network("lstm"), (rollout.advantage - rollout.advantage.mean()) / rollout.advantage.std()
    total = 0.0
    for i in range(4):
        memory = rollout.segments.memory[i : i + 1]
        for t in range(12):
            if rollout.segments.begins[t, i]:
                memory = torch.zeros_like(memory)
            logits, value, memory = net.unroll(rollout.frames[t, i : i + 1], memory)
            policy = torch.distributions.Categorical(logits=logits)
            teacher = torch.distributions.Categorical(logits=rollout.teacher_policy[t, i : i + 1])
            total = total - policy.log_prob(rollout.actions[t, i])[0] * advantage[t, i] - 0.01 * policy.entropy()[0]
            total = total + 0.5 * 0.5 * (value[0] - rollout.target[t, i]) ** 2
            total = total + 0.7 * torch.distributions.kl_divergence(teacher, policy)[0]
            total = total + 0.3 * 0.5 * (value[0] - rollout.teacher_value[t, i]) ** 2
    (total / 48).backward()
    for found, parameter in zip(subject.gradients, net.parameters()):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-6)


def test_minibatches_are_of_environments():
    seen = []

    class Watched(NetworkSubject):
        def actors(self):
            (actor,) = super().actors()

            def run(frames, memory, begins):
                if begins is not None:
                    seen.append(tuple(begins.shape))
                return actor.unroll(frames, memory, begins)

            return [RecurrentActor(actor.memory_size, run)]

    subject = Watched(network(), lr=1e-3, bf16=False, device=CPU)
    actors = subject.actors()
    rollout = collector(steps=10).collect(actors)
    Learner(options(minibatch=25, epochs=2), seeded(0)).update(subject, actors, rollout, None)
    assert seen == [(10, 2)] * 4  # 25 frames are two environments with 10 steps each


def test_playing_carries_the_memory_and_clears_it_at_ends():
    """A policy that turns to where it saw the cue: by hand, with a stack that still holds the first step."""
    net = AgentNetwork(
        [
            OpSpec("linear", 2, 1, 1, 2, activation="none"),
            OpSpec("stack", 2, 1, 1, 2, groups=4, activation="none"),
            OpSpec("head", 2, 1, 1, 4, activation="none"),
        ],
        seeded(0),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.blocks[0].linear.weight.copy_(torch.eye(2))
        net.blocks[1].outputs.weight[0, [0, 6]] = torch.tensor(
            [-1.0, 1.0]
        )  # takes the present away, puts the cue of three steps ago
        net.blocks[2].outputs.weight[:3] = torch.tensor([[0.0, 0.0], [-50.0, 100.0], [50.0, 100.0]])
        net.blocks[2].outputs.bias[0] = 60.0
    assert evaluate(net, env(8), 64, seeded(0), greedy=True).mean == 1.0
    assert score_within(net, env(8), 40, seeded(0)) == 1.0
    held_out = HeldOut(env(8), seeded(0))
    held_out.play(net, 6)
    saved, again = copy.deepcopy(held_out.state()), HeldOut(env(8), seeded(0))
    again.restore(saved)
    for player in (held_out, again):
        player.play(net, 30)
        assert player.score == 1.0
    forgetful = Carried(net, 8)
    forgetful.forget(np.ones(8, bool))
    assert evaluate(RecurrentActor(net.memory_size, lambda f, m, b: net.unroll(f, m * 0, b)), env(8), 64, seeded(0)).mean < 0.5


def test_each_episode_begins_with_nothing_remembered():
    """Three steps forward and then left, by counting: who counts on from the episode before turns in the corridor."""

    def count(frames, memory, begins):
        memory = memory + 1.0
        logits = torch.full((len(frames), 3), -1e4)
        logits[torch.arange(len(frames)), (memory[:, 0] > 3).long()] = 0.0
        return logits, memory[:, 0], memory

    actor = RecurrentActor(1, count)
    assert {abs(value) for value in evaluate(actor, env(8), 64, seeded(0)).returns} == {1.0}
    assert score_within(actor, env(8), 40, seeded(0)) * 8 * 10 % 2 == pytest.approx(0.0, abs=1e-6)  # ten episodes of 1 or -1 each
    held_out = HeldOut(env(8), seeded(0))
    held_out.play(actor, 6)
    held_out.play(actor, 2)  # goes on where it was: the second episode of each ends here
    assert [abs(value) for value in held_out._recent] == [1.0] * 16


def test_a_collector_goes_on_with_its_memory_after_a_resume():
    net = network()
    one, other = collector(), collector()
    actors = [RecurrentActor(net.memory_size, net.unroll)]
    one.collect(actors)
    other.restore(copy.deepcopy(one.state()))
    other.generator.set_state(one.generator.get_state())
    first, second = one.collect(actors), other.collect(actors)
    assert torch.equal(first.log_prob, second.log_prob) and torch.equal(first.segments.memory, second.segments.memory)
    assert "memory" not in collector().state()


@pytest.mark.parametrize("teacher, student", [("gru", "linear"), ("linear", "gru"), ("lstm", "gru")])
def test_a_teacher_labels_in_the_order_of_time_whatever_the_student_is(teacher, student, tmp_path):
    taught, net = network(teacher, seed=3), network(student)
    record = save_teacher(
        tmp_path / "t.json", taught, env=TASK, description="a teacher", gamma=0.9, reward_std=1.0, provenance={}
    )
    loaded = Teacher(record, device=CPU, bf16=False)
    own = {
        key: value.half().float() if value.is_floating_point() and "ends" not in key else value
        for key, value in taught.state_dict().items()
    }
    taught.load_state_dict(own)
    subject, game = NetworkSubject(net, lr=1e-3, bf16=False, device=CPU), collector(steps=9)
    play, memory = Carried(taught, 4), None
    for _ in range(2):
        rollout = game.collect(subject.actors())
        before, memory = memory, loaded.label(rollout, memory=memory)
        for t in range(9):
            with torch.no_grad():
                outputs, value = play(rollout.frames[t])
            torch.testing.assert_close(rollout.teacher_policy[t], torch.log_softmax(outputs, -1), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(rollout.teacher_value[t], value, rtol=1e-5, atol=1e-5)
            play.forget(rollout.segments.begins[t + 1].numpy())
        terms = Learner(options(), seeded(2)).update(subject, subject.actors(), rollout, Distillation(1.0, 0.5))
        assert terms["distill_actor"] > 0
        surer = Teacher(record, device=CPU, bf16=False, temperature=0.5)
        own = rollout.teacher_policy.clone()
        surer.label(rollout, memory=before)
        torch.testing.assert_close(rollout.teacher_policy, torch.log_softmax(2 * own, -1), rtol=1e-5, atol=1e-5)
    assert (memory is None) == (teacher == "linear")


def test_an_actor_with_a_memory_is_never_called_without():
    net = network()
    assert recurrent(net) is net and recurrent(network("linear")) is None and recurrent(lambda frames: None) is None
    for call in (net, RecurrentActor(net.memory_size, net.unroll)):
        with pytest.raises(ShapeError, match="unroll"):
            call(torch.zeros(1, 2))
