"""Policies of other packages: each documented layout is read as what it is, and its actions are its own."""

import json
from dataclasses import replace

import bundle_run
import numpy as np
import onnx
import pytest
import torch
from policy_files import ACTIONS, FEATURES, Linear, actor_critic_weights, policy_model, saved, sb3_zip
from safetensors.numpy import save_file

from cosearch.deploy.bundle.folder import BundleOptions
from cosearch.rl.envs import Box
from cosearch.rl.foreign.network import ForeignNetwork
from cosearch.rl.foreign.readers import read_policy
from cosearch.rl.foreign.understood import Said, TaskFacts, understood_in
from latency_tables.errors import ConfigError, RequestError

DISCRETE = TaskFacts("cart", (FEATURES,), ACTIONS)
SIZE = 2
VECTORS = TaskFacts("arm", (FEATURES,), SIZE, Box((-1.0, -2.0), (1.0, 2.0)))
UNIT_BOX = TaskFacts("unit", (FEATURES,), SIZE, Box((-1.0, -1.0), (1.0, 1.0)))
FAR = TaskFacts("far", (FEATURES,), SIZE, Box((0.0, 40.0), (100.0, 60.0)))  # an agent's own actions are scaled, too
IMAGES = TaskFacts("pictures", (4, 5, 2), ACTIONS)
X = np.random.default_rng(7).normal(0, 2, (9, FEATURES)).astype(np.float32)


def opened(path, task, **said):
    policy = read_policy(path, task, Said(**said))
    return policy.understood, ForeignNetwork(path, policy.content, policy.understood)


def taught(path, task, x=X, **said):
    known, network = opened(path, task, **said)
    return known, *(part.numpy() for part in network(torch.from_numpy(x)))


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# --- ONNX, discrete actions


def test_the_documented_export_of_stable_baselines3_gives_actions_and_a_fixed_batch(tmp_path):
    head, value = Linear(FEATURES, ACTIONS, 0), Linear(FEATURES, 1, 1)
    model = policy_model({"actions": (head, "ArgMax"), "values": (value, None), "log_prob": (Linear(FEATURES, 1, 2), None)})
    known, actions, values = taught(saved(tmp_path / "p.onnx", model), DISCRETE)
    assert (known.batch, known.meaning, known.acting, known.teaches_by) == ("one", "action", "greedy", "actions")
    assert known.value == "values"
    assert (actions[:, 0] == head(X).argmax(1)).all() and actions.dtype == np.int64
    close(values, value(X)[:, 0])


@pytest.mark.parametrize(
    "name, after, said", [("logits", None, {}), ("probs", "Softmax", {}), ("x", "Softmax", {"outputs": "probabilities"})]
)
def test_logits_and_probabilities_are_one_distribution(tmp_path, name, after, said):
    head = Linear(FEATURES, ACTIONS, 0)
    model = policy_model({name: (head, after), "value": (Linear(FEATURES, 1, 1), None)}, shape=("n", FEATURES))
    known, outputs, _ = taught(saved(tmp_path / "p.onnx", model), DISCRETE, **said)
    assert (known.batch, known.acting, known.teaches_by) == ("free", "sampled", "distribution")
    close(softmax(outputs), softmax(head(X)))


def test_action_values_teach_by_their_best_action(tmp_path):
    head = Linear(FEATURES, ACTIONS, 0)
    path = saved(tmp_path / "dqn.onnx", policy_model({"q_values": (head, None)}))
    known, actions, value = taught(path, DISCRETE)
    assert known.meaning == "action values" and known.acting == "greedy" and np.isnan(value).all()
    assert (actions[:, 0] == head(X).argmax(1)).all()
    assert taught(path, DISCRETE, outputs="logits")[0].meaning == "logits"


def test_actions_that_an_environment_counts_from_another_number_are_counted_from_nought(tmp_path):
    head = Linear(FEATURES, ACTIONS, 0)
    model = policy_model({"best": (head, "ArgMax")}, shape=("n", FEATURES))
    model.graph.node[-1].output[0] = "index"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(5), "five"))
    model.graph.node.append(onnx.helper.make_node("Add", ["index", "five"], ["best"]))
    task = TaskFacts("from five", (FEATURES,), ACTIONS, first_action=5)
    _, actions, _ = taught(saved(tmp_path / "p.onnx", model), task)
    assert (actions[:, 0] == head(X).argmax(1)).all()


