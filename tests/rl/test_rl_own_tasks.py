"""Tasks of a user's own: made by a function of a module, wrapped by name, and what they break named at their first step."""

from contextlib import closing

import numpy as np
import pytest
from own_tasks import OldStyle

from cosearch.config.env import EnvConfig
from cosearch.planning.builtins import load_builtins
from cosearch.rl.env_families.wrappers import WRAPPERS
from cosearch.rl.envs import EnvOptions, make_env, split_name
from cosearch.rl.probe import doubts
from cosearch.rl.task import make_task
from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError, UnknownNameError

load_builtins()


def made(name, *wrappers, envs=1, layout=None, **kwargs):
    return make_env(name, EnvOptions(envs, 0, kwargs=kwargs, wrappers=wrappers, layout=layout))


def played(env, steps):
    """Frames of the first environment, rewards and ends of so many steps."""
    seen, paid, ends = [env.observe()[0]], [], []
    for _ in range(steps):
        env.send(np.zeros(env.num_envs, np.int64))
        step = env.receive()
        seen.append(step.frames[0])
        paid.append(float(step.reward[0]))
        ends.append("terminated" if step.terminated[0] else "cut" if step.truncated[0] else "")
    return seen, paid, ends


def test_a_function_of_a_module_makes_the_environment():
    assert split_name("own_tasks:counter")[0].name == "gym"
    env = made("own_tasks:counter", envs=2, shape=[3], length=4)
    seen, _, ends = played(env, 4)
    assert (
        env.frame_shape == (3,) and [float(frame[0]) for frame in seen] == [0, 1, 2, 3, 0] and ends == ["", "", "", "terminated"]
    )
    state, twin = env.state(), made("own_tasks:counter", envs=2, shape=[3], length=4)
    twin.restore(state)
    assert np.array_equal(twin.observe(), env.observe())
    assert made("gym:own_tasks:counter").frame_shape == (2,)
    assert made("own_envs:Numbers-v0", features=4).frame_shape == (4,)  # an id that the module registers


def test_truth_values_are_a_vector():
    env = made("own_tasks:bits")
    assert [frame.tolist() for frame in played(env, 2)[0]] == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert env.observe().dtype == np.float32 and doubts(EnvConfig(name="own_tasks:bits"), 10**9) == ()


@pytest.mark.parametrize(
    "name, error, text",
    [
        ("own_tasks:nothing", UnknownNameError, "module 'own_tasks' has no function or class 'nothing'"),
        ("no.such.module:make", UnknownNameError, "there is no module 'no.such.module'.*PYTHONPATH=FOLDER"),
        ("gym:no_such:make", UnknownNameError, "there is no module 'no_such'.*PYTHONPATH=FOLDER"),
        (
            "own_tasks:no_environment",
            EnvironmentFailedError,
            "own_tasks:no_environment gives dict, which has no observation_space",
        ),
        ("own_tasks:old_style", EnvironmentFailedError, "its reset takes no seed: .*shimmy.GymV21CompatibilityV0"),
    ],
)
def test_what_cannot_be_made_says_why(name, error, text):
    with pytest.raises(error, match=text):
        made(name)


def test_a_package_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, line in (("broken_names", "x = undefined_name"), ("broken_needs", "import no_such_dependency")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"{line}\n")
        (tmp_path / name / "envs.py").write_text("")
    with pytest.raises(EnvironmentFailedError, match=r"the package of broken_names\.envs failed: NameError"):
        split_name("broken_names.envs:make")
    with pytest.raises(EnvironmentFailedError, match=r"broken_needs\.envs failed: ModuleNotFoundError.*no_such_dependency"):
        split_name("broken_needs.envs:make")


@pytest.mark.parametrize("step_limit_s", [None, 60.0], ids=["here", "apart"])
def test_an_environment_that_cannot_be_made_is_named(step_limit_s):
    with pytest.raises(EnvironmentFailedError, match="own_tasks:old_style: its reset takes no seed"):
        make_task(EnvConfig(name="own_tasks:old_style", step_limit_s=step_limit_s), 1, 0)


def test_wrong_arguments_of_a_function_name_the_option():
    with pytest.raises(ConfigError, match=r"own_tasks:counter' cannot be made with env\.kwargs .*'size'"):
        made("own_tasks:counter", size=3)


def test_an_old_style_step_is_named_at_the_first_one_and_the_compatibility_mends_it():
    env = made("own_tasks:old_style", accepts_seed=True)
    env.send(np.zeros(1, np.int64))
    with pytest.raises(EnvironmentFailedError, match=r"own_tasks:old_style.*returned 4 values, expected .*shimmy"):
        env.receive()
    for package in ("shimmy", "gym"):
        pytest.importorskip(package, reason=f"pip install {package}")
    assert [float(f[0]) for f in played(made("own_tasks:compatible"), 2)[0]] == pytest.approx([0.0, 0.1, 0.2])
    assert OldStyle().step  # the environment itself is unchanged


def test_what_closing_raises_is_a_warning_and_hides_no_error(caplog):
    env = made("gym:own_tasks:sticks", envs=2)  # another one was made, asked what it is, and closed
    with pytest.raises(EnvironmentFailedError, match="the real error"), closing(env):
        played(env, 20)
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # of three that were closed
    assert "own_tasks:sticks failed: RuntimeError: sticks" in caplog.text


# --- wrappers: one case for each that is registered


def grey_scale():
    env = made("own_envs:Picture-v0", "grey_scale", layout="channels_last", shape=[6, 8, 3])
    plain = made("own_envs:Picture-v0", layout="channels_last", shape=[6, 8, 3])
    wanted = plain.observe()[0] @ np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, which Gymnasium documents
    assert env.frame_shape == (6, 8, 1) and np.abs(env.observe()[0, ..., 0] - wanted).max() < 1.01


