"""A user's own agent as a teacher: an ONNX file, and a stable-baselines3 policy that becomes one."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx_teachers import onnx_network

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.deploy.export import to_onnx
from cosearch.pipeline.agent import finish
from cosearch.pipeline.session import Resources
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.rl.evaluate import Score
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.teacher import Teacher, find_teacher, save_teacher
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork, minatar_cnn
from cosearch.training.algorithms import make_training
from latency_tables.errors import ConfigError, MissingExtraError, RequestError, ShapeError

SHAPE, ACTIONS = (10, 10, 4), 3
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def builtins():
    load_builtins()


class Outputs(torch.nn.Module):
    """An agent whose input and outputs can be bent."""

    def __init__(self, *, actions=ACTIONS, first=False, value_shape=(-1, 1), extra=False, swap=False, nan=False):
        super().__init__()
        self.network = AgentNetwork(minatar_cnn(SHAPE, actions), torch.Generator().manual_seed(1))
        self.first, self.value_shape, self.extra, self.swap, self.nan = first, value_shape, extra, swap, nan

    def forward(self, frames):
        logits, value = self.network(frames.permute(0, 2, 3, 1) if self.first else frames)
        value = value.reshape(self.value_shape) / (0.0 if self.nan else 1.0)
        outputs = (value, logits) if self.swap else (logits, value)
        return (*outputs, logits * 2) if self.extra else outputs


def export(path, model, *, shape=SHAPE, dtype=torch.uint8, free=True):
    """The model as an ONNX file, by torch's own exporter with names of its own."""
    example = torch.zeros((2, *shape), dtype=dtype)
    axes = {"picture": {0: "n"}} if free else {}
    torch.onnx.export(model, (example,), str(path), dynamo=False, opset_version=17, input_names=["picture"], dynamic_axes=axes)
    return path


@pytest.fixture
def path(tmp_path):
    return export(tmp_path / "mine.onnx", Outputs())