def test_a_file_without_a_batch_dimension_is_run_row_by_row(tmp_path):
    head = Linear(FEATURES, ACTIONS, 0)
    known, outputs, _ = taught(saved(tmp_path / "p.onnx", policy_model({"logits": (head, None)}, shape=(FEATURES,))), DISCRETE)
    assert known.batch == "none"
    close(outputs, head(X))


# --- ONNX, vectors


@pytest.mark.parametrize("task", [VECTORS, FAR])
def test_the_documented_export_of_rsl_rl_gives_means_in_the_environments_units(tmp_path, task):
    head = Linear(FEATURES, SIZE, 0)
    known, mean, _ = taught(saved(tmp_path / "p.onnx", policy_model({"actions": (head, None)})), task)
    assert (known.meaning, known.spread, known.acting, known.teaches_by) == ("action", None, "greedy", "actions")
    played = task.box.from_policy(mean)
    close(played, np.clip(head(X), task.box.low, task.box.high))


@pytest.mark.parametrize("spread, is_log", [("log_std", True), ("sigma", False)])
def test_the_documented_export_of_rl_games_gives_a_gaussian(tmp_path, spread, is_log):
    head, std = Linear(FEATURES, SIZE, 0), np.array([[0.5, 2.0]], np.float32)
    model = policy_model(
        {"mu": (head, None), spread: (np.log(std) if is_log else std, None), "value": (Linear(FEATURES, 1, 1), None)},
        shape=("n", FEATURES),
    )
    path = saved(tmp_path / "p.onnx", model)
    with pytest.raises(ConfigError, match=r"is 'mu' in the units of arm, .*--action-scale unit .* --action-scale environment"):
        opened(path, VECTORS)
    for free in (UNIT_BOX, replace(VECTORS, box=Box((-np.inf, -2.0), (np.inf, 2.0)))):  # nothing to ask
        close(taught(path, free)[1][:, :SIZE], head(X))
    known, parameters, _ = taught(path, VECTORS, action_scale="environment")
    assert (known.meaning, known.spread, known.teaches_by, known.value) == ("mean", spread, "distribution", "value")
    close(parameters, np.concatenate([head(X), np.broadcast_to(np.log(std), (len(X), SIZE))], 1))
    _, parameters, _ = taught(path, FAR, action_scale="environment")
    scaled = parameters[:, SIZE:]  # the spread of an agent's own actions: 50 and 10 of the environment's are its 1
    close(scaled, np.broadcast_to(np.log(std / [50, 10]), (len(X), SIZE)))


@pytest.mark.parametrize("task", [VECTORS, FAR])
def test_squashed_actions_stand_for_the_bounds(tmp_path, task):
    head = Linear(FEATURES, SIZE, 0)
    inside = saved(tmp_path / "sac.onnx", policy_model({"31": (head, "Tanh")}))
    outside = saved(tmp_path / "raw.onnx", policy_model({"mean": (head, None)}))
    low, high = np.array(task.box.low), np.array(task.box.high)
    wanted = low + (np.tanh(head(X)) + 1) / 2 * (high - low)
    for path, said in ((inside, {}), (inside, {"action_scale": "unit"}), (outside, {"action_scale": "tanh"})):
        _, mean, _ = taught(path, task, **said)
        close(task.box.from_policy(mean), wanted)
    assert any("hyperbolic tangent" in note for note in opened(inside, task)[0].notes)
    close(task.box.from_policy(taught(inside, task, action_scale="environment")[1]), np.clip(np.tanh(head(X)), low, high))


def test_a_tangent_outside_teaches_by_actions_and_samples_nothing(tmp_path):
    head = Linear(FEATURES, SIZE, 0)
    path = saved(tmp_path / "p.onnx", policy_model({"mean": (head, None), "log_std": (np.zeros((1, SIZE), np.float32), None)}))
    known, labels, _ = taught(path, UNIT_BOX, action_scale="tanh")
    close(labels, np.tanh(head(X)))  # actions alone, no spread beside them
    assert (known.teaches_by, known.acting, known.spread) == ("actions", "greedy", None)
    assert any("'log_std' is left aside" in note for note in known.notes)
    with pytest.raises(ConfigError, match=r"--acting sampled with --action-scale tanh: .*leave --acting out"):
        opened(path, UNIT_BOX, action_scale="tanh", acting="sampled")


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_standard_deviation_is_above_nought(tmp_path, std):
    spread = np.array([[1.0, std]], np.float32)
    path = saved(tmp_path / "p.onnx", policy_model({"mean": (Linear(FEATURES, SIZE, 0), None), "std": (spread, None)}))
    with pytest.raises(ConfigError, match=f"'std' is a standard deviation by its name, expected above 0, got {std:g}.*log_std"):
        opened(path, UNIT_BOX)


