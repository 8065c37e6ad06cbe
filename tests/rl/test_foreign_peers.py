"""Policies made and exported by the packages themselves: on real observations they take here the actions that they take there."""

import gymnasium
import numpy as np
import pytest
import torch

from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.foreign.network import ForeignNetwork
from cosearch.rl.foreign.readers import read_policy
from cosearch.rl.foreign.understood import Said, TaskFacts
from latency_tables.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")
CART, PENDULUM = "gym:CartPole-v1", "gym:Pendulum-v1"


def real(name, count=64):
    """The task, and observations of it that random actions lead to."""
    load_builtins()
    env, random, seen = make_env(name, EnvOptions(8, 3)), np.random.default_rng(0), []
    task = TaskFacts(name, env.frame_shape, env.num_actions, env.action_box)
    while sum(map(len, seen)) < count:
        seen.append(env.observe())
        vectors = random.normal(0, 1, (8, env.num_actions)).astype(np.float32)
        env.send(random.integers(0, env.num_actions, 8) if env.action_box is None else vectors)
        env.receive()
    env.close()
    return task, np.concatenate(seen)[:count]


def played(path, task, x, **said):
    """What is played here, in the environment's own units, greedily; and what was understood."""
    policy = read_policy(path, task, Said(**said))
    outputs, _ = ForeignNetwork(path, policy.content, policy.understood).plays(torch.from_numpy(x))
    if task.box is None:
        return outputs.argmax(1).numpy(), policy.understood
    return task.box.from_policy(outputs[:, : task.num_actions].numpy()), policy.understood


def onnx_of(path, module, example, inputs, outputs, **how):
    torch.onnx.export(
        module.eval(), example, str(path), dynamo=False, opset_version=17, input_names=inputs, output_names=outputs, **how
    )
    return path


def agrees(found, wanted):
    if found.dtype.kind == "i":
        assert (found == wanted.reshape(found.shape)).all()
    else:
        np.testing.assert_allclose(found, wanted.reshape(found.shape), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "algorithm, name, how",
    [
        ("PPO", CART, {"n_steps": 16, "batch_size": 16}),
        ("A2C", CART, {"policy_kwargs": {"net_arch": [8, 8], "activation_fn": torch.nn.ReLU}}),
        ("DQN", CART, {}),
        ("PPO", PENDULUM, {"n_steps": 16, "batch_size": 16}),
        ("A2C", PENDULUM, {"use_sde": True, "policy_kwargs": {"squash_output": True, "activation_fn": torch.nn.ReLU}}),
        ("SAC", PENDULUM, {"policy_kwargs": {"net_arch": [8]}}),
        ("SAC", PENDULUM, {"use_sde": True}),
        ("SAC", PENDULUM, {"use_sde": True, "policy_kwargs": {"net_arch": [], "clip_mean": 0.5}}),
        ("TD3", PENDULUM, {}),
    ],
)
def test_zips_of_stable_baselines3(algorithm, name, how, tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    model = getattr(sb3, algorithm)("MlpPolicy", name.partition(":")[2], seed=1, device="cpu", **how)
    if how.get("use_sde") and algorithm == "SAC":  # means beyond those that are cut
        model.policy.actor.mu[0].weight.data.mul_(30)
    model.save(tmp_path / "p.zip")
    task, x = real(name)
    found, known = played(tmp_path / "p.zip", task, x)
    agrees(found, model.predict(x, deterministic=True)[0])
    assert algorithm in known.origin
    if algorithm == "PPO":
        policy = read_policy(tmp_path / "p.zip", task, Said())
        value = ForeignNetwork(tmp_path, policy.content, known)(torch.from_numpy(x))[1]
        torch.testing.assert_close(value, model.policy.predict_values(torch.from_numpy(x))[:, 0].detach(), rtol=1e-4, atol=1e-5)


class Pictures(gymnasium.Env):
    """Random pictures whose pixels go up to ``brightest``, for stable-baselines3 to make a policy of."""

    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, brightest=255, size=36):
        self.observation_space = gymnasium.spaces.Box(0, brightest, (size, size, 2), np.uint8)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, True, {}


