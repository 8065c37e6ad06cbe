"""What an input means is what it declares; where two readings fit, the user is asked for a word."""

import gymnasium
import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx_teachers import Flat, onnx_network, write_onnx
from own_envs import Picture

from cosearch.cli.app import main
from cosearch.deploy.player import ActingRule, Agent
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from latency_tables.errors import ConfigError, CosearchError, ShapeError

load_builtins()
SHAPE, ACTIONS = (6, 5, 4), 3
pytestmark = pytest.mark.filterwarnings("ignore")


def frames(count=4, shape=SHAPE):
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, *shape), np.uint8))


# --- images of an environment


def pictures(shape, layout=None):
    return make_env("gym:own_envs:Picture-v0", EnvOptions(2, 3, kwargs={"shape": shape}, layout=layout))


@given(st.tuples(*[st.integers(1, 12)] * 3))
@example((4, 32, 32))  # four grey frames stacked
@example((3, 64, 64))
@example((1, 28, 28))
@settings(deadline=None, max_examples=40)
def test_a_shape_that_may_be_channels_first_is_asked_about_and_no_other_is(shape):
    if shape[0] < min(shape[1:]):
        with pytest.raises(ConfigError, match=r"env\.layout=channels_first or env\.layout=channels_last"):
            pictures(shape)
    else:
        assert pictures(shape).frame_shape == shape
    assert pictures(shape, "channels_last").frame_shape == shape
    assert pictures(shape, "channels_first").frame_shape == (*shape[1:], shape[0])


def test_images_with_channels_first_are_the_environments_own_turned():
    last, first = pictures((4, 32, 30), "channels_last"), pictures((4, 32, 30), "channels_first")
    for _ in range(7):  # across the end of an episode
        assert np.array_equal(first.observe(), last.observe().transpose(0, 2, 3, 1))
        for env in (last, first):
            env.send(np.array([0, 1]))
            env.receive()
    state, other = first.state(), pictures((4, 32, 30), "channels_first")
    other.restore(state)
    assert np.array_equal(other.observe(), first.observe())


def test_the_exported_agent_takes_such_images_as_the_environment_gives_them():
    agent = object.__new__(Agent)
    agent.observation_shape, agent.observation_dtype = SHAPE, np.dtype(np.uint8)
    agent.rule = ActingRule("sample", "categorical", channels_first=True)
    own = frames().numpy()
    assert np.array_equal(agent._checked(own.transpose(0, 3, 1, 2)), own)
    with pytest.raises(ShapeError):
        agent._checked(own)


def test_wrong_arguments_of_an_environment_name_the_option():
    with pytest.raises(ConfigError, match=r"env\.kwargs .*size.*unexpected keyword"):
        make_env("gym:own_envs:Picture-v0", EnvOptions(1, 0, kwargs={"size": 3}))
    assert make_env("gym:own_envs:Numbers-v0", EnvOptions(1, 0, kwargs={"features": 7})).frame_shape == (7,)


@pytest.fixture
def as_registered():
    """Registers an environment of pictures that declares this space, and gives its name."""

    def register(space):
        class Other(Picture):
            def __init__(self):
                super().__init__()
                self.observation_space = space

        gymnasium.register("Other-v0", entry_point=Other, disable_env_checker=True)
        return "gym:Other-v0"

    yield register
    gymnasium.registry.pop("Other-v0", None)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (4, 8, 8, 3), np.uint8),
        spaces.Box(-np.inf, np.inf, (3, 8, 8), np.float32),
        spaces.Box(0, 255, (), np.uint8),
        spaces.Dict({"a": spaces.Text(3)}),
        spaces.Discrete(4),
        spaces.Text(3),
    ],
    ids=str,
)
def test_other_observations_are_refused_by_their_space(space, as_registered):
    name = as_registered(space)
    with pytest.raises(ConfigError, match="expected uint8 images"):
        make_env(name, EnvOptions(1, 0))


