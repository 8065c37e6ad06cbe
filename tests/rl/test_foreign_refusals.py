"""Policies that cannot be read say what was expected, what was got, where, and what to type next; no pickle is loaded."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from policy_files import ACTIONS, FEATURES, Linear, actor_critic_weights, policy_model, saved, sb3_zip

from cosearch.rl.foreign.network import ForeignNetwork
from cosearch.rl.foreign.readers import read_policy
from cosearch.rl.foreign.understood import Said, TaskFacts
from latency_tables.errors import ConfigError, RequestError, ShapeError

DISCRETE = TaskFacts("cart", (FEATURES,), ACTIONS)
X = np.random.default_rng(7).normal(0, 2, (9, FEATURES)).astype(np.float32)


def opened(path, task, **said):
    policy = read_policy(path, task, Said(**said))
    return policy.understood, ForeignNetwork(path, policy.content, policy.understood)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("n.pkl", b"\x80\x04", r"pickles are not loaded.*numpy\.savez"),
        ("n.csv", b"", "expected a normaliser as"),
        ("n.json", b'{"mean": [0, 0, 0, 0]}', "mean and one of var and std, got mean"),
        ("n.json", b'{"mean": [0, 0, 0], "var": 1}', "mean has 3 numbers, the observations .4. have 4"),
        ("n.json", b'{"mean": 0, "var": -1}', "NaN or infinite, or the variance is negative"),
        ("n.json", b'{"mean": 0, "std": 0, "epsilon": 0}', "divides nothing"),
        ("n.json", b'{"mean": 0, "var": 1, "clip": 0}', "clip must be above 0"),
        ("n.npz", b"nothing", "cannot be read as a normaliser"),
        ("n.safetensors", b"nothing", "cannot be read as a normaliser"),
    ],
)
def test_a_normaliser_that_is_none_says_what_was_expected(tmp_path, name, content, words):
    path = saved(tmp_path / "p.onnx", policy_model({"logits": (Linear(FEATURES, ACTIONS, 0), None)}))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        opened(path, DISCRETE, normaliser=tmp_path / name)


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    "how, words",
    [
        ({"module": "mine.policies"}, "a class of mine.policies, expected one of stable-baselines3's own"),
        ({"module": "sb3_contrib.common.recurrent.policies"}, "Export it as ONNX"),
        ({"kwargs": {"activation_fn": "<class 'mine.Swish'>"}}, "its activation Swish"),
        ({"shape": None}, "of several kinds"),
        ({"shape": (7,)}, r"observes \[7\], cart gives \[4\]"),
        ({"actions": ("n", 5)}, "has 5 actions, cart has 3"),
        ({"actions": ("size", 3)}, "actions are of the shape .3., those of cart are discrete"),
    ],
)
def test_a_zip_that_cannot_be_read_so_says_why(tmp_path, how, words):
    with pytest.raises(RequestError, match=words):
        opened(sb3_zip(tmp_path / "p.zip", actor_critic_weights(), **how), DISCRETE)


def test_a_zip_of_pictures_of_unknown_scale_is_refused(tmp_path):
    path = sb3_zip(tmp_path / "p.zip", actor_critic_weights(), shape=(4, 5, 2), kwargs={"normalize_images": False})
    with pytest.raises(
        ConfigError, match=r"normalize_images=False.*pictures are of the dtype unknown, expected uint8.*Export it"
    ):
        opened(path, TaskFacts("pictures", (4, 5, 2), ACTIONS))


def changed(path, **entries):
    """The zip with other contents of some entries."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**kept, **{key.replace("_pth", ".pth"): value for key, value in entries.items()}}.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "how, words",
    [
        ({"without": "action_net.weight"}, "has no 'action_net.weight', a policy of stable-baselines3 has.*Export it"),
        ({"without": "mlp_extractor.policy_net.0.bias"}, "has no 'mlp_extractor.policy_net.0.bias'"),
        ({"weights": {"mlp_extractor.policy_net.0.weight": np.zeros((5, 7))}}, "p.zip"),
        ({"weights": {"mlp_extractor.policy_net.0.bias": np.zeros(9)}}, "do not fit a policy of stable-baselines3: .*size"),
        ({"weights": {"action_net.weight": np.zeros(())}}, "do not fit a policy of stable-baselines3"),
        ({"actions": ("n", "many")}, "do not fit a policy of stable-baselines3: .*many"),
        ({"shape": ("a",)}, "do not fit a policy of stable-baselines3: .*'a'"),
        ({"policy_pth": b"\x80\x02."}, "cannot be read as a zip of stable-baselines3"),
    ],
)
def test_a_damaged_zip_is_one_message(tmp_path, how, words):
    weights = {name: weight for name, weight in actor_critic_weights().items() if name != how.get("without")}
    shown = {key: how[key] for key in ("actions", "shape") if key in how}
    path = sb3_zip(tmp_path / "p.zip", {**weights, **how.get("weights", {})}, **shown)
    if "policy_pth" in how:
        changed(path, policy_pth=how["policy_pth"])
    with pytest.raises(RequestError, match=words):
        opened(path, DISCRETE)