@pytest.mark.parametrize("actions", ["outside", "greedy"])
def test_an_agent_of_this_project_is_read_in_its_own_units(tmp_path, actions):
    folder = bundle_run.make_run(tmp_path / "run", "gaussian", options=BundleOptions(actions=actions)).path
    task = replace(FAR, frame_shape=(3,))
    with torch.no_grad():
        wanted, value = (part.numpy() for part in bundle_run.network("gaussian")(torch.from_numpy(X[:, :3])))
    for path in (folder / "agent.onnx", folder / "agent" / "agent.onnx"):
        known, found, values = taught(path, task, X[:, :3])
        close(found, wanted)
        close(values, value)
        assert known.acting == "greedy" and any("the agent's own units" in note for note in known.notes)
    said = taught(path, task, X[:, :3], action_scale="environment")[1]
    close(task.box.from_policy(said[:, :SIZE]), np.clip(wanted[:, :SIZE], task.box.low, task.box.high))


def test_of_a_chunk_of_actions_the_first_is_taken(tmp_path):
    head = Linear(FEATURES, 2 * SIZE, 0)
    model = policy_model({"action_chunk": (head, "Chunk")}, name="observation.state")
    known, mean, _ = taught(saved(tmp_path / "act.onnx", model), VECTORS)
    close(mean, head(X)[:, :SIZE])
    assert any("chunk of 2 actions" in note for note in known.notes)


# --- images

UNIT, WHOLE = {"pixels": 1}, {"pixels": 255}


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "dtype, divide, said", [("uint8", 255.0, {}), ("float32", 255.0, {}), ("float32", None, UNIT), ("float32", None, WHOLE)]
)
def test_images_are_given_in_the_layout_and_scale_that_a_file_takes(tmp_path, layout, dtype, divide, said):
    h, w, c = IMAGES.frame_shape
    head = Linear(h * w * c, ACTIONS, 0)
    shape = ("n", h, w, c) if layout == "channels_last" else ("n", c, h, w)
    path = saved(tmp_path / "cnn.onnx", policy_model({"logits": (head, None)}, shape=shape, dtype=dtype, divide=divide))
    frames = np.random.default_rng(3).integers(0, 256, (6, h, w, c), np.uint8)
    known, outputs, _ = taught(path, IMAGES, frames, **said)
    assert known.layout == layout and known.pixels == said.get("pixels", 255)
    turned = frames if layout == "channels_last" else frames.transpose(0, 3, 1, 2)
    scale = 255 if divide or said.get("pixels") == 1 else 1
    fed = turned.reshape(6, -1).astype(np.float32) / scale
    np.testing.assert_allclose(outputs, head(fed), rtol=1e-4, atol=1e-4 if scale > 1 else 1e-2)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_statistics_of_images_are_read_in_either_order(tmp_path, layout):
    h, w, c = IMAGES.frame_shape
    head, random = Linear(h * w * c, ACTIONS, 0), np.random.default_rng(4)
    shape = ("n", h, w, c) if layout == "channels_last" else ("n", c, h, w)
    path = saved(tmp_path / "cnn.onnx", policy_model({"logits": (head, None)}, shape=shape))
    frames = random.integers(0, 256, (6, h, w, c), np.uint8)
    mean, std = random.normal(100, 30, (h, w, c)), random.uniform(10, 90, (h, w, c))
    wanted = (frames - mean) / std
    wanted = head((wanted if layout == "channels_last" else wanted.transpose(0, 3, 1, 2)).reshape(6, -1).astype(np.float32))
    file = tmp_path / "n.npz"
    for given in (mean, mean[None], mean.transpose(2, 0, 1), mean.transpose(2, 0, 1)[None]):
        np.savez(file, mean=given, std=std, epsilon=0)
        close(taught(path, IMAGES, frames, normaliser=file)[1], wanted)
    np.savez(file, mean=mean.ravel(), std=std.ravel(), epsilon=0)
    if layout == "channels_last":
        close(taught(path, IMAGES, frames, normaliser=file)[1], wanted)
    else:
        with pytest.raises(ConfigError, match=r"mean has the shape \[40\], expected \[4, 5, 2\], or \[2, 4, 5\]"):
            opened(path, IMAGES, normaliser=file)


def test_float_images_of_unknown_scale_are_asked_about(tmp_path):
    h, w, c = IMAGES.frame_shape
    path = saved(tmp_path / "cnn.onnx", policy_model({"logits": (Linear(h * w * c, ACTIONS, 0), None)}, shape=("n", h, w, c)))
    with pytest.raises(ConfigError, match="--pixels 255 or --pixels 1"):
        opened(path, IMAGES)


