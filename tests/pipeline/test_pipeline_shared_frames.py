"""Candidates that learn from shared frames: one step by hand, who plays, one that fails, rungs, a kill, and what is refused."""

import copy
import itertools
from collections import Counter
from statistics import fmean

import pytest
import torch
from pipeline_runs import TINY_PROPOSALS, Moment, assert_equal, command, results
from torch.nn import functional as F

from cosearch.cli.app import main
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import RunDir
from cosearch.rl.learning.learner import Learner
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.training.shared_frames import SharedFrames
from latency_tables.errors import NonFiniteError

WORDS = (
    *(word for word in TINY_PROPOSALS if word != "distill.teacher=none"),
    *("--env", "minatar:breakout", "--strategy", "random", "strategy.candidates=4", "strategy.reduction_factor=2"),
    *("rl.minibatch=16", "budget.search_steps=512", "budget.retrain_steps=0", "strategy.judge_by=divergence"),
    "strategy.frames=shared",
)
ASKED = (*(word for word in WORDS if "=" in word), "env.name=minatar:breakout", "strategy.name=random")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    done = command("search", "--run", "one", *WORDS, folder=folder)
    assert done.code == 0, done.err
    return folder / "runs" / "one", done.events


@pytest.fixture
def shared():
    """-> a training of so many networks; ``words`` are added to the configuration."""
    opened = []

    def make(count, *words):
        plan = make_plan(resolve_task(overrides=(*ASKED, *words)))
        teacher, draws = plan.load_teacher(CPU), torch.Generator().manual_seed(0)
        networks = {3 * i: derive(plan.space.sample(draws), draws) for i in range(count)}
        opened.append(SharedFrames(plan.config, networks, Streams(5), teacher, total_steps=640, share=0.5, device=CPU))
        return opened[-1]

    yield make
    for training in opened:
        training.close()


def names_of(lines):
    return list(dict.fromkeys(line["candidate"] for line in lines))


def played(training, monkeypatch):
    """A round, and the rollout that it learned from."""
    seen, collect = [], training.collector.collect

    def watched(*asked):
        seen.append(collect(*asked))
        return seen[-1]

    monkeypatch.setattr(training.collector, "collect", watched)
    values = training.advance()
    return values, seen[-1]