def test_a_zip_with_pictures(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    x = np.random.default_rng(0).integers(0, 256, (16, 36, 36, 2), np.uint8)
    task = TaskFacts("pictures", (36, 36, 2), 3)
    raw = {"buffer_size": 10, "policy_kwargs": {"normalize_images": False}}
    for algorithm, how in (("PPO", {"n_steps": 16, "batch_size": 16}), ("DQN", {"buffer_size": 10}), ("DQN", raw)):
        model = getattr(sb3, algorithm)("CnnPolicy", Pictures(), seed=1, device="cpu", **how)
        model.save(tmp_path / "p.zip")
        found, known = played(tmp_path / "p.zip", task, x)
        agrees(found, model.predict(x.transpose(0, 3, 1, 2), deterministic=True)[0])
        assert known.layout == "channels_first"


@pytest.mark.parametrize("brightest", [200, 255])
def test_pictures_are_divided_where_stable_baselines3_divides_them(brightest, tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    model = sb3.PPO("MlpPolicy", Pictures(brightest, 8), seed=1, device="cpu", n_steps=16, batch_size=16)
    model.policy.action_net.weight.data.normal_()
    model.save(tmp_path / "p.zip")
    x = np.random.default_rng(0).integers(0, brightest + 1, (16, 8, 8, 2), np.uint8)
    task = TaskFacts("pictures", (8, 8, 2), 3)
    policy = read_policy(tmp_path / "p.zip", task, Said())
    logits = ForeignNetwork(tmp_path, policy.content, policy.understood)(torch.from_numpy(x))[0]
    given = torch.from_numpy(x.transpose(0, 3, 1, 2) if brightest == 255 else x)
    torch.testing.assert_close(
        logits.log_softmax(-1), model.policy.get_distribution(given).distribution.logits, rtol=1e-4, atol=1e-5
    )


def test_a_feature_extractor_of_the_users_own_is_refused(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor

    class Scaled(BaseFeaturesExtractor):
        def __init__(self, space):
            super().__init__(space, 4)

        def forward(self, x):
            return 0.01 * x

    task, x = real(CART)
    for extractor in (FlattenExtractor, Scaled):
        how = {"n_steps": 16, "batch_size": 16, "policy_kwargs": {"features_extractor_class": extractor}}
        model = sb3.PPO("MlpPolicy", "CartPole-v1", seed=1, device="cpu", **how)
        model.save(tmp_path / f"{extractor.__name__}.zip")
        if extractor is FlattenExtractor:
            agrees(played(tmp_path / "FlattenExtractor.zip", task, x)[0], model.predict(x, deterministic=True)[0])
    with pytest.raises(ConfigError, match=r"features_extractor_class is .*Scaled, expected .*Export it as ONNX"):
        played(tmp_path / "Scaled.zip", task, x)


@pytest.mark.parametrize(
    "algorithm, name, said",
    [("PPO", CART, {}), ("PPO", PENDULUM, {"outputs": "action:actions"}), ("SAC", PENDULUM, {})],
)
def test_the_export_that_the_page_of_stable_baselines3_documents(algorithm, name, said, tmp_path):
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")

    class Documented(torch.nn.Module):
        """``policy(observation, deterministic=True)``: actions, values, log_prob; of SAC the actor's actions."""

        def __init__(self, policy):
            super().__init__()
            self.policy = policy

        def forward(self, observation):
            return self.policy(observation, deterministic=True)

    how = {"n_steps": 16, "batch_size": 16} if algorithm == "PPO" else {"policy_kwargs": {"net_arch": [8]}}
    model = getattr(sb3, algorithm)("MlpPolicy", name.partition(":")[2], seed=1, device="cpu", **how)
    task, x = real(name)
    policy = Documented(model.policy if algorithm == "PPO" else model.policy.actor)
    names = ["actions", "values", "log_prob"] if algorithm == "PPO" else ["actions"]
    path = onnx_of(tmp_path / "p.onnx", policy, (torch.randn(1, *task.frame_shape),), ["input"], names)
    found, known = played(path, task, x, **said)
    agrees(found, model.predict(x, deterministic=True)[0])
    assert known.batch == "one" and known.teaches_by == "actions"


def test_the_exporter_of_rsl_rl(tmp_path):
    models = pytest.importorskip("rsl_rl.models", reason="rsl-rl-lib is not installed")
    from tensordict import TensorDict

    task, x = real(PENDULUM)
    torch.manual_seed(0)
    observations = TensorDict({"policy": torch.from_numpy(x)}, batch_size=[len(x)])
    model = models.MLPModel(
        observations,
        {"actor": ["policy"]},
        "actor",
        task.num_actions,
        hidden_dims=[32, 16],
        obs_normalization=True,
        distribution_cfg={"class_name": "GaussianDistribution", "init_std": 0.5},
    )
    model.obs_normalizer.train()
    model.update_normalization(observations)
    model.eval()
    exported = model.as_onnx(verbose=False)
    path = onnx_of(tmp_path / "policy.onnx", exported, exported.get_dummy_inputs(), exported.input_names, exported.output_names)
    with torch.no_grad():
        wanted = model(observations, stochastic_output=False).numpy()
    found, known = played(path, task, x)
    agrees(found, np.clip(wanted, -2, 2))
    assert known.meaning == "action" and known.batch == "one" and np.ptp(wanted) > 0


def test_a_model_of_skrl_and_its_scaler(tmp_path):
    skrl = pytest.importorskip("skrl.models.torch", reason="skrl is not installed")
    from gymnasium.spaces import Box
    from safetensors.torch import save_file
    from skrl.resources.preprocessors.torch import RunningStandardScaler

    task, x = real(PENDULUM)

    class Policy(skrl.GaussianMixin, skrl.Model):
        def __init__(self, seen, actions):
            skrl.Model.__init__(self, observation_space=seen, action_space=actions, device="cpu")
            skrl.GaussianMixin.__init__(self)
            self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ELU(), torch.nn.Linear(16, 1))
            self.log_std = torch.nn.Parameter(torch.full((1,), -0.5))

        def compute(self, inputs, role=""):
            return self.net(inputs["observations"]), {"log_std": self.log_std}

    class Exported(torch.nn.Module):
        def __init__(self, policy):
            super().__init__()
            self.policy = policy

        def forward(self, observations):
            mean, others = self.policy.compute({"observations": observations})
            return mean, others["log_std"] + 0.0 * mean

    torch.manual_seed(0)
    policy = Policy(Box(-8, 8, (3,)), Box(-2, 2, (1,)))
    scaler = RunningStandardScaler(size=3, device="cpu")
    scaler(torch.from_numpy(x), train=True)
    save_file(scaler.state_dict(), tmp_path / "scaler.safetensors")
    path = onnx_of(
        tmp_path / "p.onnx",
        Exported(policy),
        (torch.zeros(2, 3),),
        ["observations"],
        ["mean", "log_std"],
        dynamic_axes={"observations": [0]},
    )
    with torch.no_grad():
        wanted = policy.compute({"observations": scaler(torch.from_numpy(x)).float()})[0].numpy()
    found, known = played(path, task, x, normaliser=tmp_path / "scaler.safetensors")
    agrees(found, np.clip(wanted, -2, 2))
    assert known.spread == "log_std" and known.teaches_by == "distribution" and np.ptp(wanted) > 0


def test_a_network_of_rl_games(tmp_path):
    builders = pytest.importorskip("rl_games.algos_torch.network_builder", reason="rl-games is not installed")
    task, x = real(PENDULUM)
    builder = builders.A2CBuilder()
    plain = {"name": "default"}
    builder.load(
        {
            "separate": False,
            "mlp": {"units": [16], "activation": "elu", "initializer": plain},
            "space": {
                "continuous": {
                    "mu_activation": "None",
                    "sigma_activation": "None",
                    "mu_init": plain,
                    "sigma_init": {"name": "const_initializer", "val": -1.0},
                    "fixed_sigma": True,
                }
            },
        }
    )
    torch.manual_seed(0)
    network = builder.build("a2c", actions_num=1, input_shape=(3,), value_size=1, num_seqs=1).eval()

    class Documented(torch.nn.Module):
        """Inputs and outputs of the package's export notebook: ``obs`` -> ``mu``, ``log_std``, ``value``."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, obs):
            return self.network({"obs": obs})[:3]

    path = onnx_of(tmp_path / "p.onnx", Documented(network), (torch.zeros(1, 3),), ["obs"], ["mu", "log_std", "value"])
    with torch.no_grad():
        wanted = network({"obs": torch.from_numpy(x)})[0].numpy()
    found, known = played(path, task, x, action_scale="unit")  # rl_games clips to +-1 and rescales outside its network
    agrees(found, np.clip(2 * wanted, -2, 2))
    assert (known.chosen, known.spread, known.value) == ("mu", "log_std", "value")