def frames(count=5):
    return torch.from_numpy(255 * np.random.default_rng(0).integers(0, 2, (count, *SHAPE), np.uint8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bent", [{}, {"swap": True}, {"value_shape": (-1,)}, {"first": True}])
def test_an_onnx_teacher_gives_the_outputs_of_the_agent_it_was(bent, tmp_path):
    model = Outputs(**bent).eval()
    path = export(tmp_path / "mine.onnx", model, shape=(4, 10, 10) if bent.get("first") else SHAPE)
    logits, value = onnx_network(path, SHAPE, ACTIONS)(frames())
    wanted_logits, wanted_value = model.network(frames())
    torch.testing.assert_close(logits, wanted_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(value, wanted_value, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "bent, how, error, words",
    [
        ({"actions": 5}, {}, ShapeError, "3 actions"),
        ({"extra": True}, {}, ConfigError, "several outputs can be the policy's"),
        ({"nan": True}, {}, ConfigError, "NaN"),
        ({}, {"free": False}, ShapeError, "fixed to 2"),
    ],
)
def test_a_file_that_is_no_such_agent_says_what_was_expected(bent, how, error, words, tmp_path):
    with pytest.raises(error, match=words):
        onnx_network(export(tmp_path / "mine.onnx", Outputs(**bent), **how), SHAPE, ACTIONS)


@pytest.mark.filterwarnings("ignore")
def test_frames_of_another_environment_and_broken_files_are_refused(path, tmp_path):
    with pytest.raises(ShapeError, match=r"expected \[batch, 64, 64, 3\]"):
        onnx_network(path, (64, 64, 3), ACTIONS)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"broken\.onnx: cannot be loaded"):
        onnx_network(broken, SHAPE, ACTIONS)
    with pytest.raises(ConfigError, match="no such file"):
        find_teacher(str(tmp_path / "none.onnx"), "minatar:breakout")


def plan(path, *words):
    fixed = ("env.name=minatar:breakout", "objective.latency_ratio=0.9", f"distill.teacher={path}")
    return make_plan(resolve(overrides=[*fixed, *words]))


@pytest.mark.filterwarnings("ignore")
def test_the_critic_of_an_onnx_teacher_needs_its_discount_and_reward_scale(path):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    for words in ((), ("distill.gamma=0.9",), ("distill.reward_std=2",)):
        with pytest.raises(ConfigError, match=r"distill\.critic=0"):
            plan(path, *words)
    silent = export(path.with_name("silent.onnx"), Outputs(value_shape=(1, -1)))  # no value that could be one
    with pytest.raises(ConfigError, match=r"gives no values: set distill\.critic=0"):
        plan(silent, "distill.gamma=0.9", "distill.reward_std=1")
    alone = plan(path, "distill.critic=0")
    assert alone.teacher.gamma is None and alone.config.rl.gamma is None and alone.config.rl.discount == 0.999
    assert len(alone.record("").teacher.weights_sha256) == 64
    whole = plan(path, "distill.gamma=0.9", "distill.reward_std=2")
    assert (whole.teacher.gamma, whole.teacher.reward_std, whole.config.rl.gamma) == (0.9, 2.0, 0.9)
    with pytest.raises(
        ConfigError, match=r"distill.gamma=0.9 has no effect without an ONNX teacher: teacher .minatar-breakout. knows its own"
    ):
        plan("auto", "distill.gamma=0.9")
    assert whole.config.distill.teacher == str(path.resolve())


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_teacher_teaches_like_the_same_network_as_a_teacher_file(path, tmp_path):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    words = ("rl.bf16=false", "rl.rollout_steps=8", "rl.minibatch=16", "env.num_envs=4")
    network = Outputs().network
    native = save_teacher(
        tmp_path / "native.json", network, env="minatar:breakout", description="toy", gamma=0.9, reward_std=2.0, provenance={}
    )
    logs = []
    for made in (plan(path, "distill.gamma=0.9", "distill.reward_std=2", *words), plan(native.path, *words)):
        streams = Streams(0)
        network = AgentNetwork(minatar_cnn(SHAPE, ACTIONS), streams.torch("weights"))
        student = NetworkSubject(network, lr=1e-3, bf16=False, device=CPU)
        training = make_training(made.config, student, streams, made.load_teacher(CPU), total_steps=64)
        logs.append([training.advance() for _ in range(2)])
        training.close()
    for ours, theirs in zip(*logs):
        for key in ("distill_actor", "distill_critic", "teacher_agreement", "loss_policy"):
            assert ours[key] == pytest.approx(theirs[key], rel=0.02, abs=2e-3)  # the teacher file has float16 weights
    assert logs[0][0]["distill_actor"] > 0


class Sign(torch.nn.Module):
    """Gives the action by the environment's own number: ``start``, or the next one where the first feature is above 0."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def forward(self, features):
        return (features[:, 0] > 0).long() + self.start


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", [0, 1, -7])
def test_a_plain_teacher_of_actions_names_them_as_its_environment_does(start, tmp_path):
    file = export(tmp_path / "mine.onnx", Sign(start), shape=(2,), dtype=torch.float32)
    words = (f"distill.teacher={file}", "distill.critic=0", f"env.kwargs.start={start}", "objective.latency_ratio=2")
    made = make_plan(resolve_task(overrides=["env.name=own_tasks:counter", *words]))
    actions, _ = made.load_teacher(CPU).forward(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert actions.tolist() == [[0], [1]]


def test_our_own_exported_agent_is_a_teacher(tmp_path):
    network = AgentNetwork(minatar_cnn(SHAPE, ACTIONS), torch.Generator().manual_seed(3)).eval()
    path = tmp_path / "agent.onnx"
    path.write_bytes(to_onnx(network, SHAPE))
    teacher = Teacher(find_teacher(str(path), "minatar:breakout"), device=CPU, bf16=True, frame_shape=SHAPE, num_actions=ACTIONS)
    torch.testing.assert_close(teacher.forward(frames())[0], network(frames())[0], atol=1e-5, rtol=1e-5)
    onnx.checker.check_model(str(path))


def test_the_score_of_an_onnx_teacher_is_measured_and_that_of_a_teacher_file_read(path, tmp_path, monkeypatch):
    monkeypatch.setattr(
        finish, "_evaluate", lambda config, streams, agent, progress, greedy: Score((1.0, 3.0)) if agent == "agent" else None
    )

    def score(record):
        teacher = None if record is None else SimpleNamespace(record=record, plays="agent")
        return finish._teacher_score(resolve(), Resources(CPU, Streams(0), teacher), None)

    mean, (low, high), _ = score(find_teacher(str(path), "minatar:breakout"))
    assert mean == 2.0 and low < 2.0 < high
    about = {"env": "minatar:breakout", "description": "toy", "gamma": 0.9, "reward_std": 2.0}
    said = {"score_mean": 7.0, "score_ci95": [6.0, 8.0]}
    assert score(save_teacher(tmp_path / "native.json", Outputs().network, **about, provenance=said)) == (7.0, (6.0, 8.0), None)
    assert score(None) == (None, None, None)


def test_pickles_are_refused_unless_the_user_trusts_them(tmp_path, capsys):
    out = tmp_path / "mine.onnx"
    words = ["teacher", "--env", "minatar:breakout", "--from-sb3", str(tmp_path / "mine.zip"), "--out"]
    assert main([*words, str(out)]) == 2 and "--allow-pickle" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "mine.json"), "--allow-pickle"]) == 2 and ".onnx" in capsys.readouterr().err
    assert not out.exists()


def test_a_policy_of_stable_baselines3_becomes_a_teacher(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    import gymnasium

    from cosearch.teachers.from_sb3 import convert_sb3

    class Blocks(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, SHAPE, np.uint8)
        action_space = gymnasium.spaces.Discrete(ACTIONS)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.integers(0, 256, SHAPE, np.uint8), {}

        def step(self, action):
            return self.np_random.integers(0, 256, SHAPE, np.uint8), 1.0, False, True, {}

    model = sb3.PPO("MlpPolicy", Blocks(), n_steps=16, batch_size=8, gamma=0.97, seed=0, device="cpu")
    model.save(tmp_path / "mine.zip")
    with pytest.raises(RequestError, match="pickles"):
        convert_sb3(tmp_path / "mine.zip", "minatar:breakout", tmp_path / "mine.onnx", allow_pickle=False)
    result = convert_sb3(tmp_path / "mine.zip", "minatar:breakout", tmp_path / "mine.onnx", allow_pickle=True)
    assert result["gamma"] == 0.97 and "distill.gamma=0.97" in result["use"]
    logits, value = onnx_network(tmp_path / "mine.onnx", SHAPE, ACTIONS)(frames())
    observations = model.policy.obs_to_tensor(frames().numpy())[0]
    distribution = model.policy.get_distribution(observations).distribution
    torch.testing.assert_close(logits.log_softmax(-1), distribution.logits.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(value, model.policy.predict_values(observations)[:, 0].detach(), atol=1e-4, rtol=1e-4)
    with pytest.raises(ShapeError, match="observes"):
        convert_sb3(tmp_path / "mine.zip", "procgen:starpilot", tmp_path / "other.onnx", allow_pickle=True)


def test_without_stable_baselines3_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    from cosearch.teachers.from_sb3 import convert_sb3

    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(MissingExtraError, match=r"cosearch\[bench\]"):
        convert_sb3(tmp_path / "mine.zip", "minatar:breakout", tmp_path / "mine.onnx", allow_pickle=True)
