"""The DQN in whole stages and runs: every option shows, supernets learn, the export is the folded network, resumes are exact."""

import io
import signal

import pytest
import torch
from cut_episodes import check_cut_episode
from pipeline_runs import TARGET_S, TINY, Moment, assert_equal, command, results, steps
from small_stages import CPU, SHAPES, SMALL, flat, go, teacher_for, toys  # noqa: F401  the fixture puts the toys in

from cosearch.config.run import config_from_dict, resolve
from cosearch.config.search import StrategyConfig
from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.planning.options.unused import check_options
from cosearch.planning.request import resolve_request
from cosearch.record.rundir import RunDir
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.chain import chain_space
from cosearch.space.network import AgentNetwork
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.base import STRATEGIES
from cosearch.testing.conformance import seeded
from cosearch.training.algorithms import acting, as_deployed, as_policy, as_trained, make_training
from cosearch.training.on_policy import OnPolicy
from cosearch.training.supernet_subject import SuperNetSubject
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError

load_builtins()
OFF_POLICY = {"replay": 128, "learning_starts": 16, "minibatch": 16, "micro_batch": 16, "quantiles": 4, "target_interval": 2}
WORDS = (
    *(word for word in TINY if not word.startswith(("rl.minibatch", "rl.epochs"))),
    "rl.algorithm=dqn",
    *(f"dqn.{key}={value}" for key, value in OFF_POLICY.items()),
)


def config_of(env="toy:limit", rl=None, **dqn):
    return config_from_dict(
        {
            "env": {"name": env, "num_envs": 4},
            "seed": 3,
            "rl": {"algorithm": "dqn", "rollout_steps": 8, "bf16": False, **(rl or {})},
            "dqn": {**OFF_POLICY, **dqn},
        }
    )


def make(kind="network", config=None, teacher=None, total=320, strategy="reinforce", inherited=False):
    """A stage with streams of its own, as a new process would make it. Returns (training, streams)."""
    streams, config = Streams(3), config or config_of()
    space = chain_space(SMALL, *SHAPES[config.env.name.replace("signal", "limit")])
    lr, bf16 = config.dqn.lr, config.rl.bf16
    if kind == "network":
        network = as_trained(AgentNetwork(space.architecture([1, 2]).ops(), streams.torch("weights")), config, streams)
        subject = NetworkSubject(network, lr=lr, bf16=bf16, device=CPU)
    else:
        cost = TableCost(space, find_table("jetson"))
        penalty = DualPenalty(Constraint(cost, cost.base * 1.5), dual_lr=0.1, quadratic=1.0)
        supernet = as_trained(SuperNet(space, streams.torch("weights")), config, streams)
        info, section = STRATEGIES.get(strategy), StrategyConfig(name=strategy, active_paths=2, lr=0.05, paths_per_rollout=2)
        made = info.make(space, info.options(section), streams.torch("arch"))
        subject = SuperNetSubject(
            supernet, made, [penalty], paths=info.paths(section), fresh=True, lr=lr, bf16=bf16, device=CPU, warmup=0.0
        )
    return make_training(config, subject, streams, teacher, total_steps=total, inherited=inherited), streams