@pytest.mark.parametrize("high, factor", [(1, 255), (15, 17), (63, 4), (0, 255)])
def test_images_that_would_be_nearly_black_are_refused(high, factor, as_registered):
    name = as_registered(spaces.Box(0, high, (8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match=f"declares images of 0 to {high}, .* multiplies them by {factor}"):
        make_env(name, EnvOptions(1, 0))


def test_images_of_floats_with_several_ranges_are_refused(as_registered):
    high = np.broadcast_to(np.array([1, 1, 1, 1000], np.float32), (8, 8, 4))
    name = as_registered(spaces.Box(np.zeros((8, 8, 4), np.float32), high, dtype=np.float32))
    with pytest.raises(ConfigError, match=r"gym:Other-v0 .*several ranges \(0 to 1, 0 to 1000\), .*scales each to 0 to 1$"):
        make_env(name, EnvOptions(1, 0))
    name = as_registered(spaces.Dict({"depth": spaces.Box(np.zeros((8, 8, 4), np.float32), high, dtype=np.float32)}))
    with pytest.raises(ConfigError, match=r"depth .*leave 'depth' out with env\.wrappers='\[\"keep:NAME,\.\.\.\"\]'$"):
        make_env(name, EnvOptions(1, 0))


def test_images_that_are_only_dim_are_taken(as_registered):
    assert make_env(as_registered(spaces.Box(0, 64, (12, 14, 12), np.uint8)), EnvOptions(1, 0)).frame_shape == (12, 14, 12)


@pytest.mark.parametrize(
    "returned, what",
    [(("1", False, False), "reward"), ((None, False, False), "reward"), ((1.0, "no", False), "terminated"),
     ((1.0, False, []), "truncated"), (([1.0, 2.0], False, False), "reward"), ((1 + 1j, False, False), "reward")],
)  # fmt: skip
def test_what_a_step_returns_is_a_number(returned, what, as_registered, monkeypatch):
    env = make_env(as_registered(spaces.Box(0, 255, (12, 14, 12), np.uint8)), EnvOptions(1, 0))
    monkeypatch.setattr(Picture, "step", lambda self, action: (self.seen(), *returned, {}))
    env.send(np.array([0]))
    with pytest.raises(CosearchError, match=f"for {what} that is no number"):
        env.receive()


@pytest.mark.parametrize("paid", [2, 2.0, np.float32(2), np.array([2.0]), np.array(2), np.int8(2), torch.tensor(2.0)])
def test_numbers_of_every_kind_are_a_reward(paid, as_registered, monkeypatch):
    env = make_env(as_registered(spaces.Box(0, 255, (12, 14, 12), np.uint8)), EnvOptions(1, 0))
    monkeypatch.setattr(Picture, "step", lambda self, action: (self.seen(), paid, np.bool_(False), 0, {}))
    env.send(np.array([0]))
    step = env.receive()
    assert step.reward.tolist() == [2.0] and not step.terminated.any() and not step.truncated.any()


def test_observations_of_no_numbers_are_refused(as_registered):
    with pytest.raises(ConfigError, match="nothing to learn from"):
        make_env(as_registered(spaces.Box(-1.0, 1.0, (0,), np.float32)), EnvOptions(1, 0))


# --- ONNX teachers


@pytest.mark.parametrize("free", [(), (1,), (3,), (1, 2, 3)])
def test_a_file_of_free_sizes_that_runs_either_order_is_asked_about(free, tmp_path):
    path = write_onnx(tmp_path / "mine.onnx", Flat(120, ACTIONS), SHAPE, free=free)
    if free != (1, 2, 3):  # one fixed size that only one order has
        assert onnx_network(path, SHAPE, ACTIONS)(frames())[0].shape == (4, ACTIONS)
        return
    with pytest.raises(ConfigError, match=r"distill\.layout=channels_last or distill\.layout=channels_first"):
        onnx_network(path, SHAPE, ACTIONS)
    model = Flat(120, ACTIONS)
    for layout, turned in (("channels_last", frames()), ("channels_first", frames().permute(0, 3, 1, 2))):
        found = onnx_network(path, SHAPE, ACTIONS, layout=layout)(frames())[0]
        torch.testing.assert_close(found, model(turned)[0], atol=1e-5, rtol=1e-5)


class Convolution(torch.nn.Module):
    """Channels first, pooled over all places: takes any sizes but its own number of channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Conv2d(SHAPE[2], 8, 3), torch.nn.Linear(8, ACTIONS + 1)

    def forward(self, frames):
        outputs = self.last(self.first(frames.float() / 255).mean((2, 3)))
        return outputs[:, :-1], outputs[:, -1]


def test_free_sizes_are_no_question_where_the_file_runs_in_one_order_alone(tmp_path):
    path = write_onnx(tmp_path / "mine.onnx", Convolution(), (4, 6, 5), free=(1, 2, 3))
    found = onnx_network(path, SHAPE, ACTIONS)(frames())[0]
    torch.testing.assert_close(found, Convolution()(frames().permute(0, 3, 1, 2))[0], atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="cannot run"):
        onnx_network(path, SHAPE, ACTIONS, layout="channels_last")


def test_a_cube_is_asked_about_unless_the_file_says_its_order_itself(tmp_path):
    path = write_onnx(tmp_path / "cube.onnx", Flat(64, ACTIONS), (4, 4, 4))
    with pytest.raises(ConfigError, match="either order"):
        onnx_network(path, (4, 4, 4), ACTIONS)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"layout": "channels_last"})
    onnx.save(model, path)
    cubes = frames(shape=(4, 4, 4))
    torch.testing.assert_close(
        onnx_network(path, (4, 4, 4), ACTIONS)(cubes)[0], Flat(64, ACTIONS)(cubes)[0], atol=1e-5, rtol=1e-5
    )


def test_a_word_that_the_files_shape_contradicts_is_refused(tmp_path):
    path = write_onnx(tmp_path / "mine.onnx", Flat(120, ACTIONS), SHAPE)
    with pytest.raises(ShapeError, match="in the order channels_first"):
        onnx_network(path, SHAPE, ACTIONS, layout="channels_first")


def test_outputs_that_look_like_probabilities_are_asked_about(tmp_path):
    path = write_onnx(tmp_path / "mine.onnx", Flat(120, ACTIONS, probabilities=True), SHAPE)
    with pytest.raises(ConfigError, match=r"distill\.outputs=probabilities .* or distill\.outputs=logits"):
        onnx_network(path, SHAPE, ACTIONS)
    meant = Flat(120, ACTIONS)(frames())[0].log_softmax(-1)
    taken = onnx_network(path, SHAPE, ACTIONS, outputs="probabilities")(frames())[0].log_softmax(-1)
    torch.testing.assert_close(taken, meant, atol=1e-5, rtol=1e-5)
    literal = onnx_network(path, SHAPE, ACTIONS, outputs="logits")(frames())[0]
    torch.testing.assert_close(literal, meant.exp(), atol=1e-5, rtol=1e-5)


class Certain(Flat):
    """Always the first action: the logarithm of the other probabilities is infinite."""

    def forward(self, frames):
        chosen, value = super().forward(frames)
        return torch.nn.functional.one_hot(chosen.argmax(-1) * 0, ACTIONS).float(), value


def test_probabilities_of_nought_stay_finite_and_logits_are_no_probabilities(tmp_path):
    certain = write_onnx(tmp_path / "certain.onnx", Certain(120, ACTIONS), SHAPE)
    assert torch.isfinite(onnx_network(certain, SHAPE, ACTIONS, outputs="probabilities")(frames())[0]).all()
    logits = write_onnx(tmp_path / "logits.onnx", Flat(120, ACTIONS), SHAPE)
    with pytest.raises(ConfigError, match=r"distill\.outputs=probabilities, or .* but"):
        onnx_network(logits, SHAPE, ACTIONS, outputs="probabilities")


@pytest.mark.parametrize("env", ["gym:CartPole-v1", "gym:Pendulum-v1"])
def test_a_stable_baselines3_policy_for_vectors_is_refused_before_its_pickles_are_read(env, tmp_path, capsys):
    policy = tmp_path / "cart.zip"
    policy.write_bytes(b"no policy at all")
    asked = ["teacher", "--env", env, "--from-sb3", str(policy), "--allow-pickle", "--out", str(tmp_path / "cart.onnx")]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert "images and discrete actions only" in said and "cosearch compress" in said


@given(st.sampled_from(["outputs", "layout"]), st.text(max_size=12))
def test_other_words_are_refused(field, text):
    from cosearch.config.run import resolve

    if text in ("logits", "probabilities", "channels_last", "channels_first", "null"):
        return
    with pytest.raises(CosearchError, match=f"distill.{field}"):
        resolve(options={f"distill.{field}": text})