def test_each_member_has_the_gradient_that_its_own_divergence_on_all_frames_asks_for(shared, monkeypatch):
    words = ("rl.epochs=1", "rl.minibatch=64", "rl.bf16=false", "distill.actor=0.7", "distill.critic=0.2")
    training = shared(2, *words)
    before = {index: copy.deepcopy(member.subject.network) for index, member in training.members.items()}
    values, rollout = played(training, monkeypatch)
    frames, taught = rollout.frames.flatten(0, 1), rollout.teacher_policy.flatten(0, 1)
    assert len(frames) == 32
    divergences = {}
    for index, network in before.items():
        logits, value = network(frames)
        divergence = (taught.exp() * (taught - F.log_softmax(logits, -1))).sum(-1).mean()
        missed = 0.5 * (value - rollout.teacher_value.flatten()).square().mean()
        (0.7 * divergence + 0.2 * missed).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.config.rl.max_grad_norm)
        for ours, theirs in zip(training.members[index].subject.network.parameters(), network.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
            assert not torch.equal(ours, theirs)
        assert training.members[index].divergences == pytest.approx([divergence.item()], rel=1e-5)
        assert training.latest[index]["distill_actor"] == pytest.approx(divergence.item(), rel=1e-5)
        divergences[index] = divergence.item()
    assert divergences[0] != divergences[3]
    assert training.leader == min(divergences, key=divergences.get)
    assert values["distill_actor"] == pytest.approx(min(divergences.values()), rel=1e-5)


@pytest.mark.parametrize(
    "members, turns",
    [
        (1, [[0], [0]]),
        (2, [[0, 1], [0, 1]]),
        (3, [[0, 1], [2, 0], [1, 2]]),  # four environments: two at a time
        (5, [[0, 1, 2, 3], [4, 0, 1, 2]]),
    ],
)
def test_members_play_in_turn_as_many_as_share_the_environments_evenly(shared, monkeypatch, members, turns):
    training = shared(members)
    order, seen = list(training.members.values()), []
    for place, member in enumerate(order):
        monkeypatch.setattr(member.subject, "actors", lambda place=place: [place])
    for training.rounds in range(len(turns)):
        seen.append(training._players())
    assert seen == turns
    assert len({len(turn) for turn in turns}) == 1 and all(4 % len(turn) == 0 for turn in turns)


def test_of_a_member_that_fails_the_others_neither_play_nor_learn_less(shared, monkeypatch):
    training, update = shared(3), Learner.update
    broken = training.members[3].subject

    def failing(self, subject, *asked):
        if subject is broken:
            raise NonFiniteError("a loss is not finite")
        return update(self, subject, *asked)

    monkeypatch.setattr(Learner, "update", failing)
    training.advance()
    training.advance()
    assert list(training.learning) == [0, 6]
    assert training.members[3].failure == "a loss is not finite" and training.members[3].divergence is None
    assert [len(training.members[index].divergences) for index in (0, 6)] == [2, 2]
    monkeypatch.setattr(Learner, "update", lambda self, *asked: (_ for _ in ()).throw(NonFiniteError("none left")))
    with pytest.raises(NonFiniteError, match="none left"):
        training.advance()


def test_all_rungs_learn_from_one_line_of_frames_and_the_least_divergence_goes_on(straight):
    run, _ = straight
    record = RunDir.open(run).read_json("architecture.json")
    candidates, lines = record["derived_by"]["candidates"], RunDir.open(run).read_metrics()
    lines = [line for line in lines if line["stage"] == "search"]
    assert Counter(line["step"] for line in lines) == {32 * (i + 1): n for i, n in enumerate([4] * 4 + [2] * 4 + [1] * 8)}
    assert RunDir.open(run).read_json("summary.json")["env_steps"] == 512  # not those of each candidate added up
    assert sorted(one["env_steps"] for one in candidates) == [128, 128, 256, 512]  # of 16 rollouts 4, 4 more, 8 more
    space = make_plan(resolve_task(overrides=ASKED)).space
    for one in candidates:
        name = "/".join(space.architecture(one["choices"]).choice_names)
        seen = [line["distill_actor"] for line in lines if line["candidate"] == name]
        assert len(seen) == one["env_steps"] // 32
        assert one["divergence"] == pytest.approx(fmean(seen[len(seen) // 2 :]))
    for steps, kept in ((128, 2), (256, 1)):
        seen = [
            [line["distill_actor"] for line in lines if line["candidate"] == name and line["step"] <= steps]
            for name in names_of(lines)
        ]
        halves = sorted(range(4), key=lambda i: fmean(seen[i][len(seen[i]) // 2 :]) if len(seen[i]) == steps // 32 else 9.0)
        went_on = [
            i for i, name in enumerate(names_of(lines)) if any(r["candidate"] == name and r["step"] > steps for r in lines)
        ]
        assert sorted(halves[:kept]) == went_on
    won = max(candidates, key=lambda one: one.get("rung", 0))
    assert won["rung"] == 2 and record["choices"] == won["choices"]
    assert record["derived_by"]["method"].endswith("that trained for longest, all on the same frames")
    assert all(one["score"] is None for one in candidates)  # the returns are of all who played


def test_with_frames_of_their_own_the_same_candidates_learn_less(straight, tmp_path):
    run, _ = straight
    done = command("search", "--run", "one", *(w for w in WORDS if w != "strategy.frames=shared"), folder=tmp_path)
    assert done.code == 0, done.err
    own, ours = (
        RunDir.open(folder).read_json("architecture.json")["derived_by"]["candidates"] for folder in (tmp_path / "runs/one", run)
    )
    assert [one["choices"] for one in own] == [one["choices"] for one in ours]
    assert sorted(one["env_steps"] for one in own) == [64, 64, 128, 256]


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_killed_search_goes_on_to_the_same_result(straight, tmp_path, share):
    run, events = straight
    done = command("search", "--run", "one", *WORDS, folder=tmp_path, moment=Moment("search", int(share * events["search"])))
    assert done.code < 0, done.err
    done = command("resume", "runs/one", folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "one"), results(run))


def test_an_agent_for_each_of_two_devices_comes_from_one_such_search(tmp_path):
    words = (*(word for word in WORDS if not word.startswith("objective.")), "--device", "jetson,pixel-3")
    done = command("search", "--run", "two", *words, folder=tmp_path)
    assert done.code == 0, done.err
    for name in ("jetson", "pixel-3"):
        record = RunDir.open(tmp_path / "runs" / "two" / "agents" / name).read_json("architecture.json")
        assert len(record["derived_by"]["candidates"]) == 4


REFUSED = {
    "strategy.judge_by=score": "compares candidates by what they learn from a teacher: set strategy.judge_by=divergence",
    "rl.algorithm=dqn": "strategy.frames=shared needs rl.algorithm=ppo or a2c, got dqn",
    "strategy.workers=2": "strategy.workers=2 has no effect with strategy.frames=shared",
    "strategy.name=evolution": "strategy 'evolution' names candidates by the results of earlier ones",
    "strategy.name=predictor": "strategy.name=predictor with strategy.values.initial=4, or strategy.frames=own",
    "distill.teacher=none": "needs a teacher whose actor the search distils",
}
LEFT_OUT = {
    "rl.algorithm": ("rl.minibatch", "rl.epochs"),
}


@pytest.mark.parametrize("word, said", REFUSED.items())
def test_what_cannot_learn_from_the_frames_of_others_is_refused_in_one_message(word, said, capsys):
    key = word.partition("=")[0]
    words = [each for each in WORDS if not each.startswith(f"{key}=")]
    if key == "strategy.name":
        words[words.index("random")] = word.partition("=")[2]
        word = "strategy.frames=shared"
    words = [each for each in words if not each.startswith(LEFT_OUT.get(key, "none of them"))]
    assert main(["search", "--dry-run", *words, word]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_networks_with_a_memory_cannot_learn_from_what_others_remembered(capsys):
    left_out = ("space.", "budget.clip", "--env", "minatar:", "objective.")
    words = [word for word in WORDS if not word.startswith(left_out)]
    words += ["--env", "gym:CartPole-v1", 'space.values={"memory": ["gru_w16"]}', "objective.latency_ratio=4"]
    assert main(["search", "--dry-run", *words, "distill.teacher=none"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "strategy.frames=shared needs networks without a memory" in said
    assert "needs a teacher whose actor the search distils" in said  # all at once


def test_the_largest_network_alone_learns_as_they_do_and_needs_a_teacher(tmp_path, capsys):
    words = [word for word in WORDS if not word.startswith(("strategy.", "--strategy", "random"))]
    found = {}
    for frames in ("own", "shared"):
        done = command("search", "--run", frames, *words, "strategy.name=largest", f"strategy.frames={frames}", folder=tmp_path)
        assert done.code == 0, done.err
        found[frames] = RunDir.open(tmp_path / "runs" / frames)
    own, shared = (run.read_json("architecture.json") for run in found.values())
    assert own["choices"] == shared["choices"]
    assert [one["env_steps"] for each in (own, shared) for one in each["derived_by"]["candidates"]] == [512, 512]
    assert shared["derived_by"]["candidates"][0]["score"] is not None  # nobody else played
    assert own["derived_by"]["candidates"][0]["divergence"] != shared["derived_by"]["candidates"][0]["divergence"]
    for word in ("distill.teacher=none", "distill.actor=0"):
        assert main(["search", "--dry-run", *words, "strategy.name=largest", "strategy.frames=shared", word]) == 2
        assert "strategy.frames=shared needs a teacher whose actor the search distils" in " ".join(
            capsys.readouterr().err.split()
        )


def test_a_predictor_whose_candidates_are_all_first_ones_may_share_frames(capsys):
    words = ["predictor" if word == "random" else word for word in WORDS]
    assert main(["search", "--dry-run", *words, "strategy.values.initial=4", "strategy.values.rules=true"]) == 0


def test_every_combination_of_rungs_of_shared_frames_adds_up_to_the_search():
    from cosearch.config.run import resolve
    from cosearch.planning.budget import candidate_rungs
    from cosearch.planning.builtins import load_builtins
    from cosearch.strategies.base import STRATEGIES

    load_builtins()
    for rollouts, candidates, factor in itertools.product((16, 17, 40), (4, 6, 8), (1, 2, 3)):
        words = ("env.num_envs=4", "rl.rollout_steps=8", f"budget.search_steps={32 * rollouts}", "strategy.frames=shared")
        config = resolve(overrides=[*words, f"strategy.candidates={candidates}", f"strategy.reduction_factor={factor}"])
        found = candidate_rungs(config, STRATEGIES.get("random"))
        assert sum(rung[0] for rung in found) == 32 * rollouts and all(len(set(rung)) == 1 for rung in found)
        assert [len(rung) for rung in found] == list(
            itertools.takewhile(bool, (candidates // factor**k for k in range(9 if factor > 1 else 1)))
        )
