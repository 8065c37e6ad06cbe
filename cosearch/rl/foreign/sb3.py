"""A zip of stable-baselines3 (PPO, A2C, DQN, SAC, TD3, DDPG) as a policy, without stable-baselines3 and without its pickles.

The weights in ``policy.pth`` are loaded with ``weights_only``; their names and shapes give the network, the readable part of
the JSON file ``data`` gives the algorithm, the activation and the task. What lies pickled inside ``data`` is never loaded, so a
policy with classes of its own is refused: its owner exports it as ONNX.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosearch.rl.foreign.modules import check_finite, exported
from cosearch.rl.foreign.onnx_reader import policy_of_model
from cosearch.rl.foreign.understood import Policy, Said, TaskFacts
from latency_tables.errors import ConfigError, CosearchError, ShapeError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "ELU": nn.ELU,
    "LeakyReLU": nn.LeakyReLU,
    "SiLU": nn.SiLU,
}
MODULES = {  # of the policy's class -> what is read, and the activation that such a policy has where nobody names one
    "stable_baselines3.common.policies": ("PPO or A2C", "Tanh"),
    "stable_baselines3.dqn.policies": ("DQN", "ReLU"),
    "stable_baselines3.sac.policies": ("SAC", "ReLU"),
    "stable_baselines3.td3.policies": ("TD3 or DDPG", "ReLU"),
}
EXTRACTORS = ("FlattenExtractor", "NatureCNN")  # of stable-baselines3's torch_layers
CLIP_MEAN = 2.0  # stable-baselines3's own, of SAC's means with use_sde
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride of stable-baselines3's NatureCNN
INSTEAD = (
    "Export it as ONNX where stable-baselines3 is installed (its page 'Exporting models'), or for frames and discrete actions by "
    "`cosearch teacher --env TASK --from-sb3 FILE --allow-pickle --out TEACHER`, and give that file"
)
BYTES = {"low": 0, "high": 255}  # bounds of pictures that stable-baselines3 divides by 255
MOST_BYTES = 2**30  # of the two entries that are read


class Sb3Policy(nn.Module):
    """The part of such a policy that plays: features, hidden layers, and the heads by the names of its outputs.

    Args:
        features: pictures -> features; None: vectors as they are.
        actor, critic: hidden layers of the two; one network may serve both.
        heads: by name of the output: the layer, and whether it reads the actor's hidden layers.
        log_std: ``[size]``, of a Gaussian that does not depend on the state; None: none.
    """

    def __init__(
        self,
        features: nn.Module | None,
        actor: nn.Module,
        critic: nn.Module | None,
        heads: Mapping[str, tuple[nn.Module, bool]],
        log_std: Tensor | None,
    ) -> None:
        super().__init__()
        self.features, self.actor, self.critic = features, actor, critic
        self.heads = nn.ModuleDict({name: layer for name, (layer, _) in heads.items()})
        self._reads_actor = {name: reads for name, (_, reads) in heads.items()}
        self.log_std = log_std
        self.divisor = 255.0  # of pictures

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        return [*self.heads, *(["log_std"] if self.log_std is not None else [])]

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Observations ``[batch, ...]`` -> one tensor ``[batch, n]`` for each name; the last one ``[n]`` for log_std."""
        features = observation.float() if self.features is None else self.features(observation.float() / self.divisor)
        actor = self.actor(features)
        critic = actor if self.critic is None else self.critic(features)
        found = [layer(actor if self._reads_actor[name] else critic) for name, layer in self.heads.items()]
        if self.log_std is not None:
            found.append(self.log_std + 0.0)  # an output of its own, not the weight
        return tuple(found)


def read_sb3(path: Path, task: TaskFacts, said: Said) -> Policy:
    """Read a policy from a zip of stable-baselines3.

    Args:
        path: of the zip.
        task: that it plays.
        said: what the user says of it.

    Raises:
        ConfigError: it is no such file, is of another algorithm, or has classes of its own.
        ShapeError: it plays another task.
    """
    data, weights = _contents(path)
    try:
        return _policy(path, data, weights, task, said)
    except CosearchError:
        raise
    except KeyError as error:
        raise ConfigError(
            f"{path}: its policy.pth has no {error.args[0]!r}, a policy of stable-baselines3 has. {INSTEAD}"
        ) from error
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ConfigError(
            f"{path}: its data and policy.pth do not fit a policy of stable-baselines3: {' '.join(str(error).split())[:200]}. "
            f"{INSTEAD}"
        ) from error