def test_no_pickle_of_a_zip_is_ever_loaded(tmp_path):
    path, buffer = sb3_zip(tmp_path / "p.zip", actor_critic_weights()), io.BytesIO()
    torch.save({"action_net.weight": Trap()}, buffer)
    changed(path, policy_pth=buffer.getvalue())
    with pytest.raises(ConfigError, match="more than weights, which is never loaded"):
        opened(path, DISCRETE)


# --- wrong policies: expected, got, where, what to type next


def logits(**how):
    return policy_model({"logits": (Linear(FEATURES, ACTIONS, 0), None)}, **how)


def nan_weight():
    head = Linear(FEATURES, ACTIONS, 0)
    head.w[0, 0] = np.nan
    return policy_model({"logits": (head, None)})


def memory():
    return logits(inputs=[onnx.helper.make_tensor_value_info("h_in", 1, [1, 1, 8])])


def several():
    return logits(inputs=[onnx.helper.make_tensor_value_info("goal", 1, [1, 3])])


def two_policies():
    return policy_model({"a": (Linear(FEATURES, ACTIONS, 0), None), "b": (Linear(FEATURES, ACTIONS, 1), None)})


@pytest.mark.parametrize(
    "model, said, error, words",
    [
        (
            lambda: policy_model({"logits": (Linear(7, ACTIONS, 0), None)}, shape=(1, 7)),
            {},
            ShapeError,
            r"obs: float32 \[1, 7\] takes no observation of cart, expected \[batch, 4\]",
        ),
        (lambda: logits(shape=(8, FEATURES)), {}, ShapeError, "fixed to 8; export it with a free one"),
        (
            lambda: policy_model({"logits": (Linear(FEATURES, 5, 0), None)}),
            {},
            ShapeError,
            "the logits of this environment's 3 actions",
        ),
        (nan_weight, {}, ConfigError, r"the weight 'logits_w' \[4, 3\] has 1 NaN"),
        (lambda: logits(domain="my.ops"), {}, ConfigError, "needs the custom operator my.ops::Own"),
        (memory, {}, ConfigError, r"it has a memory .h_in: float32 \[1, 1, 8\] among its inputs.* got none"),
        (several, {}, ShapeError, r"has 2 inputs .*goal: float32 \[1, 3\]"),
        (two_policies, {}, ConfigError, "several outputs can be the policy's: a, b.*--outputs logits:a"),
        (two_policies, {"outputs": "logits:c"}, ConfigError, "no output 'c'; it has a, b"),
        (logits, {"outputs": "mean"}, ConfigError, "the actions of cart are discrete, say logits"),
        (logits, {"outputs": "best"}, ConfigError, "--outputs must be one of logits, probabilities, action-values"),
        (logits, {"action_scale": "unit"}, ConfigError, "the actions of cart are discrete; leave it out"),
        (logits, {"pixels": 1}, ConfigError, "the observations of cart are vectors; leave it out"),
        (logits, {"acting": "often"}, ConfigError, "must be sampled or greedy"),
        (logits, {"module": "a:B"}, ConfigError, "--module has no effect"),
        (
            lambda: policy_model({"best": (Linear(FEATURES, ACTIONS, 0), "ArgMax")}),
            {"acting": "sampled"},
            ConfigError,
            "nothing to sample from",
        ),
    ],
)
def test_a_wrong_policy_says_what_was_expected(tmp_path, model, said, error, words):
    with pytest.raises(error, match=words):
        opened(saved(tmp_path / "wrong.onnx", model()), DISCRETE, **said)