@pytest.mark.parametrize(
    "kind, taught, size",
    [
        ("network", True, 128),
        pytest.param("supernet", False, 128, marks=pytest.mark.slow),
        pytest.param("supernet", True, 4000, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(kind, taught, size, tmp_path):
    config = config_of(replay=size)  # 128 frames: the ring is written over more than once
    teacher = teacher_for("toy:limit", tmp_path) if taught else None
    whole, _ = make(kind, config, teacher)
    wanted = go(whole, 9)
    first, streams = make(kind, config, teacher)
    log = go(first, 5)
    buffer = io.BytesIO()
    torch.save({"training": first.state(), "streams": streams.state_dict()}, buffer)
    go(first, 1)  # what happens after the checkpoint is lost with the process
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second, streams = make(kind, config, teacher)
    go(second, 2)
    streams.load_state_dict(saved["streams"])
    second.restore(saved["training"])
    log += go(second, 4)
    assert log == wanted and log[-1]["step"] == 288 and log[-1]["updates"] > 50
    mine, theirs = flat(second.state()), flat(whole.state())
    assert len(mine) == len(theirs) > 10 and all(torch.equal(a, b) for a, b in zip(mine, theirs))


def test_episodes_that_cannot_be_continued_are_cut_in_the_replay():
    """Else the frames of another episode would follow them, as if an action had led there."""
    training, _ = make()
    go(training, 2)
    check_cut_episode(training, make()[0])


def test_a_state_is_a_copy_that_training_does_not_move():
    training, _ = make()
    go(training, 2)
    state = training.state()
    kept = [t.clone() for t in flat(state)]
    go(training, 1)
    assert all(torch.equal(a, b) for a, b in zip(kept, flat(state)))


def test_updates_follow_the_replay_ratio_and_epsilon_its_schedule():
    training, _ = make(config=config_of(replay_ratio=2.0, epsilon_start=0.9, epsilon_end=0.1, epsilon_fraction=0.5), total=320)
    log = go(training, 10)
    # learning starts after 16 steps (and 4 steps of 4 environments); then 2 transitions a step in minibatches of 16
    assert [line["updates"] for line in log] == [(step - 16) * 2 // 16 for step in range(32, 321, 32)]
    assert [line["epsilon"] for line in log] == pytest.approx([max(0.1, 0.9 - 0.8 * step / 160) for step in range(32, 321, 32)])
    assert [line["replay_frames"] for line in log] == [min(128, step) for step in range(32, 321, 32)]
    assert go(make(config=config_of(epsilon_inherited=0.3, epsilon_fraction=1.0), inherited=True)[0], 1)[0]["epsilon"] < 0.3


@pytest.mark.slow
def test_the_teachers_policy_is_distilled_with_its_weight_and_temperature(tmp_path):
    teacher = teacher_for("toy:limit", tmp_path)
    plain = go(make()[0], 4)[-1]
    taught = [go(make(config=config_of(temperature=t), teacher=teacher)[0], 4)[-1] for t in (0.1, 0.2)]
    assert "distill_actor" not in plain and taught[0]["distill_weight"] == 1.0
    assert taught[0]["distill_actor"] > 0 and 0 <= taught[0]["teacher_agreement"] <= 1
    assert taught[0]["distill_actor"] != taught[1]["distill_actor"] and taught[0]["q_mean"] != plain["q_mean"]
    long = make(config=config_of(lr=3e-3), teacher=teacher, total=1600)[0]
    agreement = [line["teacher_agreement"] for line in go(long, 30) if "teacher_agreement" in line]
    assert agreement[-1] > agreement[0]


def test_half_precision_learns():
    log = go(make("supernet", config_of(rl={"bf16": True}))[0], 3)
    assert log[-1]["loss_value"] > 0 and log[-1]["grad_norm"] > 0


def test_a_two_level_strategy_learns_its_architecture_from_another_minibatch():
    training, _ = make("supernet", strategy="darts")
    draws, draw = [], training.rounds.replay.draw
    training.rounds.replay.draw = lambda *args: draws.append(draw(*args)) or draws[-1]
    before = [row.clone() for row in training.stage.subject.strategy.state()["logits"]]
    log = go(training, 2)
    assert training.stage.subject.held_out and len(draws) == 2 * log[-1]["updates"] > 0
    assert not (draws[-1].positions == draws[-2].positions).all()
    assert any(not torch.equal(a, b) for a, b in zip(before, training.stage.subject.strategy.state()["logits"]))


LEARNERS = [("network", None), ("supernet", "reinforce"), ("supernet", "a3cs"), ("supernet", "rl-darts")]


@pytest.mark.slow
@pytest.mark.parametrize("kind, strategy", LEARNERS, ids=["network", "reinforce", "a3cs", "rl-darts"])
def test_it_learns_a_game_that_a_blind_policy_loses(kind, strategy):
    """toy:signal pays 8 to a perfect policy and 2.7 to a blind one."""
    config = config_of(
        "toy:signal",
        replay=4000,
        minibatch=32,
        micro_batch=32,
        lr=5e-3,
        gamma=0.9,
        target_interval=20,
        n_step=1,
        replay_ratio=4.0,
        epsilon_fraction=0.4,
    )
    training, _ = make(kind, config, total=4000, strategy=strategy)
    log = go(training, 125)
    assert log[0]["score_train"] is None or log[0]["score_train"] < 4.5
    assert log[-1]["score_train"] > 6.5
    if kind == "network":
        agent = as_deployed(training.stage.subject.network, config).eval()
        env = make_env("toy:signal", EnvOptions(8, 1, test=True))
        assert evaluate(as_policy(agent, config), env, 64, seeded(0)).mean > 7.0  # first episodes are short: 7.56 is perfect
        assert sum(p.numel() for p in agent.parameters()) == sum(op.params for op in agent.ops)


def test_a_derived_network_is_the_supernets_path_and_keeps_its_quantiles():
    config, space = config_of(), chain_space(SMALL, *SHAPES["toy:limit"])
    supernet = as_trained(SuperNet(space, seeded(1)), config, Streams(3))
    frames = torch.randint(0, 256, (5, 6, 6, 1), generator=seeded(0)).to(torch.uint8)
    architecture = space.architecture([1, 0])
    network = derive(architecture, seeded(7), supernet)
    with torch.no_grad():
        wanted, found = supernet(frames, Path(((1,), (0,)))), network(frames)
    assert found[0].shape == (5, 3, 4) and all(torch.equal(a, b) for a, b in zip(found, wanted))
    deployed = as_deployed(network, config)
    assert [op.key for op in deployed.ops] == [op.key for op in architecture.ops()]
    with torch.no_grad():
        torch.testing.assert_close(deployed(frames)[0], found[0].mean(2), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "word, text",
    [
        (("dqn.n_step=5",), "dqn.n_step=5 has no effect with rl.algorithm=ppo"),
        (("rl.algorithm=dqn", "rl.lr=0.1"), "rl.lr=0.1 has no effect with rl.algorithm=dqn.*the DQN has dqn.lr"),
        (("rl.algorithm=dqn", "rl.clip=0.3"), "rl.clip=0.3 has no effect"),
        (("rl.algorithm=dqn", "distill.critic=0.2"), "distill.critic"),
    ],
)
def test_options_without_effect_are_refused(word, text):
    with pytest.raises(ConfigError, match=text):
        check_options(resolve_request(resolve(overrides=word)))


def test_on_policy_is_what_it_was_and_each_algorithm_says_how_to_act():
    config = resolve()
    check_options(resolve_request(config))
    network = AgentNetwork(chain_space(SMALL, *SHAPES["toy:limit"]).architecture([0, 0]).ops(), seeded(0))
    assert as_trained(network, config, Streams(0)) is network and as_policy(network, config) is network
    assert acting(config)["rule"] == "sample" and acting(config_of())["rule"] == "argmax"
    training = make_training(
        config_from_dict({"env": {"name": "toy:limit", "num_envs": 4}}),
        NetworkSubject(network, lr=1e-3, bf16=False, device=CPU),
        Streams(0),
        None,
        total_steps=8,
    )
    assert type(training.rounds) is OnPolicy


def test_the_policy_takes_the_best_action_and_now_and_then_any():
    q = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    logits, _ = as_policy(lambda frames: (q, torch.zeros(1)), config_of())(torch.zeros(1))
    assert logits.softmax(1)[0].tolist() == pytest.approx([0.00025, 0.99925, 0.00025, 0.00025])


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(tmp_path):
    words = (*WORDS, "--env", "minatar:breakout", f"objective.latency_target_s={TARGET_S}")
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    done = command("search", "--run", "one", *words, folder=tmp_path / "straight")
    assert done.code == 0, done.err
    straight = tmp_path / "straight" / "runs" / "one"
    begin = ("search", "--run", "one", *words)
    for moment in (
        Moment("search", done.events["search"] // 2),
        Moment("search", done.events["search"] // 3),
        Moment("retrain", done.events["retrain"] // 2),
        Moment("finish", 2),
    ):
        killed = command(*begin, folder=tmp_path / "killed", moment=moment)
        assert killed.code == -signal.SIGKILL, f"{moment} never came: {killed.err}"
        begin = ("resume", "runs/one")
    done = command(*begin, folder=tmp_path / "killed")
    assert done.code == 0, done.err
    run = tmp_path / "killed" / "runs" / "one"
    assert_equal(results(run), results(straight))
    assert steps(run) == [("search", step) for step in range(32, 129, 32)] + [("retrain", step) for step in range(32, 97, 32)]
    folder = RunDir.open(straight)
    agent, found = folder.read_json("agent.json"), folder.load_checkpoint()["stage_outputs"]
    assert agent["acting"]["rule"] == "argmax" and agent["outputs"][0]["shape"] == ["batch", 3]
    assert folder.read_json("evaluation.json")["actions"] == "greedy"
    wide, narrow = found["searched_weights"], found["weights"]
    last = max(key for key in narrow if key.endswith("outputs.weight"))
    assert narrow[last].shape[0] == 4 and wide[last].shape[0] == 4 * OFF_POLICY["quantiles"]
    again = command("evaluate", "runs/one", "--episodes", "4", "--json", folder=tmp_path / "straight")
    assert again.code == 0 and again.json["greedy"] is True