def _policy(path: Path, data: Mapping[str, object], weights: Mapping[str, Tensor], task: TaskFacts, said: Said) -> Policy:
    algorithm, activation = _kind(path, data)
    check_finite(path, weights)
    _check_task(path, data, task)
    kwargs = _policy_kwargs(data)
    raw = len(task.frame_shape) == 3 and not _divides_by_255(data)
    if raw:
        _check_bytes(path, data)
    if algorithm == "SAC":
        clip = float(str(kwargs.get("clip_mean", CLIP_MEAN)))
        network = _sac_actor(path, weights, activation, task, clip)
    else:
        made = {"DQN": _q_network, "TD3 or DDPG": _td3_actor}.get(algorithm, _actor_critic)
        network = made(path, weights, activation, task)
    if raw:
        network.divisor = 1.0
    squashed = kwargs.get("squash_output") is True and "mean" in network.heads and algorithm == "PPO or A2C"
    if squashed:
        network.heads["mean"] = nn.Sequential(network.heads["mean"], nn.Tanh())
    shape, first = task.frame_shape, _takes_channels_first(data, task)
    if first and said.layout is None and len(shape) == 3:
        said = Said(**{**vars(said), "layout": "channels_first"})
    if (squashed or algorithm in ("SAC", "TD3 or DDPG")) and said.action_scale is None:
        said = Said(**{**vars(said), "action_scale": "unit"})
    model = exported(path, network, shape, network.names, layout=said.layout)
    version = str(data.get("_stable_baselines3_version", "")).strip()
    return policy_of_model(path, model, task, said, f"stable-baselines3 {version} {algorithm}".replace("  ", " "))


