"""SAC in whole stages and runs: exact resumes, supernets, distillation, the exported tangent, and what is refused.

The slow ones: ``python -m pytest -m slow tests/pipeline/test_pipeline_sac.py``.
"""

import io
import json
import signal
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from cut_episodes import check_cut_episode
from made_table import made_table
from pipeline_runs import Moment, assert_equal, command, results, steps
from small_stages import CPU, flat, go, toys  # noqa: F401  the fixture puts the toys in

from cosearch.config.run import config_from_dict, resolve
from cosearch.config.search import StrategyConfig
from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.cost.table_cost import TableCost
from cosearch.deploy.export import check_parity, to_onnx
from cosearch.planning.builtins import load_builtins
from cosearch.planning.options.unused import check_options
from cosearch.planning.request import resolve_request
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import RunDir
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.teacher import Teacher, save_teacher
from cosearch.seeding import Streams
from cosearch.space.blocks.squashed_head import squashed_head
from cosearch.space.derivation.derive import derive
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.supernet import Path, SuperNet
from cosearch.strategies.base import STRATEGIES
from cosearch.teachers.train import TeacherRequest, teacher_config
from cosearch.testing.conformance import seeded
from cosearch.training.algorithms import acting, as_deployed, as_trained, learning_rate, make_training, within_bounds
from cosearch.training.supernet_subject import SuperNetSubject
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError

load_builtins()
PENDULUM = "gym:Pendulum-v1"
FEW = {"learning_starts": 16, "minibatch": 16, "updates_per_step": 0.25}
SMALL = MlpConfig(16, "relu", (16,), (2,), candidates=("linear_relu", "mlp_w32_relu", "skip_layer"))