def resize():
    pytest.importorskip("cv2", reason="pip install opencv-python-headless")
    env = made("own_tasks:counter", "resize:4x6", dtype="uint8", high=255, shape=[8, 12, 3])
    assert env.frame_shape == (4, 6, 3) and set(played(env, 2)[0][2].ravel().tolist()) == {2}


def frame_stack():
    vectors, _, _ = played(made("own_tasks:counter", "frame_stack:3"), 3)
    assert vectors[0].tolist() == [0] * 6 and vectors[3].tolist() == [1, 1, 2, 2, 3, 3]
    grey, _, _ = played(made("own_tasks:counter", "frame_stack:3", dtype="uint8", high=255, shape=[7, 8]), 3)
    assert grey[3].shape == (7, 8, 3) and grey[3][0, 0].tolist() == [1, 2, 3]
    colour, _, _ = played(made("own_tasks:counter", "frame_stack:2", dtype="uint8", high=255, shape=[7, 8, 3]), 3)
    assert colour[3].shape == (7, 8, 6) and colour[3][0, 0].tolist() == [2, 2, 2, 3, 3, 3]
    shape = {"dtype": "uint8", "high": 255, "shape": [3, 7, 8], "layout": "channels_first"}
    first, _, _ = played(made("own_tasks:counter", "frame_stack:2", **shape), 3)
    assert first[3].shape == (7, 8, 6) and first[3][0, 0].tolist() == [2, 2, 2, 3, 3, 3]


def time_limit():
    assert played(made("own_tasks:counter", "time_limit:3", length=None), 4)[2] == ["", "", "cut", ""]


def reward_scale():
    assert played(made("own_tasks:counter", "reward_scale:-0.5"), 2)[1] == [-0.5, -0.5]


def flatten():
    assert made("gym:FrozenLake-v1", "flatten").observe().tolist() == [[1.0] + [0.0] * 15]


def keep():
    minigrid = pytest.importorskip("minigrid", reason="pip install minigrid")
    assert minigrid
    env = made("minigrid:MiniGrid-Empty-5x5-v0", "keep:image", "minigrid.wrappers:ImgObsWrapper")
    assert env.frame_shape == (7, 7, 3)


@pytest.mark.parametrize("name", [entry.name for entry in WRAPPERS.entries()])
def test_each_wrapper_does_what_its_name_says(name):
    globals()[name]()


def test_wrappers_are_applied_in_the_order_that_is_given():
    inner = played(made("own_tasks:counter", "time_limit:4", "frame_stack:2", length=None), 4)
    assert inner[0][3].tolist() == [2, 2, 3, 3] and inner[2][3] == "cut"
    with pytest.raises(ConfigError, match=r"env\.wrappers: grey_scale does not fit own_tasks:counter.*\(7, 8\)"):
        made("own_tasks:counter", "grey_scale", "frame_stack:2", dtype="uint8", high=255, shape=[7, 8])


@pytest.mark.parametrize(
    "text, error, words",
    [
        ("gray_scale", UnknownNameError, "Did you mean 'grey_scale'"),
        ("frame_stack", ConfigError, "expected frame_stack:4, got 'frame_stack'"),
        ("grey_scale:2", ConfigError, "expected grey_scale, got 'grey_scale:2'"),
        ("frame_stack:0", ConfigError, "a whole number from 1, got '0'"),
        ("time_limit:-3", ConfigError, "a whole number from 1, got '-3'"),
        ("reward_scale:nan", ConfigError, "a number other than 0, got 'nan'"),
        ("resize:84", ConfigError, "HEIGHTxWIDTH, got '84'"),
        ("no.such:Wrapper", MissingExtraError, "no.such:Wrapper cannot be imported"),
        ("gymnasium.wrappers:Nothing", ConfigError, "has no wrapper 'Nothing'"),
    ],
)
def test_a_wrong_wrapper_says_what_is_expected(text, error, words):
    with pytest.raises(error, match=words):
        made("own_tasks:counter", text)


def test_the_task_of_a_configuration_has_its_wrappers():
    env = make_task(EnvConfig(name="own_tasks:counter", wrappers=("frame_stack:4",)), 3, 0)
    assert env.frame_shape == (8,) and env.num_envs == 3


# --- what a run could live with, and should not


@pytest.mark.parametrize("step_limit_s", [None, pytest.param(60.0, marks=pytest.mark.slow)], ids=["here", "apart"])
@pytest.mark.parametrize(
    "name, kwargs, words",
    [
        ("own_tasks:counter", {"high": 3.0}, "component 0 of an observation is 4, outside of the declared bounds 0 and 3"),
        ("own_tasks:bits", {"dtype": "bool"}, "an observation is bool, its space declares int8"),
        ("own_tasks:counter", {"length": None, "high": 1e9}, r"no episode .* ended in \d+ random steps.*time_limit:1000"),
        ("own_tasks:leaky", {}, r"took \d+ MB of memory in \d+ steps: .* Does it keep its history"),
    ],
)
def test_what_an_environment_breaks_is_named_before_the_run(name, kwargs, words, step_limit_s):
    import re

    said = doubts(
        EnvConfig(name=name, kwargs=kwargs, step_limit_s=step_limit_s), 10**9
    )  # once: memory that it kept is free again, a second one need not grow
    assert len(said) == 1 and re.search(words, said[0])
    assert doubts(EnvConfig(name="own_tasks:counter", step_limit_s=step_limit_s), 10**9) == ()