# --- normalisers


def test_a_normaliser_beside_the_file_is_applied_first(tmp_path):
    head, random = Linear(FEATURES, ACTIONS, 0), np.random.default_rng(5)
    mean, var = random.normal(0, 1, FEATURES), random.uniform(0.5, 2, FEATURES)
    path = saved(tmp_path / "p.onnx", policy_model({"logits": (head, None)}))
    np.savez(tmp_path / "n.npz", mean=mean, var=var, clip=1.5)  # as stable-baselines3's VecNormalize
    (tmp_path / "n.json").write_text(json.dumps({"mean": mean.tolist(), "std": np.sqrt(var).tolist(), "epsilon": 0.01}))
    rsl_rl = {"_mean": mean[None], "_var": var[None] * 1e-3, "_std": np.sqrt(var)[None] * 1e-3**0.5, "count": np.array(9)}
    save_file({f"obs_normalizer.{key}": value for key, value in rsl_rl.items()}, tmp_path / "rsl_rl.safetensors")
    np.savez(tmp_path / "rsl_rl.npz", **rsl_rl, eps=0.5)
    skrl = {"running_mean": mean, "running_variance": var, "current_count": np.array(9.0)}
    save_file({f"_observation_preprocessor.{key}": value for key, value in skrl.items()}, tmp_path / "n.safetensors")
    for name, fed in (
        ("n.npz", np.clip((X - mean) / np.sqrt(var + 1e-8), -1.5, 1.5)),
        ("n.json", (X - mean) / (np.sqrt(var) + 0.01)),
        ("n.safetensors", (X - mean) / np.sqrt(var + 1e-8)),
        ("rsl_rl.safetensors", (X - mean) / (np.sqrt(var * 1e-3) + 0.01)),
        ("rsl_rl.npz", (X - mean) / (np.sqrt(var * 1e-3) + 0.5)),
    ):
        known, outputs, _ = taught(path, DISCRETE, normaliser=tmp_path / name)
        close(outputs, head(fed))
        assert known.normaliser.source == name


# --- stable-baselines3 without stable-baselines3