class Aim(gymnasium.Env):
    """Answer each number x with 3 x + 1; pays 0 at best, minus the squared error else. Eight steps an episode."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2.0, 4.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.seen = 0, self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.seen, {}

    def step(self, action):
        error = float(action[0] - 3 * self.seen[0] - 1)
        self.steps, self.seen = self.steps + 1, self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.seen, -error * error, False, self.steps == 8, {}


@pytest.fixture(scope="module", autouse=True)
def aim():
    gymnasium.register("Aim-v0", entry_point=Aim, disable_env_checker=True)
    yield
    gymnasium.registry.pop("Aim-v0")


def config_of(env=PENDULUM, rl=None, **sac):
    return config_from_dict(
        {
            "env": {"name": env, "num_envs": 4},
            "seed": 3,
            "rl": {"algorithm": "sac", "rollout_steps": 8, "bf16": False, **(rl or {})},
            "sac": {**FEW, **sac},
        }
    )


def space_of(env=PENDULUM):
    return mlp_space(SMALL, (1,) if "Aim" in env else (3,), 1)


def gaussian(space):
    return type(space)(**{**{key: getattr(space, key) for key in space.__dataclass_fields__}, "policy": "gaussian"})


def make(kind="network", config=None, teacher=None, total=320, strategy="reinforce", inherited=False):
    """A stage with streams of its own, as a new process would make it. Returns (training, streams)."""
    streams, config = Streams(3), config or config_of()
    space = gaussian(space_of(config.env.name))
    lr, bf16 = learning_rate(config), config.rl.bf16
    if kind == "network":
        network = derive(space.architecture([0, 1]), streams.torch("weights"))
        subject = NetworkSubject(as_trained(network, config, streams), lr=lr, bf16=bf16, device=CPU)
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


def teacher_for(folder):
    """A Gaussian teacher whose actions are between -1 and 1, of an environment whose bounds are -2 and 2."""
    network = derive(gaussian(space_of()).architecture([0, 0]), seeded(5))
    record = save_teacher(
        folder / "t.json", network, env=PENDULUM, description="random", gamma=0.99, reward_std=2.0, provenance={}
    )
    return Teacher(record, device=CPU, bf16=False)


@pytest.mark.parametrize(
    "kind, taught, size",
    [("network", True, 128), pytest.param("supernet", False, 1000, marks=pytest.mark.slow)],
)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(kind, taught, size, tmp_path):
    config = config_of(replay=size)  # 128 observations: the ring is written over more than once
    teacher = teacher_for(tmp_path) if taught else None
    whole, _ = make(kind, config, teacher)
    wanted = go(whole, 7)
    first, streams = make(kind, config, teacher)
    log = go(first, 3)
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
    assert log == wanted and log[-1]["step"] == 224 and log[-1]["updates"] == (224 - 16) // 4
    mine, theirs = flat(second.state()), flat(whole.state())
    assert len(mine) == len(theirs) > 20 and all(torch.equal(a, b) for a, b in zip(mine, theirs))


def test_episodes_that_cannot_be_continued_are_cut_in_the_replay():
    """Else the frames of another episode would follow them, as if an action had led there."""
    training, _ = make()
    go(training, 2)
    check_cut_episode(training, make()[0])


def test_actions_are_uniform_at_first_but_not_those_of_inherited_weights():
    fresh, _ = make(config=config_of(learning_starts=64))
    go(fresh, 2)
    kept = fresh.rounds.replay.actions[:16].ravel()
    assert np.abs(kept).max() > 0.95 and fresh.rounds.learner.updates == 0
    drawn = np.sort((kept + 1) / 2)
    assert np.abs(drawn - np.arange(64) / 64).max() < 0.2  # Kolmogorov and Smirnov: 0.2 at 1 %
    heir, _ = make(config=config_of(learning_starts=64, updates_per_step=0.5), inherited=True)
    with torch.no_grad():
        squashed_head(heir.stage.subject.network).outputs.bias.copy_(torch.tensor([9.0, -9.0]))
    log = go(heir, 6)
    assert np.abs(heir.rounds.replay.actions[:16] - 1.0).max() < 1e-3
    assert "loss_value" in log[-1] and "loss_policy" not in log[-1] and log[-1]["updates"] == 64


def test_the_export_is_the_tangent_between_the_bounds_and_keeps_the_statistics(tmp_path):
    training, _ = make()
    go(training, 3)
    network, config = training.stage.subject.network, training.stage.config
    deployed = as_deployed(network, config).eval()
    frames = np.random.default_rng(0).normal(3.0, 2.0, (40, 3)).astype(np.float32)
    assert check_parity(deployed, to_onnx(deployed, (3,)), frames).max_abs_difference < 1e-4
    again = derive(gaussian(space_of()).architecture([0, 1]), seeded(0))
    again.load_state_dict(deployed.state_dict())  # as the last stage reads it
    with torch.no_grad():
        means = deployed(torch.from_numpy(frames))[0][:, :1]
        outputs = network(torch.from_numpy(frames))[0]
        torch.testing.assert_close(within_bounds(again, config).eval()(torch.from_numpy(frames))[0][:, :1], means)
    torch.testing.assert_close(means, 2.0 * outputs[:, :1].tanh())
    assert float(network.ends.count) == 96 and acting(config) == {"rule": "argmax", "value": "none: 0"}


def test_a_derived_network_is_the_supernets_path_and_keeps_its_spread_and_temperature():
    config, space = config_of(), gaussian(space_of())
    supernet = as_trained(SuperNet(space, seeded(1)), config, Streams(3))
    squashed_head(supernet).log_temperature.fill_(-1.5)
    seen = torch.randn(5, 3, generator=seeded(0))
    network = derive(space.architecture([1, 0]), seeded(7), supernet)
    with torch.no_grad():
        wanted, found = supernet(seen, Path(((1,), (0,)))), network(seen)
    assert found[0].shape == (5, 2) and all(torch.equal(a, b) for a, b in zip(found, wanted))
    assert float(squashed_head(network).log_temperature) == -1.5


@pytest.mark.parametrize("strategy", ["a3cs", "darts"])
def test_strategies_learn_their_architecture_from_the_actors_loss(strategy):
    training, _ = make("supernet", strategy=strategy)
    draws, draw = [], training.rounds.replay.draw
    training.rounds.replay.draw = lambda *args: draws.append(draw(*args)) or draws[-1]
    before = [row.clone() for row in training.stage.subject.strategy.state()["logits"]]
    log = go(training, 2)
    assert len(draws) == (2 if training.stage.subject.held_out else 1) * log[-1]["updates"] > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, training.stage.subject.strategy.state()["logits"]))


def test_the_teachers_actions_are_kept_in_units_of_the_bounds(tmp_path):
    teacher = teacher_for(tmp_path)
    training, _ = make(teacher=teacher)
    line = go(training, 2)[-1]
    replay = training.rounds.replay
    with torch.no_grad():
        means = teacher.forward(torch.from_numpy(replay.frames[:16].reshape(-1, 3)))[0][:, :1]
    np.testing.assert_allclose(replay.labels[:16].reshape(-1, 1), (means / 2).clamp(-1, 1), atol=1e-6)
    assert line["distill_actor"] > 0 and line["distill_weight"] == 1.0


@pytest.mark.slow
def test_it_learns_to_aim():
    """Always 1 scores -24 on average, uniform actions -48; SAC comes near 0. The actions' bounds are not symmetric."""
    config = config_of("gym:Aim-v0", {"rollout_steps": 40}, minibatch=64, lr=4e-3, gamma=0.0, updates_per_step=0.25)
    training, _ = make(config=config, total=1200)
    while not training.finished:
        training.advance()
    env = make_env("gym:Aim-v0", EnvOptions(8, 1, test=True))
    agent = as_deployed(training.stage.subject.network, config).eval()
    assert evaluate(agent, env, 32, seeded(0), greedy=True).mean > -3.0