def test_what_a_file_of_a_policy_cannot_play_is_said_at_once(tmp_path):
    path = saved(tmp_path / "p.onnx", logits())
    with pytest.raises(ConfigError, match=r"cart has actions of 2 discrete factors \(MultiDiscrete \[2, 1\]\).*cosearch teacher"):
        opened(path, replace(DISCRETE, action_sizes=(2, 1)))
    with pytest.raises(ConfigError, match="--layout must be channels_last or channels_first, got 'chanels_first'"):
        opened(path, replace(DISCRETE, frame_shape=(4, 5, 2)), layout="chanels_first")
    with pytest.raises(ConfigError, match="--layout has no effect: the observations of cart are vectors"):
        opened(path, DISCRETE, layout="channels_first")


def test_two_outputs_that_could_be_it_are_told_apart_by_name(tmp_path):
    _, network = opened(saved(tmp_path / "p.onnx", two_policies()), DISCRETE, outputs="logits:b")
    close(network(torch.from_numpy(X))[0], Linear(FEATURES, ACTIONS, 1)(X))


def test_a_file_of_two_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ConfigError, match=r"2\.15 GB with its weights, at most 2\.15 GB can be read"):
        opened(path, DISCRETE)
    beside = saved(tmp_path / "p.onnx", logits())
    onnx.save(onnx.load(beside), beside, save_as_external_data=True, location="p.data", size_threshold=0)
    with (tmp_path / "p.data").open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(ConfigError, match=r"2\.15 GB with its weights"):
        opened(beside, DISCRETE)


def test_files_that_are_no_policies(tmp_path):
    good = saved(tmp_path / "p.onnx", logits()).read_bytes()
    for name, content, words in (
        ("cut.onnx", good[:60], "cannot be loaded as ONNX, 60 bytes"),
        ("empty.onnx", b"", "without operators or outputs"),
        ("text.onnx", b"PK\x03\x04 this is a zip", "cannot be loaded as ONNX"),
        ("no.zip", b"no zip", "cannot be read as a zip of stable-baselines3"),
        ("w.pt", b"", "torch.save_file.*export the policy as ONNX"),
        ("w", b"", "a name without ending"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RequestError, match=words):
            opened(tmp_path / name, DISCRETE)
    with pytest.raises(RequestError, match=r"no such file; expected a policy: \.onnx"):
        opened(tmp_path / "none.onnx", DISCRETE)


def test_a_weight_that_is_shorter_than_its_shape_is_named(tmp_path):
    model = logits()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-8]
    with pytest.raises(ConfigError, match=r"the weight 'logits_w' has the shape \[4, 3\] and other numbers.*export it again"):
        opened(saved(tmp_path / "p.onnx", model), DISCRETE)


def test_weights_beside_the_file_are_read_and_missed(tmp_path):
    path = tmp_path / "p.onnx"
    onnx.save(logits(), path, save_as_external_data=True, location="p.data", size_threshold=0)
    close(opened(path, DISCRETE)[1](torch.from_numpy(X))[0], Linear(FEATURES, ACTIONS, 0)(X))
    (tmp_path / "p.data").unlink()
    with pytest.raises(ConfigError, match=r"its weights lie in p\.data, which is not beside it"):
        opened(path, DISCRETE)