def test_a_zip_of_ppo_is_its_layers_and_says_so(tmp_path):
    weights = actor_critic_weights()
    path = sb3_zip(tmp_path / "ppo.zip", weights)
    known, logits, value = taught(path, DISCRETE)

    def layer(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    close(logits, layer("action_net", np.tanh(layer("mlp_extractor.policy_net.0", X))))
    close(value, layer("value_net", np.tanh(layer("mlp_extractor.value_net.0", X)))[:, 0])
    assert known.origin == "stable-baselines3 2.9.2 PPO or A2C" and known.acting == "sampled"
    relu = sb3_zip(tmp_path / "relu.zip", weights, kwargs={"activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"})
    close(taught(relu, DISCRETE)[1], layer("action_net", np.maximum(layer("mlp_extractor.policy_net.0", X), 0)))


def test_a_gaussian_zip_has_its_spread(tmp_path):
    weights = actor_critic_weights(actions=SIZE, log_std=[-1.0, 0.5])
    known, parameters, _ = taught(sb3_zip(tmp_path / "ppo.zip", weights, actions=("size", SIZE)), VECTORS)
    assert known.teaches_by == "distribution" and known.acting == "greedy"
    close(parameters[:, SIZE:], np.broadcast_to([-1.0, 0.5], (len(X), SIZE)))


def test_a_squashed_zip_stands_for_the_bounds(tmp_path):
    weights = actor_critic_weights(actions=SIZE, log_std=np.zeros((5, SIZE)))
    plain, squashed = (
        sb3_zip(tmp_path / f"{on}.zip", weights, actions=("size", SIZE), kwargs={"squash_output": on}) for on in (False, True)
    )
    low, high = np.array(FAR.box.low), np.array(FAR.box.high)
    mean = taught(plain, FAR, action_scale="environment")[1] * (high - low) / 2 + (high + low) / 2
    known, found, _ = taught(squashed, FAR)
    close(FAR.box.from_policy(found), low + (np.tanh(mean) + 1) / 2 * (high - low))
    assert known.spread is None


# --- torch


def test_a_state_dict_and_its_class_are_a_policy(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "class Policy(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.body, self.value = torch.nn.Linear({FEATURES}, {ACTIONS}), torch.nn.Linear({FEATURES}, 1)\n"
        "    def forward(self, x):\n"
        "        return {'logits': self.body(x), 'value': self.value(x)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from my_nets import Policy
    from safetensors.torch import save_file as save_torch

    torch.manual_seed(3)
    network = Policy()
    path = tmp_path / "p.safetensors"
    save_torch(network.state_dict(), path)
    known, logits, value = taught(path, DISCRETE, module="my_nets:Policy")
    close(logits, network.body(torch.from_numpy(X)).detach().numpy())
    close(value, network.value(torch.from_numpy(X)).detach().numpy()[:, 0])
    assert known.origin == "torch state_dict of my_nets:Policy"
    for said, words in (
        ({}, "say whose, --module"),
        ({"module": "my_nets"}, "must be PACKAGE"),
        ({"module": "my_nets:Other"}, "has no 'Other'"),
        ({"module": "no_such_nets:Policy"}, "there is no module 'no_such_nets'"),
        ({"module": "json:dumps"}, "cannot be made without arguments"),
        ({"module": "builtins:dict"}, "gives dict, expected a torch.nn.Module"),
    ):
        with pytest.raises(RequestError, match=words):
            opened(path, DISCRETE, **said)
    save_torch({"body.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ConfigError, match="its weights are not those of my_nets:Policy"):
        opened(path, DISCRETE, module="my_nets:Policy")


# --- the file that a run learns from


def test_the_stored_file_says_itself_what_was_understood(tmp_path):
    (tmp_path / "n.json").write_text(json.dumps({"mean": 0.5, "var": 4}))
    path = saved(tmp_path / "p.onnx", policy_model({"actions": (Linear(FEATURES, SIZE, 0), "Tanh")}))
    policy = read_policy(path, FAR, Said(normaliser=tmp_path / "n.json"))
    stored = tmp_path / "stored.onnx"
    stored.write_bytes(policy.stored())
    known = understood_in(onnx.load(stored), stored)
    assert known == policy.understood
    again, first = (ForeignNetwork(stored, content, known) for content in (stored.read_bytes(), policy.content))
    close(again(torch.from_numpy(X))[0], first(torch.from_numpy(X))[0])
    model = onnx.load(stored)
    onnx.helper.set_model_props(model, {"cosearch.policy": '{"origin": 3}'})
    with pytest.raises(ConfigError, match=r"its metadata 'cosearch\.policy' cannot be read"):
        understood_in(model, stored)


def test_the_stored_file_is_read_again_as_what_it_was_read_as(tmp_path):
    (tmp_path / "n.json").write_text(json.dumps({"mean": 0.5, "var": 4}))
    path = saved(tmp_path / "p.onnx", policy_model({"mean": (Linear(FEATURES, SIZE, 0), None)}))
    policy = read_policy(path, FAR, Said(normaliser=tmp_path / "n.json", action_scale="tanh"))
    assert policy.understood.normaliser is not None and policy.understood.squashed
    stored = tmp_path / "stored.onnx"
    stored.write_bytes(policy.stored())
    again, found, _ = taught(stored, FAR)
    assert again == policy.understood
    close(found, ForeignNetwork(path, policy.content, policy.understood)(torch.from_numpy(X))[0])
    for task, said, words in (
        (replace(FAR, env="near"), {}, "was read as a policy of far, this task is near: say --env far"),
        (replace(FAR, frame_shape=(FEATURES + 1,)), {}, r"of observations \[4\] and 2 actions, far has \[5\] and 2"),
        (replace(FAR, box=None), {}, r"a gaussian policy .* 2 \(categorical\)"),
        (FAR, {"action_scale": "unit", "pixels": 1}, "says itself what it holds: leave --pixels, --action-scale out"),
    ):
        with pytest.raises(RequestError, match=words):
            read_policy(stored, task, Said(**said))


def test_what_plays_is_what_teaches(tmp_path):
    head = Linear(FEATURES, ACTIONS, 0)
    _, network = opened(saved(tmp_path / "p.onnx", policy_model({"best": (head, "ArgMax")})), DISCRETE)
    outputs, _ = network.plays(torch.from_numpy(X))
    assert outputs.shape == (len(X), ACTIONS) and (outputs.argmax(1).numpy() == head(X).argmax(1)).all()
    mean = Linear(FEATURES, SIZE, 0)
    _, network = opened(saved(tmp_path / "m.onnx", policy_model({"actions": (mean, None)})), VECTORS)
    outputs, _ = network.plays(torch.from_numpy(X))
    assert outputs.shape == (len(X), 2 * SIZE)
    close(outputs[:, :SIZE], mean(X))