def _contents(path: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """The readable JSON and the weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            for name in ("data", "policy.pth"):
                if name not in sizes:
                    raise ConfigError(
                        f"{path}: expected a zip of stable-baselines3 with {name!r} in it, got {', '.join(sorted(sizes))[:200]}"
                    )
                if sizes[name] > MOST_BYTES:
                    raise ConfigError(f"{path}: {name!r} has {sizes[name]:,} bytes, at most {MOST_BYTES:,} are read")
            data = json.loads(archive.read("data"))
            version = archive.read("_stable_baselines3_version").decode() if "_stable_baselines3_version" in sizes else ""
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
    except CosearchError:
        raise
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: its policy.pth holds more than weights, which is never loaded: {' '.join(str(error).split())[:150]}. "
            f"{INSTEAD}"
        ) from error
    except Exception as error:  # a damaged pickle makes torch raise errors of any kind
        raise ConfigError(
            f"{path}: cannot be read as a zip of stable-baselines3: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(data, dict) or not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ConfigError(
            f"{path}: expected stable-baselines3's JSON and a state_dict, got {type(data).__name__} and {type(weights).__name__}"
        )
    return {**data, "_stable_baselines3_version": version}, {str(name): weight.float() for name, weight in weights.items()}


def _kind(path: Path, data: Mapping[str, object]) -> tuple[str, type[nn.Module]]:
    """The algorithm, and the activation of its hidden layers."""
    said = data.get("policy_class")
    where = str(said.get("__module__", "")) if isinstance(said, dict) else ""
    if where not in MODULES:
        raise ConfigError(
            f"{path}: its policy is a class of {where or 'an unknown module'}, expected one of stable-baselines3's own "
            f"({', '.join(kind for kind, _ in MODULES.values())}). {INSTEAD}"
        )
    algorithm, activation = MODULES[where]
    given = _policy_kwargs(data)
    if "activation_fn" in given:
        activation = str(given["activation_fn"]).rstrip("'>").rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{path}: its activation {activation} is none of {', '.join(ACTIVATIONS)}. {INSTEAD}")
    extractor = str(given.get("features_extractor_class", EXTRACTORS[0])).removeprefix("<class '").rstrip("'>")
    if extractor.removeprefix("stable_baselines3.common.torch_layers.") not in EXTRACTORS:
        raise ConfigError(
            f"{path}: its features_extractor_class is {extractor}, expected stable-baselines3's own {' or '.join(EXTRACTORS)}: "
            f"what another one computes is not in the file. {INSTEAD}"
        )
    return algorithm, ACTIVATIONS[activation]


def _policy_kwargs(data: Mapping[str, object]) -> Mapping[str, object]:
    given = data.get("policy_kwargs")
    return given if isinstance(given, dict) else {}


def _divides_by_255(data: Mapping[str, object]) -> bool:
    """Whether the policy divides pictures: stable-baselines3 does so with bytes of the bounds 0 and 255, unless told not to."""
    if _policy_kwargs(data).get("normalize_images") is False:
        return False
    space = data.get("observation_space")
    facts = space if isinstance(space, dict) else {}
    bounds = [{int(float(n)) for n in re.findall(r"-?\d+\.?\d*", str(facts.get(key, wanted)))} for key, wanted in BYTES.items()]
    return facts.get("dtype", "uint8") == "uint8" and bounds == [{number} for number in BYTES.values()]


def _check_bytes(path: Path, data: Mapping[str, object]) -> None:
    """Raise where a policy that divides no pictures may have seen others than the bytes that it would get here."""
    space = data.get("observation_space")
    dtype = str(space.get("dtype", "unknown")) if isinstance(space, dict) else "unknown"
    if dtype != "uint8":
        raise ConfigError(
            f"{path}: its policy divides no pictures by 255 (normalize_images=False, or a dtype or bounds other than of bytes), "
            f"and its pictures are of the dtype {dtype}, expected uint8. {INSTEAD}"
        )


def _check_task(path: Path, data: Mapping[str, object], task: TaskFacts) -> None:
    seen, actions = _shape(data, "observation_space"), data.get("action_space")
    if seen is None:
        raise ConfigError(f"{path}: its observations are of several kinds (a Dict), expected one image or vector. {INSTEAD}")
    h = task.frame_shape
    fits = {h, (h[2], *h[:2])} if len(h) == 3 else {h}
    if seen not in fits:
        raise ShapeError(
            f"{path}: the policy observes {list(seen)}, {task.env} gives {list(h)}. Name the task that it was trained "
            "on, with the same wrappers"
        )
    count = int(str(actions["n"])) if isinstance(actions, dict) and "n" in actions else None
    size = _shape(data, "action_space")
    if (task.box is None) != (count is not None):
        theirs, ours = ("discrete", "vectors") if count is not None else (f"of the shape {list(size or ())}", "discrete")
        raise ShapeError(f"{path}: the policy's actions are {theirs}, those of {task.env} are {ours}: it plays another task")
    got = count if count is not None else (size or (0,))[0]
    if got != task.num_actions:
        raise ShapeError(f"{path}: the policy has {got} actions, {task.env} has {task.num_actions}: it plays another task")


def _shape(data: Mapping[str, object], key: str) -> tuple[int, ...] | None:
    space = data.get(key)
    found = space.get("_shape") if isinstance(space, dict) else None
    return tuple(int(size) for size in found) if isinstance(found, list) else None


def _takes_channels_first(data: Mapping[str, object], task: TaskFacts) -> bool:
    seen = _shape(data, "observation_space")
    return len(task.frame_shape) == 3 and seen != task.frame_shape


def _layers(path: Path, weights: Mapping[str, Tensor], prefix: str, activation: type[nn.Module], *, ends: bool) -> nn.Sequential:
    """The linear layers below a prefix, an activation after each; the last one without where it ``ends`` the network."""
    numbers = sorted(int(m[1]) for name in weights if (m := re.fullmatch(re.escape(prefix) + r"(\d+)\.weight", name)))
    parts: list[nn.Module] = []
    for number in numbers:
        weight = weights[f"{prefix}{number}.weight"]
        if weight.ndim != 2:
            raise ConfigError(f"{path}: {prefix}{number} is no linear layer: its weight is {list(weight.shape)}. {INSTEAD}")
        parts.append(_linear(weights, f"{prefix}{number}"))
        if not (ends and number == numbers[-1]):
            parts.append(activation())
    return nn.Sequential(*parts)


def _linear(weights: Mapping[str, Tensor], name: str) -> nn.Linear:
    weight = weights[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
    return layer


def _features(path: Path, weights: Mapping[str, Tensor], prefix: str, task: TaskFacts) -> nn.Module | None:
    """NatureCNN where the policy sees pictures by one; None where it takes vectors as they are."""
    names = [name for name in weights if name.startswith(prefix)]
    if not names and len(task.frame_shape) == 1:
        return None
    if not names:
        return nn.Flatten()
    parts: list[nn.Module] = []
    channels = min(task.frame_shape) if len(task.frame_shape) == 3 else 0
    for number, (out, kernel, stride) in zip((0, 2, 4), NATURE):
        weight = weights.get(f"{prefix}cnn.{number}.weight")
        if weight is None or tuple(weight.shape[0::2]) != (out, kernel) or weight.ndim != 4:
            raise ConfigError(
                f"{path}: its feature extractor is not stable-baselines3's NatureCNN ({', '.join(names)[:150]}). {INSTEAD}"
            )
        layer = nn.Conv2d(weight.shape[1] if number == 0 else channels, out, kernel, stride)
        layer.load_state_dict({"weight": weight, "bias": weights[f"{prefix}cnn.{number}.bias"]})
        parts += [layer, nn.ReLU()]
        channels = out
    return nn.Sequential(*parts, nn.Flatten(), _linear(weights, f"{prefix}linear.0"), nn.ReLU())


def _actor_critic(path: Path, weights: Mapping[str, Tensor], activation: type[nn.Module], task: TaskFacts) -> Sb3Policy:
    """Of PPO and A2C."""
    apart = any(name.startswith("vf_features_extractor.") for name in weights)
    shared = _features(path, weights, "pi_features_extractor." if apart else "features_extractor.", task)
    actor = _layers(path, weights, "mlp_extractor.policy_net.", activation, ends=False)
    critic = None if apart and shared is not None else _layers(path, weights, "mlp_extractor.value_net.", activation, ends=False)
    heads: dict[str, tuple[nn.Module, bool]] = {"logits" if task.box is None else "mean": (_linear(weights, "action_net"), True)}
    if critic is not None:
        heads["value"] = (_linear(weights, "value_net"), False)
    log_std = weights.get("log_std")
    return Sb3Policy(shared, actor, critic, heads, log_std if log_std is not None and log_std.ndim == 1 else None)


def _q_network(path: Path, weights: Mapping[str, Tensor], activation: type[nn.Module], task: TaskFacts) -> Sb3Policy:
    """Of DQN."""
    layers = _layers(path, weights, "q_net.q_net.", activation, ends=True)
    return Sb3Policy(
        _features(path, weights, "q_net.features_extractor.", task), nn.Identity(), None, {"q_values": (layers, True)}, None
    )


def _sac_actor(
    path: Path, weights: Mapping[str, Tensor], activation: type[nn.Module], task: TaskFacts, clip_mean: float
) -> Sb3Policy:
    """Of SAC: hidden layers and a head, whose means are cut at ``clip_mean`` with use_sde; then a hyperbolic tangent."""
    features = _features(path, weights, "actor.features_extractor.", task)
    hidden = _layers(path, weights, "actor.latent_pi.", activation, ends=False)
    if "actor.mu.0.weight" in weights:
        head = nn.Sequential(_linear(weights, "actor.mu.0"), nn.Hardtanh(-clip_mean, clip_mean), nn.Tanh())
    else:
        head = nn.Sequential(_linear(weights, "actor.mu"), nn.Tanh())
    return Sb3Policy(features, hidden, None, {"mean": (head, True)}, None)


def _td3_actor(path: Path, weights: Mapping[str, Tensor], activation: type[nn.Module], task: TaskFacts) -> Sb3Policy:
    """Of TD3 and DDPG: one stack of layers that ends in a hyperbolic tangent."""
    features = _features(path, weights, "actor.features_extractor.", task)
    stack = _layers(path, weights, "actor.mu.", activation, ends=True)
    return Sb3Policy(features, nn.Identity(), None, {"mean": (nn.Sequential(stack, nn.Tanh()), True)}, None)