@pytest.mark.slow
def test_a_search_learns_to_aim():
    config = config_of("gym:Aim-v0", {"rollout_steps": 40}, minibatch=64, lr=4e-3, gamma=0.0, updates_per_step=0.25)
    training, _ = make("supernet", config, total=2800, strategy="a3cs")
    while not training.finished:
        training.stage.subject.set_progress(training.progress)
        training.advance()
    subject = training.stage.subject
    network = derive(subject.supernet.space.architecture([0, 1]), seeded(0), subject.supernet)
    env = make_env("gym:Aim-v0", EnvOptions(8, 1, test=True))
    assert evaluate(as_deployed(network, config).eval(), env, 32, seeded(0), greedy=True).mean > -6.0


CONTINUOUS = ("rl.algorithm=sac", f"env.name={PENDULUM}")
REFUSED = [
    (("rl.algorithm=sac", "env.name=gym:CartPole-v1"), "has discrete actions: use rl.algorithm=dqn"),
    (("rl.algorithm=sac", "env.name=minatar:breakout", "distill.teacher=none"), "has discrete actions: use rl.algorithm=dqn"),
    (
        (*CONTINUOUS, 'space.values={"memory":["gru_w16"]}'),
        "rl.algorithm=sac learns from single transitions.*use rl.algorithm=ppo",
    ),
    (
        (*CONTINUOUS, "strategy.name=one-shot", 'strategy.values={"scores":"frames"}'),
        "scores=frames compares .*sac does not have",
    ),
    ((*CONTINUOUS, "rl.lr=0.1"), "rl.lr=0.1 has no effect with rl.algorithm=sac; leave it out, or set sac.lr: SAC has sac.lr"),
    ((*CONTINUOUS, "rl.clip=0.1"), "rl.clip=0.1 has no effect with rl.algorithm=sac"),
    ((*CONTINUOUS, "dqn.n_step=1"), "dqn.n_step=1 has no effect with rl.algorithm=sac"),
    ((*CONTINUOUS, "budget.bracket=3"), "budget.bracket=3 has no effect with rl.algorithm=sac"),
    ((*CONTINUOUS, "strategy.store=x"), "strategy.store=.* has no effect with rl.algorithm=sac"),
    ((*CONTINUOUS, "sac.replay=10000000000000"), "sac.replay=10000000000000 needs at least"),
    (
        ("sac.tau=0.1", f"env.name={PENDULUM}"),
        "sac.tau=0.1 has no effect with rl.algorithm=ppo; leave it out, or set rl.algorithm=sac",
    ),
]


