"""A stable-baselines3 policy becomes an ONNX teacher: `cosearch teacher --from-sb3 FILE.zip --env ENV --out mine.onnx`.

Such a file holds pickles, which can run any code when they are loaded, so it is only opened when the user says so. The result is
an ONNX file that :mod:`cosearch.rl.foreign` reads; it runs without stable-baselines3 and without pickles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor, nn

from cosearch.deploy.export import check_parity, to_onnx
from cosearch.planning.builtins import load_builtins
from cosearch.record.durable import write_bytes_atomic
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.foreign.onnx_reader import LAYOUT_KEY
from cosearch.rl.policy import policy_of
from latency_tables.errors import ConfigError, CosearchError, MissingExtraError, RequestError, ShapeError
from latency_tables.text.writing import check_destination, make_folder

ALGORITHMS = ("PPO", "A2C")
PARITY_FRAMES = 64


class Sb3Network(nn.Module):
    """An actor-critic policy of stable-baselines3 on frames with the channels last.

    Args:
        policy: of a PPO or A2C model.
        channels_first: the policy was trained on frames with the channels first.
    """

    def __init__(self, policy: Any, channels_first: bool) -> None:
        super().__init__()
        self.policy, self.channels_first = policy, channels_first

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames ``[batch, height, width, channels]``, uint8 -> logits ``[batch, actions]`` and value ``[batch]``."""
        seen = frames.permute(0, 3, 1, 2) if self.channels_first else frames
        features = self.policy.extract_features(seen)  # scales pictures by 1/255 itself
        shared = self.policy.share_features_extractor
        actor, critic = (features, features) if shared else features
        latent_actor = self.policy.mlp_extractor.forward_actor(actor)
        latent_critic = self.policy.mlp_extractor.forward_critic(critic)
        return self.policy.action_net(latent_actor), self.policy.value_net(latent_critic)[:, 0]


def convert_sb3(path: Path, env: str, out: Path, *, allow_pickle: bool) -> dict[str, object]:
    """Write a policy as an ONNX teacher, after its outputs have been compared.

    Args:
        path: the .zip file that ``model.save`` wrote.
        env: the environment that it plays.
        out: the .onnx file.
        allow_pickle: the user trusts the file's origin.

    Returns:
        ``teacher``, ``algorithm``, ``gamma``, ``parity`` and ``use``, the words for a run.

    Raises:
        RequestError: ``allow_pickle`` is off, or ``out`` is not a .onnx file.
        MissingExtraError: stable-baselines3 is not installed.
        ConfigError: the file is no PPO or A2C model, or the task has vectors or action vectors.
        ShapeError: its observations or actions are not those of ``env``.
        ParityError: the ONNX file gives other outputs.
    """
    if out.suffix != ".onnx":
        raise RequestError(f"--out must be a .onnx file for --from-sb3, got {out}")
    if not allow_pickle:
        raise RequestError(
            f"{path} is a file of stable-baselines3: it holds pickles, which can run any code when they are "
            "loaded. If you trust where it comes from, add --allow-pickle"
        )
    check_destination(out)
    load_builtins()
    probe = make_env(env, EnvOptions(1, 0))
    frame_shape, num_actions, policy = tuple(probe.frame_shape), probe.num_actions, policy_of(probe).name
    probe.close()
    if len(frame_shape) != 3 or policy != "categorical":
        raise ConfigError(
            f"teacher {path}: images and discrete actions only are converted so, {env} has others. `cosearch compress {path} "
            f"--env {env}` reads its weights alone, without pickles"
        )
    model, algorithm = _load(path)
    network = Sb3Network(model.policy, _channels_first(model, frame_shape, num_actions, env)).eval()
    try:
        content = to_onnx(network, frame_shape)
    except CosearchError:
        raise
    except Exception as error:  # whatever a policy class of stable-baselines3, or of the user, raises
        raise ConfigError(
            f"{path}: a policy of this kind cannot be converted, expected an actor-critic policy of PPO or A2C: "
            f"{type(error).__name__}: {str(error)[:200]}"
        ) from error
    frames = np.random.default_rng(0).integers(0, 256, (PARITY_FRAMES, *frame_shape), np.uint8)
    parity = check_parity(network, content, frames)
    make_folder(out.parent)
    write_bytes_atomic(out, _with_layout(content))
    gamma = float(model.gamma)
    return {
        "teacher": str(out),
        "algorithm": algorithm,
        "gamma": gamma,
        "parity": parity.max_abs_difference,
        "use": f"distill.teacher={out} distill.gamma={gamma} distill.reward_std=1",
    }


def _load(path: Path) -> tuple[Any, str]:
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingExtraError(f"stable-baselines3 cannot be imported ({error}): pip install 'cosearch[bench]'") from error
    faults = []
    for name in ALGORITHMS:
        try:
            return getattr(stable_baselines3, name).load(path, device="cpu"), name
        except Exception as error:  # noqa: BLE001  whatever the pickles and the constructor raise
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:150]}")
    raise ConfigError(f"{path}: cannot be loaded as a model of {' or '.join(ALGORITHMS)}: {'; '.join(faults)}")


def _with_layout(content: bytes) -> bytes:
    """The model with the order of its frames in its own metadata: a cube's shape does not tell."""
    model = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(model, {LAYOUT_KEY: "channels_last"})
    return model.SerializeToString()


def _channels_first(model: Any, frame_shape: tuple[int, ...], num_actions: int, env: str) -> bool:
    """Whether the policy sees channels first; raises where it plays something else."""
    seen, actions = model.observation_space, model.action_space
    shape, (h, w, c) = tuple(seen.shape or ()), frame_shape
    if seen.dtype != np.uint8 or shape not in ((h, w, c), (c, h, w)):
        raise ShapeError(f"the policy observes {seen.dtype} {shape}, {env} has uint8 frames {frame_shape}")
    if type(actions).__name__ != "Discrete" or int(actions.n) != num_actions:
        raise ShapeError(f"the policy has the actions {actions}, {env} has {num_actions} discrete ones")
    return shape == (c, h, w) and shape != (h, w, c)