@pytest.mark.parametrize("words, text", REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_what_does_not_go_together_is_refused_with_what_to_type(words, text):
    with pytest.raises(ConfigError, match=text):
        check_options(resolve_request(resolve_task(overrides=words)))


def test_actions_without_bounds_are_refused():
    class Unbounded(Aim):
        def __init__(self):
            super().__init__()
            self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    gymnasium.register("Unbounded-v0", entry_point=Unbounded, disable_env_checker=True)
    try:
        with pytest.raises(ConfigError, match=r"has actions without: use rl.algorithm=ppo, or bound .*RescaleAction"):
            resolve_request(resolve(overrides=["rl.algorithm=sac", "env.name=gym:Unbounded-v0", "distill.teacher=none"]))
    finally:
        gymnasium.registry.pop("Unbounded-v0")


WORDS = (
    *("threads=1", "env.num_envs=4", "strategy.paths_per_rollout=2", "rl.rollout_steps=8", "distill.teacher=none"),
    *("budget.search_steps=128", "budget.retrain_steps=96", "budget.eval_episodes=4", "budget.parity_frames=8"),
    *("budget.measure_s=0.05", "budget.checkpoint_interval_s=0", "objective.latency_ratio=2"),
    *("rl.algorithm=sac", *(f"sac.{key}={value}" for key, value in FEW.items()), "--env", PENDULUM),
)


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one_and_its_bundle_acts_alike(tmp_path):
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    begin = ("search", "--run", "one", *WORDS)
    done = command(*begin, folder=tmp_path / "straight")
    assert done.code == 0, done.err
    straight = tmp_path / "straight" / "runs" / "one"
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
    assert agent["acting"]["rule"] == "argmax" and agent["acting"]["value"] == "none: 0"
    assert [output["name"] for output in agent["outputs"]] == ["mean", "log_std", "value"]
    wide, narrow = found["searched_weights"], found["weights"]
    last = max(key for key in narrow if key.endswith("outputs.weight"))
    assert narrow[last].shape[0] == 2 == wide[last].shape[0] and not any("temperature" in key for key in narrow)
    again = command("evaluate", "runs/one", "--episodes", "4", "--json", folder=tmp_path / "straight")
    assert again.code == 0 and again.json["greedy"] is True
    tested = subprocess.run(
        [sys.executable, "run_agent.py", "--self-test"], cwd=straight / "agent", capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stderr
    contract = json.loads((straight / "agent" / "contract.json").read_text(encoding="utf-8"))
    assert contract["policy"] == "gaussian"


@pytest.mark.parametrize("kind", ["network", "supernet"])
def test_adam_has_the_eps_of_stable_baselines3(kind):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    policy = sb3.SAC("MlpPolicy", "Pendulum-v1", buffer_size=10).policy
    training, _ = make(kind)
    ours = [training.stage.subject.optimiser, training.rounds.learner._adam, training.rounds.learner._temperature_adam]
    assert {group["eps"] for adam in ours for group in adam.param_groups} == {policy.actor.optimizer.param_groups[0]["eps"]}


def test_mujoco_tasks_have_the_fields_values_and_others_keep_theirs():
    """Published: Huang et al. 2022, The 37 Implementation Details, the table of continuous control."""
    published = {"lr": 3e-4, "gamma": 0.99, "lam": 0.95, "minibatch": 64, "epochs": 10, "clip": 0.2, "value_clip": False}
    for name in ("HalfCheetah-v5", "Hopper-v4"):
        config = resolve_task(overrides=[f"env.name=gym:{name}"])
        assert {key: getattr(config.rl, key) for key in published} == published
        assert config.env.num_envs * config.rl.rollout_steps == 2048 and config.rl.max_grad_norm == 0.5
    assert resolve_task(overrides=["env.name=gym:Hopper-v5", "rl.lr=0.01"]).rl.lr == 0.01
    small = resolve_task(overrides=[f"env.name={PENDULUM}"]).rl
    assert (small.lr, small.gamma, small.minibatch, small.value_clip) == (1e-3, 0.98, 128, True)
    request = TeacherRequest("gym:Walker2d-v5", "", 10, 0, 1, 1)
    assert (teacher_config(request).rl.lr, teacher_config(request).rl.gamma) == (3e-4, 0.99)


@pytest.mark.slow
def test_an_int8_agent_is_accepted_by_the_divergence_of_its_means(tmp_path):
    """It acts by its mean, whose rounded form is never exactly the same: equal best actions would accept anything."""
    table = made_table(tmp_path / "table.jsonl", (*WORDS[:-2], f"env.name={PENDULUM}"), "int8")
    done = command("search", "--run", "one", *WORDS, f"table={table}", folder=tmp_path)
    assert done.code == 0, done.err
    agent = RunDir.open(tmp_path / "runs" / "one").read_json("agent.json")
    assert agent["acting"]["rule"] == "argmax" and agent["artifact"]["quantised"]["loss_is"] == "kl"
